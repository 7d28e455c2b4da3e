"""Vocabularies: text to token ids and back, with a fingerprint that ties ids to their maker.

Two kinds: a SentencePiece model file (T5, mT5, Llama 2 ...) and raw bytes (ByT5). Neither adds EOS:
prepare does that, so that what is stored is what the model sees.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import string
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import sentencepiece

# What instruction data contains and vocabularies made from web text often lack.
_CANDIDATE_CHARACTERS = '\n\t' + string.punctuation
_DESCRIPTION_FILE = 'vocabulary.json'
_MODEL_FILE = 'sentencepiece.model'


class Vocabulary(Protocol):
  """Text to ids and back.

  Attributes:
    kind: 'sentencepiece' or 'bytes'.
    size: number of ids, before the model pads it.
    pad_id: id of padding, 0 in every vocabulary used with T5.
    eos_id: id that ends inputs and targets, 1 with T5.
    fingerprint: hexadecimal digest; equal fingerprints give equal ids.
    lossy_characters: characters that do not survive encode and decode; T5's loses the newline
      and braces.
  """

  kind: str
  size: int
  pad_id: int
  eos_id: int
  fingerprint: str
  lossy_characters: str

  def encode(self, text: str) -> list[int]: ...

  def decode(self, ids: Iterable[int]) -> str: ...

  def save(self, directory: str | os.PathLike[str]) -> None: ...


class SentencePieceVocabulary:
  """Ids of a SentencePiece model; ids above its pieces (sentinels, padding) read as unknown."""

  kind = 'sentencepiece'

  def __init__(self, model: bytes, *, source: str = 'bytes in memory'):
    """Reads a serialised SentencePiece model.

    Args:
      model: contents of the model file.
      source: where the bytes come from, for error messages.

    Raises:
      ValueError: the bytes are no SentencePiece model or the model has no EOS piece.
    """
    self._model = model
    self._processor = sentencepiece.SentencePieceProcessor()
    try:
      self._processor.LoadFromSerializedProto(model)
    except RuntimeError as e:
      raise ValueError(
        f'{source} ({len(model):,} bytes) is not a SentencePiece model; give the .model file that '
        "SentencePiece's trainer writes, or 'bytes'."
      ) from e
    self.size = self._processor.GetPieceSize()
    self.eos_id = self._processor.eos_id()
    if self.eos_id < 0:
      raise ValueError(
        f'The SentencePiece model {source} has no end-of-sequence piece, so answers could not '
        'end; train it with eos_id >= 0.'
      )
    # Models without a padding piece (Llama's) pad with id 0, which the loss never counts.
    self.pad_id = max(self._processor.pad_id(), 0)
    self.fingerprint = _digest(model)
    self.lossy_characters = _lossy_characters(self)

  def __reduce__(self) -> tuple[Any, ...]:
    return (SentencePieceVocabulary, (self._model,))

  def encode(self, text: str) -> list[int]:
    """'a cat' -> [3, 9, 1712]; no EOS."""
    return self._processor.EncodeAsIds(text)

  def decode(self, ids: Iterable[int]) -> str:
    """[3, 9, 1712, 1, 0, 0] -> 'a cat': padding is skipped and text ends at the first EOS."""
    unknown = self._processor.unk_id()
    pieces = [i if i < self.size else unknown for i in _until_eos(ids, self)]
    return self._processor.DecodeIds(pieces)

  def save(self, directory: str | os.PathLike[str]) -> None:
    """Writes the model and its description to `directory`, made if missing."""
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    _write(directory / _MODEL_FILE, self._model)
    _write_description(self, directory)


class ByteVocabulary:
  """UTF-8 bytes as ids: pad 0, EOS 1, unknown 2, byte b is 3 + b. Source: ByT5, 2105.13626, 3.1."""

  kind = 'bytes'
  size = 3 + 256
  pad_id = 0
  eos_id = 1
  fingerprint = 'utf8-offset-3'
  lossy_characters = ''

  def encode(self, text: str) -> list[int]:
    """'hi' -> [107, 108]; no EOS."""
    return [3 + byte for byte in text.encode('utf-8')]

  def decode(self, ids: Iterable[int]) -> str:
    """[107, 108, 1, 0] -> 'hi'; bytes that are not UTF-8 read as U+FFFD."""
    kept = (i - 3 for i in _until_eos(ids, self) if 3 <= i < self.size)
    return bytes(kept).decode('utf-8', errors='replace')

  def save(self, directory: str | os.PathLike[str]) -> None:
    """Writes the description to `directory`, made if missing."""
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    _write_description(self, directory)


def get_vocabulary(spec: str | os.PathLike[str]) -> Vocabulary:
  """Returns the vocabulary that `spec` names.

  Args:
    spec: 'bytes', the path of a SentencePiece model, or a directory written by `save`.

  Raises:
    ValueError: nothing is there, or it is not a vocabulary.
  """
  if str(spec) == 'bytes':
    return ByteVocabulary()
  path = pathlib.Path(spec)
  if path.is_dir():
    return load_vocabulary(path)
  try:
    model = path.read_bytes()
  except FileNotFoundError as e:
    raise ValueError(
      f"There is no vocabulary at '{spec}'; give 'bytes' or the path of a SentencePiece model."
    ) from e
  except OSError as e:
    raise ValueError(f"The vocabulary '{spec}' cannot be read: {e.strerror}.") from e
  return SentencePieceVocabulary(model, source=f"'{path}'")


def load_vocabulary(directory: str | os.PathLike[str]) -> Vocabulary:
  """Reads back what `Vocabulary.save` wrote.

  Raises:
    ValueError: no vocabulary is there, or it is not the one that was saved.
  """
  directory = pathlib.Path(directory)
  path = directory / _DESCRIPTION_FILE
  try:
    description = json.loads(path.read_text(encoding='utf-8'))
    kind, fingerprint = description['kind'], description['fingerprint']
  except FileNotFoundError as e:
    raise ValueError(
      f"'{directory}' holds no vocabulary: {_DESCRIPTION_FILE} is missing; give a directory that "
      'was saved with a cache or a run.'
    ) from e
  except (ValueError, KeyError, TypeError) as e:
    raise ValueError(
      f"'{path}' does not describe a vocabulary; it must be JSON with 'kind' and 'fingerprint'."
    ) from e
  if kind == ByteVocabulary.kind:
    vocabulary: Vocabulary = ByteVocabulary()
  elif kind == SentencePieceVocabulary.kind:
    vocabulary = get_vocabulary(directory / _MODEL_FILE)
  else:
    raise ValueError(f"'{path}' has kind '{kind}'; known kinds are 'bytes' and 'sentencepiece'.")
  if vocabulary.fingerprint != fingerprint:
    raise ValueError(
      f"The vocabulary in '{directory}' has fingerprint {vocabulary.fingerprint} but was saved as "
      f'{fingerprint}; it was damaged or replaced, so copy it again.'
    )
  return vocabulary


def _until_eos(ids: Iterable[int], vocabulary: Vocabulary) -> list[int]:
  """The ids before the first EOS, without padding."""
  ids = np.asarray(ids if isinstance(ids, (Sequence, np.ndarray)) else list(ids), dtype=np.int64)
  ends = np.flatnonzero(ids == vocabulary.eos_id)
  if ends.size:
    ids = ids[: ends[0]]
  return ids[(ids != vocabulary.pad_id) & (ids >= 0)].tolist()


def _lossy_characters(vocabulary: SentencePieceVocabulary) -> str:
  """Tries each candidate between two letters, where no vocabulary may move it."""
  return ''.join(
    c
    for c in _CANDIDATE_CHARACTERS
    if vocabulary.decode(vocabulary.encode(f'a{c}b')).replace(' ', '') != f'a{c}b'
  )


def _digest(data: bytes) -> str:
  return hashlib.blake2b(data, digest_size=16).hexdigest()


def _write_description(vocabulary: Vocabulary, directory: pathlib.Path) -> None:
  description = {
    'kind': vocabulary.kind,
    'fingerprint': vocabulary.fingerprint,
    'size': vocabulary.size,
  }
  _write(directory / _DESCRIPTION_FILE, (json.dumps(description, indent=2) + '\n').encode())


def _write(path: pathlib.Path, data: bytes) -> None:
  """Writes beside and renames, so that a reader never sees half a file."""
  partial = path.with_name(f'.{path.name}.{os.getpid()}')
  try:
    partial.write_bytes(data)
    os.replace(partial, path)
  finally:
    partial.unlink(missing_ok=True)
