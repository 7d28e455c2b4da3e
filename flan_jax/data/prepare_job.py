"""The part of `prepare` that runs in a worker process: one task's split, from rows to cache.

Light to import: SeqIO and TensorFlow only come in with task modules that want them.
"""

import dataclasses
import functools
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flan_jax.data import catalogue, decontamination, seqio_tasks
from flan_jax.data.cache import cache_vocabulary
from flan_jax.data.tokenizing import Example, SplitResult, is_disk_error, write_split
from flan_jax.data.vocabularies import Vocabulary
from flan_jax.data.worker_pool import Event

_NOT_METADATA = ('id', 'template', 'inputs', 'targets', 'text', 'input_ids', 'target_ids')


@dataclasses.dataclass(frozen=True)
class Job:
  """One split to make.

  Attributes:
    instruction: read by the plain-Python path of instruction tasks, not through SeqIO.
    key: what decides its content.
    info: entries of its manifest.
    modules: task modules to import.
    seqio: register instruction tasks with SeqIO too.
    decontaminate_against: evaluation sets whose texts no example may hold.
    epochs: examples of each row, one after the other, each in a wording of its own.
  """

  task: str
  split: str
  instruction: bool
  key: Mapping[str, Any]
  info: Mapping[str, Any]
  cache_dir: str
  modules: tuple[str, ...]
  seqio: bool
  seed: int
  max_examples: int | None
  decontaminate_against: tuple[str, ...] = ()
  epochs: int = 1

  @property
  def name(self) -> str:
    """Names the job in events and messages."""
    return f'{self.task} {self.split}'


def run_job(job: Job, report: Callable[[tuple[int, int]], None]) -> SplitResult:
  """Makes one split; data that is wrong is a result, not an exception."""
  started = time.monotonic()
  _quiet_tensorflow()
  try:
    catalogue.import_task_modules(job.modules, seqio=job.seqio)
    vocabulary, spec = _vocabulary(job.cache_dir)
    catalogue.set_vocabulary(spec)
    dropped: Callable[[], Mapping[str, int]] = dict
    if job.instruction:
      epochs = range(job.epochs)
      texts = catalogue.text_examples(job.task, job.split, seed=job.seed, epochs=epochs)
      examples, dropped = map(_from_text, texts), lambda: texts.dropped
      if vocabulary.chat and texts.task.objective:
        raise ValueError(
          f"Task '{job.task}' corrupts plain text, which no chat template can lay out; prepare it "
          'with --chat_template none, into another cache.'
        )
    else:
      examples = seqio_tasks.examples(job.task, job.split, vocabulary=spec, seed=job.seed)
    contaminated: Counter[str] = Counter()
    if job.decontaminate_against:
      examples = decontamination.without_contaminated(
        examples, job.decontaminate_against, contaminated, epochs=job.epochs
      )
    return write_split(
      examples,
      cache_dir=job.cache_dir,
      task=job.task,
      split=job.split,
      vocabulary=vocabulary,
      key=job.key,
      info=job.info,
      max_examples=None if job.max_examples is None else job.max_examples * job.epochs,
      dropped=lambda: {**dropped(), **contaminated},
      report=report,
    )
  except (ValueError, OSError) as e:
    status = 'no space' if is_disk_error(e) else 'failed'
    return SplitResult(job.task, job.split, status, str(e), seconds=time.monotonic() - started)


def result_of_event(job: Job, event: Event) -> SplitResult:
  """Says what became of a job whose worker returned, raised or died."""
  if event.kind == 'done':
    return event.value
  if event.kind == 'died':
    return SplitResult(job.task, job.split, 'failed', event.value)
  message = f'An error in its code or data: {event.error}'
  return SplitResult(job.task, job.split, 'failed', message, traceback=event.value)


def _from_text(example: dict[str, Any]) -> Example:
  rest = {k: v for k, v in example.items() if k not in _NOT_METADATA}
  return Example(
    id=example['id'],
    template=example['template'],
    # Of what an objective has corrupted, the text as it was.
    inputs=example.get('text', example['inputs']),
    targets=example['targets'],
    metadata=rest,
    input_ids=example.get('input_ids'),
    target_ids=example.get('target_ids'),
  )


@functools.lru_cache(maxsize=1)
def _vocabulary(cache_dir: str) -> tuple[Vocabulary, str]:
  """The cache's own vocabulary, and what names it for tasks: 'bytes' or its path."""
  vocabulary = cache_vocabulary(cache_dir)
  if vocabulary.kind == 'bytes':
    return vocabulary, 'bytes'
  folder = (Path(cache_dir) / 'vocabulary').absolute()
  # SeqIO reads a SentencePiece model by itself.
  return vocabulary, str(next(folder.glob('*.model'), folder))


def _quiet_tensorflow() -> None:
  """Read by TensorFlow when it is imported; the data never needs an accelerator."""
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  os.environ['CUDA_VISIBLE_DEVICES'] = '-1'
