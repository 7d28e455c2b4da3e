"""How long a compiled step takes, by arithmetic: no more than data sheets and the program's text.

An operation takes what its products take at the peak, its arrays to cross the main memory, or the
cycles that XLA's own cost model gives it, whichever is longest, and a kernel of attention no less
than the cycles counted of it for each score; operations follow one another as XLA has scheduled
them. A collective or a copy is hidden as far as the operations between its start and its end last,
and no operation hides two of them; for the rest the chip waits. OMITTED is what is left out.
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
OMITTED = 'the input pipeline, checkpoints, faults, and the memory traffic of collectives'
# Parts of its bytes that cross the links of each chip, besides (n - 1) / n.
_PASSES = {'all-gather': 1, 'reduce-scatter': 1, 'all-reduce': 2, 'all-to-all': 0.25}


@dataclasses.dataclass(frozen=True)
class Exchange:
  """A collective on a mesh, in all of its runs.

  Attributes:
    collective: which.
    axes: that it crosses.
    seconds: it takes.
    hidden: of these, behind operations.
  """

  collective: hlo.Collective
  axes: str
  seconds: float
  hidden: float = 0.0

  @property
  def waiting(self) -> float:
    """Seconds that the chip waits for it."""
    return self.seconds - self.hidden


@dataclasses.dataclass(frozen=True)
class Estimate:
  """Seconds of a step.

  Attributes:
    products: of matrix products alone.
    memory: of all traffic to main memory alone.
    cycles: of all operations by XLA's cost model alone.
    operations: of all operations, each the longest of these, and of copies that none hides.
    hidden: of collectives, behind operations.
    waiting: of collectives, with the chip idle.
    exchanges: all collectives, those waited for longest first.
  """

  products: float
  memory: float
  cycles: float
  operations: float
  hidden: float
  waiting: float
  exchanges: tuple[Exchange, ...]

  @property
  def step(self) -> float:
    """Seconds of a step."""
    return self.operations + self.waiting

  @property
  def limit(self) -> str:
    """What takes most of the step."""
    parts = {
      'products': self.products,
      'memory and vectors': self.operations - self.products,
      'collectives': self.waiting,
    }
    return max(parts, key=lambda name: parts[name])


def estimate(program: hlo.Program, topology: Topology, mesh: Any) -> Estimate:
  """Seconds of `program` on the chips of `mesh`."""
  chip = topology.chip
  peak, memory = chip.flops_per_second * PRODUCTS, chip.hbm_bytes_per_second * MEMORY
  clock = chip.cycles_per_second
  in_kernels = {name: c / (clock * chip.cores) for name, c in chip.cycles_per_score.items()}
  lasting = [
    w.count
    * max(
      w.flops / peak,
      w.bytes / memory,
      w.cycles / clock,
      w.exponentials * in_kernels.get(w.kernel, 0),
    )
    for w in program.work
  ]
  exchanges = [exchange(collective, topology, mesh) for collective in program.collectives]
  hidden = _hidden([(e.seconds, e.collective.beside) for e in exchanges], lasting)
  exchanges = [dataclasses.replace(e, hidden=h) for e, h in zip(exchanges, hidden, strict=True)]
  # Copies use what the operations beside them leave of the main memory.
  idle = [
    seconds - w.bytes * w.count / memory for seconds, w in zip(lasting, program.work, strict=True)
  ]
  copying = [(c.bytes * c.count / memory, c.beside) for c in program.copies]
  copies = sum(seconds for seconds, _ in copying) - sum(_hidden(copying, idle))
  return Estimate(
    products=program.flops / peak,
    memory=program.memory_bytes / memory,
    cycles=sum(w.cycles * w.count for w in program.work) / clock,
    operations=sum(lasting) + copies,
    hidden=sum(hidden),
    waiting=sum(e.waiting for e in exchanges),
    exchanges=tuple(sorted(exchanges, key=lambda e: (-e.waiting, -e.seconds))),
  )


def _hidden(
  transfers: Sequence[tuple[float, Sequence[int]]], lasting: Sequence[float]
) -> list[float]:
  """Of each transfer's seconds, those behind the operations beside it; no operation serves two."""
  left, hidden = list(lasting), []
  for seconds, beside in transfers:
    begin = seconds
    for place in beside:
      taken = min(seconds, left[place])
      left[place] -= taken
      seconds -= taken
    hidden.append(begin - seconds)
  return hidden


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
