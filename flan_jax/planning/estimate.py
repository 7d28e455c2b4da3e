"""How long a compiled step takes, by arithmetic: no more than data sheets and the program's text.

An operation takes what its products take at the peak, or its arrays to cross the main memory, the
longer of both; operations follow one another. A collective that XLA hides runs beside them, any
other makes them wait. What is left out is called OMITTED and printed with every estimate.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from flan_jax.planning import hlo
from flan_jax.planning.topologies import Topology

# Shares of the data sheet that long operations reach. Products: what MaxText's best runs make of
# v5p (71.5% of the peak with recomputation, its README), less what is not products. Memory and
# links: jax-ml.github.io/scaling-book gives 0.9 of the sheet's links; copies reach less than large
# transfers.
PRODUCTS, MEMORY, LINKS = 0.85, 0.85, 0.9
# From one chip to the next, of every collective (scaling-book, chapter 'TPUs').
HOP_SECONDS = 1e-6
OMITTED = (
  'the input pipeline, checkpoints, faults, and what two collectives at once take from each other'
)
# Parts of its bytes that cross the links of each chip, besides (n - 1) / n.
_PASSES = {'all-gather': 1, 'reduce-scatter': 1, 'all-reduce': 2, 'all-to-all': 0.25}


@dataclasses.dataclass(frozen=True)
class Exchange:
  """A collective on a mesh: the axes it crosses, and the seconds that all of its runs take."""

  collective: hlo.Collective
  axes: str
  seconds: float


@dataclasses.dataclass(frozen=True)
class Estimate:
  """Seconds of a step.

  Attributes:
    products: of matrix products alone.
    memory: of all traffic to main memory alone.
    operations: of all operations, each the longer of both.
    hidden: collectives beside operations.
    waiting: collectives that operations wait for.
    exchanges: all collectives, the longest first.
  """

  products: float
  memory: float
  operations: float
  hidden: float
  waiting: float
  exchanges: tuple[Exchange, ...]

  @property
  def step(self) -> float:
    """Seconds of a step."""
    return max(self.operations, self.hidden) + self.waiting

  @property
  def limit(self) -> str:
    """What takes most of the step."""
    parts = {
      'products': self.products,
      'memory': self.operations - self.products,
      'collectives': self.waiting + max(0.0, self.hidden - self.operations),
    }
    return max(parts, key=lambda name: parts[name])


def estimate(program: hlo.Program, topology: Topology, mesh: Any) -> Estimate:
  """Seconds of `program` on the chips of `mesh`."""
  chip = topology.chip
  peak, memory = chip.flops_per_second * PRODUCTS, chip.hbm_bytes_per_second * MEMORY
  exchanges = [exchange(collective, topology, mesh) for collective in program.collectives]
  exchanges.sort(key=lambda e: -e.seconds)
  return Estimate(
    products=program.flops / peak,
    memory=program.memory_bytes / memory,
    operations=sum(max(w.flops / peak, w.bytes / memory) * w.count for w in program.work),
    hidden=sum(e.seconds for e in exchanges if e.collective.overlapped),
    waiting=sum(e.seconds for e in exchanges if not e.collective.overlapped),
    exchanges=tuple(exchanges),
  )


def exchange(collective: hlo.Collective, topology: Topology, mesh: Any) -> Exchange:
  """Where a collective goes, and how long.

  In a ring of n chips every chip sends (n - 1) / n of the bytes, of an all-reduce twice; a group
  that spans several dimensions of the torus uses the links of all of them.
  """
  positions = collective.group
  axes = mesh_axes(positions, dict(mesh.shape))
  chips = [mesh.devices.flat[position] for position in positions]
  inside = len(chips) // len({getattr(chip, 'slice_index', 0) for chip in chips})
  if len(chips) < 2:
    return Exchange(collective, axes, 0.0)
  if collective.kind == 'collective-permute':
    rate = topology.chip.link_bytes_per_second * LINKS
    hops, passes = 1, 1.0
  else:
    links, hops = _links([chip.coords for chip in chips], topology)
    rate = max(links, 1) * topology.chip.link_bytes_per_second * LINKS
    passes = _PASSES[collective.kind] * (inside - 1) / inside
  seconds = passes * collective.bytes / rate + hops * HOP_SECONDS
  slices = len(chips) // inside
  if slices > 1:
    # Each chip sends its own part of the bytes to the other slices.
    between = _PASSES.get(collective.kind, 1) * (slices - 1) / slices * collective.bytes / inside
    seconds += between / (topology.chip.network_bytes_per_second * LINKS)
  return Exchange(collective, axes, seconds * collective.count)


def mesh_axes(positions: Sequence[int], sizes: dict[str, int]) -> str:
  """The mesh axes along which a group's positions differ: 'fsdp', 'data x fsdp'."""
  crossed = []
  for name, size in reversed(sizes.items()):
    if len({position % size for position in positions}) > 1:
      crossed.append(name)
    positions = [position // size for position in positions]
  return ' x '.join(reversed(crossed)) or 'none'


def _links(coords: Sequence[Sequence[int]], topology: Topology) -> tuple[float, int]:
  """Links on which one chip of a group sends at once, and hops to the farthest chip."""
  links, hops = 0.0, 0
  for dimension, length in enumerate(topology.shape):
    along = sorted({c[dimension] for c in coords})
    if len(along) < 2:
      continue
    span = along[-1] - along[0] + 1
    ring = topology.wraps[dimension] and len(along) == length
    # Chips that are not neighbours share the links between them with other groups.
    links += (2 if ring else 1) * len(along) / span
    hops += math.ceil(span / 2) if ring else span - 1
  return links, hops
