"""Cross entropy with label smoothing and z-loss, as weighted sums over one batch.

Sums, never means: the train step adds them over microbatches and devices and divides once by
`normalizing_factor`, so neither packing nor microbatching changes the loss.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from flan_jax import partitioning
from flan_jax.naming import nearest

NORMALIZERS = ('AVERAGE_PER_SEQUENCE', 'NUM_REAL_TARGET_TOKENS', 'NUM_TOTAL_TARGET_TOKENS')


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LossSums:
  """Weighted sums over the tokens of one batch; float32.

  Attributes:
    loss: scalar, cross entropy plus z-loss, nats.
    z_loss: scalar, the share of the z-loss in `loss`.
    correct: scalar, weight of the tokens whose highest logit is the target's.
    weight: scalar, sum of the weights.
    token_loss, token_correct: [batch, length], what each token adds to `loss` and `correct`.
  """

  loss: jax.Array
  z_loss: jax.Array
  correct: jax.Array
  weight: jax.Array
  token_loss: jax.Array
  token_correct: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CollectionSums:
  """Sum of the loss and of the weight of each collection, float32 [collections]."""

  loss: jax.Array
  weight: jax.Array


def cross_entropy(
  logits: jax.Array,
  targets: jax.Array,
  weights: jax.Array,
  *,
  label_smoothing: float = 0.0,
  z_loss: float = 0.0,
  vocab_size: int | None = None,
) -> LossSums:
  """Sum the weighted cross entropy of the target tokens.

  With label smoothing s the target distribution q puts 1 - s on the target and s / (V - 1) on
  every other token; the loss is cross entropy(q, p) - entropy(q), so a perfect model reaches 0.
  The z-loss adds z_loss * log(Z)^2 per token, which keeps the logits from drifting.

  Args:
    logits: [batch, length, vocab] float32; the vocabulary may be sharded.
    targets: [batch, length] int32.
    weights: [batch, length]; 0 leaves a token out.
    label_smoothing: probability given to all tokens but the target, in [0, 1).
    z_loss: coefficient of log(Z)^2, at least 0; T5 uses 1e-4.
    vocab_size: columns that are real tokens; None means all. Columns beyond it are padding of the
      vocabulary and get no smoothing mass (the model masks their logits).

  Returns:
    LossSums.

  Raises:
    ValueError: for coefficients or shapes that make no sense.

  Source: Szegedy et al. 1512.00567 section 7; z-loss as in Mesh TensorFlow and T5X.
  """
  _check(logits, targets, weights, label_smoothing, z_loss, vocab_size)
  columns = Columns(logits.shape[-1] if vocab_size is None else vocab_size)
  terms = token_terms(logits, targets, label_smoothing, columns)
  return add_up(terms, weights.astype(jnp.float32), z_loss)


def per_collection_sums(
  token_loss: jax.Array, weights: jax.Array, collection_ids: jax.Array, num_collections: int
) -> CollectionSums:
  """Split a batch's loss and weight by the collection each token came from.

  Args:
    token_loss: [batch, length] float32, `LossSums.token_loss` (already weighted).
    weights: [batch, length], the weights the loss was computed with.
    collection_ids: [batch, length] int32; 0 is padding, i + 1 is collection i.
    num_collections: number of collections.

  Returns:
    CollectionSums, replicated on every device.
  """
  # A comparison instead of a scatter: it needs no gather of the sharded rows.
  member = collection_ids[..., None] == jnp.arange(1, num_collections + 1, dtype=jnp.int32)
  loss = jnp.where(member, token_loss[..., None], 0.0)
  weight = jnp.where(member, weights[..., None].astype(jnp.float32), 0.0)
  return CollectionSums(loss=jnp.sum(loss, axis=(0, 1)), weight=jnp.sum(weight, axis=(0, 1)))


def normalizing_factor(kind: str | float | None, batch: Mapping[str, jax.Array]) -> jax.Array:
  """Return what the summed loss of a whole (unsplit) batch is divided by.

  Args:
    kind: None (1), a number (itself; T5 1.1 used 233472), 'NUM_REAL_TARGET_TOKENS' (sum of the
      weights), 'NUM_TOTAL_TARGET_TOKENS' (batch x length, padding included), or
      'AVERAGE_PER_SEQUENCE' (number of sequences with any weight; needs `loss_weights`).
    batch: features; decoder_loss_weights and, for sequences, decoder_segment_ids
      [batch, length].

  Returns:
    float32 scalar; 1 where the batch holds no target at all, so that the loss is 0 and not NaN.

  Raises:
    ValueError: if `kind` is none of these.
  """
  kind = _check_kind(kind)
  weights = batch['decoder_loss_weights']
  if kind == 'NUM_TOTAL_TARGET_TOKENS':
    return jnp.float32(weights.size)
  if isinstance(kind, str):
    total = jnp.sum(loss_weights(kind, batch))
    return jnp.where(total > 0, total, 1.0)
  return jnp.float32(1.0 if kind is None else kind)


def loss_weights(kind: str | float | None, batch: Mapping[str, jax.Array]) -> jax.Array:
  """Return the weights [batch, length] float32 that `kind` asks the loss to be computed with.

  'AVERAGE_PER_SEQUENCE' divides each weight by the sum over its packed example, so every example
  counts the same whatever its length; every other kind leaves the weights alone.
  """
  weights = batch['decoder_loss_weights'].astype(jnp.float32)
  if _check_kind(kind) != 'AVERAGE_PER_SEQUENCE':
    return weights
  # Whole rows on each device: both sides of the comparison below run over `length`.
  segments = partitioning.shard(batch['decoder_segment_ids'], 'batch', None)
  whole_weights = partitioning.shard(weights, 'batch', None)
  same = segments[:, :, None] == segments[:, None, :]
  total = jnp.sum(jnp.where(same, whole_weights[:, None, :], 0.0), axis=-1)
  return jnp.where(total > 0, whole_weights / jnp.where(total > 0, total, 1.0), 0.0)


def token_counts(batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
  """'input_tokens' and 'target_tokens' of a batch, without padding, float32 scalars."""
  tokens = jnp.sum(batch['decoder_segment_ids'] > 0, dtype=jnp.float32)
  if 'encoder_segment_ids' in batch:
    inputs = jnp.sum(batch['encoder_segment_ids'] > 0, dtype=jnp.float32)
    return {'input_tokens': inputs, 'target_tokens': tokens}
  inputs = jnp.sum(batch['decoder_prefix'] > 0, dtype=jnp.float32)
  return {'input_tokens': inputs, 'target_tokens': tokens - inputs}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TokenTerms:
  """Of each token, [batch, length]: what the loss is made of.

  Attributes:
    cross: cross entropy in nats, float32.
    log_z: logarithm of the partition function, float32.
    correct: whether the highest logit, of equals the first, is the target's.
  """

  cross: jax.Array
  log_z: jax.Array
  correct: jax.Array


class Columns(NamedTuple):
  """Which part of the vocabulary the last axis of some logits is.

  Attributes:
    vocab_size: columns of the whole that are real tokens.
    first: the first column.
    mesh_axes: over which the parts are spread, inside `partitioning.per_device`.
  """

  vocab_size: int
  first: int | jax.Array = 0
  mesh_axes: tuple[str, ...] = ()


def token_terms(
  logits: jax.Array, targets: jax.Array, label_smoothing: float, columns: Columns
) -> TokenTerms:
  """The terms of logits [batch, length, columns] and targets [batch, length]."""
  logits = logits.astype(jnp.float32)
  column = columns.first + jnp.arange(logits.shape[-1])
  is_target = column == targets[..., None]
  stopped = jax.lax.stop_gradient(logits)
  highest = jax.lax.pmax(jnp.max(stopped, axis=-1), columns.mesh_axes)
  before = (column < targets[..., None]) & (stopped >= highest[..., None])
  # Not take_along_axis: a gather along a sharded vocabulary would collect the whole of it.
  sums = [
    jnp.sum(jnp.exp(logits - highest[..., None]), axis=-1),
    jnp.sum(jnp.where(is_target, logits, 0.0), axis=-1),
    jnp.sum(before, axis=-1, dtype=jnp.float32),
  ]
  if label_smoothing:
    sums.append(jnp.sum(jnp.where(column < columns.vocab_size, logits, 0.0), axis=-1))
  partition, of_target, before, *of_all = jax.lax.psum(sums, columns.mesh_axes)
  log_z = highest + jnp.log(partition)
  high, low = _target_shares(label_smoothing, columns.vocab_size)
  expected = (high - low) * of_target + (low * of_all[0] if of_all else 0.0)
  return TokenTerms(
    cross=log_z - expected - _entropy(label_smoothing, columns.vocab_size),
    log_z=log_z,
    correct=(of_target == highest) & (before == 0),
  )


def logits_gradient(
  logits: jax.Array,
  targets: jax.Array,
  weights: jax.Array,
  log_z: jax.Array,
  label_smoothing: float,
  z_loss: float,
  columns: Columns,
) -> jax.Array:
  """The gradient of `add_up`'s loss: d cross = p - q, d log(Z)^2 = 2 log(Z) p."""
  column = columns.first + jnp.arange(logits.shape[-1])
  high, low = _target_shares(label_smoothing, columns.vocab_size)
  others = jnp.where(column < columns.vocab_size, jnp.float32(low), 0.0)
  share = jnp.where(column == targets[..., None], jnp.float32(high), others)
  scale = weights * (1.0 + 2.0 * z_loss * log_z)
  return jnp.exp(logits - log_z[..., None]) * scale[..., None] - share * weights[..., None]


