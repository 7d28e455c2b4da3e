"""Draws examples of a mixture as text: how many of each task, which ones, and in what order.

Sources are read from front to end, so drawn lines wait in a nameless file until all are there; in
memory are only their places, 24 bytes a draw.
"""

import dataclasses
import hashlib
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Self

import numpy as np

from flan_jax.data.mixture import Mixture, MixtureError
from flan_jax.data.order import permute, shuffled
from flan_jax.data.text_file import TextFileError


@dataclasses.dataclass(frozen=True)
class TextDraws:
  """What is drawn.

  Attributes:
    of_task: task -> indices of examples, int64, in the order of the draws.
    order: where each draw, task after task, comes from: int64 [number of draws].
    repeated: draws of an example that was drawn before.
  """

  of_task: Mapping[str, np.ndarray]
  order: np.ndarray
  repeated: int


def choose_draws(
  mixture: Mixture, num_examples: Mapping[str, int], count: int, *, seed: int
) -> TextDraws:
  """Draws exactly `count` examples; each task has its rate's share to within one.

  Which task gets the odd draw is up to the seed, so that many small tasks all have their chance.
  Within a task no example comes again before all others have come.

  Args:
    mixture: what to draw from.
    num_examples: examples of each of its tasks, above 0.
    count: draws in all.
    seed: decides everything.

  Raises:
    MixtureError: the rates add up to nothing.
  """
  rates = mixture.task_rates(num_examples)
  total = math.fsum(rates.values())
  if total <= 0:
    raise MixtureError(f"The rates of mixture '{mixture.name}' add up to {total:g}; give one.")
  tasks = sorted(rates)
  # Systematic sampling: one random phase for all, floors of the running sum of quotas.
  quotas = np.cumsum([rates[task] for task in tasks]) / total * count
  quotas[-1] = count
  phase = (_key(seed, 'phase') >> 11) / 2.0**53
  ends = np.floor(quotas + phase).astype(np.int64)
  counts = np.diff(ends, prepend=0)
  of_task = {
    task: _examples(task, int(number), num_examples[task], seed)
    for task, number in zip(tasks, counts, strict=True)
    if number
  }
  repeated = sum(max(0, len(drawn) - num_examples[task]) for task, drawn in of_task.items())
  return TextDraws(of_task, shuffled(count, seed=seed, window=0), repeated)


def _examples(task: str, count: int, size: int, seed: int) -> np.ndarray:
  """The first `count` draws of a task: a permutation of its examples, another each epoch."""
  epochs = []
  for epoch in range(-(-count // size)):
    positions = np.arange(min(size, count - epoch * size))
    keys = np.full(len(positions), _key(seed, f'{epoch}/{task}'), np.uint64)
    epochs.append(permute(positions, np.full(len(positions), size), keys))
  return np.concatenate(epochs)


def _key(seed: int, name: str) -> int:
  digest = hashlib.blake2b(f'{seed}/text/{name}'.encode(), digest_size=8).digest()
  return int.from_bytes(digest, 'little')


class DrawnText:
  """Keeps the drawn lines of one task after the other; a context manager."""

  def __init__(self, draws: TextDraws, folder: Path):
    self._draws = draws
    self._folder = folder
    self._starts = np.zeros(len(draws.order), np.int64)
    self._sizes = np.zeros(len(draws.order), np.int64)
    self._filled = 0

  def __enter__(self) -> Self:
    try:
      self._file = tempfile.TemporaryFile(dir=self._folder)
    except OSError as e:
      raise TextFileError(f"Cannot write in '{self._folder}': {e.strerror}.") from e
    return self

  def __exit__(self, *exception: object) -> None:
    self._file.close()

  def take(self, task: str, lines: Iterator[bytes], report: Callable[[int], None]) -> int:
    """Keeps the lines of a task that were drawn, reading no further than the last of them.

    Raises:
      TextFileError: fewer lines than were counted, or a full disk.
    """
    drawn = self._draws.of_task[task]
    wanted, place = np.unique(drawn, return_inverse=True)
    starts, sizes = np.zeros_like(wanted), np.zeros_like(wanted)
    found = 0
    for number, line in enumerate(lines):
      if number != wanted[found]:
        continue
      try:
        starts[found], sizes[found] = self._file.tell(), len(line)
        self._file.write(line)
      except OSError as e:
        raise TextFileError(f"Cannot write in '{self._folder}': {e.strerror}.") from e
      found += 1
      report(found)
      if found == len(wanted):
        break
    if found < len(wanted):
      raise TextFileError(f"The data of task '{task}' changed while it was read; start again.")
    here = slice(self._filled, self._filled + len(drawn))
    self._starts[here], self._sizes[here] = starts[place], sizes[place]
    self._filled = here.stop
    return len(drawn)

  def in_order(self) -> Iterator[bytes]:
    """Yields every drawn line in mixed order."""
    try:
      for draw in self._draws.order.tolist():
        self._file.seek(int(self._starts[draw]))
        yield self._file.read(int(self._sizes[draw]))
    except OSError as e:
      raise TextFileError(f'Cannot read what was drawn: {e.strerror}.') from e
