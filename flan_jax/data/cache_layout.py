"""The token cache on disk: one directory, one vocabulary, one folder per task and split.

    cache.json  vocabulary/  mixtures/<name>.json
    tasks/<task>/<split>/  manifest.json tokens.npy offsets.npy metadata.jsonl metadata_offsets.npy

`offsets[2i : 2i + 3]` bound the inputs and then the targets of example i in `tokens`. This module
knows where things lie and what a cache is of; cache.py reads tasks and cache_writer.py writes them.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import json
import os
import pathlib
import re
from typing import Any

import numpy as np

from flan_jax import whole_file
from flan_jax.data import vocabularies

FORMAT = 1
CACHE_FILE = 'cache.json'
MANIFEST_FILE = 'manifest.json'
DATA_FILES = ('tokens.npy', 'offsets.npy', 'metadata.jsonl', 'metadata_offsets.npy')
SPLIT_FILES = (*DATA_FILES, MANIFEST_FILE)  # the manifest last: it says that the others are whole

HEADER_BYTES = 128  # NumPy's header of a one-dimensional array, padded, whatever its length

_OWN_FOLDERS = ('vocabulary', 'tasks', 'mixtures')
_NAME = re.compile(r'[A-Za-z0-9_][A-Za-z0-9_.:+-]*')


class CacheError(ValueError):
  """A token cache that is missing, unfinished, damaged or made for something else."""


@dataclasses.dataclass(frozen=True)
class CacheInfo:
  """What cache.json says: the vocabulary all of its tasks were tokenised with.

  Attributes:
    format: of the cache.
    kind: the vocabulary's, as are the others.
    prompt_end: ids that every prompt ends with, to be kept when one is cut.
    chat_template: digest of the chat template that prompts were written with, '' for none.
  """

  format: int
  kind: str
  fingerprint: str
  size: int
  pad_id: int
  eos_id: int
  bos_id: int | None
  prompt_end: tuple[int, ...]
  chat_template: str

  def __str__(self) -> str:
    template = f' with chat template {self.chat_template}' if self.chat_template else ''
    return f'{self.kind} vocabulary {self.fingerprint}{template} ({self.size:,} ids)'


def initialize_cache(
  cache_dir: str | os.PathLike[str], vocabulary: vocabularies.Vocabulary
) -> CacheInfo:
  """Makes `cache_dir` a cache of `vocabulary`, or checks that it is one.

  Raises:
    CacheError: it holds another vocabulary, or something that is not a cache.
  """
  cache_dir = pathlib.Path(cache_dir)
  path = cache_dir / CACHE_FILE
  info = _describe(vocabulary)
  if path.exists():
    found = read_cache_info(cache_dir)
    if found.fingerprint != info.fingerprint:
      raise CacheError(
        f"The cache '{cache_dir}' was made with the {found}, not with the {info}; use its "
        'vocabulary and chat template (both are the default) or another --cache_dir.'
      )
    return found
  if cache_dir.is_dir() and any(cache_dir.iterdir()):
    # Another process may just be making this cache; all others' files are not ours to mix with.
    others = sorted(p.name for p in cache_dir.iterdir() if p.name not in _OWN_FOLDERS)
    if others and not all(name.startswith('.cache.json') for name in others):
      raise CacheError(
        f"'{cache_dir}' is not empty and not a token cache (it holds '{others[0]}' and no "
        f'{CACHE_FILE}); give an empty or new directory.'
      )
  vocabulary.save(cache_dir / 'vocabulary')
  described = dataclasses.asdict(info)
  write_json(path, {'format': described.pop('format'), 'vocabulary': described})
  return info


def _describe(vocabulary: vocabularies.Vocabulary) -> CacheInfo:
  template = vocabulary.chat.template.source if vocabulary.chat else ''
  return CacheInfo(
    format=FORMAT,
    kind=vocabulary.kind,
    fingerprint=vocabulary.fingerprint,
    size=vocabulary.size,
    pad_id=vocabulary.pad_id,
    eos_id=vocabulary.eos_id,
    bos_id=vocabulary.bos_id,
    prompt_end=vocabulary.prompt_end,
    chat_template=hashlib.blake2b(template.encode(), digest_size=8).hexdigest() if template else '',
  )


def read_cache_info(cache_dir: str | os.PathLike[str]) -> CacheInfo:
  """Reads cache.json.

  Raises:
    CacheError: `cache_dir` is missing, not a cache, or of another format.
  """
  cache_dir = pathlib.Path(cache_dir)
  path = cache_dir / CACHE_FILE
  if not cache_dir.is_dir():
    raise CacheError(f"There is no token cache '{cache_dir}'; make one with `flan-jax prepare`.")
  if not path.is_file():
    raise CacheError(
      f"'{cache_dir}' is not a token cache: it has no {CACHE_FILE}; make one with "
      '`flan-jax prepare`.'
    )
  described = read_json(path)
  _check_format(path, described)
  try:
    known = described['vocabulary']
    # Caches of before there were chat templates do not say how prompts begin and end.
    since = {'bos_id': None, 'prompt_end': (known['eos_id'],), 'chat_template': ''}
    info = CacheInfo(format=FORMAT, **{**since, **known})
    return dataclasses.replace(info, prompt_end=tuple(info.prompt_end))
  except (KeyError, TypeError) as e:
    raise CacheError(f"'{path}' does not describe a vocabulary; prepare the cache again.") from e


def cache_vocabulary(cache_dir: str | os.PathLike[str]) -> vocabularies.Vocabulary:
  """Loads the vocabulary kept inside the cache.

  Raises:
    CacheError: there is no cache, or its vocabulary is not the one cache.json names.
  """
  info = read_cache_info(cache_dir)
  vocabulary = vocabularies.load_vocabulary(pathlib.Path(cache_dir) / 'vocabulary')
  if vocabulary.fingerprint != info.fingerprint:
    raise CacheError(
      f"The cache '{cache_dir}' was made with vocabulary {info.fingerprint} but its vocabulary/ "
      f'holds {vocabulary.fingerprint}; put the right one back or prepare again.'
    )
  return vocabulary


def token_dtype(vocabulary_size: int) -> np.dtype:
  """Two bytes a token while the vocabulary fits, else four."""
  return np.dtype('<u2' if vocabulary_size <= 1 << 16 else '<u4')


def array_header(dtype: np.dtype, length: int) -> bytes:
  """The .npy header of a one-dimensional array, always HEADER_BYTES long.

  A constant length lets the writer fill it in last, and the reader compare it instead of parsing
  two of them a task, which took half of the start-up with 1,836 tasks.
  """
  buffer = io.BytesIO()
  described = {'descr': dtype.str, 'fortran_order': False, 'shape': (length,)}
  np.lib.format.write_array_header_1_0(buffer, described)
  header = buffer.getvalue()
  if len(header) != HEADER_BYTES:
    raise CacheError(
      f'NumPy {np.__version__} writes array headers of {len(header)} bytes, not {HEADER_BYTES}; '
      'this version of flan_jax cannot use it for a cache.'
    )
  return header


def check_name(kind: str, name: str) -> str:
  """Returns `name`, which becomes a folder.

  Raises:
    CacheError: it could leave its folder or confuse a shell.
  """
  if not _NAME.fullmatch(name):
    raise CacheError(
      f'The {kind} name {name!r} cannot name a folder; use letters, digits and _ . : + - and '
      'begin with a letter, a digit or _.'
    )
  return name


def task_directory(cache_dir: str | os.PathLike[str], task: str, split: str) -> pathlib.Path:
  """Where one task's split lies."""
  check_name('task', task)
  check_name('split', split)
  return pathlib.Path(cache_dir) / 'tasks' / task / split


