"""Layers taken apart: the same values and gradients as slices, in kernels that all layers share."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from flan_jax.models import one_by_one, transformer
from flan_jax.models.config import TransformerConfig

COUNT = 5


def stacked():
  rng = np.random.default_rng(0)
  return {
    'kernel': rng.standard_normal((COUNT, 8, 8), np.float32),
    'scale': rng.standard_normal((COUNT, 8), np.float32),
  }


def chain(layers, x):
  for layer in layers:
    x = jnp.tanh(x @ layer['kernel']) * layer['scale']
  return x.sum()


def apart(params, x):
  return chain(one_by_one.layers_of(params, COUNT), x)


def sliced(params, x):
  return chain([jax.tree.map(lambda p, i=i: p[i], params) for i in range(COUNT)], x)


def test_values_and_gradients_are_those_of_slices():
  params, x = stacked(), np.ones((3, 8), np.float32)
  value, gradients = jax.jit(jax.value_and_grad(apart))(params, x)
  expected, expected_gradients = jax.jit(jax.value_and_grad(sliced))(params, x)
  np.testing.assert_allclose(value, expected, rtol=1e-6)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
    gradients,
    expected_gradients,
  )
  assert all(np.abs(layer).max() > 0 for layer in gradients['kernel'])


def test_no_kernel_has_the_number_of_its_layer_in_it():
  params, x = stacked(), np.ones((3, 8), np.float32)

  def fixed_slices(function):
    program = jax.jit(jax.value_and_grad(function)).lower(params, x).compile().as_text()
    return [line for line in program.splitlines() if ' slice(' in line]

  assert fixed_slices(sliced)
  assert not fixed_slices(apart)


def test_with_dropout_and_remat_an_unrolled_stack_computes_what_a_scanned_one_does():
  shape = {'vocab_size': 64, 'embed_dim': 16, 'num_heads': 2, 'head_dim': 8, 'mlp_dim': 32}
  layers = {'num_encoder_layers': 3, 'num_decoder_layers': 2}
  settings = {'dropout_rate': 0.2, 'remat': 'full', 'dtype': 'float32'}
  tokens = np.random.default_rng(1).integers(1, 64, (2, 12)).astype(np.int32)
  along = np.broadcast_to(np.arange(12, dtype=np.int32), tokens.shape)
  batch = {}
  for side in ('encoder', 'decoder'):
    batch |= {f'{side}_input_tokens': tokens, f'{side}_positions': along}
    batch[f'{side}_segment_ids'] = np.ones_like(tokens)

  def loss(model):
    return jnp.square(model.hidden(batch, dropout_key=jax.random.key(2))).mean()

  def computed(scan_layers):
    config = TransformerConfig(**shape, **layers, **settings, scan_layers=scan_layers)
    model = transformer.Transformer(config, nnx.Rngs(params=jax.random.key(0)))
    return jax.tree.leaves(jax.jit(jax.value_and_grad(loss))(model))

  for a, b in zip(computed(scan_layers=False), computed(scan_layers=True), strict=True):
    np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-6)
