"""Writes report.html of a run: one file that opens offline and fits a phone.

Everything shown comes from the workdir (report_data.py), escaped (report_page.py), with charts as
inline SVG (report_plots.py). Many runs are compared by report_comparison.py.
"""

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import markupsafe

from flan_jax import goodput, report_data, report_page, report_plots
from flan_jax.evaluation.results import EvaluationResult, Sample, TaskResult
from flan_jax.report_comparison import write_comparison
from flan_jax.report_page import Chart, shown

__all__ = ('write_comparison', 'write_report')

_MAX_TASK_ROWS = 150  # of one table: a page of 1,836 tasks helps nobody and weighs megabytes
_MAX_SAMPLES = 36


@dataclasses.dataclass(frozen=True)
class Answers:
  """One example with the answers of the first and the last evaluation."""

  task: str
  before: Sample | None
  after: Sample


def write_report(workdir: str | os.PathLike) -> Path:
  """Write `workdir`/report.html from what the workdir holds and return its path.

  Raises:
    ValueError: the workdir does not exist, holds no measurement, or cannot be written to.
  """
  data = report_data.read_run(workdir)
  evaluations = data.evaluations
  first = evaluations[0] if len(evaluations) > 1 else None
  last = evaluations[-1] if evaluations else None
  page = report_page.render(
    'report.html',
    data=data,
    title=_title(data),
    first=first,
    last=last,
    charts=_training_charts(data),
    score_charts=_score_charts(evaluations),
    groups=_groups(first, last),
    answers=_answers(first, last),
    mixture=data.mixture[:_MAX_TASK_ROWS],
    largest_rate=max(
      [r for row in data.mixture for r in (row.asked, row.realised) if r], default=0
    ),
    duration=_duration(data),
  )
  return report_page.write(Path(workdir) / 'report.html', page)


def _title(data: report_data.RunData) -> str:
  """The mixture if the configuration names it, else the folder."""
  for row in data.config:
    if row.name.endswith(('DataConfig.mixture', 'data.mixture')):
      return row.value.strip('\'"')
  return data.workdir.resolve().name


