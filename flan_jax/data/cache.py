"""Reads the token cache: one task's split at a time, through memory maps, refusing what is damaged.

The layout is in cache_layout.py and the writer in cache_writer.py; their public names are here too,
so that users import one module. What the tokens mean is prepare's concern.
"""

from __future__ import annotations

import functools
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from flan_jax.data.cache_layout import (
  DATA_FILES,
  CacheError,
  CacheInfo,
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
  """One task's split through memory maps. Opening reads no tokens."""

  def __init__(self, directory: pathlib.Path, manifest: dict[str, Any]):
    self.directory = directory
    self.manifest = manifest
    self.task: str = manifest['task']
    self.split: str = manifest['split']
    self.num_examples: int = manifest['num_examples']
    self.tokens = self._open('tokens.npy')
    self.offsets = self._open('offsets.npy')
    if len(self.offsets) != 2 * self.num_examples + 1:
      raise self._damaged(
        'offsets.npy', f'has {len(self.offsets):,} offsets for {self.num_examples:,} examples'
      )

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
    directory = task_directory(cache_dir, task, split)
    if manifest.get('vocabulary') != info.fingerprint:
      raise CacheError(
        f"Task '{task}' split '{split}' was tokenised with vocabulary "
        f"{manifest.get('vocabulary')}, but the cache '{cache_dir}' is of {info.kind} vocabulary "
        f'{info.fingerprint}; prepare the task again.'
      )
    for name in DATA_FILES:
      _check_size(directory / name, manifest)
    return cls(directory, manifest)

  def input_lengths(self) -> np.ndarray:
    """Lengths of all inputs in tokens, EOS included, int64 [num_examples]."""
    return np.asarray(self.offsets[1::2] - self.offsets[:-1:2])

  def target_lengths(self) -> np.ndarray:
    """Lengths of all targets in tokens, EOS included, int64 [num_examples]."""
    return np.asarray(self.offsets[2::2] - self.offsets[1::2])

  def example(self, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets of one example, each ending in EOS."""
    self._check_index(index)
    start, middle, end = self.offsets[2 * index : 2 * index + 3]
    return np.array(self.tokens[start:middle]), np.array(self.tokens[middle:end])

  def metadata(self, index: int) -> dict[str, Any]:
    """What prepare kept beside the tokens of one example: id, template, answer ..."""
    self._check_index(index)
    start, end = self._metadata_offsets[index : index + 2]
    with open(self.directory / 'metadata.jsonl', 'rb') as f:
      f.seek(int(start))
      line = f.read(int(end - start))
    try:
      return json.loads(line)
    except ValueError as e:
      raise self._damaged('metadata.jsonl', f'line {index + 1} is not JSON') from e

  def verify(self) -> None:
    """Reads every file and compares checksums.

    Raises:
      CacheError: a file differs from what was written.
    """
    for name in DATA_FILES:
      found = file_digest(self.directory / name)
      if found != self.manifest['files'][name]['blake2b']:
        raise self._damaged(name, 'differs from its checksum')

  @functools.cached_property
  def _metadata_offsets(self) -> np.ndarray:
    return self._open('metadata_offsets.npy')

  def _check_index(self, index: int) -> None:
    if not 0 <= index < self.num_examples:
      raise IndexError(
        f"Example {index} of task '{self.task}' does not exist; it has {self.num_examples:,}."
      )

  def _open(self, name: str) -> np.ndarray:
    path = self.directory / name
    if self.manifest['files'][name].get('shape') == [0]:  # an empty file cannot be mapped
      return np.load(path)
    try:
      # A plain array over the map: slicing numpy.memmap itself costs ten times as much.
      return np.asarray(np.load(path, mmap_mode='r'))
    except OSError as e:
      raise CacheError(
        f"'{path}' cannot be opened: {e.strerror}. Each task keeps two files open; "
        'raise the limit with `ulimit -n`.'
      ) from e
    except ValueError as e:
      raise self._damaged(name, f'is no NumPy file ({e})') from e

  def _damaged(self, name: str, problem: str) -> CacheError:
    return CacheError(
      f"Task '{self.task}' split '{self.split}' is damaged: '{self.directory / name}' {problem}; "
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


def _check_size(path: pathlib.Path, manifest: dict[str, Any]) -> None:
  want = manifest['files'][path.name]['bytes']
  try:
    have = path.stat().st_size
  except FileNotFoundError:
    have = None
  if have != want:
    found = 'is missing' if have is None else f'has {have:,} bytes'
    raise CacheError(
      f"Task '{manifest['task']}' split '{manifest['split']}' is damaged: '{path}' {found}, the "
      f"manifest says {want:,} bytes; delete '{path.parent}' and run `flan-jax prepare` again."
    )
