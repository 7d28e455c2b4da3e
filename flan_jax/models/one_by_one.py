"""The layers of a stack one by one, so that on a CPU XLA compiles what they share only once.

XLA compiles equal kernels once, but a kernel that reads `stacked[3]` has the 3 in it: of eight
layers there are eight of everything that reads a parameter. Where the index is a value that XLA
cannot foresee, all layers share one.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp


def layers_of(stacked: Any, count: int) -> list:
  """A pytree for each layer of one whose arrays are [layers, ...]."""
  return _take(stacked, _unforeseen(count))


def _unforeseen(count: int) -> tuple[jax.Array, ...]:
  """The numbers below `count`, int32 scalars: XLA does not evaluate loops, however short."""
  numbers = tuple(jnp.int32(i) for i in range(count))
  return jax.lax.fori_loop(0, 2, lambda _, turned: tuple(~i for i in turned), numbers)


@jax.custom_vjp
def _take(stacked, indices):
  def layer(i):
    take = functools.partial(jax.lax.dynamic_index_in_dim, index=i, keepdims=False)
    return jax.tree.map(take, stacked)

  return [layer(i) for i in indices]


def _take_forward(stacked, indices):
  return _take(stacked, indices), indices


def _take_backward(indices, gradients):
  """Writes each layer's gradient into its place; joining them has a branch for each layer."""

  def put(*parts):
    whole = jnp.broadcast_to(jnp.zeros_like(parts[0]), (len(parts), *parts[0].shape))
    for i, part in zip(indices, parts, strict=True):
      whole = jax.lax.dynamic_update_index_in_dim(whole, part, i, 0)
    return whole

  return jax.tree.map(put, *gradients), None


_take.defvjp(_take_forward, _take_backward)
