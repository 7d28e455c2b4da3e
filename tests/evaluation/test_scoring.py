"""Scores of a task from its texts, and intervals that mean what they say."""

import numpy as np
import pytest

from flan_jax.data.layouts import EncoderDecoder
from flan_jax.evaluation import batching, scoring


def make_rows(pairs, **metadata):
  return [
    scoring.Row('q', target, generated, {'id': i, **metadata}, 2.0, 1.0, 4.0)
    for i, (target, generated) in enumerate(pairs)
  ]


def score(manifest, rows, **changes):
  options = {
    'available': len(rows),
    'bootstrap': scoring.Bootstrap(resamples=200),
    'num_samples': 2,
    'truncated': {'inputs': 0, 'targets': 0},
  }
  return scoring.score_task({'task': 'task', **manifest}, rows, **(options | changes))


def test_the_whole_target_is_the_answer_when_the_data_name_none():
  found = score({}, make_rows([('Paris', 'paris'), ('Rome', 'Oslo')])).result
  assert found.scores['exact_match'].value == 50.0
  assert found.loss == 0.5 and found.accuracy == 0.25
  assert [sample.score for sample in found.samples] == [100.0, 0.0]


def test_any_of_several_references_is_right():
  rows = make_rows([('ignored', 'NYC')], references=['New York', 'NYC'], answer='New York')
  assert score({}, rows).result.score.value == 100.0


def test_rationales_are_cut_off_by_default_where_the_task_has_them():
  rows = make_rows([('So 3 + 4 = 7. The answer is 7.', 'Well. The answer is 7.')], answer='7')
  assert score({'cot': True}, rows).result.score.value == 100.0
  assert score({'cot': False}, rows).result.score.value == 0.0


def test_options_turn_words_into_letters_on_both_sides():
  rows = make_rows([('(B)', 'The answer is green.')], answer='B', options=['red', 'green'])
  assert score({'postprocessor': 'option_letter'}, rows).result.score.value == 100.0


def test_the_first_metric_is_the_headline_and_corpus_metrics_have_no_interval():
  pairs = [('a b c d e f', 'a b c d e f'), ('g', 'h')]
  found = score({'metrics': ['rouge', 'bleu']}, make_rows(pairs)).result
  assert found.headline == 'rougeL'
  assert set(found.scores) == {'rouge1', 'rouge2', 'rougeL', 'bleu'}
  assert found.scores['bleu'].low is None
  found = score({'metrics': ['bleu']}, make_rows(pairs)).result
  assert found.samples[0].score is None


def test_intervals_hold_the_score_and_shrink_with_examples():
  widths = []
  for examples in (10, 100, 1000):
    values = [100.0 * (i % 2) for i in range(examples)]
    bootstrap = scoring.Bootstrap()
    found = bootstrap.score(50.0, bootstrap.means(values, 'task'))
    assert found.low <= 50.0 <= found.high
    widths.append(found.high - found.low)
  assert widths[0] > 2 * widths[1] > 4 * widths[2]
  # The normal interval of a fair coin, 2 * 1.96 * 50 / sqrt(1000), to a tenth.
  assert widths[2] == pytest.approx(6.2, rel=0.1)


def test_intervals_are_the_same_every_time_and_differ_by_seed():
  values = list(np.random.default_rng(0).uniform(0, 100, 50))
  one = scoring.Bootstrap(seed=1).means(values, 'task')
  np.testing.assert_array_equal(one, scoring.Bootstrap(seed=1).means(values, 'task'))
  assert not np.array_equal(one, scoring.Bootstrap(seed=2).means(values, 'task'))
  assert not np.array_equal(one, scoring.Bootstrap(seed=1).means(values, 'other'))


def test_a_score_without_spread_has_itself_as_interval():
  bootstrap = scoring.Bootstrap(resamples=50)
  found = bootstrap.score(100 / 3, bootstrap.means([100 / 3] * 7, 'task'))
  assert found.low == pytest.approx(found.high) and found.low <= found.value <= found.high


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'resamples': 0}, 'resamples=0 must be at least 1'),
    ({'confidence': 1.0}, 'confidence=1.0 must lie between 0 and 1'),
  ],
)
def test_wrong_bootstraps_are_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    scoring.Bootstrap(**changes)


def test_every_example_is_in_one_batch_of_a_length_that_holds_it():
  lengths = np.random.default_rng(0).integers(1, 200, 97)
  buckets = batching.bucket_lengths(128, 3)
  assert buckets == (32, 64, 128)
  batches = list(batching.plan(lengths, batch_rows=8, buckets=buckets))
  assert sorted(i for _, members in batches for i in members) == list(range(97))
  for length, members in batches:
    assert 1 <= len(members) <= 8
    assert all(min(lengths[i], 128) <= length for i in members)
  assert sum(len(members) < 8 for _, members in batches) <= len(buckets)


@pytest.mark.parametrize(
  'longest, buckets, expected',
  [(512, 3, (128, 256, 512)), (40, 3, (32, 40)), (16, 3, (16,)), (100, 1, (100,))],
)
def test_buckets_are_halves_rounded_up(longest, buckets, expected):
  assert batching.bucket_lengths(longest, buckets) == expected


def test_a_cut_example_still_ends_in_eos():
  assert batching.cut([5, 6, 7, 1], 3, 1).tolist() == [5, 6, 1]
  assert batching.cut([5, 6, 1], 3, 1).tolist() == [5, 6, 1]


def test_left_over_rows_are_empty():
  batch = batching.make_batch(
    [np.array([7, 8, 1])], [np.array([5, 1])], batch_rows=2, layout=EncoderDecoder((4, 3))
  )
  assert batch['encoder_input_tokens'].tolist() == [[7, 8, 1, 0], [0, 0, 0, 0]]
  assert batch['decoder_input_tokens'].tolist() == [[0, 5, 0], [0, 0, 0]]
  assert batch['decoder_loss_weights'].tolist() == [[1, 1, 0], [0, 0, 0]]
