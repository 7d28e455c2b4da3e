"""Kills, stops, starves and damages real training runs, and compares what becomes of them.

  python benchmarks/faults                      # all of it: make faults
  python benchmarks/faults --only network --only checkpoint
  python benchmarks/faults --kills 10 --seed 1 --json faults.json

Each fault is to end in a run that went on and is bitwise the uninterrupted one, or in one sentence
that refuses, with what was saved before untouched. Anything else is FAILED, and the exit status 1.
docs/faults.md says how to read the table that is printed last.
"""

import argparse
import collections
import functools
import json
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ['JAX_PLATFORMS'] = 'cpu'

import damage
import disks
import hosts
import signals
from bench import Bench, FailedError, SkippedError

from flan_jax import metrics

Case = Callable[[Bench], Iterator[tuple[str, str]]]


def cases(kills: int) -> dict[str, Case]:
  """Name -> what yields (fault, how it ended)."""
  return {
    'kills': functools.partial(signals.kills, number=kills),
    'notices': signals.notices,
    'one_of_four': hosts.one_of_four,
    'network': hosts.network,
    'disk_full': disks.full,
    'read_only': disks.read_only,
    'checkpoint': damage.checkpoint,
    'token_cache': damage.token_cache,
    'compiled': damage.compiled,
    'clock': damage.clock,
  }


def attempt(case: Case, bench: Bench) -> Iterator[tuple[str, str]]:
  """What a case yields, and last how it failed or why it was skipped."""
  try:
    yield from case(bench)
  except SkippedError as e:
    yield '', f'skipped: {e}'
  except FailedError as e:
    yield '', f'FAILED: {bench.without_paths(str(e))}'


def table(rows: list[dict]) -> str:
  """Faults that ended in the same way in one row, in Markdown."""
  counts = collections.Counter((r['case'], r['fault'], r['end']) for r in rows)
  lines = ['| case | fault | times | end |', '|---|---|---:|---|']
  lines += [
    f'| {case} | {fault} | {n} | {end.replace("|", " ")} |'
    for (case, fault, end), n in counts.items()
  ]
  return '\n'.join(lines)


def campaign(args, folder: Path) -> list[dict]:
  """Runs the cases; returns a row for each fault."""
  chosen = {name: case for name, case in cases(args.kills).items() if name in args.only}
  rows = []
  with metrics.Progress('faults', len(chosen)) as progress:
    bench = Bench(folder, args.seed)
    bench.prepare()
    for done, (name, case) in enumerate(chosen.items(), start=1):
      began = time.monotonic()
      for fault, end in attempt(case, bench):
        seconds = round(time.monotonic() - began, 1)
        progress.say(f'{name}: {fault}: {end} ({seconds:.1f} s)')
        rows.append({'case': name, 'fault': fault, 'end': end, 'seconds': seconds})
        began = time.monotonic()
      progress.advance(done)
  return rows


def main() -> int:
  parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
  parser.add_argument('--only', action='append', choices=list(cases(0)), help='cases to run')
  parser.add_argument('--kills', type=int, default=100, help='SIGKILLs at random moments')
  parser.add_argument('--seed', type=int, default=0, help='of moments, files and places')
  parser.add_argument('--folder', help='where the runs are written, stay and are found')
  parser.add_argument('--json', help='also write the rows there')
  args = parser.parse_args()
  logging.getLogger('absl').setLevel(logging.ERROR)  # Orbax warns where it is asked for NumPy
  args.only = args.only or list(cases(0))
  folder = Path(args.folder or tempfile.mkdtemp(prefix='faults-')).resolve()
  folder.mkdir(parents=True, exist_ok=True)
  rows = campaign(args, folder)
  if args.json:
    Path(args.json).write_text(json.dumps(rows, indent=1) + '\n', encoding='utf-8')
  print(table(rows))
  failed = any(row['end'].startswith('FAILED') for row in rows)
  if failed:
    print(f'The runs are in {folder}.', file=sys.stderr)
  elif not args.folder:
    shutil.rmtree(folder)
  return int(failed)


if __name__ == '__main__':
  sys.exit(main())
