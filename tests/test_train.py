"""The trainer: what must not change a run does not, and what must stop it does."""

import dataclasses
import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from flan_jax import (
  checkpoints,
  guard,
  optimizers,
  parameter_names,
  partitioning,
  train,
  train_state,
)

ONE_AXIS = partitioning.MeshConfig(data=8)


@pytest.fixture(scope='module')
def cache_dir(tmp_path_factory):
  return tiny.make_cache(tmp_path_factory.mktemp('cache'))


def arrays(state):
  return {name: np.asarray(x) for name, x in parameter_names.by_path(state).items()}


def assert_same(left, right, tolerance=0.0):
  left, right = arrays(left), arrays(right)
  assert left.keys() == right.keys()
  for name in left:
    np.testing.assert_allclose(
      left[name], right[name], rtol=tolerance, atol=tolerance, err_msg=name
    )


def take_steps(config, batches, count=1):
  """Runs `train_step` alone on given batches; returns the state and the last metrics."""
  with partitioning.use_mesh(config.mesh):
    state = tiny.random_state(config)
    step = jax.jit(functools.partial(train.train_step, config=config, collections=2))
    for batch in batches[:count]:
      placed = {
        k: jax.device_put(v, partitioning.spec('batch', 'length')) for k, v in batch.items()
      }
      state, metrics = step(state, placed)
  return state, jax.device_get(metrics)


def batches_of(cache_dir, config, count):
  loader = train.make_loader(config)
  return [loader.batch(step) for step in range(count)]


def test_a_resumed_run_ends_bitwise_as_the_uninterrupted_one(cache_dir, tmp_path):
  config = tiny.make_config(cache_dir, mesh=ONE_AXIS, model={'dropout_rate': 0.1})
  whole = train.train(config, tmp_path / 'whole')
  train.train(dataclasses.replace(config, steps=3), tmp_path / 'parts')
  resumed = train.train(config, tmp_path / 'parts')
  assert int(resumed.step) == 6
  assert_same(resumed, whole)
  steps = [
    json.loads(line)['step'] for line in (tmp_path / 'parts/metrics.jsonl').read_text().splitlines()
  ]
  assert steps == sorted(set(steps))


def test_any_mesh_and_any_split_into_microbatches_give_one_devices_update(cache_dir):
  config = tiny.make_config(cache_dir, mesh=ONE_AXIS)
  batches = batches_of(cache_dir, config, 2)
  reference, metrics = take_steps(config, batches, 2)
  mesh = partitioning.MeshConfig(data=2, fsdp=2, tensor=2)
  state, other = take_steps(dataclasses.replace(config, mesh=mesh, microbatches=2), batches, 2)
  assert_same(state.model, reference.model, 2e-5)
  for name in ('loss', 'correct', 'weight', 'input_tokens', 'collection_loss', 'grad_norm'):
    np.testing.assert_allclose(other[name], metrics[name], rtol=1e-5, err_msg=name)


def unpack(batch, limits):
  """One row per packed example, as a loader with pack=False would make them."""
  rows = []
  for row in range(len(batch['encoder_segment_ids'])):
    for segment in range(1, batch['encoder_segment_ids'][row].max() + 1):
      here = batch['encoder_segment_ids'][row] == segment
      there = batch['decoder_segment_ids'][row] == segment
      rows.append((row, here, there))
  out = {}
  for name, value in batch.items():
    length = limits[0] if name.startswith('encoder') else limits[1]
    filled = np.zeros((len(rows), length), value.dtype)
    for i, (row, here, there) in enumerate(rows):
      kept = value[row][here if name.startswith('encoder') else there]
      filled[i, : len(kept)] = np.minimum(kept, 1) if name.endswith('segment_ids') else kept
    out[name] = filled
  return out


def test_packed_rows_give_the_loss_and_gradients_of_separate_rows(cache_dir):
  config = tiny.make_config(cache_dir, mesh=ONE_AXIS)
  (packed,) = batches_of(cache_dir, config, 1)
  separate = unpack(packed, (64, 32))
  spare = -len(separate['encoder_segment_ids']) % 8
  separate = {k: np.pad(v, ((0, spare), (0, 0))) for k, v in separate.items()}
  assert len(separate['encoder_segment_ids']) > 8
  state, metrics = take_steps(config, [packed])
  other, other_metrics = take_steps(config, [separate])
  for name in ('loss', 'correct', 'weight', 'target_tokens', 'grad_norm'):
    np.testing.assert_allclose(other_metrics[name], metrics[name], rtol=1e-5, err_msg=name)
  assert_same(other.model, state.model, 1e-5)


