"""Processes that are killed at random moments, or told to stop in each phase of a run."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

from bench import COMPILED, STEPS, Bench, FailedError, Process, committed, saving

# Of the kills, those at any moment since the process began; the others are during its steps.
EARLY_SHARE = 0.2
# Seconds after a notice within which a process must have saved and left: a Spot VM's.
GRACE_SECONDS = 30


def kills(bench: Bench, number: int) -> Iterator[tuple[str, str]]:
  """SIGKILL at random moments; each run is started again until it ends, then compared."""
  _measure(bench)
  left = number
  while left:
    workdir = bench.new_workdir('killed')
    during = {'start': 0, 'steps': 0, 'an asynchronous save': 0}
    while left and (phase := _start_and_kill(bench, workdir)):
      during[phase] += 1
      left -= 1
    if not any(during.values()):  # the first start ended before its kill
      continue
    bench.go_on(workdir)
    end = bench.compare(workdir)
    for phase, count in during.items():
      for _ in range(count):
        yield f'SIGKILL during {phase}', end


def _measure(bench: Bench) -> None:
  """How long a start and its steps take."""
  workdir = bench.new_workdir('measured')
  running = bench.start(workdir)
  running.wait_until(lambda: COMPILED in running.said)
  bench.seconds_to_compiled = time.monotonic() - running.began
  bench.finish(running)
  bench.seconds_of_steps = time.monotonic() - running.began - bench.seconds_to_compiled
  bench.compare(workdir)


def _start_and_kill(bench: Bench, workdir: Path) -> str | None:
  """Goes on with a run and kills it; returns the phase, or None where the run was faster."""
  saved = committed(workdir)
  left = 1 - max(saved, default=0) / STEPS
  running = bench.start(workdir)
  if bench.rng.random() < EARLY_SHARE:
    running.wait(bench.rng.uniform(0, bench.seconds_to_compiled))
  else:
    running.wait_until(lambda: COMPILED in running.said)
    running.wait(bench.rng.uniform(0, left * bench.seconds_of_steps))
  if not running.running:
    bench.finish(running)
    return None
  running.signal(signal.SIGKILL)
  if saving(workdir):
    return 'an asynchronous save'
  return 'steps' if COMPILED in running.said else 'start'


def notices(bench: Bench) -> Iterator[tuple[str, str]]:
  """SIGTERM in each phase: exit status 75 within the grace time, then the run goes on."""
  for phase in (
    'imports',
    'data',
    'compilation',
    'first evaluation',
    'steps',
    'evaluation',
    'save',
  ):
    for _ in range(3 if phase == 'save' else 1):
      workdir = bench.new_workdir('told')
      running = bench.start(workdir)
      if not running.wait_until(lambda p=phase, r=running, w=workdir: _began(p, r, w)):
        raise FailedError(f'{phase}: {running.last_line()}')
      running.signal(signal.SIGTERM)
      status = running.finish(GRACE_SECONDS)
      if status != 75:
        raise FailedError(f'exit status {status} in place of 75; {running.last_line()}')
      if 'after step' in running.last_line():
        bench.compare_checkpoints(workdir)
      yield f'SIGTERM during {phase}', bench.go_on(workdir)


def _began(phase: str, running: Process, workdir: Path) -> bool:
  """Whether a phase has begun."""
  if phase == 'imports':
    return 'jaxlib' in Path(f'/proc/{running.pid}/maps').read_text()
  if phase == 'save':
    return saving(workdir)
  signs = {
    'data': 'more settings at their defaults',
    'compilation': 'resumed_at_step: 0',
    'first evaluation': COMPILED,
    'steps': '\nstep 4 ',
    'evaluation': '\nstep 8 ',
  }
  return signs[phase] in running.said
