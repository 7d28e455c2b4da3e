"""The parts of a layer: initial values, norm, dropout, buckets of distance, masks."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from flan_jax import parameter_names
from flan_jax.models.attention import attention_mask, relative_bucket
from flan_jax.models.layers import (
  Norm,
  drop,
  dropout_scales,
  normal,
  truncated_normal,
  uniform,
)


@pytest.fixture(scope='module')
def wide(build, tiny_config):
  """A model wide enough to measure standard deviations."""
  return build(tiny_config(embed_dim=256, num_heads=4, head_dim=64, mlp_dim=512, vocab_size=512))


def test_initial_values_spread_as_those_of_t5x(wide):
  deviations = {
    'token_embedding.table': 1.0,
    'logits_kernel': 256**-0.5,
    'encoder.layers.attention.query': (256 * 64) ** -0.5,
    'encoder.layers.attention.key': 256**-0.5,
    'decoder.layers.cross_attention.value': 256**-0.5,
    'decoder.layers.attention.output': (4 * 64) ** -0.5,
    'encoder.layers.mlp.gate': 256**-0.5,
    'encoder.layers.mlp.up': 256**-0.5,
    'decoder.layers.mlp.down': 512**-0.5,
  }
  values = {
    parameter_names.path_string(path): np.asarray(value)
    for path, value in jax.tree_util.tree_flatten_with_path(wide)[0]
  }
  for path, deviation in deviations.items():
    assert values[path].std() == pytest.approx(deviation, rel=0.02), path
    assert abs(values[path].mean()) < 0.02 * deviation, path
  # Feed-forward and output kernels are cut at two standard deviations of the uncut normal.
  cut = 2 / 0.8796 * 256**-0.5
  assert np.abs(values['encoder.layers.mlp.up']).max() <= cut
  assert np.abs(values['encoder.layers.attention.key']).max() > cut
  table = values['encoder.relative_bias.table']
  assert table.shape == (4, 32)
  assert np.abs(table).max() <= math.sqrt(6 / 36)
  assert np.abs(table).max() > 0.9 * math.sqrt(6 / 36)
  assert (values['decoder.layers.mlp_norm.scale'] == 1).all()


def test_values_drawn_as_a_vector_are_those_of_their_shape():
  key, shape = jax.random.key(3), (4, 6, 10)
  for ours, jaxs in (
    (normal(0.5), 0.5 * jax.random.normal(key, shape)),
    (uniform(0.5), jax.random.uniform(key, shape, minval=-0.5, maxval=0.5)),
    (truncated_normal(0.87962566), jax.random.truncated_normal(key, -2.0, 2.0, shape)),
  ):
    np.testing.assert_allclose(ours(key, shape), jaxs, rtol=1e-6)


def test_no_two_layers_start_alike(wide):
  for leaf in (wide.encoder.layers.attention.key, wide.decoder.layers.mlp.up):
    value = np.asarray(leaf.get_value())
    assert np.abs(value[0] - value[1]).max() > 0.01


@pytest.mark.parametrize(
  ('changes', 'expected'),
  [
    ({}, [[1, 2, 3, 4], [1, -2, 3, -4]]),
    ({'norm_plus_one': True}, [[2, 3, 4, 5], [2, -3, 4, -5]]),
    ({'norm': 'layer_norm'}, [[0, 0, 0, 0], [1, -2, 3, -4]]),
  ],
)
def test_norm_divides_by_the_root_mean_square_and_scales(tiny_config, changes, expected):
  norm = Norm(tiny_config(**changes), nnx.Rngs(params=0), dim=4)
  norm.scale.set_value(jnp.array([1.0, 2.0, 3.0, 4.0]))
  x = np.array([[3.0, 3.0, 3.0, 3.0], [1.0, -1.0, 1.0, -1.0]], np.float32)
  np.testing.assert_allclose(norm(x), expected, rtol=1e-5, atol=1e-6)
  assert norm(jnp.asarray(x, jnp.bfloat16)).dtype == jnp.bfloat16


def test_dropout_keeps_the_mean_and_scales_what_stays():
  shapes = {'attention': (4, 1, 500), 'mlp': (1, 3000)}
  scales = dropout_scales(jax.random.key(0), 0.25, 8, shapes)
  for name, shape in shapes.items():
    scale = np.asarray(scales[name])
    assert scale.shape == (8, *shape)
    assert {0.0, np.float32(1 / 0.75)} == set(np.unique(scale))
    assert scale.mean() == pytest.approx(1.0, abs=0.02)
    # Rows and names are dropped independently.
    assert (scale[0] != scale[1]).mean() == pytest.approx(2 * 0.25 * 0.75, abs=0.05)
  x = jnp.ones((8, 7, 3000), jnp.bfloat16)
  dropped = drop(x, scales['mlp'])
  assert dropped.dtype == jnp.bfloat16
  # T5 drops the same units at every position.
  assert (dropped == dropped[:, :1]).all()


def test_without_key_or_rate_nothing_is_dropped():
  x = jnp.ones((2, 3))
  assert drop(x, dropout_scales(None, 0.5, 2, {'a': (3,)})['a']) is x
  assert drop(x, dropout_scales(jax.random.key(0), 0.0, 2, {'a': (3,)})['a']) is x


def test_buckets_hold_one_distance_each_then_grow():
  distance = np.array([-200, -127, -128, -20, -16, -15, -1, 0, 1, 7, 8, 9, 100, 127, 500])
  causal = relative_bucket(distance, 32, 128, bidirectional=False)
  assert causal.tolist() == [31, 31, 31, 17, 16, 15, 1, 0, 0, 0, 0, 0, 0, 0, 0]
  both = relative_bucket(distance, 32, 128, bidirectional=True)
  assert both.tolist() == [15, 15, 15, 10, 10, 9, 1, 0, 17, 23, 24, 24, 31, 31, 31]


@settings(max_examples=30)
@given(st.lists(st.integers(-1000, 1000), min_size=64, max_size=64), st.booleans())
def test_buckets_never_fall_with_distance_and_tell_directions_apart(distances, bidirectional):
  distances = np.sort(np.abs(np.array(distances)))
  behind = relative_bucket(-distances, 32, 128, bidirectional=bidirectional)
  ahead = relative_bucket(distances, 32, 128, bidirectional=bidirectional)
  assert (np.diff(behind) >= 0).all()
  assert behind.max() < (16 if bidirectional else 32)
  if bidirectional:
    np.testing.assert_array_equal(ahead[distances > 0], 16 + behind[distances > 0])
  else:
    assert (ahead == 0).all()


def test_a_mask_keeps_segments_apart_and_hides_padding():
  ids = jnp.array([[1, 1, 2, 0]])
  assert attention_mask(ids, ids)[0].astype(int).tolist() == [
    [1, 1, 0, 0],
    [1, 1, 0, 0],
    [0, 0, 1, 0],
    [0, 0, 0, 0],
  ]
  assert attention_mask(ids, ids, causal=True)[0].astype(int).tolist() == [
    [1, 0, 0, 0],
    [1, 1, 0, 0],
    [0, 0, 1, 0],
    [0, 0, 0, 0],
  ]
