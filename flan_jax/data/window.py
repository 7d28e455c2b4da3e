"""Plans a window: which draws, in which rows, from their lengths alone; no token is read.

A window is a fixed number of rows, so that a step's window and rows follow by division. It takes
its main draws, then as many fillers as still fit, and counts whatever does not.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from flan_jax.data import packing
from flan_jax.data.layouts import Layout
from flan_jax.data.order import DrawOrder, Draws, shuffled

WINDOW_EXAMPLES = 4096  # best-fit decreasing gains 0.1% from 16,384 and loses 0.1% at 2,048
_TRIAL_WINDOWS = 4
_MARGIN_SIGMAS = 4.0
_MAX_ATTEMPTS = 6
_TOLERATED_EMPTY = 400  # one empty row in so many ends the search for fillers

# Offsets in a task's tokens of the inputs' start, the targets' start and their end, int64 [n, 3].
ReadBounds = Callable[[Draws], np.ndarray]


@dataclasses.dataclass(frozen=True)
class WindowCounts:
  """What a window holds, in examples and tokens, and what it could not hold."""

  main: int
  filler: int
  overflow: int
  truncated_inputs: int
  truncated_targets: int
  lost_targets: int
  input_tokens: int
  target_tokens: int


@dataclasses.dataclass(frozen=True)
class WindowPlan:
  """Examples in the order of their rows.

  Attributes:
    draws: task and example of each.
    bounds: offsets of inputs start, targets start and targets end in the task's tokens, [n, 3].
    lengths: tokens of inputs and targets after truncation, int64 [n, 2].
    row_starts: first example of each row, int64 [rows + 1].
    is_filler: bool [n].
    counts: totals.
  """

  draws: Draws
  bounds: np.ndarray
  lengths: np.ndarray
  row_starts: np.ndarray
  is_filler: np.ndarray
  counts: WindowCounts


@dataclasses.dataclass(frozen=True)
class WindowSize:
  """How large windows are.

  Attributes:
    rows: rows of a window, a multiple of a step's.
    draws: mean number of main draws of a window.
    fill: share of the binding side that packing filled when tried; where to begin.
  """

  rows: int
  draws: int
  fill: float


class WindowPlanner:
  """Plans any window by its number, a pure function of what it is made with."""

  def __init__(
    self,
    order: DrawOrder,
    size: WindowSize,
    read_bounds: ReadBounds,
    *,
    layout: Layout,
    seed: int,
    pack: bool,
  ):
    self._order = order
    self._size = size
    self._read_bounds = read_bounds
    self._layout = layout
    self._seed = seed
    self._pack = pack

  def plan(self, window: int) -> WindowPlan:
    """Draws, packs, fills up and shuffles the rows of one window."""
    main = self._order.main(window)
    draws, bounds, packed = self._fill(window, main)
    lengths = self._truncate(bounds)
    # Rows beyond the window come from an underestimate of the lengths: 4 sigma, so all but never.
    fits = packed.rows < self._size.rows
    new_row = shuffled(self._size.rows, seed=self._seed, window=window)
    rows = new_row[packed.rows[fits]]
    order = np.argsort(rows, kind='stable')
    kept = np.flatnonzero(fits)[order]
    row_starts = np.searchsorted(rows[order], np.arange(self._size.rows + 1))
    is_filler = kept >= len(main)
    lengths, bounds = lengths[kept], bounds[kept]
    raw = np.diff(bounds, axis=1)
    counts = WindowCounts(
      main=int((~is_filler).sum()),
      filler=int(is_filler.sum()),
      overflow=int((~fits).sum()),
      truncated_inputs=int((raw[:, 0] > lengths[:, 0]).sum()),
      truncated_targets=int((raw[:, 1] > lengths[:, 1]).sum()),
      lost_targets=int((lengths[:, 1] <= 1).sum()),  # nothing but EOS
      input_tokens=int(lengths[:, 0].sum()),
      target_tokens=int(lengths[:, 1].sum()),
    )
    kept_draws = Draws(draws.tasks[kept], draws.indices[kept])
    return WindowPlan(kept_draws, bounds, lengths, row_starts, is_filler, counts)

  def _fill(self, window: int, main: Draws) -> tuple[Draws, np.ndarray, packing.Packing]:
    """The main draws with the longest prefix of fillers found to fit.

    The prefix is cut by the rows it needs, never by what a filler's length is, so short examples
    are not favoured. The search follows the tokens a row takes on average: one or two packings.
    """
    rows = self._size.rows
    if not self._pack:
      fillers = self._order.fillers(window, max(rows - len(main), 0))
      draws = main + fillers
      return draws, self._read_bounds(draws), packing.one_per_row(len(draws))
    draws, bounds, volumes = self._candidates(window, main)
    lengths = self._layout.row_lengths(self._truncate(bounds))
    best, low, high = None, len(main), len(draws)
    # A row less than expected, so that the first packing mostly fits.
    aim = (rows - 1) * self._size.fill
    count = max(int(np.searchsorted(volumes, aim, side='right')), low)
    for _ in range(_MAX_ATTEMPTS):
      packed = packing.pack(lengths[:count], self._layout.row_limits)
      if packed.num_rows <= rows:
        best, low = (count, packed), count
      else:
        high = count
      if high - low <= 1 or 0 <= rows - packed.num_rows <= rows // _TOLERATED_EMPTY:
        break
      # Linear: so many rows more or less at this packing's volume a row.
      aim = volumes[count - 1] * rows / packed.num_rows
      count = int(np.clip(np.searchsorted(volumes, aim, side='right'), low, high - 1))
      if count == low:
        if best:
          break
    if best is None:
      best = len(main), packing.pack(lengths[: len(main)], self._layout.row_limits)
    count, packed = best
    return draws.first(count), bounds[:count], packed

  def _candidates(self, window: int, main: Draws) -> tuple[Draws, np.ndarray, np.ndarray]:
    """Main draws and more fillers than can fit, with the rows' worth of tokens of each prefix."""
    wanted = self._size.draws // 8 + 64
    while True:
      draws = main + self._order.fillers(window, wanted)
      bounds = self._read_bounds(draws)
      lengths = self._layout.row_lengths(self._truncate(bounds))
      fractions = lengths / np.asarray(self._layout.row_limits)
      volumes = np.cumsum(fractions, axis=0).max(axis=1)
      if volumes[-1] > self._size.rows:
        return draws, bounds, volumes
      wanted *= 2

  def _truncate(self, bounds: np.ndarray) -> np.ndarray:
    return np.minimum(np.diff(bounds, axis=1), self._layout.limits)


