"""Writes one task's split into the token cache so that a reader sees all of it or nothing.

Files grow in a hidden folder beside the final one, are synced, and the folder is renamed last. A
lock held on the folder tells a living writer from the leftovers of a dead one. Nothing is kept in
memory of an example that was added.
"""

from __future__ import annotations

import fcntl
import json
import os
import pathlib
import shutil
import struct
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO, Self

import numpy as np

from flan_jax.data import cache_layout
from flan_jax.data.cache_layout import CacheError
from flan_jax.whole_file import FULL

Ids = Sequence[int] | np.ndarray

_WRITE_BUFFER_BYTES = 1 << 20
_UNLOCKED_GRACE_SECONDS = 60.0  # between a writer's mkdir and its lock


class TaskCacheWriter:
  """Writes one split; a context manager that keeps nothing unless `finish` was reached.

  with TaskCacheWriter(cache_dir, 'my_qa', 'train', key=key) as writer:
    writer.add([363, 58, 1], [4, 1], {'id': '7', 'template': 'ask', 'answer': 'no'})
    writer.finish({'collection': 'demo', 'cot': False})
  """

  def __init__(
    self,
    cache_dir: str | os.PathLike[str],
    task: str,
    split: str,
    *,
    key: Mapping[str, Any] | None = None,
    extra_ids: int = 0,
  ):
    """Checks names; files are made on entering.

    Args:
      cache_dir: a directory that `initialize_cache` made.
      task: name of the task.
      split: name of the split.
      key: what made the examples (source, templates, vocabulary, seed, code), for
        `is_finished`.
      extra_ids: ids above the vocabulary that examples may have.

    Raises:
      CacheError: no cache, or a name that cannot be a folder.
    """
    self._info = cache_layout.read_cache_info(cache_dir)
    self._directory = cache_layout.task_directory(cache_dir, task, split)
    self._task, self._split, self._key = task, split, dict(key or {})
    self._dtype = cache_layout.token_dtype(self._info.size)
    self._partial = self._directory.with_name(f'.{split}.{uuid.uuid4().hex[:12]}.partial')
    self._num_ids = min(self._info.size + extra_ids, 1 + np.iinfo(self._dtype).max)
    self._files: dict[str, BinaryIO] = {}
    self._num_examples = self._input_tokens = self._num_tokens = self._metadata_bytes = 0
    self._largest_id = 0  # sentinels may lie above the vocabulary
    self._finished = False

  def __enter__(self) -> Self:
    try:
      remove_leftovers(self._directory.parent)
      self._partial.mkdir(parents=True)
      # Locked before it has its name: whoever finds it free takes its writer for dead.
      unnamed = self._partial / 'lock.new'
      self._lock = open(unnamed, 'w')
      fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
      unnamed.rename(self._partial / 'lock')
      for name in cache_layout.DATA_FILES:
        self._files[name] = open(self._partial / name, 'wb', _WRITE_BUFFER_BYTES)
      # Room for the headers, which tell lengths that are known at the end.
      room = bytes(cache_layout.HEADER_BYTES)
      self._files['tokens.npy'].write(room)
      for name in ('offsets.npy', 'metadata_offsets.npy'):
        self._files[name].write(room + _int64(0))
    except OSError as e:
      shutil.rmtree(self._partial, ignore_errors=True)
      raise self._failed(e) from e
    return self

  def __exit__(self, *exception: object) -> None:
    if self._finished:
      return
    for file in self._files.values():
      try:
        file.close()
      except OSError:  # a full disk fails again while flushing what is thrown away
        pass
    shutil.rmtree(self._partial, ignore_errors=True)
    self._lock.close()

  def add(self, inputs: Ids, targets: Ids, metadata: Mapping[str, Any]) -> None:
    """Appends one example, both sides with their EOS.

    Raises:
      CacheError: targets are empty, an id is outside the vocabulary, or the disk is full.
    """
    if not len(targets):
      raise CacheError(
        f'{self._next(metadata)} has no targets, so nothing can be learnt from it; drop it and '
        'count it.'
      )
    tokens = np.concatenate([np.asarray(inputs, np.int64), np.asarray(targets, np.int64)])
    smallest, largest = int(tokens.min()), int(tokens.max())
    if smallest < 0 or largest >= self._num_ids:
      wrong = smallest if smallest < 0 else largest
      raise CacheError(
        f"{self._next(metadata)} has token id {wrong}; the cache's {self._info.kind} vocabulary "
        f'has ids 0 to {self._num_ids - 1:,}.'
      )
    line = (json.dumps(metadata, ensure_ascii=False) + '\n').encode('utf-8', 'surrogatepass')
    middle = self._num_tokens + len(inputs)
    end, metadata_end = middle + len(targets), self._metadata_bytes + len(line)
    try:
      self._files['tokens.npy'].write(tokens.astype(self._dtype).tobytes())
      self._files['offsets.npy'].write(_int64(middle, end))
      self._files['metadata.jsonl'].write(line)
      self._files['metadata_offsets.npy'].write(_int64(metadata_end))
    except OSError as e:
      raise self._failed(e) from e
    self._num_examples += 1
    self._input_tokens += len(inputs)
    self._largest_id = max(self._largest_id, largest)
    self._num_tokens, self._metadata_bytes = end, metadata_end

  def _next(self, metadata: Mapping[str, Any]) -> str:
    """Names the example that is being added, for errors."""
    return f"Example {self._num_examples} (id {metadata.get('id')!r}) of task '{self._task}'"

  def finish(self, info: Mapping[str, Any]) -> dict[str, Any]:
    """Syncs everything and puts it in place, replacing what was there.

    Args:
      info: further manifest entries: cluster, collection, cot, licence, source, metrics ...

    Returns:
      The manifest.

    Raises:
      CacheError: the disk is full.
    """
    try:
      self._complete_files()
      manifest = self._manifest(info)
      cache_layout.write_json(
        self._partial / cache_layout.MANIFEST_FILE, cache_layout.sealed(manifest)
      )
      (self._partial / 'lock').unlink()
      _sync_directory(self._partial)
      _put_in_place(self._partial, self._directory)
    except OSError as e:
      raise self._failed(e) from e
    self._finished = True
    self._lock.close()
    return manifest

  def _complete_files(self) -> None:
    """Puts the headers in front of the arrays and brings every file to the disk."""
    int64 = np.dtype('<i8')
    for name, dtype, length in (
      ('tokens.npy', self._dtype, self._num_tokens),
      ('offsets.npy', int64, 2 * self._num_examples + 1),
      ('metadata_offsets.npy', int64, self._num_examples + 1),
    ):
      self._files[name].seek(0)
      self._files[name].write(cache_layout.array_header(dtype, length))
    for file in self._files.values():
      file.flush()
      os.fsync(file.fileno())
      file.close()

  def _manifest(self, info: Mapping[str, Any]) -> dict[str, Any]:
    files: dict[str, dict[str, Any]] = {}
    for name in cache_layout.DATA_FILES:
      path = self._partial / name
      files[name] = {'bytes': path.stat().st_size, 'blake2b': cache_layout.file_digest(path)}
    return {
      **info,
      'format': cache_layout.FORMAT,
      'task': self._task,
      'split': self._split,
      'vocabulary': self._info.fingerprint,
      'num_examples': self._num_examples,
      'largest_id': self._largest_id,
      'input_tokens': self._input_tokens,
      'target_tokens': self._num_tokens - self._input_tokens,
      'key': self._key,
      'files': files,
    }

  def _failed(self, error: OSError) -> CacheError:
    where = f"task '{self._task}' split '{self._split}' under '{self._directory.parent}'"
    if error.errno in FULL:
      return CacheError(
        f'No space left while writing {where} ({error.strerror}) after '
        f'{self._num_examples:,} examples; free some or give another --cache_dir. Nothing '
        'of this task was kept.'
      )
    return CacheError(f'Cannot write {where}: {error.strerror}; give a writable --cache_dir.')


