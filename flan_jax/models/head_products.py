"""The two products of attention, masked scores and the weighted sum of values, and their gradients.

Einsum letters: b batch, t query length, s key length, n query heads, k key/value heads, g query
heads of each, h head_dim.
"""

import jax
import jax.numpy as jnp

from flan_jax.models.config import TransformerConfig
from flan_jax.models.layers import softcap
from flan_jax.partitioning import layout, out

# Added to nothing: scores that the mask hides are replaced by it. Finite, so that a row of
# padding, which may look at nothing, gets a uniform softmax and not NaN.
HIDDEN_SCORE = -1e10


def masked_scores(
  query: jax.Array,
  keys: jax.Array,
  mask: jax.Array,
  bias: jax.Array | None,
  config: TransformerConfig,
) -> jax.Array:
  """What the softmax is taken of, float32 [batch, heads, length, kv_length].

  Arguments are those of dot_product.attend.
  """
  scores = _scores(query, keys)
  if config.score_scale != 1.0:
    scores = scores * config.score_scale
  scores = softcap(scores, config.attention_softcap)
  if bias is not None:
    scores = _add_bias(scores, bias)
  return jnp.where(mask[:, None], scores, HIDDEN_SCORE)


# Each is also the gradient of the other, by the queries or the weights.
_TO_SCORES, _TO_HEADS = 'bnth,bnsh->bnts', 'bnts,bnsh->bnth'


def _scores(query, keys):
  """btnh, bskh -> float32 bnts: the queries' products with their keys.

  The softmax is float32, too: bfloat16 tells 256 scores apart between 64 and 128.
  """
  query, keys = query.transpose(0, 2, 1, 3), keys.transpose(0, 2, 1, 3)
  if query.shape[1] == keys.shape[1]:
    axes = out('batch', 'act_heads', 'length', 'kv_length')
    return _product_of_heads(query, keys, _TO_SCORES, axes)
  # Keys are not repeated for the query heads that share them: each step of decoding would copy
  # them, which takes three times as long as the products (SmolLM2 on a CPU).
  groups = _group_axes(keys)
  query = _split_heads(query, keys.shape[1], (*groups, 'length', None))
  axes = out('batch', *groups, 'length', 'kv_length')
  scores = jnp.einsum(
    'bkgth,bksh->bkgts', query, keys, preferred_element_type=jnp.float32, out_sharding=axes
  )
  return _join_heads(scores, ('length', 'kv_length'))


def weighted_sum(weights: jax.Array, values: jax.Array) -> jax.Array:
  """The values by their weights: bnts, bskh -> btnh."""
  values = values.transpose(0, 2, 1, 3)
  if weights.shape[1] == values.shape[1]:
    axes = out('batch', 'act_heads', 'length', None)
    return _product_of_heads(weights, values, _TO_HEADS, axes).transpose(0, 2, 1, 3)
  groups = _group_axes(values)
  weights = _split_heads(weights, values.shape[1], (*groups, 'length', 'kv_length'))
  axes = out('batch', *groups, 'length', None)
  heads = jnp.einsum('bkgts,bksh->bkgth', weights, values, out_sharding=axes)
  return _join_heads(heads, ('length', None)).transpose(0, 2, 1, 3)


# The gradients of both products are written out for the sake of those of keys and values. JAX's own
# sum over the first dimension of [length, kv_length], which XLA on CPU turns around for it; here
# the narrow other factor is turned around.
def _of_heads(x, kv, equation, axes):
  dtype = jnp.float32 if equation == _TO_SCORES else None
  return jnp.einsum(equation, x, kv, preferred_element_type=dtype, out_sharding=axes)


_product_of_heads = jax.custom_vjp(_of_heads, nondiff_argnums=(2, 3))


def _of_heads_forward(x, kv, equation, axes):
  return _of_heads(x, kv, equation, axes), (x, kv)


def _of_heads_backward(equation, axes, residuals, gradient):
  del axes
  x, kv = residuals
  gradient = gradient.astype(x.dtype)
  back = _TO_HEADS if equation == _TO_SCORES else _TO_SCORES
  of_x = jnp.einsum(back, gradient, kv, out_sharding=layout(x))
  narrow, wide = (x, gradient) if equation == _TO_SCORES else (gradient, x)
  return of_x, _sum_over_queries(narrow, wide, kv)


_product_of_heads.defvjp(_of_heads_forward, _of_heads_backward)


def _sum_over_queries(narrow, wide, kv):
  """bnth, bnts -> bnsh, laid out as `kv`."""
  axes = layout(kv.transpose(0, 1, 3, 2))
  turned = jnp.einsum('bnht,bnts->bnhs', narrow.transpose(0, 1, 3, 2), wide, out_sharding=axes)
  return turned.transpose(0, 1, 3, 2)


def _group_axes(kv):
  """Logical axes of key/value heads and of the query heads of each: a mesh splits one of them."""
  return ('act_heads', None) if kv.shape[1] > 1 else (None, 'act_heads')


def _split_heads(x, kv_heads, axes):
  """[batch, heads, ...] -> [batch, kv_heads, heads of each, ...]."""
  shape = (x.shape[0], kv_heads, x.shape[1] // kv_heads, *x.shape[2:])
  return jax.lax.reshape(x, shape, out_sharding=out('batch', *axes))


def _join_heads(x, axes):
  """The inverse of `_split_heads`."""
  shape = (x.shape[0], x.shape[1] * x.shape[2], *x.shape[3:])
  return jax.lax.reshape(x, shape, out_sharding=out('batch', 'act_heads', *axes))


@jax.custom_vjp
def _add_bias(scores, bias):
  """Adds [heads, length, kv_length] to [batch, heads, length, kv_length]."""
  return scores + bias


def _add_bias_forward(scores, bias):
  return scores + bias, bias


def _add_bias_backward(bias, gradient):
  # A sum over rows written as a product, which XLA on CPU computes 60 times as fast.
  ones = jnp.ones(gradient.shape[0], gradient.dtype, out_sharding=out('batch'))
  rows = jnp.einsum('bnts,b->nts', gradient, ones, out_sharding=layout(bias))
  return gradient, rows


_add_bias.defvjp(_add_bias_forward, _add_bias_backward)
