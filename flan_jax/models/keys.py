"""The keys that parameters are drawn with: those of `nnx.Rngs`, hashed many at a time.

A hash is a loop of its own in what XLA compiles, as large as the loop that draws the numbers, so
that one for each parameter would be half of the program that makes a model.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

_AT_ONCE = 32


@jax.tree_util.register_pytree_node_class
class Keys:
  """Gives the next key of `key` at each call of `params`.

  What a transformation of JAX makes of it begins with the first key again.

  Args:
    key: PRNG key, or with `split` one for each layer, [layers], to be mapped over by `jax.vmap`.
  """

  def __init__(self, key: jax.Array):
    self._key = key
    self._count = 0
    self._hashed: list[jax.Array] = []

  @classmethod
  def of(cls, rngs: nnx.Rngs) -> 'Keys':
    """Gives what `rngs` gives when it is fresh, and leaves it as it is."""
    return cls(rngs.params.key[...])

  def params(self) -> jax.Array:
    """The same keys, in the same order, as those of `nnx.Rngs(params=key)`."""
    if not self._hashed:
      counts = jnp.arange(self._count, self._count + _AT_ONCE, dtype=jnp.uint32)
      self._hashed = list(jax.vmap(jax.random.fold_in, (None, 0))(self._key, counts))[::-1]
      self._count += _AT_ONCE
    return self._hashed.pop()

  def split(self, count: int) -> 'Keys':
    """One for each of `count` layers."""
    return Keys(jax.random.split(self.params(), count))

  def tree_flatten(self) -> tuple[tuple[jax.Array], None]:
    return (self._key,), None

  @classmethod
  def tree_unflatten(cls, _: None, children: tuple[Any]) -> 'Keys':
    return cls(*children)


Rngs = nnx.Rngs | Keys
