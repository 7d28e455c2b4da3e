"""A decoder without encoder is trained, evaluated and asked as an encoder-decoder is."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from test_train import ONE_AXIS, assert_same, batches_of, take_steps

from flan_jax import decoding, infer, partitioning, train
from flan_jax.data import layouts, vocabularies
from flan_jax.evaluation import evaluator

VOCABULARY = vocabularies.ByteVocabulary()
MODEL = {
  'num_encoder_layers': 0,
  'position': 'rope',
  'query_scale': None,
  'window': 8,
  'window_pattern': ('local', 'global'),
}
LENGTHS = {'inputs': 64, 'targets': 32}


@pytest.fixture(scope='module')
def cache_dir(tmp_path_factory):
  return tiny.make_cache(tmp_path_factory.mktemp('cache'))


def make_config(cache_dir, **changes):
  model = {**MODEL, **changes.pop('model', {})}
  return tiny.make_config(cache_dir, model=model, mesh=ONE_AXIS, **changes)


def unpack(batch):
  """One row for each packed example, and empty rows up to a multiple of eight."""
  segments = batch['decoder_segment_ids']
  where = [(row, n) for row, ids in enumerate(segments) for n in range(1, ids.max() + 1)]
  rows = -(-len(where) // 8) * 8
  out = {name: np.zeros((rows, x.shape[1]), x.dtype) for name, x in batch.items()}
  for i, (row, number) in enumerate(where):
    for name, x in batch.items():
      kept = x[row][segments[row] == number]
      out[name][i, : len(kept)] = np.minimum(kept, 1) if name.endswith('segment_ids') else kept
  return out


@pytest.mark.parametrize('prefix_lm', [pytest.param(False, marks=pytest.mark.slow), True])
def test_packing_meshes_and_microbatches_do_not_change_the_update(cache_dir, prefix_lm):
  config = make_config(cache_dir, model={'prefix_lm': prefix_lm})
  (packed,) = batches_of(cache_dir, config, 1)
  assert packed['decoder_segment_ids'].max() > 2
  reference, metrics = take_steps(config, [packed])
  mesh = partitioning.MeshConfig(data=1, fsdp=2, tensor=2, sequence=2)
  cases = [(config, unpack(packed))]
  if prefix_lm:  # whose mask has all that the other's has
    cases.append((dataclasses.replace(config, mesh=mesh, microbatches=2), packed))
  for changed, batch in cases:
    state, other = take_steps(changed, [batch])
    assert_same(state.model, reference.model, 2e-5)
    for name in ('loss', 'correct', 'weight', 'input_tokens', 'target_tokens', 'grad_norm'):
      np.testing.assert_allclose(other[name], metrics[name], rtol=1e-5, err_msg=name)


def test_only_targets_count_and_a_prefix_is_seen_in_both_directions(cache_dir):
  causal = make_config(cache_dir)
  (batch,) = batches_of(cache_dir, causal, 1)
  changed = dict(batch)
  # The last token of each prompt but one: what predicts nothing that counts must not matter.
  first = (batch['decoder_positions'] == 0) & (batch['decoder_prefix'] > 0)
  changed['decoder_target_tokens'] = np.where(first, 77, batch['decoder_target_tokens'])
  np.testing.assert_allclose(*(take_steps(causal, [b])[1]['loss'] for b in (batch, changed)))
  prefix = make_config(cache_dir, model={'prefix_lm': True})
  apart = [float(take_steps(c, [batch])[1]['loss']) for c in (causal, prefix)]
  assert abs(apart[0] - apart[1]) > 1e-3


@pytest.fixture(scope='module')
def trained(cache_dir, tmp_path_factory):
  """A prefix-LM that has learnt to say again what it was told."""
  config = make_config(
    cache_dir,
    steps=80,
    model={'prefix_lm': True, 'embed_dim': 64, 'mlp_dim': 128, 'head_dim': 16, 'num_heads': 4},
    data={'rates': {'last': 0.0, 'count_cot': 0.0}},
    log_every_steps=20,
  )
  workdir = tmp_path_factory.mktemp('run')
  state = train.train(config, workdir)
  lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  return state.model, [line for line in lines if line['kind'] == 'train']


def test_the_loss_falls_and_the_share_of_filled_positions_is_reported(trained):
  _, lines = trained
  assert lines[-1]['loss'] < 0.5 * lines[0]['loss']
  for line in lines:
    assert line['packed'] == pytest.approx(line['packed_inputs'] + line['packed_targets'])
    assert 0.5 < line['packed'] <= 1


def on_one_device(model):
  """The model without the mesh it was trained on."""
  return jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), model)


def test_evaluation_scores_the_examples_that_it_would_score_alone(trained, cache_dir):
  model, _ = trained
  config = evaluator.EvaluationConfig(
    mixtures=('copy',), lengths=LENGTHS, batch_rows=8, decode=decoding.DecodeConfig(16)
  )
  with partitioning.use_mesh(partitioning.MeshConfig(data=8)):
    result = evaluator.evaluate(model, config, cache_dir, VOCABULARY, progress=False)
  sample = result.tasks['copy'].samples[0]
  assert sample.prompt.startswith('say: ')
  question = np.array([*VOCABULARY.encode(sample.prompt), 1])
  alone = on_one_device(model)
  layout = layouts.DecoderOnly((len(question), 16))
  found = decoding.generate(alone, layout.prompts([question], 1), config.decode)
  assert VOCABULARY.decode(np.asarray(found.tokens)[0, 0]) == sample.generated
  assert result.tasks['copy'].tokens > 0
  assert result.tasks['copy'].loss < 0.5 * np.log(VOCABULARY.size)


def test_prompts_of_any_length_are_answered_as_each_alone(trained):
  model, _ = trained
  config = infer.InferConfig(input_length=64, batch_rows=4, decode=decoding.DecodeConfig(12))
  prompts = ['say: ab', 'say: ab cd ba', 'say: ' + 'ab ' * 10, 'x']
  alone = on_one_device(model)
  together = infer.answer(alone, VOCABULARY, prompts, config)
  for prompt, found in zip(prompts, together, strict=True):
    (single,) = infer.answer(alone, VOCABULARY, [prompt], dataclasses.replace(config, batch_rows=1))
    assert (single.text, round(single.score, 3)) == (found.text, round(found.score, 3))
