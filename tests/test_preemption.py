"""A notice is heard at any moment, and what it leads to depends on what there is to lose."""

import http.server
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from flan_jax import preemption

# The main thread sleeps in C, as in a compilation, and no Python handler can run.
PROGRAM = """
import ctypes, sys
from flan_jax import preemption
with preemption.Notices(leave=True) as notices:
  if 'collect' in sys.argv:
    notices.collect()
  print('ready', flush=True)
  while ctypes.CDLL(None).sleep(20):
    pass
"""


def program(*words):
  running = subprocess.Popen(
    [sys.executable, '-c', PROGRAM, *words],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  assert running.stdout.readline() == 'ready\n'
  return running


@pytest.mark.parametrize(
  'notice, status', [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)]
)
def test_before_the_first_step_a_process_leaves_at_once(notice, status):
  running = program()
  started = time.monotonic()
  running.send_signal(notice)
  _, said = running.communicate(timeout=15)
  assert running.returncode == status and time.monotonic() - started < 10
  name = notice.name
  assert said == f'flan-jax: Stopped by {name} before the first step; nothing is lost.\n'


def test_a_second_signal_ends_at_once_and_the_same_twice_is_one():
  running = program('collect')
  running.send_signal(signal.SIGTERM)
  running.send_signal(signal.SIGTERM)  # SLURM tells a step and srun tells it again
  time.sleep(preemption._SAME_NOTICE_SECONDS + 0.2)
  assert running.poll() is None
  running.send_signal(signal.SIGTERM)
  _, said = running.communicate(timeout=15)
  assert running.returncode == 128 + signal.SIGTERM
  assert said == 'flan-jax: Stopped by a second signal, without saving.\n'


def test_collected_notices_are_told_and_handlers_put_back():
  before = signal.getsignal(signal.SIGTERM)
  with preemption.Notices() as notices:
    notices.check()
    os.kill(os.getpid(), signal.SIGUSR1)
    wait_until(lambda: notices.reason)
    with pytest.raises(preemption.Preempted, match='Stopped by SIGUSR1.'):
      notices.check()
  assert signal.getsignal(signal.SIGTERM) is before
  assert isinstance(preemption.stopped('SIGUSR1', 3), preemption.Preempted)
  assert type(preemption.stopped('SIGINT', 3)) is KeyboardInterrupt


def test_what_another_process_has_ends_this_one_too():
  notices = preemption.Notices()
  notices.agree = lambda mine: True
  with pytest.raises(preemption.Preempted, match='Stopped by a notice to another process.'):
    notices.check()


class Metadata(http.server.BaseHTTPRequestHandler):
  values = {'preempted': 'FALSE', 'maintenance-event': 'NONE'}

  def do_GET(self):
    assert self.headers['Metadata-Flavor'] == 'Google'
    self.send_response(200)
    self.end_headers()
    self.wfile.write(self.values[self.path.rpartition('/')[2]].encode())

  def log_message(self, *_):
    pass


@pytest.mark.parametrize(
  'key, value', [('preempted', 'TRUE'), ('maintenance-event', 'TERMINATE_ON_HOST_MAINTENANCE')]
)
def test_a_notice_of_the_metadata_server_is_heard(key, value, monkeypatch):
  monkeypatch.setattr(preemption, '_METADATA_SECONDS', 0.05)
  monkeypatch.setattr(Metadata, 'values', dict(Metadata.values))
  with http.server.ThreadingHTTPServer(('localhost', 0), Metadata) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv('GCE_METADATA_HOST', f'localhost:{server.server_port}')
    notices = preemption.Notices()
    preemption.watch_metadata_server(notices)
    time.sleep(0.2)
    assert notices.reason is None
    Metadata.values[key] = value
    wait_until(lambda: notices.reason)
    server.shutdown()
  assert notices.reason == f'the notice {key}={value}'


def test_another_machine_has_no_metadata_server(monkeypatch):
  monkeypatch.setenv('GCE_METADATA_HOST', 'localhost:1')
  with pytest.raises(ValueError, match='--gce_notices: the metadata server of Google Cloud does n'):
    preemption.watch_metadata_server(preemption.Notices())


def wait_until(condition, seconds=10):
  end = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < end
    time.sleep(0.01)
