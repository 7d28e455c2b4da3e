"""The order of draws: permutations, exact rates, epochs, and fillers that favour no task."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flan_jax.data.order import MAX_WINDOWS, DrawOrder, permute, shuffled

mixtures = st.lists(st.tuples(st.floats(1e-4, 1.0), st.integers(1, 300)), min_size=1, max_size=30)


def make_order(mixture, *, seed=1, draws=500):
  rates = np.array([rate for rate, _ in mixture])
  names = [f'task{i}' for i in range(len(mixture))]
  sizes = [size for _, size in mixture]
  rates = rates / rates.sum()
  return DrawOrder(names, rates, sizes, seed=seed, draws_per_window=draws), rates


def count(draws, num_tasks):
  return np.bincount(draws.tasks, minlength=num_tasks)


@given(st.integers(1, 3000), st.integers(0, 2**64 - 1))
def test_each_key_permutes_each_range(size, key):
  got = permute(np.arange(size), np.full(size, size), np.full(size, key, np.uint64))
  assert sorted(got.tolist()) == list(range(size))


def test_elements_of_different_sizes_do_not_disturb_each_other():
  sizes = np.array([5, 1000, 1, 77])
  keys = np.array([1, 2, 3, 4], dtype=np.uint64)
  together = permute(np.array([3, 999, 0, 50]), sizes, keys)
  alone = [
    permute(np.array([p]), sizes[i : i + 1], keys[i : i + 1])[0]
    for i, p in enumerate([3, 999, 0, 50])
  ]
  assert together.tolist() == alone


@pytest.mark.parametrize('size', [2, 3, 4, 5, 7, 16, 33])
def test_every_place_is_equally_likely_over_keys(size):
  trials = 20_000
  keys = np.repeat(np.random.default_rng(0).integers(0, 2**63, trials).astype(np.uint64), size)
  placed = permute(np.tile(np.arange(size), trials), np.full(size * trials, size), keys)
  counts = np.zeros((size, size))
  np.add.at(counts, (np.tile(np.arange(size), trials), placed), 1)
  deviation = np.abs(counts - trials / size) / np.sqrt(trials / size)
  assert deviation.max() < 5


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 4)), min_size=1, max_size=5))
def test_each_epoch_draws_every_row_once_in_the_next_of_its_wordings(tasks):
  rows, epochs = (np.array(values) for values in zip(*tasks, strict=True))
  names, rates = [f'task{i}' for i in range(len(tasks))], rows / rows.sum()
  order = DrawOrder(
    names, rates, rows * epochs, seed=3, draws_per_window=int(rows.sum()), epochs=epochs
  )
  draws = order.main(0)
  for window in range(1, 11):
    draws += order.main(window)
  for task in range(len(tasks)):
    of_row, wordings = np.divmod(draws.indices[draws.tasks == task], epochs[task])
    for epoch in range(10):  # the phase of a task shifts windows by a draw
      of_epoch = slice(epoch * rows[task], (epoch + 1) * rows[task])
      assert sorted(of_row[of_epoch].tolist()) == list(range(rows[task]))
      assert set(wordings[of_epoch].tolist()) == {epoch % epochs[task]}


def test_neighbours_land_apart():
  size = 10_000
  placed = permute(np.arange(size), np.full(size, size), np.full(size, 9, np.uint64))
  assert abs(np.corrcoef(placed[:-1], placed[1:])[0, 1]) < 0.05
  assert abs(np.corrcoef(placed, np.arange(size))[0, 1]) < 0.05


@given(mixtures, st.integers(0, 10**6))
def test_each_window_holds_each_rate_to_within_one_example(mixture, window):
  order, rates = make_order(mixture)
  draws = order.main(window)
  assert np.abs(count(draws, len(mixture)) - 500 * rates).max() < 1 + 1e-6


@given(mixtures, st.integers(1, 10**9))
def test_counts_from_the_beginning_are_exact_however_far(mixture, windows):
  order, rates = make_order(mixture)
  quota = np.rint(rates * 500 * 2**32).astype(object)
  exact = quota * windows
  drawn = order.drawn_before(windows).astype(object)
  assert all(0 <= e - (d - 1) * 2**32 for e, d in zip(exact, drawn, strict=True))
  assert all(d * 2**32 - e < 2**32 for e, d in zip(exact, drawn, strict=True))


@settings(max_examples=30)
@given(mixtures)
def test_main_draws_take_every_example_once_per_epoch(mixture):
  order, _ = make_order(mixture, draws=200)
  windows = [order.main(w) for w in range(12)]
  tasks = np.concatenate([d.tasks for d in windows])
  indices = np.concatenate([d.indices for d in windows])
  for task, (_, size) in enumerate(mixture):
    drawn = indices[tasks == task]
    for start in range(0, len(drawn) - size + 1, size):
      assert sorted(drawn[start : start + size].tolist()) == list(range(size))
    rest = drawn[len(drawn) // size * size :]
    assert len(set(rest.tolist())) == len(rest)


def test_epochs_are_shuffled_differently():
  order, _ = make_order([(1.0, 50)], draws=50)
  first, second = order.main(0).indices.tolist(), order.main(1).indices.tolist()
  assert sorted(first) == sorted(second)
  assert first != second


@given(mixtures, st.integers(0, 1000), st.integers(0, 400), st.integers(0, 400))
def test_fewer_fillers_are_a_prefix_of_more(mixture, window, few, more):
  order, _ = make_order(mixture)
  few, more = sorted((few, more))
  short, long = order.fillers(window, few), order.fillers(window, more)
  assert (len(short), len(long)) == (few, more)
  assert short.tasks.tolist() == long.first(few).tasks.tolist()
  assert short.indices.tolist() == long.first(few).indices.tolist()


@given(mixtures, st.integers(0, 10**6), st.integers(1, 400))
def test_with_fillers_a_window_still_holds_each_rate(mixture, window, fill):
  # One by construction for the window's length in quotas, which fillers end up to a task's share
  # of the rounding of all tasks away from.
  order, rates = make_order(mixture)
  draws = order.main(window) + order.fillers(window, fill)
  assert (
    np.abs(count(draws, len(mixture)) - len(draws) * rates).max() < 1 + len(mixture) * rates.max()
  )


def test_fillers_keep_the_rates_in_the_long_run():
  # Quotas that are halves and whole numbers, which would resonate with a fixed phase.
  order, rates = make_order([(1, 7), (1, 9), (2, 40), (4, 50), (8, 3)], draws=8)
  totals, windows = np.zeros(5), 3000
  for window in range(0, windows * 7, 7):
    totals += count(order.fillers(window, 3), 5)
  # Ending at a number of fillers instead of a moment favours a task by up to 0.05 examples a
  # window here; five standard deviations of the mean are 0.05.
  assert np.abs(totals / windows - 3 * rates).max() < 0.1


def test_fillers_reach_every_example_about_as_often():
  order, _ = make_order([(1, 10), (1, 10)], draws=20)
  counts = np.zeros((2, 10))
  for window in range(1500):
    draws = order.fillers(window, 5)
    np.add.at(counts, (draws.tasks, draws.indices), 1)
  expected = counts.sum() / 20
  assert (np.abs(counts - expected) < 5 * np.sqrt(expected)).all()


def test_fillers_are_shuffled_apart_from_the_main_draws():
  order, _ = make_order([(1.0, 1000)], draws=100)
  assert set(order.fillers(0, 50).indices.tolist()) != set(order.main(1).indices[:50].tolist())


def test_the_seed_changes_the_order_and_nothing_else_does():
  mixture = [(1.0, 100), (2.0, 50)]
  first, again, other = (make_order(mixture, seed=s)[0].main(3) for s in (1, 1, 2))
  assert first.indices.tolist() == again.indices.tolist()
  assert first.indices.tolist() != other.indices.tolist()


def test_another_task_in_the_mixture_leaves_the_permutations_of_the_others():
  alone = DrawOrder(['x'], np.array([1.0]), [40], seed=5, draws_per_window=40)
  both = DrawOrder(['w', 'x'], np.array([0.5, 0.5]), [9, 40], seed=5, draws_per_window=80)
  draws = both.main(0)
  assert alone.main(0).indices.tolist() == draws.indices[draws.tasks == 1].tolist()


def test_the_order_is_pinned():
  """A change here changes the data of every run that resumes: raise loader.POSITION_FORMAT."""
  order, _ = make_order([(1.0, 5), (3.0, 1000)], seed=7, draws=8)
  draws = order.main(1_000_000) + order.fillers(1_000_000, 3)
  assert draws.tasks.tolist() == PINNED_TASKS
  assert draws.indices.tolist() == PINNED_INDICES
  assert shuffled(8, seed=7, window=3).tolist() == PINNED_ROWS


PINNED_TASKS = [0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 0]
PINNED_INDICES = [4, 0, 152, 604, 916, 599, 794, 482, 180, 233, 1]
PINNED_ROWS = [6, 7, 4, 0, 5, 1, 3, 2]


def test_rows_are_shuffled_by_seed_and_window():
  orders = {tuple(shuffled(100, seed=s, window=w).tolist()) for s in (1, 2) for w in (0, 1)}
  assert len(orders) == 4
  assert all(sorted(order) == list(range(100)) for order in orders)


@pytest.mark.parametrize('window', [-1, MAX_WINDOWS + 1])
def test_a_window_out_of_range_is_refused(window):
  order, _ = make_order([(1.0, 5)])
  with pytest.raises(ValueError, match=r'is outside 0 to 2,147,483,648; lower the step'):
    order.main(window)
