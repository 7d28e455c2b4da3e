"""Which devices take part in a collective, in each of the forms that XLA writes."""

import math
import re

import numpy as np

_MESH = re.compile(
  r'replica_groups=mesh\[([^\]]*)\]'
  r'(?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? \{([^}]*)\}'
)


def first_group(attributes: str) -> tuple[int, ...]:
  """The first group of devices that a collective's attributes name; of a permute, its first pair.

  XLA writes groups as lists `{{0,1},{2,3}}`, as a transposed count `[2,2]<=[2,2]T(1,0)`, or by the
  axes of a mesh `mesh['a'=2,'b'=2] {'b'}`.
  """
  if pairs := re.search(r'source_target_pairs=\{\{([\d,]+)\}', attributes):
    return tuple(map(int, pairs[1].split(',')))
  if lists := re.search(r'replica_groups=\{\{([\d,]+)\}', attributes):
    return tuple(map(int, lists[1].split(',')))
  if count := re.search(r'replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?', attributes):
    groups, dims = _ints(count[1]), _ints(count[2])
    devices = np.arange(math.prod(dims)).reshape(dims)
    if count[3]:
      devices = devices.transpose(_ints(count[3]))
    return tuple(devices.reshape(groups)[0].tolist())
  if axes := _MESH.search(attributes):
    return _mesh_group(*axes.groups())
  raise ValueError(f'These replica groups are in no form that is known: {attributes[:200]}')


def _mesh_group(mesh: str, dims: str | None, order: str | None, axes: str) -> tuple[int, ...]:
  """The devices that differ along `axes` ("'b','a':(1)2", a part of an axis), the others at 0."""
  sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", mesh)}
  devices = np.arange(math.prod(sizes.values()))
  if dims:
    devices = devices.reshape(_ints(dims))
  if order:
    devices = devices.transpose(_ints(order))
  index: list = [0] * len(sizes)
  for name, before, part in re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", axes):
    size = sizes[name]
    inner = size // (int(before) * int(part)) if part else 1
    index[list(sizes).index(name)] = slice(0, int(part) * inner if part else size, inner)
  return tuple(np.ravel(devices.reshape(tuple(sizes.values()))[tuple(index)]).tolist())


def _ints(text: str) -> tuple[int, ...]:
  return tuple(map(int, text.split(',')))