def choose_size(
  make_order: Callable[[int], DrawOrder],
  read_bounds: ReadBounds,
  *,
  num_tasks: int,
  layout: Layout,
  batch_rows: int,
  pack: bool,
) -> WindowSize:
  """Chooses rows and draws of a window from the lengths in a few windows tried.

  Rows: about WINDOW_EXAMPLES examples, in whole steps. Draws: so many that their rows, mean plus
  four standard deviations, stay within the window; fillers take the rest.

  Args:
    make_order: the order with so many draws a window.
    read_bounds: offsets of draws.
    num_tasks: tasks of the mixture.
    layout: what of a row an example takes.
    batch_rows: rows of a step.
    pack: False puts one example in each row.
  """
  rows_per_draw, deviation, fill = 1.0, 0.0, 1.0
  if pack:
    order = make_order(WINDOW_EXAMPLES)
    trials = [read_bounds(order.main(w)) for w in range(_TRIAL_WINDOWS)]
    kept = [np.minimum(np.diff(bounds, axis=1), layout.limits) for bounds in trials]
    lengths = [layout.row_lengths(each) for each in kept]
    used = sum(packing.pack(each, layout.row_limits).num_rows for each in lengths)
    fractions = np.concatenate(lengths) / np.asarray(layout.row_limits)
    rows_per_draw = used / len(fractions)
    binding = fractions[:, fractions.sum(axis=0).argmax()]
    fill = float(binding.sum()) / used
    deviation = float(binding.std()) * rows_per_draw / float(binding.mean())
  steps = max(1, round(WINDOW_EXAMPLES * rows_per_draw / batch_rows))
  rows = steps * batch_rows
  # The number of draws itself varies: T counts, each rounded, have variance (T - 1) / 6 at most.
  rounding = (num_tasks - 1) / 6 * rows_per_draw**2
  draws = rows / rows_per_draw
  margin = _MARGIN_SIGMAS * math.sqrt(draws * deviation**2 + rounding)
  draws = max(1, int((rows - margin) / rows_per_draw))
  return WindowSize(rows=rows, draws=draws, fill=fill)
