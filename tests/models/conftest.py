"""Tiny models and batches, and the names that T5X and Hugging Face give to our parameters."""

import json
import re
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flan_jax import parameter_names
from flan_jax.models.config import TransformerConfig
from flan_jax.models.transformer import Transformer

T5X_NAMES = {
  'attention/query': 'attention.query',
  'encoder_decoder_attention/query': 'cross_attention.query',
  'pre_attention_layer_norm/scale': 'attention_norm.scale',
  'pre_self_attention_layer_norm/scale': 'attention_norm.scale',
  'pre_cross_attention_layer_norm/scale': 'cross_norm.scale',
  'pre_mlp_layer_norm/scale': 'mlp_norm.scale',
  'mlp/wi_0/kernel': 'mlp.gate',
  'mlp/wi_1/kernel': 'mlp.up',
  'mlp/wo/kernel': 'mlp.down',
  'token_embedder/embedding': 'token_embedding.table',
  'encoder/encoder_norm/scale': 'encoder.norm.scale',
  'decoder/decoder_norm/scale': 'decoder.norm.scale',
  'encoder/relpos_bias/rel_embedding': 'encoder.relative_bias.table',
  'decoder/relpos_bias/rel_embedding': 'decoder.relative_bias.table',
  'decoder/logits_dense/kernel': 'logits_kernel',
}
HF_NAMES = {
  'shared.weight': 'token_embedding.table',
  'lm_head.weight': 'logits_kernel',
  'SelfAttention.layer_norm': 'attention_norm.scale',
  'EncDecAttention.layer_norm': 'cross_norm.scale',
  'DenseReluDense.layer_norm': 'mlp_norm.scale',
  'wi_0': 'gate',
  'wi_1': 'up',
  'wi': 'up',
  'wo': 'down',
}


@pytest.fixture(scope='session')
def t5x_parameters():
  """Names an oracle's {PATH: array} as our model does, its layers stacked."""

  def convert(named):
    layers = {}
    for path, array in named.items():
      found = re.fullmatch(r'(encoder|decoder)/layers_(\d+)/(.*)', path)
      if found is None:
        layers[T5X_NAMES[path]] = array
        continue
      stack, index, inner = found.groups()
      kind = re.fullmatch(r'(.*attention)/(query|key|value|out)/kernel', inner)
      if kind:
        attention = 'cross_attention' if kind[1].startswith('encoder') else 'attention'
        inner = f'{attention}.{"output" if kind[2] == "out" else kind[2]}'
      else:
        inner = T5X_NAMES[inner]
      layers.setdefault(f'{stack}.layers.{inner}', {})[int(index)] = array
    return _stacked(layers)

  return convert


@pytest.fixture(scope='session')
def hf_parameters():
  """Names the tensors of a Hugging Face T5 as our model does, transposed and stacked."""

  def convert(named):
    layers = {}
    for path, array in named.items():
      found = re.fullmatch(r'(encoder|decoder)\.block\.(\d+)\.layer\.(\d)\.(.*)\.weight', path)
      if path.endswith('relative_attention_bias.weight'):
        layers[f'{path.split(".")[0]}.relative_bias.table'] = array.T
      elif found:
        stack, index, sublayer, inner = found.groups()
        kinds = ('attention', 'cross', 'mlp') if stack == 'decoder' else ('attention', 'mlp')
        kind = kinds[int(sublayer)]
        if inner == 'layer_norm':
          name = f'{kind}_norm.scale'
        elif kind == 'mlp':
          name, array = f'mlp.{HF_NAMES[inner.split(".")[1]]}', array.T
        else:
          long = {'q': 'query', 'k': 'key', 'v': 'value', 'o': 'output'}[inner.split('.')[1]]
          name = f'{"cross_attention" if kind == "cross" else "attention"}.{long}'
          array = array.T
        layers.setdefault(f'{stack}.layers.{name}', {})[int(index)] = array
      elif path.endswith('final_layer_norm.weight'):
        layers[f'{path.split(".")[0]}.norm.scale'] = array
      elif path in ('shared.weight', 'lm_head.weight'):
        layers[HF_NAMES[path]] = array.T if path.startswith('lm_head') else array
      else:
        # Hugging Face writes the shared embedding once more under each stack.
        assert path.endswith('embed_tokens.weight'), path
    return _stacked(layers)

  return convert


