"""Attention compiled with its gradients, for devices that are not there."""

from collections.abc import Callable
from typing import Any


def compile_both_passes(
  attend: Callable, mesh: Any, array: tuple, intervals: tuple, bias: tuple | None
) -> None:
  """Compiles attention forward and backward in bfloat16 for one device.

  Args:
    attend: (query, keys, values, start, stop, bias) -> what is attended to.
    mesh: of the device.
    array: shape of queries, keys, values and what is attended to.
    intervals: shape of start and stop.
    bias: shape of the bias, or None.
  """
  import jax
  import jax.numpy as jnp
  from jax.sharding import NamedSharding, PartitionSpec

  from flan_jax import partitioning

  def abstract(shape, dtype):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, PartitionSpec()))

  def both(start, stop, gradient, *args):
    def fn(query, keys, values, bias):
      return attend(query, keys, values, start, stop, bias)

    attended, back = jax.vjp(fn, *args)
    return attended, back(gradient)

  args = [abstract(intervals, jnp.int32)] * 2 + [abstract(array, jnp.bfloat16)] * 4
  with partitioning.use_mesh(mesh):
    specs = {'in_specs': PartitionSpec(), 'out_specs': PartitionSpec(), 'check_vma': False}
    of_bias = None if bias is None else abstract(bias, jnp.float32)
    jax.jit(jax.shard_map(both, **specs)).lower(*args, of_bias).compile()
