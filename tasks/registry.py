"""Registers instruction tasks, in all their forms, and tells what is registered.

`instruction_task(...)` makes plain SeqIO tasks and reads no data. With FLAN_JAX_SEQIO=off in the
environment (or SeqIO not installed) the tasks are only known here: prepare's workers and
`flan-jax list` run so, because importing SeqIO takes 10 to 20 seconds.
"""

import importlib.util
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flan_jax.tasks.examples import TextExamples
from flan_jax.tasks.few_shot import FewShot
from flan_jax.tasks.forms import forms_of
from flan_jax.tasks.instruction import FORMAT, Fields, InstructionTask
from flan_jax.tasks.lint import check_templates
from flan_jax.tasks.rows import Availability, Source
from flan_jax.tasks.sources import as_splits, check_holdout
from flan_jax.tasks.splits import HashSplit, TailSplit
from flan_jax.tasks.templates import Template, as_templates

from flan_jax.evaluation.metrics import get_metric
from flan_jax.evaluation.postprocessors import get_postprocessor
from flan_jax.naming import listing, nearest

_TASKS: dict[str, InstructionTask] = {}
_NAME = re.compile(r'[A-Za-z0-9_.:]+')  # what SeqIO takes, without '#'

Templates = Iterable[Template | Mapping[str, Any]]


@dataclass(frozen=True)
class TaskInfo:
  """What is known of a registered task without reading its data."""

  name: str
  family: str
  form: str
  cluster: str
  collection: str
  cot: bool
  shots: int
  licence: str
  source: str
  metrics: tuple[str, ...]
  postprocessor: str
  splits: tuple[str, ...]
  num_templates: int
  seed: int
  category: str
  languages: tuple[str, ...]
  held_out: tuple[str, ...]
  stated_examples: int | None

  def available(self, split: str | None = None) -> Availability:
    """Says whether a split (all of them without one) can be read; if not, why and how to get it."""
    task = _TASKS[self.name]
    needed = set(task.sources)
    if split is not None:
      needed = {split if split in needed else 'train'} | ({'train'} if task.few_shot else set())
    for origin in task.sources:
      if origin not in needed:
        continue
      status = task.sources[origin].available()
      if not status.available:
        return status
    return Availability(True)


def instruction_task(
  name: str,
  *,
  source: Source | Mapping[str, Source],
  templates: Templates,
  fields: Fields | None = None,
  cot_templates: Templates | None = None,
  few_shot: FewShot | None = None,
  splits: HashSplit | TailSplit | None = None,
  metrics: Iterable[str] = ('exact_match',),
  postprocessor: str = 'identity',
  cluster: str,
  collection: str,
  licence: str = '',
  seed: int = 0,
) -> tuple[str, ...]:
  """Registers a task in each of its forms and returns their names.

  NAME is zero-shot; NAME_cot has the rationale before the answer (with cot_templates);
  NAME_fewshot and NAME_cot_fewshot show solved examples first (with few_shot);
  NAME_unseen_wordings has only held-out wordings and only a validation split.

  Args:
    name: letters, digits, '_', '.' and ':'.
    source: one source (its rows are train), a dict of split to source, or a GeneratorSource.
    templates: wordings whose target is the answer; see templates.py.
    fields: new name -> name in the source, or a function of a row's fields (None: left out).
      The fields answer, rationale, options and references have a meaning of their own.
    cot_templates: wordings whose target is {rationale} and then the answer.
    few_shot: how many examples, how long a prompt.
    splits: how validation is cut from train, for a source that has none.
    metrics: names of flan_jax.evaluation.metrics.
    postprocessor: name of flan_jax.evaluation.postprocessors; CoT forms use 'cot_answer' when
      this is 'identity'.
    cluster: kind of task; whole clusters are held out in experiments.
    collection: which collection it belongs to.
    licence: of the data; the source's own when empty.
    seed: decides wordings and exemplars, with the name and the example's id.

  Raises:
    ValueError: a name taken or malformed, an unknown metric, or templates that cannot work.
  """
  sources = as_splits(source)
  check_holdout(name, sources, splits)
  if few_shot is not None and 'train' not in sources:
    raise ValueError(
      f'Task {name!r}: few_shot draws exemplars from train, but the source has only '
      f'{listing(sources)}; add a train split or leave few_shot out.'
    )
  metrics = (metrics,) if isinstance(metrics, str) else tuple(metrics)
  for metric in metrics:
    get_metric(metric)
  get_postprocessor(postprocessor)
  base = InstructionTask(
    name=name,
    family=name,
    form='zero_shot',
    sources=sources,
    templates=as_templates(templates, f'templates of {name!r}'),
    splits=tuple(sources) if splits is None else (*sources, 'validation'),
    holdout=splits,
    fields=fields,
    metrics=metrics,
    postprocessor=postprocessor,
    cluster=cluster,
    collection=collection,
    licence=licence or next(iter(sources.values())).licence,
    seed=seed,
  )
  cot = as_templates(cot_templates or (), f'cot_templates of {name!r}')
  check_templates(name, base.templates, cot, base.fields)
  return register_forms(forms_of(base, cot, few_shot))


