"""Vocabularies of SentencePiece models (T5, mT5, Llama 2, ...), and llama2.c's as one of them."""

from __future__ import annotations

import importlib
import struct
from typing import Any

import sentencepiece

from flan_jax.data.vocabulary import Vocabulary, digest

MODEL_FILE = 'sentencepiece.model'
_VARIABLES = ('bos', 'eos', 'unk', 'pad')
# llama2.c's ids: what it writes of unknown, BOS and EOS, then the 256 bytes, then pieces.
_LLAMA2C_SPECIAL = ('<unk>', '<s>', '</s>')
_LLAMA2C_PIECES = len(_LLAMA2C_SPECIAL) + 256


class SentencePieceVocabulary(Vocabulary):
  """Ids of a SentencePiece model; ids above its pieces (sentinels, padding) read as unknown.

  Control pieces such as '</s>' are never read from text. Pieces that a model's maker defined as
  symbols are: that is what they are for.
  """

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
        "SentencePiece's trainer writes, a Hugging Face tokenizer.json, or 'bytes'."
      ) from e
    ids = {name: getattr(self._processor, f'{name}_id')() for name in _VARIABLES}
    if ids['eos'] < 0:
      raise ValueError(
        f'The SentencePiece model {source} has no end-of-sequence piece, so answers could not '
        'end; train it with eos_id >= 0.'
      )
    self.size = self._processor.GetPieceSize()
    self.eos_id = ids['eos']
    self.bos_id = ids['bos'] if ids['bos'] >= 0 else None
    # T5's models have no BOS, and SeqIO's 100 extra_ids above their pieces; others end there.
    self.extra_ids = 100 if self.bos_id is None else 0
    # Models without a padding piece (Llama's) pad with id 0, which the loss never counts.
    self.pad_id = max(ids['pad'], 0)
    self.fingerprint = digest(model)
    self.template_variables = {
      f'{name}_token': self._processor.IdToPiece(i) for name, i in ids.items() if i >= 0
    }
    self.special_tokens = {
      self._processor.IdToPiece(i): i for i in range(self.size) if self._processor.IsControl(i)
    }

  def encode(self, text: str) -> list[int]:
    return self._processor.EncodeAsIds(text)

  def files(self) -> dict[str, bytes]:
    return {MODEL_FILE: self._model}

  def _text(self, ids: list[int], *, special: bool) -> str:
    del special  # control pieces have no text
    unknown = self._processor.unk_id()
    return self._processor.DecodeIds([i if i < self.size else unknown for i in ids])


def llama2c_model(data: bytes, *, source: str) -> bytes:
  """Writes the vocabulary of llama2.c as the SentencePiece model that it was made from.

  llama2.c merges, of all neighbours that make a piece, those with the best score, the leftmost
  first; SentencePiece's BPE does the same (but it reads '▁' as a blank). Models of llama2.c end a
  text with BOS, so that is EOS here.

  Args:
    data: int32 length of the longest piece, then of each piece a float32 score, an int32 length
      and its bytes (llama2.c, tokenizer.py `export` and run.c `build_tokenizer`).
    source: where it comes from, for error messages.

  Raises:
    ValueError: the bytes are something else, or end too early.
  """
  messages: Any = importlib.import_module('sentencepiece.sentencepiece_model_pb2')
  pieces = _llama2c_pieces(data, source)
  made = messages.ModelProto()
  kinds = made.SentencePiece
  for i, (text, score) in enumerate(pieces):
    if i < len(_LLAMA2C_SPECIAL):
      text, kind = _LLAMA2C_SPECIAL[i], kinds.CONTROL if i else kinds.UNKNOWN
    else:
      text, kind = text.replace(' ', '▁'), kinds.BYTE if i < _LLAMA2C_PIECES else kinds.NORMAL
    made.pieces.add(piece=text, score=score, type=kind)
  spec = made.trainer_spec
  spec.model_type, spec.byte_fallback, spec.vocab_size = spec.BPE, True, len(pieces)
  spec.unk_id, spec.bos_id, spec.eos_id, spec.pad_id = 0, 1, 1, -1
  spec.eos_piece = _LLAMA2C_SPECIAL[1]
  made.normalizer_spec.name = 'identity'
  made.normalizer_spec.remove_extra_whitespaces = False
  return made.SerializeToString(deterministic=True)


def _llama2c_pieces(data: bytes, source: str) -> list[tuple[str, float]]:
  pieces, place = [], 4
  try:
    (longest,) = struct.unpack_from('<i', data)
    while place < len(data):
      score, length = struct.unpack_from('<fi', data, place)
      place += 8 + length
      if not 0 <= length <= longest or place > len(data):
        raise ValueError(f'piece {len(pieces)} has {length} bytes')
      pieces.append((data[place - length : place].decode('utf-8'), score))
    if len(pieces) <= _LLAMA2C_PIECES or pieces[3][0] != '<0x00>':
      raise ValueError(f'it has {len(pieces)} pieces and no bytes among them')
  except (struct.error, ValueError) as e:
    raise ValueError(
      f'{source} ({len(data):,} bytes) is not a vocabulary of llama2.c: {e}; give the .bin file '
      "that llama2.c's tokenizer.py writes."
    ) from e
  return pieces
