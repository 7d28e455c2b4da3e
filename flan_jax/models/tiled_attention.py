"""Attention in tiles that never leave the chip's memory: where it serves, and on a mesh.

No array holds the scores of all queries and keys. What is peculiar here is T5's bias: it depends on
the distance alone and is one number for each head beyond `max_distance`, so that a few tiles hold
all of it, and its gradient is summed up in as many; and the mask, an interval of keys for each
query, which packed examples, causal order, prefixes and windows all are.
"""

import math

import jax
import jax.numpy as jnp

from flan_jax.models.config import TransformerConfig
from flan_jax.partitioning import is_split, layout, per_device, platform, shard

# A tile of keys lies -2, -1, 0, 1 or 2 tiles from one of queries, the outer two for all beyond.
DIAGONALS = 5
KEPT = 'tiled_attention'  # name of what the backward pass has from the forward pass
_TILES = (512, 256, 128)
# Padding that a larger tile may cost.
_PADDED = 1.125
# Of a device without such memory, on which the kernels are interpreted: None, and XLA attends.
INTERPRETED: int | None = None


def tile_for(config: TransformerConfig, length: int, kv_length: int) -> int | None:
  """Queries and keys of a tile, or None where attention is left to XLA.

  So it is on other devices than TPUs; for scores that are bent, a length split over chips, few
  queries or keys, rows too long for the chip's fast memory, and a bias that changes beyond a tile.
  """
  bends, biased = config.attention_softcap, config.position == 'relative_bias'
  memory = _fast_memory()
  if not memory or bends or is_split('length') or min(length, kv_length) < _TILES[-1]:
    return None
  from flan_jax.models.attention_kernels import bytes_needed  # a tenth of a second, for TPUs alone

  for tile in _TILES:
    if biased and tile < config.relative_bias_max_distance:
      return None
    wasted = max(_padded(x, tile) / x for x in (length, kv_length))
    if wasted > _PADDED and tile > _TILES[-1]:
      continue
    row = config.head_dim, _padded(max(length, kv_length), tile)
    if bytes_needed(row, (DIAGONALS if biased else 0, tile, tile)) <= memory:
      return tile
  return None


def distances(tile: int) -> jax.Array:
  """Key position - query position in the tiles of a bias: int32 [DIAGONALS, tile, tile]."""
  along = jnp.arange(tile)
  apart = tile * (jnp.arange(DIAGONALS) - DIAGONALS // 2)
  return apart[:, None, None] + along[:, None] - along


def attend_in_tiles(
  query: jax.Array,
  keys: jax.Array,
  values: jax.Array,
  mask: jax.Array,
  bias: jax.Array | None,
  scale: jax.Array | None,
  config: TransformerConfig,
  *,
  tile: int,
) -> jax.Array:
  """`dot_product.attend`, but that a query which may look at nothing attends to 0.

  Args:
    query, keys, values, scale: as there.
    mask: as there; the keys that a query may look at lie beside each other.
    bias: float32 [heads, DIAGONALS, tile, tile] of `distances(tile)`, where queries and keys are
      the same tokens, or None.
    config: has what the scores are multiplied by.
    tile: of `tile_for`.
  """
  from flan_jax.models.attention_kernels import attend

  rows, length, _, _ = query.shape
  mask = jnp.broadcast_to(mask, (rows, length, keys.shape[1]))
  start = jnp.argmax(mask, axis=2).astype(jnp.int32)
  stop = start + jnp.sum(mask, axis=2, dtype=jnp.int32)
  query, keys, values = (x.transpose(0, 2, 3, 1) for x in (query, keys, values))
  if scale is not None:
    scale = shard(scale, 'batch', 'act_heads', None, None)

  def of_device(bias, scale, query, keys, values, *interval):
    if scale is not None:  # each query head drops keys of its own
      groups = query.shape[1] // keys.shape[1]
      keys, values = (jnp.repeat(x, groups, axis=1) for x in (keys, values))
      values = (values * scale).astype(query.dtype)
    padded = (_pad(x, tile) for x in (query, keys, values, *interval))
    attended: jax.Array = attend(tile, config.score_scale, *padded, bias)
    return attended[..., :length]

  args = (bias, scale, query, keys, values, start, stop)
  attended = per_device(of_device, jax.tree.map(layout, args), layout(query))(*args)
  return attended.transpose(0, 3, 1, 2)


def _fast_memory() -> int | None:
  """Bytes of it that the device has, None for one that has no such memory."""
  if platform() != 'tpu':
    return INTERPRETED
  from jax.experimental.pallas import tpu

  return tpu.get_tpu_info().vmem_capacity_bytes


def _padded(length, tile):
  return math.ceil(length / tile) * tile


def _pad(x, tile):
  """Zeros at the end of the last dimension: keys that none looks at, queries that see none."""
  more = _padded(x.shape[-1], tile) - x.shape[-1]
  return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, more)])
