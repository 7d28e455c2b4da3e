"""What attention computes between its projections: scores, softmax, weighted sum of values."""

import jax
import jax.numpy as jnp

from flan_jax.models.config import TransformerConfig
from flan_jax.models.head_products import masked_scores, weighted_sum
from flan_jax.models.layers import drop
from flan_jax.models.row_by_row import attend_row_by_row
from flan_jax.models.tiled_attention import attend_in_tiles
from flan_jax.partitioning import on_one_cpu

# Bytes of float32 scores from which a CPU attends row by row: more than its cache holds.
_ROW_BY_ROW = 2**23


def attend(
  query: jax.Array,
  keys: jax.Array,
  values: jax.Array,
  mask: jax.Array,
  bias: jax.Array | None,
  scale: jax.Array | None,
  config: TransformerConfig,
  *,
  causal: bool = False,
  tile: int | None = None,
) -> jax.Array:
  """The values that each query attends to, in the dtype of `query`.

  Args:
    query: [batch, length, heads, head_dim].
    keys, values: [batch, kv_length, kv_heads, head_dim].
    mask: bool [batch or 1, length or 1, kv_length], true where a query may look.
    bias: float32 [heads, length, kv_length] added to the scores, or None; with `tile`, as
      tiled_attention.attend_in_tiles takes it.
    scale: [batch, heads, 1, kv_length] multiplies the softmax to drop keys, or None.
    config: has what the scores are multiplied by and where they bend.
    causal: queries and keys are the same tokens, and the mask hides from each query the keys that
      follow it, so that they may be left out.
    tile: of tiled_attention.tile_for, where the keys that a query may look at lie beside each
      other; None else.

  Returns:
    [batch, length, heads, head_dim].
  """
  if tile:
    return attend_in_tiles(query, keys, values, mask, bias, scale, config, tile=tile)
  rows, length, heads, _ = query.shape
  scores_bytes = 4 * rows * heads * length * keys.shape[1]
  if scores_bytes >= _ROW_BY_ROW and on_one_cpu():
    mask = jnp.broadcast_to(mask, (rows, length, keys.shape[1]))
    return attend_row_by_row(query, keys, values, mask, bias, scale, config, causal=causal)
  scores = masked_scores(query, keys, mask, bias, config)
  weights = drop(jax.nn.softmax(scores, axis=-1).astype(query.dtype), scale)
  return weighted_sum(weights, values)
