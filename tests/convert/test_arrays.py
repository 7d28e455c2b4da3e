"""Parts of arrays in another layout are what the whole would be, however they are cut."""

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flan_jax.convert import arrays, names

LAYOUTS = sorted(
  {
    place.layout
    for table in (
      names.HF_T5,
      names.HF_QWEN2,
      names.HF_GEMMA3,
      names.T5X,
      names.T5X_SCANNED,
      names.LLAMA2C,
      *names.GGUF.values(),
    )
    for place in table.values()
  }
)
AXES = 'nkhdfvrlcp'


def groups(side):
  return [re.findall(r'\w', group) for group in re.findall(r'\([^)]*\)|\w', side)]


def spelled_out(layout, sizes, side):
  """Each number tells the place of every axis: built by counting, not by reshaping."""
  axes = groups(layout.split('->')[side])
  out = np.zeros([math.prod(sizes[a] for a in group) for group in axes], np.float32)
  for index in np.ndindex(*out.shape):
    place = {}
    for group, i in zip(axes, index, strict=True):
      for axis in reversed(group):
        i, place[axis] = divmod(i, sizes[axis])
    out[index] = sum(place[axis] * 7 ** AXES.index(axis) for axis in place if axis not in 'h')
    if 'h' in place:  # c and p are the two parts of h
      c, p = divmod(place['h'], sizes['p'])
      out[index] += c * 7 ** AXES.index('c') + p * 7 ** AXES.index('p')
  return out


@given(st.data())
@settings(max_examples=60)
def test_a_part_is_that_part_of_the_whole(data):
  text = data.draw(st.sampled_from(LAYOUTS))
  sizes = {axis: data.draw(st.integers(1, 4), label=axis) for axis in AXES}
  sizes |= {'c': 2, 'h': 2 * sizes['p']}
  theirs, whole = spelled_out(text, sizes, 0), spelled_out(text, sizes, 1)
  index = []
  for group, length in zip(groups(text.split('->')[1]), whole.shape, strict=True):
    start = data.draw(st.integers(0, length)) if len(group) == 1 else 0
    stop = data.draw(st.integers(start, length)) if len(group) == 1 else length
    index.append(slice(start, stop))
  layout = arrays.Layout(text, sizes)
  assert layout.their_shape() == theirs.shape
  granule = data.draw(st.integers(1, 3))
  stored = arrays.Stored(theirs.shape, 'float32', theirs.__getitem__, granule)
  out = np.full(whole[tuple(index)].shape, np.nan, np.float32)
  piece = data.draw(st.sampled_from([4, 64, 4096]))
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(arrays, 'PIECE_BYTES', piece)
    layout.fill(out, stored, index)
  np.testing.assert_array_equal(out, whole[tuple(index)])
  np.testing.assert_array_equal(layout.to_theirs(whole), theirs)


def test_a_part_of_the_vocabulary_may_lie_beyond_it():
  sizes = {'v': 5, 'd': 2}
  table = np.arange(10, dtype=np.float32).reshape(5, 2)
  stored = arrays.Stored(table.shape, 'float32', table.__getitem__)
  layout = arrays.Layout('v d -> d v', sizes)
  out = np.zeros((2, 4), np.float32)
  layout.fill(out, stored, (slice(0, 2), slice(4, 8)))
  np.testing.assert_array_equal(out, [[8, 0, 0, 0], [9, 0, 0, 0]])
  out = np.zeros((2, 4), np.float32)
  layout.fill(out, stored, (slice(0, 2), slice(8, 12)))
  assert not out.any()


def test_halves_of_heads_are_not_split_over_devices():
  sizes = {'n': 2, 'p': 2, 'c': 2, 'd': 3}
  layout = arrays.Layout('(n p c) d -> d n (c p)', sizes)
  stored = arrays.Stored((8, 3), 'float32', np.zeros((8, 3)).__getitem__)
  with pytest.raises(ValueError, match='cannot be split over devices'):
    layout.fill(np.zeros((3, 2, 2)), stored, (slice(0, 3), slice(0, 2), slice(0, 2)))
