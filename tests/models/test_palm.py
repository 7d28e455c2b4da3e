"""PaLM's layers beside the formulae of its paper (arXiv:2204.02311, section 2), in plain NumPy."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from flan_jax import decoding, main, parameter_names, partitioning
from flan_jax.models.transformer import Transformer

GIN_MODELS = Path(__file__).resolve().parents[2] / 'gin' / 'models'
TOKENS = np.random.default_rng(1).integers(2, 50, (2, 12))
LAYERS, EMBED, HEADS, HEAD_DIM, MLP, VOCAB = 3, 24, 4, 8, 96, 50


@pytest.fixture(scope='module')
def palm(build):
  """gin/models/palm, small, with norms that are not 1, and its parameters by path."""
  config = dataclasses.replace(
    main.load_model(GIN_MODELS / 'palm/8b.gin'),
    vocab_size=VOCAB,
    vocab_multiple=4,
    embed_dim=EMBED,
    num_decoder_layers=LAYERS,
    num_heads=HEADS,
    head_dim=HEAD_DIM,
    mlp_dim=MLP,
    dtype='float32',
    remat='none',
  )
  random = np.random.default_rng(0)
  model = jax.tree.map(
    lambda leaf: (leaf + 0.3 * random.standard_normal(leaf.shape)).astype(leaf.dtype), build(config)
  )
  found, _ = jax.tree_util.tree_flatten_with_path(model)
  return model, {parameter_names.path_string(path): np.float64(leaf) for path, leaf in found}


def layer_norm(x, scale):
  return scale * (x - x.mean()) / np.sqrt(x.var() + 1e-6)


def turned(x, position):
  """Rotates each pair (i, i + HEAD_DIM / 2) by position x 10,000^(-2 i / HEAD_DIM)."""
  turned, half = np.empty_like(x), HEAD_DIM // 2
  for i in range(half):
    angle = position * 10_000 ** (-2 * i / HEAD_DIM)
    turned[i] = np.cos(angle) * x[i] - np.sin(angle) * x[i + half]
    turned[i + half] = np.sin(angle) * x[i] + np.cos(angle) * x[i + half]
  return turned


def attend(normed, weights):
  """Causal attention of HEADS query heads over one key and value head, token by token."""
  (keys,), (values,) = (np.einsum('td,dkh->kth', normed, weights[n]) for n in ('key', 'value'))
  keys = np.stack([turned(key, t) for t, key in enumerate(keys)])
  out = np.zeros_like(normed)
  for t, token in enumerate(normed):
    for n in range(HEADS):
      query = turned(token @ weights['query'][:, n], t)
      scores = np.exp(keys[: t + 1] @ query / np.sqrt(HEAD_DIM))
      out[t] += (scores / scores.sum()) @ values[: t + 1] @ weights['output'][n]
  return out


def swiglu(normed, weights):
  gate = normed @ weights['gate']
  return (gate / (1 + np.exp(-gate)) * (normed @ weights['up'])) @ weights['down']


def paper_logits(tokens, parameters):
  table = parameters['token_embedding.table']
  x = table[tokens]
  for i in range(LAYERS):
    weights = {
      name.rpartition('.')[2]: leaf[i]
      for name, leaf in parameters.items()
      if name.startswith('decoder.layers.')
    }
    normed = np.stack([layer_norm(token, weights['scale']) for token in x])
    x = x + attend(normed, weights) + swiglu(normed, weights)
  x = np.stack([layer_norm(token, parameters['decoder.norm.scale']) for token in x])
  return x @ table[:VOCAB].T / np.sqrt(EMBED)


def test_logits_are_those_of_the_papers_formulae(palm):
  model, parameters = palm
  batch = {'decoder_input_tokens': TOKENS, 'decoder_segment_ids': np.ones_like(TOKENS)}
  logits = jax.jit(Transformer.__call__)(model, batch)
  expected = np.stack([paper_logits(row, parameters) for row in TOKENS])
  np.testing.assert_allclose(logits[..., :VOCAB], expected, rtol=0, atol=2e-5)


def test_query_heads_are_split_over_devices_that_all_hold_the_one_key_and_value_head(palm):
  model, _ = palm
  config = decoding.DecodeConfig(5, strategy='beam', num_samples=4)
  batch = {'prompt_tokens': TOKENS, 'prompt_segment_ids': np.ones_like(TOKENS)}
  expected = decoding.generate(model, batch, config)
  mesh = partitioning.MeshConfig(data=1, fsdp=2, tensor=4)
  with partitioning.use_mesh(mesh) as used:
    rows = {row.path: row.spec for row in partitioning.parameter_table(model)}
    assert rows['decoder.layers.attention.query'] == P(None, 'fsdp', 'tensor', None)
    assert rows['decoder.layers.attention.key'] == P(None, 'fsdp', None, None)
    axes = partitioning.logical_axes(model)
    laid = jax.tree.map(lambda x, axes: jax.device_put(x, partitioning.spec(*axes)), model, axes)
    layout = partitioning.batch_sharding(used)
    batch = {name: jax.device_put(x, layout) for name, x in batch.items()}
    found = decoding.generate(laid, batch, config)
  np.testing.assert_array_equal(found.tokens, expected.tokens)
  np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5)


def test_a_layer_has_one_norm_and_one_key_and_value_head(palm):
  _, parameters = palm
  assert [name for name in parameters if 'norm' in name] == [
    'decoder.layers.attention_norm.scale',
    'decoder.norm.scale',
  ]
  assert parameters['decoder.layers.attention.key'].shape == (LAYERS, EMBED, 1, HEAD_DIM)
  assert 'logits_kernel' not in parameters
