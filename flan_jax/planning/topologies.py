"""TPU slices by the names that users say, and what their chips can do.

v4 and v5p are called after their TensorCores, two a chip (v5p-128 has 64 chips), v5e and v6e after
their chips; `v5p:8x8x16` names the chips of each dimension, `2xv5e-256` two slices that a data
centre's network joins.

Figures: Google Cloud's pages on TPU v4, v5e, v5p and v6e (docs.cloud.google.com/tpu/docs).
"""

import dataclasses
import math
import os
import re
from typing import Any

import jax

from flan_jax.models.tiled_attention import ATTENTION, GRADIENTS
from flan_jax.naming import nearest, some, unknown

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
  """One chip, as its data sheet has it.

  Attributes:
    flops_per_second: dense bfloat16 products.
    cycles_per_second: the clock; the peak is two operations a cycle of each multiplier.
    hbm_bytes: memory.
    hbm_bytes_per_second: to and from it.
    link_bytes_per_second: of one link to a neighbour, in one direction; two links a dimension.
    network_bytes_per_second: of a chip's share of its host's network, between slices.
    cores: TensorCores.
    dimensions: of the torus.
    largest: chips of the largest slice.
    cycles_per_score: of a TensorCore in each of the kernels of attention, for all that is done with
      a score, as libtpu schedules it for heads of 64 (benchmarks/kernel_cycles.py).
  """

  flops_per_second: float
  cycles_per_second: float
  hbm_bytes: int
  hbm_bytes_per_second: float
  link_bytes_per_second: float
  network_bytes_per_second: float
  cores: int
  dimensions: int
  largest: int
  cycles_per_score: dict[str, float]


def _of_kernels(attention: float, attention_gradients: float) -> dict[str, float]:
  """Cycles of a score, of those of 1,024."""
  return {ATTENTION: attention / 1024, GRADIENTS: attention_gradients / 1024}


CHIPS = {
  # The page of v4 gives no network; it is taken to be v5p's.
  'v4': Chip(275e12, 1.05e9, 32 * GIB, 1.2e12, 50e9, 6.25e9, 2, 3, 4096, _of_kernels(7.3, 10.6)),
  'v5e': Chip(197e12, 1.5e9, 16 * GIB, 0.819e12, 50e9, 3.125e9, 1, 2, 256, _of_kernels(3.8, 7.1)),
  'v5p': Chip(459e12, 1.75e9, 95 * GIB, 2.765e12, 100e9, 6.25e9, 2, 3, 6144, _of_kernels(3.9, 7.0)),
  'v6e': Chip(918e12, 1.75e9, 32 * GIB, 1.6e12, 100e9, 12.5e9, 1, 2, 256, _of_kernels(3.0, 4.8)),
}

