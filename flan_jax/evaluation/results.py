"""What an evaluation found, as frozen dataclasses that go to JSON and back.

The evaluator makes them, the trainer logs `log_values`, the report reads the JSON files. Scores are
0 to 100, losses are nats per target token, accuracies are shares of target tokens (0 to 1).
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flan_jax import whole_file

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Score:
  """One score, 0 to 100, with its bootstrap interval; a corpus metric (bleu, chrf) has none."""

  value: float
  low: float | None = None
  high: float | None = None


@dataclasses.dataclass(frozen=True)
class Sample:
  """One example and what the model answered.

  Attributes:
    example: Its id in the task's data.
    prompt: What the model read, decoded from its tokens.
    target: What it should write, rationale included.
    references: Acceptable answers.
    generated: What it wrote.
    prediction: The answer cut out of it.
    score: The task's headline metric on this example, 0 to 100; None for a corpus metric.
  """

  example: str
  prompt: str
  target: str
  references: tuple[str, ...]
  generated: str
  prediction: str
  score: float | None = None


@dataclasses.dataclass(frozen=True)
class TaskResult:
  """One task on one split.

  Attributes:
    task, cluster, collection, cot: As in the task's manifest.
    examples: How many were evaluated.
    available: How many the split has.
    tokens: Target tokens of the teacher-forced loss.
    loss: Nats per target token.
    accuracy: Share of target tokens whose highest logit is right.
    headline: The score that averages use.
    scores: By name; a metric may give several (rouge1, rouge2, rougeL).
    truncated_inputs, truncated_targets: Examples longer than the evaluation's lengths.
    samples: The same examples at every evaluation.
  """

  task: str
  cluster: str
  collection: str
  cot: bool
  examples: int
  available: int
  tokens: int
  loss: float
  accuracy: float
  headline: str
  scores: Mapping[str, Score]
  truncated_inputs: int = 0
  truncated_targets: int = 0
  samples: tuple[Sample, ...] = ()

  @property
  def score(self) -> Score:
    """The headline score."""
    return self.scores[self.headline]


@dataclasses.dataclass(frozen=True)
class GroupResult:
  """The tasks of one mixture, or of one cluster.

  Attributes:
    name: Of the mixture or cluster.
    tasks: Their names.
    score: Mean of the tasks' headline scores, each task counting the same.
    loss, accuracy: Over all target tokens of the group.
  """

  name: str
  tasks: tuple[str, ...]
  score: Score
  loss: float
  accuracy: float


@dataclasses.dataclass(frozen=True)
class EvaluationResult:
  """Everything one evaluation found.

  Attributes:
    step: Updates the model had seen.
    split: Which split was read.
    seconds: Wall time.
    mixtures, clusters, tasks: Results by name.
    missing: Tasks of the mixtures without this split, left out because skip_missing was set.
    settings: Lengths, decoding and the like, for the reader.
  """

  step: int
  split: str
  seconds: float
  mixtures: Mapping[str, GroupResult]
  clusters: Mapping[str, GroupResult]
  tasks: Mapping[str, TaskResult]
  missing: tuple[str, ...] = ()
  settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def log_values(self) -> dict[str, float]:
    """Return the numbers for a training log; 'score' is the mean over mixtures, 0 to 100."""
    tokens = sum(t.tokens for t in self.tasks.values())
    values = {
      'loss': sum(t.loss * t.tokens for t in self.tasks.values()) / max(tokens, 1),
      'accuracy': sum(t.accuracy * t.tokens for t in self.tasks.values()) / max(tokens, 1),
      'score': sum(m.score.value for m in self.mixtures.values()) / len(self.mixtures),
    }
    for kind, groups in (('mixture', self.mixtures), ('cluster', self.clusters)):
      for name, group in groups.items():
        values[f'{kind}/{name}/score'] = group.score.value
        values[f'{kind}/{name}/loss'] = group.loss
    for name, task in self.tasks.items():
      values[f'task/{name}/{task.headline}'] = task.score.value
      values[f'task/{name}/loss'] = task.loss
    return values

  def to_json(self) -> dict[str, Any]:
    """Return plain dicts, lists, strings and numbers."""
    return {'format': FORMAT, **dataclasses.asdict(self)}

  @classmethod
  def from_json(cls, value: Mapping[str, Any]) -> 'EvaluationResult':
    """Read what `to_json` gave.

    Raises:
      ValueError: it is something else; says what is missing.
    """
    try:
      if value['format'] != FORMAT:
        raise ValueError(
          f'The evaluation has format {value["format"]!r}; this version reads {FORMAT}.'
        )
      fields = {k: v for k, v in value.items() if k != 'format'}
      for kind in ('mixtures', 'clusters'):
        fields[kind] = {name: _group(group) for name, group in fields[kind].items()}
      fields['tasks'] = {name: _task(task) for name, task in fields['tasks'].items()}
      fields['missing'] = tuple(fields['missing'])
      return cls(**fields)
    except (KeyError, TypeError, AttributeError) as e:
      raise ValueError(f'This is not the result of an evaluation: {e!r}.') from e

  def write(self, path: str | os.PathLike) -> None:
    """Write JSON to `path`, whole or not at all; its folder is made."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    whole_file.write(path, json.dumps(self.to_json(), indent=1) + '\n')

  @classmethod
  def read(cls, path: str | os.PathLike) -> 'EvaluationResult':
    """Read what `write` wrote.

    Raises:
      ValueError: the file is not the result of an evaluation.
    """
    try:
      return cls.from_json(json.loads(Path(path).read_text(encoding='utf-8')))
    except ValueError as e:
      raise ValueError(f"'{path}' cannot be read as an evaluation: {e}") from e


def _group(value) -> GroupResult:
  return GroupResult(**{**value, 'tasks': tuple(value['tasks']), 'score': Score(**value['score'])})


def _task(value) -> TaskResult:
  samples = tuple(Sample(**{**s, 'references': tuple(s['references'])}) for s in value['samples'])
  scores = {name: Score(**score) for name, score in value['scores'].items()}
  return TaskResult(**{**value, 'scores': scores, 'samples': samples})
