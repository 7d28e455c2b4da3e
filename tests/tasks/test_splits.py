import pytest
from flan_jax.tasks.readers import DataError
from flan_jax.tasks.rows import Row
from flan_jax.tasks.splits import HashSplit, TailSplit
from hypothesis import given
from hypothesis import strategies as st

ROWS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)))


def rows_of(pairs):
  return [Row(str(i), {'q': q, 'a': a}, f'line {i}') for i, (q, a) in enumerate(pairs)]


@given(
  ROWS,
  st.one_of(st.builds(HashSplit, st.floats(0.01, 0.99)), st.builds(TailSplit, st.integers(1, 9))),
)
def test_every_row_is_in_exactly_one_split_and_keeps_its_order(pairs, split):
  rows = rows_of(pairs)
  train = [r.id for r in split.select(rows, 'train')]
  validation = [r.id for r in split.select(rows, 'validation')]
  assert sorted(train + validation, key=int) == [r.id for r in rows]
  assert not set(train) & set(validation)
  assert train == sorted(train, key=int) and validation == sorted(validation, key=int)


@given(ROWS)
def test_rows_of_one_key_fall_on_the_same_side(pairs):
  split = HashSplit(0.5, key='q')
  rows = rows_of(pairs)
  train = {r.fields['q'] for r in split.select(rows, 'train')}
  assert not train & {r.fields['q'] for r in split.select(rows, 'validation')}


def test_the_hash_split_keeps_back_the_share_that_was_asked():
  rows = rows_of((i, 0) for i in range(20_000))
  kept = len(list(HashSplit(0.05).select(rows, 'validation')))
  assert abs(kept - 1000) < 5 * 31  # 5 standard deviations


def test_the_tail_split_keeps_back_the_last_rows():
  assert [r.id for r in TailSplit(2).select(rows_of([(1, 1)] * 5), 'validation')] == ['3', '4']


@pytest.mark.parametrize(
  'make, error',
  [
    (lambda: HashSplit(0), r'HashSplit\(validation=0\) must be a share between 0 and 1'),
    (lambda: HashSplit(5), r'HashSplit\(validation=5\) must be'),
    (lambda: TailSplit(0), r'TailSplit\(rows=0\) must keep back at least 1 row'),
  ],
)
def test_a_split_that_cannot_be_is_refused(make, error):
  with pytest.raises(ValueError, match=error):
    make()


def test_a_key_that_is_no_field_is_an_error_with_its_place():
  with pytest.raises(DataError, match="line 0 has no field 'x', by which validation is split"):
    list(HashSplit(key='x').select(rows_of([(1, 1)]), 'train'))
