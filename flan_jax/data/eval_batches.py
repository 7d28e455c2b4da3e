"""Every example of some tasks exactly once, one to a row, in batches of one shape.

The order is that of the cache, so a figure never depends on the number of hosts or of rows; what a
model answers and how it is scored is evaluation's concern.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from flan_jax.data import cache, features
from flan_jax.data.mixture import Mixture, MixtureError, ResolvedMixture, resolve


@dataclasses.dataclass(frozen=True)
class EvalBatch:
  """Rows of one batch and where they come from.

  Attributes:
    features: arrays [batch_rows, length]; rows past the examples are padding of weight 0.
    examples: (task, example index) of each real row, in order.
    truncated_inputs: rows whose inputs were cut.
    truncated_targets: rows whose targets were cut.
  """

  features: features.Batch
  examples: tuple[tuple[str, int], ...]
  truncated_inputs: int
  truncated_targets: int

  def __iter__(self) -> Iterator:
    """Unpacks as `batch, examples`."""
    return iter((self.features, self.examples))


def eval_batches(
  cache_dir: str | os.PathLike[str],
  tasks: str | Mixture | ResolvedMixture | Sequence[str],
  *,
  split: str,
  lengths: Mapping[str, int],
  batch_rows: int,
  max_examples_per_task: int | None = None,
) -> Iterator[EvalBatch]:
  """Yields the examples of tasks or of a mixture, unpacked.

  Args:
    cache_dir: the token cache.
    tasks: a mixture or task by name, a mixture, one resolved (its split counts), or task names.
    split: split to read.
    lengths: {'inputs': tokens, 'targets': tokens} of a row; longer examples are cut and counted.
    batch_rows: rows of every batch, the last one filled up with padding.
    max_examples_per_task: so many examples, evenly spaced through the task; None for all.

  Raises:
    ValueError: tasks that are not there, or sizes that make no sense.
  """
  limits = features.check_lengths(lengths)
  for name, value in (('batch_rows', batch_rows), ('max_examples_per_task', max_examples_per_task)):
    if value is not None and value < 1:
      raise ValueError(f'{name}={value} must be at least 1.')
  if not isinstance(tasks, (str, Mixture, ResolvedMixture)):
    if not tasks:
      raise MixtureError('No tasks are given to evaluate; name at least one.')
    tasks = Mixture.of('evaluation', {task: 1.0 for task in tasks})
  if not isinstance(tasks, ResolvedMixture):
    tasks = resolve(tasks, cache_dir, split=split)
  return _generate(cache_dir, tasks, limits, batch_rows, max_examples_per_task)


def _generate(
  cache_dir: str | os.PathLike[str],
  mixture: ResolvedMixture,
  limits: tuple[int, int],
  batch_rows: int,
  max_examples_per_task: int | None,
) -> Iterator[EvalBatch]:
  info = cache.read_cache_info(cache_dir)
  rows: list[_Row] = []
  for task, manifest, collection in zip(
    mixture.tasks, mixture.manifests, mixture.task_collections, strict=True
  ):
    opened = cache.TaskCache.open(cache_dir, task, mixture.split, info=info, manifest=manifest)
    for index in _spread(opened.num_examples, max_examples_per_task):
      inputs, targets = opened.example(index)
      rows.append(_Row(task, index, mixture.collections.index(collection) + 1, inputs, targets))
      if len(rows) == batch_rows:
        yield _batch(rows, batch_rows, limits, info.eos_id)
        rows = []
  if rows:
    yield _batch(rows, batch_rows, limits, info.eos_id)


@dataclasses.dataclass(frozen=True)
class _Row:
  task: str
  index: int
  collection: int
  inputs: np.ndarray
  targets: np.ndarray


def _batch(rows: list[_Row], batch_rows: int, limits: tuple[int, int], eos_id: int) -> EvalBatch:
  cut_inputs = np.flatnonzero([len(row.inputs) > limits[0] for row in rows])
  cut_targets = np.flatnonzero([len(row.targets) > limits[1] for row in rows])
  examples = features.RowExamples(
    inputs=[row.inputs[: limits[0]] for row in rows],
    targets=[row.targets[: limits[1]] for row in rows],
    ends_inputs=cut_inputs,
    ends_targets=cut_targets,
    collections=np.array([row.collection for row in rows], dtype=np.int32),
    row_starts=np.minimum(np.arange(batch_rows + 1), len(rows)),
  )
  return EvalBatch(
    features=features.assemble(examples, limits=limits, eos_id=eos_id),
    examples=tuple((row.task, row.index) for row in rows),
    truncated_inputs=len(cut_inputs),
    truncated_targets=len(cut_targets),
  )


def _spread(num_examples: int, maximum: int | None) -> list[int]:
  """All examples, or `maximum` of them evenly spaced: caches often lie sorted by template."""
  if maximum is None or maximum >= num_examples:
    return list(range(num_examples))
  return [i * num_examples // maximum for i in range(maximum)]
