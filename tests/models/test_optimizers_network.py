"""Ten training steps of T5X: the same losses, parameters, optimizer state and logits."""

import json

import jax
import numpy as np
import optax

from flan_jax import losses, optimizers, parameter_names
from flan_jax.models.config import TransformerConfig
from flan_jax.models.transformer import Transformer


def _by_slot(arrays, t5x_parameters):
  """{our path: {slot: array}} of T5X's state, layers stacked; none of it is factored."""
  v = {
    key[len('train10/state/') : -len('/v')]: arrays[key]
    for key in arrays.files
    if key.startswith('train10/state/') and key.endswith('/v')
  }
  assert all(value.shape != (1,) for value in v.values()), 'this network is too small to factor'
  return t5x_parameters(v)


def test_ten_steps_of_adafactor_are_those_of_t5x(shared, t5x_parameters, build):
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
    # No padding of the vocabulary, which would count in the parameter scale of the embedding.
    vocab_multiple=given['vocab_size'],
  )
  named = {key[6:]: arrays[key] for key in arrays.files if key.startswith('param/')}
  model = build(config, t5x_parameters(named))
  batch = {key[6:]: arrays[key] for key in arrays.files if key.startswith('batch/')}
  optimizer = optimizers.adafactor(settings['lr'])

  @jax.jit
  def train_step(model, state):
    def mean_loss(model):
      sums = losses.cross_entropy(
        model(batch),
        batch['decoder_target_tokens'],
        batch['decoder_loss_weights'],
        label_smoothing=settings['label_smoothing'],
        z_loss=settings['z_loss'],
      )
      return sums.loss / losses.normalizing_factor(settings['loss_normalizing_factor'], batch)

    loss, gradients = jax.value_and_grad(mean_loss)(model)
    updates, state = optimizer.update(gradients, state, model)
    return optax.apply_updates(model, updates), state, loss

  state = optimizer.init(model)
  for expected in arrays['train/loss']:
    model, state, loss = train_step(model, state)
    np.testing.assert_allclose(loss, expected, rtol=5e-5)
  assert state.step == 10

  def close(path, ours, theirs):
    # A first gradient near 0 is divided by its own size, so that where it is only rounding its
    # sign, and a step of 0.01 of the parameter's scale, is too. One element in 200,000 is such.
    far = np.abs(ours.reshape(theirs.shape) - theirs)
    assert (far > 1e-4).mean() < 1e-4, (path, (far > 1e-4).mean())
    assert far.max() < 0.05 * np.sqrt(np.mean(theirs**2)), (path, far.max())

  trained = {key[14:]: arrays[key] for key in arrays.files if key.startswith('train10/param/')}
  leaves = jax.tree_util.tree_leaves_with_path(model)
  ours = {parameter_names.path_string(path): np.asarray(leaf) for path, leaf in leaves}
  theirs = t5x_parameters(trained)
  assert ours.keys() == theirs.keys()
  for path in ours:
    close(path, ours[path], theirs[path])
  for path, expected in _by_slot(arrays, t5x_parameters).items():
    v = np.asarray(state.slots[path]['v']).reshape(expected.shape)
    np.testing.assert_allclose(v, expected, rtol=1e-2, atol=1e-4 * expected.max(), err_msg=path)
  logits = np.asarray(jax.jit(Transformer.__call__)(model, batch))
  real = batch['decoder_segment_ids'] > 0
  np.testing.assert_allclose(logits[real], arrays['train10/logits_packed'][real], rtol=0, atol=5e-3)
