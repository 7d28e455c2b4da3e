"""Reads a run's workdir for the report: whatever is there, and sentences for what is not.

A run may have been killed at any moment, so every file may be absent or torn. Only a folder without
a single number is refused. How it looks is the concern of report.py and the templates.
"""

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flan_jax import goodput
from flan_jax.data import vocabularies
from flan_jax.evaluation.results import EvaluationResult


@dataclasses.dataclass(frozen=True)
class MixtureRow:
  """One task of the training mixture; rates are shares of the examples drawn, 0 to 1."""

  task: str
  collection: str
  asked: float | None
  realised: float | None
  tokens: float | None


@dataclasses.dataclass(frozen=True)
class ConfigRow:
  """One resolved setting and where it came from."""

  name: str
  value: str
  source: str


@dataclasses.dataclass(frozen=True)
class RunData:
  """What a workdir holds.

  Attributes:
    workdir: The folder.
    run: run.json: versions, mesh, parameters, start.
    config: Rows of config.json.
    config_gin: Text of config.gin, or None.
    train: Lines of metrics.jsonl of kind 'train', by step, numbers only.
    evaluation_lines: Those of kind 'evaluation'.
    evaluations: Results in evaluations/, by step.
    mixture: Rows of mixture.json, the largest rate first.
    starts: Where the time of each start went, of goodput.json.
    missing: A sentence for each thing that is not there.
    warnings: A sentence for each thing the reader should know of the run itself.
  """

  workdir: Path
  run: Mapping[str, Any]
  config: tuple[ConfigRow, ...]
  config_gin: str | None
  train: tuple[Mapping[str, float], ...]
  evaluation_lines: tuple[Mapping[str, float], ...]
  evaluations: tuple[EvaluationResult, ...]
  mixture: tuple[MixtureRow, ...]
  starts: tuple[goodput.Start, ...]
  missing: tuple[str, ...]
  warnings: tuple[str, ...]

  @property
  def last_step(self) -> int:
    """The last step any file speaks of."""
    lines = [int(line['step']) for line in (*self.train, *self.evaluation_lines)]
    return max([*lines, *(e.step for e in self.evaluations)])


def read_run(workdir: str | os.PathLike) -> RunData:
  """Read what is in `workdir`.

  Raises:
    ValueError: no such folder, or no number in it at all.
  """
  workdir = Path(workdir)
  if not workdir.is_dir():
    kind = 'is not a folder' if workdir.exists() else 'does not exist'
    raise ValueError(f"The workdir '{workdir}' {kind}; give the --workdir of a training run.")
  missing: list[str] = []
  lines = _read_metrics(workdir / 'metrics.jsonl', missing)
  evaluations = _read_evaluations(workdir / 'evaluations', missing)
  if not lines and not evaluations:
    raise ValueError(
      f"The workdir '{workdir}' holds no measurement: no readable line in metrics.jsonl and no "
      'file in evaluations/; train first, or give another folder.'
    )
  train = tuple(line for line in lines if line.get('kind') == 'train')
  if lines and not train:
    missing.append('metrics.jsonl has no training line yet; the run ended before its first one.')
  run = _read_object(workdir / 'run.json', missing)
  config = _config_rows(_read_object(workdir / 'config.json', missing))
  mixture = _read_object(workdir / 'mixture.json', missing)
  gin = workdir / 'config.gin'
  starts = tuple(goodput.read(workdir))
  if not starts:
    missing.append('goodput.json is missing or cannot be read: nothing on where the time went.')
  return RunData(
    workdir=workdir,
    run=run,
    config=config,
    config_gin=gin.read_text(encoding='utf-8', errors='replace') if gin.is_file() else None,
    train=train,
    evaluation_lines=tuple(line for line in lines if line.get('kind') == 'evaluation'),
    evaluations=evaluations,
    mixture=_mixture_rows(mixture, missing),
    starts=starts,
    missing=tuple(missing),
    warnings=tuple(_warnings(workdir, train, evaluations, mixture)),
  )


def _read_metrics(path: Path, missing: list[str]) -> list[dict[str, Any]]:
  """Lines with a step and a kind, by step; NaN and infinity, kept as strings, become floats."""
  if not path.is_file():
    missing.append('metrics.jsonl is missing: no training curves.')
    return []
  lines, torn = [], []
  for number, text in enumerate(path.read_bytes().split(b'\n'), start=1):
    if not text.strip():
      continue
    try:
      line = json.loads(text)
      numbers = {k: float(v) for k, v in line.items() if k not in ('step', 'kind')}
      lines.append({**numbers, 'step': int(line['step']), 'kind': str(line['kind'])})
    except (ValueError, KeyError, TypeError, AttributeError):
      torn.append(number)
  if not lines and not torn:
    missing.append('metrics.jsonl is empty: no training curves.')
  if torn:
    shown = ', '.join(map(str, torn[:5])) + (' ...' if len(torn) > 5 else '')
    missing.append(
      f'metrics.jsonl: {len(torn)} of its lines cannot be read (line {shown}); '
      'a run that is killed while writing leaves such a line.'
    )
  return sorted(lines, key=lambda line: line['step'])


