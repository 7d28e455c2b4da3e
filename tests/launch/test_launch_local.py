"""launch/local.sh really runs processes: each told who it is, and they end together."""

import json
import signal
import subprocess
import sys
import time

import pytest
from launching import LAUNCH, launch

# Notes its arguments and its environment, then does what the file of its process id says.
PROGRAM = """
import json, os, sys, time, signal
flags = dict(zip(sys.argv[2::2], sys.argv[3::2]))
print(json.dumps({'flags': flags, 'xla': os.environ['XLA_FLAGS'],
                  'platforms': os.environ['JAX_PLATFORMS']}), flush=True)
exec(sys.argv[1].split('|')[int(flags['--process_id'])])
"""
WAIT = 'time.sleep(60)'
STUBBORN = f'signal.signal(signal.SIGTERM, signal.SIG_IGN); {WAIT}'
SAVES = f'signal.signal(signal.SIGTERM, lambda *_: sys.exit(75)); {WAIT}'
FAILS = "print('it broke'); time.sleep(0.5); sys.exit(3)"


def words(folder, actions, *options):
  return [
    *('--logs', str(folder / 'logs'), '--processes', str(len(actions)), *options),
    *('--', sys.executable, '-IS', '-c', PROGRAM, '|'.join(actions)),
  ]


def logged(folder):
  return [json.loads(p.read_text().splitlines()[0]) for p in sorted((folder / 'logs').iterdir())]


def test_each_process_knows_who_it_is(tmp_path):
  setting = {'XLA_FLAGS': '--xla_dump_to=x'}
  done = launch('local.sh', *words(tmp_path, ['0', '0'], '--devices', '4'), setting=setting)
  assert done.returncode == 0, done.stderr
  flags = [log['flags'] for log in logged(tmp_path)]
  assert [f['--process_id'] for f in flags] == ['0', '1']
  assert {f['--process_count'] for f in flags} == {'2'}
  address = {f['--coordinator_address'] for f in flags}
  assert len(address) == 1 and address.pop().startswith('127.0.0.1:')
  xla = '--xla_dump_to=x --xla_force_host_platform_device_count=4'
  assert {(log['xla'], log['platforms']) for log in logged(tmp_path)} == {(xla, 'cpu')}


@pytest.mark.parametrize(
  'actions, status',
  [
    ([WAIT, FAILS], 3),
    (['os.kill(os.getpid(), signal.SIGKILL)', WAIT], 128 + signal.SIGKILL),
    ([STUBBORN, FAILS], 3),
    (['sys.exit(75)', 'time.sleep(0.7); print("finished by itself")'], 75),
  ],
  ids=['fails', 'killed', 'other ignores SIGTERM', 'preempted'],
)
def test_one_that_dies_ends_all(actions, status, tmp_path):
  started = time.monotonic()
  grace = '1' if STUBBORN in actions else '30'
  done = launch('local.sh', *words(tmp_path, actions, '--grace', grace))
  assert done.returncode == status
  assert time.monotonic() - started < 30  # none waits for its minute
  assert f'left with exit status {status}' in done.stderr
  if status == 3:
    assert 'it broke' in done.stderr
  if status == 75:
    assert 'finished by itself' in (tmp_path / 'logs' / '1.log').read_text()


@pytest.mark.parametrize('notice', [signal.SIGTERM, signal.SIGINT])
def test_a_notice_reaches_every_process(notice, tmp_path):
  started = subprocess.Popen(
    ['bash', str(LAUNCH / 'local.sh'), *words(tmp_path, [SAVES, SAVES])],
    # Tests that run in the background ignore it, and so would bash.
    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
  )
  logs = [tmp_path / 'logs' / f'{i}.log' for i in range(2)]
  while not all(log.exists() and log.read_text().endswith('\n') for log in logs):
    assert started.poll() is None
    time.sleep(0.05)
  time.sleep(0.3)  # until they listen
  started.send_signal(notice)
  assert started.wait(timeout=20) == 75
