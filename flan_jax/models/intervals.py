"""Keys that queries see as intervals, and the tiles of scores that these touch."""

import jax
import jax.numpy as jnp

# Scores of keys outside of a query's interval, and the maximum that a query without keys keeps, so
# that their weights become 0.
HIDDEN = -1e30
NOTHING_SEEN = -1e29


def of_mask(mask: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The first key that each query sees, and the one after the last.

  bool [batch, length, kv_length], whose true keys lie beside each other -> int32 [batch, length]
  each.
  """
  start = jnp.argmax(mask, axis=2).astype(jnp.int32)
  return start, start + jnp.sum(mask, axis=2, dtype=jnp.int32)


def tiles_seen(
  start: jax.Array, stop: jax.Array, tile: int, kv_tile: int
) -> tuple[jax.Array, jax.Array]:
  """Of keys: the first tile that queries of each tile see, and the one after the last.

  int32 [batch, length] -> int32 [batch, length / tile] each.
  """
  some = stop > start
  first = jnp.where(some, start // kv_tile, jnp.iinfo(jnp.int32).max)
  last = jnp.where(some, -(-stop // kv_tile), 0)
  shape = (len(start), -1, tile)
  first, last = jnp.min(first.reshape(shape), axis=2), jnp.max(last.reshape(shape), axis=2)
  return jnp.minimum(first, last), last


def tiles_seen_whole(
  start: jax.Array, stop: jax.Array, tile: int, kv_tile: int
) -> tuple[jax.Array, jax.Array]:
  """Of keys: the first tile that all queries of each tile see whole, and the one after the last.

  int32 [batch, length] -> int32 [batch, length / tile] each.
  """
  shape = (len(start), -1, tile)
  start, stop = jnp.max(start.reshape(shape), axis=2), jnp.min(stop.reshape(shape), axis=2)
  return -(-start // kv_tile), stop // kv_tile


def tiles_seeing(
  start: jax.Array, stop: jax.Array, kv_length: int, tile: int, kv_tile: int
) -> tuple[jax.Array, jax.Array]:
  """Of queries: the first tile that sees any key of each tile, and the one after the last.

  int32 [batch, length] -> int32 [batch, kv_length / kv_tile] each.
  """
  first, last = (x[:, None] for x in tiles_seen(start, stop, tile, kv_tile))
  key_tile = jnp.arange(kv_length // kv_tile)[:, None]
  sees = (first <= key_tile) & (key_tile < last)  # [batch, tiles of keys, tiles of queries]
  after = sees.shape[2] - jnp.argmax(sees[..., ::-1], axis=2)
  after = jnp.where(jnp.any(sees, axis=2), after, 0)
  return jnp.argmax(sees, axis=2).astype(jnp.int32), after.astype(jnp.int32)
