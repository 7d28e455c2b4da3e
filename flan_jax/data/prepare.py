"""prepare: runs the tasks of a mixture once and keeps their tokens in a cache.

Each split is made in a worker process (prepare_job.py), fails alone and by name, and is kept when
what it is made of has not changed: a run that was stopped goes on where it was. Missing data and
broken data are told apart; only the former can be allowed.
"""

import contextlib
import dataclasses
import fcntl
import functools
import os
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from flan_jax.console import console, visible
from flan_jax.data import catalogue, licences, seqio_tasks
from flan_jax.data.cache import (
  cache_vocabulary,
  check_name,
  initialize_cache,
  remove_leftovers,
  write_json,
)
from flan_jax.data.mixture import Mixture
from flan_jax.data.prepare_job import Job, result_of_event, run_job
from flan_jax.data.prepare_plan import PrepareConfig, PrepareError, plan, splits_of
from flan_jax.data.prepare_report import Display, lossy_warning, print_summary
from flan_jax.data.tokenizing import SplitResult
from flan_jax.data.vocabularies import Vocabulary, choose_chat_template, get_vocabulary
from flan_jax.data.worker_pool import Event, run_jobs
from flan_jax.naming import listing, unknown
from flan_jax.whole_file import FULL

Runner = Callable[[Mapping[str, Job]], Generator[Event, None, None]]

__all__ = ('PrepareConfig', 'PrepareError', 'PrepareResult', 'prepare')


@dataclasses.dataclass(frozen=True)
class PrepareResult:
  """What became of each split, in the order of the mixture.

  Attributes:
    results: one for each task and split.
    mixtures: names of the mixtures that were written.
    skip_missing: whether missing data was allowed.
    seconds: time it took in all.
  """

  results: tuple[SplitResult, ...]
  mixtures: tuple[str, ...]
  skip_missing: bool
  seconds: float

  @property
  def failed(self) -> tuple[SplitResult, ...]:
    """The splits for which the program must end in failure."""
    allowed = ('built', 'kept', 'missing') if self.skip_missing else ('built', 'kept')
    return tuple(r for r in self.results if r.status not in allowed)

  @property
  def ok(self) -> bool:
    """Whether what was asked for is in the cache, and not nothing."""
    return not self.failed and any(r.status in ('built', 'kept') for r in self.results)


def prepare(config: PrepareConfig, *, out: Console | None = None) -> PrepareResult:
  """Brings the cache up to date with the mixture and shows how.

  Args:
    config: what to prepare.
    out: where progress, summary and warnings go; standard output by default.

  Raises:
    ValueError: nothing could be started: an unknown name, a vocabulary or folder that cannot be
      used. A task that fails is not an error but a result.
  """
  started = time.monotonic()
  out = out or console()
  runner = _runner(config)
  catalogue.import_task_modules(config.tasks_modules, seqio=config.seqio)
  for name, path in config.folders.items():
    catalogue.set_folder(name, path)
  mixtures = [_find(name.strip()) for name in config.mixture.split(',') if name.strip()]
  if not mixtures:
    raise PrepareError(f'mixture={config.mixture!r} names nothing; give a mixture or a task.')
  tasks = tuple(dict.fromkeys(task for mixture in mixtures for task in mixture.task_names()))
  left_out = licences.left_out({task: _licence(task) for task in tasks}, config.licence)
  for mixture in mixtures:
    if mixture.name not in left_out:  # a task that was asked for by its name
      mixture.rest(set(left_out), f"what licence='{config.licence}' leaves out")
  for why, names in licences.by_reason(left_out).items():
    out.print(f'left out {visible(listing(names))}: {visible(why)}')
  tasks = tuple(task for task in tasks if task not in left_out)
  splits = splits_of(tasks, config.splits)
  vocabulary = _vocabulary(config)
  with _open_cache(config, vocabulary, tasks):
    results, jobs = plan(config, splits, vocabulary)
    results |= _run(jobs, runner, out)
    ordered = tuple(results[pair] for pair in splits)
    names = _write_mixtures(config, mixtures, ordered, left_out)
  print_summary(ordered, out)
  warning = lossy_warning(ordered, vocabulary.kind)
  if warning:
    out.print(warning)
  return PrepareResult(ordered, names, config.skip_missing, time.monotonic() - started)


def _find(name: str) -> Mixture:
  """Finds an instruction mixture or task, or one that only SeqIO has."""
  if name in seqio_tasks.names() and catalogue.mixtures():
    return catalogue.mixtures().export_mixture(name)
  found = catalogue.find(name) or seqio_tasks.find_mixture(name)
  if found is None:
    known = (*catalogue.mixture_names(), *catalogue.task_names(), *seqio_tasks.names())
    raise PrepareError(unknown('mixture or task', name, known))
  return found


def _licence(task: str) -> str:
  instruction = catalogue.registry()
  if instruction and instruction.is_instruction_task(task):
    return catalogue.info(task).licence
  return seqio_tasks.info(task)['licence']


