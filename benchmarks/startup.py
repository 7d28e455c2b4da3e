"""From the start of the process to the first step of training.

  python benchmarks/startup.py                  # T5 1.1 small, 3 rounds of the three starts below
  python benchmarks/startup.py --model smollm2/135m --rows 2
  python benchmarks/startup.py --out startup.json

Each start is `flan-jax train` as a user starts it, without evaluation, on a token cache of a few
random tasks: `cold`, with nothing compiled before; `again`, the same run going on from its
checkpoint with what the first start compiled; `warm`, a new run with what the first compiled. What
Python reads from disk is in memory for all of them. The first step begins when it is compiled and
its batch is on the device. It is compiled beside `restore_or_initialize`; `compile` is what that
takes beyond.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import measure
import numpy as np

MIXTURE, STARTS = 'random', ('cold', 'again', 'warm')


def build_cache(folder: Path) -> None:
  """Four tasks of random tokens."""
  from flan_jax.data import cache_layout, cache_writer, mixture_rates, vocabularies

  cache_layout.initialize_cache(folder, vocabularies.get_vocabulary('bytes'))
  rng = np.random.default_rng(0)
  names = [f'task_{i}' for i in range(4)]
  for name in names:
    with cache_writer.TaskCacheWriter(folder, name, 'train', key={'benchmark': 1}) as writer:
      for _ in range(500):
        inputs, targets = (rng.integers(3, 259, n).tolist() for n in rng.integers(20, 120, 2))
        writer.add([*inputs, 1], [*targets, 1], {})
      writer.finish({'cot': False, 'collection': 'random'})
  mixture = mixture_rates.Mixture.of(MIXTURE, dict.fromkeys(names, 1.0))
  mixture_rates.save_mixture(folder, mixture)


def start(args, folder: Path, workdir: Path, compiled: Path, steps: int) -> dict[str, float]:
  """Seconds from the start of one process to what it says of itself."""
  bindings = {
    'EVALUATION': None,
    'TASK_FEATURE_LENGTHS': {'inputs': 512, 'targets': 128},
    'LOG_EVERY_STEPS': 1,
    'SAVE_EVERY_STEPS': 1,
  }
  if args.model != 'demo/tiny':  # which is float32 by itself
    bindings['ACTIVATION_DTYPE'] = "'float32'"
  command = [
    *(sys.executable, '-m', 'flan_jax.main', 'train'),
    *('--gin_file=runs/train.gin', f'--gin_file=models/{args.model}.gin'),
    *(f'--mixture={MIXTURE}', f'--cache_dir={folder}', f'--workdir={workdir}'),
    *(f'--steps={steps}', f'--batch_size={args.rows}'),
    *(f'--gin.{name}={value}' for name, value in bindings.items()),
  ]
  environment = {
    **os.environ,
    'FLAN_JAX_COMPILATION_CACHE_DIR': str(compiled),
    'PYTHONUNBUFFERED': '1',
  }
  environment.pop('JAX_COMPILATION_CACHE_DIR', None)
  seconds, said = {}, []
  began, wall = time.perf_counter(), time.time()
  with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
    for line in process.stdout or ():
      said.append(line)
      for name, mark in (('compiled', 'Compiled the train step'), ('first_step', f'step {steps} ')):
        if line.startswith(mark):
          seconds.setdefault(name, time.perf_counter() - began)
  if process.returncode or len(seconds) != 2:
    raise RuntimeError(f'{" ".join(command)} ended with {process.returncode}:\n{"".join(said)}')
  recorded = json.loads((workdir / 'goodput.json').read_text())[-1]
  spent = recorded['seconds']
  return {
    'to_first_step': seconds['compiled'],
    'to_end_of_first_step': seconds['first_step'],
    'imports_and_settings': recorded['began'] - wall,
    'restore_or_initialize': spent['restore'],
    'compile': spent['compile'],
  }


def main() -> None:
  parser = measure.parser(__doc__)
  parser.add_argument('--model', default='t5_1_1/small', help='a file of gin/models')
  parser.add_argument('--rows', type=int, default=8, help='packed rows of a step')
  args = parser.parse_args()
  args.model = 'demo/tiny' if args.quick else args.model
  repeats = 1 if args.quick else args.repeats
  found = {name: [] for name in STARTS}
  with tempfile.TemporaryDirectory() as temporary:
    folder = Path(temporary, 'cache')
    build_cache(folder)
    subprocess.run([sys.executable, '-c', 'import flan_jax.main, flan_jax.train'], check=True)
    for number in range(repeats):
      compiled, run = Path(temporary, f'compiled_{number}'), Path(temporary, f'run_{number}')
      found['cold'].append(start(args, folder, run, compiled, 1))
      found['again'].append(start(args, folder, run, compiled, 2))
      found['warm'].append(start(args, folder, Path(f'{run}_new'), compiled, 1))
  starts = {
    name: {part: measure.spread([one[part] for one in runs]) for part in runs[0]}
    for name, runs in found.items()
  }
  cold = starts['cold']['to_first_step']['median']
  figures = {
    'work': f'{args.model}, {args.rows} rows of 512/128',
    'dtype': 'float32',
    'starts': starts,
    'cold_over_again': round(cold / starts['again']['to_first_step']['median'], 2),
    'cold_over_warm': round(cold / starts['warm']['to_first_step']['median'], 2),
  }
  measure.finish('startup', figures, args)


if __name__ == '__main__':
  main()
