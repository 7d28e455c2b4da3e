"""The loader: one batch per (seed, mixture, step), whoever asks; every token where it belongs."""

import pathlib
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flan_jax.data import cache, vocabularies
from flan_jax.data.loader import Loader
from flan_jax.data.mixture import ExamplesProportional, Mixture, resolve, save_mixture

LENGTHS = {'inputs': 64, 'targets': 24}
SIZES = {'a': 3, 'b': 40, 'c': 300, 'd': 900, 'e': 1500}


def write_task(cache_dir, task, examples, collection):
  with cache.TaskCacheWriter(cache_dir, task, 'train') as writer:
    for number, (inputs, targets) in enumerate(examples):
      writer.add(inputs, targets, {'id': str(number)})
    writer.finish({'collection': collection, 'cot': False})


@pytest.fixture(scope='module')
def cache_dir(tmp_path_factory):
  cache_dir = tmp_path_factory.mktemp('loader') / 'cache'
  cache.initialize_cache(cache_dir, vocabularies.get_vocabulary('bytes'))
  rng = np.random.default_rng(0)
  for number, (task, size) in enumerate(SIZES.items()):
    examples = []
    for _ in range(size):
      inputs, targets = rng.integers(0, 20 + 20 * number), rng.integers(1, 8 + 6 * number)
      examples.append(([*rng.integers(3, 259, inputs), 1], [*rng.integers(3, 259, targets), 1]))
    write_task(cache_dir, task, examples, 'odd' if number % 2 else 'even')
  rule = ExamplesProportional(maximum=600)
  save_mixture(cache_dir, Mixture.of('all', dict.fromkeys(SIZES, rule)))
  return cache_dir


@pytest.fixture(scope='module')
def loader(cache_dir):
  return Loader(cache_dir, 'all', lengths=LENGTHS, batch_rows=16, seed=3)


def equal(first, second):
  assert first.keys() == second.keys()
  return all(np.array_equal(first[name], second[name]) for name in first)


def segments(batch, side, row):
  """The token lists of a row's examples, in order, from the arrays alone."""
  ids = batch[f'{side}_segment_ids'][row]
  tokens = batch['encoder_input_tokens' if side == 'encoder' else 'decoder_target_tokens'][row]
  return [tokens[ids == number].tolist() for number in range(1, ids.max() + 1)]


def cut(tokens, limit):
  tokens = tokens.tolist()
  return tokens if len(tokens) <= limit else [*tokens[: limit - 1], 1]


