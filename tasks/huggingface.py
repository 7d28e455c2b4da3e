"""Data sets of Hugging Face that lie on disk or in a bucket, as Parquet, Arrow or JSONL.

Found are what `load_dataset(...).save_to_disk` writes, a copy of a repository of the hub, and
plain folders or single files. Rows are read some at a time, shard after shard in order, so memory
does not grow with the data. The package `datasets` is not needed.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flan_jax.tasks.columnar import check_columns, columnar_rows
from flan_jax.tasks.folders import FileInFolder, FolderError
from flan_jax.tasks.paths import data_path
from flan_jax.tasks.readers import DataError, json_objects
from flan_jax.tasks.rows import Availability, Row, Source, row_id
from flan_jax.tasks.sources import JSONL

from flan_jax.naming import listing, nearest

_KINDS = ('.parquet', '.arrow', '.jsonl')
_OF = re.compile(r'-(\d{5,})-of-(\d{5,})$')


@dataclass(frozen=True)
class HuggingFace(Source):
  """One split of a data set, on disk or in a bucket.

  path: its folder, or a single file. config: a folder (or file) in it, or in its data/, for sets
  of several parts. columns: those to read, all by default.
  """

  path: str | os.PathLike | FileInFolder
  config: str = ''
  split: str = 'train'
  columns: tuple[str, ...] | None = None

  def root(self) -> Path:
    """Returns the folder, asking for it if it is named later."""
    if isinstance(self.path, str | os.PathLike):
      return data_path(self.path)
    return self.path.path()

  def shards(self) -> tuple[Path, ...]:
    """Returns the files of the split, in order.

    Raises:
      DataError: there are none, or some of 'NNNNN-of-NNNNN' are missing.
    """
    root = self.root()
    places = [root / part / self.config for part in ('', 'data')] if self.config else [root]
    for place in places:
      for found in _layouts(place, self.split):
        if found:
          _check_complete(found)
          return found
    known = sorted({split for place in places for split in _splits(place)})
    near = f'{nearest(self.split, known)} Splits: {listing(known)}.' if known else ''
    raise DataError(
      f'There is no split {self.split!r} in {places[0]}: no {self.split}.parquet, '
      f'{self.split}-*.parquet, {self.split}/*.parquet, nor the same with .arrow or .jsonl.{near}'
    )

  def rows(self) -> Iterator[Row]:
    count = 0
    for path in self.shards():
      for number, fields in _read(path, self.columns):
        count += 1
        place = f'{path} row {number}'
        yield Row(row_id(fields, self.id_field, count, place), fields, place)
    if not count:
      raise DataError(f'{self.where()} has no rows; it must hold at least one.')

  def where(self) -> str:
    path = str(self.path).removesuffix('/.')
    return f'huggingface:{path}{"/" if self.config else ""}{self.config} {self.split}'

  def available(self) -> Availability:
    try:
      self.shards()
    except (DataError, FolderError) as e:
      return Availability(False, str(e), self.how_to_get or str(e))
    return Availability(True)

  def fingerprint(self) -> str:
    hashes = [JSONL(path).fingerprint() for path in self.shards()]  # of any file's content
    return hashes[0] if len(hashes) == 1 else _joined(hashes)


def _layouts(place: Path, split: str) -> Iterator[tuple[Path, ...]]:
  """Yields the files of a split for each way of keeping them, the most telling first."""
  if place.suffix in _KINDS and place.is_file():
    yield (place,)
  for kind in _KINDS:
    yield _sorted(place / split, f'*{kind}')
    for folder in (place, place / 'data'):
      yield _named(folder, split, kind)
  yield _saved(place, split)
  if split == 'train':  # a single file is train, as load_dataset takes it
    for kind in _KINDS:
      single = place.with_name(place.name + kind)
      yield (single,) if place.name and single.is_file() else ()


def _named(folder: Path, split: str, kind: str) -> tuple[Path, ...]:
  """Returns SPLIT.kind or SPLIT-00000-of-00002.kind; in caches the set's name stands before."""
  before = '(.+-)?' if kind == '.arrow' else ''
  of = re.compile(rf'{before}{re.escape(split)}(-\d{{5,}}-of-\d{{5,}})?{re.escape(kind)}')
  return tuple(path for path in _sorted(folder, f'*{kind}') if of.fullmatch(path.name))


def _saved(folder: Path, split: str) -> tuple[Path, ...]:
  """Returns the files of a Dataset (not a DatasetDict) that save_to_disk wrote."""
  state = _state(folder)
  if state is None or (state.get('_split') or split) != split:
    return ()
  return _sorted(folder, 'data-*.arrow')


def _sorted(folder: Path, pattern: str) -> tuple[Path, ...]:
  """Lists files in the order of their numbers; what save_to_disk left out of a set is refused."""
  found = tuple(sorted(folder.glob(pattern))) if folder.is_dir() else ()
  state = _state(folder) if found and pattern.endswith('.arrow') else None
  if state is None:
    return found
  if state.get('_indices_files') or state.get('_indices_data_files'):
    raise DataError(
      f'{folder} keeps its rows in another order than its files (state.json names indices); call '
      'flatten_indices() on the data set and save it again.'
    )
  listed = [file.get('filename', '') for file in state.get('_data_files') or ()]
  for name in listed:
    if not (folder / name).is_file():
      raise DataError(f'{folder / name} is missing: state.json names it. Copy the folder anew.')
  return tuple(folder / name for name in listed) or found


def _state(folder: Path) -> dict[str, Any] | None:
  path = folder / 'state.json'
  if not path.is_file():
    return None
  try:
    state = json.loads(path.read_bytes())
  except ValueError as e:
    raise DataError(f'{path} is not JSON: {e}. Copy the folder anew.') from e
  if not isinstance(state, dict):
    raise DataError(f'{path} is a JSON {type(state).__name__}, not an object.')
  return state


def _check_complete(shards: tuple[Path, ...]) -> None:
  """Refuses a split of which some shards are not there, as after a copy that broke off."""
  numbered = [(path, _OF.search(path.stem)) for path in shards]
  for path, match in numbered:
    if match is None:
      continue
    total = int(match[2])
    there = {int(m[1]) for _, m in numbered if m}
    missing = [number for number in range(total) if number not in there]
    if missing:
      name = path.with_stem(_OF.sub(f'-{missing[0]:05d}-of-{match[2]}', path.stem))
      raise DataError(
        f'{name} is missing, and {len(missing) - 1} more of {total} shards; copy the rest.'
      )
    return


def _splits(place: Path) -> Iterator[str]:
  """Names the splits that a folder seems to have, for the error that names a wrong one."""
  for folder in (place, place / 'data'):
    for path in sorted(folder.glob('*')) if folder.is_dir() else ():
      if (
        path.is_dir()
        and path.name != 'data'
        and any(next(path.glob(f'*{kind}'), None) for kind in _KINDS)
      ):
        yield path.name
      elif path.suffix in _KINDS and path.stem.partition('-')[0] != 'data':
        yield _OF.sub('', path.stem)


def _read(path: Path, columns: tuple[str, ...] | None) -> Iterator[tuple[int, dict[str, Any]]]:
  """Yields (row number from 1, fields) of one shard; a shard may have no rows."""
  if path.suffix != '.jsonl':
    yield from columnar_rows(path, columns)
    return
  for number, fields in json_objects(path):
    check_columns(f'{path} line {number}', columns, list(fields))
    yield number, {name: fields[name] for name in columns} if columns else fields


def _joined(hashes: list[str]) -> str:
  return 'sha256:' + hashlib.sha256('\n'.join(hashes).encode()).hexdigest()
