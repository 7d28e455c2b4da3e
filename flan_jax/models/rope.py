"""Rotary positions: queries and keys are turned by their position, so scores know distances.

Source: arXiv:2104.09864. Pairs are (i, i + head_dim / 2), as in Hugging Face's Llama.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flan_jax.models.config import RopeScaling, TransformerConfig


class Rotation(NamedTuple):
  """Sine and cosine of each position's angles, float32 [batch, length, head_dim / 2]."""

  sin: jax.Array
  cos: jax.Array


def rotation(positions: jax.Array, config: TransformerConfig, *, local: bool = False) -> Rotation:
  """The rotation of int32 positions [batch, length] in a global or a local layer."""
  theta, scaling = config.rope_theta, config.rope_scaling
  if local and config.rope_local_theta is not None:
    theta, scaling = config.rope_local_theta, None
  frequencies = rope_frequencies(config.head_dim, theta, scaling)
  angles = positions[:, :, None].astype(jnp.float32) * frequencies
  return Rotation(jnp.sin(angles), jnp.cos(angles))


def rotate(x: jax.Array, rotation: Rotation) -> jax.Array:
  """Turns [batch, length, heads, head_dim]; computed in float32, as angles need it."""
  first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  sin, cos = rotation.sin[:, :, None], rotation.cos[:, :, None]
  turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
  return turned.astype(x.dtype)


def rope_frequencies(head_dim: int, theta: float, scaling: RopeScaling | None) -> np.ndarray:
  """Radians a token of each pair, float32 [head_dim / 2], fastest first."""
  exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
  frequencies = (1.0 / np.float32(theta) ** exponents).astype(np.float32)
  if scaling is None:
    return frequencies
  if scaling.kind == 'linear':
    return frequencies / np.float32(scaling.factor)
  # Of each wave, how much is left as it is: all of the short, nothing of the long.
  waves = 2 * math.pi / frequencies
  low, high = scaling.low_freq_factor, scaling.high_freq_factor
  kept = np.clip((scaling.original_length / waves - low) / (high - low), 0, 1)
  blended = (1 - kept) * frequencies / scaling.factor + kept * frequencies
  return blended.astype(np.float32)
