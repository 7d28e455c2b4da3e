"""Batches of a mixture: the batch of step s is a pure function of (seed, mixture, lengths, s).

Every host plans the same window from lengths and reads the tokens of its own rows. Where a run is
in its data is the step; what must not change meanwhile is in `position`. Devices are the trainer's.
"""

from __future__ import annotations

import collections
import os
import threading
from collections.abc import Mapping
from typing import Any

from flan_jax.data import cache, features, layouts, statistics
from flan_jax.data.mixture import Mixture, ResolvedMixture, resolve
from flan_jax.data.order import DrawOrder
from flan_jax.data.prefetch import Prefetcher
from flan_jax.data.sources import TaskSources
from flan_jax.data.window import WindowPlan, WindowPlanner, WindowSize, choose_size

_KEPT_WINDOWS = 2
# What to do when a run's data no longer matches its checkpoint, by the entry that differs.
_REMEDIES = {
  'format': 'use the version of flan_jax that wrote it',
  'seed': 'set the seed back',
  'mixture': 'use the cache, split, rates and INCLUDE_COT that the run began with',
  'batch_rows': 'set the rows per step back',
  'inputs_length': "set lengths['inputs'] back",
  'targets_length': "set lengths['targets'] back",
  'layout': 'use a model of the same kind, with or without encoder',
  'pack': 'set pack back',
  'window_rows': 'use the cache that the run began with',
  'window_draws': 'use the cache that the run began with',
}
POSITION_FORMAT = 1


