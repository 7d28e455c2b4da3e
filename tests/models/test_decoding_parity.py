"""Answers and scores are those of T5X and, where the conventions agree, of Hugging Face."""

import json

import numpy as np
import pytest

from flan_jax import decoding
from flan_jax.models.config import TransformerConfig


@pytest.fixture(scope='module')
def t5x(shared, t5x_parameters, build):
  """T5X's arrays, and our model with T5X's parameters."""
  arrays = np.load(shared('oracles/t5_network.npz'))
  given = json.loads(shared('oracles/t5_network.json').read_text())['config']
  config = TransformerConfig(
    vocab_size=given['vocab_size'],
    embed_dim=given['emb_dim'],
    num_encoder_layers=given['num_encoder_layers'],
    num_decoder_layers=given['num_decoder_layers'],
    num_heads=given['num_heads'],
    head_dim=given['head_dim'],
    mlp_dim=given['mlp_dim'],
  )
  named = {key[6:]: arrays[key] for key in arrays.files if key.startswith('param/')}
  return arrays, build(config, t5x_parameters(named))


def test_greedy_answers_are_those_of_t5x(t5x):
  arrays, model = t5x
  config = decoding.DecodeConfig(max_length=12)
  decoded = decoding.generate(model, {'encoder_input_tokens': arrays['dec/inputs']}, config)
  np.testing.assert_array_equal(decoded.tokens[:, 0], arrays['dec/greedy'])


def test_beams_and_their_scores_are_those_of_t5x(t5x):
  arrays, model = t5x
  config = decoding.DecodeConfig(max_length=12, strategy='beam', num_beams=4, num_samples=4)
  decoded = decoding.generate(model, {'encoder_input_tokens': arrays['dec/inputs']}, config)
  # T5X has the best beam last.
  np.testing.assert_array_equal(decoded.tokens[:, ::-1], arrays['dec/beam4_all'])
  np.testing.assert_allclose(decoded.scores[:, ::-1], arrays['dec/beam4_scores'], rtol=1e-5)


def test_scores_of_given_targets_are_those_of_t5x(t5x):
  arrays, model = t5x
  batch = {key[7:]: arrays[key] for key in arrays.files if key.startswith('ubatch/')}
  batch['encoder_segment_ids'] = (batch['encoder_input_tokens'] > 0).astype(np.int32)
  batch['decoder_segment_ids'] = (batch['decoder_target_tokens'] > 0).astype(np.int32)
  np.testing.assert_allclose(decoding.score(model, batch), arrays['score/scores'], rtol=1e-5)
