"""Attention of every kind: self and cross, training and decoding, by where keys come from."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from flan_jax.models.config import TransformerConfig
from flan_jax.models.dot_product import attend
from flan_jax.models.keys import Rngs
from flan_jax.models.layers import Norm, normal, parameter, uniform, zeros
from flan_jax.models.lora import add_adapters, project
from flan_jax.models.rope import Rotation, rotate
from flan_jax.models.tiled_attention import distances
from flan_jax.partitioning import out, shard


class Attention(nnx.Module):
  """Multi-head attention; what the queries' scores are multiplied by is the config's."""

  def __init__(self, config: TransformerConfig, rngs: Rngs):
    embed, heads, kv_heads = config.embed_dim, config.num_heads, config.kv_heads
    head_dim = config.head_dim
    # T5 has no 1/sqrt(head_dim) in the scores; its initialiser of the query holds it instead
    # (arXiv:1910.10683; T5X's layers.py).
    query = normal(1 / math.sqrt(embed * head_dim) / config.score_scale)
    key = normal(1 / math.sqrt(embed))
    output = normal(1 / math.sqrt(heads * head_dim))
    self.query = parameter(rngs, query, (embed, heads, head_dim), ('embed', 'heads', 'head_dim'))
    # The one head of multi-query attention serves all query heads: no mesh splits it, as if it were
    # a part of its width.
    kv_heads_axis = 'kv_heads' if kv_heads > 1 else 'head_dim'
    kv_shape, kv_names = (embed, kv_heads, head_dim), ('embed', kv_heads_axis, 'head_dim')
    self.key = parameter(rngs, key, kv_shape, kv_names)
    self.value = parameter(rngs, key, kv_shape, kv_names)
    self.output = parameter(rngs, output, (heads, head_dim, embed), ('heads', 'head_dim', 'embed'))
    if config.qkv_bias:
      self.query_bias = parameter(rngs, zeros, (heads, head_dim), ('heads', 'head_dim'))
      self.key_bias = parameter(rngs, zeros, kv_shape[1:], kv_names[1:])
      self.value_bias = parameter(rngs, zeros, kv_shape[1:], kv_names[1:])
    if config.qk_norm:
      self.query_norm = Norm(config, rngs, head_dim)
      self.key_norm = Norm(config, rngs, head_dim)
    add_adapters(self, config.lora, rngs)
    self.config = config

  def project_kv(
    self, x: jax.Array, rotation: Rotation | None = None
  ) -> tuple[jax.Array, jax.Array]:
    """[batch, kv_length, embed] -> keys and values [batch, kv_length, kv_heads, head_dim].

    `rotation` is that of the keys' positions, or None.
    """
    x = shard(x, 'batch', 'kv_length', 'act_embed')
    axes = kv_axes(self.config)
    keys, values = project(self, 'key', x, *axes), project(self, 'value', x, *axes)
    if self.config.qkv_bias:
      keys = keys + self.key_bias[...].astype(x.dtype)
      values = values + self.value_bias[...].astype(x.dtype)
    if self.config.qk_norm:
      keys = self.key_norm(keys)
    if rotation is not None:
      # Positions of keys, not of queries: every device holds all of its rows' keys.
      rotation = Rotation(*(shard(x, 'batch', 'kv_length', None) for x in rotation))
      keys = rotate(keys, rotation)
    return keys, values

  def __call__(
    self,
    x: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    mask: jax.Array,
    bias: jax.Array | None = None,
    scale: jax.Array | None = None,
    rotation: Rotation | None = None,
    *,
    causal: bool = False,
    tile: int | None = None,
  ) -> jax.Array:
    """Attends from `x` to keys and values.

    Args:
      x: [batch, length, embed], normalised.
      keys, values: [batch, kv_length, kv_heads, head_dim], from `project_kv`.
      mask: bool [batch, length, kv_length], true where a query may look.
      bias, scale, causal, tile: as in dot_product.attend.
      rotation: of the queries' positions, or None.

    Returns:
      [batch, length, embed], before the residual is added.
    """
    query = project(self, 'query', x, 'batch', 'length', 'act_heads', None)
    if self.config.qkv_bias:
      query = query + self.query_bias[...].astype(x.dtype)
    if self.config.qk_norm:
      query = self.query_norm(query)
    if rotation is not None:
      query = rotate(query, rotation)
    heads = attend(query, keys, values, mask, bias, scale, self.config, causal=causal, tile=tile)
    return project(self, 'output', heads, 'batch', 'length', 'act_embed')


def kv_axes(config: TransformerConfig) -> tuple[str | None, ...]:
  """Logical axes of keys and values, [batch, kv_length, kv_heads, head_dim]."""
  return ('batch', 'kv_length', 'act_heads' if config.kv_heads > 1 else None, None)


class RelativeBias(nnx.Module):
  """T5's bias on scores by the distance from query to key, shared by all layers of a stack."""

  def __init__(self, config: TransformerConfig, rngs: Rngs, *, bidirectional: bool):
    buckets, heads = config.relative_bias_buckets, config.num_heads
    limit = math.sqrt(6 / (buckets + heads))
    self.table = parameter(rngs, uniform(limit), (heads, buckets), ('heads', 'buckets'))
    self.max_distance = config.relative_bias_max_distance
    self.bidirectional = bidirectional

  def __call__(self, query_positions: jax.Array, key_positions: jax.Array) -> jax.Array:
    """Positions [length] and [kv_length] in tokens of a row -> float32 [heads, length, kv_length].

    Positions count along the row, not from the start of each packed example: within an example
    the distance is the same, and elsewhere the mask hides it. So all rows share one bias.
    """
    distance = key_positions[None, :] - query_positions[:, None]
    return self._of(distance, 'length', 'kv_length')

  def tiles(self, tile: int) -> jax.Array:
    """The same for `tiled_attention`: float32 [heads, ...], see its `distances`."""
    apart = distances(tile, self.max_distance)
    return self._of(apart, *[None] * apart.ndim)

  def _of(self, distance, *axes):
    bucket = relative_bucket(
      distance, self.table.shape[1], self.max_distance, bidirectional=self.bidirectional
    )
    return self.table[...].at[:, bucket].get(out_sharding=out('act_heads', *axes))


