"""What layers are made of: parameters, matrix products, norm, dropout, embedding.

Every parameter is made by `parameter`, which lays it on the mesh and keeps its logical axes.
"""

import functools
import itertools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec

from flan_jax.models.config import TransformerConfig
from flan_jax.models.keys import Rngs
from flan_jax.partitioning import layout, on_one_cpu, out, shard

Initializer = Callable[..., jax.Array]

# Of a standard normal cut at two standard deviations.
_TRUNCATED_DEVIATION = 0.87962566103423978


def parameter(rngs: Rngs, initializer: Initializer, shape: tuple, axes: tuple) -> nnx.Param:
  """A float32 parameter with its logical axes in `axes`; stacking adds 'layers' before them."""
  return nnx.Param(initializer(rngs.params(), shape, out_sharding=out(*axes)), axes=axes)


def _drawn(sample: Initializer) -> Initializer:
  """`sample`, of a vector on one CPU: parameters of one size share what XLA compiles for them.

  The numbers are the same, as they are those of the place of an element in the whole.
  """

  def draw(key, shape, out_sharding=None):
    if not on_one_cpu():
      return sample(key, shape, out_sharding=out_sharding)
    return sample(key, (math.prod(shape),)).reshape(shape, out_sharding=out_sharding)

  return draw


def normal(deviation: float) -> Initializer:
  """Draws from a normal distribution."""
  return _drawn(lambda key, shape, **layout: deviation * jax.random.normal(key, shape, **layout))


def truncated_normal(deviation: float) -> Initializer:
  """Draws within two standard deviations, scaled so that `deviation` is what remains."""
  scale = deviation / _TRUNCATED_DEVIATION
  draw = functools.partial(jax.random.truncated_normal, lower=-2.0, upper=2.0)
  return _drawn(lambda key, shape, **layout: scale * draw(key, shape=shape, **layout))


def uniform(limit: float) -> Initializer:
  """Draws evenly between -limit and limit."""
  return _drawn(functools.partial(jax.random.uniform, minval=-limit, maxval=limit))


def ones(key: jax.Array, shape: tuple, out_sharding=None) -> jax.Array:
  """Fills with one; `key` is unused."""
  del key
  return jnp.ones(shape, jnp.float32, out_sharding=out_sharding)


def zeros(key: jax.Array, shape: tuple, out_sharding=None) -> jax.Array:
  """Fills with zero; `key` is unused."""
  del key
  return jnp.zeros(shape, jnp.float32, out_sharding=out_sharding)


def softcap(x: jax.Array, limit: float | None) -> jax.Array:
  """Bends `x` towards -limit and limit (Gemma 2, arXiv:2408.00118, 2.2); None leaves it."""
  return x if limit is None else limit * jnp.tanh(x / limit)


def dropout_scales(
  key: jax.Array | None, rate: float, rows: int, shapes: dict[str, tuple[int, ...]]
) -> dict[str, jax.Array | None]:
  """Draws what several activations are multiplied by: 0 for a share `rate`, else 1 / (1 - rate).

  All come from one draw, as the random number generator takes longer to compile than the rest of
  a layer if every dropout has its own.

  Args:
    key: PRNG key, or None for no dropout.
    rate: share dropped.
    rows: rows of the batch.
    shapes: name -> shape of one row. A 1 drops the same units all along that dimension: T5 does
      so along length.

  Returns:
    name -> float32 [rows, *shape], or None where nothing is to be dropped.
  """
  if key is None or rate == 0.0:
    return dict.fromkeys(shapes)
  ends = list(itertools.accumulate(math.prod(shape) for shape in shapes.values()))
  kept = jax.random.bernoulli(key, 1.0 - rate, (rows, ends[-1]), out_sharding=out('batch', None))
  parts = jnp.split(kept.astype(jnp.float32) / (1.0 - rate), ends[:-1], axis=1)
  return {
    name: part.reshape(rows, *shape)
    for (name, shape), part in zip(shapes.items(), parts, strict=True)
  }


def drop(x: jax.Array, scale: jax.Array | None) -> jax.Array:
  """Applies one of `dropout_scales`."""
  return x if scale is None else x * scale.astype(x.dtype)


