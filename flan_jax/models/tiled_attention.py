"""Attention in tiles that never leave the chip's memory: where it serves, and on a mesh.

No array holds the scores of all queries and keys. What is peculiar here is T5's bias: it depends on
the distance alone and is one number for each head beyond `max_distance`, so that a few tiles, or a
row, hold all of it, and its gradient is summed up in as many; and the mask, an interval of keys for
each query, which packed examples, causal order, prefixes and windows all are.
"""

import math

import jax
import jax.numpy as jnp

from flan_jax.models import intervals
from flan_jax.models.config import TransformerConfig
from flan_jax.partitioning import is_split, layout, per_device, platform, shard

# A tile of keys lies -2, -1, 0, 1 or 2 tiles from one of queries, the outer two for all beyond.
DIAGONALS = 5
ATTENTION, GRADIENTS = 'attention', 'attention_gradients'  # names of the kernels for TPUs
KEPT = 'tiled_attention'  # name of what the backward pass has from the forward pass
_TILES = (512, 256, 128)
# Padding that a larger tile may cost.
_PADDED = 1.125
# Of the widths that the kernels for GPUs multiply: 256 leave no room for two tiles.
_GPU_HEAD_DIMS = (16, 32, 64, 128)
# For tests: the device whose kernels are interpreted on another, 'tpu' or 'gpu'.
INTERPRETED: str | None = None


def tile_for(config: TransformerConfig, length: int, kv_length: int) -> int | None:
  """Queries and keys of a tile, or None where attention is left to XLA.

  So it is on CPUs and without `attention_kernels`; for scores that are bent, a length split over
  chips, few queries or keys; on TPUs for rows too long for the chip's fast memory and a bias that
  changes beyond a tile; on GPUs for unusual widths of heads.
  """
  kernels, bends = config.attention_kernels and _kernels(), config.attention_softcap
  if not kernels or bends or is_split('length') or min(length, kv_length) < _TILES[-1]:
    return None
  if kernels == 'gpu':
    return _TILES[-1] if config.head_dim in _GPU_HEAD_DIMS else None
  return _tile_of_tpu(config, length, kv_length)


def _tile_of_tpu(config, length, kv_length):
  from flan_jax.models.attention_kernels_tpu import bytes_needed

  biased, memory = config.position == 'relative_bias', _fast_memory()
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


def distances(tile: int, limit: int) -> jax.Array:
  """Key position - query position of each number of a bias, as the kernels read it.

  Args:
    tile: of `tile_for`.
    limit: distance from which on the bias is the same.

  Returns:
    int32 [DIAGONALS, tile, tile], [.., key, query]; for GPUs [2 * limit + 1].
  """
  if _kernels() == 'gpu':
    return jnp.arange(-limit, limit + 1)
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
    bias: float32 [heads, *distances(tile, limit).shape], where queries and keys are the same
      tokens, or None.
    config: has what the scores are multiplied by.
    tile: of `tile_for`.
  """
  rows, length, _, _ = query.shape
  mask = jnp.broadcast_to(mask, (rows, length, keys.shape[1]))
  start, stop = intervals.of_mask(mask)
  if scale is not None:
    scale = shard(scale, 'batch', 'act_heads', None, None)

  def of_device(bias, scale, query, keys, values, *interval):
    if scale is not None:  # each query head drops keys of its own
      groups = query.shape[2] // keys.shape[2]
      keys, values = (jnp.repeat(x, groups, axis=2) for x in (keys, values))
      values = (values * scale.transpose(0, 3, 1, 2)).astype(query.dtype)
    padded = [_pad(x, tile) for x in (query, keys, values, *interval)]
    return _attend(config.score_scale, tile, padded, bias)[:, :length]

  args = (bias, scale, query, keys, values, start, stop)
  return per_device(of_device, jax.tree.map(layout, args), layout(query))(*args)


def _attend(scale, tile, padded, bias) -> jax.Array:
  """By the kernels of the device. They are imported here: Pallas takes a tenth of a second."""
  if _kernels() == 'gpu':
    from flan_jax.models import attention_kernels_gpu

    return attention_kernels_gpu.attend(scale, *padded, bias)
  from flan_jax.models import attention_kernels_tpu

  query, keys, values = (x.transpose(0, 2, 3, 1) for x in padded[:3])
  attended: jax.Array = attention_kernels_tpu.attend(
    tile, scale, query, keys, values, *padded[3:], bias
  )
  return attended.transpose(0, 3, 1, 2)


def _kernels() -> str | None:
  """The device whose kernels attend, 'tpu' or 'gpu'."""
  return platform() if platform() in ('tpu', 'gpu') else INTERPRETED


def _fast_memory() -> int:
  """Bytes of it that a TPU has."""
  if platform() != 'tpu':
    return 2**24
  from jax.experimental.pallas import tpu

  return tpu.get_tpu_info().vmem_capacity_bytes


def _padded(length, tile):
  return math.ceil(length / tile) * tile


def _pad(x, tile):
  """Zeros at the end of the length: keys that none looks at, queries that see none."""
  more = _padded(x.shape[1], tile) - x.shape[1]
  return jnp.pad(x, [(0, 0), (0, more), *[(0, 0)] * (x.ndim - 2)])
