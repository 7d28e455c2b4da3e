"""Tasks and mixtures that others registered with SeqIO, read with our vocabulary.

SeqIO is not imported to find tasks: if the task modules that the user named brought it in, it is
in sys.modules, and if not there is nothing to read. What a task's preprocessors do is left as it
is; only the vocabulary of its features is replaced.
"""

import dataclasses
import functools
import glob
import hashlib
import inspect
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flan_jax.data.mixture import Mixture
from flan_jax.data.tokenizing import Example

_TEXT_LISTS = ('options', 'references')  # metadata that instruction tasks keep as JSON


class SeqIOTaskError(ValueError):
  """A SeqIO task that cannot be read."""


def names() -> tuple[str, ...]:
  """Names of all tasks and mixtures of SeqIO's registries."""
  seqio = sys.modules.get('seqio')
  if seqio is None:
    return ()
  return (*seqio.MixtureRegistry.names(), *seqio.TaskRegistry.names())


def task_names() -> tuple[str, ...]:
  """Names of the tasks of SeqIO's registry."""
  seqio = sys.modules.get('seqio')
  return tuple(seqio.TaskRegistry.names()) if seqio else ()


def find_mixture(name: str) -> Mixture | None:
  """Returns a SeqIO mixture with the rates of its tasks, a task as a mixture of one, or None."""
  seqio = sys.modules.get('seqio')
  if seqio is None or name not in names():
    return None
  if name in seqio.TaskRegistry.names():
    return Mixture.of(name, {name: 1.0})
  mixture = seqio.MixtureRegistry.get(name)
  try:
    # Nested mixtures are multiplied out by SeqIO itself.
    return Mixture.of(name, {task.name: float(mixture.get_rate(task)) for task in mixture.tasks})
  except Exception as e:
    raise SeqIOTaskError(
      f"SeqIO cannot tell the rates of mixture '{name}': {_one_line(e)}. Rates that count examples "
      'need the data of all its tasks; give numbers, or name its tasks one by one.'
    ) from e


def splits(name: str) -> tuple[str, ...]:
  """Returns the splits of a task."""
  try:
    return tuple(_task(name).splits)
  except Exception as e:
    raise SeqIOTaskError(f"SeqIO cannot tell the splits of task '{name}': {_one_line(e)}.") from e


def missing(name: str, split: str) -> str:
  """Says why the data is not here and how to get it; '' when it is, or nobody can tell."""
  source = _task(name).source
  files = _files(source, split)
  if files is not None and not files:
    return f'No file matches {_pattern(source, split)}; put the data there.'
  builder = _tfds_builder(source)
  if builder is not None and not Path(str(builder.data_dir)).is_dir():
    return f'{builder.info.full_name} is not prepared; run `tfds build {builder.name}`.'
  return ''


def info(name: str) -> dict[str, Any]:
  """Returns the manifest's entries for a task; what SeqIO does not know is empty."""
  task = _task(name)
  return {
    'cluster': '',
    'collection': '',
    'cot': False,
    'form': 'seqio',
    'licence': '',
    'source': f'SeqIO {type(task.source).__name__}',
    'metrics': ['exact_match'],
    'postprocessor': 'identity',
    'seqio_metrics': [_name_of(metric) for metric in task.metric_fns],
  }


def key(name: str, split: str) -> dict[str, Any]:
  """Returns what decides the examples: the data's version or hash, and the code's text."""
  task = _task(name)
  return {
    'source': _source_fingerprint(task.source, split),
    'code': [code_of(step) for step in task.preprocessors],
    'features': {n: [f.add_eos, str(f.dtype)] for n, f in sorted(task.output_features.items())},
  }