def planned_examples(loader, step):
  """For each row of a step, the (task, index) of its examples."""
  plan = loader.window(step // loader.steps_per_window)
  first = step % loader.steps_per_window * loader.batch_rows
  rows = []
  for row in range(first, first + loader.batch_rows):
    chosen = slice(plan.row_starts[row], plan.row_starts[row + 1])
    names = [loader.mixture.tasks[t] for t in plan.draws.tasks[chosen]]
    rows.append(list(zip(names, plan.draws.indices[chosen].tolist(), strict=True)))
  return rows


@pytest.mark.parametrize('pack', [True, False])
@pytest.mark.parametrize('step', [0, 7, 123_456])
def test_rows_hold_each_example_exactly(cache_dir, pack, step):
  loader = Loader(cache_dir, 'all', lengths=LENGTHS, batch_rows=16, seed=3, pack=pack)
  batch = loader.batch(step)
  opened = {t: cache.TaskCache.open(cache_dir, t, 'train') for t in SIZES}
  for row, examples in enumerate(planned_examples(loader, step)):
    stored = [opened[task].example(index) for task, index in examples]
    assert segments(batch, 'encoder', row) == [cut(x, LENGTHS['inputs']) for x, _ in stored]
    assert segments(batch, 'decoder', row) == [cut(y, LENGTHS['targets']) for _, y in stored]
    collections = [opened[task].manifest['collection'] for task, _ in examples]
    ids = batch['decoder_collection_ids'][row]
    for number, collection in enumerate(collections, start=1):
      of_example = ids[batch['decoder_segment_ids'][row] == number]
      assert set(of_example.tolist()) == {loader.collections.index(collection) + 1}
  if not pack:
    assert batch['encoder_segment_ids'].max() == 1


@given(step=st.integers(0, 10**6))
@settings(max_examples=10)
def test_positions_shifts_weights_and_padding_follow_the_segments(loader, step):
  batch = loader.batch(step)
  for side in ('encoder', 'decoder'):
    ids, positions = batch[f'{side}_segment_ids'], batch[f'{side}_positions']
    starts = np.diff(ids, axis=1, prepend=0) != 0
    assert (np.diff(ids, axis=1)[ids[:, 1:] > 0] >= 0).all()  # contiguous, in order
    real = ids > 0
    assert (positions[starts] == 0).all()
    after = real & ~starts
    assert (positions[:, 1:][after[:, 1:]] == positions[:, :-1][after[:, 1:]] + 1).all()
    assert (positions[~real] == 0).all()
  targets, inputs = batch['decoder_target_tokens'], batch['decoder_input_tokens']
  after = real & ~starts
  assert (inputs[:, 1:][after[:, 1:]] == targets[:, :-1][after[:, 1:]]).all()
  assert (inputs[starts] == 0).all()
  assert (inputs[~real] == 0).all()
  assert np.array_equal(batch['decoder_loss_weights'], real.astype(np.float32))
  assert np.array_equal(batch['decoder_collection_ids'] > 0, real)
  assert (targets[~real] == 0).all()
  assert (targets[real] > 0).all()
  assert (batch['encoder_input_tokens'][batch['encoder_segment_ids'] == 0] == 0).all()


def test_a_batch_has_the_agreed_features_and_types(loader):
  batch = loader.batch(0)
  assert sorted(batch) == [
    'decoder_collection_ids',
    'decoder_input_tokens',
    'decoder_loss_weights',
    'decoder_positions',
    'decoder_segment_ids',
    'decoder_target_tokens',
    'encoder_input_tokens',
    'encoder_positions',
    'encoder_segment_ids',
  ]
  for name, array in batch.items():
    assert array.shape == (16, 64 if name.startswith('encoder') else 24)
    assert array.dtype == (np.float32 if name == 'decoder_loss_weights' else np.int32)


@pytest.mark.parametrize('hosts', [1, 2, 4, 8])
@pytest.mark.parametrize('step', [0, 5, 1_000_000])
def test_any_number_of_hosts_assembles_the_same_batch(cache_dir, loader, hosts, step):
  rows = 16 // hosts
  parts = [
    Loader(cache_dir, 'all', lengths=LENGTHS, batch_rows=16, seed=3).batch(
      step, slice(host * rows, (host + 1) * rows)
    )
    for host in range(hosts)
  ]
  whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
  assert equal(whole, loader.batch(step))


def test_seeking_equals_iterating(cache_dir, loader):
  steps = 2 * loader.steps_per_window + 3
  iterated = [loader.batch(step) for step in range(steps)]
  fresh = Loader(cache_dir, 'all', lengths=LENGTHS, batch_rows=16, seed=3)
  for step in reversed(range(0, steps, 7)):
    assert equal(fresh.batch(step), iterated[step])


def test_the_seed_changes_the_order(cache_dir, loader):
  other = Loader(cache_dir, 'all', lengths=LENGTHS, batch_rows=16, seed=4)
  assert not equal(other.batch(0), loader.batch(0))


def test_step_one_million_is_a_moment_away(cache_dir):
  fresh = Loader(cache_dir, 'all', lengths=LENGTHS, batch_rows=16, seed=3)
  began = time.process_time()
  fresh.batch(1_000_000)
  assert time.process_time() - began < 1.0  # 0.02 s on a quiet machine


def test_every_example_comes_once_per_epoch_over_main_draws(loader):
  drawn = {task: [] for task in SIZES}
  for number in range(6):
    plan = loader.window(number)
    assert plan.counts.overflow == 0
    window = {task: [] for task in SIZES}
    main = ~plan.is_filler
    for task, index in zip(plan.draws.tasks[main], plan.draws.indices[main], strict=True):
      window[loader.mixture.tasks[task]].append(int(index))
    for task, indices in window.items():
      drawn[task].append(indices)
  for task, size in SIZES.items():
    counts = np.bincount(np.concatenate(drawn[task]), minlength=size)
    assert counts.max() - counts.min() <= 1


def test_rates_are_kept_in_every_window(loader):
  for number in (0, 1, 2, 1000, 10**6):
    plan = loader.window(number)
    main = plan.draws.tasks[~plan.is_filler]
    quota = loader.window_size.draws * loader.mixture.rates
    assert np.abs(np.bincount(main, minlength=5) - quota).max() < 1
    counts = np.bincount(plan.draws.tasks, minlength=5)
    assert np.abs(counts - loader.mixture.rates * len(plan.draws)).max() < 2.5


def test_no_example_is_favoured_for_its_length(loader):
  # Fillers are shorter than main draws if short ones fit more easily into what is left.
  lengths = {True: [], False: []}
  for number in range(60):
    plan = loader.window(number)
    for is_filler in (True, False):
      lengths[is_filler].append(plan.lengths[plan.is_filler == is_filler, 0])
  filler, main = (np.concatenate(lengths[kind]) for kind in (True, False))
  assert len(filler) > 1000
  assert abs(filler.mean() - main.mean()) < 4 * main.std() / np.sqrt(len(filler))


def test_what_is_cut_is_counted_and_ends_in_eos(cache_dir, loader):
  opened = [cache.TaskCache.open(cache_dir, t, 'train') for t in loader.mixture.tasks]
  plan = loader.window(0)
  stored = [opened[t].example(i) for t, i in zip(plan.draws.tasks, plan.draws.indices, strict=True)]
  assert plan.counts.truncated_inputs == sum(len(x) > 64 for x, _ in stored) > 0
  assert plan.counts.truncated_targets == sum(len(y) > 24 for _, y in stored) > 0
  assert plan.counts.input_tokens == sum(min(len(x), 64) for x, _ in stored)
  assert plan.counts.target_tokens == sum(min(len(y), 24) for _, y in stored)
  assert plan.counts.main + plan.counts.filler == len(plan.draws)


def test_targets_that_are_only_eos_are_counted_as_lost(tmp_path):
  cache.initialize_cache(tmp_path, vocabularies.get_vocabulary('bytes'))
  write_task(tmp_path, 'x', [([5, 1], [1]), ([6, 1], [7, 1])], 'x')
  plan = Loader(tmp_path, 'x', lengths=LENGTHS, batch_rows=4, seed=0).window(0)
  assert plan.counts.lost_targets == pytest.approx(len(plan.draws) / 2, abs=40)


def test_draws_that_find_no_row_are_counted(cache_dir):
  # A window too small for its draws, as lengths that changed after the trial would make it.
  from flan_jax.data.sources import TaskSources
  from flan_jax.data.window import WindowPlanner, WindowSize

  small = Loader(cache_dir, 'all', lengths=LENGTHS, batch_rows=16, seed=3)
  sources = TaskSources(cache_dir, small.mixture, cache.read_cache_info(cache_dir))
  size = WindowSize(rows=64, draws=4000, fill=1.0)
  planner = WindowPlanner(
    small._make_order(4000), size, sources.read_bounds, layout=small.layout, seed=0, pack=True
  )
  counts = planner.plan(0).counts
  assert counts.overflow > 1000
  assert counts.filler == 0
  assert counts.main + counts.overflow == len(small._make_order(4000).main(0))


@settings(max_examples=15)
@given(
  sizes=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 30)), min_size=1, max_size=30),
  batch_rows=st.sampled_from([1, 3, 8, 100]),
  pack=st.booleans(),
)
def test_windows_of_any_cache_are_full_and_none_overflow(tmp_path_factory, sizes, batch_rows, pack):
  cache_dir = tmp_path_factory.mktemp('any')
  cache.initialize_cache(cache_dir, vocabularies.get_vocabulary('bytes'))
  write_task(cache_dir, 'x', [([5] * a + [1], [6] * b + [1]) for a, b in sizes], 'x')
  loader = Loader(
    cache_dir, 'x', lengths={'inputs': 32, 'targets': 16}, batch_rows=batch_rows, seed=0, pack=pack
  )
  plan = loader.window(5)
  used = np.diff(plan.row_starts) > 0
  assert plan.counts.overflow == 0
  assert used.mean() > 0.99
  assert loader.window_size.rows % batch_rows == 0
  assert loader.batch(11)['decoder_loss_weights'].sum() > 0


