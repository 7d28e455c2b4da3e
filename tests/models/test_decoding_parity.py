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


@pytest.fixture(scope='module')
def hugging_face(shared, read_safetensors, hf_parameters, build):
  """Hugging Face's arrays, and our model with its parameters."""
  folder = shared('oracles/hf_t5_tiny')
  given = json.loads((folder / 'config.json').read_text())
  config = TransformerConfig(
    vocab_size=given['vocab_size'],
    embed_dim=given['d_model'],
    num_encoder_layers=given['num_layers'],
    num_decoder_layers=given['num_decoder_layers'],
    num_heads=given['num_heads'],
    head_dim=given['d_kv'],
    mlp_dim=given['d_ff'],
  )
  named = hf_parameters(read_safetensors(folder / 'model.safetensors'))
  return np.load(folder / 'oracle.npz'), build(config, named)


def test_greedy_answers_are_those_of_hugging_face(hugging_face):
  arrays, model = hugging_face
  expected = arrays['greedy_ids'][:, 1:]  # without the start token
  config = decoding.DecodeConfig(max_length=expected.shape[1])
  batch = {
    'encoder_input_tokens': arrays['input_ids'],
    'encoder_segment_ids': arrays['attention_mask'],
  }
  decoded = decoding.generate(model, batch, config)
  np.testing.assert_array_equal(decoded.tokens[:, 0], expected)


def test_unfinished_beams_are_those_of_hugging_face(hugging_face):
  """The searches differ in how they rank answers, and agree where none has ended.

  Hugging Face divides a log-likelihood by the length, and so also ranks what was cut off at the
  longest length against what ended; T5X, and we, return what was cut off only where nothing ended.
  """
  arrays, model = hugging_face
  expected = arrays['beam4_ids'].reshape(3, 4, -1)[:, :, 1:]
  length = expected.shape[-1]
  config = decoding.DecodeConfig(length, strategy='beam', num_beams=4, num_samples=4)
  batch = {
    'encoder_input_tokens': arrays['input_ids'],
    'encoder_segment_ids': arrays['attention_mask'],
  }
  decoded = decoding.generate(model, batch, config)
  ended = (expected == 1).any((1, 2))
  scores = arrays['beam4_scores'].reshape(3, 4)
  np.testing.assert_array_equal(decoded.tokens[~ended], expected[~ended])
  np.testing.assert_allclose(decoded.scores[~ended] / length, scores[~ended], rtol=1e-4)
