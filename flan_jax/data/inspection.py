"""inspect: what a mixture in a cache will train on, measured before anything is trained.

Rates asked and realised, tokens, what the lengths would cut, licences, and examples decoded from
their tokens, which is what the model sees. Reads the cache and plans windows; how it looks is in
inspection_view.py.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from flan_jax.console import console
from flan_jax.data import cache
from flan_jax.data.loader import Loader
from flan_jax.data.mixture import ResolvedMixture, list_mixtures, resolve
from flan_jax.data.prepare_report import lossy_warning
from flan_jax.data.statistics import LoaderStatistics
from flan_jax.data.tokenizing import result_of
from flan_jax.data.vocabularies import Vocabulary

_MOST_TRUNCATED_TARGETS = 0.01  # a larger share of cut answers is worth a warning
_FEW_EXAMPLES = 50  # a task with fewer is learnt by heart, and its scores are noise
_MANY_TASKS_WITH_EXAMPLES = 200  # tasks of which rendered examples are kept
_LOOKED_AT = 64  # examples among which different templates are sought


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

  def __post_init__(self):
    if self.examples < 0:
      raise InspectError(f'examples={self.examples} must be 0 or more.')


@dataclasses.dataclass(frozen=True)
class Lengths:
  """Lengths in tokens of one side of a task, and what a limit does to them."""

  mean: float
  p50: int
  p90: int
  longest: int
  cut_share: float
  lost_tokens: int


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
    steps_to_repeat: steps until each of its examples was drawn once.
    templates: template -> examples.
    dropped: reason -> examples that prepare left out.
  """

  name: str
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
  templates: Mapping[str, int]
  dropped: Mapping[str, int]
  examples: tuple[RenderedExample, ...]


@dataclasses.dataclass(frozen=True)
class Inspection:
  """All that is shown; `statistics` counts over the windows measured."""

  mixture: str
  split: str
  vocabulary: str
  limits: Mapping[str, int]
  batch_rows: int
  tasks: tuple[TaskReport, ...]
  statistics: LoaderStatistics
  missing: Mapping[str, str]
  warnings: tuple[str, ...]


def inspect(config: InspectConfig, *, out: Console | None = None) -> Inspection:
  """Prints what the mixture holds; writes the page if one was asked for.

  Raises:
    ValueError: no such cache or mixture, or a page that cannot be written.
  """
  from flan_jax.data import inspection_view

  inspection = examine(config)
  inspection_view.print_inspection(inspection, out or console())
  if config.html:
    inspection_view.write_page(inspection, config.html)
    (out or console()).print(f'Page: {config.html}')
  return inspection


def examine(config: InspectConfig) -> Inspection:
  """Measures a mixture in a cache."""
  mixture = resolve(config.mixture, config.cache_dir, split=config.split, skip_missing=True)
  loader = Loader(
    config.cache_dir,
    mixture,
    lengths=config.lengths,
    batch_rows=config.batch_rows,
    seed=config.seed,
  )
  statistics = loader.statistics(config.windows)
  vocabulary = cache.cache_vocabulary(config.cache_dir)
  info = cache.read_cache_info(config.cache_dir)
  tasks = []
  for number, measured in enumerate(statistics.tasks):
    task = cache.TaskCache.open(config.cache_dir, measured.task, config.split, info=info)
    drawn_a_step = measured.asked_rate * statistics.examples_per_step
    wanted = config.examples if number < _MANY_TASKS_WITH_EXAMPLES else 0
    manifest = task.manifest
    tasks.append(
      TaskReport(
        name=task.task,
        collection=measured.collection,
        cluster=manifest.get('cluster', ''),
        cot=bool(manifest.get('cot')),
        licence=manifest.get('licence', ''),
        source=manifest.get('source', ''),
        metrics=tuple(manifest.get('metrics', ())),
        num_examples=task.num_examples,
        asked_rate=measured.asked_rate,
        realised_rate=measured.realised_rate,
        inputs=_lengths(task.input_lengths(), config.lengths['inputs']),
        targets=_lengths(task.target_lengths(), config.lengths['targets']),
        steps_to_repeat=task.num_examples / drawn_a_step,
        templates=manifest.get('templates', {}),
        dropped=manifest.get('dropped', {}),
        examples=_render(task, wanted, vocabulary, config.lengths),
      )
    )
  missing = _missing(config, mixture)
  return Inspection(
    mixture=mixture.name,
    split=config.split,
    vocabulary=f'{vocabulary.kind}, {vocabulary.size:,} ids',
    limits=dict(config.lengths),
    batch_rows=config.batch_rows,
    tasks=tuple(tasks),
    statistics=statistics,
    missing=missing,
    warnings=_warnings(tasks, missing, mixture, vocabulary, config.lengths),
  )


