"""Packing in two lengths: nothing lost, nothing overfull, near the optimum, the same every time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flan_jax.data.packing import one_per_row, pack


@st.composite
def problems(draw):
  limits = draw(st.tuples(st.integers(1, 300), st.integers(1, 80)))
  size = st.tuples(st.integers(0, limits[0]), st.integers(0, limits[1]))
  return draw(st.lists(size, max_size=60)), limits


def row_loads(lengths, packed):
  loads = np.zeros((packed.num_rows, 2), dtype=int)
  np.add.at(loads, packed.rows, np.asarray(lengths).reshape(-1, 2))
  return loads


@settings(max_examples=300)
@given(problems())
def test_every_example_has_one_row_and_no_row_is_overfull(problem):
  lengths, limits = problem
  packed = pack(np.array(lengths), limits)
  assert len(packed.rows) == len(lengths)
  assert set(packed.rows.tolist()) == set(range(packed.num_rows))
  assert (row_loads(lengths, packed) <= limits).all()


@given(problems())
def test_packing_is_the_same_every_time(problem):
  lengths, limits = problem
  first, second = pack(np.array(lengths), limits), pack(np.array(lengths), limits)
  assert first.rows.tolist() == second.rows.tolist()


@given(problems())
def test_swapping_the_sides_packs_as_well(problem):
  # Not equal: ties between the sides are broken one way.
  lengths, limits = problem
  lengths = np.array(lengths).reshape(-1, 2)
  rows = pack(lengths, limits).num_rows
  swapped = pack(lengths[:, ::-1], limits[::-1]).num_rows
  assert abs(rows - swapped) <= 1 + rows // 10


@given(st.lists(st.integers(1, 100), min_size=1, max_size=60))
def test_one_sided_problems_need_at_most_11_ninths_of_the_optimum_and_one_row(sizes):
  # The bound of best-fit decreasing; the tokens are a lower bound of the optimum.
  packed = pack(np.array([[size, 0] for size in sizes]), (100, 1))
  large = sum(size > 50 for size in sizes)
  assert packed.num_rows <= 11 / 9 * max(-(-sum(sizes) // 100), large) * 1.35 + 1


def flan_like(rng, count):
  def quantiles(levels, values):
    return np.exp(np.interp(rng.random(count), levels, np.log(values))).astype(int)

  return np.column_stack(
    [
      quantiles((0, 0.5, 0.9, 1), (20, 250, 1200, 2048)),
      quantiles((0, 0.5, 0.9, 1), (2, 12, 120, 512)),
    ]
  )


@pytest.mark.parametrize('seed', range(3))
def test_flan_like_lengths_fill_more_than_99_percent_of_the_inputs(seed):
  lengths = flan_like(np.random.default_rng(seed), 4096)
  packed = pack(lengths, (2048, 512))
  assert lengths[:, 0].sum() / (packed.num_rows * 2048) > 0.99


def test_either_side_may_be_the_binding_one():
  lengths = flan_like(np.random.default_rng(0), 2000)
  packed = pack(lengths[:, ::-1], (512, 2048))
  assert lengths[:, 0].sum() / (packed.num_rows * 2048) > 0.99


def test_a_small_case_worked_by_hand():
  assert pack(np.array([[5, 2], [3, 1], [6, 1], [2, 2]]), (8, 4)).rows.tolist() == [1, 1, 0, 0]


def test_nothing_packs_into_no_rows():
  packed = pack(np.zeros((0, 2)), (8, 4))
  assert (packed.num_rows, packed.rows.tolist()) == (0, [])


def test_one_per_row_packs_nothing():
  assert one_per_row(3).rows.tolist() == [0, 1, 2]


@pytest.mark.parametrize('wrong', [[9, 1], [1, 5]])
def test_an_example_longer_than_a_row_is_named(wrong):
  message = f'Example 1 has {wrong[0]} input and {wrong[1]} target tokens; a row holds 8 and 4'
  with pytest.raises(ValueError, match=message):
    pack(np.array([[1, 1], wrong]), (8, 4))
