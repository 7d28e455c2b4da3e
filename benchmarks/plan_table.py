"""Plans of published models on TPU slices, and the tables of docs/plan.md.

Each plan is `flan-jax plan` in a process of its own and leaves a JSON file, so that a run that was
stopped goes on; all take about an hour of one core. Needs libtpu: pip install 'flan_jax[plan]'.

  python benchmarks/plan_table.py --out runs/plan [--only NAME]
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from flan_jax import console
from flan_jax.planning.topologies import GIB

LONG = "--gin.TASK_FEATURE_LENGTHS={'inputs': 2048, 'targets': 256}"
XXL = ('recipes/flan2022_t5_xxl.gin', LONG, "--gin.REMAT='full'")
PALM_62B = ('recipes/flan2022_palm_62b.gin', LONG)
PALM_540B = ('recipes/flan2022_palm_540b.gin', LONG, '--gin.TENSOR=8')
PALM_8B = ('recipes/flan2022_palm_8b.gin', LONG)
# Name -> recipe with its changes, topology, rows.
PLANS = {
  'palm_540b_v5p_2048': (PALM_540B, 'v5p-2048', 256),
  'palm_62b_v4_512': (PALM_62B, 'v4-512', 128),
  't5_xxl_v5p_128': (XXL, 'v5p-128', 128),
  't5_xxl_v6e_64': (XXL, 'v6e-64', 64),
  't5_xxl_v4_64': (XXL, 'v4-64', 32),
  't5_xxl_v5e_256': (XXL, 'v5e-256', 256),
  'palm_540b_v4_1024': (PALM_540B, 'v4-1024', 64),
}
# A row a chip, parameters split over 64 of them and replicated beyond.
WEAK = {
  f'weak_{chips}': ((*PALM_8B, '--gin.partitioning.MeshConfig.data=-1', *mesh), topology, chips)
  for chips, topology in ((64, 'v5p-128'), (256, 'v5p-512'), (1024, 'v5p-2048'), (4096, 'v5p-8192'))
  for mesh in [('--gin.partitioning.MeshConfig.fsdp=64', '--gin.TENSOR=1')]
}


def main() -> int:
  """Makes the plans that are not there yet, and prints both tables."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--out', type=Path, default=Path('runs/plan'))
  parser.add_argument('--only', action='append', help='a plan of this name; may be repeated')
  args = parser.parse_args()
  args.out.mkdir(parents=True, exist_ok=True)
  for name, (recipe, topology, rows) in {**PLANS, **WEAK}.items():
    path = args.out / f'{name}.json'
    if path.exists() or (args.only and name not in args.only):
      continue
    print(f'{name} ...', flush=True)
    flags = ['--gin_file', recipe[0], *recipe[1:], '--topology', topology, '--json', str(path)]
    command = [sys.executable, '-m', 'flan_jax.main', 'plan', *flags, '--batch_size', str(rows)]
    done = subprocess.run(command, capture_output=True, text=True)
    if not path.exists():
      print(f'{name}: {done.stderr.strip().splitlines()[-1:]}', file=sys.stderr)
  for names in (PLANS, WEAK):
    _print(args.out, names)
  return 0


def _print(folder: Path, names) -> None:
  rows = []
  for name in names:
    path = folder / f'{name}.json'
    if not path.exists():
      continue
    plan = json.loads(path.read_text())
    step = plan['steps'][0]
    mesh = ' x '.join(f'{axis}={size}' for axis, size in plan['mesh'].items() if size > 1)
    start = (name, plan['topology'], f'{plan["chips"]:,}', mesh, plan['batch_rows'])
    if 'memory' not in step:
      rows.append((*start, f'lacks {step["missing_bytes"] / GIB:.1f}', '', '', '', ''))
      continue
    total = step['memory']['total']
    longest = next(iter(step['collectives']), None)
    named = f'{longest["kind"]} over {longest["axes"]}' if longest else 'none'
    seconds = step['seconds']
    apart = f'{seconds["operations"]:.2f} / {seconds["hidden"]:.2f} / {seconds["waiting"]:.2f}'
    share = f'{total / GIB:.1f} ({100 * total / plan["chip"]["hbm_bytes"]:.0f}%)'
    rows.append(
      (*start, share, apart, f'{seconds["step"]:.2f}', f'{100 * step["mfu"]:.1f}%', named)
    )
  titles = ('plan', 'topology', 'chips', 'mesh', 'rows', 'GiB a chip')
  titles += ('operations / hidden / waiting s', 's/step', 'MFU', 'longest collective')
  console.print_table(console.console(), [console.Column(title) for title in titles], rows)


if __name__ == '__main__':
  sys.exit(main())
