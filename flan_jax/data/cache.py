"""Reads the token cache: one task's split at a time, refusing what is damaged.

The layout is in cache_layout.py and the writer in cache_writer.py; their public names are here too,
so that users import one module. What the tokens mean is prepare's concern.
"""

from __future__ import annotations

import functools
import json
import mmap
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO

import numpy as np

from flan_jax.data.cache_layout import (
  DATA_FILES,
  HEADER_BYTES,
  CacheError,
  CacheInfo,
  array_header,
  cache_vocabulary,
  check_name,
  file_digest,
  initialize_cache,
  list_splits,
  list_tasks,
  read_cache_info,
  read_json,
  read_manifest,
  task_directory,
  token_dtype,
  write_json,
)
from flan_jax.data.cache_writer import TaskCacheWriter, remove_leftovers

__all__ = (
  'CacheError',
  'CacheInfo',
  'TaskCache',
  'TaskCacheWriter',
  'cache_vocabulary',
  'check_name',
  'initialize_cache',
  'is_finished',
  'list_splits',
  'list_tasks',
  'read_cache_info',
  'read_json',
  'read_manifest',
  'remove_leftovers',
  'task_directory',
  'write_json',
)


class TaskCache:
  """One task's split. Offsets are mapped; tokens are read where they are asked for.

  Mapped tokens would count as this process's memory, gigabytes of them after some thousand rows,
  and a failing disk would be SIGBUS instead of an error.
  """

  def __init__(self, directory: str, manifest: dict[str, Any], info: CacheInfo):
    self.directory = directory
    self.manifest = manifest
    self.task: str = manifest['task']
    self.split: str = manifest['split']
    self.num_examples: int = manifest['num_examples']
    self._dtype = token_dtype(info.size)
    self._tokens = self._open(
      'tokens.npy', self._dtype, manifest['input_tokens'] + manifest['target_tokens']
    )
    self.offsets = self._map('offsets.npy', 2 * self.num_examples + 1)

  @classmethod
  def open(
    cls,
    cache_dir: str | os.PathLike[str],
    task: str,
    split: str,
    *,
    info: CacheInfo | None = None,
    manifest: dict[str, Any] | None = None,
  ) -> TaskCache:
    """Opens one task's split after checking vocabulary and file sizes.

    Args:
      cache_dir: the cache.
      task: name of a task in it.
      split: 'train', 'validation' ...
      info: cache.json already read, for opening many tasks.
      manifest: the task's manifest already read.

    Raises:
      CacheError: missing, unfinished, truncated, of another vocabulary or another format.
    """
    info = info or read_cache_info(cache_dir)
    manifest = manifest or read_manifest(cache_dir, task, split)
    directory = os.path.join(cache_dir, 'tasks', task, split)
    if manifest.get('vocabulary') != info.fingerprint:
      raise CacheError(
        f"Task '{task}' split '{split}' was tokenised with vocabulary "
        f"{manifest.get('vocabulary')}, but the cache '{cache_dir}' is of {info.kind} vocabulary "
        f'{info.fingerprint}; prepare the task again.'
      )
    for name in DATA_FILES:
      _check_size(os.path.join(directory, name), manifest)
    return cls(directory, manifest, info)

  def input_lengths(self) -> np.ndarray:
    """Lengths of all inputs in tokens, EOS included, int64 [num_examples]."""
    return np.asarray(self.offsets[1::2] - self.offsets[:-1:2])

  def target_lengths(self) -> np.ndarray:
    """Lengths of all targets in tokens, EOS included, int64 [num_examples]."""
    return np.asarray(self.offsets[2::2] - self.offsets[1::2])

  def example(self, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets of one example, each ending in EOS."""
    self._check_index(index)
    start, middle, end = self.offsets[2 * index : 2 * index + 3].tolist()
    tokens = self.read_tokens(start, end)
    return tokens[: middle - start], tokens[middle - start :]

  def read_tokens(self, start: int, end: int) -> np.ndarray:
    """Tokens by offset, uint16 or uint32 [end - start].

    Raises:
      CacheError: the file cannot be read or has become shorter.
    """
    size = self._dtype.itemsize
    try:
      data = os.pread(self._tokens.fileno(), (end - start) * size, HEADER_BYTES + start * size)
    except OSError as e:
      raise self._damaged('tokens.npy', f'cannot be read ({e.strerror})') from e
    if len(data) != (end - start) * size:
      raise self._damaged('tokens.npy', 'has become shorter')
    return np.frombuffer(data, self._dtype)

  def metadata(self, index: int) -> dict[str, Any]:
    """What prepare kept beside the tokens of one example: id, template, answer ..."""
    self._check_index(index)
    start, end = self._metadata_offsets[index : index + 2]
    with open(os.path.join(self.directory, 'metadata.jsonl'), 'rb') as f:
      f.seek(int(start))
      line = f.read(int(end - start))
    try:
      return json.loads(line)
    except ValueError as e:
      raise self._damaged('metadata.jsonl', f'line {index + 1} is not JSON') from e

  def verify(self, files: Iterable[str] = DATA_FILES) -> None:
    """Reads files of the split and compares checksums.

    Raises:
      CacheError: a file differs from what was written.
    """
    for name in files:
      found = file_digest(pathlib.Path(self.directory, name))
      if found != self.manifest['files'][name]['blake2b']:
        raise self._damaged(name, 'differs from its checksum')

  @functools.cached_property
  def _metadata_offsets(self) -> np.ndarray:
    return self._map('metadata_offsets.npy', self.num_examples + 1)

  def _check_index(self, index: int) -> None:
    if not 0 <= index < self.num_examples:
      raise IndexError(
        f"Example {index} of task '{self.task}' does not exist; it has {self.num_examples:,}."
      )

  def _open(self, name: str, dtype: np.dtype, length: int) -> BinaryIO:
    """Opens an array's file after comparing its header with what the manifest implies."""
    try:
      file = open(os.path.join(self.directory, name), 'rb', buffering=0)
    except OSError as e:
      raise self._not_opened(name, e) from e
    if file.read(HEADER_BYTES) != array_header(dtype, length):
      raise self._damaged(name, f'does not begin as {length:,} numbers of type {dtype.name}')
    return file

  def _map(self, name: str, length: int) -> np.ndarray:
    """Maps an array of offsets; the map keeps the file open."""
    dtype = np.dtype('<i8')
    with self._open(name, dtype, length) as file:
      try:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
      except OSError as e:
        raise self._not_opened(name, e) from e
    return np.frombuffer(mapped, dtype, offset=HEADER_BYTES)

  def _not_opened(self, name: str, error: OSError) -> CacheError:
    return CacheError(
      f"'{os.path.join(self.directory, name)}' cannot be opened: {error.strerror}. Each task keeps "
      'two files open; raise the limit with `ulimit -n`.'
    )

  def _damaged(self, name: str, problem: str) -> CacheError:
    path = os.path.join(self.directory, name)
    return CacheError(
      f"Task '{self.task}' split '{self.split}' is damaged: '{path}' {problem}; "
      f"delete '{self.directory}' and run `flan-jax prepare` again."
    )


def is_finished(
  cache_dir: str | os.PathLike[str], task: str, split: str, *, key: Mapping[str, Any]
) -> bool:
  """Whether the split is there, whole, and was made from `key`."""
  try:
    manifest = TaskCache.open(cache_dir, task, split).manifest
  except CacheError:
    return False
  return manifest.get('key') == json.loads(json.dumps(key))


def _check_size(path: str, manifest: dict[str, Any]) -> None:
  folder, name = os.path.split(path)
  want = manifest['files'][name]['bytes']
  try:
    have = os.stat(path).st_size
  except FileNotFoundError:
    have = None
  if have != want:
    found = 'is missing' if have is None else f'has {have:,} bytes'
    raise CacheError(
      f"Task '{manifest['task']}' split '{manifest['split']}' is damaged: '{path}' {found}, the "
      f"manifest says {want:,} bytes; delete '{folder}' and run `flan-jax prepare` again."
    )
