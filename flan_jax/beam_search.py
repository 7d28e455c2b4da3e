"""Beam search with T5X's bookkeeping: beams alive and beams finished are kept apart.

Twice as many candidates as beams are looked at each step, so that as many stay alive even if all
the best end; once more for each further token that ends an answer. `decoding.generate` is the way
in; it encodes the prompts and repeats the cache.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from flan_jax.models.kv_cache import KVCache
from flan_jax.partitioning import layout, out, shard

# Log-likelihood of a beam that is not there. T5X's value, as it shows in the scores of rows with
# fewer finished answers than beams.
_ABSENT = -1e7


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _State:
  """Beams after `step` tokens.

  Attributes:
    step: int32 scalar.
    alive, finished: int32 [batch, beams, length], tokens; 0 beyond their end.
    alive_likelihood: float32 [batch, beams], log-likelihood, best first.
    scores: float32 [batch, beams], log-likelihood of the finished over their length penalty, best
      first, _ABSENT where there is none.
    cache: of the alive, rows [batch * beams].
  """

  step: jax.Array
  alive: jax.Array
  finished: jax.Array
  alive_likelihood: jax.Array
  scores: jax.Array
  is_finished: jax.Array
  cache: KVCache


def search(model: Any, cache: KVCache, empty: jax.Array, config) -> tuple[jax.Array, jax.Array]:
  """Find the best answers of each row.

  Args:
    model: has `decode_step`.
    cache: rows [batch * num_beams], each prompt's beams side by side, no token decoded yet.
    empty: bool [batch], rows that hold no prompt and need no answer.
    config: a DecodeConfig.

  Returns:
    Tokens int32 [batch, beams, length] and scores float32 [batch, beams], best first. A row of
    which nothing ended has its alive beams, with their log-likelihood not divided by a penalty.

  Source: T5X's decoding.py; the penalty of arXiv:1609.08144, equation 14.
  """

  def unfinished(state):
    # Likelihoods only fall, and the longest answer has the mildest penalty.
    best = state.alive_likelihood[:, 0] / penalty(config, config.max_length + 1)
    worst = jnp.where(jnp.all(state.is_finished, axis=1), jnp.min(state.scores, axis=1), _ABSENT)
    return (state.step < config.max_length) & ~jnp.all(empty | (worst > best))

  def advance(state):
    return _advance(model, state, config)

  state = jax.lax.while_loop(unfinished, advance, _first(cache, empty, config))
  any_finished = jnp.any(state.is_finished, axis=1)
  tokens = jnp.where(any_finished[:, None, None], state.finished, state.alive)
  scores = jnp.where(any_finished[:, None], state.scores, state.alive_likelihood)
  tokens = jnp.where(empty[:, None, None], 0, tokens)
  return tokens, jnp.where(empty[:, None], 0.0, scores)


def penalty(config, length):
  """What the log-likelihood of an answer of `length` tokens is divided by."""
  return ((5.0 + length) / 6.0) ** config.length_penalty


def is_end(tokens, config):
  """Whether each of the tokens ends an answer, bool of their shape."""
  return functools.reduce(jnp.logical_or, [tokens == i for i in _end_ids(config)])


def _end_ids(config):
  return config.eos_id if isinstance(config.eos_id, tuple) else (config.eos_id,)


def _first(cache, empty, config):
  """No token yet: one beam alive, as equal beams would find the same answers."""
  batch, beams, length = empty.shape[0], config.num_beams, config.max_length
  tokens = shard(jnp.zeros((batch, beams, length), jnp.int32), 'batch', None, None)
  absent = shard(jnp.full((batch, beams), _ABSENT, jnp.float32), 'batch', None)
  return _State(
    step=jnp.int32(0),
    alive=tokens,
    finished=tokens,
    alive_likelihood=jnp.where(jnp.arange(beams) == 0, 0.0, absent),
    scores=absent,
    is_finished=absent > 0,
    cache=cache,
  )


def _advance(model, state, config):
  """One token more of every beam."""
  batch, beams, length = state.alive.shape
  here = jnp.arange(length) == state.step
  last = jnp.sum(jnp.where(jnp.arange(length) == state.step - 1, state.alive, 0), axis=-1)
  logits, cache = model.decode_step(_rows(last), state.cache)
  number = (1 + len(_end_ids(config))) * beams
  likelihood, tokens = _candidates(logits, min(number, logits.shape[-1]), batch)
  likelihood = likelihood + state.alive_likelihood[:, :, None]
  # The best of each beam's best, [batch, number], and the beam each one grew from.
  likelihood, place = jax.lax.top_k(likelihood.reshape(batch, -1), number)
  parent = place // tokens.shape[2]
  tokens = _pick(tokens.reshape(batch, -1), place)
  grown = jnp.where(here, tokens[:, :, None], _pick(state.alive, parent))
  ended = is_end(tokens, config)

  alive_likelihood, kept = jax.lax.top_k(likelihood + ended * _ABSENT, beams)
  cache = _reorder(cache, _pick(parent, kept))

  scores = likelihood / penalty(config, state.step + 1) + ~ended * _ABSENT
  finished = jnp.concatenate([state.finished, grown], axis=1)
  is_finished = jnp.concatenate([state.is_finished, ended], axis=1)
  scores, best = jax.lax.top_k(jnp.concatenate([state.scores, scores], axis=1), beams)
  return _State(
    step=state.step + 1,
    alive=_pick(grown, kept),
    finished=_pick(finished, best),
    alive_likelihood=alive_likelihood,
    scores=scores,
    is_finished=_pick(is_finished, best) > 0,
    cache=cache,
  )


def _candidates(logits, number, batch):
  """The `number` likeliest tokens of each beam and their log-likelihood, [batch, beams, number]."""
  normalizer = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
  # Sorting needs whole rows of the vocabulary.
  best, tokens = jax.lax.top_k(shard(logits, 'batch', None), number)
  shape = (batch, -1, number)
  return (best - normalizer).reshape(shape), tokens.reshape(shape)


def _pick(x, index):
  """Takes `index` [batch, new] of axis 1 of x [batch, old, ...], without a gather."""
  chosen = index[:, :, None] == jnp.arange(x.shape[1])
  chosen = chosen.reshape(*chosen.shape, *[1] * (x.ndim - 2))
  return jnp.sum(jnp.where(chosen, x[:, None], 0), axis=2)


def _reorder(cache, parent):
  """The cache of the beams `parent` [batch, beams] of each row.

  Only the decoder's own keys and values move: beams of one row share its prompt. They are picked
  row by row, so that nothing leaves its device.
  """

  def move(x, axis):
    whole, after = layout(x), axis + 1
    by_beam = None if whole is None else PartitionSpec(*whole[:after], None, *whole[after:])
    beams = (*x.shape[:axis], *parent.shape, *x.shape[after:])
    split = jax.lax.reshape(x, beams, out_sharding=by_beam)
    pick = functools.partial(jnp.take, axis=axis, mode='clip')
    moved = jax.vmap(pick, in_axes=(axis, 0), out_axes=axis)(split, parent)
    return jax.lax.reshape(moved, x.shape, out_sharding=whole)

  return cache.map_own(move)


def _rows(x):
  """[batch, beams] -> [batch * beams], laid on the mesh as rows are."""
  return jax.lax.reshape(x, (x.shape[0] * x.shape[1],), out_sharding=out('batch'))
