"""Run metrics: lines that survive kills, rates that exclude pauses."""

import json
import os
import struct
import subprocess
import sys
import textwrap
import time

import pytest
from tensorboardX.proto.event_pb2 import Event

from flan_jax import metrics


def read(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_lines_are_written_for_machines_and_tensorboard(tmp_path):
  with metrics.MetricWriter(tmp_path) as writer:
    writer.write(1, 'train', {'loss': 2.0})
    writer.write(2, 'train', {'loss': float('nan')})
  lines = read(tmp_path / 'metrics.jsonl')
  assert [line['loss'] for line in lines] == [2.0, 'nan']
  assert lines[0]['step'] == 1 and lines[0]['kind'] == 'train'
  found = [(e.step, v.tag, v.simple_value) for e in events(tmp_path) for v in e.summary.value]
  assert found[0] == (1, 'train/loss', 2.0) and found[1][:2] == (2, 'train/loss')


def events(workdir):
  (path,) = (workdir / 'tensorboard').glob('events.out.tfevents.*')
  data, at = path.read_bytes(), 0
  while at < len(data):  # length, its checksum, the event, its checksum
    (length,) = struct.unpack_from('<Q', data, at)
    yield Event.FromString(data[at + 12 : at + 12 + length])
    at += 12 + length + 4


def test_what_a_resumed_run_does_again_is_hidden_from_tensorboard(tmp_path):
  with metrics.MetricWriter(tmp_path, first_step=7):
    pass
  version, started = events(tmp_path)
  assert version.file_version == 'brain.Event:2'
  assert started.step == 8 and started.session_log.status == started.session_log.START


def test_a_full_disk_is_one_error_and_nothing_is_printed_after_it(tmp_path):
  script = """
    import resource, sys
    from flan_jax import metrics
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
    try:
      with metrics.MetricWriter(sys.argv[1]) as writer:
        for step in range(1000):
          writer.write(step, 'train', {'loss': 1.0, 'accuracy': 0.5})
    except OSError as e:
      print(step, e.filename)
  """
  command = [sys.executable, '-c', textwrap.dedent(script), str(tmp_path)]
  done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
  step, filename = done.stdout.split()
  assert 5 < int(step) < 100 and filename == str(tmp_path)
  assert done.stderr == ''


def test_a_resumed_run_drops_torn_lines_and_steps_it_does_again(tmp_path):
  with metrics.MetricWriter(tmp_path) as writer:
    for step in (1, 2, 3):
      writer.write(step, 'train', {'loss': float(step)})
  with (tmp_path / 'metrics.jsonl').open('a') as f:
    f.write('{"step": 4, "lo')
  with metrics.MetricWriter(tmp_path, first_step=2) as writer:
    writer.write(3, 'train', {'loss': 30.0})
  assert [(line['step'], line['loss']) for line in read(tmp_path / 'metrics.jsonl')] == [
    (1, 1.0),
    (2, 2.0),
    (3, 30.0),
  ]


def test_an_evaluation_that_is_done_again_is_there_once(tmp_path):
  with metrics.MetricWriter(tmp_path) as writer:
    writer.write(2, 'train', {'loss': 2.0})
    writer.write(2, 'evaluation', {'score': 20.0})
  with metrics.MetricWriter(tmp_path, first_step=2):
    pass
  assert len(read(tmp_path / 'metrics.jsonl')) == 2
  with metrics.MetricWriter(tmp_path, first_step=2, evaluates_first=True) as writer:
    writer.write(2, 'evaluation', {'score': 21.0})
  lines = read(tmp_path / 'metrics.jsonl')
  assert [(line['kind'], line.get('score')) for line in lines] == [
    ('train', None),
    ('evaluation', 21.0),
  ]


def test_rates_leave_out_what_runs_inside_a_pause():
  throughput = metrics.Throughput(flops_per_step=1e9)
  throughput.read()
  throughput.step(1000)
  time.sleep(0.05)
  with throughput.paused():
    time.sleep(0.5)
  rates = throughput.read()
  assert rates['tokens_per_second'] > 1000 / 0.45
  assert rates['mfu'] > 0
  assert 'float32 product' in throughput.peak_source


def test_no_rate_is_above_a_measured_peak():
  throughput = metrics.Throughput(flops_per_step=1e18)
  throughput.step(1)
  assert throughput.read()['mfu'] == 1.0
  time.sleep(0.05)
  throughput.step(1)
  assert 0 < throughput.read()['mfu'] <= 1.0


def test_the_step_line_names_units():
  values = {
    'loss': 1.8434,
    'accuracy': 0.61,
    'tokens_per_second': 412_345.0,
    'packed': 0.97,
    'mfu': 0.38,
    'grad_norm': 1.25,
    'learning_rate': 1e-3,
    'skipped_updates': 2.0,
  }
  assert metrics.step_line(120, values) == (
    'step 120  loss 1.843  accuracy 61.0%  412.3k tokens/s  packed 97%  MFU 38%  grad 1.25  '
    'lr 1.0e-03  2 updates skipped'
  )


def test_a_workdir_that_cannot_be_written_is_an_error_that_names_it(tmp_path):
  (tmp_path / 'metrics.jsonl').mkdir()
  with pytest.raises(OSError, match='metrics.jsonl'):
    metrics.MetricWriter(tmp_path)


def test_pytorch_is_not_imported_for_tensorboard(tmp_path):
  (tmp_path / 'torch.py').write_text("raise SystemExit('PyTorch was imported')\n")
  script = "import flan_jax.metrics, sys; assert 'torch' not in sys.modules"
  environment = {**os.environ, 'PYTHONPATH': str(tmp_path)}
  subprocess.run([sys.executable, '-c', script], env=environment, check=True)
