"""What every benchmark shares: flags, peaks, spreads, and figures as JSON."""

import argparse
import datetime
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

FLOPS = (
  'matrix products, 2 per multiply-add, attention in full, backward twice the forward, nothing '
  'recomputed: flan_jax.models.config.train_step_flops'
)


def parser(docstring: str | None, *, repeats: int = 3) -> argparse.ArgumentParser:
  """A parser of the flags that all benchmarks have."""
  made = argparse.ArgumentParser(
    description=docstring, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  made.add_argument('--repeats', type=int, default=repeats, help='processes of each program')
  made.add_argument('--quick', action='store_true', help='tiny sizes, to see that it runs')
  made.add_argument('--out', help='also write the figures there, as JSON')
  return made


def spread(values: list[float]) -> dict[str, float]:
  """The median, and the fastest and slowest."""
  return {
    'median': round(statistics.median(values), 4),
    'least': round(min(values), 4),
    'most': round(max(values), 4),
    'count': len(values),
  }


def gemm_peak(dtype: str, *, quick: bool = False) -> dict[str, Any]:
  """FLOP/s of square matrix products: NumPy's in float32 on a CPU, JAX's on an accelerator."""
  import jax
  import jax.numpy as jnp

  from flan_jax import metrics

  device = jax.devices()[0]
  if device.platform == 'cpu':
    size, dtype = 256 if quick else 4096, 'float32'
    x = np.random.default_rng(0).normal(size=(size, size)).astype(np.float32)
    seconds = _fastest(lambda: np.matmul(x, x))
  else:
    size = 8192
    x = jax.random.normal(jax.random.key(0), (size, size), jnp.dtype(dtype))
    multiply = jax.jit(jnp.matmul)
    jax.block_until_ready(multiply(x, x))
    seconds = _fastest(lambda: jax.block_until_ready(multiply(x, x)))
  sheet = [t for kind, t in metrics.DATASHEET_TFLOPS.items() if device.device_kind.startswith(kind)]
  return {
    'device': device.device_kind,
    'product': f'{dtype} {size} x {size}',
    'gflops': 2 * size**3 / seconds / 1e9,
    'datasheet_gflops': 1e3 * max(sheet) if sheet else None,
  }


def _fastest(call: Callable[[], Any]) -> float:
  """Seconds of the fastest of five calls."""
  seconds = []
  for _ in range(5):
    start = time.perf_counter()
    call()
    seconds.append(time.perf_counter() - start)
  return min(seconds)


def median_peak(runs: list[dict[str, Any]]) -> dict[str, Any]:
  """What `gemm_peak` found in several processes."""
  return {**runs[0], 'gflops': round(statistics.median(run['gflops'] for run in runs), 1)}


def shares(flops_per_second: float, peak: dict[str, Any]) -> dict[str, float]:
  """Of the products measured in the same run, and of the data sheet where the device has one."""
  made = {'share_of_gemm_peak': round(flops_per_second / 1e9 / peak['gflops'], 3)}
  if peak['datasheet_gflops']:
    made['share_of_datasheet'] = round(flops_per_second / 1e9 / peak['datasheet_gflops'], 3)
  return made


def with_ratios(figures: dict[str, Any], rate: str) -> dict[str, Any]:
  """Adds how many times each peer's `rate` flan_jax's is."""
  ours, *peers = figures['programs']
  of = {name: program[rate] for name, program in figures['programs'].items()}
  return {**figures, 'times_the_rate_of': {name: round(of[ours] / of[name], 3) for name in peers}}


def in_own_process(program: str, *flags: str) -> Any:
  """Runs this benchmark again with --run for one program; returns the JSON of its last line."""
  command = [sys.executable, *sys.argv, '--run', program, *flags]
  done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
  return json.loads(done.stdout.splitlines()[-1])


def in_turns(
  ours: list[str], peers: list[str], repeats: int, *flags: str
) -> dict[str, list[dict[str, Any]]]:
  """What the processes of each program print; a peer that fails is left out, and that is said."""
  runs: dict[str, list] = {name: [] for name in (*ours, *peers)}
  for _ in range(repeats):
    for program in list(runs):
      try:
        runs[program].append(in_own_process(program, *flags))
      except subprocess.CalledProcessError as e:
        if program in ours:
          raise
        print(f'{program} is left out: it ended with {e.returncode}.', file=sys.stderr)
        del runs[program]
  return runs


def peak_mb(device_peak: int | None = None) -> int:
  """The most memory this process has held, of the accelerator where it has one."""
  return round((device_peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024) / 1e6)


def finish(name: str, figures: dict[str, Any], args: argparse.Namespace) -> None:
  """Prints the figures with what they were measured on, and writes them."""
  packages = {}
  for package in ('jax', 'torch', 'transformers'):
    try:
      packages[package] = metadata.version(package)
    except metadata.PackageNotFoundError:
      continue
  whole = {
    'benchmark': name,
    'date': datetime.date.today().isoformat(),
    'command': ' '.join(['python', f'benchmarks/{name}.py', *sys.argv[1:]]),
    'machine': {
      'cores': os.cpu_count(),
      'memory_gib': round(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30),
      'python': platform.python_version(),
      **packages,
    },
    **figures,
  }
  text = json.dumps(whole, indent=1)
  print(text)
  if args.out:
    Path(args.out).write_text(text + '\n', encoding='utf-8')
