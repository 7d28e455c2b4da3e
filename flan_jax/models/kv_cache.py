"""The keys and values that decoding keeps, so that one more token costs one more position.

They lie as the products of one query with all keys read them, [batch, kv_heads, head_dim, slots],
as T5X's do: a step that had to turn them around first would copy all of them.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Self

import jax
import jax.numpy as jnp

_OF_LAYERS = ('key', 'value', 'cross_key', 'cross_value')
_OF_ROWS = ('encoder_segment_ids', 'prompt_lengths', 'first_tokens')
# Of what layers have, stacked or not.
_ROW_AXIS = -4
SLOT_AXIS = -1


def to_cache(kv: jax.Array) -> jax.Array:
  """Keys or values [..., length, kv_heads, head_dim] as a cache holds them."""
  return jnp.moveaxis(kv, -3, -1)


def from_cache(kv: jax.Array) -> jax.Array:
  """Keys or values of a cache as attention takes them."""
  return jnp.moveaxis(kv, -1, -3)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Prefix:
  """What several prompts of a decoder without encoder begin with, read once; a pytree.

  Attributes:
    tokens: int32 [length].
    key, value: of the tokens, [layers, 1, kv_heads, head_dim, length].
  """

  tokens: jax.Array
  key: jax.Array
  value: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KVCache:
  """What decoding a batch needs beside the parameters; a pytree.

  A decoder without encoder has its prompts, padded at the end, in the slots before the answers'.
  What layers have is stacked, or a tuple of one [batch, ...] for each: all of it after `unstacked`,
  and what the encoder gave from the start where layers are to be read apart.

  Attributes:
    key, value: of the decoder's own tokens, [layers, batch, kv_heads, head_dim, slots]; the last
      `max_length` slots are the answers', zeros from `position` on.
    position: int32 scalar, how many tokens were decoded, the same for all rows.
    cross_key, cross_value: of the encoder's output, [layers, batch, kv_heads, head_dim,
      encoder_length]; None without encoder, as is the next.
    encoder_segment_ids: int32 [batch, encoder_length], 0 where a row is padding.
    prompt_lengths: int32 [batch], tokens of each prompt, prefix included; None with an encoder, as
      is the next.
    first_tokens: int32 [batch], the last token of each prompt: the first that decoding reads.
    max_length: how many tokens of an answer there is room for.
  """

  key: Any
  value: Any
  position: jax.Array
  cross_key: Any = None
  cross_value: Any = None
  encoder_segment_ids: jax.Array | None = None
  prompt_lengths: Any = None
  first_tokens: jax.Array | None = None
  max_length: int = dataclasses.field(default=0, metadata={'static': True})

  @property
  def prompt_slots(self) -> int:
    """Slots before those of the answers."""
    return self.slots - self.max_length

  @property
  def slots(self) -> int:
    """Slots of the decoder's own tokens, prompts and answers."""
    return jax.tree.leaves(self.key)[0].shape[SLOT_AXIS]

  @property
  def rows(self) -> int:
    """Rows of the batch."""
    return jax.tree.leaves(self.key)[0].shape[_ROW_AXIS]

  @property
  def of_layers(self) -> dict[str, Any]:
    """What each layer reads, by name."""
    return {name: getattr(self, name) for name in _OF_LAYERS}

  def map_rows(self, fn: Callable[[jax.Array, int], jax.Array]) -> Self:
    """The cache with `fn(array, axis of the rows)` of every array that has rows."""
    changed = {name: self._map_rows(fn, name) for name in (*_OF_LAYERS, *_OF_ROWS)}
    return dataclasses.replace(self, **changed)

  def map_own(self, fn: Callable[[jax.Array, int], jax.Array]) -> Self:
    """The same of the decoder's own keys and values alone."""
    changed = {name: self._map_rows(fn, name) for name in ('key', 'value')}
    return dataclasses.replace(self, **changed)

  def _map_rows(self, fn, name):
    axis = _ROW_AXIS if name in _OF_LAYERS else 0
    return jax.tree.map(lambda x: fn(x, axis % x.ndim), getattr(self, name))

  def unstacked(self) -> Self:
    """The same with a tuple of one array for each layer."""
    apart = {
      name: None if stacked is None else tuple(stacked[i] for i in range(len(stacked)))
      for name, stacked in self.of_layers.items()
    }
    return dataclasses.replace(self, **apart)
