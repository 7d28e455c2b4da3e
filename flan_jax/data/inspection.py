"""inspect: what a mixture in a cache will train on, measured before anything is trained.

Reads the cache and plans windows; examples are decoded from their tokens, which is what the model
sees. How it looks is in inspection_view.py and inspection_page.py.
"""

import dataclasses
import fnmatch
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from flan_jax.console import console
from flan_jax.data import cache, inspection_tasks
from flan_jax.data.inspection_groups import LengthCounter, LengthHistogram
from flan_jax.data.inspection_tasks import TaskReport
from flan_jax.data.loader import Loader
from flan_jax.data.mixture import ResolvedMixture, list_mixtures, resolve
from flan_jax.data.prepare_report import lossy_warning
from flan_jax.data.statistics import LoaderStatistics
from flan_jax.data.tokenizing import result_of
from flan_jax.data.vocabularies import Vocabulary
from flan_jax.naming import listing, nearest, some

_MOST_TRUNCATED_TARGETS = 0.01  # a larger share of cut answers is worth a warning
_FEW_EXAMPLES = 50  # a task with fewer is learnt by heart, and its scores are noise
_MANY_EPOCHS = 10  # beyond some repetitions, more of them teach nothing new
_ONE_WORDING = 0.9  # a larger share of one template makes the others decoration
_MOST_TASKS_WITH_EXAMPLES = 60  # of a large mixture, unless tasks are named: a page must open


class InspectError(ValueError):
  """An inspection that cannot be done as asked."""


@dataclasses.dataclass(frozen=True)
class InspectConfig:
  """What to look at.

  Attributes:
    mixture: a mixture or task in the cache.
    cache_dir: what prepare wrote.
    html: also write a page there.
    examples: rendered examples of each task.
    lengths: {'inputs': tokens, 'targets': tokens} of a row, as training will have them.
    split: split to look at.
    batch_rows: rows of a step, for steps until data repeats.
    windows: windows over which realised rates and filling are measured.
    seed: seed of the order.
    steps: steps of the run that is planned, to count epochs over; None counts none.
    tasks: names of tasks, data sets, forms, clusters or collections, or patterns of task names
      ('rte*'): show only these of the mixture; none shows all.
    licence: regular expression; leaves out tasks whose licence does not match it.
  """

  mixture: str
  cache_dir: str
  html: str | None = None
  examples: int = 3
  lengths: Mapping[str, int] = dataclasses.field(
    default_factory=lambda: {'inputs': 512, 'targets': 128}
  )
  split: str = 'train'
  batch_rows: int = 64
  windows: int = 4
  seed: int = 0
  steps: int | None = None
  tasks: tuple[str, ...] = ()
  licence: str | None = None

  def __post_init__(self):
    if self.examples < 0:
      raise InspectError(f'examples={self.examples} must be 0 or more.')
    if self.steps is not None and self.steps < 1:
      raise InspectError(f'steps={self.steps} must be at least 1.')


@dataclasses.dataclass(frozen=True)
class Inspection:
  """All that is shown.

  Attributes:
    tasks: every task of the mixture.
    shown: names of the tasks asked for; empty if all are to be shown.
    statistics: counts over the windows measured.
    histogram: lengths of what is drawn.
    missing: task that is not in the cache -> why.
    left_out: task left out for its licence -> why.
  """

  mixture: str
  split: str
  vocabulary: str
  limits: Mapping[str, int]
  batch_rows: int
  steps: int | None
  tasks: tuple[TaskReport, ...]
  shown: frozenset[str]
  statistics: LoaderStatistics
  histogram: LengthHistogram
  missing: Mapping[str, str]
  left_out: Mapping[str, str]
  warnings: tuple[str, ...]

  @property
  def shown_tasks(self) -> tuple[TaskReport, ...]:
    """The tasks asked for, else all."""
    return tuple(task for task in self.tasks if not self.shown or task.name in self.shown)


