"""What models scored on benchmarks, as frozen dataclasses that go to JSON and back.

The runner makes them, reports and comparisons read the files. Scores are 0 to 100.
"""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flan_jax import whole_file
from flan_jax.evaluation.results import Score

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Sample:
  """One question and what the model answered, for a reader.

  Attributes:
    id: Of the question.
    prompt: Its text as the model read it, exemplars included.
    targets: Acceptable answers.
    generated: What was written, or the choice taken.
    prediction: The answer cut out of it; '' where none was found.
    score: 0 to 100 on the task's metric.
  """

  id: str
  prompt: str
  targets: tuple[str, ...]
  generated: str
  prediction: str
  score: float | None


@dataclasses.dataclass(frozen=True)
class TaskScore:
  """One task of a suite.

  Attributes:
    score: On `metric`.
    metric: Name of the headline metric.
    scores: All scores by name, the headline among them.
    examples: How many were asked.
    available: How many the file has.
    baseline: What guessing scores.
    unanswered: Answers that were empty or in which the extractor found none.
    shortened: Questions that lost exemplars to the model's limit.
    truncated: Questions that were too long even without exemplars, and were cut.
    prompt_hash: See benchmark.Task.prompt_hash.
    protocol: As the task states it.
    samples: The first few questions.
  """

  score: Score
  metric: str
  scores: Mapping[str, Score]
  examples: int
  available: int
  baseline: float
  unanswered: int
  shortened: int
  truncated: int
  prompt_hash: str
  protocol: Mapping[str, Any]
  samples: tuple[Sample, ...] = ()

  @property
  def normalised(self) -> float:
    """100 (score - baseline) / (100 - baseline), 2210.11416 section 2.3."""
    return 100.0 * (self.score.value - self.baseline) / (100.0 - self.baseline)


@dataclasses.dataclass(frozen=True)
class SuiteScore:
  """A suite: the unweighted mean over its tasks.

  Attributes:
    score: Mean of the tasks' scores; examples are resampled within their task for the interval.
    tasks: By name.
    missing: Task -> why it could not be asked; such a suite's mean lacks them.
    protocol: What holds for all tasks.
    scores: What a probe finds when it compares its tasks, by name and the headline first; points,
      which may be below 0. {} for other suites.
  """

  score: Score
  tasks: Mapping[str, TaskScore]
  missing: Mapping[str, str]
  protocol: Mapping[str, Any]
  scores: Mapping[str, Score] = dataclasses.field(default_factory=dict)

  @property
  def normalised(self) -> float:
    """Mean over the tasks of their normalised scores."""
    return sum(task.normalised for task in self.tasks.values()) / len(self.tasks)


@dataclasses.dataclass(frozen=True)
class BenchmarkResult:
  """What one checkpoint scored.

  Attributes:
    checkpoint: What the user called it: a path, or a label.
    fingerprint: Identifies its parameters.
    model: Its name or shape, for people.
    step: Updates it had seen.
    seed: Of the choice of examples and of sampled answers.
    seconds: Wall time.
    suites: By name.
    settings: Lengths, decoding, precision, software versions, for a reader.
  """

  checkpoint: str
  fingerprint: str
  model: str
  step: int
  seed: int
  seconds: float
  suites: Mapping[str, SuiteScore]
  settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def to_json(self) -> dict[str, Any]:
    """Return plain dicts, lists, strings and numbers."""
    return {'format': FORMAT, 'kind': 'benchmarks', **dataclasses.asdict(self)}

  @classmethod
  def from_json(cls, value: Mapping[str, Any]) -> 'BenchmarkResult':
    """Read what `to_json` gave.

    Raises:
      ValueError: it is something else; says what is missing.
    """
    try:
      if value['format'] != FORMAT or value['kind'] != 'benchmarks':
        raise ValueError(
          f'The scores have format {value["format"]!r}; this version reads {FORMAT}.'
        )
      fields = {k: v for k, v in value.items() if k not in ('format', 'kind')}
      fields['suites'] = {name: _suite(suite) for name, suite in fields['suites'].items()}
      return cls(**fields)
    except (KeyError, TypeError, AttributeError) as e:
      raise ValueError(f'These are not the scores of benchmarks: {e!r}.') from e

  def write(self, path: str | os.PathLike) -> None:
    """Write JSON to `path`, whole or not at all; its folder is made."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    whole_file.write(path, json.dumps(self.to_json(), indent=1, ensure_ascii=False) + '\n')

  @classmethod
  def read(cls, path: str | os.PathLike) -> 'BenchmarkResult':
    """Read what `write` wrote.

    Raises:
      ValueError: the file holds something else.
    """
    try:
      return cls.from_json(json.loads(Path(path).read_text(encoding='utf-8')))
    except ValueError as e:
      raise ValueError(f"'{path}' cannot be read as scores of benchmarks: {e}") from e


def merged(results: Sequence[BenchmarkResult]) -> list[BenchmarkResult]:
  """Brings together what was asked of one checkpoint in several runs, in the order of the first.

  Results are of one checkpoint if its name, parameters and steps are the same, and are kept apart
  where they have a suite in common.
  """
  found: list[BenchmarkResult] = []
  for result in results:
    for index, other in enumerate(found):
      same = all(
        getattr(other, name) == getattr(result, name)
        for name in ('checkpoint', 'fingerprint', 'step', 'seed')
      )
      if same and not other.suites.keys() & result.suites.keys():
        found[index] = dataclasses.replace(
          other,
          suites={**other.suites, **result.suites},
          seconds=other.seconds + result.seconds,
        )
        break
    else:
      found.append(result)
  return found


def _suite(value) -> SuiteScore:
  tasks = {name: _task(task) for name, task in value['tasks'].items()}
  scores = {name: Score(**score) for name, score in value['scores'].items()}
  return SuiteScore(**{**value, 'score': Score(**value['score']), 'tasks': tasks, 'scores': scores})


def _task(value) -> TaskScore:
  return TaskScore(
    **{
      **value,
      'score': Score(**value['score']),
      'scores': {name: Score(**score) for name, score in value['scores'].items()},
      'samples': tuple(Sample(**{**s, 'targets': tuple(s['targets'])}) for s in value['samples']),
    }
  )