def test_statistics_add_up_the_windows(loader):
  statistics = loader.statistics(3)
  plans = [loader.window(number) for number in range(3)]
  drawn = sum(len(plan.draws) for plan in plans)
  assert statistics.main + statistics.filler == drawn
  assert sum(task.drawn for task in statistics.tasks) == drawn
  assert sum(task.realised_rate for task in statistics.tasks) == pytest.approx(1)
  for task in statistics.tasks:
    assert task.realised_rate == pytest.approx(task.asked_rate, abs=3 * 2.5 / drawn)
    assert task.collection in ('odd', 'even')
    assert task.num_examples == SIZES[task.task]
  tokens = sum(plan.counts.input_tokens for plan in plans)
  assert sum(task.input_tokens for task in statistics.tasks) == tokens
  assert statistics.input_fill == tokens / (3 * loader.window_size.rows * 64)
  batches = [loader.batch(step) for step in range(statistics.steps)]
  for side, fill in (('encoder', statistics.input_fill), ('decoder', statistics.target_fill)):
    assert np.mean([(b[f'{side}_segment_ids'] > 0).mean() for b in batches]) == pytest.approx(fill)
  assert statistics.truncated_inputs == sum(plan.counts.truncated_inputs for plan in plans)
  assert sum(t.truncated_targets for t in statistics.tasks) == statistics.truncated_targets
  assert statistics.to_json()['examples_per_step'] == drawn / statistics.steps
  assert statistics.largest_rate_error < 2.5