class Loader:
  """Random access to the batches of a mixture."""

  def __init__(
    self,
    cache_dir: str | os.PathLike[str],
    mixture: str | Mixture | ResolvedMixture,
    *,
    lengths: Mapping[str, int],
    batch_rows: int,
    seed: int,
    split: str = 'train',
    pack: bool = True,
    decoder_only: bool = False,
  ):
    """Opens the tasks and fixes the size of a window; reads lengths, no tokens.

    Args:
      cache_dir: the token cache.
      mixture: a name in the cache, a mixture, or one resolved with other rates or without CoT.
      lengths: {'inputs': tokens, 'targets': tokens} of a row; longer examples are cut and counted.
      batch_rows: rows of one step over all hosts.
      seed: seed of the order.
      split: split to draw from, unless `mixture` is resolved.
      pack: False puts one example in each row.
      decoder_only: lay inputs and targets in one row, for a model without encoder.

    Raises:
      ValueError: sizes that make no sense, or a cache or mixture that cannot be used.
    """
    limits = features.check_lengths(lengths)
    if batch_rows < 1:
      raise ValueError(f'batch_rows={batch_rows} must be at least 1 row per step.')
    if not isinstance(mixture, ResolvedMixture):
      mixture = resolve(mixture, cache_dir, split=split)
    self.mixture = mixture
    self.batch_rows = batch_rows
    self.seed = seed
    self.pack = pack
    self.collections = mixture.collections
    self._info = cache.read_cache_info(cache_dir)
    self.layout = layouts.make_layout(limits, self._info, decoder_only=decoder_only)
    self._sources = TaskSources(cache_dir, mixture, self._info)
    self._size = choose_size(
      self._make_order,
      self._sources.read_bounds,
      num_tasks=len(mixture.tasks),
      layout=self.layout,
      batch_rows=batch_rows,
      pack=pack,
    )
    self._planner = WindowPlanner(
      self._make_order(self._size.draws),
      self._size,
      self._sources.read_bounds,
      layout=self.layout,
      seed=seed,
      pack=pack,
    )
    self._plans: collections.OrderedDict[int, WindowPlan] = collections.OrderedDict()
    self._lock = threading.Lock()

  @property
  def window_size(self) -> WindowSize:
    """Rows of a window and its mean number of main draws."""
    return self._size

  @property
  def steps_per_window(self) -> int:
    """Steps that share a window."""
    return self._size.rows // self.batch_rows

  def verify(self) -> None:
    """Reads all tokens, as fast as they come, and compares them with their checksums.

    Raises:
      CacheError: a file differs from what was written.
    """
    self._sources.verify()

  def batch(self, step: int, rows: slice | None = None) -> features.Batch:
    """The batch of a step, or some rows of it; the same whoever asks, in whatever order.

    Args:
      step: from 0.
      rows: rows of the global batch to return, all by default; only their tokens are read.

    Returns:
      Arrays [rows, length] as the layout's `assemble` describes.

    Raises:
      ValueError: a negative step or rows that the batch does not have.
    """
    if step < 0:
      raise ValueError(f'step={step} must be at least 0.')
    start, stop = self._row_range(rows)
    window, step_in_window = divmod(step, self.steps_per_window)
    first = step_in_window * self.batch_rows
    plan = self.window(window)
    row_starts = plan.row_starts[first + start : first + stop + 1]
    chosen = slice(int(row_starts[0]), int(row_starts[-1]))
    examples = self._sources.row_examples(plan, chosen, row_starts)
    return self.layout.assemble(examples)

  def window(self, window: int) -> WindowPlan:
    """The plan of a window; the last few are kept."""
    with self._lock:
      if window in self._plans:
        self._plans.move_to_end(window)
        return self._plans[window]
    plan = self._planner.plan(window)
    with self._lock:
      self._plans[window] = plan
      if len(self._plans) > _KEPT_WINDOWS:
        self._plans.popitem(last=False)
    return plan

  def prefetch(
    self, start_step: int, rows: slice | None = None, *, depth: int = 4
  ) -> Prefetcher[features.Batch]:
    """Iterates over batches from a step on, made ahead in one thread; close it when done."""
    return Prefetcher(lambda number: self.batch(start_step + number, rows), depth=depth)

  def statistics(self, num_windows: int) -> statistics.LoaderStatistics:
    """What the first windows hold: rates, tokens, filling, what was cut; reads no tokens."""
    return statistics.measure(self, num_windows)

  def position(self, step: int) -> dict[str, int | str]:
    """What to keep in a checkpoint so that a resumed run reads exactly the next batch."""
    return {
      'step': step,
      'format': POSITION_FORMAT,
      'seed': self.seed,
      'mixture': self.mixture.fingerprint,
      'batch_rows': self.batch_rows,
      'inputs_length': self.layout.limits[0],
      'targets_length': self.layout.limits[1],
      'layout': type(self.layout).__name__,
      'pack': int(self.pack),
      'window_rows': self._size.rows,
      'window_draws': self._size.draws,
    }

  def check_position(self, position: Mapping[str, Any]) -> int:
    """Returns the step of a saved position once this loader is known to continue it.

    Raises:
      ValueError: something the order depends on differs; the message says what to set back.
    """
    if 'step' not in position:
      raise ValueError(
        f'A data position needs a step; this one has {", ".join(position) or "nothing"}.'
      )
    step = int(position['step'])
    wrong = []
    for name, now in self.position(step).items():
      if position.get(name) != now:
        wrong.append(
          f'{name} was {position.get(name)} and is {now} ({_REMEDIES.get(name, "set it back")})'
        )
    if wrong:
      raise ValueError(
        f'The data of step {step:,} cannot be continued: {"; ".join(wrong)}. Or begin a new run '
        'from the parameters alone.'
      )
    return step

  def _make_order(self, draws: int) -> DrawOrder:
    return DrawOrder(
      self.mixture.tasks,
      self.mixture.rates,
      self.mixture.num_examples,
      seed=self.seed,
      draws_per_window=draws,
      epochs=self.mixture.epochs,
    )

  def _row_range(self, rows: slice | None) -> tuple[int, int]:
    rows = slice(0, self.batch_rows) if rows is None else rows
    start = 0 if rows.start is None else rows.start
    stop = self.batch_rows if rows.stop is None else rows.stop
    if rows.step not in (None, 1) or not 0 <= start < stop <= self.batch_rows:
      raise ValueError(
        f'rows={start}:{stop}:{rows.step} is no range of the {self.batch_rows} rows of a step; '
        f'give slice(start, stop) with 0 <= start < stop <= {self.batch_rows}.'
      )
    return start, stop
