"""What rationales and the number of tasks do: the demo model with and without each, over seeds.

  python benchmarks/ablation.py --out runs/ablation

Trains the demo's model with and without chain-of-thought rationales, and on a quarter, half and all
of the tasks, each for the same number of steps and over several seeds, and writes comparison.html
(plots and tables) and comparison.json. Runs go side by side, one a core; a killed ablation goes on
where it was.
"""

import argparse
import concurrent.futures
import json
import os
import queue
import subprocess
import sys
import time
from pathlib import Path

from flan_jax.data.mixture_rates import load_mixture

REPOSITORY = Path(__file__).resolve().parent.parent
VOCABULARY = REPOSITORY / 'tasks/data/demo/vocabulary.model'
TRAINED_ON = ('demo', 'demo_half', 'demo_quarter')
EVALUATED_ON = (
  'demo_multistep',
  'demo_cot_eval',
  'demo_unseen_examples',
  'demo_unseen_wordings',
  'demo_shared_unseen_wordings',
  'demo_held_out',
)
# Condition -> what is trained on, and whether with rationales.
CONDITIONS = {
  'all tasks': ('demo', True),
  'no rationales': ('demo', False),
  'half of the tasks': ('demo_half', True),
  'quarter of the tasks': ('demo_quarter', True),
}
# What tasks/demo gives the two forms of a multi-step task.
DIRECT_RATE, RATIONALE_RATE = 0.5, 2.0
QUESTIONS = {
  'Chain of thought': {'without': 'no rationales', 'with': 'all tasks'},
  'Share of tasks': {
    'quarter': 'quarter of the tasks',
    'half': 'half of the tasks',
    'all': 'all tasks',
  },
}


def flan_jax(*words: str, log: Path, core: int | None = None) -> None:
  """Runs one verb, its output going to `log`; on one core only, if one is given."""
  environment = dict(os.environ)
  if core is not None:
    environment['XLA_FLAGS'] = '--xla_cpu_multi_thread_eigen=false'
  command = [sys.executable, '-m', 'flan_jax.main', *words]
  with log.open('a') as out:
    process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
    if core is not None and hasattr(os, 'sched_setaffinity'):
      os.sched_setaffinity(process.pid, {core})
    if process.wait():
      sys.exit(f'`flan-jax {" ".join(words)}` failed; see {log}')


def workdir(out: Path, condition: str, seed: int) -> Path:
  return out / f'{condition.replace(" ", "_")}-{seed}'


def train(out: Path, condition: str, seed: int, steps: int, core: int) -> None:
  mixture, rationales = CONDITIONS[condition]
  folder = workdir(out, condition, seed)
  folder.mkdir(parents=True, exist_ok=True)
  # Without rationales the direct form takes the whole share that both forms have together.
  multistep = load_mixture(out / 'cache/mixtures/demo_multistep.json').task_names()
  rates = None if rationales else dict.fromkeys(multistep, DIRECT_RATE + RATIONALE_RATE)
  flan_jax(
    'train',
    '--gin_file=runs/demo.gin',
    f'--cache_dir={out / "cache"}',
    f'--workdir={folder}',
    f'--mixture={mixture}',
    f'--steps={steps}',
    f'--seed={seed}',
    f'--gin.INCLUDE_COT={rationales}',
    f'--gin.RATES={rates}',
    f'--gin.EVALUATION_MIXTURES={EVALUATED_ON}',
    # The model without rationales is asked directly as well as for rationales.
    '--gin.evaluator.EvaluationConfig.include_cot=True',
    log=folder / 'log.txt',
    core=core,
  )


def main() -> None:
  parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
  parser.add_argument('--out', type=Path, default=Path('runs/ablation'))
  parser.add_argument('--steps', type=int, default=1200)
  parser.add_argument('--seeds', type=int, default=3)
  args = parser.parse_args()
  out = args.out.resolve()
  out.mkdir(parents=True, exist_ok=True)
  print('Preparing the demo tasks.', flush=True)
  flan_jax(
    'prepare',
    f'--mixture={",".join((*TRAINED_ON, *EVALUATED_ON))}',
    f'--cache_dir={out / "cache"}',
    f'--vocabulary={VOCABULARY}',
    log=out / 'prepare.txt',
  )
  cores: queue.SimpleQueue[int] = queue.SimpleQueue()
  available = sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else [0, 1]
  for core in available:
    cores.put(core)
  runs = [(condition, seed) for seed in range(args.seeds) for condition in CONDITIONS]
  started = time.monotonic()

  def run(job):
    core = cores.get()
    try:
      condition, seed = job
      train(out, condition, seed, args.steps, core)
    finally:
      cores.put(core)
    return job

  with concurrent.futures.ThreadPoolExecutor(len(available)) as pool:
    for number, (condition, seed) in enumerate(pool.map(run, runs), start=1):
      left = (time.monotonic() - started) / number * (len(runs) - number) / 60
      print(f'[{number}/{len(runs)}] {condition}, seed {seed}; {left:.0f} min left', flush=True)
  report(out, args.seeds)


def report(out: Path, seeds: int) -> None:
  """comparison.html, and the means on the terminal."""
  from flan_jax.evaluation import results
  from flan_jax.report import write_comparison

  page = write_comparison(
    {
      question: {
        label: [workdir(out, condition, seed) for seed in range(seeds)]
        for label, condition in conditions.items()
      }
      for question, conditions in QUESTIONS.items()
    },
    out / 'comparison.html',
  )
  table = {}
  for condition in CONDITIONS:
    for seed in range(seeds):
      paths = (workdir(out, condition, seed) / 'evaluations').glob('*.json')
      last = results.EvaluationResult.read(max(paths, key=lambda path: int(path.stem)))
      for name, group in last.mixtures.items():
        table.setdefault(condition, {}).setdefault(name, []).append(round(group.score.value, 1))
  (out / 'comparison.json').write_text(json.dumps(table, indent=1) + '\n')
  for condition, scores in table.items():
    means = ', '.join(f'{name} {sum(v) / len(v):.1f}' for name, v in scores.items())
    print(f'{condition}: {means}')
  print(page)


if __name__ == '__main__':
  main()
