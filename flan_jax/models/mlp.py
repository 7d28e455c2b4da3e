"""The feed-forward layer."""

import math
from collections.abc import Callable

import jax
from flax import nnx

from flan_jax.models.config import TransformerConfig
from flan_jax.models.keys import Rngs
from flan_jax.models.layers import drop, parameter, truncated_normal
from flan_jax.models.lora import add_adapters, project

_GATES: dict[str, Callable[[jax.Array], jax.Array]] = {
  # The tanh form, as T5X and Hugging Face ('gelu_new') have it.
  'gated_gelu': lambda x: jax.nn.gelu(x, approximate=True),
  'gated_silu': jax.nn.silu,
}


class Mlp(nnx.Module):
  """The feed-forward layer: activation(x gate) * (x up), or activation(x up), then down."""

  def __init__(self, config: TransformerConfig, rngs: Rngs):
    embed, mlp = config.embed_dim, config.mlp_dim
    widen = truncated_normal(1 / math.sqrt(embed))
    if config.activation.startswith('gated'):
      self.gate = parameter(rngs, widen, (embed, mlp), ('embed', 'mlp'))
    self.up = parameter(rngs, widen, (embed, mlp), ('embed', 'mlp'))
    narrow = truncated_normal(1 / math.sqrt(mlp))
    self.down = parameter(rngs, narrow, (mlp, embed), ('mlp', 'embed'))
    add_adapters(self, config.lora, rngs)
    self.config = config

  def __call__(self, x: jax.Array, scale: jax.Array | None = None) -> jax.Array:
    """[batch, length, embed] -> the same; `scale` [batch, 1, mlp] drops hidden units."""
    wide, narrow = ('batch', 'length', 'act_mlp'), ('batch', 'length', 'act_embed')
    hidden = project(self, 'up', x, *wide)
    if self.config.activation == 'relu':
      hidden = jax.nn.relu(hidden)
    else:
      hidden = _GATES[self.config.activation](project(self, 'gate', x, *wide)) * hidden
    return project(self, 'down', drop(hidden, scale), *narrow)
