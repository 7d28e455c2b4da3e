"""`flan-jax train` of launch/local.sh told to stop in each phase, and started again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
from launching import LAUNCH

from flan_jax import checkpoints

pytestmark = pytest.mark.slow
# What the log of process 0 ends with when a phase begins.
PHASES = {'data': 'runs/train.gin', 'compile': 'resumed_at_step: 0', 'evaluation': '\nstep 2 '}


@pytest.fixture(scope='module')
def cache_dir(tmp_path_factory):
  return tiny.make_cache(tmp_path_factory.mktemp('cache'))


def start(folder, cache_dir, count, *words):
  """Training in `folder`/run that evaluates every second step."""
  macros = {
    'EVALUATE_EVERY_STEPS': 2,
    'LOG_EVERY_STEPS': 1,
    'WARMUP_STEPS': 1,
    'EVALUATION_MIXTURES': "('tiny',)",
    'EVALUATION_EXAMPLES': 20,
    'EVALUATION_BATCH_SIZE': 2,
    'SAVE_EVERY_STEPS': 1000,
  }
  folder.mkdir(exist_ok=True)
  for old in folder.glob('logs/*'):
    old.unlink()
  return subprocess.Popen(
    [
      *('bash', str(LAUNCH / 'local.sh'), '--logs', str(folder / 'logs'), '--grace', '120'),
      *('--processes', str(count), '--', sys.executable, '-m', 'flan_jax.main', 'train'),
      *('--gin_file', 'runs/demo.gin', '--mixture', 'tiny', '--cache_dir', str(cache_dir)),
      *('--workdir', str(folder / 'run'), '--batch_size', '8', *words),
      *(f'--gin.{name}={value}' for name, value in macros.items()),
    ],
    env={**os.environ, 'XLA_FLAGS': '--xla_backend_optimization_level=0'},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def wait_for(text, folder, running):
  log = folder / 'logs' / '0.log'
  while not (log.exists() and text in log.read_text()):
    assert running.poll() is None, running.communicate()[0]
    time.sleep(0.02)


def evaluations(folder: Path):
  return sorted(int(path.stem) for path in (folder / 'run' / 'evaluations').glob('*.json'))


@pytest.mark.parametrize('count', [1, 2])
@pytest.mark.parametrize('phase', PHASES)
def test_a_notice_in_a_phase_is_75_and_nothing_is_lost(phase, count, cache_dir, tmp_path):
  running = start(tmp_path, cache_dir, count, '--steps', '1000')
  wait_for(PHASES[phase], tmp_path, running)
  running.send_signal(signal.SIGTERM)
  said, _ = running.communicate(timeout=200)
  logs = [path.read_text() for path in sorted((tmp_path / 'logs').iterdir())]
  assert running.returncode == 75, (said, logs)
  if phase != 'evaluation':
    assert all('before the first step' in log for log in logs)
    assert not list((tmp_path / 'run' / 'checkpoints').glob('[0-9]*'))
    return
  with checkpoints.Checkpoints(tmp_path / 'run' / 'checkpoints') as saved:
    step = saved.latest_intact()
    assert saved.meta(step)['unevaluated'] and step == 2
  assert all(f'after step {step}; its checkpoint is saved.' in log for log in logs)
  assert evaluations(tmp_path) == [0]
  # Started again, it makes up for the evaluation first.
  running = start(tmp_path, cache_dir, count, '--steps', '3')
  running.communicate(timeout=300)
  assert running.returncode == 0
  assert evaluations(tmp_path) == [0, 2, 3]