def test_an_update_that_is_not_finite_is_skipped_and_counted(cache_dir):
  config = tiny.make_config(cache_dir, mesh=ONE_AXIS)
  good, bad = batches_of(cache_dir, config, 2)
  bad = bad | {'decoder_loss_weights': np.full_like(bad['decoder_loss_weights'], np.inf)}
  before, _ = take_steps(config, [good])
  after, metrics = take_steps(config, [good, bad], 2)
  assert_same((after.model, after.opt_state), (before.model, before.opt_state))
  assert int(metrics['skipped_updates']) == 1 and int(after.step) == 2


def test_a_diverging_run_stops_and_keeps_its_checkpoint(cache_dir, tmp_path):
  config = tiny.make_config(
    cache_dir,
    mesh=ONE_AXIS,
    steps=40,
    optimizer=optimizers.adafactor(
      lambda step: jnp.where(step < 4, 1e-2, jnp.inf), clip_global_norm=None
    ),
    guard=guard.GuardConfig(max_consecutive_skips=3),
  )
  with pytest.raises(guard.DivergedError, match='3 updates in a row'):
    train.train(config, tmp_path)
  with checkpoints.Checkpoints(tmp_path / 'checkpoints') as saved:
    assert saved.latest_intact() in (3, 6)


def test_fine_tuning_starts_from_parameters_with_a_fresh_optimizer(cache_dir, tmp_path):
  config = tiny.make_config(cache_dir, mesh=ONE_AXIS, steps=2)
  first = train.train(config, tmp_path / 'first')
  tuned = dataclasses.replace(
    config, initial_checkpoint_path=str(tmp_path / 'first'), seed=5, steps=1
  )
  with (
    partitioning.use_mesh(ONE_AXIS),
    checkpoints.Checkpoints(tmp_path / 'no', config.checkpoint) as empty,
  ):
    abstract = train_state.abstract_state(tuned)
    state = train_state.find_origin(tuned, abstract, empty, train.make_loader(tuned)).load()
    fresh = jax.jit(lambda key: train_state.initialize(tuned, key))(jax.random.key(5))
  assert_same(state.model, first.model)
  assert_same(state.opt_state, fresh.opt_state)
  assert int(state.step) == 0


def test_a_run_resumes_on_another_mesh(cache_dir, tmp_path):
  config = tiny.make_config(cache_dir, mesh=ONE_AXIS, steps=3)
  whole = train.train(dataclasses.replace(config, steps=4), tmp_path / 'whole')
  train.train(config, tmp_path / 'parts')
  other = partitioning.MeshConfig(data=2, fsdp=2, tensor=2)
  resumed = train.train(dataclasses.replace(config, steps=4, mesh=other), tmp_path / 'parts')
  assert_same(resumed.model, whole.model, 2e-5)


def test_the_evaluation_sees_the_first_and_the_last_step(cache_dir, tmp_path):
  seen = []

  def evaluate(model, step):
    seen.append(step)
    return {'score': float(step)}

  config = tiny.make_config(cache_dir, mesh=ONE_AXIS, steps=5, evaluate_every_steps=2)
  train.train(config, tmp_path, evaluate=evaluate)
  assert seen == [0, 2, 4, 5]
  lines = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
  assert [line['step'] for line in lines if line['kind'] == 'evaluation'] == [0, 2, 4, 5]
  train.train(config, tmp_path, evaluate=evaluate)
  assert seen == [0, 2, 4, 5], 'a finished run has nothing left to do'


def test_sigterm_saves_the_step_and_the_run_goes_on_from_there(cache_dir, tmp_path):
  config = tiny.make_config(
    cache_dir,
    mesh=ONE_AXIS,
    steps=2000,
    checkpoint=checkpoints.CheckpointConfig(save_every_steps=2000),
    log_every_steps=1,
  )

  def terminate_after_the_first_line():
    while not (tmp_path / 'metrics.jsonl').exists() or not (tmp_path / 'metrics.jsonl').read_text():
      stopped.wait(0.05)
    os.kill(os.getpid(), signal.SIGTERM)

  stopped = threading.Event()
  thread = threading.Thread(target=terminate_after_the_first_line)
  thread.start()
  with pytest.raises(KeyboardInterrupt, match='SIGTERM after step'):
    train.train(config, tmp_path)
  thread.join()
  with checkpoints.Checkpoints(tmp_path / 'checkpoints') as saved:
    assert 1 <= saved.latest_intact() < 2000