def relative_bucket(
  distance: jax.Array, num_buckets: int, max_distance: int, *, bidirectional: bool
) -> jax.Array:
  """Buckets of the distances key position - query position, both int32 of any shape.

  Half of the buckets (of each direction's, when bidirectional) hold one distance each, the others
  grow logarithmically up to max_distance, and the last takes all beyond. Source: arXiv:1910.10683,
  section 2.1, and T5X's layers.py. Without `bidirectional`, keys that follow share bucket 0.
  """
  offset = 0
  if bidirectional:
    num_buckets //= 2
    offset = num_buckets * (distance > 0)
    distance = jnp.abs(distance)
  else:
    distance = jnp.maximum(-distance, 0)
  exact = num_buckets // 2
  # The log is of float32 as T5 has it: rounding decides the bucket where it is a whole number.
  ratio = jnp.log(jnp.maximum(distance, 1).astype(jnp.float32) / exact)
  growing = exact + (ratio / math.log(max_distance / exact) * (num_buckets - exact)).astype(
    jnp.int32
  )
  growing = jnp.minimum(growing, num_buckets - 1)
  return offset + jnp.where(distance < exact, distance, growing)


def attention_mask(
  segment_ids: jax.Array,
  kv_segment_ids: jax.Array,
  *,
  causal: bool = False,
  prefix: jax.Array | None = None,
) -> jax.Array:
  """Who may look at whom: bool [batch, length, kv_length].

  A query sees the keys of its own packed example, never padding (segment 0), and when causal
  none that come later in the row, but for those of `prefix`, bool [batch, kv_length].
  """
  kv_segment_ids = shard(kv_segment_ids, 'batch', 'kv_length')
  mask = segment_ids[:, :, None] == kv_segment_ids[:, None, :]
  mask &= kv_segment_ids[:, None, :] > 0
  if causal:
    order = jnp.arange(segment_ids.shape[1])
    seen = order[:, None] >= order[None, :]
    if prefix is not None:
      seen = seen | shard(prefix, 'batch', 'kv_length')[:, None, :]
    mask &= seen
  return mask


def within_window(positions: jax.Array, kv_positions: jax.Array, window: int) -> jax.Array:
  """Which keys are fewer than `window` tokens away.

  int32 [batch, length] and [batch, kv_length] -> bool [batch, length, kv_length].
  """
  kv_positions = shard(kv_positions, 'batch', 'kv_length')
  return jnp.abs(positions[:, :, None] - kv_positions[:, None, :]) < window