def _lengths(lengths: np.ndarray, limit: int) -> Lengths:
  return Lengths(
    mean=float(lengths.mean()),
    p50=int(np.percentile(lengths, 50)),
    p90=int(np.percentile(lengths, 90)),
    longest=int(lengths.max()),
    cut_share=float((lengths > limit).mean()),
    lost_tokens=int(np.maximum(lengths - limit, 0).sum()),
  )


def _render(
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
        inputs=vocabulary.decode(_kept(inputs, limits['inputs'])),
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
  """What the loader keeps of an example: of one too long, the last place is for EOS."""
  return ids.tolist() if len(ids) <= limit else ids[: limit - 1].tolist()


def _choose(task: cache.TaskCache, count: int) -> list[int]:
  spread = min(task.num_examples, max(count, _LOOKED_AT)) if count else 0
  indices = [number * task.num_examples // spread for number in range(spread)]
  first_of_template: dict[str, int] = {}
  for index in indices:
    first_of_template.setdefault(task.metadata(index).get('template', ''), index)
  different = list(first_of_template.values())
  return (different + [i for i in indices if i not in different])[:count]


def _missing(config: InspectConfig, mixture: ResolvedMixture) -> dict[str, str]:
  """Tasks that the mixture lists or once listed and that are not in the cache, and why."""
  missing = dict.fromkeys(
    mixture.skipped, f"It has no split '{config.split}' in the cache; prepare it."
  )
  if mixture.name in list_mixtures(config.cache_dir):
    path = Path(config.cache_dir) / 'mixtures' / f'{mixture.name}.json'
    missing |= cache.read_json(path).get('missing', {})
  return missing


def _warnings(
  tasks: Sequence[TaskReport],
  missing: Mapping[str, str],
  mixture: ResolvedMixture,
  vocabulary: Vocabulary,
  limits: Mapping[str, int],
) -> tuple[str, ...]:
  warnings = []
  if missing:
    warnings.append(f'{len(missing)} tasks are missing: {_some(list(missing))}.')
  cut = [task for task in tasks if task.targets.cut_share > _MOST_TRUNCATED_TARGETS]
  if cut:
    worst = sorted(cut, key=lambda task: -task.targets.cut_share)
    listed = _some([f'{task.name} {task.targets.cut_share:.1%}' for task in worst])
    longest = max(task.targets.longest for task in cut)
    warnings.append(
      f'{len(cut)} tasks lose the end of more than {_MOST_TRUNCATED_TARGETS:.0%} of their targets '
      f'at {limits["targets"]} tokens: {listed}. The longest has {longest:,} tokens.'
    )
  few = [task for task in tasks if task.num_examples < _FEW_EXAMPLES]
  if few:
    listed = _some([f'{task.name} {task.num_examples}' for task in few])
    warnings.append(f'{len(few)} tasks have fewer than {_FEW_EXAMPLES} examples: {listed}.')
  unlicensed = [task.name for task in tasks if not task.licence]
  if unlicensed:
    warnings.append(f'{len(unlicensed)} tasks state no licence: {_some(unlicensed)}.')
  lossy = lossy_warning((result_of(m, 'kept') for m in mixture.manifests), vocabulary.kind)
  return (*warnings, lossy) if lossy else tuple(warnings)


def _some(names: Sequence[str], most: int = 8) -> str:
  shown = ', '.join(names[:most])
  return f'{shown} and {len(names) - most:,} more' if len(names) > most else shown
