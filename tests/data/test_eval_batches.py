"""Evaluation reads every example exactly once, unpacked, in batches of one shape."""

import numpy as np
import pytest

from flan_jax.data import cache, vocabularies
from flan_jax.data.loader import eval_batches
from flan_jax.data.mixture import Mixture, MixtureError, save_mixture

LENGTHS = {'inputs': 12, 'targets': 6}


@pytest.fixture(scope='module')
def cache_dir(tmp_path_factory):
  cache_dir = tmp_path_factory.mktemp('evaluation') / 'cache'
  cache.initialize_cache(cache_dir, vocabularies.get_vocabulary('bytes'))
  rng = np.random.default_rng(0)
  for task, size in (('a', 7), ('b', 10)):
    with cache.TaskCacheWriter(cache_dir, task, 'test') as writer:
      for _ in range(size):
        inputs, targets = rng.integers(1, 20), rng.integers(1, 9)
        writer.add([*rng.integers(3, 259, inputs), 1], [*rng.integers(3, 259, targets), 1], {})
      writer.finish({'collection': f'of {task}'})
  save_mixture(cache_dir, Mixture.of('both', {'a': 1.0, 'b': 5.0}))
  return cache_dir


def batches(cache_dir, tasks='both', **options):
  options = {'split': 'test', 'lengths': LENGTHS, 'batch_rows': 4, **options}
  return list(eval_batches(cache_dir, tasks, **options))


@pytest.mark.parametrize('batch_rows', [1, 4, 17, 30])
@pytest.mark.parametrize('tasks', ['both', ('a', 'b')])
def test_every_example_comes_exactly_once(cache_dir, batch_rows, tasks):
  seen = []
  for batch, examples in batches(cache_dir, tasks, batch_rows=batch_rows):
    seen += examples
    assert all(len(array) == batch_rows for array in batch.values())
    rows = batch['decoder_loss_weights'].sum(axis=1) > 0
    assert rows.tolist() == [True] * len(examples) + [False] * (batch_rows - len(examples))
  assert seen == [('a', i) for i in range(7)] + [('b', i) for i in range(10)]


def test_rows_hold_the_examples_cut_to_length_with_eos(cache_dir):
  cut = [0, 0]
  for each in batches(cache_dir):
    for row, (task, index) in enumerate(each.examples):
      inputs, targets = cache.TaskCache.open(cache_dir, task, 'test').example(index)
      for name, ids in (('encoder_input_tokens', inputs), ('decoder_target_tokens', targets)):
        limit = LENGTHS['inputs' if name.startswith('encoder') else 'targets']
        expected = ids.tolist() if len(ids) <= limit else [*ids[: limit - 1].tolist(), 1]
        got = each.features[name][row]
        assert got[: len(expected)].tolist() == expected
        assert (got[len(expected) :] == 0).all()
      cut[0] -= len(inputs) > LENGTHS['inputs']
      cut[1] -= len(targets) > LENGTHS['targets']
    cut[0] += each.truncated_inputs
    cut[1] += each.truncated_targets
  assert cut == [0, 0]
  assert sum(each.truncated_inputs for each in batches(cache_dir)) > 0


def test_a_row_is_one_segment_and_padding_rows_have_none(cache_dir):
  last = batches(cache_dir)[-1]
  segments = last.features['encoder_segment_ids']
  assert segments[0].max() == 1
  assert segments[len(last.examples) :].max() == 0
  assert (last.features['decoder_input_tokens'][:, 0] == 0).all()


def test_a_maximum_takes_examples_spread_over_each_task(cache_dir):
  seen = [e for each in batches(cache_dir, max_examples_per_task=5) for e in each.examples]
  assert seen == [('a', i) for i in (0, 1, 2, 4, 5)] + [('b', i) for i in (0, 2, 4, 6, 8)]


def test_what_makes_no_sense_is_refused_before_the_first_batch(cache_dir):
  with pytest.raises(ValueError, match='batch_rows=0 must be at least 1'):
    eval_batches(cache_dir, 'both', split='test', lengths=LENGTHS, batch_rows=0)
  with pytest.raises(ValueError, match='max_examples_per_task=0 must be at least 1'):
    batches(cache_dir, max_examples_per_task=0)
  with pytest.raises(ValueError, match="give exactly 'inputs' and 'targets'"):
    batches(cache_dir, lengths={'inputs': 5})
  with pytest.raises(MixtureError, match='No tasks are given to evaluate'):
    batches(cache_dir, ())
  with pytest.raises(MixtureError, match="Did you mean 'both'"):
    batches(cache_dir, 'bth')
  with pytest.raises(MixtureError, match="have no split 'test' in .*: gone"):
    batches(cache_dir, ('a', 'gone'))