def adopt_split(
  cache_dir: str | os.PathLike[str], task: str, split: str, open_file: Callable[[str], BinaryIO]
) -> None:
  """Copies a finished split that was written elsewhere into its place, all of it or nothing.

  Args:
    cache_dir: a cache of the same vocabulary.
    task: name of the task.
    split: name of the split.
    open_file: opens a file of the split by its name.

  Raises:
    CacheError: a file is not what was written, cannot be read, or the disk is full.
  """
  directory = cache_layout.task_directory(cache_dir, task, split)
  partial = directory.with_name(f'.{split}.{uuid.uuid4().hex[:12]}.partial')
  try:
    partial.mkdir(parents=True)
    for name in cache_layout.SPLIT_FILES:
      with open_file(name) as source, open(partial / name, 'wb') as target:
        shutil.copyfileobj(source, target)
        target.flush()
        os.fsync(target.fileno())
    manifest = cache_layout.read_json(partial / cache_layout.MANIFEST_FILE)
    for name, written in manifest['files'].items():
      if cache_layout.file_digest(partial / name) != written['blake2b']:
        raise CacheError(f"{name} of task '{task}' split '{split}' was damaged on its way.")
    _sync_directory(partial)
    _put_in_place(partial, directory)
  except OSError as e:
    raise CacheError(f"Cannot copy task '{task}' split '{split}' into '{cache_dir}': {e}.") from e
  finally:
    shutil.rmtree(partial, ignore_errors=True)


def remove_leftovers(task_dir: pathlib.Path) -> list[str]:
  """Removes what dead writers left in one task's folder; returns the names removed."""
  removed = []
  for path in sorted(task_dir.glob('.*')):
    if path.suffix == '.replaced' or (path.suffix == '.partial' and _is_dead(path)):
      shutil.rmtree(path, ignore_errors=True)
      removed.append(path.name)
  return removed


def _is_dead(partial: pathlib.Path) -> bool:
  """Whether no process holds the lock of a partial folder."""
  try:
    with open(partial / 'lock') as lock:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return True
  except FileNotFoundError:  # just made, or about to be renamed
    try:
      return time.time() - partial.stat().st_mtime > _UNLOCKED_GRACE_SECONDS
    except FileNotFoundError:
      return False
  except OSError:  # locked, or a file system without locks: leave it alone
    return False


def _put_in_place(partial: pathlib.Path, directory: pathlib.Path) -> None:
  """Renames; a folder already there steps aside first, since only an empty one is replaced."""
  aside = partial.with_suffix('.replaced')
  if directory.exists():
    os.rename(directory, aside)
  os.rename(partial, directory)
  _sync_directory(directory.parent)
  shutil.rmtree(aside, ignore_errors=True)


def _int64(*values: int) -> bytes:
  return struct.pack(f'<{len(values)}q', *values)


def _sync_directory(directory: pathlib.Path) -> None:
  descriptor = os.open(directory, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)
