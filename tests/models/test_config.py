"""Configurations: published sizes, the operations of a step, and errors that say what to change."""

import dataclasses
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from flan_jax import main, partitioning
from flan_jax.models.config import (
  Lora,
  TransformerConfig,
  differences,
  parameter_count,
  train_step_flops,
)
from flan_jax.models.transformer import Transformer

GIN_MODELS = Path(__file__).resolve().parents[2] / 'gin' / 'models'


@pytest.mark.parametrize('name', ['small', 'base', 'large', 'xl', 'xxl'])
def test_shapes_and_layouts_are_known_without_memory(name):
  config = main.load_model(GIN_MODELS / f't5_1_1/{name}.gin')

  def make():
    return Transformer(config, nnx.Rngs(params=0))

  with partitioning.use_mesh(partitioning.MeshConfig(data=2, fsdp=2, tensor=2)) as mesh:
    model = partitioning.abstract(make)
    leaves = jax.tree.leaves(model)
    assert sum(np.prod(leaf.shape, dtype=np.int64) for leaf in leaves) == parameter_count(config)
    for leaf in leaves:
      assert leaf.sharding.mesh == mesh
    rows = {row.path: row for row in partitioning.parameter_table(model)}
  assert sum(row.bytes for row in rows.values()) == 4 * parameter_count(config)
  query = rows['decoder.layers.cross_attention.query']
  layers = config.num_decoder_layers
  assert query.shape == (layers, config.embed_dim, config.num_heads, config.head_dim)
  assert tuple(query.spec) == (None, 'fsdp', 'tensor', None)
  assert tuple(rows['token_embedding.table'].spec) == ('tensor', 'fsdp')


@pytest.mark.parametrize(
  'changes', [{}, {'num_kv_heads': 2}, {'activation': 'relu', 'tie_embeddings': True}]
)
def test_parameter_count_is_what_the_model_has(tiny_config, changes):
  config = tiny_config(**changes)
  model = jax.eval_shape(lambda: Transformer(config, nnx.Rngs(params=0)))
  assert parameter_count(config) == sum(leaf.size for leaf in jax.tree.leaves(model))


def test_operations_of_a_step_are_those_counted_by_hand():
  config = main.load_model(GIN_MODELS / 't5_1_1/small.gin')
  # 879.0 GFLOP: encoder 180.4, cross keys and values 25.8, decoder 53.2, logits 33.7, times 3.
  flops = train_step_flops(config, 8, 512, 128)
  assert flops == pytest.approx(879.0e9, rel=1e-4)
  assert train_step_flops(config, 16, 512, 128) == 2 * flops
  adapted = dataclasses.replace(config, lora=Lora(rank=4, alpha=4))  # kernels have no gradient
  assert train_step_flops(adapted, 8, 512, 128) == pytest.approx(2 / 3 * flops)


def test_vocabulary_is_padded_to_its_multiple(tiny_config):
  assert tiny_config(vocab_size=32_128).padded_vocab_size == 32_128
  assert tiny_config(vocab_size=32_129).padded_vocab_size == 32_256
  assert tiny_config(vocab_size=5, vocab_multiple=1).padded_vocab_size == 5


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'dtype': 'float16'}, "dtype='float16' ends at 65,504, which the feed-forward layers of T5"),
    ({'dtype': 'bfloat'}, "dtype='bfloat' is unknown; choose one of: float32, bfloat16."),
    (
      {'activation': 'gelu'},
      "activation='gelu' is unknown; choose one of: gated_gelu, gated_silu, relu.",
    ),
    ({'remat': 'ful'}, "remat='ful' is unknown; choose one of: none, minimal, full."),
    (
      {'num_heads': 6, 'num_kv_heads': 4},
      'num_heads=6 is not divisible by num_kv_heads=4; choose 1, 2, 3 or 6.',
    ),
    ({'num_heads': 1, 'num_kv_heads': 4}, 'num_kv_heads=4; choose 1.'),
    ({'dropout_rate': 1.0}, 'dropout_rate=1.0 is not a share of activations; choose one from 0.0'),
    ({'embed_dim': 0}, 'embed_dim=0 must be a whole number of 1 or more.'),
    ({'mlp_dim': 2.5}, 'mlp_dim=2.5 must be a whole number of 1 or more.'),
    ({'num_kv_heads': -1}, 'num_kv_heads=-1 must be a whole number of 1 or more.'),
  ],
)
def test_impossible_configurations_say_what_to_change(tiny_config, changes, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    tiny_config(**changes)


def test_a_config_is_frozen_and_can_be_compared(tiny_config):
  config = tiny_config()
  assert config == tiny_config()
  assert hash(config) == hash(tiny_config())
  with pytest.raises(dataclasses.FrozenInstanceError):
    config.embed_dim = 3
  assert isinstance(config, TransformerConfig)


def test_models_differ_only_in_what_they_compute(tiny_config):
  one = tiny_config()
  same = tiny_config(dropout_rate=0.1, remat='full', scale_tied_logits=False)
  assert differences(one, same) == []
  tied = tiny_config(tie_embeddings=True)
  assert differences(one, tied) == ['tie_embeddings=False, not True']
  other = tiny_config(tie_embeddings=True, scale_tied_logits=False)
  assert differences(tied, other) == ['scale_tied_logits=True, not False']
