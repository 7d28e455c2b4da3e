"""Notices that a run is to end: signals of a cluster or a person, and Google's metadata server.

Imports nothing slow, so that a notice is heard while JAX is still being imported. What a notice
leads to depends on what would be lost: until the first step a process leaves at once, afterwards
the trainer saves first.
"""

import contextlib
import os
import signal
import sys
import threading
import time
import urllib.request
from collections.abc import Callable

# EX_TEMPFAIL of sysexits.h: nothing is lost, start me again.
EXIT_STATUS = 75
# SLURM sends what --signal says, often USR1; Kubernetes and Google's machines send TERM.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
ELSEWHERE = 'a notice to another process'
# SLURM may deliver one notice twice: to the step and through srun.
_SAME_NOTICE_SECONDS = 1.0
_METADATA_SECONDS = 5.0
_METADATA = {'preempted': 'FALSE', 'maintenance-event': 'NONE'}  # key -> value while all is well


class Preempted(KeyboardInterrupt):
  """The run was told to end and has saved; the same command goes on."""


class Notices:
  """Hears notices while it is entered; a second signal ends the process at once.

  Signals are heard only when entered in the main thread, as Python has it. They are read in a
  thread of its own, because the main thread may be in a compilation that takes minutes.

  Args:
    leave: Leave with EXIT_STATUS on the first notice, until `collect` is called.
  """

  def __init__(self, *, leave: bool = False):
    self.reason: str | None = None  # what the first notice was
    self.leaving = leave
    # Called before leaving, with the reason.
    self.farewell: Callable[[str], None] = lambda reason: None
    # Whether any process has a notice, given whether this one has; all must ask together.
    self.agree: Callable[[bool], bool] = bool
    self._heard_at = 0.0
    self._handlers = {}

  def __enter__(self):
    if threading.current_thread() is threading.main_thread():
      reader, self._writer = os.pipe()
      os.set_blocking(self._writer, False)
      self._thread = threading.Thread(target=self._listen, args=(reader,), daemon=True)
      self._thread.start()
      self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
      self._handlers = {s: signal.signal(s, lambda *_: None) for s in SIGNALS}
    return self

  def __exit__(self, *exc_info):
    if self._handlers:
      for number, handler in self._handlers.items():
        signal.signal(number, handler)
      signal.set_wakeup_fd(self._wakeup)
      os.close(self._writer)
      self._thread.join()

  def collect(self) -> None:
    """From now on there is something to lose: a notice only sets `reason`."""
    self.leaving = False

  def check(self) -> None:
    """Raises Preempted in every process if any has a notice; all must call it together."""
    if self.agree(self.reason is not None):
      self.reason = self.reason or ELSEWHERE
      raise Preempted(f'Stopped by {self.reason}.')

  def notice(self, reason: str) -> None:
    """Takes a notice."""
    if self.reason is None:
      self.reason, self._heard_at = reason, time.monotonic()
    if self.leaving:
      with contextlib.suppress(Exception):
        self.farewell(self.reason)
      status = _status(self.reason)
      _leave(f'Stopped by {self.reason} before the first step; nothing is lost.', status)

  def _listen(self, reader: int) -> None:
    with os.fdopen(reader, 'rb', buffering=0) as signals:
      while byte := signals.read(1):
        if byte[0] not in SIGNALS:
          continue
        again = self.reason is not None
        if again and time.monotonic() - self._heard_at >= _SAME_NOTICE_SECONDS:
          _leave('Stopped by a second signal, without saving.', 128 + byte[0])
        self.notice(signal.Signals(byte[0]).name)


def stopped(reason: str, step: int) -> KeyboardInterrupt:
  """What to raise once `step` is saved: Preempted, or KeyboardInterrupt where a person stopped."""
  kind = KeyboardInterrupt if reason == 'SIGINT' else Preempted
  return kind(f'Stopped by {reason} after step {step}; its checkpoint is saved.')


def watch_metadata_server(notices: Notices) -> None:
  """Asks Google's metadata server for notices from now on, in a thread.

  Raises:
    ValueError: it does not answer.
  """
  try:
    _metadata('preempted')
  except OSError as e:
    raise ValueError(
      f'--gce_notices: the metadata server of Google Cloud does not answer ({e}); leave the flag '
      'out on other machines.'
    ) from e

  def watch():
    while notices.reason is None:
      for key, normal in _METADATA.items():
        # One answer that is late or lost is no notice.
        with contextlib.suppress(OSError):
          if (value := _metadata(key)) != normal:
            return notices.notice(f'the notice {key}={value}')
      time.sleep(_METADATA_SECONDS)

  threading.Thread(target=watch, name='metadata', daemon=True).start()


def _metadata(key: str) -> str:
  host = os.environ.get('GCE_METADATA_HOST', 'metadata.google.internal')
  url = f'http://{host}/computeMetadata/v1/instance/{key}'
  request = urllib.request.Request(url, headers={'Metadata-Flavor': 'Google'})
  with urllib.request.urlopen(request, timeout=5) as answer:
    return answer.read().decode().strip()


def _status(reason: str) -> int:
  return 128 + signal.SIGINT if reason == 'SIGINT' else EXIT_STATUS


def _leave(message: str, status: int) -> None:
  """Ends the process from any thread, whatever the main thread is in."""
  with contextlib.suppress(Exception):
    sys.stdout.flush()
    print(f'flan-jax: {message}', file=sys.stderr, flush=True)
  os._exit(status)