def _product(
  x: jax.Array,
  kernel: jax.Array,
  out_sharding: PartitionSpec | None,
  dtype: jnp.dtype | None = None,
) -> jax.Array:
  """[batch, length, *inner] x kernel [*inner, *outer] -> [batch, length, *outer].

  Its gradients are written out for the sake of the kernel's. JAX's own multiplies the transposed
  gradient by x, and XLA on CPU then transposes an array as wide as the layer's output; here it
  transposes x, which is narrower and shared by all products that read it.

  Args:
    x: activations.
    kernel: weights in the dtype of `x`.
    out_sharding: layout of the result, from `partitioning.out`.
    dtype: of the result, where not that of `x`.
  """
  inner = x.ndim - 2
  dims = (tuple(range(2, x.ndim)), tuple(range(inner))), ((), ())
  dot = jax.lax.dot_general
  return dot(x, kernel, dims, preferred_element_type=dtype, out_sharding=out_sharding)


product = jax.custom_vjp(_product, nondiff_argnums=(2, 3))


def _product_forward(x, kernel, out_sharding, dtype):
  # The product itself, as a remat policy cannot see into one with written gradients.
  return _product(x, kernel, out_sharding, dtype), (x, kernel)


def _product_backward(out_sharding, dtype, residuals, gradient):
  del out_sharding, dtype
  x, kernel = residuals
  gradient = gradient.astype(x.dtype)
  outer = (tuple(range(2, gradient.ndim)), tuple(range(x.ndim - 2, kernel.ndim))), ((), ())
  rows = ((0, 1), (0, 1)), ((), ())
  dot = jax.lax.dot_general
  return (
    dot(gradient, kernel, outer, out_sharding=layout(x)),
    dot(x, gradient, rows, out_sharding=layout(kernel)),
  )


product.defvjp(_product_forward, _product_backward)


def turned_product(
  x: jax.Array,
  kernel: jax.Array,
  out_sharding: PartitionSpec | None,
  dtype: jnp.dtype | None = None,
) -> jax.Array:
  """`product` with a kernel [*outer, *inner], for a few rows on one CPU.

  What multiplies on a CPU packs the second factor anew each time, which for a few rows takes longer
  than to multiply: so the kernel comes first.
  """
  inner, outer = x.ndim - 2, kernel.ndim - x.ndim + 2
  dims = (tuple(range(outer, kernel.ndim)), tuple(range(2, 2 + inner))), ((), ())
  spec = None if out_sharding is None else PartitionSpec(*out_sharding[2:], *out_sharding[:2])
  y = jax.lax.dot_general(kernel, x, dims, preferred_element_type=dtype, out_sharding=spec)
  return y.transpose(outer, outer + 1, *range(outer))


class Norm(nnx.Module):
  """Divides the last axis by its root mean square and scales it; no bias is added.

  norm='layer_norm' takes off the mean first; norm_plus_one multiplies by 1 + scale.
  """

  def __init__(self, config: TransformerConfig, rngs: Rngs, dim: int | None = None):
    start = zeros if config.norm_plus_one else ones
    self.scale = parameter(rngs, start, (dim or config.embed_dim,), ('norm',))
    self.config = config

  def __call__(self, x: jax.Array) -> jax.Array:
    # float32, as squares of bfloat16 keep 8 bits.
    wide = x.astype(jnp.float32)
    if self.config.norm == 'layer_norm':
      wide = wide - jnp.mean(wide, axis=-1, keepdims=True)
    square = jnp.mean(wide * wide, axis=-1, keepdims=True)
    scale = self.scale[...] + 1.0 if self.config.norm_plus_one else self.scale[...]
    return (wide * jax.lax.rsqrt(square + self.config.norm_epsilon) * scale).astype(x.dtype)


class Embedding(nnx.Module):
  """Rows of a [vocab, embed] table; the standard deviation of what comes out is 1, as in T5X."""

  def __init__(self, config: TransformerConfig, rngs: Rngs):
    shape = (config.padded_vocab_size, config.embed_dim)
    # A table that also makes the logits must not make them sqrt(embed) times too large.
    unscaled = config.tie_embeddings and not config.scale_tied_logits
    deviation = config.embed_dim**-0.5 if unscaled else 1.0
    self.table = parameter(rngs, normal(deviation), shape, ('vocab', 'embed'))
    self.config = config

  def __call__(self, tokens: jax.Array) -> jax.Array:
    """[batch, length] token ids -> [batch, length, embed]."""
    # Read as float32: the backward pass adds up all rows of a token, too many for bfloat16.
    table = shard(self.table[...], 'vocab', 'act_embed')
    rows = table.at[tokens].get(out_sharding=out('batch', 'length', 'act_embed'))
    if self.config.scale_embeddings:
      rows = rows * math.sqrt(self.config.embed_dim)
    return rows.astype(self.config.dtype)
