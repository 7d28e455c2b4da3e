"""Arrays of other programs' files: read in parts, and laid out as our parameters are.

What a layout string says is in names.py. Nothing here knows a file format or a device.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from flan_jax.models.config import TransformerConfig

# float32 bytes that are read at once, so that the copy in their layout stays small beside ours.
PIECE_BYTES = 8 << 20


@dataclasses.dataclass(frozen=True)
class Stored:
  """An array in a file.

  Attributes:
    shape: in the file.
    dtype: NumPy's name of its numbers, such as 'bfloat16'.
    read: takes a slice of every axis and returns that part.
    granule: rows of the first axis that are read together anyway, as a compressed chunk is.
  """

  shape: tuple[int, ...]
  dtype: str
  read: Callable[[tuple[slice, ...]], np.ndarray]
  granule: int = 1


class Layout:
  """Two arrangements of the same axes, written 'theirs -> ours': '(n h) d -> d n h'."""

  def __init__(self, text: str, sizes: Mapping[str, int]):
    theirs, ours = text.split('->')
    self.theirs, self.ours = _groups(theirs), _groups(ours)
    self.sizes = sizes

  def their_shape(self) -> tuple[int, ...]:
    """The shape of their array."""
    return self._shape(self.theirs)

  def our_shape(self) -> tuple[int, ...]:
    """The shape of ours, without what pads it."""
    return self._shape(self.ours)

  def fill(self, out: np.ndarray, stored: Stored, index: Sequence[slice]) -> None:
    """Writes the part `index` of our array to `out`, where `out` has its shape or is longer."""
    bounds = self._bounds(index)
    flat = [axis for group in self.ours for axis in group]
    extents = {axis: stop - start for axis, (start, stop) in bounds.items()}
    used = tuple(slice(math.prod(extents[axis] for axis in group)) for group in self.ours)
    view = out[used].reshape([extents[axis] for axis in flat], copy=False)
    leading = self.theirs[0][0]
    for start, stop in self._pieces(bounds, stored.granule):
      block = self._read(stored, bounds | {leading: (start, stop)})
      first = bounds[leading][0]
      piece = [slice(None)] * len(flat)
      piece[flat.index(leading)] = slice(start - first, stop - first)
      view[tuple(piece)] = block

  def to_theirs(self, array: np.ndarray) -> np.ndarray:
    """Our whole array, laid out as theirs."""
    ours = [axis for group in self.ours for axis in group]
    theirs = [axis for group in self.theirs for axis in group]
    flat = array.reshape([self.sizes[axis] for axis in ours])
    flat = flat.transpose([ours.index(axis) for axis in theirs])
    return np.ascontiguousarray(flat.reshape(self.their_shape()))

  def _shape(self, groups):
    return tuple(math.prod(self.sizes[axis] for axis in group) for group in groups)

  def _bounds(self, index) -> dict[str, tuple[int, int]]:
    """First and last + 1 of every axis; what pads ours beyond theirs is left out."""
    bounds = {}
    for group, size, part in zip(self.ours, self.our_shape(), index, strict=True):
      start, stop, _ = part.indices(size)
      if len(group) > 1 and (start, stop) != (0, size):
        raise ValueError(f'An axis made of {group} cannot be split over devices.')
      for axis in group:
        bounds[axis] = (start, max(start, stop)) if len(group) == 1 else (0, self.sizes[axis])
    return bounds

  def _pieces(self, bounds, granule: int) -> Iterator[tuple[int, int]]:
    """Cuts the first of their axes so that one piece is about PIECE_BYTES."""
    leading, *inner = self.theirs[0]
    row_bytes = 4 * math.prod(b - a for axis, (a, b) in bounds.items() if axis != leading)
    granule = -(-granule // math.prod(self.sizes[axis] for axis in inner))
    rows = max(1, PIECE_BYTES // max(1, row_bytes) // granule) * granule
    start, stop = bounds[leading]
    for first in range(start, stop, rows):
      yield first, min(first + rows, stop)

  def _read(self, stored, bounds) -> np.ndarray:
    """Their block within the bounds, its axes in our order."""
    index, shape, inside, theirs = [], [], [], []
    for group in self.theirs:
      leading, *inner = group
      width = math.prod(self.sizes[axis] for axis in inner)
      start, stop = bounds[leading]
      index.append(slice(start * width, stop * width))
      shape += [stop - start, *(self.sizes[axis] for axis in inner)]
      inside += [slice(None), *(slice(*bounds[axis]) for axis in inner)]
      theirs += group
    block = stored.read(tuple(index)).reshape(shape)[tuple(inside)]
    return block.transpose([theirs.index(axis) for group in self.ours for axis in group])


def sizes(config: TransformerConfig, path: str) -> dict[str, int]:
  """How long the axes of layouts are for the parameter `path`."""
  return {
    'n': config.num_heads,
    'k': config.kv_heads,
    'h': config.head_dim,
    'c': 2,
    'p': config.head_dim // 2,
    'd': config.embed_dim,
    'f': config.mlp_dim,
    'v': config.vocab_size,
    'r': config.relative_bias_buckets,
    'l': num_layers(config, path),
  }


def num_layers(config: TransformerConfig, path: str) -> int:
  """Layers of the stack that the parameter `path` belongs to."""
  return config.num_encoder_layers if path.startswith('encoder.') else config.num_decoder_layers


def _groups(text: str) -> list[list[str]]:
  return [re.findall(r'\w', group) for group in re.findall(r'\([^)]*\)|\w', text)]
