"""The keys and values that decoding keeps, so that one more token costs one more position."""

import dataclasses

import jax


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KVCache:
  """What decoding a batch needs beside the parameters; a pytree.

  Rows (the batch axis) are axis 1 of keys and values, axis 0 of `encoder_segment_ids`, and
  absent from `position`, which all rows share.

  Attributes:
    key, value: of the decoder's own tokens, [layers, batch, length, kv_heads, head_dim]; zeros
      from `position` on.
    cross_key, cross_value: of the encoder's output, [layers, batch, encoder_length, kv_heads,
      head_dim].
    encoder_segment_ids: int32 [batch, encoder_length], 0 where a row is padding.
    position: int32 scalar, how many tokens were decoded.
  """

  key: jax.Array
  value: jax.Array
  cross_key: jax.Array
  cross_value: jax.Array
  encoder_segment_ids: jax.Array
  position: jax.Array

  @property
  def max_length(self) -> int:
    """How many tokens the cache has room for."""
    return self.key.shape[2]
