"""Where examples come from: TFDS, JSONL, TSV, CSV, Parquet, or a Python function.

Each source is a frozen description of the rows of one split and reads nothing until `rows()` is
called, then some rows at a time. Files lie on disk or in a bucket (paths.py). How a validation
split is cut from train is in splits.py, what a task does with the fields in instruction.py.
"""

import abc
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from flan_jax.tasks.columnar import columnar_rows
from flan_jax.tasks.folders import FileInFolder, FolderError
from flan_jax.tasks.paths import data_path, is_url
from flan_jax.tasks.readers import DataError, cannot_read, csv_rows, json_objects, tsv_rows
from flan_jax.tasks.rows import Availability, Row, Source, row_id

from flan_jax.naming import listing

Numbered = Iterator[tuple[int, dict[str, Any]]]


@dataclass(frozen=True)
class FileSource(Source):
  """Rows of one file.

  sha256: of the content that the task was made for; a file with another is refused.
  """

  path: str | os.PathLike | FileInFolder
  sha256: str = field(default='', kw_only=True)

  def location(self) -> Path:
    """Returns the file's path, asking for its folder if that is named later."""
    if isinstance(self.path, str | os.PathLike):
      return data_path(self.path)
    return self.path.path()

  def checked_location(self) -> Path:
    """Returns the path of a file that has the content its task was made for."""
    if self.sha256:
      self.fingerprint()
    return self.location()

  @abc.abstractmethod
  def _read(self, path: Path) -> Numbered: ...

  def rows(self) -> Iterator[Row]:
    path = self.checked_location()
    unit = 'row' if isinstance(self, Parquet) else 'line'
    empty = True
    for number, fields in self._read(path):
      empty = False
      place = f'{path} {unit} {number}'
      yield Row(row_id(fields, self.id_field, number, place), fields, place)
    if empty:
      raise DataError(f'{path} has no rows; it must hold at least one.')

  def where(self) -> str:
    return str(self.path)

  def available(self) -> Availability:
    try:
      path = self.location()
    except (FolderError, DataError) as e:
      return Availability(False, str(e), self.how_to_get or str(e))
    if path.is_file():
      return Availability(True)
    return Availability(False, f'There is no file {path}.', self.how_to_get)

  def fingerprint(self) -> str:
    path = self.location()
    try:
      stat: Any = path.stat()
      stamp = (stat.length, stat.mtime) if is_url(path) else (stat.st_size, stat.st_mtime_ns)
      found = _file_hash(path, stamp)
    except OSError as e:
      raise cannot_read(path, e) from e
    if self.sha256 and found != f'sha256:{self.sha256.lower()}':
      raise DataError(
        f'{path} has changed: its content is {found}, and its task expects sha256:{self.sha256}. '
        'Take the file anew from where it is published, or name the new one in sha256=.'
      )
    return found


@dataclass(frozen=True)
class JSONL(FileSource):
  """One JSON object a line."""

  def _read(self, path: Path) -> Numbered:
    return json_objects(path)


@dataclass(frozen=True, kw_only=True)
class TSV(FileSource):
  """Tab-separated columns, without quoting.

  header: the first line repeats the names of the columns.
  unescape: backslash and n in a cell stand for a newline.
  """

  columns: tuple[str, ...]
  header: bool = False
  unescape: bool = False

  def _read(self, path: Path) -> Numbered:
    return tsv_rows(path, self.columns, header=self.header, unescape=self.unescape)


@dataclass(frozen=True, kw_only=True)
class CSV(FileSource):
  """Comma-separated columns with a header and standard quoting; `columns` is what it must be."""

  columns: tuple[str, ...] | None = None
  delimiter: str = ','

  def _read(self, path: Path) -> Numbered:
    return csv_rows(path, self.columns, delimiter=self.delimiter)


@dataclass(frozen=True, kw_only=True)
class Parquet(FileSource):
  """A Parquet file, read with pyarrow; `columns` are those to read (all by default)."""

  columns: tuple[str, ...] | None = None

  def _read(self, path: Path) -> Numbered:
    return columnar_rows(path, self.columns)


@dataclass(frozen=True)
class GeneratorSource(Source):
  """Rows made by `fn(split) -> iterable of dicts`: built-in data, or any reader of your own.

  The same call must give the same rows. `version` is part of the token cache's key: change it
  when `fn` changes what it yields. As a task's whole source it serves each of `splits`.
  """

  fn: Callable[[str], Iterable[Mapping[str, Any]]]
  splits: tuple[str, ...] = ('train', 'validation')
  version: str = '1'

  def rows(self) -> Iterator[Row]:
    if len(self.splits) != 1:
      raise ValueError(f'{self.where()} serves the splits {self.splits}; pick one with for_split.')
    split = self.splits[0]
    number = 0
    for number, fields in enumerate(self.fn(split), start=1):
      place = f'{self.where()} row {number} of {split}'
      if not isinstance(fields, Mapping):
        raise DataError(f'{place} is a {type(fields).__name__}; it must be a dict of fields.')
      yield Row(row_id(fields, self.id_field, number, place), dict(fields), place)
    if not number:
      raise DataError(f'{self.where()} yields nothing for {split}; it must yield at least one row.')

  def for_split(self, split: str) -> 'GeneratorSource':
    """Returns the source of one split."""
    return replace(self, splits=(split,))

  def where(self) -> str:
    name = getattr(self.fn, '__qualname__', type(self.fn).__name__)
    return f'{getattr(self.fn, "__module__", "")}.{name}()'

  def available(self) -> Availability:
    return Availability(True)

  def fingerprint(self) -> str:
    return f'{self.where()} {"+".join(self.splits)} version {self.version}'


