"""Writes an Inspection as one page that opens offline and fits a phone.

Sums and charts come first; single tasks, thousands perhaps, are in folded lists that a browser's
own search opens. Escaping, style and charts are those of the report of a run.
"""

import dataclasses
import itertools
import math
import os
from collections.abc import Sequence
from pathlib import Path

import markupsafe
import numpy as np

from flan_jax import report_page, report_plots
from flan_jax.data import inspection_view, licences
from flan_jax.data.inspection import InspectError, Inspection
from flan_jax.data.inspection_groups import Group, group
from flan_jax.data.inspection_tasks import TaskReport
from flan_jax.report_page import Chart, shown

_MOST_BARS = 14  # of one chart; the rest are one bar
_MOST_GROUPS = 200  # rows of one table of sums
_ALL_OPEN = 40  # tasks whose list is shown unfolded

_SUMS = (
  ('Collections', 'collection'),
  ('Clusters', 'cluster'),
  ('Forms', 'form'),
  ('Licences', 'licence'),
  ('Data sets', 'family'),
)


@dataclasses.dataclass(frozen=True)
class Sums:
  """A table of sums."""

  title: str
  groups: tuple[Group, ...]
  hidden: int
  folded: bool


def write_page(inspection: Inspection, path: str | os.PathLike[str]) -> Path:
  """Writes the page, whole or not at all.

  Raises:
    InspectError: it cannot be written there.
  """
  path = Path(path)
  page = render_page(inspection)
  if path.is_dir():
    raise InspectError(f"Cannot write the page '{path}': Is a directory; give a file.")
  try:
    return report_page.write(path, page)
  except ValueError as e:
    raise InspectError(
      f"Cannot write the page '{path}': {getattr(e.__cause__, 'strerror', None) or e}."
    ) from e


def render_page(inspection: Inspection) -> str:
  """Returns the page as HTML."""
  tasks = inspection.shown_tasks
  return report_page.render(
    'inspection.html',
    title=f'{inspection.mixture}: what will be trained on',
    inspection=inspection,
    summary=inspection_view.summary(inspection),
    charts=_charts(inspection, tasks),
    sums=_sums(inspection),
    lists=_lists(tasks),
    open_lists=len(tasks) <= _ALL_OPEN,
    with_examples=[task for task in tasks if task.examples],
    missing=licences.by_reason(inspection.missing),
    left_out=licences.by_reason(inspection.left_out),
    share=inspection_view.share,
    epochs=inspection_view.epochs,
    wordings=inspection_view.wordings,
    most_used=_most_used,
  )


def _sums(inspection: Inspection) -> list[Sums]:
  found = []
  for title, key in _SUMS:
    groups = group(inspection.shown_tasks, key, inspection.tasks)
    if len(groups) > 1 or key == 'licence':
      hidden = max(0, len(groups) - _MOST_GROUPS)
      folded = len(groups) > _MOST_BARS
      found.append(Sums(title, groups[:_MOST_GROUPS], hidden, folded))
  return found


def _lists(tasks: Sequence[TaskReport]) -> list[tuple[str, list[TaskReport]]]:
  """Tasks by collection and cluster, those of the largest rate first."""
  largest = sorted(tasks, key=lambda task: (task.collection, task.cluster, -task.asked_rate))
  named = itertools.groupby(largest, key=lambda task: (task.collection, task.cluster))
  return [(', '.join(filter(None, names)), list(some)) for names, some in named]


def _most_used(task: TaskReport, most: int = 30) -> list[tuple[str, int]]:
  """The templates of a task, the most frequent first."""
  by_count = sorted(task.templates.items(), key=lambda item: (-item[1], item[0]))
  return by_count[:most]


def _charts(inspection: Inspection, tasks: Sequence[TaskReport]) -> list[Chart]:
  charts = [
    _shares(f'Share by {name}', groups)
    for name in ('collection', 'cluster')
    if len(groups := group(tasks, name, inspection.tasks)) > 1
  ]
  if not charts:
    charts.append(_shares('Share by task', group(tasks, 'name', inspection.tasks)))
  return [*charts, _lengths(inspection), _repeats(inspection, tasks)]


def _shares(title: str, groups: tuple[Group, ...]) -> Chart:
  names = [shown(one.name or 'not stated', 200) for one in groups[:_MOST_BARS]]
  asked = [one.asked_rate for one in groups[:_MOST_BARS]]
  real = [one.realised_rate for one in groups[:_MOST_BARS]]
  rest = groups[_MOST_BARS:]
  if rest:
    names.append(f'{len(rest):,} more')
    asked.append(math.fsum(one.asked_rate for one in rest))
    real.append(math.fsum(one.realised_rate for one in rest))
  bars = [report_plots.Bars('asked', asked, 7), report_plots.Bars('realised', real, 1)]
  svg = report_plots.bar_chart(names, bars, title=title, unit='of all draws', percent=True)
  return Chart(title, (('asked', 7), ('realised', 1)), markupsafe.Markup(svg))


def _lengths(inspection: Inspection) -> Chart:
  lengths, limits = inspection.histogram, inspection.limits
  title = 'Lengths of what is drawn'
  svg = report_plots.histogram(
    lengths.edges,
    [
      report_plots.Bars('inputs', lengths.inputs, 1),
      report_plots.Bars('targets', lengths.targets, 2),
    ],
    title=title,
    unit='tokens; broken lines are the lengths of a row',
    limits=((limits['inputs'], 1), (limits['targets'], 2)),
  )
  return Chart(title, (('inputs', 1), ('targets', 2)), markupsafe.Markup(svg))


def _repeats(inspection: Inspection, tasks: Sequence[TaskReport]) -> Chart:
  """Epochs in the steps asked about, else steps until data repeats."""
  if inspection.steps:
    title, unit = f'Epochs in {inspection.steps:,} steps', 'times that each example is drawn'
    values = [task.epochs or 0.0 for task in tasks]
  else:
    title, unit = 'Until a task is drawn whole', 'steps'
    values = [task.steps_to_repeat for task in tasks]
  if len(tasks) <= _MOST_BARS:
    names = [shown(task.name, 200) for task in tasks]
    bars = [report_plots.Bars('', values, 3)]
    svg = report_plots.bar_chart(names, bars, title=title, unit=unit)
    return Chart(title, (), markupsafe.Markup(svg))
  positive = [value for value in values if value > 0]
  low, high = min(positive), max(positive)
  edges = np.geomspace(low / 1.001, max(high, low * 1.01) * 1.001, 25)
  counts = np.histogram(positive, edges)[0].tolist()
  bars = [report_plots.Bars('', counts, 3)]
  limits = ((1.0, 5),) if inspection.steps and low < 1 < high else ()
  svg = report_plots.histogram(
    edges.tolist(), bars, title=title, unit=f'{unit} (tasks)', percent=False, limits=limits
  )
  return Chart(f'{title}: tasks', (), markupsafe.Markup(svg))