def test_a_mixture_may_be_resolved_with_other_rates(cache_dir):
  resolved = resolve('all', cache_dir, rates={'a': 1.0, 'b': 1.0, 'c': 0.0, 'd': 0.0, 'e': 0.0})
  loader = Loader(cache_dir, resolved, lengths=LENGTHS, batch_rows=8, seed=0)
  assert loader.mixture.tasks == ('a', 'b')
  assert set(loader.window(0).draws.tasks.tolist()) == {0, 1}


def test_a_position_is_checked_and_gives_back_its_step(loader):
  position = loader.position(41)
  assert all(isinstance(value, (int, str)) for value in position.values())
  assert loader.check_position(position) == 41


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'seed': 4}, r'seed was 3 and is 4 \(set the seed back\)'),
    ({'batch_rows': 8}, r'batch_rows was 16 and is 8 \(set the rows per step back\)'),
    ({'lengths': {'inputs': 64, 'targets': 32}}, 'targets_length was 24 and is 32'),
    ({'lengths': {'inputs': 32, 'targets': 24}}, 'inputs_length was 64 and is 32'),
    ({'pack': False}, r'pack was 1 and is 0 \(set pack back\)'),
    ({'mixture': 'e'}, r'mixture was \w+ and is \w+ \(use the cache, split, rates and INCLUDE_COT'),
  ],
)
def test_a_position_of_other_data_says_what_differs(cache_dir, loader, options, message):
  options = {'mixture': 'all', 'lengths': LENGTHS, 'batch_rows': 16, 'seed': 3, **options}
  other = Loader(cache_dir, **options)
  with pytest.raises(ValueError, match=f'The data of step 41 cannot be continued: .*{message}'):
    other.check_position(loader.position(41))


def test_a_position_of_another_format_or_without_a_step_is_refused(loader):
  with pytest.raises(ValueError, match=r'format was 0 and is 1 \(use the version of flan_jax'):
    loader.check_position({**loader.position(1), 'format': 0})
  with pytest.raises(ValueError, match='needs a step; this one has nothing'):
    loader.check_position({})


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'batch_rows': 0}, 'batch_rows=0 must be at least 1 row per step'),
    ({'lengths': {'inputs': 64}}, "lengths has inputs; give exactly 'inputs' and 'targets'"),
    ({'lengths': {}}, 'lengths has nothing; give exactly'),
    ({'lengths': {'inputs': 64, 'targets': 1}}, r"lengths\['targets'\]=1 must be a whole number"),
    ({'lengths': {'inputs': 6.5, 'targets': 8}}, r"lengths\['inputs'\]=6.5 must be a whole"),
    ({'mixture': 'al'}, "No mixture or task 'al' .* Did you mean 'all'"),
  ],
)
def test_a_loader_that_makes_no_sense_is_refused(cache_dir, options, message):
  options = {'mixture': 'all', 'lengths': LENGTHS, 'batch_rows': 16, 'seed': 3, **options}
  with pytest.raises(ValueError, match=message):
    Loader(cache_dir, **options)