def test_what_does_not_fit_is_refused_before_anything_runs(cache_dir, tmp_path):
  def run(workdir='run', **changes):
    train.train(tiny.make_config(cache_dir, **changes), tmp_path / workdir)

  with pytest.raises(ValueError, match='MICROBATCHES=3; use one of 1, 2, 4, 8'):
    tiny.make_config(cache_dir, microbatches=3)
  with pytest.raises(ValueError, match='TRAIN_STEPS=0'):
    tiny.make_config(cache_dir, steps=0)
  with pytest.raises(ValueError, match='4 rows cannot be split over data x fsdp = 8 devices'):
    run(mesh=ONE_AXIS, microbatches=2)
  with pytest.raises(ValueError, match='needs 6 devices, but there are 8'):
    run(mesh=partitioning.MeshConfig(data=3, fsdp=2))
  with pytest.raises(ValueError, match='cannot be split over tensor = 4'):
    run(mesh=partitioning.MeshConfig(data=2, tensor=4))


def test_another_seed_or_model_is_refused_on_resume(cache_dir, tmp_path, capsys):
  config = tiny.make_config(cache_dir, mesh=ONE_AXIS, steps=1)
  train.train(config, tmp_path)
  assert 'Compiled' in capsys.readouterr().out
  with pytest.raises(ValueError, match='seed was 0 and is 1'):
    train.train(dataclasses.replace(config, seed=1, steps=2), tmp_path)
  wider = dataclasses.replace(config.model, mlp_dim=64)
  with pytest.raises(ValueError, match='of another model'):
    train.train(dataclasses.replace(config, model=wider, steps=2), tmp_path)
  assert 'Compiled' not in capsys.readouterr().out  # nobody waits for what is refused


PROGRAM = """
import sys
sys.path.insert(0, sys.argv[3])
import tiny
from flan_jax import partitioning, train
config = tiny.make_config(
  sys.argv[1], steps=30, mesh=partitioning.MeshConfig(), model={'dropout_rate': 0.1}
)
train.train(config, sys.argv[2])
"""


def start_run(cache_dir, workdir):
  environment = {**os.environ, 'XLA_FLAGS': '--xla_backend_optimization_level=0'}
  return subprocess.Popen(
    [sys.executable, '-c', PROGRAM, str(cache_dir), str(workdir), str(Path(__file__).parent)],
    env=environment,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
  )


def parameters_of(workdir):
  config = tiny.make_config('unused')
  with partitioning.use_mesh(ONE_AXIS), checkpoints.Checkpoints(workdir / 'checkpoints') as saved:
    step = saved.latest_intact()
    abstract = partitioning.abstract(
      lambda key: train_state.initialize(config, key), jax.random.key(0)
    )
    state = saved.restore(step, abstract.model, (abstract.opt_state, abstract.guard))
  return step, state


def check_kills(cache_dir, folder, kills, seed=0):
  """Runs once whole and once with SIGKILLs at random moments of its life; compares the ends."""
  started = time.monotonic()
  whole = start_run(cache_dir, folder / 'whole')
  assert whole.wait() == 0, whole.stderr.read().decode()
  seconds = time.monotonic() - started
  rng = np.random.default_rng(seed)
  for _ in range(kills):
    process = start_run(cache_dir, folder / 'killed')
    try:
      process.wait(timeout=rng.uniform(0.2, 0.95) * seconds)
    except subprocess.TimeoutExpired:
      process.send_signal(signal.SIGKILL)
      process.wait()
  last = start_run(cache_dir, folder / 'killed')
  assert last.wait() == 0, last.stderr.read().decode()
  step, state = parameters_of(folder / 'killed')
  whole_step, whole_state = parameters_of(folder / 'whole')
  assert step == whole_step == 30
  assert_same(state, whole_state)


def test_a_run_killed_at_a_random_moment_ends_bitwise_as_the_uninterrupted_one(cache_dir, tmp_path):
  check_kills(cache_dir, tmp_path, kills=1)


@pytest.mark.slow
@pytest.mark.kill
def test_twenty_kills_change_nothing(cache_dir, tmp_path):
  check_kills(cache_dir, tmp_path, kills=20, seed=1)
