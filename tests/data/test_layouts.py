"""The layout of a decoder without encoder: every example whole, loss on its targets alone."""

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from flan_jax.data import cache, layouts
from flan_jax.data.features import RowExamples
from flan_jax.data.loader import Loader

LENGTHS = {'inputs': 40, 'targets': 16}
ids = st.lists(st.integers(2, 99), max_size=8)
examples = st.lists(st.tuples(ids, ids), min_size=1, max_size=12)


@pytest.fixture(scope='module')
def cache_dir(tmp_path_factory):
  return tiny.make_cache(tmp_path_factory.mktemp('layouts') / 'cache')


def test_two_examples_in_one_row():
  rows = RowExamples(
    inputs=[np.array([7, 8, 1]), np.array([9, 1])],
    targets=[np.array([3, 1]), np.array([4, 5, 1])],
    collections=np.array([2, 3], np.int32),
    row_starts=np.array([0, 2]),
  )
  batch = layouts.DecoderOnly((5, 4), bos_id=6).assemble(rows)
  expected = {
    'decoder_input_tokens': [6, 7, 8, 3, 6, 9, 4, 5, 0],
    'decoder_target_tokens': [7, 8, 3, 1, 9, 4, 5, 1, 0],
    'decoder_loss_weights': [0, 0, 1, 1, 0, 1, 1, 1, 0],
    'decoder_segment_ids': [1, 1, 1, 1, 2, 2, 2, 2, 0],
    'decoder_positions': [0, 1, 2, 3, 0, 1, 2, 3, 0],
    'decoder_prefix': [1, 1, 1, 0, 1, 1, 0, 0, 0],
    'decoder_collection_ids': [2, 2, 2, 2, 3, 3, 3, 3, 0],
  }
  assert {name: array.tolist() for name, array in batch.items()} == {
    name: [row] for name, row in expected.items()
  }


@settings(max_examples=50)
@given(examples, st.sampled_from([None, 5]), st.booleans())
def test_rows_give_back_every_example(pairs, bos_id, inputs_end):
  inputs = [np.array([*i, 1] if inputs_end else i, np.uint16) for i, _ in pairs]
  targets = [np.array([*t, 1], np.uint16) for _, t in pairs]
  layout = layouts.DecoderOnly((9, 9), bos_id=bos_id, inputs_end=inputs_end)
  rows = RowExamples(
    inputs,
    targets,
    np.ones(len(pairs), np.int32),
    np.arange(len(pairs) + 1),
  )
  batch = layout.assemble(rows)
  lengths = np.array([[len(i), len(t)] for i, t in zip(inputs, targets, strict=True)])
  used = (batch['decoder_segment_ids'] > 0).sum(axis=1)
  np.testing.assert_array_equal(used, layout.row_lengths(lengths)[:, 0])
  prompts = layout.prompts(inputs, len(pairs))
  for row, (question, answer) in enumerate(pairs):
    prompt = [bos_id] * (bos_id is not None) + question
    whole = [*prompt, *answer, 1]
    read = batch['decoder_input_tokens'][row, : used[row]].tolist()
    predicted = batch['decoder_target_tokens'][row, : used[row]].tolist()
    assert (read, predicted) == (whole[:-1], whole[1:])
    counted = batch['decoder_loss_weights'][row, : used[row]] > 0
    # Without a prompt there is nothing to predict the first token from.
    assert np.array(predicted)[counted].tolist() == ([*answer, 1] if prompt else [*answer, 1][1:])
    assert batch['decoder_prefix'][row].sum() == min(len(prompt), used[row])
    there = prompts['prompt_segment_ids'][row] > 0
    assert prompts['prompt_tokens'][row, there].tolist() == prompt


@pytest.mark.parametrize('pack', [True, False])
def test_a_loader_packs_whole_examples_and_fills_its_rows(cache_dir, pack):
  options = {'lengths': LENGTHS, 'batch_rows': 8, 'seed': 3, 'pack': pack}
  loader = Loader(cache_dir, 'tiny', decoder_only=True, **options)
  tasks = {t: cache.TaskCache.open(cache_dir, t, 'train') for t in tiny.TASKS}
  stored = set()
  for task in tasks.values():
    for index in range(task.num_examples):
      question, answer = task.example(index)
      question = question.tolist()[: LENGTHS['inputs']][:-1]
      stored.add(tuple(question + answer.tolist()[: LENGTHS['targets']][:-1]))
  filled = []
  for step in range(4):
    batch = loader.batch(step)
    assert batch['decoder_input_tokens'].shape == (8, sum(LENGTHS.values()))
    filled.append((batch['decoder_segment_ids'] > 0).mean())
    for row, segments in enumerate(batch['decoder_segment_ids']):
      for number in range(1, segments.max() + 1):
        read = batch['decoder_input_tokens'][row, segments == number].tolist()
        assert tuple(read) in stored
  statistics = loader.statistics(2)
  if pack:
    assert np.mean(filled) > 0.9
    assert statistics.input_fill + statistics.target_fill > 0.9


def test_a_run_does_not_go_on_with_the_other_kind_of_model(cache_dir):
  options = {'lengths': LENGTHS, 'batch_rows': 8, 'seed': 3}
  position = Loader(cache_dir, 'tiny', **options).position(5)
  other = Loader(cache_dir, 'tiny', decoder_only=True, **options)
  with pytest.raises(ValueError, match='layout was EncoderDecoder and is DecoderOnly'):
    other.check_position(position)
