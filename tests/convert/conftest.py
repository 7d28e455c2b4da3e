"""Logits of imported weights, and a small Hugging Face folder that a test may spoil."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from flan_jax import partitioning
from flan_jax.convert import importing
from flan_jax.models.transformer import Transformer

LLAMA = {
  'architectures': ['LlamaForCausalLM'],
  'model_type': 'llama',
  'vocab_size': 96,
  'hidden_size': 16,
  'intermediate_size': 24,
  'num_hidden_layers': 2,
  'num_attention_heads': 4,
  'num_key_value_heads': 2,
  'head_dim': 8,
  'hidden_act': 'silu',
  'rms_norm_eps': 1e-5,
  'rope_theta': 10000.0,
  'tie_word_embeddings': False,
}


@pytest.fixture
def llama_config():
  """A config.json, which a test may change."""
  return dict(LLAMA)


@pytest.fixture(scope='session')
def load():
  """Loads an opened checkpoint onto a mesh of the devices there are."""

  def load(source, mesh=None):
    with partitioning.use_mesh(mesh or partitioning.MeshConfig()):
      return importing.load(source)

  return load


@pytest.fixture(scope='session')
def logits(load):
  """Logits of an opened checkpoint for a batch of NumPy features, without padded vocabulary."""

  def logits(source, batch):
    # All devices share the parameters, each of which is thus read in parts; one computes.
    model = load(source, partitioning.MeshConfig(data=1, fsdp=-1))
    model = jax.tree.map(jnp.asarray, jax.device_get(model))
    return np.asarray(jax.jit(Transformer.__call__)(model, batch))[..., : source.config.vocab_size]

  return logits


@pytest.fixture
def arrays():
  """The arrays of the model that `llama_config` describes, as Hugging Face has them."""
  random = np.random.default_rng(0)
  shapes = {
    'model.embed_tokens.weight': (96, 16),
    'lm_head.weight': (96, 16),
    'model.norm.weight': (16,),
  }
  for layer in range(2):
    shapes |= {
      f'model.layers.{layer}.{name}.weight': shape
      for name, shape in {
        'self_attn.q_proj': (32, 16),
        'self_attn.k_proj': (16, 16),
        'self_attn.v_proj': (16, 16),
        'self_attn.o_proj': (16, 32),
        'mlp.gate_proj': (24, 16),
        'mlp.up_proj': (24, 16),
        'mlp.down_proj': (16, 24),
        'input_layernorm': (16,),
        'post_attention_layernorm': (16,),
      }.items()
    }
  return {name: random.standard_normal(s).astype(np.float32) for name, s in shapes.items()}


@pytest.fixture
def write_folder(tmp_path):
  """Writes a Hugging Face folder: `files` is one dict of arrays, or several by file name."""

  def write(config, files, name='hf'):
    folder = tmp_path / name
    folder.mkdir()
    (folder / 'config.json').write_text(json.dumps(config))
    if any(isinstance(x, np.ndarray) for x in files.values()):
      files = {'model.safetensors': files}
    for file, tensors in files.items():
      safetensors_numpy.save_file(tensors, folder / file)
    if len(files) > 1:
      index = {name: file for file, tensors in files.items() for name in tensors}
      path = folder / 'model.safetensors.index.json'
      path.write_text(json.dumps({'metadata': {}, 'weight_map': index}))
    return folder

  return write


@pytest.fixture
def llama(write_folder, arrays):
  return write_folder(LLAMA, arrays)