@pytest.fixture(scope='session')
def read_safetensors():
  """Reads a float32 .safetensors file as {name: array}."""

  def read(path):
    data = path.read_bytes()
    (size,) = struct.unpack('<Q', data[:8])
    tensors = {}
    for name, entry in json.loads(data[8 : 8 + size]).items():
      if name != '__metadata__':
        assert entry['dtype'] == 'F32', entry
        first, last = (8 + size + offset for offset in entry['data_offsets'])
        array = np.frombuffer(data[first:last], np.float32)
        tensors[name] = array.reshape(entry['shape'])
    return tensors

  return read


@pytest.fixture(scope='session')
def build():
  """Builds a model with random parameters, or with all of those named, padded where short."""

  def build(config, named=None, seed=0):
    options = {'xla_backend_optimization_level': '0'}  # for the compiler is what takes the time
    make = jax.jit(lambda: Transformer(config, nnx.Rngs(params=seed)), compiler_options=options)
    model = make()
    if named is None:
      return model
    unused = set(named)

    def fill(path, value):
      path = parameter_names.path_string(path)
      array = named[path]
      unused.remove(path)
      if 'attention' in path and '_norm' not in path:
        array = array.reshape(value.shape)
      pad = [(0, full - part) for full, part in zip(value.shape, array.shape, strict=True)]
      return jnp.asarray(np.pad(array, pad))

    model = jax.tree_util.tree_map_with_path(fill, model)
    assert not unused, unused
    return model

  return build


@pytest.fixture(scope='session')
def tiny_config():
  """Two and two layers of 32; field=value changes it."""

  def make(**changes):
    sizes = {
      'vocab_size': 120,
      'embed_dim': 32,
      'num_encoder_layers': 2,
      'num_decoder_layers': 2,
      'num_heads': 4,
      'head_dim': 8,
      'mlp_dim': 48,
    }
    return TransformerConfig(**{**sizes, **changes})

  return make


@pytest.fixture(scope='session')
def pack():
  """Packs rows of (inputs, targets) token lists into a batch of the given lengths."""

  def pack(rows, encoder_length, decoder_length):
    batch = {}
    for side, length in (('encoder', encoder_length), ('decoder', decoder_length)):
      for name in ('tokens', 'segment_ids', 'positions'):
        batch[f'{side}_{name}'] = np.zeros((len(rows), length), np.int32)
    batch['decoder_input_tokens'] = np.zeros((len(rows), decoder_length), np.int32)
    for row, examples in enumerate(rows):
      starts = {'encoder': 0, 'decoder': 0}
      for segment, example in enumerate(examples, 1):
        for side, tokens in zip(('encoder', 'decoder'), example, strict=True):
          first, last = starts[side], starts[side] + len(tokens)
          assert last <= batch[f'{side}_tokens'].shape[1], 'the row is too short for its examples'
          batch[f'{side}_tokens'][row, first:last] = tokens
          batch[f'{side}_segment_ids'][row, first:last] = segment
          batch[f'{side}_positions'][row, first:last] = np.arange(len(tokens))
          if side == 'decoder':
            batch['decoder_input_tokens'][row, first + 1 : last] = tokens[:-1]
          starts[side] = last
    batch['encoder_input_tokens'] = batch.pop('encoder_tokens')
    batch['decoder_target_tokens'] = batch.pop('decoder_tokens')
    batch['decoder_loss_weights'] = (batch['decoder_segment_ids'] > 0).astype(np.float32)
    return batch

  return pack


@pytest.fixture(scope='session')
def random_batch(pack):
  """A packed batch of random tokens, two examples a row and padding at the end of each."""

  def make(rows=8, encoder_length=20, decoder_length=14, vocab_size=120, seed=0):
    random = np.random.default_rng(seed)

    def example(longest_input, longest_target):
      sizes = random.integers(2, longest_input), random.integers(2, longest_target)
      return [random.integers(2, vocab_size, size).tolist() for size in sizes]

    halves = encoder_length // 2, decoder_length // 2
    examples = [[example(*halves), example(*halves)] for _ in range(rows)]
    return pack(examples, encoder_length, decoder_length)

  return make


def _stacked(layers):
  return {
    name: np.stack([arrays[i] for i in range(len(arrays))]) if isinstance(arrays, dict) else arrays
    for name, arrays in layers.items()
  }