def _read_evaluations(folder: Path, missing: list[str]) -> tuple[EvaluationResult, ...]:
  paths = sorted(folder.glob('*.json')) if folder.is_dir() else []
  results = []
  for path in paths:
    try:
      results.append(EvaluationResult.read(path))
    except (ValueError, OSError) as e:
      missing.append(f'evaluations/{path.name} was left out: {e}')
  if not results:
    missing.append('evaluations/ holds no result: no scores and no sample answers.')
  elif len(results) == 1:
    missing.append('There is one evaluation only, so there is no before and after.')
  return tuple(sorted(results, key=lambda result: result.step))


def _read_object(path: Path, missing: list[str]) -> dict[str, Any]:
  try:
    value = json.loads(path.read_text(encoding='utf-8'))
  except FileNotFoundError:
    missing.append(f'{path.name} is missing.')
  except (OSError, ValueError) as e:
    missing.append(f'{path.name} cannot be read: {e}')
  else:
    if isinstance(value, dict):
      return value
    missing.append(f'{path.name} is not a JSON object.')
  return {}


def _config_rows(config: Mapping[str, Any]) -> tuple[ConfigRow, ...]:
  """Rows of {name: {value, source}} or, of any other nesting, its leaves by dotted path."""
  rows = []
  for name, value in config.items():
    if isinstance(value, dict) and set(value) == {'value', 'source'}:
      rows.append(ConfigRow(name, str(value['value']), str(value['source'])))
    elif isinstance(value, dict) and value:
      rows += [dataclasses.replace(row, name=f'{name}.{row.name}') for row in _config_rows(value)]
    else:
      rows.append(ConfigRow(name, json.dumps(value, ensure_ascii=False), ''))
  return tuple(rows)


def _mixture_rows(mixture: Mapping[str, Any], missing: list[str]) -> tuple[MixtureRow, ...]:
  tasks = mixture.get('tasks')
  if mixture and not (
    tasks and isinstance(tasks, list) and all(isinstance(t, dict) for t in tasks)
  ):
    missing.append("mixture.json has no list 'tasks': the mixture is not shown.")
    return ()
  rows = []
  for row in tasks or ():
    counts = [_number(row.get(f'{side}_tokens')) for side in ('input', 'target')]
    rows.append(
      MixtureRow(
        task=str(row.get('task')),
        collection=str(row.get('collection') or ''),
        asked=_number(row.get('asked_rate')),
        realised=_number(row.get('realised_rate')),
        tokens=None if None in counts else sum(c for c in counts if c is not None),
      )
    )
  return tuple(sorted(rows, key=lambda row: -(row.asked or row.realised or 0.0)))


def _number(value: Any) -> float | None:
  good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
  return float(value) if good else None


def _warnings(workdir, train, evaluations, mixture) -> list[str]:
  warnings = []
  skipped = int(max((line.get('skipped_updates', 0.0) for line in train), default=0))
  if skipped:
    warnings.append(
      f'{_count(skipped, "update")} skipped by the guard, because the loss or the gradient was '
      'not finite or far above its recent values.'
    )
  bad = [int(line['step']) for line in train if not math.isfinite(line.get('loss', 0.0))]
  if bad:
    warnings.append(f'The training loss was not a finite number at step {bad[0]:,}.')
  for side in ('inputs', 'targets'):
    cut = _number(mixture.get(f'truncated_{side}'))
    if cut:
      drawn = sum(_number(mixture.get(part)) or 0.0 for part in ('main', 'filler'))
      of = f' of {drawn:,.0f}' if drawn else ''
      warnings.append(
        f'In the first windows of the training data, {_count(int(cut), "example", of)} cut '
        f'because the {side} were too long.'
      )
  if evaluations:
    warnings += _evaluation_warnings(evaluations[-1])
  if (workdir / 'vocabulary').is_dir():
    try:
      lossy = vocabularies.load_vocabulary(workdir / 'vocabulary').lossy_characters
    except ValueError as e:
      warnings.append(f'The vocabulary cannot be read: {e}')
    else:
      if lossy:
        shown = ', '.join({'\n': 'newline', '\t': 'tab'}.get(c, c) for c in lossy)
        warnings.append(
          f'The vocabulary cannot write these characters, so no answer contains them: {shown}'
        )
  return warnings


def _evaluation_warnings(evaluation: EvaluationResult) -> list[str]:
  warnings = []
  if evaluation.missing:
    names = ', '.join(evaluation.missing[:8]) + (' ...' if len(evaluation.missing) > 8 else '')
    warnings.append(
      f'{_count(len(evaluation.missing), "task")} not evaluated, for want of the split '
      f"'{evaluation.split}': {names}"
    )
  for side in ('inputs', 'targets'):
    cut = {t.task: getattr(t, f'truncated_{side}') for t in evaluation.tasks.values()}
    total = sum(t.examples for t in evaluation.tasks.values())
    if sum(cut.values()):
      worst = max(cut, key=lambda task: cut[task])
      count = _count(sum(cut.values()), 'example', f' of {total:,} in the last evaluation')
      warnings.append(
        f'{count} cut because the {side} were too long, most of them ({cut[worst]:,}) in {worst}.'
      )
  return warnings


def _count(number: int, noun: str, of: str = '') -> str:
  """'1 update was' or '1,234 updates of 2,000 were'."""
  return f'{number:,} {noun}{of} was' if number == 1 else f'{number:,} {noun}s{of} were'