@pytest.mark.parametrize('rows', [slice(0, 17), slice(4, 4), slice(-2, None), slice(0, 16, 2)])
def test_rows_that_a_batch_does_not_have_are_refused(loader, rows):
  with pytest.raises(ValueError, match='is no range of the 16 rows of a step; give slice'):
    loader.batch(0, rows)


def test_steps_before_the_first_are_refused(loader):
  with pytest.raises(ValueError, match='step=-1 must be at least 0'):
    loader.batch(-1)


def test_statistics_need_a_window(loader):
  with pytest.raises(ValueError, match='num_windows=0 must be at least 1'):
    loader.statistics(0)


@pytest.mark.parametrize('name', ['tokens.npy', 'offsets.npy', 'manifest.json'])
def test_one_changed_bit_of_what_training_reads_is_refused_by_name(name, tmp_path):
  cache.initialize_cache(tmp_path, vocabularies.get_vocabulary('bytes'))
  write_task(tmp_path, 'one', [([5, 6, 1], [7, 1])] * 40, 'even')
  path = tmp_path / 'tasks' / 'one' / 'train' / name
  content = bytearray(path.read_bytes())
  at = content.index(b'even') if name == 'manifest.json' else len(content) - 20
  content[at] ^= 4
  path.write_bytes(content)
  with pytest.raises(cache.CacheError, match=f"Task 'one' split 'train' is damaged: .*{name}"):
    Loader(tmp_path, 'one', lengths=LENGTHS, batch_rows=4, seed=3).verify()


def test_damage_found_while_opening_names_the_task(tmp_path):
  cache.initialize_cache(tmp_path, vocabularies.get_vocabulary('bytes'))
  write_task(tmp_path, 'x', [([5, 1], [6, 1])], 'x')
  path = tmp_path / 'tasks' / 'x' / 'train' / 'tokens.npy'
  path.write_bytes(path.read_bytes()[:-1])
  with pytest.raises(cache.CacheError, match="Task 'x' split 'train' is damaged"):
    Loader(tmp_path, 'x', lengths=LENGTHS, batch_rows=4, seed=0)


def test_prefetching_gives_the_batches_from_a_step_on(loader):
  with loader.prefetch(5, slice(4, 8)) as batches:
    for step in range(5, 12):
      assert equal(next(batches), loader.batch(step, slice(4, 8)))


def test_leaving_a_prefetcher_ends_its_thread(loader):
  before = threading.active_count()
  with loader.prefetch(0) as batches:
    next(batches)
    assert threading.active_count() == before + 1
  assert threading.active_count() == before
  with pytest.raises(StopIteration):
    next(batches)


def test_an_error_while_making_ahead_reaches_the_consumer(loader):
  before = threading.active_count()
  with loader.prefetch(-1) as batches, pytest.raises(ValueError, match='step=-1 must be at least'):
    next(batches)
  assert threading.active_count() == before


def test_prefetching_nothing_ahead_is_refused(loader):
  with pytest.raises(ValueError, match='depth=0 must be at least 1'):
    loader.prefetch(0, depth=0)


OPEN_MANY = """
  import resource, sys
  from flan_jax.data.sources import _allow_open_files
  soft, hard = int(sys.argv[1]), int(sys.argv[2])
  resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
  try:
    _allow_open_files(500)
    print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
  except ValueError as e:
    print(e)
"""


@pytest.mark.parametrize(
  ('soft', 'hard', 'expected'),
  [
    (64, 1000, '500\n'),
    (600, 1000, '600\n'),
    (64, 100, 'Reading this mixture needs 500 open files and this process may have 100; raise'),
  ],
)
def test_the_limit_of_open_files_is_raised_or_named(soft, hard, expected):
  done = subprocess.run(
    [sys.executable, '-c', textwrap.dedent(OPEN_MANY), str(soft), str(hard)],
    stdout=subprocess.PIPE,
    text=True,
    check=True,
    cwd=pathlib.Path(__file__).parents[2],
  )
  assert done.stdout.startswith(expected)
