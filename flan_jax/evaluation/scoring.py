"""From generated texts to results: metrics of each task, averages, bootstrap intervals.

Plain Python and NumPy; the texts come from the evaluator.
"""

import dataclasses
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flan_jax.evaluation import metrics, postprocessors
from flan_jax.evaluation.results import GroupResult, Sample, Score, TaskResult

_DRAWN_AT_ONCE = 1 << 14  # examples of resamples, whose places then fit in a core's own cache


@dataclasses.dataclass(frozen=True)
class Row:
  """One evaluated example: what it was, and what the model made of it.

  Attributes:
    inputs, target, generated: Texts.
    metadata: As stored in the cache (id, answer, references, options).
    loss: Nats summed over the target tokens.
    correct: Target tokens whose highest logit is right.
    tokens: Target tokens.
  """

  inputs: str
  target: str
  generated: str
  metadata: Mapping[str, Any]
  loss: float
  correct: float
  tokens: float


@dataclasses.dataclass(frozen=True)
class ScoredTask:
  """A TaskResult and the headline score of each bootstrap resample, for the averages."""

  result: TaskResult
  resampled: np.ndarray


@dataclasses.dataclass(frozen=True)
class Bootstrap:
  """How intervals are made: percentiles of the mean over resampled examples.

  Source: Efron 1979; the simple percentile interval.
  """

  resamples: int = 1000
  confidence: float = 0.95
  seed: int = 0

  def __post_init__(self):
    if self.resamples < 1:
      raise ValueError(f'resamples={self.resamples} must be at least 1; 1000 is usual.')
    if not 0 < self.confidence < 1:
      raise ValueError(f'confidence={self.confidence} must lie between 0 and 1; 0.95 is usual.')

  def means(self, values: Sequence[float], name: str) -> np.ndarray:
    """Return the mean of each resample, [resamples]; `name` and the seed decide the draw."""
    array = np.asarray(values, np.float64)
    rng = np.random.default_rng((self.seed, zlib.crc32(name.encode())))
    means = np.empty(self.resamples)
    at_once = max(1, _DRAWN_AT_ONCE // max(len(array), 1))
    for start in range(0, self.resamples, at_once):
      part = means[start : start + at_once]
      part[:] = array[rng.integers(0, len(array), (len(part), len(array)))].mean(axis=1)
    return means

  def score(self, value: float, resampled: np.ndarray) -> Score:
    """Return `value` with the percentiles of `resampled`."""
    tail = 50.0 * (1.0 - self.confidence)
    low, high = np.percentile(resampled, [tail, 100.0 - tail])
    # Rounding of the means must not put the value a hair outside its own interval.
    return Score(value, min(float(low), value), max(float(high), value))


def score_task(
  manifest: Mapping[str, Any],
  rows: Sequence[Row],
  *,
  available: int,
  bootstrap: Bootstrap,
  num_samples: int,
  truncated: Mapping[str, int],
) -> ScoredTask:
  """Score one task by the metrics and the postprocessor that its manifest names.

  Args:
    manifest: The task's; a task without metrics is scored by exact_match, one without a
      postprocessor by the whole text (or, with rationales, by the answer at its end).
    rows: Evaluated examples, in the order of the data.
    available: Examples of the split.
    bootstrap: Resampling for the intervals.
    num_samples: Samples to keep: the first rows.
    truncated: {'inputs': examples, 'targets': examples} longer than the lengths.

  Raises:
    ValueError: unknown metric or postprocessor, naming the task.
  """
  task = manifest['task']
  names = list(manifest.get('metrics') or ['exact_match'])
  default = 'cot_answer' if manifest.get('cot') else 'identity'
  try:
    postprocess = postprocessors.get_postprocessor(manifest.get('postprocessor') or default)
    for name in names:
      metrics.get_metric(name)
  except ValueError as e:
    raise ValueError(f"Task '{task}' cannot be scored. {e}") from e
  references = [references_of(row) for row in rows]
  options = [row.metadata.get('options') or () for row in rows]
  targets = [
    [postprocess(text, options=choice, is_target=True) for text in texts]
    for texts, choice in zip(references, options, strict=True)
  ]
  predictions = [
    postprocess(row.generated, options=choice) for row, choice in zip(rows, options, strict=True)
  ]
  scores, each, resampled = _scores(names, targets, predictions, bootstrap, task)
  tokens = sum(row.tokens for row in rows)
  result = TaskResult(
    task=task,
    cluster=manifest.get('cluster') or task,
    collection=manifest.get('collection') or task,
    cot=bool(manifest.get('cot')),
    examples=len(rows),
    available=available,
    tokens=round(tokens),
    loss=math.fsum(row.loss for row in rows) / max(tokens, 1.0),
    accuracy=sum(row.correct for row in rows) / max(tokens, 1.0),
    headline=metrics.headline(names[0]),
    scores=scores,
    truncated_inputs=truncated['inputs'],
    truncated_targets=truncated['targets'],
    samples=tuple(
      Sample(
        example=str(rows[i].metadata.get('id', i)),
        prompt=rows[i].inputs,
        target=rows[i].target,
        references=tuple(references[i]),
        generated=rows[i].generated,
        prediction=predictions[i],
        score=None if each is None else each[i],
      )
      for i in range(min(num_samples, len(rows)))
    ),
  )
  return ScoredTask(result, resampled)


def score_group(name: str, tasks: Sequence[ScoredTask], bootstrap: Bootstrap) -> GroupResult:
  """Average tasks, each counting the same; examples are resampled within their task."""
  results = [task.result for task in tasks]
  tokens = max(sum(result.tokens for result in results), 1)
  value = math.fsum(result.score.value for result in results) / len(results)
  return GroupResult(
    name=name,
    tasks=tuple(result.task for result in results),
    score=bootstrap.score(value, np.mean([task.resampled for task in tasks], axis=0)),
    loss=math.fsum(result.loss * result.tokens for result in results) / tokens,
    accuracy=math.fsum(result.accuracy * result.tokens for result in results) / tokens,
  )


def references_of(row: Row) -> list[str]:
  """Return the acceptable answers: `references`, else `answer`, else the whole target."""
  references = row.metadata.get('references')
  if references:
    return [str(text) for text in references]
  answer = row.metadata.get('answer')
  return [row.target if answer is None else str(answer)]


def _scores(names, targets, predictions, bootstrap, task):
  """All scores by key, each example's headline score or None, and the headline's resamples."""
  scores, headline_each = {}, None
  headline_resampled = np.zeros(bootstrap.resamples)
  for name in names:
    values = metrics.get_metric(name)(targets, predictions)
    each = metrics.example_scores(name, targets, predictions)
    for key, value in values.items():
      if each is None:
        scores[key] = Score(value)
        resampled = np.full(bootstrap.resamples, value)
      else:
        resampled = bootstrap.means([one[key] for one in each], task)
        scores[key] = bootstrap.score(value, resampled)
      if name == names[0] and key == metrics.headline(name):
        headline_each = None if each is None else [one[key] for one in each]
        headline_resampled = resampled
  return scores, headline_each, headline_resampled
