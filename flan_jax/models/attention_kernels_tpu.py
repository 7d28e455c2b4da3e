"""Pallas kernels for TPUs of attention in tiles, forward and backward.

After FlashAttention 2 (arXiv:2307.08691), with two things more: keys that a query sees are an
interval, and tiles of scores outside all intervals are left out; a bias is read from, and its
gradient added to, a few tiles by distance.

Arrays lie [batch, heads, head_dim, length], so that a tile of scores is [keys, queries] and what
belongs to a query, its maximum or its interval, is a row. One tile follows the other on a chip:
gradients are summed in one order, the same each time.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from flan_jax.models.intervals import (
  HIDDEN,
  NOTHING_SEEN,
  tiles_seeing,
  tiles_seen,
  tiles_seen_whole,
)
from flan_jax.models.tiled_attention import ATTENTION, GRADIENTS, KEPT
from flan_jax.partitioning import platform

# Rows of ones beside values: as many as registers of bfloat16 hold.
_ONES = 16
# Fewer keys are no slice of an array whose last dimension they are.
_LEAST_KEYS = 128


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def attend(
  tile: int,
  scale: float,
  query: jax.Array,
  keys: jax.Array,
  values: jax.Array,
  start: jax.Array,
  stop: jax.Array,
  bias: jax.Array | None,
) -> jax.Array:
  """softmax(scale * query keys + bias) of the keys that each query sees, times values.

  Args:
    tile: queries and keys that are multiplied at a time; both lengths are multiples of it.
    scale: of the scores.
    query: [batch, heads, head_dim, length].
    keys, values: [batch, kv_heads, head_dim, kv_length].
    start, stop: int32 [batch, length]; query i sees the keys start[i] to stop[i] - 1. One that
      sees none attends to 0.
    bias: float32 [heads, diagonals, tile, tile], [.., key, query], or None. The diagonal in the
      middle is for keys in the same tile as queries, which are then the same tokens; the first and
      the last are for all that lie further off, too.

  Returns:
    [batch, heads, head_dim, length] in the dtype of `query`.
  """
  return _forward(tile, scale, query, keys, values, start, stop, bias)[0]


def _forward(tile, scale, query, keys, values, start, stop, bias):
  bounds = tiles_seen(start, stop, tile, tile), tiles_seen_whole(start, stop, tile, tile)
  results = _attended(tile, scale, bounds, query, keys, values, start, stop, bias)
  attended, log_sum = (checkpoint_name(x, KEPT) for x in results)
  return attended, (query, keys, values, start, stop, bias, attended, log_sum)


def _backward(tile, scale, residuals, gradient):
  query, keys, values, start, stop, bias, attended, log_sum = residuals
  seeing = tiles_seeing(start, stop, keys.shape[3], tile, tile)
  bounds = seeing, tiles_seen_whole(start, stop, tile, tile)
  # By the softmax: the sum over keys of weights times their gradients, from what is shorter.
  along = jnp.sum(gradient.astype(jnp.float32) * attended, axis=2, keepdims=True)
  args = (query, keys, values, start, stop, bias, gradient, log_sum, along)
  of_query, of_keys, of_values, *of_bias = _gradients(tile, scale, bounds, *args)
  shape = (keys.shape[0], keys.shape[1], -1, *keys.shape[2:])  # query heads that share keys
  of_keys, of_values = (
    jnp.sum(x.reshape(shape), axis=2).astype(keys.dtype) for x in (of_keys, of_values)
  )
  return of_query.astype(query.dtype), of_keys, of_values, None, None, *(of_bias or [None])


attend.defvjp(_forward, _backward)


def bytes_needed(row: tuple[int, int], tiles: tuple[int, ...]) -> int:
  """Of the chip's fast memory, at most.

  Args:
    row: head_dim and the longer of both lengths.
    tiles: shape of a head's bias, of 0 diagonals where there is none.
  """
  # Of the backward pass: queries, gradients and float32 gradients of a row, and a bias and its
  # gradient, each twice; scores, weights and the gradients of both of a tile, and as much again.
  return 16 * math.prod(row) + 16 * math.prod(tiles) + 32 * math.prod(tiles[1:])


def _attended(tile, scale, bounds, query, keys, values, start, stop, bias):
  """What is attended to, and the logarithm of each softmax's sum, [batch, heads, 1, length]."""
  batch, heads, head_dim, length = query.shape
  group, memory = heads // keys.shape[1], _memory(query, keys, bias, tile)

  def kernel(first, last, whole_from, whole_to, query, keys, values, start, stop, *rest):
    *bias, attended, log_sum, most, sums = rest
    query_tile = pl.program_id(2)
    here = pl.program_id(1) * pl.num_programs(2) + query_tile
    most[...] = jnp.full_like(most, NOTHING_SEEN)
    sums[...] = jnp.zeros_like(sums)

    def add(key_tile, masked):
      # Products of one half of the keys overlap the exponentials of the other.
      size = max(tile // 2, _LEAST_KEYS)
      tile_bias = [x[0, _diagonal(x, key_tile, query_tile)] for x in bias]
      halves = []
      for begin in range(0, tile, size):
        first_key = pl.multiple_of(key_tile * tile + begin, size)
        seen = pl.ds(first_key, size)
        its_bias = [x[begin : begin + size] for x in tile_bias]
        scores = _scores(scale, keys[0, 0, :, seen], query[0, 0], its_bias)
        if masked:
          scores = _mask(scores, first_key, start[0, 0], stop[0, 0])
        # A product with a row of ones adds the weights up.
        ones = jnp.ones((_ONES, size), values.dtype)
        halves.append((scores, jnp.concatenate([values[0, 0, :, seen], ones])))
      highest, total = most[...], sums[...]
      for scores, with_ones in halves:
        before, highest = highest, jnp.maximum(highest, jnp.max(scores, axis=0, keepdims=True))
        weights = jnp.exp(scores - highest).astype(with_ones.dtype)
        total = total * jnp.exp(before - highest) + _product(with_ones, weights, (1, 0))
      most[...], sums[...] = highest, total

    def seen_whole(key_tile):
      return (whole_from[here] <= key_tile) & (key_tile < whole_to[here])

    _for_tiles(first[here], last[here], seen_whole, add)
    of_values, of_weights = sums[:head_dim], sums[head_dim : head_dim + 1]
    of_weights = jnp.where(of_weights == 0, 1, of_weights)
    attended[0, 0] = (of_values / of_weights).astype(attended.dtype)
    log_sum[0, 0] = most[...] + jnp.log(of_weights)

  args = (query, keys, values, _as_row(start), _as_row(stop))
  return _call(
    ATTENTION,
    kernel,
    (heads, batch, length // tile),
    bounds,
    (*args, bias),
    [
      _block(query, tile),
      *(_block(x, group=group) for x in (keys, values)),
      *(_block(x, tile, group=heads) for x in args[3:]),
      *_bias_block(bias),
    ],
    [query, jax.ShapeDtypeStruct((batch, heads, 1, length), jnp.float32)],
    [_block(query, tile), _block(query, tile, rows=1)],
    _cost(query, keys, products=2),
    memory,
    [pltpu.VMEM((rows, tile), jnp.float32) for rows in (1, head_dim + _ONES)],
  )


def _gradients(
  tile, scale, bounds, query, keys, values, start, stop, bias, gradient, log_sum, along
):
  """Of queries, keys and values, float32 and the latter two for each query head, and of the bias.

  Args:
    bounds: of intervals.tiles_seeing and intervals.tiles_seen_whole.
    gradient: by what was attended to.
    log_sum: of `_attended`.
    along: float32 [batch, heads, 1, length], the sum of `gradient` times what was attended to.
  """
  batch, heads, head_dim, length = query.shape
  kv_length, group = keys.shape[3], heads // keys.shape[1]
  biases, memory = int(bias is not None), _memory(query, keys, bias, tile)

  def kernel(first, last, whole_from, whole_to, query, keys, values, start, stop, *rest):
    gradient, log_sum, along, *rest = rest
    bias, (of_query, of_keys, of_values, *of_bias) = rest[:biases], rest[biases:]
    row, key_tile = pl.program_id(1), pl.program_id(2)
    of_keys[...] = jnp.zeros_like(of_keys)
    of_values[...] = jnp.zeros_like(of_values)

    @pl.when(key_tile == 0)
    def _():
      of_query[...] = jnp.zeros_like(of_query)

    for x in of_bias:

      @pl.when((key_tile == 0) & (row == 0))
      def _(x=x):
        x[...] = jnp.zeros_like(x)

    def add(query_tile, masked):
      at = pl.ds(pl.multiple_of(query_tile * tile, tile), tile)
      queries, by_attended = query[0, 0, :, at], gradient[0, 0, :, at]
      tile_bias = [x[0, _diagonal(x, key_tile, query_tile)] for x in bias]
      scores = _scores(scale, keys[0, 0], queries, tile_bias)
      if masked:
        scores = _mask(scores, key_tile * tile, start[0, 0, :, at], stop[0, 0, :, at])
      weights = jnp.exp(scores - log_sum[0, 0, :, at])
      by_weights = _product(values[0, 0], by_attended, (0, 0))
      by_scores = weights * (by_weights - along[0, 0, :, at])
      for x in of_bias:
        x[0, _diagonal(x, key_tile, query_tile)] += by_scores
      by_scores = _scaled(scale, by_scores).astype(queries.dtype)
      of_query[0, 0, :, at] += _product(keys[0, 0], by_scores, (1, 0))
      of_values[0, 0] += _product(by_attended, weights.astype(by_attended.dtype), (1, 1))
      of_keys[0, 0] += _product(queries, by_scores, (1, 1))

    here = row * pl.num_programs(2) + key_tile

    def sees_whole(query_tile):
      its = row * (length // tile) + query_tile
      return (whole_from[its] <= key_tile) & (key_tile < whole_to[its])

    _for_tiles(first[here], last[here], sees_whole, add)

  by_heads = jax.ShapeDtypeStruct((batch, heads, head_dim, kv_length), jnp.float32)
  args = (query, keys, values, _as_row(start), _as_row(stop), gradient, log_sum, along, bias)
  return _call(
    GRADIENTS,
    kernel,
    (heads, batch, kv_length // tile),
    bounds,
    args,
    [
      _block(query),
      *(_block(x, tile, group=group) for x in (keys, values)),
      *(_block(x, group=heads) for x in args[3:5]),
      *(_block(x) for x in (gradient, log_sum, along)),
      *_bias_block(bias),
    ],
    [jax.ShapeDtypeStruct(query.shape, jnp.float32), by_heads, by_heads, bias],
    [_block(query), _block(by_heads, tile), _block(by_heads, tile), *_bias_block(bias)],
    _cost(query, keys, products=5),
    memory,
  )


def _call(
  name, kernel, grid, bounds, args, in_specs, out_shapes, out_specs, cost, memory, scratch_shapes=()
):
  """Runs a kernel for each head, row and tile; arguments and results that are None are left out."""
  bounds = [x.ravel() for pair in bounds for x in pair]
  call = pl.pallas_call(
    kernel,
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=len(bounds),
      grid=grid,
      in_specs=in_specs,
      out_specs=out_specs,
      scratch_shapes=scratch_shapes,
    ),
    out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in out_shapes if x is not None],
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=('parallel', 'arbitrary', 'arbitrary'), vmem_limit_bytes=memory
    ),
    cost_estimate=cost,
    interpret=platform() != 'tpu',
    name=name,
  )
  return call(*bounds, *(x for x in args if x is not None))


def _for_tiles(first, last, is_whole, add):
  """`add(tile, masked)` from `first` to `last` - 1; a mask takes up to a fifth more of a tile."""

  def one(tile, _):
    whole = is_whole(tile)
    pl.when(whole)(functools.partial(add, tile, False))
    pl.when(~whole)(functools.partial(add, tile, True))

  jax.lax.fori_loop(first, last, one, None)


def _block(x, tile=None, *, rows=None, group=1) -> pl.BlockSpec:
  """A head's row of an array [batch, heads / group, rows, length], or the tile that is at work."""

  def index(head, row, at, *_):
    return row, jax.lax.div(head, group), 0, 0 if tile is None else at

  return pl.BlockSpec((1, 1, rows or x.shape[2], tile or x.shape[3]), index)


def _bias_block(bias) -> list[pl.BlockSpec]:
  """A head's tiles, if there are any."""
  shape = () if bias is None else bias.shape
  return [pl.BlockSpec((1, *shape[1:]), lambda head, *_: (head, 0, 0, 0))] if shape else []


def _cost(query, keys, products):
  """What the kernel says of itself to XLA and to a plan: all keys for all queries."""
  batch, heads, head_dim, length = query.shape
  scores = batch * heads * length * keys.shape[3]
  return pl.CostEstimate(
    flops=2 * products * scores * head_dim,
    transcendentals=scores,
    bytes_accessed=products * (query.nbytes + keys.nbytes),
  )


def _memory(query, keys, bias, tile):
  row = query.shape[2], max(query.shape[3], keys.shape[3])
  return max(bytes_needed(row, (0, tile, tile) if bias is None else bias.shape[1:]), 2**24)


def _as_row(x):
  return x[:, None, None]


def _scores(scale, keys, query, bias):
  """float32 [keys, queries] of a tile, before the mask; `bias` has at most one array."""
  return sum(bias, start=_scaled(scale, _product(keys, query, (0, 0))))


def _mask(scores, first_key, start, stop):
  key = first_key + jax.lax.broadcasted_iota(jnp.int32, scores.shape, 0)
  return jnp.where((key >= start) & (key < stop), scores, HIDDEN)


def _product(a, b, dimensions):
  """Sums over one dimension of each, in float32."""
  precision = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
  contract = (dimensions[:1], dimensions[1:]), ((), ())
  return jax.lax.dot_general(
    a, b, contract, preferred_element_type=jnp.float32, precision=precision
  )


def _scaled(scale, x):
  return x if scale == 1 else x * scale


def _diagonal(bias, key_tile, query_tile):
  middle = bias.shape[1] // 2
  return jnp.clip(key_tile - query_tile, -middle, middle) + middle