def _vocabulary(config: PrepareConfig) -> Vocabulary:
  if config.vocabulary is not None:
    vocabulary = get_vocabulary(os.path.expanduser(config.vocabulary))
  elif (Path(config.cache_dir) / 'cache.json').is_file():
    vocabulary = cache_vocabulary(config.cache_dir)
  else:
    vocabulary = get_vocabulary('bytes')
  return choose_chat_template(vocabulary, config.chat_template)


@contextlib.contextmanager
def _open_cache(
  config: PrepareConfig, vocabulary: Vocabulary, tasks: Sequence[str]
) -> Iterator[None]:
  """Makes or checks the cache and holds its lock; clears away what dead runs left."""
  folder = Path(config.cache_dir)
  if folder.exists() and not folder.is_dir():
    raise PrepareError(f"The cache '{folder}' is a file; give a folder, new or of a cache.")
  try:
    initialize_cache(folder, vocabulary)
    lock = open(folder / '.prepare.lock', 'w')
  except OSError as e:
    raise PrepareError(_cannot_write(folder, e)) from e
  with lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
      raise PrepareError(
        f"Another `prepare` is writing the cache '{folder}'; wait for it or use another folder."
      ) from e
    _clear(folder, tasks)
    try:
      yield
    except OSError as e:
      raise PrepareError(_cannot_write(folder, e)) from e
    finally:
      _clear(folder, tasks)


def _clear(folder: Path, tasks: Sequence[str]) -> None:
  """Removes what writers left that died, before or in this run."""
  for task in tasks:
    _remove_leftovers(folder / 'tasks' / task)
  for path in (*folder.glob('.*.*[0-9]'), *folder.glob('*/.*.*[0-9]')):
    if path.is_file():  # a small file that was being replaced: .NAME.PROCESS
      path.unlink(missing_ok=True)
  for path in folder.glob('.prepare.*/'):  # what workers of Beam said
    shutil.rmtree(path, ignore_errors=True)


def _remove_leftovers(task_folder: Path) -> None:
  remove_leftovers(task_folder)
  for partial in task_folder.glob('.*.partial'):
    # No lock file: its writer died between unlocking and renaming, or we hold it up for nothing.
    if not (partial / 'lock').exists():
      shutil.rmtree(partial, ignore_errors=True)


def _runner(config: PrepareConfig) -> Runner:
  """Chooses what makes the splits."""
  if config.runner is not None:
    # Imported only here: Beam is an extra.
    from flan_jax.data import prepare_beam

    options = prepare_beam.pipeline_options(config)
    return functools.partial(prepare_beam.run_jobs, cache_dir=config.cache_dir, options=options)
  workers = config.workers or os.cpu_count() or 1
  return lambda jobs: run_jobs(run_job, jobs, workers=min(workers, len(jobs)))


def _run(jobs: Sequence[Job], runner: Runner, out: Console) -> dict[tuple[str, str], SplitResult]:
  """Makes the splits; a full disk ends it, because every other split would fail as well."""
  by_name = {job.name: job for job in jobs}
  results = {
    (job.task, job.split): SplitResult(job.task, job.split, 'not started', 'The run ended before.')
    for job in jobs
  }
  if not jobs:
    return results
  try:
    with (
      Display(len(jobs), out) as display,
      contextlib.closing(runner(by_name)) as events,
    ):
      for event in events:
        if event.kind == 'started':
          display.start(event.job)
        elif event.kind == 'progress':
          display.advance(event.job, *event.value)
        else:
          result = result_of_event(by_name[event.job], event)
          results[result.task, result.split] = result
          display.end(event.job, result)
          if result.status == 'no space':
            break
  except KeyboardInterrupt as e:
    raise KeyboardInterrupt('Stopped. The same command goes on where it was.') from e
  return results


def _write_mixtures(
  config: PrepareConfig,
  mixtures: Sequence[Mixture],
  results: Sequence[SplitResult],
  left_out: Mapping[str, str],
) -> tuple[str, ...]:
  """Writes each mixture with what can be had, and what it lacks; failed tasks stay listed."""
  there = {r.task for r in results if r.status != 'missing'}
  missing = {r.task: f'{r.message} {r.remedy}'.strip() for r in results if r.task not in there}
  names = []
  for mixture in mixtures:
    lacks = {task: missing[task] for task in mixture.task_names() if task in missing}
    if mixture.task_names() == (mixture.name,):
      continue  # a task is a mixture of one by its own name
    unwanted = {task: left_out[task] for task in mixture.task_names() if task in left_out}
    kept = mixture.without_tasks({*unwanted, *(lacks if config.skip_missing else ())})
    if kept is not None:
      check_name('mixture', mixture.name)
      path = Path(config.cache_dir) / 'mixtures' / f'{mixture.name}.json'
      gone = sorted(set(mixture.member_names()) - set(kept.member_names()))
      content = dataclasses.replace(kept, gone=tuple(gone)).to_json()
      write_json(path, {**content, 'missing': lacks, 'left_out': unwanted})
      names.append(mixture.name)
  return tuple(names)


def _cannot_write(folder: Path, error: OSError) -> str:
  if error.errno in FULL:
    return f"No space left for the cache '{folder}' ({error.strerror}); free some and go on."
  return (
    f"Cannot write the cache '{folder}': {error.strerror or error}; give a writable --cache_dir."
  )
