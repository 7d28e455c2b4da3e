"""The open tasks of a mixture as one source: bounds of draws, and tokens of planned examples.

Each example is one read of its task's file; it neither chooses examples nor lays them out.
"""

from __future__ import annotations

import concurrent.futures
import os

import numpy as np

from flan_jax.data import cache
from flan_jax.data.features import RowExamples
from flan_jax.data.mixture import ResolvedMixture
from flan_jax.data.order import Draws
from flan_jax.data.window import WindowPlan

_FILES_PER_TASK = 2
_OTHER_FILES = 256  # what JAX, Orbax and logs keep open


class TaskSources:
  """All tasks of a resolved mixture, opened; collection ids begin at 1."""

  def __init__(
    self, cache_dir: str | os.PathLike[str], mixture: ResolvedMixture, info: cache.CacheInfo
  ):
    _allow_open_files(len(mixture.tasks) * _FILES_PER_TASK + _OTHER_FILES)
    opened = [
      cache.TaskCache.open(cache_dir, task, mixture.split, info=info, manifest=manifest)
      for task, manifest in zip(mixture.tasks, mixture.manifests, strict=True)
    ]
    for task in opened:  # what is planned from wrong offsets is refused by nobody
      task.verify(['offsets.npy'])
    self._opened = opened
    self._prompt_end, self._target_end = tuple(info.prompt_end), (info.eos_id,)
    self._read_tokens = [task.read_tokens for task in opened]
    self._offsets = [task.offsets for task in opened]
    ids = {name: i + 1 for i, name in enumerate(mixture.collections)}
    self._collections = np.array([ids[c] for c in mixture.task_collections], dtype=np.int32)

  def verify(self) -> None:
    """Reads all tokens and compares them with their checksums.

    Raises:
      CacheError: a file differs from what was written.
    """
    with concurrent.futures.ThreadPoolExecutor() as pool:
      list(pool.map(lambda task: task.verify(['tokens.npy']), self._opened))

  def read_bounds(self, draws: Draws) -> np.ndarray:
    """Offsets of inputs start, targets start and targets end of each draw, int64 [n, 3]."""
    offsets = self._offsets
    found = [
      offsets[task][2 * index : 2 * index + 3]
      for task, index in zip(draws.tasks.tolist(), draws.indices.tolist(), strict=True)
    ]
    return np.concatenate(found).reshape(-1, 3) if found else np.zeros((0, 3), np.int64)

  def row_examples(self, plan: WindowPlan, chosen: slice, row_starts: np.ndarray) -> RowExamples:
    """The tokens of planned examples; those that are cut end as whole ones do."""
    tasks = plan.draws.tasks[chosen]
    lengths, bounds = plan.lengths[chosen], plan.bounds[chosen]
    cut = (np.diff(bounds, axis=1) > lengths).tolist()
    inputs, targets = [], []
    for task, (start, middle, end), (num_inputs, num_targets), (cut_inputs, cut_targets) in zip(
      tasks.tolist(), bounds.tolist(), lengths.tolist(), cut, strict=True
    ):
      tokens = self._read_tokens[task](start, end)
      first, second = tokens[:num_inputs], tokens[middle - start : middle - start + num_targets]
      inputs.append(_ended(first, self._prompt_end) if cut_inputs else first)
      targets.append(_ended(second, self._target_end) if cut_targets else second)
    return RowExamples(
      inputs=inputs,
      targets=targets,
      collections=self._collections[tasks],
      row_starts=row_starts,
    )


def _ended(tokens: np.ndarray, end: tuple[int, ...]) -> np.ndarray:
  """Tokens of which the last are replaced by `end`, or by as much of its end as fits."""
  end = end[max(0, len(end) - len(tokens)) :]
  return np.concatenate([tokens[: len(tokens) - len(end)], np.asarray(end, tokens.dtype)])


def _allow_open_files(needed: int) -> None:
  """Raises the soft limit of open files towards the hard one, as each task keeps two.

  Raises:
    CacheError: even the hard limit is too low.
  """
  try:
    import resource
  except ImportError:  # no such limit on this system
    return
  soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
  if soft == resource.RLIM_INFINITY or soft >= needed:
    return
  if hard != resource.RLIM_INFINITY and hard < needed:
    raise cache.CacheError(
      f'Reading this mixture needs {needed:,} open files and this process may have {hard:,}; '
      f'raise the hard limit (`ulimit -Hn {needed}` as root) or mix fewer tasks.'
    )
  resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
