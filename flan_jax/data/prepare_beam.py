"""prepare on Apache Beam: each split is an element, made on this machine or on a cluster.

Splits are made in processes as those of local workers: the cache is the same to the byte, and a
task that fails or dies fails alone. Splits are written straight into the cache, or,
with Beam's --temp_location, to that place (a bucket), from where they are fetched when finished.
"""

import contextlib
import dataclasses
import json
import logging
import os
import shlex
import shutil
import tempfile
import threading
import uuid
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flan_jax.data import cache_layout, worker_pool
from flan_jax.data.cache_layout import CacheError
from flan_jax.data.cache_writer import adopt_split
from flan_jax.data.prepare_job import Job, result_of_event, run_job
from flan_jax.data.prepare_plan import PrepareConfig, PrepareError
from flan_jax.data.tokenizing import LossyCharacter, SplitResult, is_disk_error
from flan_jax.data.worker_pool import Event
from flan_jax.naming import unknown

RUNNERS = {
  'direct': 'DirectRunner',
  'dataflow': 'DataflowRunner',
  'flink': 'FlinkRunner',
  'spark': 'SparkRunner',
}

_POLL_SECONDS = 2.0
# What tells tasks where their data is; machines of a cluster have another environment.
_ENVIRONMENT = ('FLAN_JAX_', 'TFDS_DATA_DIR')


@dataclasses.dataclass(frozen=True)
class _Work:
  """An element.

  Attributes:
    job: the split to make.
    result: file for what became of it.
    staging: folder with the files of `vocabulary`, to which the split is copied; '' writes it into
      the cache itself.
    vocabulary: names of the files that say what the cache is of.
    environment: variables to set.
  """

  job: Job
  result: str
  staging: str
  vocabulary: tuple[str, ...]
  environment: Mapping[str, str]

  def in_cache(self, cache_dir: str) -> '_Work':
    """The same split in another cache."""
    return dataclasses.replace(self, job=dataclasses.replace(self.job, cache_dir=cache_dir))

  def staged(self, name: str) -> str:
    """Where a file of the finished split is copied to."""
    return f'{self.staging}/tasks/{self.job.task}/{self.job.split}/{name}'


def pipeline_options(config: PrepareConfig) -> Any:
  """Returns Beam's options for `--runner` and `--runner_options`.

  Raises:
    PrepareError: Beam is not installed, there is no such runner, or Beam refuses its options.
  """
  if config.runner not in RUNNERS:
    raise PrepareError(unknown('runner', str(config.runner), RUNNERS))
  try:
    from apache_beam.options.pipeline_options import PipelineOptions
  except ImportError as e:
    raise PrepareError(
      f'--runner {config.runner} needs Apache Beam, which is not installed: '
      "pip install 'flan_jax[beam]'. Without --runner, processes of this machine prepare the data."
    ) from e
  flags = [f'--runner={RUNNERS[config.runner]}']
  if config.runner == 'direct':
    # A thread for each split is enough, since each is made in a process.
    flags += ['--direct_running_mode=multi_threading']
    flags += [f'--direct_num_workers={config.workers or os.cpu_count() or 1}']
  elif config.workers is not None:
    raise PrepareError(
      f'workers={config.workers} are of this machine; say in --runner_options how many machines '
      f'{RUNNERS[config.runner]} may use.'
    )
  try:
    options = PipelineOptions([*flags, *shlex.split(config.runner_options)])  # the last holds
    options.get_all_options()  # parses them
  except (ValueError, SystemExit) as e:
    raise PrepareError(
      f'runner_options={config.runner_options!r} are no options of Beam: {e}.'
    ) from e
  return options


def run_jobs(
  jobs: Mapping[str, Job], *, cache_dir: str, options: Any
) -> Generator[Event, None, None]:
  """Makes the splits on Beam.

  Args:
    jobs: name -> split to make.
    cache_dir: their cache; all workers must see it, unless the options have a temp_location.
    options: Beam's.

  Yields:
    'done' for each job, with its SplitResult, as they end. Closing the iterator cancels the rest.
  """
  from apache_beam.io.filesystems import FileSystems
  from apache_beam.options.pipeline_options import GoogleCloudOptions

  FileSystems.set_options(options)
  cache_dir = os.path.abspath(cache_dir)
  temporary = options.view_as(GoogleCloudOptions).temp_location
  place = temporary if temporary and '://' in temporary else os.path.abspath(temporary or cache_dir)
  folder = f'{place.rstrip("/")}/.prepare.{uuid.uuid4().hex[:12]}'
  works = _works(jobs, cache_dir, folder, staged=bool(temporary))
  try:
    for name in works[0].vocabulary if temporary else ():
      _write(f'{folder}/{name}', Path(cache_dir, name))
    waiting = {work.result: work for work in works}
    with contextlib.closing(_Pipeline(works, options)) as pipeline:
      ended = False
      while waiting and not ended:
        ended = pipeline.wait(_POLL_SECONDS)  # before looking, so that nothing ends unseen
        for found in FileSystems.match([f'{folder}/results/*.json'])[0].metadata_list:
          if work := waiting.pop(found.path, None):  # a runner may make one twice
            yield Event(work.job.name, 'done', _collect(work, cache_dir))
    why = pipeline.error or 'Beam gave no reason.'
    for job in (work.job for work in waiting.values()):
      message = f'The pipeline ended before it was made. {why}'
      yield Event(job.name, 'done', SplitResult(job.task, job.split, 'failed', message))
  finally:
    for rest in (f'{folder}/', folder):  # what is in it; and itself, which a bucket does not have
      with contextlib.suppress(OSError):
        FileSystems.delete([rest])