@dataclass(frozen=True)
class TFDS(Source):
  """A data set of TensorFlow Datasets, 'name[/config]:version', already prepared in data_dir.

  split: any TFDS slice, such as 'train[:95%]'. Nothing is downloaded: `available()` tells the
  command that does it.
  """

  id: str
  split: str = 'train'
  data_dir: str | os.PathLike | None = None

  def __post_init__(self):
    if ':' not in self.id:
      raise ValueError(
        f'TFDS({self.id!r}) names no version; write {self.id + ":1.0.0"!r} or the like, '
        'so that the data cannot change under a run.'
      )

  def _builder(self):
    try:
      import tensorflow_datasets as tfds
    except ImportError as e:
      raise DataError(f'Reading {self.where()} needs pip install tensorflow-datasets.') from e
    try:
      return tfds.builder(self.id, data_dir=self.data_dir, try_gcs=False)
    except Exception as e:  # TFDS has its own exceptions for each way a name can be wrong
      raise DataError(f'TFDS cannot give {self.id!r}: {str(e).splitlines()[0]}') from e

  def rows(self) -> Iterator[Row]:
    status = self.available()
    if not status.available:
      raise DataError(f'{status.why} {status.how_to_get}')
    import tensorflow_datasets as tfds

    builder = self._builder()
    # One shard after the other, or the order would depend on how TFDS interleaves them.
    dataset = builder.as_dataset(
      split=self.split,  # pyright: ignore[reportCallIssue] TFDS's decorator hides the signature
      shuffle_files=False,
      read_config=tfds.ReadConfig(interleave_cycle_length=1),
    )
    number = 0
    for number, fields in enumerate(tfds.as_numpy(dataset), start=1):
      place = f'{self.where()} row {number}'
      fields = {name: _plain(value, place) for name, value in fields.items()}
      yield Row(row_id(fields, self.id_field, number, place), fields, place)
    if not number:
      raise DataError(f'{self.where()} has no rows; it must hold at least one.')

  def where(self) -> str:
    return f'tfds:{self.id} {self.split}'

  def available(self) -> Availability:
    get = self.how_to_get or f'Get it with: tfds build {self.id.split(":")[0]}'
    # Importing TFDS takes seconds, and there are many that were never prepared.
    folder = self.data_dir or os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets'
    try:
      prepared = data_path(folder) / self.id.split('/')[0].split(':')[0]
      if prepared.is_dir():
        folder = self._builder().data_dir
        prepared = data_path(folder)
    except DataError as e:
      return Availability(False, str(e), get)
    if not prepared.is_dir():
      return Availability(False, f'{self.id} is not prepared in {folder}.', get)
    return Availability(True)

  def fingerprint(self) -> str:
    return f'{self.where()} {self._builder().info.full_name}'


def check_holdout(name: str, sources: Mapping[str, Source], splits: Any) -> None:
  """Refuses `splits`, which cut validation from train, where a source has it or has no train."""
  if splits is not None and ('validation' in sources or 'train' not in sources):
    raise ValueError(
      f'Task {name!r}: splits={splits} cuts validation from train, but the source has '
      f'{listing(sources)}; leave out one of the two.'
    )


def as_splits(source: Source | Mapping[str, Source]) -> dict[str, Source]:
  """Returns split -> source; a single source is train, a GeneratorSource serves its splits."""
  if isinstance(source, GeneratorSource):
    return {split: source.for_split(split) for split in source.splits}
  if isinstance(source, Source):
    return {'train': source}
  if isinstance(source, Mapping) and source:
    wrong = [s for s in source.values() if not isinstance(s, Source)]
    if not wrong:
      return {
        split: s.for_split(split) if isinstance(s, GeneratorSource) else s
        for split, s in source.items()
      }
    source = wrong[0]
  raise ValueError(
    f'A source is one of TFDS, JSONL, TSV, CSV, Parquet, GeneratorSource, or a dict of split to '
    f'one of them; got {source!r}.'
  )


def _plain(value: Any, place: str) -> Any:
  """Turns what TFDS yields (bytes, NumPy scalars and arrays) into plain Python values."""
  if isinstance(value, dict):
    return {key: _plain(item, place) for key, item in value.items()}
  value = value.tolist() if hasattr(value, 'tolist') else value
  if isinstance(value, list):
    return [_plain(item, place) for item in value]
  if isinstance(value, bytes):
    try:
      return value.decode('utf-8')
    except UnicodeDecodeError as e:
      raise DataError(f'{place} is not UTF-8 at byte {e.start + 1}; decode it in TFDS.') from e
  return value


@lru_cache(maxsize=4096)
def _file_hash(path: Path, stamp: tuple[int, int]) -> str:
  """Hashes a file's content; asked again only when its size or time, the stamp, changed."""
  del stamp
  with path.open('rb') as file:
    return 'sha256:' + hashlib.file_digest(file, 'sha256').hexdigest()
