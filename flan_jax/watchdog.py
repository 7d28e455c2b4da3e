"""Ends a process that hangs, and names the processes that are gone or that it waits for.

Devices that wait for a process that is gone, or for a file system, wait for ever and say nothing. A
run of one process is watched as well.
"""

import contextlib
import faulthandler
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Sequence

import jax

from flan_jax import goodput, multihost
from flan_jax.naming import some

# An evaluation and a compilation may take any time; barriers have limits of their own.
WATCHED = {goodput.STEP: 'Step', 'data': 'The data of step', 'save': 'The save of step'}
_BOARD = 'flan_jax/board'
# What errors of XLA begin with, whatever their Python type.
_STATUS = re.compile(r'(UNKNOWN|INTERNAL|UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|CANCELLED): ')
# Seconds between two lines of a process, and without one until it counts as gone.
_WRITE_SECONDS = 4.0
_GONE_SECONDS = 10.0


class Watchdog:
  """Watches a run from threads of its own while it is entered.

  Args:
    watch: knows what the process is at, and since when.
    seconds: for which a step, the wait for its data, or a save may last.
    step: returns the number of the step in hand.
    end: called with the sentence that says what hangs; ends the process by default.
  """

  def __init__(
    self,
    watch: goodput.Stopwatch,
    seconds: float,
    step: Callable[[], int],
    end: Callable[[str], None] | None = None,
  ):
    self._watch, self._seconds, self._step = watch, seconds, step
    self._end = end or _hung
    self._stopped = threading.Event()
    self._board = Board()

  def __enter__(self):
    self._looking = threading.Thread(target=self._look, name='watchdog', daemon=True)
    self._looking.start()
    if jax.process_count() > 1:
      # A thread of its own, for it waits on a network that may be what is broken.
      threading.Thread(target=self._tell, name='board', daemon=True).start()
    return self

  def __exit__(self, kind, error, trace):
    """Ends the process by the names of the others where they have left a collective."""
    self._seconds = float('inf')
    if jax.process_count() > 1 and _STATUS.match(str(error)):
      # Until who is gone can be told from who is there; process 0 has the service, so it goes last.
      time.sleep(_GONE_SECONDS + (2 if jax.process_index() else 3) * _WRITE_SECONDS)
      if gone := self._board.silent():
        why = str(error).splitlines()[0][:200]
        _leave(
          f'Lost {self._board.named(gone)} at step {self._step()} ({why}). See its log; the same '
          'command goes on from the last checkpoint.'
        )
    self._stopped.set()
    self._looking.join()

  def _look(self) -> None:
    while not self._stopped.wait(min(self._seconds / 20, 5)):
      cause, seconds = self._watch.doing()
      if cause in WATCHED and seconds > self._seconds:
        self._end(self._sentence(cause))
        return

  def _tell(self) -> None:
    while not self._stopped.wait(_WRITE_SECONDS):
      with contextlib.suppress(jax.errors.JaxRuntimeError):  # the service may be what is gone
        self._board.write(f'{self._watch.doing()[0]} {self._step()}')
        self._board.read()

  def _sentence(self, cause: str) -> str:
    waits = ''
    if jax.process_count() > 1:
      silent = self._board.silent()
      others = self._board.elsewhere(f'{cause} {self._step()}')
      waits = f'Nothing comes from {self._board.named(silent)}. ' if silent else ''
      waits += f'Elsewhere: {some(others, 4)}. ' if others else ''
    return (
      f'{WATCHED[cause]} {self._step()} did not end within {self._seconds:g} s '
      f'(GuardConfig.hang_seconds). {waits}The stacks above show where it hangs; the same command '
      'goes on from the last checkpoint.'
    )


class Board:
  """On which each process writes what it is at, for those that wait for it."""

  def __init__(self):
    self._hosts = multihost.host_names()
    self._lines = 0
    self._seen: dict[int, tuple[str, float]] = {}  # a process's last line, and when it was new
    self._began = time.monotonic()

  def write(self, text: str) -> None:
    """Writes this process's line, which differs from the one before by a number."""
    self._lines += 1
    line = f'{self._lines} {text}'
    key = f'{_BOARD}/{jax.process_index()}'
    multihost.service().key_value_set(key, line, allow_overwrite=True)

  def read(self) -> None:
    """Takes down the lines of all."""
    for name, line in multihost.service().key_value_dir_get(f'{_BOARD}/'):
      process = int(name.rpartition('/')[2])
      if self._seen.get(process, ('', 0.0))[0] != line:
        self._seen[process] = line, time.monotonic()

  def silent(self) -> list[int]:
    """Processes without a new line; where not even our own comes back, it is the service: 0's.

    Asks nobody, for the network may be what is broken: it goes by what `read` took down.
    """
    since = time.monotonic() - _GONE_SECONDS
    silent = [
      process
      for process in range(jax.process_count())
      if self._seen.get(process, ('', self._began))[1] < since
    ]
    return [0] if jax.process_index() in silent else silent

  def elsewhere(self, text: str) -> list[str]:
    """Which of those that write are at something else, and at what."""
    silent = self.silent()
    return [
      f'{self.named([process])} is at {line.partition(" ")[2]}'
      for process, (line, _) in sorted(self._seen.items())
      if process not in silent and line.partition(' ')[2] != text
    ]

  def named(self, processes: Sequence[int]) -> str:
    """Their ids and hosts."""
    return some((f'process {process} on {self._hosts[process]}' for process in processes), 4)


def _hung(sentence: str) -> None:
  faulthandler.dump_traceback(all_threads=True)
  _leave(sentence)


def _leave(sentence: str) -> None:
  """Ends the process without JAX's shutdown, which would wait for those that are gone."""
  with contextlib.suppress(Exception):
    sys.stdout.flush()
  print(f'flan-jax: {sentence}', file=sys.stderr, flush=True)
  os._exit(1)
