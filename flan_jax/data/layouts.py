"""Which rows the tokens of examples fill: an encoder's and a decoder's, or one row after the other.

A layout says how much of a row an example takes, which is all that packing knows of it, and turns
the examples of some rows into the features that a model reads.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from flan_jax.data import features
from flan_jax.data.cache_layout import CacheInfo
from flan_jax.data.features import Batch, RowExamples
from flan_jax.data.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class EncoderDecoder:
  """Inputs in the encoder's row, targets in the decoder's; both sides limit what fits.

  Attributes:
    limits: tokens of inputs and of targets that a row holds.
  """

  limits: tuple[int, int]

  @property
  def row_limits(self) -> tuple[int, int]:
    """What the two sides of a row hold."""
    return self.limits

  @property
  def positions(self) -> tuple[int, int]:
    """Positions of a row that inputs, and that targets, can fill."""
    return self.limits

  def row_lengths(self, lengths: np.ndarray) -> np.ndarray:
    """What examples of so many input and target tokens [n, 2] take of the two sides, [n, 2]."""
    return lengths

  def assemble(self, examples: RowExamples) -> Batch:
    """The features of these rows; see features.assemble."""
    return features.assemble(examples, limits=self.limits)

  def prompts(self, inputs: Sequence[np.ndarray], rows: int) -> Batch:
    """Inputs, one a row, as decoding.generate takes them; rows that are left over are empty."""
    tokens, segment_ids = _one_a_row(inputs, rows, self.limits[0])
    return {'encoder_input_tokens': tokens, 'encoder_segment_ids': segment_ids}


@dataclasses.dataclass(frozen=True)
class DecoderOnly:
  """Inputs and then targets in one row of a decoder without encoder.

  What an example's tokens predict is the next one, so that a row holds all but its last. The EOS
  that ends inputs in the cache is left out: nothing ends between a prompt and its answer.

  Attributes:
    limits: tokens of inputs and of targets that are kept of an example; a row holds their sum.
    bos_id: token before the inputs, or None.
    inputs_end: whether inputs end in an EOS.
  """

  limits: tuple[int, int]
  bos_id: int | None = None
  inputs_end: bool = True

  @property
  def row_limits(self) -> tuple[int, int]:
    """What a row holds; it has no other side."""
    return sum(self.limits), 1

  @property
  def positions(self) -> tuple[int, int]:
    """Positions of a row that inputs, and that targets, can fill: they share all."""
    return sum(self.limits), sum(self.limits)

  def row_lengths(self, lengths: np.ndarray) -> np.ndarray:
    """What examples of so many input and target tokens [n, 2] take of the row, and 0, [n, 2]."""
    used = lengths.sum(axis=1) - 1 - self.inputs_end + (self.bos_id is not None)
    return np.column_stack([np.maximum(used, 0), np.zeros_like(used)])

  def assemble(self, examples: RowExamples) -> Batch:
    """Lays examples out in rows.

    inputs [[7, 8, 1], [9, 1]], targets [[3, 1], [4, 5, 1]], limits (7, 6), no bos_id:
      decoder_input_tokens   [7, 8, 3, 9, 4, 5, 0, ...]   decoder_segment_ids [1, 1, 1, 2, 2, 2, 0]
      decoder_target_tokens  [8, 3, 1, 4, 5, 1, 0, ...]   decoder_positions   [0, 1, 2, 0, 1, 2, 0]
      decoder_loss_weights   [0, 1, 1, 1, 1, 1, 0, ...]   decoder_prefix      [1, 1, 0, 1, 0, 0, 0]

    Returns:
      int32 arrays [rows, length], and decoder_loss_weights in float32, which count targets only.
    """
    prompts = [self.prompt(ids) for ids in examples.inputs]
    pairs = zip(prompts, examples.targets, strict=True)
    sequences = [np.concatenate(pair) for pair in pairs]
    length = sum(self.limits)
    read = features.Side(examples.row_starts, [ids[:-1] for ids in sequences], length)
    predicted = features.Side(examples.row_starts, [ids[1:] for ids in sequences], length)
    segments, positions = read.spread(read.numbers), read.positions()
    in_prompt = np.fromiter(map(len, prompts), np.int32, len(prompts))
    of_prompt = read.spread(read.with_padding(in_prompt))
    is_token = segments > 0
    flat = {
      'decoder_input_tokens': read.tokens(),
      'decoder_target_tokens': predicted.tokens(),
      'decoder_loss_weights': (is_token & (positions >= of_prompt - 1)).astype(np.float32),
      'decoder_segment_ids': segments,
      'decoder_positions': positions,
      'decoder_prefix': (is_token & (positions < of_prompt)).astype(np.int32),
      'decoder_collection_ids': read.spread(read.with_padding(examples.collections)),
    }
    rows = len(examples.row_starts) - 1
    return {name: array.reshape(rows, length) for name, array in flat.items()}

  def prompts(self, inputs: Sequence[np.ndarray], rows: int) -> Batch:
    """Prompts, one a row, as decoding.generate takes them; rows that are left over are empty."""
    prompts = [self.prompt(ids) for ids in inputs]
    length = max(self.limits[0], self.limits[0] + (self.bos_id is not None) - self.inputs_end)
    tokens, segment_ids = _one_a_row(prompts, rows, length)
    return {'prompt_tokens': tokens, 'prompt_segment_ids': segment_ids}

  def prompt(self, inputs: np.ndarray) -> np.ndarray:
    """Inputs as the model reads them before it answers: after BOS and without their EOS."""
    kept = inputs[:-1] if self.inputs_end else inputs
    return kept if self.bos_id is None else np.concatenate([[self.bos_id], kept])


Layout = EncoderDecoder | DecoderOnly


def make_layout(
  limits: tuple[int, int], tokens: Vocabulary | CacheInfo, *, decoder_only: bool
) -> Layout:
  """The layout of a kind of model for what a vocabulary, or that of a cache, has made."""
  if not decoder_only:
    return EncoderDecoder(limits)
  inputs_end = tuple(tokens.prompt_end) == (tokens.eos_id,)
  return DecoderOnly(limits, tokens.bos_id, inputs_end)


def _one_a_row(ids: Sequence[np.ndarray], rows: int, length: int) -> tuple[np.ndarray, np.ndarray]:
  """Tokens, and 1 where there are any, both int32 [rows, length]."""
  tokens, there = np.zeros((2, rows, length), np.int32)
  for row, row_ids in enumerate(ids):
    tokens[row, : len(row_ids)] = row_ids
    there[row, : len(row_ids)] = 1
  return tokens, there


def one_row(layout: EncoderDecoder | DecoderOnly) -> Batch:
  """The features of a row, for their names, lengths and types."""
  tokens = [np.ones(2, np.int32)]
  return layout.assemble(RowExamples(tokens, tokens, np.ones(1, np.int32), np.array([0, 1])))
