"""What `prepare` has to do: its configuration, and which splits are there, missing or to be made.

A split is kept when its key equals the one that its cache was made with: the content of the data,
how it is read, wordings, vocabulary, seed and code.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from flan_jax.data import catalogue, decontamination, seqio_tasks
from flan_jax.data.cache import check_name, is_finished, read_manifest
from flan_jax.data.prepare_job import Job
from flan_jax.data.tokenizing import SplitResult, result_of
from flan_jax.data.vocabularies import Vocabulary
from flan_jax.naming import nearest

# Raised when the same task would give other tokens or other metadata than before.
CODE = 1

# What is trained on: it comes again, and a validation split may be the evaluation set itself.
_TRAINED_ON = 'train'

# Of a source: moving a file does not change what is read from it, and its content has its hash.
_WHERE_NOT_WHAT = ('path', 'data_dir', 'licence', 'how_to_get', 'sha256')


class PrepareError(ValueError):
  """A preparation that cannot start, or that had to stop."""


@dataclasses.dataclass(frozen=True)
class PrepareConfig:
  """What to prepare, and how.

  Attributes:
    mixture: mixtures or tasks, comma separated.
    cache_dir: folder of the cache; a cache has one vocabulary.
    vocabulary: 'bytes' or the path of one (see `get_vocabulary`); None takes that of the cache, or
      bytes for a new one.
    chat_template: 'model' writes prompts and answers as a conversation, with the chat template that
      the vocabulary came with; so does the path of a Jinja file with that; 'none' does not. None
      takes the vocabulary as it is: only one saved with a cache or a run may have a template.
    splits: splits to prepare, of those that each task has.
    tasks_modules: Python modules that register the tasks.
    folders: folder name -> path, for the data whose place the tasks leave open (cot_dir).
    workers: processes; None is one for each core.
    skip_missing: go on without tasks whose data is not there. Broken data is never skipped.
    seed: changes wordings and exemplars; 0 is what the tasks have registered.
    max_examples: take only so many rows of each split, the first ones.
    epochs: examples of each row of the split 'train', each with wording, option style and exemplars
      of its own, so that a task repeated in training does not repeat its words. Tasks that only
      SeqIO knows have one.
    force: make again what is there already.
    seqio: register the tasks with SeqIO as well (10 to 20 seconds a process), for modules whose
      own SeqIO mixtures hold them.
    licence: regular expression; leaves out tasks whose licence does not match it.
    decontaminate_against: files and folders of evaluation sets; examples of the split 'train' that
      hold a text of theirs are left out.
    runner: 'direct', 'dataflow', 'flink' or 'spark' makes the splits on Apache Beam; None in
      processes of this machine.
    runner_options: flags for Beam, as in a shell.
  """

  mixture: str
  cache_dir: str
  vocabulary: str | None = None
  chat_template: str | None = None
  splits: tuple[str, ...] = ('train', 'validation')
  tasks_modules: tuple[str, ...] = catalogue.DEFAULT_MODULES
  folders: Mapping[str, str] = dataclasses.field(default_factory=dict)
  workers: int | None = None
  skip_missing: bool = False
  seed: int = 0
  max_examples: int | None = None
  epochs: int = 1
  force: bool = False
  seqio: bool = False
  licence: str | None = None
  decontaminate_against: tuple[str, ...] = ()
  runner: str | None = None
  runner_options: str = ''

  def __post_init__(self):
    if self.workers is not None and self.workers < 1:
      raise PrepareError(f'workers={self.workers} cannot prepare anything; use 1 or more.')
    if self.max_examples is not None and self.max_examples < 1:
      raise PrepareError(f'max_examples={self.max_examples} must be at least 1.')
    if self.epochs < 1:
      raise PrepareError(f'epochs={self.epochs} must be at least 1.')
    if self.runner_options and self.runner is None:
      raise PrepareError(
        f'runner_options={self.runner_options!r} are for Apache Beam; give a runner as well.'
      )
    if not self.splits:
      raise PrepareError("splits is empty; name at least one, such as 'train'.")


def splits_of(tasks: Sequence[str], wanted: Sequence[str]) -> list[tuple[str, str]]:
  """Lists (task, split) for the wanted splits that each task has.

  Raises:
    PrepareError: a split that no task has.
  """
  instruction = set(catalogue.task_names())
  have = {
    task: catalogue.info(task).splits if task in instruction else seqio_tasks.splits(task)
    for task in tasks
  }
  known = sorted({split for splits in have.values() for split in splits})
  for split in wanted:
    if split not in known:
      raise PrepareError(
        f"None of the {len(tasks)} tasks has a split '{split}'.{nearest(split, known)} They have: "
        f'{", ".join(known)}.'
      )
  return [(task, split) for task in tasks for split in wanted if split in have[task]]


def plan(
  config: PrepareConfig, splits: Sequence[tuple[str, str]], vocabulary: Vocabulary
) -> tuple[dict[tuple[str, str], SplitResult], list[Job]]:
  """Returns the splits that need no work (there, missing, broken) and jobs for the others."""
  results: dict[tuple[str, str], SplitResult] = {}
  jobs = []
  instruction = set(catalogue.task_names())
  paths = tuple(config.decontaminate_against)
  decontaminated = {'decontaminated': decontamination.cache_key(paths)} if paths else {}
  for task, split in splits:
    filtered = split == _TRAINED_ON and bool(paths)
    # What only SeqIO knows has no wordings of ours that could be drawn anew.
    epochs = config.epochs if split == _TRAINED_ON and task in instruction else 1
    try:
      check_name('task', task)
      missing, info, made_of = _describe(task, split, task in instruction)
      key = {
        'task': made_of,
        'vocabulary': vocabulary.fingerprint,
        'seed': config.seed,
        'max_examples': config.max_examples,
        'code': CODE,
        **(decontaminated if filtered else {}),
        **({'epochs': epochs} if epochs > 1 else {}),
      }
    except (ValueError, OSError) as e:
      results[task, split] = SplitResult(task, split, 'failed', str(e))
      continue
    if missing:
      results[task, split] = SplitResult(task, split, 'missing', missing[0], missing[1])
    elif not config.force and is_finished(config.cache_dir, task, split, key=key):
      results[task, split] = result_of(read_manifest(config.cache_dir, task, split), 'kept')
    else:
      jobs.append(
        Job(
          task=task,
          split=split,
          instruction=task in instruction,
          key=key,
          info={**info, 'epochs': epochs},
          cache_dir=str(config.cache_dir),
          modules=tuple(config.tasks_modules),
          seqio=config.seqio,
          seed=config.seed,
          max_examples=config.max_examples,
          decontaminate_against=paths if filtered else (),
          epochs=epochs,
        )
      )
  return results, jobs


def _describe(
  task: str, split: str, instruction: bool
) -> tuple[tuple[str, str] | None, dict[str, Any], dict[str, Any]]:
  """Returns (why the data is missing, how to get it), manifest entries, what decides the content.

  The first is None where the data is here.
  """
  if not instruction:
    missing = seqio_tasks.missing(task, split)
    key = {} if missing else seqio_tasks.key(task, split)
    return (missing, '') if missing else None, seqio_tasks.info(task), key
  info = catalogue.info(task)
  status = info.available(split)
  if not status.available:
    remedy = status.how_to_get if status.how_to_get != status.why else ''
    return (status.why, remedy), {}, {}
  entries = dataclasses.asdict(info)
  for name in ('name', 'splits', 'seed'):
    del entries[name]
  entries['metrics'] = list(entries['metrics'])
  made_of = catalogue.registry().cache_key(task, split)
  return None, entries, {**made_of, 'reading': _reading(catalogue.registry().get_task(task))}


def _reading(task: Any) -> dict[str, Any]:
  """Names how rows become fields: columns and the like, and the text of a fields= function."""
  fields = task.fields
  return {
    'fields': seqio_tasks.code_of(fields) if callable(fields) else repr(fields),
    'sources': {
      split: {
        field.name: repr(getattr(source, field.name))
        for field in dataclasses.fields(source)
        if field.name not in _WHERE_NOT_WHAT and not callable(getattr(source, field.name))
      }
      for split, source in task.sources.items()
    },
  }