def inspect(config: InspectConfig, *, out: Console | None = None) -> Inspection:
  """Prints what the mixture holds; writes the page if one was asked for.

  Raises:
    ValueError: no such cache or mixture, or a page that cannot be written.
  """
  from flan_jax.data import inspection_page, inspection_view

  inspection = examine(config)
  inspection_view.print_inspection(inspection, out or console())
  if config.html:
    inspection_page.write_page(inspection, config.html)
    (out or console()).print(f'Page: {config.html}')
  return inspection


def examine(config: InspectConfig) -> Inspection:
  """Measures a mixture in a cache."""
  mixture = resolve(
    config.mixture, config.cache_dir, split=config.split, skip_missing=True, licence=config.licence
  )
  loader = Loader(
    config.cache_dir,
    mixture,
    lengths=config.lengths,
    batch_rows=config.batch_rows,
    seed=config.seed,
  )
  statistics = loader.statistics(config.windows)
  vocabulary = cache.cache_vocabulary(config.cache_dir)
  tasks, histogram = _measure(config, mixture, statistics)
  shown = _choose(tasks, config.tasks)
  tasks = _with_examples(config, tasks, shown, vocabulary)
  missing, left_out = _missing(config, mixture), _left_out(config, mixture)
  return Inspection(
    mixture=mixture.name,
    split=config.split,
    vocabulary=f'{vocabulary.kind}, {vocabulary.size:,} ids',
    limits=dict(config.lengths),
    batch_rows=config.batch_rows,
    steps=config.steps,
    tasks=tuple(tasks),
    shown=shown,
    statistics=statistics,
    histogram=histogram,
    missing=missing,
    left_out=left_out,
    warnings=_warnings(tasks, missing, mixture, vocabulary, config.lengths),
  )


def _measure(
  config: InspectConfig, mixture: ResolvedMixture, statistics: LoaderStatistics
) -> tuple[list[TaskReport], LengthHistogram]:
  """Opens one task after the other; only the numbers stay in memory."""
  info = cache.read_cache_info(config.cache_dir)
  tasks, counter = [], LengthCounter()
  for measured, manifest in zip(statistics.tasks, mixture.manifests, strict=True):
    task = cache.TaskCache.open(
      config.cache_dir, measured.task, config.split, info=info, manifest=manifest
    )
    tasks.append(
      inspection_tasks.report_task(
        task,
        measured,
        limits=config.lengths,
        drawn_per_step=measured.asked_rate * statistics.examples_per_step,
        steps=config.steps,
      )
    )
    counter.add(measured.asked_rate, task.input_lengths(), task.target_lengths())
  return tasks, counter.result()


def _choose(tasks: Sequence[TaskReport], wanted: Sequence[str]) -> frozenset[str]:
  """Finds tasks by name or pattern, or by what they belong to.

  Raises:
    InspectError: a name that fits none.
  """
  chosen = set()
  for name in wanted:
    found = {
      task.name
      for task in tasks
      if name in (task.name, task.family, task.form, task.cluster, task.collection)
      or fnmatch.fnmatchcase(task.name, name)
    }
    if not found:
      names = [task.name for task in tasks]
      kinds = {kind for t in tasks for kind in (t.family, t.form, t.cluster, t.collection) if kind}
      raise InspectError(
        f"No task, data set, form, cluster or collection '{name}' in this mixture."
        f'{nearest(name, {*names, *kinds})} Tasks: {listing(names, 8)}. '
        f'Forms: {listing({task.form for task in tasks if task.form}, 8)}.'
      )
    chosen |= found
  return frozenset(chosen)


