"""Pallas kernels for GPUs of attention in tiles, forward and backward.

After FlashAttention 2 (arXiv:2307.08691), with two things more: keys that a query sees are an
interval, and tiles of scores outside all intervals are left out; T5's bias is read by distance, and
its gradient summed over rows in tiles by distance.

No two programs add to one number: gradients by queries, by keys and values, and by the bias have a
kernel each, which computes the scores again, and are the same each time. Arrays lie as projections
give and take them, [batch, length, heads, head_dim].
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from flan_jax.models.intervals import HIDDEN, NOTHING_SEEN, tiles_seeing, tiles_seen
from flan_jax.models.tiled_attention import KEPT
from flan_jax.partitioning import platform

# Into so many parts, where they divide, the rows of a batch go to sum the bias's gradient.
_PARTS = 8


@dataclasses.dataclass(frozen=True)
class _Tiles:
  """How a kernel is cut: queries and keys multiplied at a time, threads by 32, loads ahead."""

  queries: int
  keys: int
  warps: int
  stages: int = 2


_FORWARD = _Tiles(queries=128, keys=64, warps=8)
_OF_QUERIES = _Tiles(queries=64, keys=64, warps=8)
_OF_KEYS = _Tiles(queries=32, keys=64, warps=4)
_OF_BIAS = _Tiles(queries=64, keys=64, warps=4)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def attend(
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
    scale: of the scores.
    query: [batch, length, heads, head_dim]; both lengths are multiples of 128, head_dim is a power
      of two.
    keys, values: [batch, kv_length, kv_heads, head_dim].
    start, stop: int32 [batch, length]; query i sees the keys start[i] to stop[i] - 1. One that
      sees none attends to 0.
    bias: float32 [heads, 2 * limit + 1] for the distances -limit to limit from query to key, which
      are then the same tokens; the first and the last also for all beyond. Or None.

  Returns:
    [batch, length, heads, head_dim] in the dtype of `query`.
  """
  return _forward(scale, query, keys, values, start, stop, bias)[0]


def _forward(scale, query, keys, values, start, stop, bias):
  results = _attended(scale, query, keys, values, start, stop, bias)
  attended, log_sum = (checkpoint_name(x, KEPT) for x in results)
  return attended, (query, keys, values, start, stop, bias, attended, log_sum)


def _backward(scale, residuals, gradient):
  query, keys, values, start, stop, bias, attended, log_sum = residuals
  # By the softmax: the sum over keys of weights times their gradients, from what is shorter.
  along = jnp.sum(gradient.astype(jnp.float32) * attended, axis=3).transpose(0, 2, 1)
  args = (query, keys, values, start, stop, bias, gradient, log_sum, along)
  of_keys, of_values = _of_keys(scale, *args)
  shape = (*keys.shape[:3], -1, keys.shape[3])  # query heads that share keys
  of_keys, of_values = (
    jnp.sum(x.reshape(shape), axis=3).astype(keys.dtype) for x in (of_keys, of_values)
  )
  of_bias = None if bias is None else _of_bias(scale, *args)
  return _of_queries(scale, *args), of_keys, of_values, None, None, of_bias


attend.defvjp(_forward, _backward)


