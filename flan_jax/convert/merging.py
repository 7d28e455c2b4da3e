"""Low-rank adapters merged into the kernels beside which they were trained, a part at a time."""

import numpy as np

from flan_jax.convert.arrays import Stored
from flan_jax.models.config import Lora
from flan_jax.models.lora import SUFFIX


def merge_adapters(parameters: dict[str, Stored], lora: Lora) -> dict[str, Stored]:
  """The parameters by path without adapters, their kernels read with what those add."""
  merged = {}
  for path, kernel in parameters.items():
    if SUFFIX in path:
      continue
    a, b = (parameters.get(f'{path}{SUFFIX}.{name}') for name in 'ab')
    merged[path] = _merged(kernel, a, b, lora) if a and b else kernel
  return merged


def read_whole(stored: Stored, layers: slice = slice(None)) -> np.ndarray:
  """All of an array, or of some of its layers, float32."""
  return np.asarray(stored.read((layers, *[slice(None)] * (len(stored.shape) - 1))), np.float32)


def _merged(kernel: Stored, a: Stored, b: Stored, lora: Lora) -> Stored:
  rank = lora.rank

  def read(index: tuple[slice, ...]) -> np.ndarray:
    narrow, wide = read_whole(a, index[0]), read_whole(b, index[0])
    layers = len(narrow)
    added = np.matmul(narrow.reshape(layers, -1, rank), wide.reshape(layers, rank, -1))
    added = added.reshape(layers, *kernel.shape[1:])[(slice(None), *index[1:])]
    return kernel.read(index) + np.float32(lora.alpha / rank) * added

  return Stored(kernel.shape, kernel.dtype, read, kernel.granule)
