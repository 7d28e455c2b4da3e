"""Several processes train as one: the same losses, the same data, one checkpoint for any number."""

import json
import os
import signal
import time

import numpy as np
import processes
import pytest
import tiny

from flan_jax import checkpoints, optimizers, partitioning, train

STEPS = 8


@pytest.fixture(scope='module')
def cache_dir(tmp_path_factory):
  return tiny.make_cache(tmp_path_factory.mktemp('cache'))


def config_of(cache_dir, steps=STEPS):
  return tiny.make_config(
    cache_dir,
    steps=steps,
    mesh=partitioning.MeshConfig(data=2, fsdp=-1),
    checkpoint=checkpoints.CheckpointConfig(save_every_steps=1000),
    log_every_steps=1,
    optimizer=optimizers.adafactor(processes.LEARNING_RATE),
  )


def losses(workdir):
  lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  return {line['step']: line['loss'] for line in lines if line['kind'] == 'train'}


def check_rows(cache_dir, workdir, count):
  """Each process had its own rows, bitwise those of one process, and together all."""
  whole = train.make_loader(config_of(cache_dir)).batch(7)
  seen = np.zeros(8, int)
  for i in range(count):
    with np.load(workdir / f'rows-{i}.npz') as mine:
      first, length = int(mine['first']), len(mine['decoder_target_tokens'])
      seen[first : first + length] += 1
      for name, values in whole.items():
        np.testing.assert_array_equal(mine[name], values[first : first + length])
  np.testing.assert_array_equal(seen, 1)


def wait_for_line(workdir, running):
  path = workdir / 'metrics.jsonl'
  while not (path.exists() and path.read_text().endswith('\n')):
    assert all(process.poll() is None for process in running), processes.finish(running)
    time.sleep(0.05)


@pytest.mark.slow
def test_two_processes_stopped_in_one_are_continued_by_a_single_one(cache_dir, tmp_path):
  one, two = tmp_path / 'one', tmp_path / 'two'
  two.mkdir()
  running = processes.start(2, cache_dir, two, devices=2, steps=10**6)
  wait_for_line(two, running)
  running[1].send_signal(signal.SIGTERM)
  said = processes.finish(running, status=75, timeout=60)
  assert '2 processes, 2 x cpu: process 0 on ' in said[0] and '2 processes' not in said[1]
  with checkpoints.Checkpoints(two / 'checkpoints') as saved:
    step = saved.latest_intact()
  for text in said:
    assert f'after step {step}; its checkpoint is saved.' in text
  check_rows(cache_dir, two, 2)

  # One process from the start, and one that goes on where the two were.
  steps = step + 3
  assert step < 500
  train.train(config_of(cache_dir, steps), one)
  train.train(config_of(cache_dir, steps), two)
  assert losses(two).keys() == losses(one).keys() == set(range(1, steps + 1))
  assert losses(two) == pytest.approx(losses(one), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize('count', [2, 4])
def test_fifty_steps_of_several_processes_are_those_of_one(count, cache_dir, tmp_path):
  one, many = tmp_path / 'one', tmp_path / 'many'
  many.mkdir()
  processes.finish(processes.start(count, cache_dir, many, steps=50))
  train.train(config_of(cache_dir, 50), one)
  assert losses(many).keys() == losses(one).keys() == set(range(1, 51))
  assert losses(many) == pytest.approx(losses(one), rel=1e-6)
  check_rows(cache_dir, many, count)


@pytest.mark.slow
def test_a_run_goes_on_with_any_number_of_processes_devices_and_axes(cache_dir, tmp_path):
  run, whole = tmp_path / 'run', tmp_path / 'whole'
  run.mkdir()
  stages = [  # processes, devices, mesh
    (4, 8, {'data': 2, 'fsdp': 2, 'tensor': 2}),
    (1, 1, {'data': 1}),
    (2, 4, {'fsdp': 2, 'tensor': 2, 'data': 1}),
    (1, 2, {'fsdp': 2, 'data': 1}),
    (2, 8, {'data': 8}),
  ]
  for number, (count, devices, mesh) in enumerate(stages, start=1):
    steps = 2 * number
    running = processes.start(count, cache_dir, run, devices=devices, steps=steps, mesh=mesh)
    said = processes.finish(running)
    if number > 1:
      assert all(f'Going on from step {steps - 2} in ' in text for text in said)
    check_rows(cache_dir, run, count)
  train.train(config_of(cache_dir, steps), whole)
  assert losses(run).keys() == losses(whole).keys()
  assert losses(run) == pytest.approx(losses(whole), rel=1e-6)


@pytest.mark.slow
def test_save_now_saves_in_all_and_training_goes_on(cache_dir, tmp_path):
  running = processes.start(2, cache_dir, tmp_path, devices=2, steps=10**6)
  wait_for_line(tmp_path, running)
  (tmp_path / 'save_now').touch()
  while (tmp_path / 'save_now').exists():
    assert all(process.poll() is None for process in running), processes.finish(running)
    time.sleep(0.05)
  running[0].send_signal(signal.SIGTERM)
  processes.finish(running, status=75)
  with checkpoints.Checkpoints(tmp_path / 'checkpoints') as saved:
    assert len(saved.steps()) == 2
    assert saved.latest_intact() == saved.steps()[1]


@pytest.fixture
def namespaces():
  if why := processes.Namespaces.refused():
    pytest.skip(why)
  with processes.Namespaces(f'fj{os.getpid() % 10**6}x') as two:
    yield two


@pytest.mark.slow
def test_two_hosts_of_a_network_are_one_program(cache_dir, tmp_path, namespaces):
  one, two = tmp_path / 'one', tmp_path / 'two'
  two.mkdir()
  said = processes.finish(processes.start(2, cache_dir, two, steps=50, by=namespaces))
  first, second = namespaces.names
  assert f'process 0 on {first} has 4, 1 on {second} has 4.' in said[0]
  train.train(config_of(cache_dir, 50), one)
  assert losses(two) == pytest.approx(losses(one), rel=1e-6)
  check_rows(cache_dir, two, 2)
