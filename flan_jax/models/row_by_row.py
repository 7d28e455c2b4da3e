"""Attention of one row after the other, as one CPU computes it fastest.

Scores of a row stay in the cache, where those of all rows would be written to memory that is new
each time and read back. The backward pass has the weights of short rows from the forward pass, and
computes those of long ones again, from the statistics of the softmax (FlashAttention,
arXiv:2205.14135, section 3.1). Arguments are those of dot_product.attend.
"""

import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from flan_jax.models.config import TransformerConfig
from flan_jax.models.head_products import masked_scores, weighted_sum
from flan_jax.models.layers import drop
from flan_jax.partitioning import layout, out, per_device

# Causal queries are split into so many parts, each of which reads the keys up to its last query
# only: five eighths of the products. More parts leave out more, of products that are then slower.
_CAUSAL_PARTS = 4

# Weights are kept of rows of up to so many keys for each number of a head, which about doubles what
# is kept of a layer.
_KEPT_KEYS = 16

# Names of what the backward pass has from the forward pass: of any row, and of a short one.
_KEPT, _KEPT_WEIGHTS = 'row_by_row', 'row_by_row_weights'


def attend_row_by_row(
  query: jax.Array,
  keys: jax.Array,
  values: jax.Array,
  mask: jax.Array,
  bias: jax.Array | None,
  scale: jax.Array | None,
  config: TransformerConfig,
  *,
  causal: bool,
) -> jax.Array:
  """`dot_product.attend` on a single device, with a mask [batch, length, kv_length]."""
  length, kv_length = mask.shape[1:]
  causal = causal and length == kv_length
  parts = min(_CAUSAL_PARTS, length) if causal else 1

  def one_row(bias, row):
    query, keys, values, mask, scale = jax.tree.map(lambda x: x[None], row)
    attended = []
    for part in range(parts):
      queries = slice(part * length // parts, (part + 1) * length // parts)
      seen = slice(queries.stop if causal else kv_length)
      shared = _share_keys(
        query[:, queries],
        keys[:, seen],
        values[:, seen],
        mask[:, queries, seen],
        None if bias is None else bias[:, queries, seen],
        None if scale is None else scale[..., seen],
      )
      attended.append(_unshare_keys(_attend(config, *shared), query.shape[2]))
    return jnp.concatenate(attended, axis=1)[0]

  short = kv_length <= _KEPT_KEYS * query.shape[3]
  names = (_KEPT, _KEPT_WEIGHTS) if short else (_KEPT,)
  kept = jax.checkpoint_policies.save_only_these_names(*names)
  one_row = jax.checkpoint(one_row, prevent_cse=False, policy=kept)

  def all_rows(bias, *rows):
    return jax.lax.map(functools.partial(one_row, bias), rows)

  args = (bias, query, keys, values, mask, scale)
  axes = out('batch', 'length', 'act_heads', None)
  return per_device(all_rows, jax.tree.map(layout, args), axes)(*args)


def _share_keys(query, keys, values, mask, bias, scale):
  """Query heads that share keys as one head of more queries: larger products, and fewer.

  Of one row; [1, length, heads, head_dim] becomes [1, groups * length, kv_heads, head_dim].
  """
  (_, length, heads, head_dim), kv_heads = query.shape, keys.shape[2]
  groups = heads // kv_heads
  if groups > 1:
    query = query.reshape(1, length, kv_heads, groups, head_dim).transpose(0, 3, 1, 2, 4)
    query = query.reshape(1, groups * length, kv_heads, head_dim)
    mask = jnp.tile(mask, (1, groups, 1))
    if bias is not None:
      bias = bias.reshape(kv_heads, groups * length, -1)
    if scale is not None:
      scale = jnp.repeat(scale.reshape(1, kv_heads, groups, -1), length, axis=2)
  return query, keys, values, mask, bias, scale


def _unshare_keys(attended, heads):
  """The inverse of `_share_keys` for what its queries attend to."""
  _, queries, kv_heads, head_dim = attended.shape
  groups = heads // kv_heads
  attended = attended.reshape(1, groups, queries // groups, kv_heads, head_dim)
  return attended.transpose(0, 2, 3, 1, 4).reshape(1, queries // groups, heads, head_dim)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(config, query, keys, values, mask, bias, scale):
  return _forward(config, query, keys, values, mask, bias, scale)[0]


def _forward(config, query, keys, values, mask, bias, scale):
  scores = masked_scores(query, keys, mask, bias, config)
  most = jnp.max(scores, axis=-1, keepdims=True)
  most = checkpoint_name(most, _KEPT)
  weights = checkpoint_name(jnp.exp(scores - most), _KEPT_WEIGHTS)
  share = 1 / jnp.sum(weights, axis=-1, keepdims=True)
  # float32, whatever the dtype: weights are not yet divided by their sum.
  attended = weighted_sum(drop(weights, scale), values.astype(jnp.float32))
  attended = (attended * share[..., 0].transpose(0, 2, 1)[..., None]).astype(query.dtype)
  attended, share = (checkpoint_name(x, _KEPT) for x in (attended, share))
  return attended, (query, keys, values, mask, bias, scale, attended, weights, share)


def _backward(config, residuals, gradient):
  query, keys, values, mask, bias, scale, attended, weights, share = residuals
  gradient = gradient.astype(jnp.float32)

  def of_scores(query, keys, bias):
    return masked_scores(query, keys, mask, bias, config)

  _, to_arguments = jax.vjp(of_scores, query, keys, bias)
  weights = weights * share
  _, to_factors = jax.vjp(weighted_sum, drop(weights, scale), values.astype(jnp.float32))
  of_weights, of_values = to_factors(gradient)
  # By the softmax: the sum over keys of weights times their gradients, from what is shorter.
  along = jnp.sum(gradient * attended, axis=-1).transpose(0, 2, 1)[..., None]
  of_query, of_keys, of_bias = to_arguments(weights * (drop(of_weights, scale) - along))
  return of_query, of_keys, of_values.astype(values.dtype), None, of_bias, None


_attend.defvjp(_forward, _backward)
