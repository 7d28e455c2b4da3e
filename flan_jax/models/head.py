"""What makes logits of hidden states."""

import dataclasses

import jax
import jax.numpy as jnp

from flan_jax.models.layers import product, softcap, turned_product
from flan_jax.partitioning import out

# Logit of the columns that only pad the vocabulary. Finite, so that 0 x it is 0 in a loss.
UNUSED_LOGIT = -1e9


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Head:
  """The last product of a model.

  Attributes:
    kernel: [embed, padded vocab] in the compute dtype; of one device's call, some of the columns.
    vocab_size: columns that are tokens.
    softcap: c of c * tanh(logits / c), or None.
    turned: whether the kernel is [padded vocab, embed] and multiplied by `turned_product`.
  """

  kernel: jax.Array
  vocab_size: int = dataclasses.field(metadata={'static': True})
  softcap: float | None = dataclasses.field(metadata={'static': True})
  turned: bool = dataclasses.field(default=False, metadata={'static': True})

  def __call__(self, x: jax.Array, first_column: int | jax.Array = 0) -> jax.Array:
    """Logits of x [batch, length, embed], float32 [batch, length, columns], the unused masked.

    Args:
      x: hidden states, of the kernel's dtype.
      first_column: which column of the vocabulary the kernel begins with.
    """
    multiply = turned_product if self.turned else product
    logits = multiply(x, self.kernel, out('batch', 'length', 'act_vocab'), jnp.float32)
    logits = softcap(logits, self.softcap)
    columns = logits.shape[-1]
    if isinstance(first_column, int) and first_column + columns <= self.vocab_size:
      return logits
    used = first_column + jnp.arange(columns) < self.vocab_size
    return jnp.where(used, logits, UNUSED_LOGIT)