_SQUARES = ((1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
_BLOCKS = ((2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4))
_CUBES = (
  *((4, 4, 4), (4, 4, 8), (4, 8, 8), (8, 8, 8)),
  *((8, 8, 16), (8, 16, 16), (16, 16, 16), (16, 16, 24)),
)


@dataclasses.dataclass(frozen=True)
class Topology:
  """Slices of chips: `kind` of CHIPS, the chips of each dimension, and how many slices."""

  kind: str
  shape: tuple[int, ...]
  slices: int = 1

  @property
  def chip(self) -> Chip:
    """What each chip can do."""
    return CHIPS[self.kind]

  @property
  def num_chips(self) -> int:
    """Chips of all slices."""
    return self.slices * math.prod(self.shape)

  @property
  def wraps(self) -> tuple[bool, ...]:
    """Which dimensions are rings: those of whole cubes, and of a whole row of v5e and v6e."""
    if self.chip.dimensions == 3:
      return (_is_cubes(self.shape),) * 3
    return tuple(size == 16 for size in self.shape)

  @property
  def name(self) -> str:
    """As `parse` takes it: 'v5p:8x8x16', '2xv5e:16x16'."""
    shape = 'x'.join(map(str, self.shape))
    return f'{self.slices}x{self.kind}:{shape}' if self.slices > 1 else f'{self.kind}:{shape}'


def parse(name: str) -> Topology:
  """The topology of a name such as 'v5e-256', 'v5p:8x8x16' or '4xv6e-64'.

  Raises:
    ValueError: there is none; names the nearest ones.
  """
  slices, rest = re.fullmatch(r'(?:(\d+)x(?=v))?(.*)', name.strip()).groups()  # type: ignore
  count = int(slices or 1)
  known = slice_names()
  match = re.fullmatch(r'(v\w+?)(?:-(\d+)|:(\d+(?:x\d+)*))', rest)
  if match is None or match[1] not in CHIPS or count < 1:
    raise ValueError(_unknown(rest, known))
  kind, chip = match[1], CHIPS[match[1]]
  if match[2]:
    if rest not in known:
      raise ValueError(_unknown(rest, known))
    return Topology(kind, known[rest], count)
  shape = tuple(map(int, match[3].split('x')))
  if chip.dimensions == 3 and len(shape) == 2:
    shape = (*shape, 1)
  there = sorted(shape) in map(sorted, _shapes(kind))
  if not there and not (_is_cubes(shape) and math.prod(shape) <= chip.largest):
    shapes = ['x'.join(map(str, shape)) for shape in _shapes(kind)]
    more = ', and cubes of 4x4x4 side by side' if chip.dimensions == 3 else ''
    raise ValueError(
      f'TPU {kind} has no slice {match[3]}.{nearest(match[3], shapes)} '
      f'There are: {some(shapes, 20)}{more}.'
    )
  return Topology(kind, shape, count)


def slice_names() -> dict[str, tuple[int, ...]]:
  """Name -> chips of each dimension, of every slice that a number alone names."""
  return {
    f'{kind}-{math.prod(shape) * chip.cores}': shape
    for kind, chip in CHIPS.items()
    for shape in _shapes(kind)
  }


def use_cpu() -> None:
  """Keeps JAX and libtpu from looking for a TPU; before the first use of either."""
  jax.config.update('jax_platforms', 'cpu')
  # A program for chips that are not there could not be read back from the cache.
  jax.config.update('jax_enable_compilation_cache', False)
  # libtpu would else ask Google Cloud's metadata server which machine this is.
  os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
  os.environ.setdefault('TPU_ACCELERATOR_TYPE', 'v5litepod-1')
  os.environ.setdefault('TPU_WORKER_HOSTNAMES', 'localhost')
  # One process owns the chips of a machine; any number may compile.
  os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')


def devices(topology: Topology) -> list[Any]:
  """The devices of a topology, for which programs can be compiled and on which none can run.

  Raises:
    ImportError: libtpu, which compiles, is not installed.
  """
  try:
    import libtpu  # noqa: F401
  except ImportError as e:
    raise ImportError(
      "`flan-jax plan` compiles with libtpu: pip install 'flan_jax[plan]', best into an "
      'environment of its own, as JAX looks for a TPU wherever libtpu is installed.'
    ) from e
  from jax.experimental import topologies

  options: dict[str, Any] = {'num_slices': topology.slices}
  if topology.kind == 'v4':
    # Without megacore, JAX would show each TensorCore as a device with half the memory.
    options |= {'chip_config_name': 'megacore', 'chips_per_host_bounds': (2, 2, 1)}
  if topology.chip.dimensions == 3:
    options['wrap'] = topology.wraps
  shape = 'x'.join(map(str, topology.shape))
  description = topologies.get_topology_desc(f'{topology.kind}:{shape}', 'tpu', **options)
  return list(description.devices)


def _shapes(kind: str) -> tuple[tuple[int, ...], ...]:
  chip = CHIPS[kind]
  shapes = _SQUARES if chip.dimensions == 2 else (*_BLOCKS, *_CUBES)
  return tuple(shape for shape in shapes if math.prod(shape) <= chip.largest)


def _is_cubes(shape: tuple[int, ...]) -> bool:
  """Whether whole cubes of 4 x 4 x 4 chips, which optical switches can join, make this shape."""
  return len(shape) == 3 and all(size % 4 == 0 for size in shape)


def _unknown(name: str, known: dict[str, tuple[int, ...]]) -> str:
  given = unknown('TPU topology', name, known)
  return f'{given} Or give the chips of each dimension, as in v5p:8x8x16.'
