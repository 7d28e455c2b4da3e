"""Attention in tiles, interpreted on a CPU: what XLA's attention computes, and its gradients."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx

from flan_jax import partitioning
from flan_jax.models import intervals, tiled_attention
from flan_jax.models.attention import RelativeBias, attention_mask, within_window
from flan_jax.models.config import TransformerConfig
from flan_jax.models.dot_product import attend

CONFIG = TransformerConfig(
  vocab_size=32,
  embed_dim=16,
  num_heads=4,
  head_dim=16,
  mlp_dim=16,
  num_encoder_layers=1,
  num_decoder_layers=1,
  dtype='float32',
)
DECODER = dataclasses.replace(
  CONFIG, num_encoder_layers=0, num_decoder_layers=2, position='rope', num_kv_heads=2
)


@pytest.fixture(autouse=True, params=['tpu', 'gpu'])
def interpreted(request, monkeypatch):
  monkeypatch.setattr(tiled_attention, 'INTERPRETED', request.param)
  return request.param


def packed(rng, rows, length):
  """Segment ids of rows that examples of any length fill up to some padding, and positions."""
  segments, positions = np.zeros((2, rows, length), np.int32)
  for row in range(rows):
    at, number = 0, 1
    while at < length - 9:
      stop = min(at + int(rng.integers(1, length // 2)), length - 7 * (row % 2))
      segments[row, at:stop], positions[row, at:stop] = number, np.arange(stop - at)
      at, number = stop, number + 1
  return jnp.asarray(segments), jnp.asarray(positions)


def masks(rng, segments, positions):
  """Every kind of mask by name."""
  causal = attention_mask(segments, segments, causal=True)
  prefix = positions < jnp.asarray(rng.integers(1, 20, segments.shape[:1]))[:, None]
  return {
    'both ways': attention_mask(segments, segments),
    'causal': causal,
    'prefix': attention_mask(segments, segments, causal=True, prefix=prefix),
    'window': causal & within_window(positions, positions, 11),
  }


def close(ours, theirs, tolerance=1e-5):
  """Of arrays of any size: their largest number's `tolerance` apart at most."""

  def compare(a, b):
    np.testing.assert_allclose(a, b, atol=tolerance * max(1, np.max(np.abs(b))))

  jax.tree.map(compare, ours, theirs)


def compare(config, query, keys, values, mask, table, scale, tolerance=1e-5):
  """Values and all gradients of both, at the queries that see something."""
  tile = tiled_attention.tile_for(config, query.shape[1], keys.shape[1])
  assert tile in (128, 256)
  sees = jnp.any(mask, axis=2)[..., None, None]
  length, kv_length = jnp.arange(query.shape[1]), jnp.arange(keys.shape[1])

  @functools.partial(jax.jit, static_argnames='tile')
  def both(arrays, mask, scale, tile):
    def fn(query, keys, values, table):
      bias = None
      if table is not None:
        bias = table.tiles(tile) if tile else table(length, kv_length)
      attended = attend(query, keys, values, mask, bias, scale, config, tile=tile)
      return jnp.where(sees, attended, 0)

    attended, back = jax.vjp(fn, *arrays)
    return attended, back(jnp.cos(attended))

  arrays = (query, keys, values, table)
  close(both(arrays, mask, scale, tile), both(arrays, mask, scale, None), tolerance)


@pytest.mark.parametrize(
  'kind, length', [('both ways', 300), ('causal', 300), ('prefix', 256), ('window', 128)]
)
def test_packed_rows_with_a_bias(kind, length):
  rng = np.random.default_rng(length)
  segments, positions = packed(rng, 2, length)
  query, keys, values = jnp.asarray(rng.normal(size=(3, 2, length, 4, 16)), jnp.float32)
  table = RelativeBias(CONFIG, nnx.Rngs(params=1), bidirectional=kind == 'both ways')
  table.table[...] = 3 * table.table[...]
  mask = masks(rng, segments, positions)[kind]
  compare(CONFIG, query, keys, values, mask, table, None)


@pytest.mark.parametrize('kind', ['both ways', 'causal'])
def test_one_long_example_whose_tiles_are_seen_whole(kind):
  rng, length = np.random.default_rng(0), 768
  segments, positions = jnp.ones((1, length), jnp.int32), jnp.arange(length)[None]
  mask = masks(rng, segments, positions)[kind]
  first, last = intervals.tiles_seen_whole(*intervals.of_mask(mask), 256, 256)
  assert jnp.sum(last - first) == (9 if kind == 'both ways' else 3)
  query, keys, values = jnp.asarray(rng.normal(size=(3, 1, length, 4, 16)), jnp.float32)
  table = RelativeBias(CONFIG, nnx.Rngs(params=1), bidirectional=kind == 'both ways')
  table.table[...] = 3 * table.table[...]
  # Gradients of the bias are sums of 295,000 numbers in float32.
  compare(CONFIG, query, keys, values, mask, table, None, 5e-5)


@pytest.mark.parametrize('config', [CONFIG, DECODER], ids=['heads', 'shared keys'])
@pytest.mark.parametrize('drops', [False, True])
def test_other_lengths_shared_keys_and_dropout(config, drops):
  rng = np.random.default_rng(0)
  segments, (others, _) = packed(rng, 2, 130)[0], packed(rng, 2, 257)
  query = jnp.asarray(rng.normal(size=(2, 130, 4, 16)), jnp.float32)
  keys, values = jnp.asarray(rng.normal(size=(2, 2, 257, config.kv_heads, 16)), jnp.float32)
  scale = jnp.asarray(rng.random((2, 4, 1, 257)) < 0.9, jnp.float32) / 0.9 if drops else None
  compare(config, query, keys, values, attention_mask(segments, others), None, scale)