def _duration(data: report_data.RunData) -> str | None:
  times = [line['time'] for line in (*data.train, *data.evaluation_lines) if 'time' in line]
  if len(times) < 2:
    return None
  minutes, seconds = divmod(round(max(times) - min(times)), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f'{hours} h {minutes} min'
  return f'{minutes} min {seconds} s' if minutes else f'{seconds} s'


def _training_charts(data: report_data.RunData) -> list[Chart]:
  lines = data.train
  steps = [e.step for e in data.evaluations]
  losses = _series(lines, {'loss': 'training'})
  if steps:
    values = [e.log_values()['loss'] for e in data.evaluations]
    losses.append(report_plots.Series('held-out', steps, values, 2, markers=True))
  collections = sorted({k for line in lines for k in line if k.startswith('loss/')})
  colours = report_plots.NUM_COLOURS
  names = {key: key.removeprefix('loss/') for key in collections[:colours]}
  more = f' (first {colours} of {len(collections)})' if len(collections) > colours else ''
  packed = {'packed_inputs': 'inputs', 'packed_targets': 'targets'}
  if not any(key in line for line in lines for key in packed):
    packed = {'packed': 'fuller side'}
  charts = [
    _chart('Loss', losses, unit='nats per token', scale='log'),
    _chart(f'Loss by collection{more}', _series(lines, names), unit='nats per token', scale='log'),
    _chart(
      'Learning rate',
      _series(lines, {'learning_rate': 'learning rate'}),
      unit='per update',
      scale='zero',
    ),
    _chart(
      'Gradient norm', _series(lines, {'grad_norm': 'norm'}), unit='global L2 norm', scale='log'
    ),
    _chart(
      'Throughput',
      _series(lines, {'tokens_per_second': 'tokens'}),
      unit='real tokens per second',
      scale='zero',
    ),
    _chart('Packed share', _series(lines, packed), unit='positions filled', scale='percent'),
  ]
  charts.append(_goodput_chart(data.starts))
  return [chart for chart in charts if chart]


def _goodput_chart(starts: Sequence[goodput.Start]) -> Chart | None:
  """Where the time went, over all starts, the largest share first."""
  if not starts:
    return None
  seconds = goodput.by_cause(starts)
  total = max(sum(seconds.values()), 1e-9)
  shares = {cause: spent / total for cause, spent in seconds.items() if spent / total >= 5e-4}
  title = goodput.sentence(starts).partition(':')[0]
  bars = [report_plots.Bars('share', list(shares.values()), 1)]
  svg = report_plots.bar_chart(
    list(shares), bars, title=title, unit='of the time since the first start', percent=True
  )
  return Chart(title, (), markupsafe.Markup(svg))


def _series(lines, names: Mapping[str, str]) -> list[report_plots.Series]:
  """One series for each key of metrics.jsonl that has a finite value."""
  series = []
  for number, (key, label) in enumerate(names.items(), start=1):
    points = [(line['step'], line[key]) for line in lines if key in line]
    if any(math.isfinite(y) for _, y in points):
      x, y = zip(*points, strict=True)
      series.append(report_plots.Series(label, x, y, number))
  return series


def _chart(title: str, series: list[report_plots.Series], **options: Any) -> Chart | None:
  if not series:
    return None
  svg = markupsafe.Markup(report_plots.line_chart(series, title=shown(title), **options))
  legend = tuple((one.label, one.colour) for one in series) if len(series) > 1 else ()
  return Chart(title, legend, svg)


def _score_charts(evaluations: Sequence[EvaluationResult]) -> list[Chart]:
  """Score of each mixture over the evaluations, with its interval; needs two evaluations."""
  if len(evaluations) < 2:
    return []
  charts = []
  for number, name in enumerate(list(evaluations[-1].mixtures)[: report_plots.NUM_COLOURS]):
    points = [(e.step, e.mixtures[name].score) for e in evaluations if name in e.mixtures]
    series = report_plots.Series(
      name,
      [step for step, _ in points],
      [score.value for _, score in points],
      number + 1,
      low=[score.value if score.low is None else score.low for _, score in points],
      high=[score.value if score.high is None else score.high for _, score in points],
      markers=True,
    )
    charts.append(_chart(name, [series], unit='score (0 to 100)', scale='score'))
  return charts


def _groups(first: EvaluationResult | None, last: EvaluationResult | None) -> list[dict[str, Any]]:
  """For each evaluation mixture: its score before and after, and the rows of its tasks."""
  if last is None:
    return []
  return [
    {
      'name': name,
      'before': _get(first, 'mixtures', name),
      'after': group,
      'rows': _task_rows(first, [last.tasks[t] for t in group.tasks[:_MAX_TASK_ROWS]]),
      'hidden': max(0, len(group.tasks) - _MAX_TASK_ROWS),
    }
    for name, group in last.mixtures.items()
  ]


def _task_rows(first, tasks: Sequence[TaskResult]) -> list[dict[str, Any]]:
  rows = [{'before': _get(first, 'tasks', task.task), 'after': task} for task in tasks]
  return sorted(rows, key=lambda row: (row['after'].cluster, row['after'].task))


def _get(result: EvaluationResult | None, kind: str, name: str) -> Any:
  return getattr(result, kind).get(name) if result else None


def _answers(first: EvaluationResult | None, last: EvaluationResult | None) -> list[Answers]:
  """Samples round-robin over the tasks, so that every task shows one before any shows two."""
  if last is None:
    return []
  chosen = []
  most = max((len(task.samples) for task in last.tasks.values()), default=0)
  for number in range(most):
    for task in last.tasks.values():
      if number < len(task.samples):
        sample = task.samples[number]
        earlier = _get(first, 'tasks', task.task)
        before = [s for s in earlier.samples if s.example == sample.example] if earlier else []
        chosen.append(Answers(task.task, before[0] if before else None, sample))
  return sorted(chosen[:_MAX_SAMPLES], key=lambda answers: answers.task)
