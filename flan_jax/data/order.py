"""Which example comes when: the endless order of draws from a mixture, in closed form.

Draws come in windows. Window w takes from each task a count that keeps its cumulative rate exact,
and the i-th draw of a task is its example i, shuffled anew each epoch by a permutation that is
computed, never stored. Any window costs the same, so a run can seek anywhere.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

_FRACTION_BITS = 32
_ONE = 1 << _FRACTION_BITS
MAX_WINDOWS = 1 << 31  # w * fraction stays below 2**63
_ROUNDS = 8
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclasses.dataclass(frozen=True)
class Draws:
  """Examples drawn: `tasks` int32 [num_draws] and the example `indices` in them, int64."""

  tasks: np.ndarray
  indices: np.ndarray

  def __len__(self) -> int:
    return len(self.tasks)

  def __add__(self, other: Draws) -> Draws:
    return Draws(
      np.concatenate([self.tasks, other.tasks]), np.concatenate([self.indices, other.indices])
    )

  def first(self, count: int) -> Draws:
    """The first `count` draws."""
    return Draws(self.tasks[:count], self.indices[:count])


class DrawOrder:
  """The draws of each window, a pure function of names, rates, sizes, seed and window."""

  def __init__(
    self,
    tasks: Sequence[str],
    rates: np.ndarray,
    num_examples: Sequence[int],
    *,
    seed: int,
    draws_per_window: int,
    epochs: Sequence[int] | None = None,
  ):
    """Fixes the quota of each task.

    Args:
      tasks: names; they key the permutations, so adding a task leaves the others' order.
      rates: float64 [num_tasks], adding up to 1.
      num_examples: examples of each task, above 0.
      seed: seed of the run.
      draws_per_window: mean number of draws of a window, without fillers.
      epochs: examples of each row of a task, one after the other; epoch e of training draws every
        row once, by its example e modulo this. One of each row by default.
    """
    self.num_examples = np.asarray(num_examples, dtype=np.int64)
    self._epochs = np.ones_like(self.num_examples) if epochs is None else np.asarray(epochs)
    # Fixed point, so that every machine computes the same counts; rates are off by 2**-33 at most.
    quota = np.rint(np.asarray(rates, np.float64) * draws_per_window * _ONE).astype(np.int64)
    self._quota = np.maximum(quota, 1)
    self._whole, self._fraction = self._quota >> _FRACTION_BITS, self._quota & (_ONE - 1)
    self._phase = (_keys(seed, 'phase', tasks) >> np.uint64(64 - _FRACTION_BITS)).astype(np.int64)
    self._main_keys = _keys(seed, 'main', tasks)
    self._filler_keys = _keys(seed, 'filler', tasks)

  def drawn_before(self, window: int) -> np.ndarray:
    """Main draws of each task before a window, int64 [num_tasks]: floor(window * quota + phase)."""
    if not 0 <= window <= MAX_WINDOWS:
      raise ValueError(f'Window {window:,} is outside 0 to {MAX_WINDOWS:,}; lower the step.')
    return window * self._whole + ((window * self._fraction + self._phase) >> _FRACTION_BITS)

  def main(self, window: int) -> Draws:
    """The draws of a window that every example takes part in once per epoch, task by task."""
    start = self.drawn_before(window)
    counts = self.drawn_before(window + 1) - start
    tasks = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    offsets = np.arange(len(tasks)) - np.repeat(np.cumsum(counts) - counts, counts)
    return self._examples(tasks, np.repeat(start, counts) + offsets, self._main_keys)

  def fillers(self, window: int, count: int) -> Draws:
    """At least `count` further draws, in an order whose every prefix keeps the mixture's rates.

    With a prefix that makes the window (1 + f) times as long, each task has
    floor((1 + f) * quota + theta) draws in all, within one of what its rate asks. Theta is uniform
    in [0, 1) over windows, given the main draws, so that no task gains in the long run (but for
    under 0.1 example a window, as a prefix ends at a count and not at an f). Fillers have
    permutations of their own: how many a window has depends on lengths, and the epochs of the main
    draws must not.
    """
    start = self.drawn_before(window)
    main = self.drawn_before(window + 1) - start
    quota = self._quota / _ONE
    theta = self._theta(window, main)
    fraction = (count + 1) / quota.sum()
    while True:
      totals = np.floor((1 + fraction) * quota + theta).astype(np.int64)
      extra = np.maximum(totals - main, 0)
      if extra.sum() >= count:
        break
      fraction *= 1.5
    tasks = np.repeat(np.arange(len(extra), dtype=np.int32), extra)
    number = np.arange(len(tasks)) - np.repeat(np.cumsum(extra) - extra, extra)
    when = (main[tasks] + number + 1 - theta[tasks]) / quota[tasks]
    order = np.argsort(when, kind='stable')[:count]
    tasks, number = tasks[order], number[order]
    return self._examples(tasks, start[tasks] + number, self._filler_keys)

  def _theta(self, window: int, main: np.ndarray) -> np.ndarray:
    """Phases for which floor(quota + theta) is the count of main draws."""
    fraction = self._fraction / _ONE
    random = _uniform(_mix(self._filler_keys ^ _mix(np.uint64(window) + _GOLDEN)))
    rounded_up = main > self._whole
    return np.where(rounded_up, 1 - fraction + random * fraction, random * (1 - fraction))

  def _examples(self, tasks: np.ndarray, positions: np.ndarray, keys: np.ndarray) -> Draws:
    of_row = self._epochs[tasks]
    rows = self.num_examples[tasks] // of_row
    epochs, positions = np.divmod(positions, rows)
    keys = _mix(keys[tasks] ^ _mix(epochs.astype(np.uint64) + _GOLDEN))
    return Draws(tasks, permute(positions, rows, keys) * of_row + epochs % of_row)


def permute(positions: np.ndarray, sizes: np.ndarray, keys: np.ndarray) -> np.ndarray:
  """Where a keyed permutation of range(size) takes each position.

  An unbalanced Feistel network on the bits of size - 1, walked until it lands below size: every
  element has its own size and key, nothing is stored, and no two positions of one key collide.

  Args:
    positions: int64 [n], below their sizes.
    sizes: int64 [n], above 0.
    keys: uint64 [n].

  Returns:
    int64 [n], below their sizes.
  """
  sizes = np.asarray(sizes, np.uint64)
  bits = _bit_length(sizes - np.uint64(1))
  low_bits = (bits + np.uint64(1)) >> np.uint64(1)
  low_mask = (np.uint64(1) << low_bits) - np.uint64(1)
  high_mask = (np.uint64(1) << (bits >> np.uint64(1))) - np.uint64(1)
  values = np.asarray(positions).astype(np.uint64)
  walking = np.arange(len(values))
  while len(walking):
    low, mask = low_bits[walking], low_mask[walking]
    other_mask, key = high_mask[walking], keys[walking]
    right, left = values[walking] & mask, values[walking] >> low
    for number in range(0, _ROUNDS, 2):
      left ^= _mix(right ^ _mix(key + np.uint64(number))) & other_mask
      right ^= _mix(left ^ _mix(key + np.uint64(number + 1))) & mask
    values[walking] = left << low | right
    walking = walking[values[walking] >= sizes[walking]]
  return values.astype(np.int64)


def shuffled(count: int, *, seed: int, window: int) -> np.ndarray:
  """A seeded permutation of range(count), int64; stable over NumPy versions."""
  key = _key(seed, 'rows', str(window))
  return np.argsort(_mix(np.arange(count, dtype=np.uint64) + _mix(key)), kind='stable')


def _keys(seed: int, stream: str, tasks: Sequence[str]) -> np.ndarray:
  return np.array([_key(seed, stream, task) for task in tasks], dtype=np.uint64)


def _key(seed: int, stream: str, name: str) -> np.uint64:
  digest = hashlib.blake2b(f'{seed}/{stream}/{name}'.encode(), digest_size=8).digest()
  return np.uint64(int.from_bytes(digest, 'little'))


def _mix(x: np.ndarray | np.uint64) -> np.ndarray:
  """The finaliser of SplitMix64; wraps modulo 2**64."""
  x = np.atleast_1d(np.asarray(x, np.uint64))
  x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
  x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
  return x ^ (x >> np.uint64(31))


def _uniform(x: np.ndarray) -> np.ndarray:
  """53 bits of each hash as a float64 in [0, 1)."""
  return (x >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _bit_length(x: np.ndarray) -> np.ndarray:
  """Bits of each number below 2**53, uint64."""
  return np.frexp(x.astype(np.float64))[1].astype(np.uint64)
