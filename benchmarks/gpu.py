"""All that is to be measured on one large GPU, one benchmark after the other.

  python benchmarks/gpu.py --out runs/gpu                      # about an hour on an H200
  python benchmarks/gpu.py --out runs/gpu --minutes 9          # as many as end by then, ...
  python benchmarks/gpu.py --out runs/gpu --minutes 9          # ... and the next
  python benchmarks/gpu.py --out runs/gpu xl kernels           # these alone
  python benchmarks/page.py runs/gpu/*.json

Each writes its figures to OUT/NAME.json and what it says to OUT/NAME.log; one whose figures are
there is left out. One that fails, or that the minutes end, is tried again by the next call. The
peer is PyTorch on the same GPU. Needs what flan_jax needs to train, PyTorch, transformers and peft;
neither SeqIO nor TensorFlow nor gin. `end_to_end.py --dtype bfloat16` is the same on a prepared
cache.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

TRAIN = ('train_step', '--dtype=bfloat16', '--repeats=1', '--no-scan_layers')
XL = (*TRAIN, '--model=t5_1_1_xl', '--rows=64')
LORA = ('--lora=16', '--remat=full', '--peer_checkpointing', '--scan_layers')
NO_PEER = '--peer_rows=0'
LONG = ('--inputs=1024', '--targets=256')
DECODE = ('decode', '--dtype=bfloat16', '--rows=128', '--tokens=128', '--repeats=1')
# In the order of their worth, for who has little time.
CASES = {
  'xl': (*XL, '--remat=minimal', '--peer_rows=8'),
  'kernels': ('kernel_speed', '--repeats=1'),
  'base': (*TRAIN, '--model=t5_1_1_base', '--rows=128', '--remat=minimal', '--peer_rows=64'),
  'large': (*TRAIN, '--model=t5_1_1_large', '--rows=64', '--remat=minimal', '--peer_rows=32'),
  'xl_long': (*TRAIN, *LONG, '--model=t5_1_1_xl', '--rows=32', '--remat=minimal', '--peer_rows=4'),
  'decode_base': (*DECODE, '--model=t5_1_1_base'),
  'decode_xl': (*DECODE, '--model=t5_1_1_xl'),
  'llama_8b': (*TRAIN, *LORA, '--model=llama_8b', '--rows=32'),
  'llama_1b': (*TRAIN, '--model=llama_1b', '--rows=32', '--remat=minimal', '--peer_rows=16'),
  'xxl': (*TRAIN, *LORA, '--model=t5_1_1_xxl', '--rows=32', '--steps=2'),
  'xxl_whole': (*TRAIN, '--model=t5_1_1_xxl', '--rows=8', '--remat=full', '--scan_layers', NO_PEER),
  'kernels_long': ('kernel_speed', '--repeats=1', '--rows=32', '--length=1024'),
  'xl_full': (*XL, '--remat=full', NO_PEER),
  'xl_scanned': (*XL, '--remat=minimal', '--scan_layers', NO_PEER),
  'tiles': ('kernel_speed', '--repeats=1', '--tiles'),
}


def run(name: str, out: Path, seconds: float | None, quick: bool) -> str:
  """Runs one case; returns how that ended."""
  benchmark, *flags = CASES[name]
  figures = out / f'{name}.json'
  if figures.exists():
    return 'there already'
  script = str(Path(__file__).with_name(f'{benchmark}.py'))
  command = [sys.executable, script, *flags, f'--out={figures}', *(['--quick'] * quick)]
  # Each process has the GPU alone; by default JAX would leave a quarter of it.
  environment = {'XLA_PYTHON_CLIENT_MEM_FRACTION': '0.94', **os.environ}
  with open(out / f'{name}.log', 'w', encoding='utf-8') as log:
    # A process group, as the benchmark's own processes are to end with it, whatever ends this one.
    process = subprocess.Popen(
      command, stdout=log, stderr=log, env=environment, start_new_session=True
    )
    try:
      code = process.wait(seconds)
    except subprocess.TimeoutExpired:
      return 'not ended in time'
    finally:
      with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
      process.wait()
  return 'measured' if code == 0 else f'ended with {code}: {out / name}.log says why'


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('cases', nargs='*', metavar='CASE', help=f'of {", ".join(CASES)}; all')
  parser.add_argument('--out', required=True, type=Path, help='folder of the figures')
  parser.add_argument('--minutes', type=float, help='after which nothing runs any more')
  parser.add_argument('--quick', action='store_true', help='tiny sizes, to see that it runs')
  args = parser.parse_args()
  if unknown := set(args.cases) - CASES.keys():
    parser.error(f'{", ".join(sorted(unknown))}: the cases are {", ".join(CASES)}')
  args.out.mkdir(parents=True, exist_ok=True)
  end = time.monotonic() + 60 * args.minutes if args.minutes else None
  for name in args.cases or CASES:
    start = time.monotonic()
    if end and start >= end:
      break
    ended = run(name, args.out, end and end - start, args.quick)
    print(f'{name}: {ended} ({time.monotonic() - start:.0f} s)', flush=True)


if __name__ == '__main__':
  main()
