"""Opens models of llama2.c in its first, float32 layout: a header, arrays one after the other."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from flan_jax.convert import names
from flan_jax.convert.arrays import Stored
from flan_jax.convert.hf_families import FAMILIES
from flan_jax.convert.source import ConvertError, Source
from flan_jax.data import vocabularies
from flan_jax.models.config import TransformerConfig
from flan_jax.naming import some

_HEADER = 7  # int32: dim, hidden_dim, layers, heads, kv_heads, vocabulary, length
_MAGIC = 0x616B3432  # what later layouts begin with
_EPSILON = 1e-5


def open_folder(folder: str | os.PathLike) -> Source:
  """Opens a folder with a model and its vocabulary: stories260K.bin and tok512.bin.

  Raises:
    ConvertError: it holds no such model, or not exactly one.
  """
  folder = Path(folder)
  files = sorted(folder.glob('*.bin'))
  tokenizers = [path for path in files if path.name.startswith('tok')]
  models = [path for path in files if path not in tokenizers]
  if len(models) != 1 or len(tokenizers) > 1:
    raise ConvertError(
      f'{folder} should hold one model of llama2.c and its vocabulary, such as stories260K.bin and '
      f'tok512.bin; it holds these .bin files: {some(path.name for path in files)}.'
    )

  def read_vocabulary():
    return vocabularies.get_vocabulary(tokenizers[0]) if tokenizers else None

  title = f'The llama2.c model {models[0]}'
  config, length = _config(models[0], title)
  stored = _arrays(models[0], title, config, length)
  unused = '^freq_cis_'  # angles that follow from the configuration
  return Source(
    title, config, names.LLAMA2C, stored, unused=unused, read_vocabulary=read_vocabulary
  )


def _config(path: Path, title: str) -> tuple[TransformerConfig, int]:
  """The configuration in the header, and the longest length."""
  header = [int(number) for number in np.fromfile(path, '<i4', count=_HEADER)]
  if header[:1] == [_MAGIC]:
    raise ConvertError(
      f'{title} has the layout of version {header[1]}; export it again as float32 of version 0.'
    )
  if len(header) < _HEADER or min(header[:5]) < 1 or header[0] % header[3] or not header[5]:
    raise ConvertError(f'{title} has no header of llama2.c: {header}. Give its .bin file.')
  dim, hidden_dim, layers, heads, kv_heads, vocab_size, length = header
  values: dict[str, Any] = dict(FAMILIES['llama'].fixed)
  tied = vocab_size > 0  # the sign is that of a flag
  if not tied:
    del values['scale_tied_logits']
  config = TransformerConfig(
    vocab_size=abs(vocab_size),
    embed_dim=dim,
    num_decoder_layers=layers,
    num_heads=heads,
    num_kv_heads=kv_heads,
    head_dim=dim // heads,
    mlp_dim=hidden_dim,
    norm_epsilon=_EPSILON,
    tie_embeddings=tied,
    **values,
  )
  return config, length


def _arrays(path, title, config: TransformerConfig, length: int) -> dict[str, Stored]:
  """The arrays of the file in their order."""
  layers, dim, mlp = config.num_decoder_layers, config.embed_dim, config.mlp_dim
  heads, kv_heads = config.num_heads * config.head_dim, config.kv_heads * config.head_dim
  shapes = {
    'token_embedding_table': (config.vocab_size, dim),
    'rms_att_weight': (layers, dim),
    'wq': (layers, heads, dim),
    'wk': (layers, kv_heads, dim),
    'wv': (layers, kv_heads, dim),
    'wo': (layers, dim, heads),
    'rms_ffn_weight': (layers, dim),
    'w1': (layers, mlp, dim),
    'w2': (layers, dim, mlp),
    'w3': (layers, mlp, dim),
    'rms_final_weight': (dim,),
    'freq_cis_real': (length, config.head_dim // 2),
    'freq_cis_imag': (length, config.head_dim // 2),
  }
  if not config.tie_embeddings:
    shapes['wcls'] = (config.vocab_size, dim)
  sizes = [int(np.prod(shape)) for shape in shapes.values()]
  expected = 4 * (_HEADER + sum(sizes))
  if path.stat().st_size != expected:
    raise ConvertError(
      f'{title} has {path.stat().st_size:,} bytes and its header asks for {expected:,}; it is cut '
      'short, or no float32 of version 0.'
    )
  starts = np.cumsum([_HEADER, *sizes])
  floats = np.memmap(path, '<f4', mode='r')
  return {
    name: Stored(shape, 'float32', floats[start : start + size].reshape(shape).__getitem__)
    for (name, shape), start, size in zip(shapes.items(), starts, sizes, strict=False)
  }
