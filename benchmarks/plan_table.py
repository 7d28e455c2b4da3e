"""Plans of published models on TPU slices, and the tables of docs/plan.md.

Each plan is made in a process of its own and leaves a JSON file, so that a run that was stopped
goes on. One takes three to ten minutes of a core, most of them to generate code; --scheduled takes
it as soon as XLA has scheduled the step and assigned its memory. Needs `flan_jax[plan]`.

  python benchmarks/plan_table.py --out runs/plan [--weak_scaling] [--scheduled] [--only NAME]
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace

from flan_jax import compiling, main, partitioning
from flan_jax.planning import plan as planner
from flan_jax.planning import report, steps, topologies
from flan_jax.planning.topologies import GIB

LONG = "--gin.TASK_FEATURE_LENGTHS={'inputs': 2048, 'targets': 256}"
KEEP = "--gin.REMAT='minimal'"
XXL = ('recipes/flan2022_t5_xxl.gin', LONG)
PALM_62B = ('recipes/flan2022_palm_62b.gin', LONG, KEEP)
PALM_540B = ('recipes/flan2022_palm_540b.gin', LONG, KEEP, '--gin.TENSOR=8')
# Name -> recipe with its changes, topology, rows.
PLANS = {
  'PaLM 540B, v4': ((*PALM_540B, "--gin.REMAT='full'"), 'v4-1024', 128),
  'PaLM 540B, v5p': (PALM_540B, 'v5p-2048', 256),
  'PaLM 62B, v4': (PALM_62B, 'v4-512', 128),
  'T5 XXL, v4': (XXL, 'v4-64', 256),
  'T5 XXL, v5e': (XXL, 'v5e-256', 1024),
  'T5 XXL, v5p': ((*XXL, KEEP), 'v5p-128', 128),
  'T5 XXL, v6e': (XXL, 'v6e-64', 1536),
}
# Two rows a chip; parameters are split over 64 chips and replicated beyond.
WEAK = {
  f'{chips:,} chips': (
    (
      *PALM_62B,
      '--gin.TENSOR=1',
      '--gin.partitioning.MeshConfig.data=-1',
      '--gin.partitioning.MeshConfig.fsdp=64',
    ),
    f'v5p-{2 * chips}',
    2 * chips,
  )
  for chips in (64, 256, 1024, 4096)
}
TITLES = ('plan', 'slice', 'chips', 'mesh', 'rows', 'remat', 'GiB of a chip', 'operations s')
TITLES += ('collectives waited for s', 'hidden s', 's/step', 'MFU', 'waited for longest')


def run() -> int:
  """Makes the plans that are not there yet, and prints their tables."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--out', type=Path, default=Path('runs/plan'))
  parser.add_argument('--weak_scaling', action='store_true', help='from 64 to 4,096 chips')
  parser.add_argument('--only', action='append', help='a plan of this name; may be repeated')
  parser.add_argument('--scheduled', action='store_true', help='without generating code')
  parser.add_argument('--child', help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.child:
    scheduled(args.child, _path(args.out, args.child))
  args.out.mkdir(parents=True, exist_ok=True)
  plans = WEAK if args.weak_scaling else PLANS
  for name, (recipe, topology, rows) in plans.items():
    path = _path(args.out, name)
    if path.exists() or (args.only and name not in args.only):
      continue
    print(f'{name} ...', file=sys.stderr, flush=True)
    flags = ['--gin_file', recipe[0], *recipe[1:], '--topology', topology, '--json', str(path)]
    command = [sys.executable, '-m', 'flan_jax.main', 'plan', *flags, '--batch_size', str(rows)]
    if args.scheduled:
      command = [sys.executable, __file__, '--out', str(args.out), '--child', name]
    done = subprocess.run(command, capture_output=True, text=True)
    if not path.exists():
      print(f'{name}: {done.stderr.strip().splitlines()[-1:]}', file=sys.stderr)
  made = {
    name: json.loads(path.read_text()) for name in plans if (path := _path(args.out, name)).exists()
  }
  _print_table(TITLES, (_row(name, plan) for name, plan in made.items()))
  for name, plan in made.items():
    print(f'\nCollectives of a step, {name}:\n')
    _print_table(('kind', 'axis', 'times', 'GiB', 's', 'hidden'), _by_kind(plan))
  return 0


def scheduled(name: str, path: Path) -> None:
  """Writes a plan as `flan-jax plan --json` does, once XLA has scheduled it; ends the process."""
  (recipe, *bindings), topology_name, rows = {**PLANS, **WEAK}[name]
  topologies.use_cpu()
  settings = [*(b.removeprefix('--gin.') for b in bindings), f'BATCH_SIZE={rows}', "CACHE_DIR=''"]
  config = main.load_run([recipe], settings).run.train
  topology = topologies.parse(topology_name)
  mesh = planner.make_mesh(config, topology)
  lowered, start = steps.lower('train', config, mesh), time.perf_counter()
  with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
    options = {**compiling.compiler_options(mesh), 'xla_dump_to': folder}
    threading.Thread(target=_compile, args=(lowered, options), daemon=True).start()
    memory, text = (
      _dumped(folder, part) for part in ('buffer-assignment', 'after_buffer_assignment')
    )
  with partitioning.use_mesh(mesh, config.mesh.rules):
    arguments = steps.bytes_per_chip(steps.train_arguments(config, mesh))
  stats = SimpleNamespace(
    temp_size_in_bytes=int(re.findall(r'size (\d+), preallocated-temp', memory)[0]),
    argument_size_in_bytes=arguments,
    output_size_in_bytes=0,
    alias_size_in_bytes=0,
    generated_code_size_in_bytes=0,
  )
  compiled = SimpleNamespace(as_text=lambda: text, memory_analysis=lambda: stats)
  step = planner.read('train', compiled, config, topology, mesh, time.perf_counter() - start)
  found = planner.Plan(config, topology, dict(mesh.shape), (step,), ())
  path.write_text(json.dumps(report.as_json(found), indent=1))
  os._exit(0)  # XLA would go on for minutes


def _compile(lowered, options) -> None:
  """Ends the process where XLA refuses the step, of which nothing would ever be written."""
  try:
    lowered.compile(compiler_options=options)
  except Exception as e:
    print(e, file=sys.stderr, flush=True)
    os._exit(1)


def _dumped(folder: str, part: str) -> str:
  """The text that XLA writes of the optimised step, whole."""
  size = -1
  while True:
    time.sleep(1)
    for path in Path(folder).glob(f'*jit_train_step*after_optimizations*{part}.txt'):
      if path.stat().st_size == size:
        return path.read_text()
      size = path.stat().st_size


def _row(name: str, plan: dict) -> tuple:
  step = plan['steps'][0]
  mesh = ' x '.join(f'{axis}={size}' for axis, size in plan['mesh'].items() if size > 1)
  start = (name, plan['topology'], f'{plan["chips"]:,}', mesh, plan['batch_rows'], plan['remat'])
  if 'memory' not in step:
    return (*start, f'lacks {step["missing_bytes"] / GIB:.1f}', *[''] * 6)
  seconds, total = step['seconds'], step['memory']['total']
  longest = max(step['collectives'], key=lambda c: c['seconds'] - c['hidden'])
  return (
    *start,
    f'{total / GIB:.1f} ({100 * total / plan["chip"]["hbm_bytes"]:.0f}%)',
    *(f'{seconds[part]:.2f}' for part in ('operations', 'waiting', 'hidden', 'step')),
    f'{100 * step["mfu"]:.1f}%',
    f'{longest["kind"]} over {longest["axes"]}',
  )


def _by_kind(plan: dict) -> Iterator[tuple]:
  """Sums over the collectives of one kind and mesh axis, the longest first."""
  sums: dict[tuple[str, str], list[float]] = {}
  for c in plan['steps'][0].get('collectives', ()):
    total = sums.setdefault((c['kind'], c['axes']), [0, 0.0, 0.0, 0.0])
    for i, part in enumerate((1, c['bytes'])):
      total[i] += part * c['count']
    total[2] += c['seconds']
    total[3] += c['hidden']
  for (kind, axes), (times, size, seconds, hidden) in sorted(
    sums.items(), key=lambda item: -item[1][2]
  ):
    share = f'{100 * hidden / seconds:.0f}%' if seconds else ''
    yield kind, axes, f'{times:.0f}', f'{size / GIB:.1f}', f'{seconds:.3f}', share


def _print_table(titles: Iterable[str], rows: Iterable[tuple]) -> None:
  print(f'| {" | ".join(titles)} |\n|{"---|" * len(tuple(titles))}')
  for row in rows:
    print(f'| {" | ".join(map(str, row))} |')


def _path(folder: Path, name: str) -> Path:
  return folder / f'{name.lower().replace(",", "").replace(" ", "_")}.json'


if __name__ == '__main__':
  sys.exit(run())
