"""What every vocabulary does beside turning text into ids and back: prompts, answers, saving.

The kinds are in vocabularies.py (bytes), sentencepiece_vocabulary.py and
huggingface_vocabulary.py; how a chat template lays out a conversation is chat.py's.
"""

from __future__ import annotations

import abc
import copy
import hashlib
import json
import os
import pathlib
import re
import string
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from flan_jax import whole_file

if TYPE_CHECKING:
  from flan_jax.data.chat import ChatFormat

DESCRIPTION_FILE = 'vocabulary.json'
# Hugging Face's names for them.
TEMPLATE_FILE = 'chat_template.jinja'
GENERATION_FILE = 'generation_config.json'

# What instruction data contains and vocabularies made from web text often lack.
_CANDIDATE_CHARACTERS = '\n\t' + string.punctuation


class Vocabulary(abc.ABC):
  """Text to ids and back, with a fingerprint that ties ids to their maker.

  Attributes:
    kind: 'bytes', 'sentencepiece' or 'huggingface'.
    size: number of ids, before the model pads it.
    extra_ids: ids above these that text never becomes: sentinels of objectives.
    pad_id: id of padding, 0 in every vocabulary used with T5.
    bos_id: id that a decoder-only model reads before the inputs; None where there is none. T5's
      decoder begins with padding instead.
    eos_id: id that ends targets, 1 with T5; with a chat template, what ends an answer.
    end_ids: ids that end an answer by the configuration that came with the model, if one did.
    fingerprint: hexadecimal digest; equal fingerprints give equal ids.
    special_tokens: text -> id of the tokens that only a chat template may write: `encode` reads
      their text as any other.
    template_variables: what chat templates may use: 'bos_token' -> '<s>'.
    model_chat_template: source of the chat template that the model came with, or None; only in use
      once `with_chat_template` has been given it.
    chat: how prompts and answers become a conversation; None without a chat template.
  """

  kind: str
  size: int
  extra_ids: int = 0
  pad_id: int
  bos_id: int | None
  eos_id: int
  end_ids: tuple[int, ...] = ()
  fingerprint: str
  special_tokens: Mapping[str, int]
  template_variables: Mapping[str, str]
  model_chat_template: str | None = None
  chat: ChatFormat | None = None

  @abc.abstractmethod
  def encode(self, text: str) -> list[int]:
    """'a cat' -> [3, 9, 1712]; neither BOS nor EOS, and no special tokens."""

  @abc.abstractmethod
  def files(self) -> dict[str, bytes]:
    """What `save` writes of this kind: name -> contents."""

  @abc.abstractmethod
  def _text(self, ids: list[int], *, special: bool) -> str:
    """Text of ids; `special` shows special tokens if they have a text of their own."""

  def encode_special(self, text: str) -> list[int]:
    """Reads what a chat template has written, special tokens as such."""
    texts = sorted(self.special_tokens, key=len, reverse=True)
    ids: list[int] = []
    for part in re.split(f'({"|".join(map(re.escape, texts)) or "(?!)"})', text):
      if part in self.special_tokens:
        ids.append(self.special_tokens[part])
      elif part:
        ids.extend(self.encode(part))
    return ids

  @property
  def eos_ids(self) -> tuple[int, ...]:
    """Ids that end what a model writes: `eos_id`, that without a chat template, and `end_ids`."""
    plain = self.chat.vocabulary if self.chat else self
    return tuple(dict.fromkeys((self.eos_id, plain.eos_id, *self.end_ids)))

  def decode(self, ids: Iterable[int]) -> str:
    """[3, 9, 1712, 1, 0, 0] -> 'a cat': padding is skipped and text ends at the first EOS."""
    ids = _array(ids)
    ends = np.flatnonzero(np.isin(ids, self.eos_ids))
    ids = ids[: ends[0]] if ends.size else ids
    return self._text(ids[(ids != self.pad_id) & (ids >= 0)].tolist(), special=False)

  def decode_prompt(self, ids: Iterable[int]) -> str:
    """The whole of a prompt: a chat template's special tokens are shown and end nothing."""
    return self._text(_array(ids).tolist(), special=self.chat is not None)

  def encode_prompt(self, text: str) -> list[int]:
    """Ids that the model reads before it answers, without BOS.

    Without a chat template these are the ids of the text and EOS.
    """
    return self.chat.prompt(text) if self.chat else [*self.encode(text), self.eos_id]

  def encode_example(self, inputs: str, targets: str) -> tuple[list[int], list[int]]:
    """Ids of a prompt and of its answer, the latter ending in EOS.

    Raises:
      ValueError: the chat template cannot lay the two out.
    """
    if self.chat:
      return self.chat.example(inputs, targets)
    return [*self.encode(inputs), self.eos_id], [*self.encode(targets), self.eos_id]

  @property
  def prompt_end(self) -> tuple[int, ...]:
    """Ids that every prompt ends with, to be kept when one is cut."""
    return self.chat.prompt_end if self.chat else (self.eos_id,)

  def cut_prompt(self, ids: Sequence[int] | np.ndarray, length: int) -> np.ndarray:
    """Returns a prompt unchanged if it fits, else what fits before its end, int32 [<= length].

    [5, 6, 7, 8, 1] in 3 tokens -> [5, 6, 1].
    """
    ids, end = np.asarray(ids, np.int32), np.asarray(self.prompt_end, np.int32)
    if len(ids) <= length:
      return ids
    end = end[max(0, len(end) - length) :]
    return np.concatenate([ids[: length - len(end)], end])

  @property
  def lossy_characters(self) -> str:
    """Characters that do not survive encode and decode; T5's loses the newline and braces."""
    # Between two letters, where no vocabulary may move it.
    return ''.join(
      c
      for c in _CANDIDATE_CHARACTERS
      if self.decode(self.encode(f'a{c}b')).replace(' ', '') != f'a{c}b'
    )

  def with_chat_template(self, source: str | None) -> Vocabulary:
    """Returns this vocabulary with a chat template instead of what it has; None takes it away.

    Raises:
      ChatTemplateError: it is no template, or a model could not be trained with it.
    """
    plain = self.chat.vocabulary if self.chat else self
    if source is None:
      return plain
    # Jinja takes long to import, and training without a template never needs it.
    from flan_jax.data.chat import ChatFormat

    made = copy.copy(plain)
    made.chat = ChatFormat(plain, source)
    made.bos_id, made.eos_id = made.chat.bos_id, made.chat.eos_id
    made.fingerprint = digest(plain.fingerprint.encode(), source.encode())
    return made

  def save(self, directory: str | os.PathLike[str]) -> None:
    """Writes the vocabulary to `directory`, made if missing, for `load_vocabulary`."""
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    files = self.files()
    if self.chat:
      files[TEMPLATE_FILE] = self.chat.template.source.encode()
    else:
      (directory / TEMPLATE_FILE).unlink(missing_ok=True)
    if self.end_ids:
      files[GENERATION_FILE] = json.dumps({'eos_token_id': self.end_ids}).encode()
    else:
      (directory / GENERATION_FILE).unlink(missing_ok=True)
    description = {'kind': self.kind, 'fingerprint': self.fingerprint, 'size': self.size}
    files[DESCRIPTION_FILE] = (json.dumps(description, indent=2) + '\n').encode()
    for name, data in files.items():
      whole_file.write(directory / name, data)


def digest(*parts: bytes) -> str:
  """BLAKE2b of some contents, hexadecimal."""
  made = hashlib.blake2b(digest_size=16)
  for part in parts:
    made.update(part)
  return made.hexdigest()


def _array(ids: Iterable[int]) -> np.ndarray:
  return np.asarray(ids if isinstance(ids, (Sequence, np.ndarray)) else list(ids), np.int64)
