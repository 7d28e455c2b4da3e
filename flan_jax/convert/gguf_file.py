"""Opens GGUF files, llama.cpp's: quantised arrays are read as the float32 that they stand for."""

import functools
import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from flan_jax.convert import gguf_vocabulary, names
from flan_jax.convert.arrays import Stored
from flan_jax.convert.hf_config import read_config
from flan_jax.convert.source import ConvertError, Source
from flan_jax.models.config import RopeScaling
from flan_jax.models.rope import rope_frequencies
from flan_jax.naming import unknown

# `general.architecture` -> model_type of Hugging Face, whose fields say the same.
_MODEL_TYPES = {
  'llama': 'llama',
  'qwen2': 'qwen2',
  'qwen3': 'qwen3',
  'gemma2': 'gemma2',
  'gemma3': 'gemma3_text',
}
_FIELDS = {
  'embedding_length': 'hidden_size',
  'block_count': 'num_hidden_layers',
  'feed_forward_length': 'intermediate_size',
  'attention.head_count': 'num_attention_heads',
  'attention.head_count_kv': 'num_key_value_heads',
  'attention.key_length': 'head_dim',
  'attention.layer_norm_rms_epsilon': 'rms_norm_eps',
  'attention.sliding_window': 'sliding_window',
  'attn_logit_softcapping': 'attn_logit_softcapping',
  'final_logit_softcapping': 'final_logit_softcapping',
  'rope.freq_base': 'rope_theta',
  'rope.freq_base_swa': 'rope_local_base_freq',
}
_HEAD_DIMS = ('attention.value_length', 'rope.dimension_count')  # must be that of the keys
_IRRELEVANT = ('context_length', 'vocab_size', 'rope.scaling.finetuned')
_ROPE_FACTORS = 'rope_freqs.weight'
# llama.cpp knows the 27B of Gemma, whose queries are scaled otherwise, by their layers.
_GEMMA_27B_LAYERS = {'gemma2': 46, 'gemma3': 62}


def open_file(path: str | os.PathLike) -> Source:
  """Opens a GGUF file of a Llama, Qwen 2 or 3, or Gemma 2 or 3.

  Raises:
    ConvertError: it is no GGUF file, damaged, quantised in a way that the package gguf does not
      read, or of another architecture.
  """
  import gguf  # reads slowly, and only here

  title = f'The GGUF file {path}'
  try:
    reader = gguf.GGUFReader(path)
    fields = {
      name: field.contents()
      for name, field in reader.fields.items()
      if not name.startswith('tokenizer.')  # long, and read when they are wanted
    }
  except OSError as e:
    raise ConvertError(f'{title} cannot be read ({e.strerror}).') from e
  except Exception as e:  # whatever the reader makes of bytes that are something else
    raise ConvertError(
      f'{title} is damaged, or has a quantisation that the package gguf does not know: {e}.'
    ) from e
  architecture = str(fields.get('general.architecture'))
  if architecture not in _MODEL_TYPES:
    raise ConvertError(f'{title}: {unknown("architecture", architecture, _MODEL_TYPES)}')
  if fields.get('split.count', 1) > 1:
    raise ConvertError(f"{title} is a part of a model; merge them with llama.cpp's gguf-split.")
  stored = {tensor.name: _stored(tensor, title) for tensor in reader.tensors}
  values = _values(architecture, fields, stored, title)
  _, config = read_config(values, title, stored)
  return Source(
    title,
    config,
    names.GGUF[architecture],
    stored,
    copies={'output.weight': 'token_embd.weight'} if config.tie_embeddings else {},
    unused=f'^{re.escape(_ROPE_FACTORS)}$',
    read_vocabulary=functools.partial(gguf_vocabulary.read, reader, title),
  )


def _stored(tensor: Any, title: str) -> Stored:
  """An array of the file, dequantised when it is read; GGUF writes shapes backwards."""
  import gguf

  kind, data = tensor.tensor_type, tensor.data
  shape = tuple(int(length) for length in reversed(tensor.shape))

  def read(index):
    if len(shape) == 1:
      return gguf.dequantize(data, kind)[index]
    return gguf.dequantize(data[index[0]], kind)[:, *index[1:]]

  try:
    gguf.dequantize(data[:1] if len(shape) > 1 else data, kind)
  except NotImplementedError as e:
    raise ConvertError(
      f'{title}: {tensor.name} is quantised as {kind.name}, which the package gguf does not read; '
      'take a file with another quantisation, such as Q8_0.'
    ) from e
  return Stored(shape, 'float32', read)


def _values(
  architecture: str, fields: Mapping[str, Any], stored: Mapping[str, Stored], title: str
) -> dict[str, Any]:
  """What a config.json of the same model would say."""
  given = {
    name.removeprefix(f'{architecture}.'): _shortest(value)
    for name, value in fields.items()
    if name.startswith(f'{architecture}.')
  }
  given = {name: value for name, value in given.items() if name not in _IRRELEVANT}
  values: dict[str, Any] = {'model_type': _MODEL_TYPES[architecture]}
  values |= {theirs: given.pop(ours) for ours, theirs in _FIELDS.items() if ours in given}
  try:
    embed_dim, heads = values['hidden_size'], values['num_attention_heads']
    values['vocab_size'] = stored['token_embd.weight'].shape[0]
  except KeyError as e:
    raise ConvertError(f'{title} is no whole model: it says no {e}.') from e
  head_dim = values.setdefault('head_dim', embed_dim // heads)
  if architecture.startswith('gemma'):
    large = values.get('num_hidden_layers') == _GEMMA_27B_LAYERS[architecture]
    values['query_pre_attn_scalar'] = embed_dim // heads if large else head_dim
  for name in _HEAD_DIMS:
    if given.pop(name, head_dim) != head_dim:
      raise ConvertError(f'{title}: {architecture}.{name} must be the width of a head, {head_dim}.')
  values['tie_word_embeddings'] = 'output.weight' not in stored
  values['rope_scaling'] = _rope_scaling(given, values, stored, title)
  return values | given  # what is left is refused by name


def _rope_scaling(given, values, stored, title) -> dict[str, Any] | None:
  """Linear scaling is a field; Llama 3's is an array of what every frequency is divided by."""
  kind = given.pop('rope.scaling.type', 'none')
  factor = given.pop('rope.scaling.factor', 1.0)
  if _ROPE_FACTORS not in stored:
    return None if kind == 'none' else {'rope_type': kind, 'factor': factor}
  factors = stored[_ROPE_FACTORS].read((slice(None),))
  # The other three numbers are those of every Llama that has been published.
  llama3 = RopeScaling(kind='llama3', factor=float(_shortest(float(factors.max()))))
  frequencies = rope_frequencies(values['head_dim'], values['rope_theta'], None)
  scaled = rope_frequencies(values['head_dim'], values['rope_theta'], llama3)
  if factors.shape != scaled.shape or not np.allclose(frequencies / factors, scaled, rtol=1e-4):
    raise ConvertError(f'{title}: {_ROPE_FACTORS} are not those of Llama 3.1, 3.2 or 3.3.')
  return {
    'rope_type': llama3.kind,
    'factor': llama3.factor,
    'low_freq_factor': llama3.low_freq_factor,
    'high_freq_factor': llama3.high_freq_factor,
    'original_max_position_embeddings': llama3.original_length,
  }


def _shortest(value: Any) -> Any:
  """A float32 as the decimal that it was made of: 9.999999747378752e-06 -> 1e-05."""
  return float(str(np.float32(value))) if isinstance(value, float) else value