def _attended(scale, query, keys, values, start, stop, bias):
  """What is attended to, and the logarithm of each softmax's sum, [batch, heads, length]."""
  tiles = _FORWARD
  batch, length, heads, head_dim = query.shape

  def attention(first, last, query, keys, values, start, stop, *rest):
    *bias, attended, log_sum = rest
    tile = pl.program_id(0)
    queries, seen = query[...], (start[...], stop[...])

    def one(key_tile, carry):
      summed, most, total = carry
      at = pl.ds(key_tile * tiles.keys, tiles.keys)
      scores = _scores(scale, queries, keys[at, :], bias, tile, key_tile, seen)
      higher = jnp.maximum(most, jnp.max(scores, axis=1))
      weights, shrink = jnp.exp(scores - higher[:, None]), jnp.exp(most - higher)
      total = total * shrink + jnp.sum(weights, axis=1)
      more = _product(weights.astype(queries.dtype), values[at, :])
      return summed * shrink[:, None] + more, higher, total

    nothing = (
      jnp.zeros((tiles.queries, head_dim), jnp.float32),
      jnp.full((tiles.queries,), NOTHING_SEEN, jnp.float32),
      jnp.zeros((tiles.queries,), jnp.float32),
    )
    summed, most, total = jax.lax.fori_loop(first[tile], last[tile], one, nothing)
    total = jnp.where(total == 0, 1, total)
    attended[...] = (summed / total[:, None]).astype(attended.dtype)
    log_sum[...] = most + jnp.log(total)

  log_sum = jax.ShapeDtypeStruct((batch, heads, length), jnp.float32)
  bounds = tiles_seen(start, stop, tiles.queries, tiles.keys)
  return _call(
    attention,
    tiles,
    (length // tiles.queries, heads, batch),
    [
      *((x, _of_row(x)) for x in bounds),
      (query, _of_head(query, tiles.queries)),
      *((x, _of_head(x, group=heads // x.shape[2])) for x in (keys, values)),
      *((x, _of_row(x, tiles.queries)) for x in (start, stop)),
      *_bias_block(bias),
    ],
    [
      (query, _of_head(query, tiles.queries)),
      (log_sum, _of_query(tiles.queries)),
    ],
  )


def _of_queries(scale, query, keys, values, start, stop, bias, gradient, log_sum, along):
  """The gradient by queries; the last two are float32 [batch, heads, length]."""
  tiles = _OF_QUERIES
  batch, length, heads, head_dim = query.shape

  def attention_by_queries(
    first, last, query, keys, values, start, stop, gradient, log_sum, along, *rest
  ):
    *bias, of_query = rest
    tile = pl.program_id(0)
    queries, by_attended, seen = query[...], gradient[...], (start[...], stop[...])
    log_sums, alongs = log_sum[...][:, None], along[...][:, None]

    def one(key_tile, summed):
      at = pl.ds(key_tile * tiles.keys, tiles.keys)
      seen_keys = keys[at, :]
      weights = jnp.exp(_scores(scale, queries, seen_keys, bias, tile, key_tile, seen) - log_sums)
      by_scores = weights * (_product(by_attended, values[at, :].T) - alongs)
      return summed + _product(by_scores.astype(queries.dtype), seen_keys)

    nothing = jnp.zeros((tiles.queries, head_dim), jnp.float32)
    summed = jax.lax.fori_loop(first[tile], last[tile], one, nothing)
    of_query[...] = (summed * scale).astype(of_query.dtype)

  bounds = tiles_seen(start, stop, tiles.queries, tiles.keys)
  (of_query,) = _call(
    attention_by_queries,
    tiles,
    (length // tiles.queries, heads, batch),
    [
      *((x, _of_row(x)) for x in bounds),
      (query, _of_head(query, tiles.queries)),
      *((x, _of_head(x, group=heads // x.shape[2])) for x in (keys, values)),
      *((x, _of_row(x, tiles.queries)) for x in (start, stop)),
      (gradient, _of_head(gradient, tiles.queries)),
      *((x, _of_query(tiles.queries)) for x in (log_sum, along)),
      *_bias_block(bias),
    ],
    [(query, _of_head(query, tiles.queries))],
  )
  return of_query


def _of_keys(scale, query, keys, values, start, stop, bias, gradient, log_sum, along):
  """The gradients by keys and values of each query head, [batch, kv_length, heads, head_dim]."""
  tiles = _OF_KEYS
  batch, length, heads, head_dim = query.shape
  kv_length, group = keys.shape[1], heads // keys.shape[2]

  def attention_by_keys(
    first, last, query, keys, values, start, stop, gradient, log_sum, along, *rest
  ):
    *bias, of_keys, of_values = rest
    tile = pl.program_id(0)
    seen_keys, seen_values = keys[...], values[...]

    def one(query_tile, carry):
      by_keys, by_values = carry
      at = pl.ds(query_tile * tiles.queries, tiles.queries)
      queries, by_attended = query[at, :], gradient[at, :]
      interval = start[at], stop[at]
      # [keys, queries]: no tile is turned around before it is multiplied.
      scores = _scores(scale, queries, seen_keys, bias, query_tile, tile, interval, turned=True)
      weights = jnp.exp(scores - log_sum[at][None])
      by_scores = weights * (_product(seen_values, by_attended.T) - along[at][None])
      by_values += _product(weights.astype(queries.dtype), by_attended)
      return by_keys + _product(by_scores.astype(queries.dtype), queries), by_values

    nothing = jnp.zeros((tiles.keys, head_dim), jnp.float32)
    by_keys, by_values = jax.lax.fori_loop(first[tile], last[tile], one, (nothing, nothing))
    of_keys[...] = (by_keys * scale).astype(of_keys.dtype)
    of_values[...] = by_values.astype(of_values.dtype)

  bounds = tiles_seeing(start, stop, kv_length, tiles.queries, tiles.keys)
  dtype = keys.dtype if group == 1 else jnp.float32  # they are still to be added up
  of_head = jax.ShapeDtypeStruct((batch, kv_length, heads, head_dim), dtype)
  return _call(
    attention_by_keys,
    tiles,
    (kv_length // tiles.keys, heads, batch),
    [
      *((x, _of_row(x)) for x in bounds),
      (query, _of_head(query)),
      *((x, _of_head(x, tiles.keys, group=group)) for x in (keys, values)),
      *((x, _of_row(x)) for x in (start, stop)),
      (gradient, _of_head(gradient)),
      *((x, _of_query(length, whole=True)) for x in (log_sum, along)),
      *_bias_block(bias),
    ],
    [(of_head, _of_head(of_head, tiles.keys))] * 2,
  )


def _of_bias(scale, query, keys, values, start, stop, bias, gradient, log_sum, along):
  """The gradient by the bias.

  A program has one diagonal of tiles of a head, where all have the same distances, and sums its
  tiles over some of the rows; the outermost diagonals stand for all that lie further off, too.
  """
  tiles, limit = _OF_BIAS, bias.shape[1] // 2
  batch, length, heads, _ = query.shape
  size = tiles.queries
  outer = math.ceil((limit + size - 1) / size)  # all distances from there on are beyond the limit
  diagonals, parts = 2 * outer + 1, math.gcd(batch, _PARTS)
  rows = batch // parts

  def attention_by_bias(
    first, last, query, keys, values, start, stop, gradient, log_sum, along, bias, summed
  ):
    diagonal, part = pl.program_id(0) - outer, pl.program_id(2)

    def of_row(row, total):
      def of_tile(tile, total):
        at = pl.ds(tile * size, size)
        queries, by_attended = query[row, at], gradient[row, at]
        interval = start[row, at], stop[row, at]
        log_sums, alongs = log_sum[row, at][:, None], along[row, at][:, None]

        def one(key_tile, total):
          keys_at = pl.ds(key_tile * size, size)
          scores = _scores(scale, queries, keys[row, keys_at], [bias], tile, key_tile, interval)
          weights = jnp.exp(scores - log_sums)
          return total + weights * (_product(by_attended, values[row, keys_at].T) - alongs)

        lowest = jnp.where(diagonal == -outer, 0, tile + diagonal)
        highest = jnp.where(diagonal == outer, length // size, tile + diagonal + 1)
        lowest = jnp.maximum(lowest, first[row, tile])
        highest = jnp.minimum(highest, last[row, tile])
        return jax.lax.fori_loop(lowest, highest, one, total)

      return jax.lax.fori_loop(0, length // size, of_tile, total)

    nothing = jnp.zeros((size, size), jnp.float32)
    summed[...] = jax.lax.fori_loop(part * rows, (part + 1) * rows, of_row, nothing)

  def all_rows(x, group=None):
    if group is None:
      return pl.BlockSpec(x.shape, lambda *_: (0, 0))
    shape = (batch, x.shape[1], None, x.shape[3])
    return pl.BlockSpec(shape, lambda diagonal, head, part: (0, 0, jax.lax.div(head, group), 0))

  def of_head(x):
    return pl.BlockSpec((batch, None, length), lambda diagonal, head, part: (0, head, 0))

  in_tiles = jax.ShapeDtypeStruct((parts, heads, diagonals, size, size), jnp.float32)
  block = pl.BlockSpec(
    (None, None, None, size, size), lambda diagonal, head, part: (part, head, diagonal, 0, 0)
  )
  (in_tiles,) = _call(
    attention_by_bias,
    tiles,
    (diagonals, heads, parts),
    [
      *((x, all_rows(x)) for x in tiles_seen(start, stop, size, size)),
      *((x, all_rows(x, heads // x.shape[2])) for x in (query, keys, values)),
      *((x, all_rows(x)) for x in (start, stop)),
      (gradient, all_rows(gradient, 1)),
      *((x, of_head(x)) for x in (log_sum, along)),
      *_bias_block(bias),
    ],
    [(in_tiles, block)],
  )
  return _by_distance(jnp.sum(in_tiles, axis=0), limit)


def _by_distance(in_tiles, limit):
  """Sums [heads, diagonals, queries, keys] by distance: [heads, 2 * limit + 1]."""
  heads, diagonals, size, _ = in_tiles.shape
  # Rows one longer than they are make of each distance a column.
  wide = jnp.pad(in_tiles, ((0, 0), (0, 0), (0, 0), (size - 1, 0)))
  wide = jnp.pad(wide.reshape(heads, diagonals, -1), ((0, 0), (0, 0), (0, size)))
  sums = jnp.sum(wide.reshape(heads, diagonals, size, 2 * size), axis=2)
  distance = size * (jnp.arange(diagonals)[:, None] - diagonals // 2)
  distance = distance + jnp.arange(2 * size) - (size - 1)
  which = jax.nn.one_hot(jnp.clip(distance, -limit, limit) + limit, 2 * limit + 1)
  return jnp.einsum('hdc,dcn->hn', sums, which, precision=jax.lax.Precision.HIGHEST)


def _call(kernel, tiles, grid, arguments, results):
  """Runs a kernel; arguments and results are arrays, or their shapes, with their blocks."""
  call = pl.pallas_call(
    kernel,
    grid=grid,
    in_specs=[block for _, block in arguments],
    out_specs=[block for _, block in results],
    out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x, _ in results],
    compiler_params=triton.CompilerParams(num_warps=tiles.warps, num_stages=tiles.stages),
    interpret=platform() != 'gpu',
  )
  return call(*(x for x, _ in arguments))


# Blocks by the program's tile, head and row.


def _of_head(x, tile=None, group=1) -> pl.BlockSpec:
  """A head's row of an array [batch, length, heads / group, head_dim], or the tile at work."""

  def index(at, head, row):
    return row, 0 if tile is None else at, jax.lax.div(head, group), 0

  return pl.BlockSpec((None, tile or x.shape[1], None, x.shape[3]), index)


def _of_row(x, tile=None) -> pl.BlockSpec:
  """A row of an array [batch, length], or the tile at work."""
  return pl.BlockSpec(
    (None, tile or x.shape[1]), lambda at, head, row: (row, 0 if tile is None else at)
  )


def _of_query(tile, *, whole=False) -> pl.BlockSpec:
  """A head's row of an array [batch, heads, length], or the tile at work."""
  return pl.BlockSpec((None, None, tile), lambda at, head, row: (row, head, 0 if whole else at))


def _bias_block(bias) -> list[tuple[jax.Array, pl.BlockSpec]]:
  """A head's bias, if there is one."""
  if bias is None:
    return []
  return [(bias, pl.BlockSpec((None, bias.shape[1]), lambda at, head, row: (head, 0)))]


def _scores(scale, queries, keys, bias, query_tile, key_tile, interval, *, turned=False):
  """float32 [queries, keys] of a tile, or [keys, queries], with what queries do not see hidden."""
  scores = _product(keys, queries.T) if turned else _product(queries, keys.T)
  if scale != 1:
    scores *= scale
  axis = int(turned)  # of queries
  along = query_tile * len(queries) + jnp.arange(len(queries))
  keys_along = key_tile * len(keys) + jnp.arange(len(keys))
  along, keys_along = jnp.expand_dims(along, 1 - axis), jnp.expand_dims(keys_along, axis)
  for by_distance in bias:
    limit = by_distance.shape[0] // 2
    scores += by_distance[jnp.clip(keys_along - along, -limit, limit) + limit]
  start, stop = (jnp.expand_dims(x, 1 - axis) for x in interval)
  return jnp.where((keys_along >= start) & (keys_along < stop), scores, HIDDEN)


def _product(a, b):
  precision = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
  return jnp.dot(a, b, precision=precision, preferred_element_type=jnp.float32)