def test_half_precision_is_as_near_as_xlas():
  rng = np.random.default_rng(0)
  segments, positions = packed(rng, 2, 256)
  exact = jnp.asarray(rng.normal(size=(3, 2, 256, 4, 16)), jnp.float32)
  mask, table = (
    masks(rng, segments, positions)['both ways'],
    RelativeBias(CONFIG, nnx.Rngs(params=1), bidirectional=True),
  )
  along, sees = jnp.arange(256), jnp.any(mask, axis=2)[..., None, None]

  def error(tile, dtype):
    bias = table.tiles(tile) if tile else table(along, along)
    attended = attend(*exact.astype(dtype), mask, bias, None, CONFIG, tile=tile)
    return jnp.where(sees, attended.astype(jnp.float32), 0)

  whole = error(None, jnp.float32)
  ours, theirs = (jnp.abs(error(tile, jnp.bfloat16) - whole) for tile in (128, None))
  assert jnp.max(ours) <= 1.5 * jnp.max(theirs) and jnp.mean(ours) <= 1.1 * jnp.mean(theirs)


def batch_of(rng, config, rows=8, length=160):
  encoder, positions = packed(rng, rows, length)
  decoder, along = packed(rng, rows, 136)
  tokens = [jnp.asarray(rng.integers(1, 32, x.shape), jnp.int32) for x in (encoder, decoder)]
  batch = {
    'decoder_input_tokens': tokens[1],
    'decoder_segment_ids': decoder,
    'decoder_positions': along,
    'decoder_prefix': (along < 3).astype(jnp.int32),
  }
  if not config.decoder_only:
    batch |= {'encoder_input_tokens': tokens[0], 'encoder_segment_ids': encoder}
    batch |= {'encoder_positions': positions}
  return batch


def logits_and_gradients(model, batch):
  def loss(model):
    logits = model(batch, dropout_key=jax.random.key(3))[..., : CONFIG.vocab_size]
    of_inputs = batch.get('encoder_segment_ids', batch['decoder_segment_ids'])
    segments = batch['decoder_segment_ids']  # some without inputs, which see nothing of any other
    counts = ((segments > 0) & (segments <= jnp.max(of_inputs, axis=1, keepdims=True)))[..., None]
    return jnp.sum(jnp.where(counts, jnp.sin(logits), 0)), jnp.where(counts, logits, 0)

  gradients, logits = jax.jit(jax.grad(loss, has_aux=True))(model)
  return logits, nnx.to_pure_dict(nnx.state(gradients))


@pytest.mark.parametrize(
  'config',
  [
    dataclasses.replace(CONFIG, dropout_rate=0.1, scan_layers=True),
    pytest.param(
      dataclasses.replace(CONFIG, relative_bias_per_layer=True, remat='full'),
      marks=pytest.mark.slow,
    ),
    pytest.param(
      dataclasses.replace(DECODER, prefix_lm=True, dropout_rate=0.1), marks=pytest.mark.slow
    ),
    dataclasses.replace(DECODER, window=9, window_pattern=('local', 'global')),
  ],
  ids=['t5', 'umt5', 'prefix-LM', 'windows'],
)
def test_models_on_a_mesh_compute_what_xlas_attention_does_on_one_device(
  config, interpreted, monkeypatch
):
  batch = batch_of(np.random.default_rng(0), config)
  monkeypatch.setattr(tiled_attention, 'INTERPRETED', None)
  expected = logits_and_gradients(tiny.random_model(config, 0.2), batch)
  monkeypatch.setattr(tiled_attention, 'INTERPRETED', interpreted)
  mesh = partitioning.MeshConfig(data=2, fsdp=2, tensor=2)
  with partitioning.use_mesh(mesh) as used:
    batch = jax.device_put(batch, partitioning.batch_sharding(used))
    found = logits_and_gradients(tiny.random_model(config, 0.2), batch)
  close(jax.device_get(found), jax.device_get(expected))


def test_packed_rows_give_the_logits_of_separate_ones():
  model = tiny.random_model(CONFIG, 0.2)
  rng = np.random.default_rng(1)
  inputs, targets = (jnp.asarray(rng.integers(1, 32, (2, n)), jnp.int32) for n in (150, 140))
  numbers = jnp.asarray([[1], [2]], jnp.int32)  # of the examples

  @jax.jit
  def logits(inputs, targets, of_inputs, of_targets):
    return model(
      {
        'encoder_input_tokens': inputs,
        'encoder_segment_ids': of_inputs,
        'decoder_input_tokens': targets,
        'decoder_segment_ids': of_targets,
      }
    )

  segments = (jnp.repeat(numbers, n, axis=1) for n in (150, 140))
  arrays = (inputs, targets, *segments)
  apart = logits(*arrays)
  together = logits(*(x.reshape(1, -1) for x in arrays))
  close(together.reshape(apart.shape), apart)


def test_what_the_kernels_do_not_serve_is_left_to_xla(interpreted, monkeypatch):
  def tile(length=128, **changes):
    return tiled_attention.tile_for(dataclasses.replace(CONFIG, **changes), length, 256)

  assert tile() and tile(attention_kernels=False) is None
  assert tile(length=127) is None and tile(attention_softcap=50.0) is None
  assert (tile(head_dim=80) is None) == (interpreted == 'gpu')
  monkeypatch.setattr(tiled_attention, 'INTERPRETED', None)
  assert tile() is None
