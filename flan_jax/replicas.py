"""The same numbers are to have the same bits: two checks against silent corruption.

A chip that computes wrongly says nothing of it (arXiv:2102.11245). Where parameters are replicated,
it shows in its copy; elsewhere, one time or another, in a step that is computed twice.
"""

import collections
import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from flan_jax import parameter_names
from flan_jax.naming import some


class CorruptionError(RuntimeError):
  """Numbers that differ and must not; the message names the arrays."""


def check_replicas(tree: Any, step: int) -> None:
  """Compares all copies that the devices of all processes hold of the arrays of a pytree.

  Only digests leave the devices, four bytes for each array and device. Every process calls it,
  with the same arrays.

  Args:
    tree: pytree of jax.Array, all on one mesh.
    step: for the message.

  Raises:
    CorruptionError: copies of an array's part differ; says on which device, by majority.
  """
  leaves = parameter_names.by_path(tree)
  shardings: dict[str, Any] = {name: x.sharding for name, x in leaves.items()}
  copied = {name: x for name, x in leaves.items() if _copies(shardings[name], x.shape)}
  if not copied:
    return
  mesh = shardings[next(iter(copied))].mesh
  specs = tuple(shardings[name].spec for name in copied)
  found = np.asarray(_digests(tuple(copied.values()), mesh, specs))
  column = {device: i for i, device in enumerate(mesh.devices.flat)}
  for (name, x), digests in zip(copied.items(), found, strict=True):
    for devices in _copies(shardings[name], x.shape):
      _compare(name, [(digests[column[device]], device) for device in devices], step)


def computed_twice(step_fn: Callable[..., Any], every_steps: int) -> Callable[..., Any]:
  """A train step of which every so many calls are computed twice and compared, bit by bit.

  It costs as much as one step in `every_steps`, and the memory of a second state meanwhile.

  Args:
    step_fn: (state, batch) -> (state, metrics), compiled; it may donate the state.
    every_steps: 0 computes all of them once.

  Returns:
    A function like `step_fn` that raises CorruptionError.
  """
  if not every_steps:
    return step_fn
  calls = itertools.count(1)

  def step(state, batch):
    if next(calls) % every_steps:
      return step_fn(state, batch)
    again = step_fn(jax.tree.map(jnp.copy, state), batch)
    once = step_fn(state, batch)
    names = parameter_names.by_path(once)
    same = jax.device_get(_same_bits(list(names.values()), jax.tree.leaves(again)))
    if differ := [name for name, equal in zip(names, same, strict=True) if not equal]:
      raise CorruptionError(
        f'A step that was computed twice from the same numbers differs in {some(differ, 4)}: a '
        'device computed wrongly, or its operations are not deterministic (on GPUs set '
        'XLA_FLAGS=--xla_gpu_deterministic_ops=true). The run goes on from its last checkpoint.'
      )
    return once

  return step


@jax.jit
def _same_bits(first: list[jax.Array], second: list[jax.Array]) -> list[jax.Array]:
  return [jnp.all(_bits(a) == _bits(b)) for a, b in zip(first, second, strict=True)]


def _bits(x: jax.Array) -> jax.Array:
  """As unsigned numbers, for NaN is equal to nothing."""
  return jax.lax.bitcast_convert_type(x, jnp.dtype(f'uint{8 * x.dtype.itemsize}'))


def _copies(sharding, shape) -> list[list[Any]]:
  """The devices that hold each part that several hold."""
  holders = collections.defaultdict(list)
  for device, index in sharding.devices_indices_map(shape).items():
    holders[str(index)].append(device)
  return [devices for devices in holders.values() if len(devices) > 1]


@functools.partial(jax.jit, static_argnums=(1, 2))
def _digests(arrays, mesh, specs):
  """uint32 [arrays, devices of the mesh], the digest of what each device holds of each array."""

  def gathered(*parts):
    own = jnp.stack([_digest(part) for part in parts])
    return jax.lax.all_gather(own, mesh.axis_names, axis=1)

  replicated = PartitionSpec()
  return jax.shard_map(gathered, mesh=mesh, in_specs=specs, out_specs=replicated, check_vma=False)(
    *arrays
  )


def _compare(name, copies, step):
  counts = collections.Counter(digest for digest, _ in copies)
  if len(counts) == 1:
    return
  usual, votes = counts.most_common(1)[0]
  odd = [f'{d} of process {d.process_index}' for digest, d in copies if digest != usual]
  if votes * 2 <= len(copies):
    odd = [f'{d} of process {d.process_index}' for _, d in copies]
  raise CorruptionError(
    f'At step {step} the copies of {name} differ on {some(odd, 4)}: a device computed wrongly. '
    'Nothing was saved of this state. Take the machine out of service and start again: the run '
    'goes on from its last checkpoint, before whose save all copies were equal.'
  )


def _digest(x: jax.Array) -> jax.Array:
  """A uint32 of all bits of an array and of their places."""
  bits = _bits(x).reshape(-1)
  place = jnp.arange(bits.size, dtype=jnp.uint32) * jnp.uint32(0x9E3779B1) | 1
  return jnp.sum(bits.astype(jnp.uint32) * place, dtype=jnp.uint32)
