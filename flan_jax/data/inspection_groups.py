"""Sums over the tasks of a mixture: by collection, cluster, form, licence or data set.

Shares are what the rates ask for, so they need no window to be measured; realised rates do.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from flan_jax.data.inspection_tasks import TaskReport


@dataclasses.dataclass(frozen=True)
class Group:
  """Tasks that have something in common.

  Attributes:
    name: what they have in common; '' if they state nothing.
    tasks: how many they are.
    examples: examples in the cache.
    tokens: tokens in the cache, both sides.
    asked_rate: share of the draws that they are to have.
    realised_rate: share that they had in the windows measured.
    token_share: share of the tokens drawn, before anything is cut.
    cut_inputs: share of their draws whose inputs are cut.
    cut_targets: share of their draws whose targets are cut.
    soonest_repeat: steps until the first of them has been drawn whole.
    most_epochs: epochs of the task of them that is repeated most; None if no steps were given.
  """

  name: str
  tasks: int
  examples: int
  tokens: float
  asked_rate: float
  realised_rate: float
  token_share: float
  cut_inputs: float
  cut_targets: float
  soonest_repeat: float
  most_epochs: float | None


def group(tasks: Iterable[TaskReport], key: str, whole: Sequence[TaskReport]) -> tuple[Group, ...]:
  """Adds up the tasks of which an attribute is the same, the largest rate first.

  Args:
    tasks: tasks to add up.
    key: 'collection', 'cluster', 'form', 'licence', 'family' or 'name'.
    whole: every task of the mixture, for shares.
  """
  members: dict[str, list[TaskReport]] = {}
  for task in tasks:
    members.setdefault(getattr(task, key), []).append(task)
  all_tokens = math.fsum(_drawn_tokens(task) for task in whole) or 1.0
  groups = (_add_up(name, some, all_tokens) for name, some in members.items())
  return tuple(sorted(groups, key=lambda one: (-one.asked_rate, one.name)))


def _add_up(name: str, tasks: Sequence[TaskReport], all_tokens: float) -> Group:
  asked = math.fsum(task.asked_rate for task in tasks)
  epochs = [task.epochs for task in tasks if task.epochs is not None]

  def of_draws(share: Callable[[TaskReport], float]) -> float:
    return math.fsum(task.asked_rate * share(task) for task in tasks) / asked if asked else 0.0

  return Group(
    name=name,
    tasks=len(tasks),
    examples=sum(task.num_examples for task in tasks),
    tokens=math.fsum(task.num_examples * (task.inputs.mean + task.targets.mean) for task in tasks),
    asked_rate=asked,
    realised_rate=math.fsum(task.realised_rate for task in tasks),
    token_share=math.fsum(_drawn_tokens(task) for task in tasks) / all_tokens,
    cut_inputs=of_draws(lambda task: task.inputs.cut_share),
    cut_targets=of_draws(lambda task: task.targets.cut_share),
    soonest_repeat=min(task.steps_to_repeat for task in tasks),
    most_epochs=max(epochs) if epochs else None,
  )


def _drawn_tokens(task: TaskReport) -> float:
  return task.asked_rate * (task.inputs.mean + task.targets.mean)


@dataclasses.dataclass(frozen=True)
class LengthHistogram:
  """How long drawn examples are: shares of draws between edges in tokens.

  Attributes:
    edges: n + 1 numbers of tokens; a length l lies in the bin with edge <= l < next edge.
    inputs: n shares.
    targets: n shares.
  """

  edges: tuple[float, ...]
  inputs: tuple[float, ...]
  targets: tuple[float, ...]


class LengthCounter:
  """Adds up histograms of tasks, each by its rate; keeps no lengths."""

  # Half a power of two wide, up to a million tokens: 1, 2, 3, 4, 6, 8, 12 ...
  _EDGES = np.array([1, 2, *(x for k in range(1, 20) for x in (3 << (k - 1), 4 << (k - 1)))])

  def __init__(self):
    self._shares = np.zeros((2, len(self._EDGES) - 1))

  def add(self, rate: float, inputs: np.ndarray, targets: np.ndarray) -> None:
    """Adds a task; longer than the last edge counts as the last bin."""
    for side, lengths in enumerate((inputs, targets)):
      clipped = np.clip(lengths, self._EDGES[0], self._EDGES[-1])
      self._shares[side] += rate * np.histogram(clipped, self._EDGES)[0] / len(lengths)

  def result(self) -> LengthHistogram:
    """Leaves out empty bins at both ends."""
    used = np.flatnonzero(self._shares.sum(axis=0))
    first, last = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 1)
    inputs, targets = self._shares[:, first:last].tolist()
    return LengthHistogram(
      tuple(self._EDGES[first : last + 1].tolist()), tuple(inputs), tuple(targets)
    )
