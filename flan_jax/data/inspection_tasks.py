"""What inspect measures of one task in a cache: lengths, wordings, and examples as the model sees.

The mixture around it is inspection.py's concern, sums over tasks are inspection_groups.py's.
"""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from flan_jax.data import cache
from flan_jax.data.statistics import TaskStatistics
from flan_jax.data.vocabularies import Vocabulary

_LOOKED_AT = 64  # examples among which different templates are sought


@dataclasses.dataclass(frozen=True)
class Lengths:
  """Lengths in tokens of one side of a task, and what a limit does to them."""

  mean: float
  p50: int
  p90: int
  p99: int
  longest: int
  cut_share: float
  lost_tokens: int


@dataclasses.dataclass(frozen=True)
class Wordings:
  """How varied the wordings of a task are.

  Attributes:
    used: different templates among its examples; few-shot layouts count as templates.
    registered: templates that the task has, layouts left aside; 0 if nobody knows.
    entropy: bits; log2(used) if all are as frequent, 0 if there is one.
    most_frequent: share of the most frequent one.
  """

  used: int
  registered: int
  entropy: float
  most_frequent: float

  @property
  def unused(self) -> int:
    """Registered templates beyond those that occur; layouts only add to what occurs."""
    return max(0, self.registered - self.used)


@dataclasses.dataclass(frozen=True)
class RenderedExample:
  """An example as the model sees it: decoded from its tokens, cut at the lengths."""

  id: str
  template: str
  inputs: str
  targets: str
  answer: str
  input_tokens: int
  target_tokens: int
  lost_input_tokens: int
  lost_target_tokens: int


@dataclasses.dataclass(frozen=True)
class TaskReport:
  """One task of the mixture.

  Attributes:
    family: the name that its forms share.
    form: zero_shot, cot, fewshot ...: the cell of the mixture that it belongs to.
    steps_to_repeat: steps until each of its examples was drawn once.
    epochs: how often each of its examples is drawn in the steps asked about; None if none were.
    templates: template -> examples.
    dropped: reason -> examples that prepare left out.
  """

  name: str
  family: str
  form: str
  collection: str
  cluster: str
  cot: bool
  licence: str
  source: str
  metrics: tuple[str, ...]
  num_examples: int
  asked_rate: float
  realised_rate: float
  inputs: Lengths
  targets: Lengths
  steps_to_repeat: float
  epochs: float | None
  templates: Mapping[str, int]
  wordings: Wordings
  dropped: Mapping[str, int]
  examples: tuple[RenderedExample, ...]


def report_task(
  task: cache.TaskCache,
  measured: TaskStatistics,
  *,
  limits: Mapping[str, int],
  drawn_per_step: float,
  steps: int | None,
) -> TaskReport:
  """Measures a task without rendering examples.

  Args:
    task: the opened split.
    measured: what the loader draws of it.
    limits: {'inputs': tokens, 'targets': tokens} of a row.
    drawn_per_step: examples of it in a mean step.
    steps: steps to count epochs over.
  """
  manifest = task.manifest
  templates = manifest.get('templates', {})
  return TaskReport(
    name=task.task,
    family=manifest.get('family') or task.task,
    form=manifest.get('form', ''),
    collection=measured.collection,
    cluster=manifest.get('cluster', ''),
    cot=bool(manifest.get('cot')),
    licence=manifest.get('licence', ''),
    source=manifest.get('source', ''),
    metrics=tuple(manifest.get('metrics', ())),
    num_examples=task.num_examples,
    asked_rate=measured.asked_rate,
    realised_rate=measured.realised_rate,
    inputs=_lengths(task.input_lengths(), limits['inputs']),
    targets=_lengths(task.target_lengths(), limits['targets']),
    steps_to_repeat=task.num_examples / drawn_per_step,
    epochs=None if steps is None else steps * drawn_per_step / task.num_examples,
    templates=templates,
    wordings=wordings(templates, manifest.get('num_templates', 0)),
    dropped=manifest.get('dropped', {}),
    examples=(),
  )


def wordings(templates: Mapping[str, int], registered: int) -> Wordings:
  """Measures template -> examples: Shannon's entropy of the template of a random example."""
  counts = [count for count in templates.values() if count > 0]
  total = sum(counts)
  shares = [count / total for count in counts]
  # abs: one template alone would give minus zero.
  entropy = abs(math.fsum(-share * math.log2(share) for share in shares))
  return Wordings(len(counts), registered, entropy, max(shares, default=0.0))


def _lengths(lengths: np.ndarray, limit: int) -> Lengths:
  p50, p90, p99 = np.percentile(lengths, (50, 90, 99))
  return Lengths(
    mean=float(lengths.mean()),
    p50=int(p50),
    p90=int(p90),
    p99=int(p99),
    longest=int(lengths.max()),
    cut_share=float((lengths > limit).mean()),
    lost_tokens=int(np.maximum(lengths - limit, 0).sum()),
  )


def render(
  task: cache.TaskCache, count: int, vocabulary: Vocabulary, limits: Mapping[str, int]
) -> tuple[RenderedExample, ...]:
  """Renders examples spread over the task, of different templates as far as there are."""
  rendered = []
  for index in _choose(task, count):
    inputs, targets = task.example(index)
    metadata = task.metadata(index)
    rendered.append(
      RenderedExample(
        id=metadata.get('id', str(index)),
        template=metadata.get('template', ''),
        inputs=vocabulary.decode_prompt(vocabulary.cut_prompt(inputs, limits['inputs'])),
        targets=vocabulary.decode(_kept(targets, limits['targets'])),
        answer=str(metadata.get('answer', '')),
        input_tokens=len(inputs),
        target_tokens=len(targets),
        lost_input_tokens=max(0, len(inputs) - limits['inputs']),
        lost_target_tokens=max(0, len(targets) - limits['targets']),
      )
    )
  return tuple(rendered)


def _kept(ids: np.ndarray, limit: int) -> list[int]:
  """What the loader keeps of targets: of those too long, the last place is for EOS."""
  return ids.tolist() if len(ids) <= limit else ids[: limit - 1].tolist()


def _choose(task: cache.TaskCache, count: int) -> list[int]:
  spread = min(task.num_examples, max(count, _LOOKED_AT)) if count else 0
  indices = [number * task.num_examples // spread for number in range(spread)]
  first_of_template: dict[str, int] = {}
  for index in indices:
    first_of_template.setdefault(task.metadata(index).get('template', ''), index)
  different = list(first_of_template.values())
  return (different + [i for i in indices if i not in different])[:count]
