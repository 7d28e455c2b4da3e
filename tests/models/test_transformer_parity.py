"""Logits, encoder outputs and gradients are those of T5X and of Hugging Face."""

import json

import jax
import numpy as np
import pytest

from flan_jax import losses, parameter_names
from flan_jax.models.config import TransformerConfig
from flan_jax.models.transformer import Transformer


@pytest.fixture(scope='module')
def t5x(shared, t5x_parameters, build):
  """T5X's arrays, and our model with T5X's parameters."""
  arrays = np.load(shared('oracles/t5_network.npz'))
  settings = json.loads(shared('oracles/t5_network.json').read_text())
  given = settings['config']
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
  return arrays, settings, build(config, t5x_parameters(named))


def _features(arrays, prefix):
  batch = {key.split('/')[1]: arrays[key] for key in arrays.files if key.startswith(prefix + '/')}
  # T5X derives the segments of unpacked rows from its padding.
  batch.setdefault('encoder_segment_ids', (batch['encoder_input_tokens'] > 0).astype(np.int32))
  batch.setdefault('decoder_segment_ids', (batch['decoder_target_tokens'] > 0).astype(np.int32))
  return batch


def _assert_close_where(real, ours, theirs, tolerance=1e-4):
  np.testing.assert_allclose(ours[real], theirs[real], rtol=0, atol=tolerance)


@pytest.mark.parametrize(
  ('prefix', 'expected'), [('batch', 'logits_packed'), ('ubatch', 'logits_unpacked')]
)
def test_logits_are_those_of_t5x(t5x, prefix, expected):
  arrays, _, model = t5x
  batch = _features(arrays, prefix)
  logits = np.asarray(jax.jit(Transformer.__call__)(model, batch))
  assert logits.shape[-1] == 1280
  assert (logits[..., 1200:] <= -1e9).all()
  _assert_close_where(batch['decoder_segment_ids'] > 0, logits[..., :1200], arrays[expected])


def test_encoder_outputs_are_those_of_t5x(t5x):
  arrays, _, model = t5x
  batch = _features(arrays, 'batch')
  encoded = np.asarray(jax.jit(Transformer.encode)(model, batch))
  _assert_close_where(batch['encoder_segment_ids'] > 0, encoded, arrays['encoded_packed'])


def test_loss_and_gradients_are_those_of_t5x(t5x, t5x_parameters):
  arrays, settings, model = t5x
  batch = _features(arrays, 'batch')

  @jax.value_and_grad
  def loss(model):
    sums = losses.cross_entropy(
      model(batch),
      batch['decoder_target_tokens'],
      batch['decoder_loss_weights'],
      label_smoothing=settings['label_smoothing'],
      z_loss=settings['z_loss'],
      vocab_size=settings['config']['vocab_size'],
    )
    return sums.loss / losses.normalizing_factor(settings['loss_normalizing_factor'], batch)

  value, gradients = jax.jit(loss)(model)
  np.testing.assert_allclose(value, arrays['loss/loss'], rtol=1e-5)
  expected = t5x_parameters({k[5:]: arrays[k] for k in arrays.files if k.startswith('grad/')})
  flat = jax.tree_util.tree_flatten_with_path(gradients)[0]
  assert len(flat) == len(expected)
  for path, ours in flat:
    path = parameter_names.path_string(path)
    theirs = expected[path]
    if path in ('token_embedding.table', 'logits_kernel'):
      used = tuple(slice(size) for size in theirs.shape)
      assert not np.any(np.delete(ours, np.s_[:1200], axis=theirs.shape.index(1200))), path
      ours = ours[used]
    theirs = theirs.reshape(ours.shape)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4, err_msg=path)
    # The whole gradient, so that one that is tiny everywhere is compared as well.
    error = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
    assert error < 1e-4, f'{path} {error}'


@pytest.mark.parametrize('name', ['hf_t5_tiny', 'hf_t5v10_tiny'])
def test_logits_and_gradients_are_those_of_hugging_face(
  name, shared, hf_parameters, read_safetensors, build
):
  folder = shared(f'oracles/{name}')
  given = json.loads((folder / 'config.json').read_text())
  arrays = np.load(folder / 'oracle.npz')
  tied = given['tie_word_embeddings']
  config = TransformerConfig(
    vocab_size=given['vocab_size'],
    embed_dim=given['d_model'],
    num_encoder_layers=given['num_layers'],
    num_decoder_layers=given['num_decoder_layers'],
    num_heads=given['num_heads'],
    head_dim=given['d_kv'],
    mlp_dim=given['d_ff'],
    activation={'gated-gelu': 'gated_gelu', 'relu': 'relu'}[given['feed_forward_proj']],
    tie_embeddings=tied,
  )
  named = hf_parameters(read_safetensors(folder / 'model.safetensors'))
  if tied:
    named.pop('logits_kernel', None)
  model = build(config, named)
  batch = {
    'encoder_input_tokens': arrays['input_ids'].astype(np.int32),
    'encoder_segment_ids': arrays['attention_mask'].astype(np.int32),
    'decoder_input_tokens': arrays['decoder_input_ids'].astype(np.int32),
    'decoder_segment_ids': np.ones_like(arrays['labels'], np.int32),
  }
  targets, weights = np.maximum(arrays['labels'], 0), arrays['labels'] >= 0

  def loss(model):
    logits = model(batch)
    sums = losses.cross_entropy(logits, targets, weights, vocab_size=config.vocab_size)
    return sums.loss / sums.weight, logits

  (value, logits), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(model)
  # Logits reach 6.7 here, and both programs' are up to 1.2e-4, in the mean 1.3e-5, from what
  # float64 gives; so the bound for one of them is looser and the mean is bounded as well.
  difference = np.asarray(logits)[..., : config.vocab_size] - arrays['logits']
  assert np.abs(difference).max() < 2e-4
  assert np.sqrt(np.mean(difference**2)) < 3e-5
  np.testing.assert_allclose(value, arrays['loss'], rtol=1e-5)
  encoded = np.asarray(jax.jit(Transformer.encode)(model, batch))
  real = arrays['attention_mask'] > 0
  _assert_close_where(real, encoded, arrays['encoder_last_hidden_state'])
  expected = {key[5:]: arrays[key] for key in arrays.files if key.startswith('grad/')}
  expected = {k: v for k, v in hf_parameters(expected).items() if not (tied and 'logits' in k)}
  ours = {
    parameter_names.path_string(path): np.asarray(gradient)
    for path, gradient in jax.tree_util.tree_flatten_with_path(gradients)[0]
  }
  assert ours.keys() == expected.keys()
  for path, theirs in expected.items():
    gradient = ours[path]
    if path in ('token_embedding.table', 'logits_kernel'):
      gradient = gradient[tuple(slice(size) for size in theirs.shape)]
    error = np.abs(gradient - theirs.reshape(gradient.shape)).max()
    # These weights are large and so are some gradients: 2e-4 of the largest number of each. The
    # exponentials of XLA's YNNPACK make most of it on a CPU; without them it is 3e-5.
    assert error < 2e-4 * max(1.0, np.abs(theirs).max()), f'{path} {error}'