def examples(name: str, split: str, *, vocabulary: str, seed: int) -> Iterator[Example]:
  """Yields the examples of a task as SeqIO makes them, in the source's order.

  Args:
    name: name of the task.
    split: one of its splits.
    vocabulary: 'bytes', the path of a SentencePiece model, or what else `get_vocabulary` takes.
    seed: of preprocessors that draw.
  """
  seqio = sys.modules['seqio']
  task = _task(name)
  from flan_jax.data.seqio_vocabulary import seqio_vocabulary

  made = seqio_vocabulary(vocabulary)
  features = {
    feature_name: dataclasses.replace(feature, vocabulary=made)
    for feature_name, feature in task.output_features.items()
  }
  if 'targets' not in features:
    raise SeqIOTaskError(
      f"SeqIO task '{name}' has the features {', '.join(features)} but no targets; only tasks with "
      'targets can be prepared.'
    )
  # The registered task keeps its own vocabulary: others may use it in this process.
  copy = seqio.Task(name, task.source, output_features=features, preprocessors=task.preprocessors)
  dataset = copy.get_dataset(None, split, use_cached=False, shuffle=False, seed=seed)
  for number, row in enumerate(dataset.as_numpy_iterator()):
    yield _example(row, f'{split}-{number}', made)


def _example(row: Mapping[str, Any], default_id: str, vocabulary: Any) -> Example:
  text = {n: _as_text(v) for n, v in row.items() if n not in ('inputs', 'targets')}
  ids = {n: [int(i) for i in row[n]] if n in row else [] for n in ('inputs', 'targets')}
  sides = {
    n: text.get(f'{n}_pretokenized') or vocabulary.decode(ids[n]) for n in ('inputs', 'targets')
  }
  metadata = {'answer': text.get('answer') or sides['targets']}
  for name in _TEXT_LISTS:
    if text.get(name):
      try:
        metadata[name] = [str(item) for item in json.loads(text[name])]
      except ValueError:
        metadata[name] = [text[name]]
  if text.get('shots'):
    metadata['shots'] = text['shots']
  return Example(
    id=text.get('id') or default_id,
    template=text.get('template', ''),
    inputs=sides['inputs'],
    targets=sides['targets'],
    metadata=metadata,
    input_ids=ids['inputs'],
    target_ids=ids['targets'],
  )


def _task(name: str) -> Any:
  return sys.modules['seqio'].TaskRegistry.get(name)


def _as_text(value: Any) -> str:
  if hasattr(value, 'tolist'):
    value = value.tolist()
  return value.decode('utf-8', 'replace') if isinstance(value, bytes) else str(value)


def _pattern(source: Any, split: str) -> str:
  patterns = getattr(source, '_split_to_filepattern', {})
  return str(patterns.get(split, ''))


def _files(source: Any, split: str) -> list[Path] | None:
  """Files of a file-based source; None for one of another kind."""
  if not hasattr(source, '_split_to_filepattern'):
    return None
  patterns = source._split_to_filepattern[split]
  patterns = [patterns] if isinstance(patterns, str) else list(patterns)
  return sorted(Path(path) for pattern in patterns for path in glob.glob(pattern))


def _tfds_builder(source: Any) -> Any:
  dataset = getattr(source, 'tfds_dataset', None)
  return None if dataset is None else dataset.builder


def _source_fingerprint(source: Any, split: str) -> Any:
  files = _files(source, split)
  if files is not None:
    return [[str(path), _file_hash(path)] for path in files]
  builder = _tfds_builder(source)
  if builder is not None:
    return [builder.info.full_name, split]
  function = getattr(source, '_dataset_fn', None)
  return [type(source).__name__, code_of(function) if function else repr(source)]


def _file_hash(path: Path) -> str:
  with open(path, 'rb') as file:
    return 'sha256:' + hashlib.file_digest(file, 'sha256').hexdigest()


def code_of(function: Any) -> str:
  """Names a function by its text and the arguments bound to it, so that an edit is seen."""
  if isinstance(function, functools.partial):
    bound = repr((function.args, sorted(function.keywords.items())))
    return f'{code_of(function.func)} {_digest(bound)}'
  try:
    text = inspect.getsource(function)
  except (OSError, TypeError):
    text = ''
  return f'{_name_of(function)} {_digest(text)}'


def _name_of(function: Any) -> str:
  function = getattr(function, 'func', function)
  return getattr(function, '__name__', type(function).__name__)


def _digest(text: str) -> str:
  return hashlib.blake2b(text.encode('utf-8', 'replace'), digest_size=8).hexdigest()


def _one_line(error: BaseException) -> str:
  return ' '.join(str(error).split()) or type(error).__name__