def _with_examples(
  config: InspectConfig,
  tasks: Sequence[TaskReport],
  shown: frozenset[str],
  vocabulary: Vocabulary,
) -> list[TaskReport]:
  """Renders examples of the tasks asked for, or of some of each kind."""
  names = shown
  if not names:
    # One of each kind first, so that every cell of a large mixture is seen.
    kinds = {(task.collection, task.form, task.cluster): task.name for task in reversed(tasks)}
    names = list(dict.fromkeys([*reversed(kinds.values()), *(task.name for task in tasks)]))
    names = set(names[:_MOST_TASKS_WITH_EXAMPLES])
  info = cache.read_cache_info(config.cache_dir)
  rendered = []
  for task in tasks:
    if task.name in names and config.examples:
      opened = cache.TaskCache.open(config.cache_dir, task.name, config.split, info=info)
      examples = inspection_tasks.render(opened, config.examples, vocabulary, config.lengths)
      task = dataclasses.replace(task, examples=examples)
    rendered.append(task)
  return rendered


def _missing(config: InspectConfig, mixture: ResolvedMixture) -> dict[str, str]:
  """Tasks that the mixture lists or once listed and that are not in the cache, and why."""
  missing = dict.fromkeys(
    mixture.skipped, f"It has no split '{config.split}' in the cache; prepare it."
  )
  return missing | _written(config, mixture).get('missing', {})


def _left_out(config: InspectConfig, mixture: ResolvedMixture) -> dict[str, str]:
  """Tasks without the licence that is asked for here or was when the mixture was prepared."""
  return {**_written(config, mixture).get('left_out', {}), **mixture.left_out}


def _written(config: InspectConfig, mixture: ResolvedMixture) -> dict[str, Any]:
  """What prepare wrote of the mixture; nothing for a task."""
  if mixture.name not in list_mixtures(config.cache_dir):
    return {}
  return cache.read_json(Path(config.cache_dir) / 'mixtures' / f'{mixture.name}.json')


def _warnings(
  tasks: Sequence[TaskReport],
  missing: Mapping[str, str],
  mixture: ResolvedMixture,
  vocabulary: Vocabulary,
  limits: Mapping[str, int],
) -> tuple[str, ...]:
  warnings = []
  if missing:
    warnings.append(f'{len(missing)} tasks are missing: {some(list(missing))}.')
  unlicensed = [task.name for task in tasks if not task.licence]
  if unlicensed:
    warnings.append(f'{len(unlicensed)} tasks state no licence: {some(unlicensed)}.')
  cut = [task for task in tasks if task.targets.cut_share > _MOST_TRUNCATED_TARGETS]
  if cut:
    worst = sorted(cut, key=lambda task: -task.targets.cut_share)
    listed = some([f'{task.name} {task.targets.cut_share:.1%}' for task in worst])
    longest = max(task.targets.longest for task in cut)
    warnings.append(
      f'{len(cut)} tasks lose the end of more than {_MOST_TRUNCATED_TARGETS:.0%} of their targets '
      f'at {limits["targets"]} tokens: {listed}. The longest has {longest:,} tokens.'
    )
  few = [task for task in tasks if task.num_examples < _FEW_EXAMPLES]
  if few:
    listed = some([f'{task.name} {task.num_examples}' for task in few])
    warnings.append(f'{len(few)} tasks have fewer than {_FEW_EXAMPLES} examples: {listed}.')
  often = [task for task in tasks if (task.epochs or 0) > _MANY_EPOCHS]
  if often:
    often.sort(key=lambda task: -(task.epochs or 0))
    listed = some([f'{task.name} {task.epochs:,.0f}' for task in often])
    warnings.append(f'{len(often)} tasks are repeated more than {_MANY_EPOCHS} times: {listed}.')
  same = [t for t in tasks if t.wordings.used > 1 and t.wordings.most_frequent > _ONE_WORDING]
  if same:
    listed = some([f'{task.name} {task.wordings.most_frequent:.0%}' for task in same])
    warnings.append(f'{len(same)} tasks have nearly always the same template: {listed}.')
  lossy = lossy_warning((result_of(m, 'kept') for m in mixture.manifests), vocabulary.kind)
  return (*warnings, lossy) if lossy else tuple(warnings)
