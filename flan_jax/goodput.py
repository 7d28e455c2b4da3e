"""Where the wall time of a run went, over all its starts: its productive share, and the rest.

Productive are the steps whose result was kept. Steps done again after a crash, and the time between
an end and the next start, count as lost; process 0 keeps the record in WORKDIR/goodput.json.
"""

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from flan_jax import whole_file

FILE = 'goodput.json'
STEP = 'step'
# What only a reader of several starts can see.
REDONE, DOWN = 'redone', 'down'


@dataclasses.dataclass(frozen=True)
class Start:
  """One process's part of a run.

  Attributes:
    began, ended: seconds since 1970, the second as of the last record.
    first_step, last_step: updates done before and after.
    seconds: by cause; their sum is the time from beginning to end.
  """

  began: float
  ended: float
  first_step: int
  last_step: int
  seconds: dict[str, float]


class Stopwatch:
  """Counts the seconds of a process by cause, and records them; every second has one cause.

  Args:
    workdir: where the record is; None keeps none (every process but the first).
    clock: seconds that never go backwards, for a clock that is set while a run goes on must not
      change what is counted.
  """

  def __init__(self, workdir: Path | None, *, clock: Callable[[], float] = time.monotonic):
    self._path = None if workdir is None else workdir / FILE
    self._earlier = [] if self._path is None else read(self._path.parent)
    self._clock, self._last, self._cause = clock, clock(), 'start'
    self._began, self._first_step = time.time(), 0
    self._seconds: dict[str, float] = {}

  @contextlib.contextmanager
  def spend(self, cause: str) -> Iterator[None]:
    """Counts what runs inside for `cause`, and what follows for the cause before."""
    before = self._turn(cause)
    try:
      yield
    finally:
      self._turn(before)

  def begin_steps(self, step: int) -> None:
    """From here on, what is spent on nothing else is spent on steps; `step` are done."""
    self._first_step = step
    self._turn(STEP)

  def record(self, step: int) -> float:
    """Writes what was counted up to an update, and returns the productive share of all so far."""
    self._turn(self._cause)
    seconds = {cause: round(value, 3) for cause, value in self._seconds.items()}
    ended = self._began + sum(self._seconds.values())
    starts = [*self._earlier, Start(self._began, ended, self._first_step, step, seconds)]
    if self._path is not None:
      rows = [dataclasses.asdict(start) for start in starts]
      whole_file.write(self._path, json.dumps(rows, indent=1) + '\n')
    return productive_share(starts)

  def doing(self) -> tuple[str, float]:
    """What time is spent on now, and for how many seconds already; any thread may ask."""
    return self._cause, self._clock() - self._last

  def _turn(self, cause):
    now, before = self._clock(), self._cause
    self._seconds[before] = self._seconds.get(before, 0.0) + now - self._last
    self._last, self._cause = now, cause
    return before


def read(workdir: Path) -> list[Start]:
  """The starts of a run, oldest first; none where there is no record, or none that can be read."""
  try:
    rows = json.loads((workdir / FILE).read_text(encoding='utf-8'))
    return [Start(**row) for row in rows]
  except (OSError, ValueError, TypeError):
    return []


def by_cause(starts: Sequence[Start]) -> dict[str, float]:
  """Seconds by cause, from the first beginning to the last end, the longest first.

  Of a start whose last steps were not kept, their part of its step time is 'redone'.
  """
  total: dict[str, float] = {}
  for start, following in zip(starts, [*starts[1:], None], strict=True):
    seconds = dict(start.seconds)
    done = start.last_step - start.first_step
    if following is not None:
      seconds[DOWN] = max(following.began - start.ended, 0.0)
      lost = min(max(start.last_step - following.first_step, 0), done)
      if lost:
        seconds[REDONE] = seconds.get(STEP, 0.0) * lost / done
        seconds[STEP] = seconds.get(STEP, 0.0) - seconds[REDONE]
    for cause, value in seconds.items():
      total[cause] = total.get(cause, 0.0) + value
  return dict(sorted(total.items(), key=lambda item: -item[1]))


def productive_share(starts: Sequence[Start]) -> float:
  """Seconds of steps that were kept over all seconds, 0 to 1."""
  seconds = by_cause(starts)
  return seconds.get(STEP, 0.0) / max(sum(seconds.values()), 1e-9)


def sentence(starts: Sequence[Start]) -> str:
  """`Goodput 91.2% of 3,600 s in 2 starts: compile 4.1%, evaluation 3.0%, redone 1.7%`."""
  seconds = by_cause(starts)
  total = max(sum(seconds.values()), 1e-9)
  rest = [f'{c} {s / total:.1%}' for c, s in seconds.items() if c != STEP and s / total >= 5e-4]
  counted = f'{len(starts)} starts' if len(starts) > 1 else 'one start'
  return (
    f'Goodput {productive_share(starts):.1%} of {total:,.0f} s in {counted}'
    + (': ' if rest else '')
    + ', '.join(rest)
  )
