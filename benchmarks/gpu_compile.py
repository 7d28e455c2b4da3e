"""A train step and attention's kernels compiled for GPUs that are not there.

  python benchmarks/gpu_compile.py                                  # T5 1.1 XL on an H200
  python benchmarks/gpu_compile.py --gpu a100 --model t5_1_1/base --rows 32

Needs flan_jax[cuda], no GPU and no driver. Prints, for layers scanned and one by one and for each
way of remat, the memory of a step, the bytes that its operations move and whether any array holds
scores of all queries and keys; the same of one token of decoding, with twice the rows; then the
registers of each kernel of attention, and what does not fit them, as ptxas says. Nothing runs: how
fast it is, only a GPU can tell.
"""

import argparse
import functools
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from attention import compile_both_passes

GIB = 2**30
# Compute capability, memory, its bytes a second, processors, clock, shared memory of a block.
GPUS = {
  'a100': ((8, 0), 80 * GIB, 2.04e12, 108, 1.41, 166912),
  'h100': ((9, 0), 80 * GIB, 3.35e12, 132, 1.98, 232448),
  'h200': ((9, 0), 141 * 10**9, 4.8e12, 132, 1.98, 232448),
}


def target(name: str) -> str:
  """A GPU as XLA wants it described: its GpuTargetConfigProto, as text."""
  (major, minor), memory, bandwidth, processors, clock, shared = GPUS[name]
  fields = {
    'threads_per_block_limit': 1024,
    'threads_per_warp': 32,
    'shared_memory_per_block': 49152,
    'shared_memory_per_core': shared + 1024,
    'shared_memory_per_block_optin': shared,
    'threads_per_core_limit': 2048,
    'core_count': processors,
    'fpus_per_core': 128 if major > 8 else 64,
    'block_dim_limit_x': 2**31 - 1,
    'block_dim_limit_y': 65535,
    'block_dim_limit_z': 65535,
    'memory_bandwidth': int(bandwidth),
    'l2_cache_size': 50 * 2**20 if major > 8 else 40 * 2**20,
    'clock_rate_ghz': clock,
    'device_memory_size': memory,
    'registers_per_core_limit': 65536,
    'registers_per_block_limit': 65536,
  }
  lines = ' '.join(f'{key}: {value}' for key, value in fields.items())
  capability = f'cuda_compute_capability {{ major: {major} minor: {minor} }}'
  version = 'dnn_version_info { major: 9 minor: 8 }'
  return (
    f'gpu_device_info {{ {lines} {capability} }} platform_name: "CUDA" {version} '
    f'device_description_str: "{name}"'
  )


def mesh_of(name: str) -> Any:
  """A mesh of one GPU, for which programs can be compiled and on which none can run."""
  import jax
  from jax.experimental import topologies

  from flan_jax import partitioning

  jax.config.update('jax_platforms', 'cpu')
  jax.config.update('jax_enable_compilation_cache', False)
  one = '1x1x1'
  described = topologies.get_topology_desc(one, 'cuda', topology=one, target_config=target(name))
  return partitioning.make_mesh(partitioning.MeshConfig(), list(described.devices))


def run_of(args, rows: int, **bindings: Any) -> Any:
  """The settings of a training run."""
  from flan_jax import main

  inputs, targets = args.lengths
  bindings |= {
    'TASK_FEATURE_LENGTHS': {'inputs': inputs, 'targets': targets},
    **{'BATCH_SIZE': rows, 'MIXTURE_OR_TASK_NAME': '', 'CACHE_DIR': '', 'TRAIN_STEPS': 1},
  }
  lines = [f'{name}={value!r}' for name, value in bindings.items()]
  return main.load_run(['runs/train.gin', f'models/{args.model}.gin'], lines).run.train


def described(compiled: Any, scores: str) -> dict:
  """Memory and traffic of a compiled program, and how many arrays are of the shape `scores`."""
  from flan_jax.planning import hlo

  stats, text = compiled.memory_analysis(), str(compiled.as_text())
  program = hlo.read(text)
  return {
    'state_gib': stats.argument_size_in_bytes / GIB,
    'temporary_gib': stats.temp_size_in_bytes / GIB,
    'moved_gb': program.memory_bytes / 1e9,
    'products_tflop': program.flops / 1e12,
    'arrays_of_scores': len(re.findall(scores, text)),
  }


def compile_step(args) -> dict:
  """A train step."""
  from flan_jax.planning import steps

  layers, remat = args.child.split()
  scan = {'model_config.TransformerConfig.scan_layers': layers == 'scanned'}
  config = run_of(args, args.rows, REMAT=remat, **scan)
  compiled = steps.lower('train', config, mesh_of(args.gpu)).compile()
  inputs, targets = args.lengths
  length = rf'({inputs}|{targets}|{inputs + targets})'
  return described(compiled, rf'\[[\d,]*\b{config.model.num_heads},{length},{length}\]')


