"""Opens T5X checkpoints: the legacy layout of msgpack and zarr, and that of T5X on Orbax.

They hold no configuration. What it is follows from the arrays, but for two things that all of
T5X's own models have: gates are gelu's, and relative positions end at a distance of 128.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import serialization

from flan_jax.convert import names, zarr_arrays
from flan_jax.convert.arrays import Stored
from flan_jax.convert.source import ConvertError, Source
from flan_jax.models.config import TransformerConfig

_LEGACY = 'checkpoint'  # a file, beside the folders of its arrays
_ORBAX = Path('state', zarr_arrays.METADATA)


def open_checkpoint(folder: str | os.PathLike) -> Source:
  """Opens `checkpoint_STEP`, or the last one in a model's folder.

  Raises:
    ConvertError: it is no checkpoint of T5X, damaged, or of no T5.
  """
  folder = _newest(Path(folder))
  title = f'The T5X checkpoint {folder}'
  if (folder / _ORBAX).exists():
    arrays = zarr_arrays.open_orbax((folder / _ORBAX).parent)
    stored = {'.'.join(keys[1:]): x for keys, x in arrays.items() if keys[0] == 'target'}
  else:
    stored = dict(_open_legacy(folder / _LEGACY))
  scanned = 'decoder.decoder.mlp.wo.kernel' in stored
  try:
    config = _config(stored, scanned)
  except LookupError as e:
    raise ConvertError(f'{title} is of no T5: it has no array {e}.') from e
  except ValueError as e:
    raise ConvertError(f'{title}: its arrays are those of no model: {e}') from e
  table = names.T5X_SCANNED if scanned else names.T5X
  return Source(title, config, names.with_activation(table, config.activation), stored)


def _newest(folder: Path) -> Path:
  """The folder of one checkpoint."""
  if not folder.name.startswith('checkpoint_') and folder.is_dir():
    steps = [path for path in folder.iterdir() if re.fullmatch(r'checkpoint_\d+', path.name)]
    if steps:
      folder = max(steps, key=lambda path: int(path.name.split('_')[1]))
  if not (folder / _ORBAX).exists() and not (folder / _LEGACY).is_file():
    raise ConvertError(
      f'{folder} is no T5X checkpoint: it has neither a file {_LEGACY} nor {_ORBAX}. Give a '
      'folder checkpoint_STEP, or the one that holds it.'
    )
  return folder


def _open_legacy(path: Path) -> dict[str, Stored]:
  """The arrays of the optimizer's target: in folders beside, small ones in the file itself."""
  try:
    tree: Any = serialization.msgpack_restore(path.read_bytes())
    leaves = _leaves(tree['optimizer']['target'], ())
  except Exception as e:  # whatever msgpack makes of bytes that are something else
    raise ConvertError(
      f'{path} is damaged or was not written by T5X: {e!r}. Copy the checkpoint again.'
    ) from e
  stored = {}
  for name, leaf in leaves.items():
    if isinstance(leaf, np.ndarray):
      stored[name] = Stored(leaf.shape, leaf.dtype.name, leaf.__getitem__)
    else:
      # Where it was written is of no matter: the folder was copied since.
      stored[name] = zarr_arrays.open_zarr(path.parent / Path(leaf['kvstore']['path']).name)
  return stored


def _leaves(tree: Mapping[str, Any], prefix: tuple[str, ...]) -> dict[str, Any]:
  """Arrays, and what TensorStore opens one by, by their path."""
  found = {}
  for key, value in tree.items():
    path = (*prefix, key)
    if isinstance(value, Mapping) and 'kvstore' not in value:
      found |= _leaves(value, path)
    else:
      found['.'.join(path)] = value
  return found


def _config(stored: Mapping[str, Stored], scanned: bool) -> TransformerConfig:
  """The configuration that the shapes of the arrays tell.

  Raises:
    LookupError: an array is missing that every T5 has.
  """

  def layers(stack):
    if scanned:
      return stored[f'{stack}.{stack}.mlp.wo.kernel'].shape[1]
    found = (re.match(rf'{stack}\.layers_(\d+)\.', name) for name in stored)
    return 1 + max((int(match[1]) for match in found if match), default=-1)

  inside = 'decoder.decoder' if scanned else 'decoder.layers_0'
  bias = stored[f'{"decoder.decoder" if scanned else "decoder"}.relpos_bias.rel_embedding'].shape
  query = stored[f'{inside}.self_attention.query.kernel'].shape
  vocab_size, embed_dim = stored['token_embedder.embedding'].shape
  return TransformerConfig(
    vocab_size=vocab_size,
    embed_dim=embed_dim,
    num_encoder_layers=layers('encoder'),
    num_decoder_layers=layers('decoder'),
    num_heads=bias[0],
    head_dim=query[-1] if scanned else query[-1] // bias[0],
    mlp_dim=stored[f'{inside}.mlp.wo.kernel'].shape[0],
    activation='gated_gelu' if f'{inside}.mlp.wi_0.kernel' in stored else 'relu',
    relative_bias_buckets=bias[-1],
    relative_bias_per_layer=scanned,
    tie_embeddings='decoder.logits_dense.kernel' not in stored,
  )