def register_forms(forms: Sequence[InstructionTask]) -> tuple[str, ...]:
  """Registers the forms of a task under their own names, all or none, and returns the names.

  Raises:
    ValueError: a name that is taken or malformed.
  """
  for form in forms:
    _check_name(form.name)
  _check_seqio(form.name for form in forms)
  for form in forms:
    _add(form)
  return tuple(form.name for form in forms)


def _check_name(name: str) -> None:
  if not isinstance(name, str) or not _NAME.fullmatch(name):
    raise ValueError(f'{name!r} cannot name a task; use letters, digits, "_", "." and ":" only.')
  if name in _TASKS:
    other = _TASKS[name]
    raise ValueError(
      f'Task {name!r} is already registered (collection {other.collection!r}, source '
      f'{next(iter(other.sources.values())).where()}); choose another name.'
    )


def _check_seqio(names: Iterable[str]) -> None:
  """Refuses names that others gave to a SeqIO task or mixture, before any form is added."""
  if not seqio_wanted():
    return
  import seqio

  for name in names:
    if name in seqio.TaskRegistry.names() or name in seqio.MixtureRegistry.names():
      raise ValueError(f'SeqIO already has a task or mixture {name!r}; choose another name.')


def _add(task: InstructionTask) -> None:
  if seqio_wanted():
    from flan_jax.tasks.preprocessors import register

    register(task)
  _TASKS[task.name] = task


def seqio_wanted() -> bool:
  """Says whether tasks are to be registered with SeqIO as well."""
  if os.environ.get('FLAN_JAX_SEQIO', 'on') == 'off':
    return False
  return importlib.util.find_spec('seqio') is not None


def register_tasks_with_seqio() -> None:
  """Adds to SeqIO the tasks that it does not have yet."""
  import seqio
  from flan_jax.tasks.preprocessors import register

  for name, task in _TASKS.items():
    if name not in seqio.TaskRegistry.names():
      register(task)


def get_task(name: str) -> InstructionTask:
  """Returns a registered task.

  Raises:
    ValueError: no such task; the message has the nearest names.
  """
  if name not in _TASKS:
    raise ValueError(f'No task {name!r}.{nearest(name, _TASKS)} Registered: {listing(_TASKS)}.')
  return _TASKS[name]


def is_instruction_task(name: str) -> bool:
  """Says whether `name` was registered here, and so can be read without SeqIO."""
  return name in _TASKS


def task_names() -> tuple[str, ...]:
  """Returns the names of all registered tasks, in the order of registration."""
  return tuple(_TASKS)


def text_examples(
  name: str, split: str, *, seed: int = 0, epochs: Sequence[int] = (0,)
) -> TextExamples:
  """Returns the examples of a task as text, without SeqIO; see TextExamples.

  seed: added to the task's own; another draws other wordings and exemplars.
  """
  task = get_task(name)
  return TextExamples(replace(task, seed=task.seed + seed) if seed else task, split, epochs)


def info(name: str) -> TaskInfo:
  """Returns what is known of a task without reading its data."""
  task = get_task(name)
  return TaskInfo(
    name=task.name,
    family=task.family,
    form=task.form,
    cluster=task.cluster,
    collection=task.collection,
    cot=task.cot,
    shots=task.few_shot.k if task.few_shot else 0,
    licence=task.licence,
    source='; '.join(source.where() for source in task.sources.values()),
    metrics=task.metrics,
    postprocessor=task.postprocessor,
    splits=task.splits,
    num_templates=len(task.templates),
    seed=task.seed,
    category=task.category,
    languages=task.languages,
    held_out=task.held_out,
    stated_examples=task.stated_examples,
  )


def infos() -> list[TaskInfo]:
  """Returns every registered task, in the order of registration."""
  return [info(name) for name in _TASKS]


def cache_key(name: str, split: str) -> dict[str, Any]:
  """Returns what decides the text of a split; prepare adds the vocabulary. Hashes the data."""
  task = get_task(name)
  origins = (
    {split, 'train'} & set(task.sources)
    if task.few_shot
    else {split if split in task.sources else 'train'}
  )
  return {
    'source': {origin: task.sources[origin].fingerprint() for origin in sorted(origins)},
    'splits': repr(task.holdout),
    'templates': task.templates_hash,
    'few_shot': repr(task.few_shot),
    **({'objective': repr(task.objective)} if task.objective else {}),
    'seed': task.seed,
    'code': FORMAT,
  }


def unregister(name: str) -> None:
  """Forgets a task, for tests and notebooks that register it again."""
  get_task(name)
  del _TASKS[name]
  if seqio_wanted():
    import seqio

    seqio.TaskRegistry.remove(name)
