"""Adapters on their way out: merged into the weights, or in PEFT's format, they add the same."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors import numpy as safetensors_numpy

from flan_jax import checkpoints, parameter_names, partitioning
from flan_jax.convert import exporting, huggingface, importing, peft
from flan_jax.convert.source import ConvertError
from flan_jax.models.config import Lora, TransformerConfig
from flan_jax.models.transformer import Transformer

CONFIG = TransformerConfig(
  vocab_size=96,
  embed_dim=32,
  num_encoder_layers=0,
  num_decoder_layers=2,
  num_heads=4,
  num_kv_heads=2,
  head_dim=8,
  mlp_dim=48,
  activation='gated_silu',
  position='rope',
  query_scale=None,
  lora=Lora(rank=3, alpha=6.0, targets=('query', 'value', 'output', 'down')),
)


@pytest.fixture(scope='module')
def adapted(tmp_path_factory):
  """A workdir with one checkpoint of a model whose adapters add something, and the model."""
  workdir = tmp_path_factory.mktemp('adapted')
  model = jax.jit(lambda: Transformer(CONFIG, nnx.Rngs(params=0)))()
  model = jax.tree.map(lambda x: x + 0.02 * jnp.cos(jnp.arange(x.size)).reshape(x.shape), model)
  with checkpoints.Checkpoints(workdir / 'checkpoints', checkpoints.CheckpointConfig()) as saved:
    saved.save(1, model, None, {'model': dataclasses.asdict(CONFIG)})
  return workdir, model


def test_merged_weights_give_the_logits_of_the_adapted_model(adapted, tmp_path):
  workdir, model = adapted
  out = exporting.export_checkpoint(workdir, tmp_path / 'merged')
  with partitioning.use_mesh(partitioning.MeshConfig(data=-1)):
    merged = importing.load(huggingface.open_folder(str(out)))
  assert merged.config.lora is None
  merged = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), merged)
  tokens = np.arange(24, dtype=np.int32).reshape(2, 12) * 7 % 96
  batch = {'decoder_input_tokens': tokens, 'decoder_segment_ids': np.ones_like(tokens)}
  run = jax.jit(Transformer.__call__)
  ours = np.asarray(run(model, batch))
  np.testing.assert_allclose(run(merged, batch), ours, rtol=1e-4, atol=1e-4)


def test_pefts_adapters_are_what_merging_adds(adapted, tmp_path):
  workdir, model = adapted
  out = exporting.export_checkpoint(workdir, tmp_path / 'merged')
  tuned = safetensors_numpy.load_file(out / 'model.safetensors')
  adapters = peft.export_adapters(workdir, tmp_path / 'adapters')
  arrays = safetensors_numpy.load_file(adapters / peft.WEIGHTS)
  values = json.loads((adapters / peft.CONFIG).read_text())
  assert values['target_modules'] == ['down_proj', 'o_proj', 'q_proj', 'v_proj']
  assert (values['r'], values['lora_alpha'], values['task_type']) == (3, 6.0, 'CAUSAL_LM')
  kernels = dict(parameter_names.variables(model))
  frozen = {
    'q_proj': kernels['decoder.layers.attention.query'][...][1].reshape(32, 32),
    'v_proj': kernels['decoder.layers.attention.value'][...][1].reshape(32, 16),
    'o_proj': kernels['decoder.layers.attention.output'][...][1].reshape(32, 32),
  }
  for name, kernel in frozen.items():
    module = f'model.layers.1.self_attn.{name}'
    a, b = (arrays[f'base_model.model.{module}.lora_{side}.weight'] for side in 'AB')
    added = tuned[f'{module}.weight'] - np.asarray(kernel).T
    assert np.abs(added).max() > 1e-3
    np.testing.assert_allclose(2.0 * b @ a, added, rtol=1e-4, atol=1e-5)
  assert len(arrays) == 2 * 4 * 2


def test_a_model_without_adapters_has_none_to_write(adapted, tmp_path):
  _, model = adapted
  plain = {n: x for n, x in parameter_names.by_path(model).items() if '_lora' not in n}
  config = dataclasses.replace(CONFIG, lora=None)
  folder = tmp_path / 'plain/checkpoints'
  with checkpoints.Checkpoints(folder, checkpoints.CheckpointConfig()) as saved:
    saved.save(1, plain, None, {'model': dataclasses.asdict(config)})
  with pytest.raises(ConvertError, match='has no adapters; write the whole model with --to hf:'):
    peft.export_adapters(tmp_path / 'plain', tmp_path / 'out')
  assert not (tmp_path / 'out').exists()
