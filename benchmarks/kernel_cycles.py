"""Cycles of attention's kernels for each tile of scores, counted in what libtpu schedules.

  python benchmarks/kernel_cycles.py            # v4, v5e, v5p and v6e; needs flan_jax[plan], no TPU

A TensorCore executes one bundle of instructions a cycle, in order; what is counted are the bundles
of the loop over tiles. Waiting for memory, and what is done once for a row of tiles, come on top.
"""

import argparse
import functools
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from attention import compile_both_passes

LENGTH = 2048


def compile_kernels(kind: str, tile: int, head_dim: int, biased: bool) -> None:
  """Compiles both for one chip; libtpu leaves its bundles where LIBTPU_INIT_ARGS says."""
  from flan_jax import partitioning
  from flan_jax.models import attention_kernels_tpu
  from flan_jax.planning import topologies

  topologies.use_cpu()
  devices = topologies.devices(topologies.parse(f'{kind}:2x2'))
  compile_both_passes(
    functools.partial(attention_kernels_tpu.attend, tile, 1.0),
    partitioning.make_mesh(partitioning.MeshConfig(data=1), devices[:1]),
    (1, 2, head_dim, LENGTH),
    (1, LENGTH),
    (2, 5, tile, tile) if biased else None,
  )


def bundles(path: Path) -> list[int]:
  """Of the innermost loop, in a file of libtpu's last schedule: for a tile seen whole, and masked.

  The loop branches twice: past what is done without a mask, and past what is done with one.
  """
  lines = path.read_text(errors='replace').splitlines()
  loop = [line for line in lines if re.match(r'\s*(0x)?[0-9a-f]+\s+(\w\w)?\s*: >>', line)]
  branches = [number for number, line in enumerate(loop) if 'sbr.rel (' in line]
  if len(branches) != 2:
    return []
  return [branches[1], len(loop) - (branches[1] - branches[0])]


def counted(*case: str) -> list[int]:
  """Bundles of a tile forward, whole and masked, and backward, whole and masked."""
  with tempfile.TemporaryDirectory() as folder:
    flags = f'--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true'
    environment = {**os.environ, 'LIBTPU_INIT_ARGS': flags}
    command = [sys.executable, __file__, '--child', *case]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    files = [p for p in Path(folder).glob('*-final_bundles.txt') if 'analysis' not in p.name]
    of_file = {p.name.split('-', 1)[1]: bundles(p) for p in files}
    return [count for name in sorted(of_file) for count in of_file[name]]


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--head_dim', type=int, default=64)
  parser.add_argument('--child', nargs=4, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.child:
    kind, *numbers = args.child
    compile_kernels(kind, *map(int, numbers[:2]), biased=numbers[2] == 'True')
    return
  print('| chip | tile | bias | forward | masked | backward | masked | of 1,024 scores | | | |')
  print('|---|---|---|---|---|---|---|---|---|---|---|')
  for kind, tile in (('v4', 256), ('v5e', 512), ('v5p', 512), ('v6e', 512)):
    for biased in (True, False):
      found = counted(kind, str(tile), str(args.head_dim), str(biased))
      each = ' | '.join(f'{count * 1024 / tile**2:.1f}' for count in found)
      counts = ' | '.join(map(str, found))
      print(f'| {kind} | {tile} | {"yes" if biased else "no"} | {counts} | {each} |')


if __name__ == '__main__':
  main()
