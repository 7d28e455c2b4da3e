"""Runs jobs in worker processes of which any may die without harm to the others.

A worker takes one job after another, so that its imports are paid once. One that is killed (out
of memory, a crash in C++) fails the job it held, by name, and is replaced. What a job does, and
how its progress is shown, is left to the caller.
"""

import collections
import dataclasses
import multiprocessing
import multiprocessing.connection
import multiprocessing.reduction
import os
import pickle
import signal
import tempfile
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, BinaryIO, Literal

_LAST_WORDS = 400  # characters of a dead worker's standard error that its message quotes


@dataclasses.dataclass(frozen=True)
class Event:
  """What a worker says of its job.

  Attributes:
    job: name of the job.
    kind: 'started'; 'progress' (value: what the job reported); 'done' (value: what it returned);
      'raised' (value: a traceback); 'died' (value: a sentence).
    value: see kind.
    error: the exception of 'raised' as one line.
  """

  job: str
  kind: Literal['started', 'progress', 'done', 'raised', 'died']
  value: Any = None
  error: str = ''


@dataclasses.dataclass
class _Worker:
  process: Any
  connection: multiprocessing.connection.Connection
  stderr: BinaryIO
  job: str


def run_jobs(
  function: Callable[[Any, Callable[[Any], None]], Any], jobs: Mapping[str, Any], *, workers: int
) -> Generator[Event, None, None]:
  """Runs `function(job, report)` for every job in at most `workers` spawned processes.

  Args:
    function: a function at the top of a module; what it reports and returns must pickle.
    jobs: name -> argument, started in this order.
    workers: most processes at a time.

  Yields:
    Events as they come. Closing the iterator ends the workers.

  Raises:
    ValueError: if workers is below 1.
  """
  if workers < 1:
    raise ValueError(f'workers={workers} cannot run anything; use 1 or more.')
  waiting = collections.deque(jobs.items())
  running: dict[Any, _Worker] = {}  # by connection
  try:
    while waiting or running:
      while waiting and len(running) < workers:
        worker = _start(function)
        running[worker.connection] = worker
        yield from _hand_out(worker, waiting)
      for connection in multiprocessing.connection.wait(list(running)):
        event = _receive(running[connection])
        yield event
        if event.kind == 'died':
          _end(running.pop(connection))
        elif event.kind in ('done', 'raised'):
          if waiting:
            yield from _hand_out(running[connection], waiting)
          else:
            _end(running.pop(connection))
  finally:
    for worker in running.values():
      worker.process.terminate()
      _end(worker)


def _start(function: Callable) -> _Worker:
  # Spawned, not forked: TensorFlow and JAX hold threads and locks that a fork would break.
  context = multiprocessing.get_context('spawn')
  ours, theirs = context.Pipe()
  stderr = tempfile.TemporaryFile()
  process = context.Process(
    target=_work,
    args=(function, theirs, multiprocessing.reduction.DupFd(stderr.fileno())),
    daemon=True,
  )
  process.start()
  theirs.close()  # else the death of the worker would not read as the end of the pipe
  return _Worker(process, ours, stderr, job='')


def _hand_out(worker: _Worker, waiting: collections.deque) -> Iterator[Event]:
  worker.job, argument = waiting.popleft()
  try:
    worker.connection.send((worker.job, argument))
  except OSError:
    pass  # It died while idle; reading from it will say so.
  yield Event(worker.job, 'started')


def _receive(worker: _Worker) -> Event:
  try:
    kind, value, error = worker.connection.recv()
  except (EOFError, OSError, pickle.UnpicklingError):
    worker.process.join()
    return Event(worker.job, 'died', _death(worker))
  return Event(worker.job, kind, value, error)


def _death(worker: _Worker) -> str:
  code = worker.process.exitcode
  if code is not None and code < 0:
    how = f'was ended by {signal.Signals(-code).name}'
    if -code == signal.SIGKILL:
      how += ' (often the kernel, out of memory: use fewer workers)'
  else:
    how = f'ended with status {code}'
  worker.stderr.seek(0)
  words = ' '.join(worker.stderr.read().decode('utf-8', 'replace').split())[-_LAST_WORDS:]
  return f'Its worker process {how}.' + (f' It said: {words}' if words else '')


def _end(worker: _Worker) -> None:
  worker.connection.close()  # an idle worker leaves at the end of its pipe
  worker.process.join()
  worker.stderr.close()


def _work(function: Callable, connection: multiprocessing.connection.Connection, stderr) -> None:
  """Serves jobs until the other end of the pipe is closed; runs in the worker."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
  try:
    file_descriptor = stderr.detach()
  except OSError:
    return  # The parent left while this process was starting.
  # Warnings of C++ libraries would tear the progress bar; they are quoted if the worker dies.
  os.dup2(file_descriptor, 1)
  os.dup2(file_descriptor, 2)
  while True:
    try:
      _, argument = connection.recv()
    except (EOFError, OSError):
      return
    try:
      answer = ('done', function(argument, lambda value: _report(connection, value)), '')
    except Exception as e:
      answer = ('raised', traceback.format_exc(), f'{type(e).__name__}: {e}')
    try:
      connection.send(answer)
    except OSError:
      return


def _report(connection: multiprocessing.connection.Connection, value: Any) -> None:
  try:
    connection.send(('progress', value, ''))
  except OSError:
    os._exit(1)  # The parent is gone: nobody will read what this job makes.