def list_tasks(cache_dir: str | os.PathLike[str], split: str | None = None) -> tuple[str, ...]:
  """Names of the finished tasks, sorted; with `split`, of those that have it."""
  root = pathlib.Path(cache_dir) / 'tasks'
  if not root.is_dir():
    return ()
  pattern = f'*/{split or "*"}/{MANIFEST_FILE}'
  return tuple(
    sorted({p.parent.parent.name for p in root.glob(pattern) if p.parent.name[0] != '.'})
  )


def list_splits(cache_dir: str | os.PathLike[str], task: str) -> tuple[str, ...]:
  """Names of the finished splits of one task, sorted."""
  root = pathlib.Path(cache_dir) / 'tasks' / check_name('task', task)
  found = root.glob(f'*/{MANIFEST_FILE}')
  return tuple(sorted(p.parent.name for p in found if p.parent.name[0] != '.'))


def read_manifest(cache_dir: str | os.PathLike[str], task: str, split: str) -> dict[str, Any]:
  """Reads what is known of one task's split without opening its data.

  Raises:
    CacheError: missing, unfinished, of another format or of another vocabulary.
  """
  directory = task_directory(cache_dir, task, split)
  path = directory / MANIFEST_FILE
  if not path.is_file():
    info = read_cache_info(cache_dir)
    if directory.is_dir():
      raise CacheError(
        f"Task '{task}' split '{split}' in '{cache_dir}' is unfinished: it has no "
        f'{MANIFEST_FILE}; run `flan-jax prepare` again.'
      )
    splits = list_splits(cache_dir, task)
    have = f'; it has {", ".join(splits)}' if splits else ''
    raise CacheError(
      f"Task '{task}' has no split '{split}' in '{cache_dir}' (vocabulary {info.kind}){have}; "
      'prepare it or leave it out.'
    )
  manifest = read_json(path)
  _check_format(path, manifest)
  # Caches of earlier versions have none.
  if manifest.get('checksum', expected := _checksum(manifest)) != expected:
    raise CacheError(
      f"Task '{task}' split '{split}' is damaged: '{path}' differs from its checksum; delete "
      f"'{directory}' and run `flan-jax prepare` again."
    )
  return manifest


def sealed(manifest: dict[str, Any]) -> dict[str, Any]:
  """A manifest with its own checksum."""
  return {**manifest, 'checksum': _checksum(manifest)}


def _checksum(manifest: dict[str, Any]) -> str:
  content = {name: value for name, value in manifest.items() if name != 'checksum'}
  text = json.dumps(content, sort_keys=True)
  return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def file_digest(path: pathlib.Path) -> str:
  """BLAKE2b of a file's contents, hexadecimal."""
  with open(path, 'rb') as f:
    return hashlib.file_digest(f, functools.partial(hashlib.blake2b, digest_size=16)).hexdigest()


def read_json(path: pathlib.Path) -> Any:
  """Reads a JSON file of the cache, naming it when it is damaged."""
  try:
    return json.loads(path.read_text(encoding='utf-8'))
  except ValueError as e:
    raise CacheError(f"'{path}' is damaged: it is not JSON ({e}); prepare it again.") from e


def write_json(path: pathlib.Path, content: Any) -> None:
  """Writes JSON to `path`, whole or not at all; its folder is made."""
  path.parent.mkdir(parents=True, exist_ok=True)
  whole_file.write(path, json.dumps(content, indent=2, ensure_ascii=False) + '\n')


def _check_format(path: pathlib.Path, described: Any) -> None:
  found = described.get('format') if isinstance(described, dict) else None
  if found != FORMAT:
    raise CacheError(
      f"'{path}' has cache format {found}; this version reads format {FORMAT}, so prepare the "
      'cache again or use the version that made it.'
    )
