"""Runs of several processes of which one dies, or two lose their network."""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from bench import ROOT, SAVES_EACH_STEP, Bench, FailedError, Process, SkippedError

sys.path.insert(0, str(ROOT / 'tests'))
import processes

# JAX ends its processes itself, at once, when the one with its coordination service is gone.
LEADER = 'Either the leader task was preempted/died'
# Seconds that a step may take until the watchdog ends its process.
LIMIT_SECONDS = 15


def one_of_four(bench: Bench) -> Iterator[tuple[str, str]]:
  """SIGKILL to one of four processes: the others end with a sentence, and all four go on."""
  whole = bench.folder / 'whole-of-four'
  _finish(bench, _start(bench, whole, 4, SAVES_EACH_STEP))
  for victim in (0, int(bench.rng.integers(1, 4))):
    workdir = bench.new_workdir('four')
    running = _start(bench, workdir, 4)
    first = running[0]
    first.wait_until(lambda f=first: '\nstep 6 ' in f.said)
    running[victim].signal(signal.SIGKILL)
    for i, survivor in enumerate(running):
      if i != victim:
        yield f'process {victim} of four killed', _named(bench, survivor, f'process {victim}')
    _finish(bench, _start(bench, workdir, 4))
    yield f'process {victim} of four killed, all four again', bench.compare(workdir, whole)


def network(bench: Bench) -> Iterator[tuple[str, str]]:
  """The cable between two hosts is cut during the steps: both end with a sentence, and go on."""
  if why := processes.Namespaces.refused():
    raise SkippedError(why)
  whole = bench.folder / 'whole-of-two'
  _finish(bench, _start(bench, whole, 2, SAVES_EACH_STEP))
  with processes.Namespaces(f'fault{bench.rng.integers(10**5)}x') as hosts:
    workdir = bench.new_workdir('two')
    running = _start(bench, workdir, 2, by=hosts)
    running[0].wait_until(lambda: '\nstep 6 ' in running[0].said)
    hosts.cut()
    for i, survivor in enumerate(running):
      yield 'network cut between two hosts', _named(bench, survivor, f'process {1 - i}')
  _finish(bench, _start(bench, workdir, 2))
  yield 'network cut between two hosts, then not', bench.compare(workdir, whole)


def _start(bench, workdir: Path, count: int, words=(), *, by=None) -> list[Process]:
  address = by.address if by else f'localhost:{processes.free_port()}'
  return [
    bench.start(
      workdir,
      [
        *words,
        f'--gin.guard.GuardConfig.hang_seconds={LIMIT_SECONDS}',
        *('--coordinator_address', address, '--process_count', str(count)),
        *('--process_id', str(i)),
      ],
      by=by(i) if by else (),
      name=f'log-{i}',
    )
    for i in range(count)
  ]


def _finish(bench: Bench, running: list[Process]) -> None:
  for process in running:
    bench.finish(process)


def _named(bench: Bench, survivor: Process, lost: str) -> str:
  """The sentence with which a process ends that has lost another; it names the lost one."""
  if survivor.finish() == -signal.SIGABRT and lost == 'process 0' and LEADER in survivor.said:
    return "ended by JAX, whose message names the 'leader task'"
  end = bench.refusal(survivor)
  if lost not in end:
    raise FailedError(f'{end} does not name {lost}')
  return end
