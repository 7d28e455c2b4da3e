"""Turns the examples of some rows into the arrays a model trains on.

Packed and unpacked rows are alike: examples lie one after another, numbered from 1, positions
start anew in each, and padding is 0 everywhere. Which examples share a row is decided elsewhere,
and layouts.py lays them out for a decoder alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class RowExamples:
  """The examples of consecutive rows, in order.

  Attributes:
    inputs: token ids of each example, not above the rows' length, cut and ended where longer.
    targets: token ids of each example, likewise.
    collections: collection id of each example, from 1, int32 [num_examples].
    row_starts: first example of each row, int64 [rows + 1].
  """

  inputs: Sequence[np.ndarray]
  targets: Sequence[np.ndarray]
  collections: np.ndarray
  row_starts: np.ndarray


def assemble(examples: RowExamples, *, limits: tuple[int, int]) -> Batch:
  """Lays examples out in rows.

  inputs [[7, 8, 1], [9, 1]], targets [[3, 1], [4, 5, 1]] in one row of lengths (7, 6):
    encoder_input_tokens   [7, 8, 1, 9, 1, 0, 0]   decoder_target_tokens  [3, 1, 4, 5, 1, 0]
    encoder_segment_ids    [1, 1, 1, 2, 2, 0, 0]   decoder_input_tokens   [0, 3, 0, 4, 5, 0]
    encoder_positions      [0, 1, 2, 0, 1, 0, 0]   decoder_segment_ids    [1, 1, 2, 2, 2, 0]

  Args:
    examples: what to lay out.
    limits: length of inputs and of targets.

  Returns:
    int32 arrays [rows, length], and decoder_loss_weights in float32.
  """
  encoder = Side(examples.row_starts, examples.inputs, limits[0])
  decoder = Side(examples.row_starts, examples.targets, limits[1])
  inputs, targets = encoder.tokens(), decoder.tokens()
  decoder_segments = decoder.spread(decoder.numbers)
  shifted = np.zeros_like(targets)
  shifted[1:] = targets[:-1]
  shifted[decoder.starts[decoder.starts < len(shifted)]] = 0  # each example begins with BOS = pad
  flat = {
    'encoder_input_tokens': inputs,
    'encoder_segment_ids': encoder.spread(encoder.numbers),
    'encoder_positions': encoder.positions(),
    'decoder_target_tokens': targets,
    'decoder_input_tokens': shifted,
    'decoder_loss_weights': (decoder_segments > 0).astype(np.float32),
    'decoder_segment_ids': decoder_segments,
    'decoder_positions': decoder.positions(),
    'decoder_collection_ids': decoder.spread(decoder.with_padding(examples.collections)),
  }
  rows = len(examples.row_starts) - 1
  lengths = {'encoder': limits[0], 'decoder': limits[1]}
  return {
    name: array.reshape(rows, lengths[name.partition('_')[0]]) for name, array in flat.items()
  }


class Side:
  """One token a position of all rows, as one line of pieces: each row's examples, then its padding.

  Everything is one concatenation or one repetition over that line, straight into int32: at 2,048
  tokens a row, passes over memory are what a batch costs.
  """

  def __init__(self, row_starts: np.ndarray, ids: Sequence[np.ndarray], length: int):
    self._size = (len(row_starts) - 1) * length
    self._ids = ids
    self._row_ends = row_starts[1:] - row_starts[0]
    lengths = np.fromiter(map(len, ids), np.int64, len(ids))
    ends = np.concatenate([[0], np.cumsum(lengths)])
    used = np.diff(ends[row_starts - row_starts[0]])
    self.lengths = np.insert(lengths, self._row_ends, length - used)
    self.starts = np.cumsum(self.lengths) - self.lengths
    first = np.repeat(row_starts[:-1], np.diff(row_starts)) - row_starts[0]
    self.numbers = self.with_padding(np.arange(1, len(ids) + 1) - first)
    self._padding = np.zeros(length, np.uint16)
    self._count = np.arange(length, dtype=np.int32)

  def with_padding(self, values: np.ndarray) -> np.ndarray:
    """One value for each piece: those of the examples, and 0 for the padding of each row."""
    return np.insert(values.astype(np.int32), self._row_ends, 0)

  def spread(self, values: np.ndarray) -> np.ndarray:
    """Repeats the value of each piece over its tokens."""
    return np.repeat(values, self.lengths)

  def positions(self) -> np.ndarray:
    """Each token's place in its example; 0 in padding."""
    return self._join([self._count[: len(ids)] for ids in self._ids])

  def tokens(self) -> np.ndarray:
    """All tokens in line."""
    return self._join(self._ids)

  def _join(self, of_examples: Sequence[np.ndarray]) -> np.ndarray:
    """One array of each example, in line with the padding between rows, int32."""
    pieces: list[np.ndarray] = []
    begin = 0
    padding = self.lengths[self.numbers == 0].tolist()
    for end, pad in zip(self._row_ends.tolist(), padding, strict=True):
      pieces.extend(of_examples[begin:end])
      pieces.append(self._padding[:pad])
      begin = end
    return np.concatenate(pieces, out=np.empty(self._size, np.int32), casting='same_kind')


def check_lengths(lengths: Mapping[str, int]) -> tuple[int, int]:
  """Tokens of inputs and targets of a row.

  Raises:
    ValueError: a length is missing, unknown or too short for a token and EOS.
  """
  if set(lengths) != {'inputs', 'targets'}:
    raise ValueError(
      f"lengths has {', '.join(sorted(lengths)) or 'nothing'}; give exactly 'inputs' and "
      "'targets', in tokens."
    )
  for name, length in lengths.items():
    if not isinstance(length, (int, np.integer)) or length < 2:
      raise ValueError(
        f"lengths['{name}']={length!r} must be a whole number of at least 2 tokens: one and EOS."
      )
  return int(lengths['inputs']), int(lengths['targets'])
