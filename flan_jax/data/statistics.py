"""Measures what a loader's windows hold, for `inspect` and mixture.json."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
  from flan_jax.data.loader import Loader


@dataclasses.dataclass(frozen=True)
class TaskStatistics:
  """One task: rates are shares of all examples, counts are over the windows measured."""

  task: str
  family: str
  collection: str
  asked_rate: float
  realised_rate: float
  num_examples: int
  drawn: int
  input_tokens: int
  target_tokens: int
  truncated_inputs: int
  truncated_targets: int


@dataclasses.dataclass(frozen=True)
class LoaderStatistics:
  """All tasks, and totals over the windows measured.

  Attributes:
    tasks: each task.
    windows: windows measured.
    rows: rows in them.
    steps: steps in them.
    input_fill: share of the encoder's positions that hold a token; without encoder, of all
      positions, those that hold inputs.
    target_fill: the same of the decoder and targets.
    largest_rate_error: examples by which a task's share of a window was off at most.
    main: draws that count towards epochs.
    filler: draws that fill up windows.
    overflow: draws that found no row.
    truncated_inputs: examples whose inputs were cut.
    truncated_targets: examples whose targets were cut.
    lost_targets: examples left with nothing but EOS to learn.
  """

  tasks: tuple[TaskStatistics, ...]
  windows: int
  rows: int
  steps: int
  input_fill: float
  target_fill: float
  largest_rate_error: float
  main: int
  filler: int
  overflow: int
  truncated_inputs: int
  truncated_targets: int
  lost_targets: int

  @property
  def examples_per_step(self) -> float:
    """Mean number of examples in a step."""
    return (self.main + self.filler) / self.steps

  def to_json(self) -> dict[str, Any]:
    """JSON-able content."""
    return {**dataclasses.asdict(self), 'examples_per_step': self.examples_per_step}


def measure(loader: Loader, num_windows: int) -> LoaderStatistics:
  """Plans the first windows and adds up; reads no tokens.

  Raises:
    ValueError: no windows are asked for.
  """
  if num_windows < 1:
    raise ValueError(f'num_windows={num_windows} must be at least 1.')
  mixture, layout = loader.mixture, loader.layout
  num_tasks = len(mixture.tasks)
  columns = np.zeros((num_tasks, 5), dtype=np.int64)
  totals = dict.fromkeys(
    ('main', 'filler', 'overflow', 'truncated_inputs', 'truncated_targets', 'lost_targets'), 0
  )
  error = 0.0
  for number in range(num_windows):
    plan = loader.window(number)
    tasks = plan.draws.tasks
    cut = np.diff(plan.bounds, axis=1) > plan.lengths
    values = np.column_stack([np.ones_like(tasks), plan.lengths, cut])
    window = np.zeros_like(columns)
    np.add.at(window, tasks, values)
    columns += window
    error = max(error, float(np.abs(window[:, 0] - mixture.rates * len(tasks)).max()))
    for name in totals:
      totals[name] += getattr(plan.counts, name)
  rows = num_windows * loader.window_size.rows
  drawn = int(columns[:, 0].sum())
  return LoaderStatistics(
    tasks=tuple(
      TaskStatistics(
        task=task,
        family=mixture.manifests[t].get('family') or task,
        collection=mixture.task_collections[t],
        asked_rate=float(mixture.rates[t]),
        realised_rate=float(columns[t, 0]) / drawn,
        num_examples=mixture.num_examples[t],
        drawn=int(columns[t, 0]),
        input_tokens=int(columns[t, 1]),
        target_tokens=int(columns[t, 2]),
        truncated_inputs=int(columns[t, 3]),
        truncated_targets=int(columns[t, 4]),
      )
      for t, task in enumerate(mixture.tasks)
    ),
    windows=num_windows,
    rows=rows,
    steps=rows // loader.batch_rows,
    input_fill=float(columns[:, 1].sum()) / (rows * layout.positions[0]),
    target_fill=float(columns[:, 2].sum()) / (rows * layout.positions[1]),
    largest_rate_error=error,
    **totals,
  )