def _works(jobs: Mapping[str, Job], cache_dir: str, folder: str, *, staged: bool) -> list[_Work]:
  names = sorted(path.name for path in Path(cache_dir, 'vocabulary').iterdir())
  return [
    _Work(
      job=dataclasses.replace(job, cache_dir=cache_dir),
      result=f'{folder}/results/{number}.json',
      staging=folder if staged else '',
      vocabulary=(cache_layout.CACHE_FILE, *(f'vocabulary/{name}' for name in names)),
      environment={k: v for k, v in os.environ.items() if k.startswith(_ENVIRONMENT)},
    )
    for number, job in enumerate(jobs.values())
  ]


class _Pipeline:
  """A pipeline that runs in a thread, because some runners only come back when it has ended."""

  def __init__(self, works: list[_Work], options: Any):
    self.error = ''
    self._handle: Any = None
    self._works, self._options = works, options
    # A daemon, so that Ctrl-C need not wait for it.
    self._thread = threading.Thread(target=self._run, daemon=True)
    self._thread.start()

  def wait(self, seconds: float) -> bool:
    """Says whether it has ended, after so many seconds at most."""
    self._thread.join(seconds)
    return not self._thread.is_alive()

  def close(self) -> None:
    """Ends what runs elsewhere; does nothing to a pipeline that has ended."""
    if self._thread.is_alive() and self._handle is not None:
      self._handle.cancel()

  def _run(self) -> None:
    import apache_beam as beam

    logging.getLogger('apache_beam').setLevel(logging.ERROR)
    try:
      pipeline = beam.Pipeline(options=self._options)
      # Without reshuffling one worker would get all elements.
      works = pipeline | beam.Create(self._works, reshuffle=True)
      # A minute of work shares a process; what is not in a batch may still go to another worker.
      batches = works | beam.BatchElements(target_batch_duration_secs=60)
      _ = batches | 'prepare' >> beam.Map(_make)
      self._handle = pipeline.run()
      self._handle.wait_until_finish()
    except Exception as e:  # each runner has exceptions of its own
      self.error = ' '.join(f'{type(e).__name__}: {e}'.split())


def _collect(work: _Work, cache_dir: str) -> SplitResult:
  """Reads what became of a split; puts it into the cache if it was staged."""
  from apache_beam.io.filesystems import FileSystems

  job = work.job
  with FileSystems.open(work.result) as file:
    result = _from_json(file.read())
  FileSystems.delete([work.result])
  if result.status == 'built' and work.staging:
    try:
      adopt_split(cache_dir, job.task, job.split, lambda name: FileSystems.open(work.staged(name)))
    except CacheError as e:
      status = 'no space' if is_disk_error(e) else 'failed'
      return SplitResult(job.task, job.split, status, str(e))
    FileSystems.delete([work.staged(name) for name in cache_layout.SPLIT_FILES])
  return result


def _make(works: Sequence[_Work]) -> None:
  """Makes some splits, one after the other, and says what became of each; runs on Beam's workers.

  They share a process, so that its imports are paid once; one that dies fails the split it held.
  """
  with tempfile.TemporaryDirectory() as local:
    if works[0].staging:
      for name in works[0].vocabulary:
        _read(f'{works[0].staging}/{name}', Path(local, name))
      works = [w.in_cache(local) for w in works]
    by_name = {work.job.name: work for work in works}
    for event in worker_pool.run_jobs(_run_job, by_name, workers=1):
      if event.kind in ('done', 'raised', 'died'):
        work = by_name[event.job]
        _hand_over(work, result_of_event(work.job, event))


def _hand_over(work: _Work, result: SplitResult) -> None:
  """Copies a split to the staging place, if there is one, and then says what became of it."""
  from apache_beam.io.filesystems import FileSystems

  if work.staging and result.status == 'built':
    made = cache_layout.task_directory(work.job.cache_dir, work.job.task, work.job.split)
    for name in cache_layout.SPLIT_FILES:
      _write(work.staged(name), made / name)
    shutil.rmtree(made)
  partial = f'{work.result}.partial'
  with FileSystems.create(partial) as file:
    file.write(json.dumps(dataclasses.asdict(result)).encode())
  FileSystems.rename([partial], [work.result])


def _run_job(work: _Work, report: Any) -> SplitResult:
  os.environ.update(work.environment)
  return run_job(work.job, report)


def _write(url: str, source: Path) -> None:
  from apache_beam.io.filesystems import FileSystems

  with open(source, 'rb') as file, FileSystems.create(url) as to:
    shutil.copyfileobj(file, to)


def _read(url: str, target: Path) -> None:
  from apache_beam.io.filesystems import FileSystems

  target.parent.mkdir(exist_ok=True)
  with FileSystems.open(url) as file, open(target, 'wb') as to:
    shutil.copyfileobj(file, to)


def _from_json(text: bytes) -> SplitResult:
  content = json.loads(text)
  lossy = {c: LossyCharacter(**found) for c, found in content.pop('lossy').items()}
  return SplitResult(**content, lossy=lossy)
