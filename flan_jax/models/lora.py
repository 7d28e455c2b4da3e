"""Kernels with what training adds beside them when they are frozen: low-rank adapters.

An adapter (arXiv:2106.09685) is two narrow matrices, so that nothing as large as its kernel is made
for a gradient or an optimizer. It is our own and no library's: it is these two products.
"""

import copy
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from flan_jax.models.config import KERNELS, Lora
from flan_jax.models.keys import Rngs
from flan_jax.models.layers import normal, parameter, product, turned_product, zeros
from flan_jax.partitioning import out, shard

SUFFIX = '_lora'  # of an adapter's name, after that of its kernel
TURNED = 'turned'  # in the metadata of a kernel: whether it is [*outer, *inner]
_INNER_AXES = {'output': 2}  # of a kernel, where not 1: [heads, head_dim, embed]


class Adapter(nnx.Module):
  """What is added to x kernel: x a b * alpha / rank. At first it is nothing, as b is zero."""

  def __init__(self, lora: Lora, rngs: Rngs, shape: tuple, axes: tuple, inner: int):
    """Makes the adapter of a kernel of this shape and axes, `inner` of which are summed over."""
    deviation = 1 / math.sqrt(math.prod(shape[:inner]))
    a_shape, b_shape = (*shape[:inner], lora.rank), (lora.rank, *shape[inner:])
    self.a = parameter(rngs, normal(deviation), a_shape, (*axes[:inner], 'lora_rank'))
    self.b = parameter(rngs, zeros, b_shape, ('lora_rank', *axes[inner:]))
    self.scale = lora.alpha / lora.rank

  def __call__(self, x: jax.Array, *axes: str | None) -> jax.Array:
    """[batch, length, *inner] -> [batch, length, *outer], laid out by `axes`."""
    narrow = product(x, _for_product(self.a, x.dtype), out('batch', axes[1], None))
    return product(narrow, _for_product(self.b, x.dtype), out(*axes)) * self.scale


def add_adapters(module: nnx.Module, lora: Lora | None, rngs: Rngs) -> None:
  """Gives the kernels of a module that are targets an adapter each, named KERNEL_lora."""
  if lora is None:
    return
  for name in lora.targets:
    kernel = getattr(module, name, None)
    if kernel is not None:
      shape, axes = kernel.shape, kernel.get_metadata()['axes']
      adapter = Adapter(lora, rngs, shape, axes, _INNER_AXES.get(name, 1))
      setattr(module, name + SUFFIX, adapter)


def project(module: nnx.Module, name: str, x: jax.Array, *axes: str | None) -> jax.Array:
  """Multiplies x by the kernel `name` of a module, and adds what its adapter gives.

  Args:
    module: has the kernel [*inner, *outer], or as `for_steps` has it, and perhaps an adapter.
    name: the kernel's.
    x: [batch, length, *inner].
    axes: of the result, [batch, length, *outer].
  """
  kernel = getattr(module, name)
  multiply = turned_product if kernel.get_metadata().get(TURNED) else product
  y = multiply(x, _for_product(kernel, x.dtype), out(*axes))
  adapter = getattr(module, name + SUFFIX, None)
  return y if adapter is None else y + adapter(x, *axes)


def for_steps(module: nnx.Module, dtype: jnp.dtype | str, *, turn: bool) -> nnx.Module:
  """A copy of a module with its kernels, and those of its parts, as step after step reads them.

  Args:
    module: a layer, say.
    dtype: of the products, which each step would cast the kernels to.
    turn: whether to turn kernels around, for `turned_product`.
  """
  copied = copy.copy(module)
  for name, part in vars(module).items():
    if isinstance(part, nnx.Module):
      setattr(copied, name, for_steps(part, dtype, turn=turn))
    elif name in KERNELS:
      kernel, axes = part[...].astype(dtype), part.get_metadata()['axes']
      if turn:
        inner = _INNER_AXES.get(name, 1)
        order = (*range(inner, part.ndim), *range(inner))
        kernel, axes = kernel.transpose(order), [axes[i] for i in order]
      setattr(copied, name, nnx.Param(kernel, axes=axes, **{TURNED: turn}))
  return copied


def merged(kernel: Any, a: Any, b: Any, lora: Lora) -> Any:
  """A stacked kernel [layers, *inner, *outer] with what its adapter adds; of JAX or of NumPy."""
  added = a.reshape(len(a), -1, lora.rank) @ b.reshape(len(b), lora.rank, -1)
  return kernel + (lora.alpha / lora.rank * added.reshape(kernel.shape)).astype(kernel.dtype)


def _for_product(kernel: nnx.Param, dtype: jnp.dtype) -> jax.Array:
  """A kernel as products take it: gathered over what is sharded at rest only."""
  at_rest = {'embed': 'act_embed', 'head_dim': None, 'lora_rank': None}
  axes = [at_rest.get(axis, axis) for axis in kernel.get_metadata()['axes']]
  return shard(kernel[...].astype(dtype), *axes)