def add_up(terms: TokenTerms, weights: jax.Array, z_loss: float) -> LossSums:
  """The weighted sums of the terms; `weights` [batch, length] float32."""
  z_term = z_loss * jnp.square(terms.log_z) * weights
  token_loss = terms.cross * weights + z_term
  token_correct = jnp.where(terms.correct, weights, 0.0)
  return LossSums(
    loss=jnp.sum(token_loss),
    z_loss=jnp.sum(z_term),
    correct=jnp.sum(token_correct),
    weight=jnp.sum(weights),
    token_loss=token_loss,
    token_correct=token_correct,
  )


def _target_shares(label_smoothing, vocab_size):
  """What the smoothed q gives the target, and what every other token."""
  return 1.0 - label_smoothing, label_smoothing / (vocab_size - 1) if label_smoothing else 0.0


def _entropy(label_smoothing, vocab_size):
  """Entropy of the smoothed targets, the lowest value their cross entropy can take."""
  if not label_smoothing:
    return 0.0
  high, low = 1.0 - label_smoothing, label_smoothing / (vocab_size - 1)
  return -(high * math.log(high) + (vocab_size - 1) * low * math.log(low + 1e-20))


def _check(logits, targets, weights, label_smoothing, z_loss, vocab_size):
  if logits.shape[:-1] != targets.shape or weights.shape != targets.shape:
    raise ValueError(
      f'logits {logits.shape}, targets {targets.shape} and weights {weights.shape} do not fit; '
      'they must be [batch, length, vocab], [batch, length] and [batch, length].'
    )
  check_coefficients(label_smoothing, z_loss)
  if vocab_size is not None and not 1 < vocab_size <= logits.shape[-1]:
    raise ValueError(
      f'vocab_size={vocab_size} is not within 2 and the {logits.shape[-1]} columns of the logits.'
    )


def check_coefficients(label_smoothing: float, z_loss: float) -> None:
  """Refuses coefficients that make no sense."""
  if not 0.0 <= label_smoothing < 1.0:
    raise ValueError(f'label_smoothing={label_smoothing} is outside [0, 1); T5 uses 0.0.')
  if not z_loss >= 0.0:
    raise ValueError(f'z_loss={z_loss} is negative; use 0.0 to leave it out, T5 uses 0.0001.')


def _check_kind(kind):
  """Return the kind, or say which ones exist."""
  allowed = f'Allowed: None, a number above 0, {", ".join(NORMALIZERS)}.'
  if isinstance(kind, str) and kind not in NORMALIZERS:
    hint = nearest(kind.upper(), NORMALIZERS)
    raise ValueError(f'No loss normalizing factor {kind!r}.{hint} {allowed}')
  if isinstance(kind, bool) or not isinstance(kind, (str, int, float, type(None))):
    raise ValueError(f'loss normalizing factor {kind!r} is a {type(kind).__name__}. {allowed}')
  if isinstance(kind, (int, float)) and not (kind > 0 and math.isfinite(kind)):
    raise ValueError(f'loss normalizing factor {kind} is not a positive number. {allowed}')
  return kind
