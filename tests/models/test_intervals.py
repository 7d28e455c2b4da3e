"""Tiles of scores that intervals of keys touch or hold."""

import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax.models import intervals

TILE, KV_TILE = 4, 3


@pytest.fixture(params=range(3))
def seen(request):
  """bool [batch, length, kv_length]: intervals of any length, some of none."""
  rng = np.random.default_rng(request.param)
  start = rng.integers(0, 9, (5, 12, 1))
  stop = start + rng.integers(0 if request.param else 6, 20, (5, 12, 1))
  keys = np.arange(18)
  return (keys >= start) & (keys < stop)


def tiles(seen):
  """[batch, tiles of queries, queries, tiles of keys, keys]."""
  batch, length, kv_length = seen.shape
  return seen.reshape(batch, length // TILE, TILE, kv_length // KV_TILE, KV_TILE)


def numbers(bounds, count):
  """The tiles from a first one to one before a last one, as bools."""
  first, last = (np.asarray(x)[..., None] for x in bounds)
  return (np.arange(count) >= first) & (np.arange(count) < last)


def test_tiles_seen_are_the_least_interval_of_those_with_any_key(seen):
  start, stop = intervals.of_mask(jnp.asarray(seen))
  found = numbers(intervals.tiles_seen(start, stop, TILE, KV_TILE), 6)
  some = tiles(seen).any(axis=(2, 4))
  assert not np.any(some & ~found)
  for row in np.ndindex(some.shape[:2]):
    where = np.flatnonzero(some[row])
    assert found[row].sum() == (where[-1] - where[0] + 1 if len(where) else 0)


def test_tiles_seen_whole_are_those_of_which_no_score_is_hidden(seen):
  start, stop = intervals.of_mask(jnp.asarray(seen))
  found = numbers(intervals.tiles_seen_whole(start, stop, TILE, KV_TILE), 6)
  np.testing.assert_array_equal(found, tiles(seen).all(axis=(2, 4)))


def test_tiles_seeing_are_those_of_queries_that_see_any_key_of_a_tile(seen):
  start, stop = intervals.of_mask(jnp.asarray(seen))
  found = numbers(intervals.tiles_seeing(start, stop, seen.shape[2], TILE, KV_TILE), 3)
  sees = numbers(intervals.tiles_seen(start, stop, TILE, KV_TILE), 6)
  assert not np.any(sees.transpose(0, 2, 1) & ~found)
