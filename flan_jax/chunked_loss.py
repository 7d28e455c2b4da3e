"""The loss of hidden states, whose logits exist for a few tokens at a time.

Whoever has logits already takes `losses.cross_entropy`, of the same terms.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import CustomVJPPrimal, SymbolicZero

from flan_jax import losses, partitioning

CHUNK_TOKENS = 1024


class _Settings(NamedTuple):
  label_smoothing: float
  z_loss: float
  chunk_tokens: int


def cross_entropy(
  head: Any,
  hidden: jax.Array,
  targets: jax.Array,
  weights: jax.Array,
  *,
  label_smoothing: float = 0.0,
  z_loss: float = 0.0,
  chunk_tokens: int = CHUNK_TOKENS,
) -> losses.LossSums:
  """`losses.cross_entropy` of the logits that `head` makes of `hidden`, without having them all.

  Each device takes its tokens in equal parts of at most `chunk_tokens`. As `loss` is a scalar, its
  gradient is the cotangent times what can be computed beside it: when a gradient is asked for,
  each part's logits go into those of `hidden` and `head` at once and are never made again.

  Args:
    head: models.head.Head.
    hidden: [batch, length, embed].
    targets: [batch, length] int32.
    weights: [batch, length]; 0 leaves a token out. They have no gradient.
    label_smoothing: probability given to all tokens but the target, in [0, 1).
    z_loss: coefficient of log(Z)^2, at least 0.
    chunk_tokens: logits in memory are float32 [chunk_tokens, vocab] on each device.

  Returns:
    LossSums, of which only `loss` can be differentiated.

  Raises:
    ValueError: for coefficients or shapes that make no sense, or a gradient of another sum.
  """
  losses.check_coefficients(label_smoothing, z_loss)
  if targets.shape != hidden.shape[:-1] or weights.shape != targets.shape:
    raise ValueError(
      f'hidden {hidden.shape}, targets {targets.shape} and weights {weights.shape} do not fit; '
      'they must be [batch, length, embed], [batch, length] and [batch, length].'
    )
  if chunk_tokens < 1:
    raise ValueError(f'LossConfig.chunk_tokens={chunk_tokens} must be at least 1.')
  settings = _Settings(label_smoothing, z_loss, chunk_tokens)
  return _sums(head, hidden, targets, weights.astype(jnp.float32), settings)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _sums(head, hidden, targets, weights, settings):
  """Without gradients."""
  terms, _ = _on_devices(head, hidden, targets, weights, settings, gradients=False)
  return losses.add_up(terms, weights, settings.z_loss)


def _forward(head, hidden, targets, weights, settings):
  """The sums, and the gradients of the loss with respect to head and hidden."""
  primals = (head, hidden, targets, weights)
  head, hidden, targets, weights = jax.tree.map(
    lambda primal: primal.value, primals, is_leaf=lambda x: isinstance(x, CustomVJPPrimal)
  )
  terms, gradients = _on_devices(head, hidden, targets, weights, settings, gradients=True)
  return losses.add_up(terms, weights, settings.z_loss), gradients


def _backward(settings, gradients, cotangents):
  del settings
  others = {name: value for name, value in vars(cotangents).items() if name != 'loss'}
  used = [name for name, value in others.items() if not isinstance(value, SymbolicZero)]
  if used:
    raise ValueError(f'LossSums.{used[0]} has no gradient here; differentiate LossSums.loss.')
  scale = cotangents.loss
  if isinstance(scale, SymbolicZero):
    scale = jnp.zeros(())
  head, hidden = jax.tree.map(lambda x: (x * scale).astype(x.dtype), gradients)
  return head, hidden, None, None


_sums.defvjp(_forward, _backward, symbolic_zeros=True)


def _on_devices(head, hidden, targets, weights, settings, *, gradients):
  """Terms of all tokens and, if wanted, the gradients of (head, hidden)."""
  spec = partitioning.spec
  tokens, states = spec('batch', 'length'), spec('batch', 'length', 'act_embed')
  kernel = spec('act_embed', 'vocab')
  work = functools.partial(
    _on_device,
    settings=settings,
    gradients=gradients,
    token_axes=partitioning.mesh_axes('batch', 'length'),
    vocab_axes=partitioning.mesh_axes('vocab'),
  )
  spread = partitioning.per_device(
    work, (kernel, states, tokens, tokens), (tokens, (kernel, states) if gradients else None)
  )
  return spread(head, hidden, targets, weights)


def _on_device(head, hidden, targets, weights, *, settings, gradients, token_axes, vocab_axes):
  """The same of a device's share: [batch, length] of the tokens, [embed, columns] of the head."""
  shape, chunks = targets.shape, math.ceil(targets.size / settings.chunk_tokens)
  first_column = jax.lax.axis_index(vocab_axes) * head.kernel.shape[1] if vocab_axes else 0
  size = math.ceil(targets.size / chunks)

  def split(x):
    x = x.reshape(targets.size, *x.shape[2:])
    x = jnp.pad(x, ((0, chunks * size - len(x)), *((0, 0) for _ in x.shape[1:])))
    return x.reshape(chunks, 1, size, *x.shape[1:])

  def merge(x):
    return x.reshape(chunks * size, *x.shape[3:])[: targets.size].reshape(*shape, *x.shape[3:])

  def chunk(total, part):
    x, targets, weights = part
    logits, pull = jax.vjp(lambda head, x: head(x, first_column), head, x)
    columns = losses.Columns(head.vocab_size, first_column, vocab_axes)
    terms = losses.token_terms(logits, targets, settings.label_smoothing, columns)
    if not gradients:
      return None, (terms, None)
    to_logits = losses.logits_gradient(
      logits, targets, weights, terms.log_z, settings.label_smoothing, settings.z_loss, columns
    )
    to_head, to_x = pull(to_logits)
    return jax.tree.map(jnp.add, total, to_head), (terms, to_x)

  # In float32, as parts of bfloat16 are added up.
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), head) if gradients else None
  total, parts = jax.lax.scan(chunk, zeros, jax.tree.map(split, (hidden, targets, weights)))
  terms, to_hidden = jax.tree.map(merge, parts)
  if not gradients:
    return terms, None
  to_head = jax.tree.map(lambda x, y: jax.lax.psum(x.astype(y.dtype), token_axes), total, head)
  return terms, (to_head, jax.lax.psum(to_hidden, vocab_axes))
