"""Low-rank adapters merged into the kernels beside which they were trained, a part at a time."""

import numpy as np

from flan_jax.convert.arrays import Stored
from flan_jax.models.config import Lora
from flan_jax.models.lora import SUFFIX, merged


def merge_adapters(parameters: dict[str, Stored], lora: Lora) -> dict[str, Stored]:
  """The parameters by path without adapters, their kernels read with what those add."""
  found = {}
  for path, kernel in parameters.items():
    if SUFFIX in path:
      continue
    a, b = (parameters.get(f'{path}{SUFFIX}.{name}') for name in 'ab')
    found[path] = _merged(kernel, a, b, lora) if a and b else kernel
  return found


def read_whole(stored: Stored, layers: slice = slice(None)) -> np.ndarray:
  """All of an array, or of some of its layers, float32."""
  return np.asarray(stored.read((layers, *[slice(None)] * (len(stored.shape) - 1))), np.float32)


def _merged(kernel: Stored, a: Stored, b: Stored, lora: Lora) -> Stored:
  def read(index: tuple[slice, ...]) -> np.ndarray:
    layers = index[0]
    whole = merged(read_whole(kernel, layers), read_whole(a, layers), read_whole(b, layers), lora)
    return whole[(slice(None), *index[1:])]

  return Stored(kernel.shape, kernel.dtype, read, kernel.granule)