def compile_token(args) -> dict:
  """One token of decoding, as the model is laid out for it."""
  import jax

  from flan_jax import partitioning
  from flan_jax.models.transformer import Transformer
  from flan_jax.planning import steps

  config = run_of(args, 2 * args.rows)
  with partitioning.use_mesh(mesh_of(args.gpu), config.mesh.rules) as mesh:
    model, tokens, cache = steps.decode_arguments(config, mesh)
    model, cache = partitioning.abstract(Transformer.unstacked, model, cache)
    step = jax.jit(Transformer.decode_step, donate_argnums=2).lower(model, tokens, cache)
    return described(step.compile(), '$^')


def compile_kernels(args) -> None:
  """Compiles attention forward and backward; XLA leaves the code where XLA_FLAGS says."""
  from flan_jax.models import attention_kernels_gpu

  head_dim, biased = args.child.split()[1:]
  compile_both_passes(
    functools.partial(attention_kernels_gpu.attend, 1.0),
    mesh_of(args.gpu),
    (8, 512, 32, int(head_dim)),
    (8, 512),
    (32, 257) if biased == 'bias' else None,
  )


def registers(folder: Path, gpu: str) -> dict[str, tuple[int, int]]:
  """Of each kernel that multiplies: registers of a thread, and bytes that do not fit them."""
  (major, minor), found = GPUS[gpu][0], {}
  architecture = f'sm_{major}{minor}' + ('a' if major == 9 else '')
  for path in sorted(folder.glob('*.ptx')):
    text = path.read_text()
    if not re.search(r'wgmma|mma\.sync', text):
      continue
    command = [ptxas(), '-v', f'-arch={architecture}', str(path), '-o', os.devnull]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    name = re.findall(r'\.entry (\w+)', text)[0]
    spilled = sum(map(int, re.findall(r'(\d+) bytes spill', said)))
    found[name] = int(re.findall(r'Used (\d+) registers', said)[0]), spilled
  return found


def ptxas() -> str:
  """The assembler that comes with flan_jax[cuda], or the machine's."""
  places = [Path(folder) / 'nvidia' for folder in sys.path if folder.endswith('-packages')]
  found = [str(path) for place in places for path in place.rglob('bin/ptxas')]
  return [*found, shutil.which('ptxas') or 'ptxas'][0]


def child(args, what: str, folder: str) -> str:
  """What a process of its own prints, with the code it was compiled to in `folder`."""
  flags = ['--gpu', args.gpu, '--model', args.model, '--rows', str(args.rows)]
  flags += ['--lengths', *map(str, args.lengths), '--child', what]
  environment = {
    **os.environ,
    'JAX_SKIP_CUDA_CONSTRAINTS_CHECK': '1',  # which asks the driver
    'XLA_FLAGS': f'--xla_dump_to={folder}' if folder else '',
  }
  command = [sys.executable, __file__, *flags]
  return subprocess.run(
    command, env=environment, check=True, stdout=subprocess.PIPE, text=True
  ).stdout


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--gpu', choices=GPUS, default='h200')
  parser.add_argument('--model', default='t5_1_1/xl', help='a file of gin/models')
  parser.add_argument('--rows', type=int, default=64)
  parser.add_argument('--lengths', type=int, nargs=2, default=(512, 128))
  parser.add_argument('--child', help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.child:
    if args.child.startswith('kernels'):
      compile_kernels(args)
    else:
      print(json.dumps(compile_token(args) if args.child == 'token' else compile_step(args)))
    return
  lengths = '/'.join(map(str, args.lengths))
  print(f'{args.model}, {args.rows} rows of {lengths}, {args.gpu}:\n')
  print(
    '| layers, remat | state GiB | temporary GiB | moved GB | products TFLOP | arrays of scores |'
  )
  print('|---|---|---|---|---|---|')
  ways = itertools.product(('scanned', 'apart'), ('full', 'minimal'))
  for what in (*map(' '.join, ways), 'token'):
    found = json.loads(child(args, what, '').splitlines()[-1])
    *numbers, scores = found.values()
    print(f'| {what} | {" | ".join(f"{x:,.1f}" for x in numbers)} | {scores} |', flush=True)
  print('\n| head_dim | bias | kernel | registers | bytes beyond them |\n|---|---|---|---|---|')
  for head_dim in (64, 128):
    for bias in ('bias', 'none'):
      with tempfile.TemporaryDirectory() as folder:
        child(args, f'kernels {head_dim} {bias}', folder)
        for name, (used, spilled) in registers(Path(folder), args.gpu).items():
          print(f'| {head_dim} | {bias} | {name} | {used} | {spilled} |', flush=True)


if __name__ == '__main__':
  main()
