"""Attention in tiles on a GPU or a TPU: with T5's bias, without it, and what else could attend.

  python benchmarks/kernel_speed.py             # T5 1.1 XL, 64 rows of 512, bfloat16
  python benchmarks/kernel_speed.py --rows 32 --length 1024 --out kernels.json
  python benchmarks/kernel_speed.py --tiles     # also which tiles are fastest, on GPUs

Forward and backward, the bias's gradient included, on whole rows and fresh random arrays, beside
XLA's attention with the same bias and PyTorch's fused attention with a dense bias and without one.
Each runs in a process of its own, in turns. --quick interprets the kernels for GPUs on a CPU.
"""

import argparse
import functools
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import measure
import peers

CALLS = 10  # measured as one, as a single call is little more than its launch
# Queries, keys, warps and stages that are tried for each kernel.
TILES = (((128, 64), (64, 64), (32, 64), (64, 128), (64, 32)), (4, 8), (2, 3))


def seconds_of(run: Callable[[int], Any], wait: Callable[[Any], Any], steps: int) -> list[float]:
  """Seconds of a call, `steps` times over, after one that compiles."""
  seconds = []
  for step in range(steps + 1):
    start = time.perf_counter()
    for _ in range(1 if step == 0 else CALLS):
      result = run(step)
    wait(result)
    seconds.append((time.perf_counter() - start) / CALLS)
  return seconds[1:]


def run_ours(args, *, biased: bool = True, kernels: bool = True) -> dict:
  import jax
  import jax.numpy as jnp
  from flax import nnx

  from flan_jax.models import tiled_attention
  from flan_jax.models.attention import RelativeBias
  from flan_jax.models.dot_product import attend

  if args.quick:
    tiled_attention.INTERPRETED = 'gpu'
  config = peers.our_config(args.model, dtype=args.dtype)
  tile = tiled_attention.tile_for(config, args.length, args.length) if kernels else None
  if kernels and tile is None:
    raise SystemExit('No kernel serves here; --quick interprets those for GPUs on a CPU.')
  table = RelativeBias(config, nnx.Rngs(params=0), bidirectional=True)
  along = jnp.arange(args.length)
  shape = args.rows, args.length, config.num_heads, config.head_dim

  def attended(query, keys, values, table, mask):
    bias = None
    if biased:
      bias = table.tiles(tile) if tile else table(along, along)
    return attend(query, keys, values, mask, bias, None, config, tile=tile)

  def both(gradient, query, keys, values, table, mask):
    fn = functools.partial(attended, mask=mask)
    result, back = jax.vjp(fn, query, keys, values, table)
    return result, back(gradient)

  arrays = [
    jax.random.normal(jax.random.key(step), (4, *shape), args.dtype)
    for step in range(args.steps + 1)
  ]
  rest = table, jnp.ones((args.rows, args.length, args.length), bool)
  forward: Any = jax.jit(attended)
  with_gradients: Any = jax.jit(both)
  wait = jax.block_until_ready
  return {
    'forward': seconds_of(lambda step: forward(*arrays[step][:3], *rest), wait, args.steps),
    'seconds': seconds_of(lambda step: with_gradients(*arrays[step], *rest), wait, args.steps),
  }


def run_torch(args, *, biased: bool = True) -> dict:
  import torch

  device, config = peers.torch_device(), peers.our_config(args.model)
  dtype, attend = getattr(torch, args.dtype), torch.nn.functional.scaled_dot_product_attention
  shape = args.rows, config.num_heads, args.length, config.head_dim
  arrays = [
    torch.randn((4, *shape), device=device, dtype=dtype).unbind() for _ in range(args.steps + 1)
  ]
  scores = (1, config.num_heads, args.length, args.length)
  bias = torch.randn(scores, device=device, dtype=dtype, requires_grad=True) if biased else None

  def attended(step):
    *parts, gradient = arrays[step]
    parts = [x.detach().requires_grad_() for x in parts]
    return attend(*parts, attn_mask=bias, scale=1.0), gradient

  def forward(step):
    with torch.no_grad():
      return attended(step)[0]

  def both(step):
    result, gradient = attended(step)
    result.backward(gradient)
    return result

  def wait(result):
    if device.type == 'cuda':
      torch.cuda.synchronize()

  return {
    'forward': seconds_of(forward, wait, args.steps),
    'seconds': seconds_of(both, wait, args.steps),
  }


def run_tiles(args) -> dict:
  """Milliseconds of each kernel for GPUs by the tiles that it could have, the fastest first."""
  import jax
  import jax.numpy as jnp

  from flan_jax.models import attention_kernels_gpu as kernels

  config = peers.our_config(args.model)
  shape = args.rows, args.length, config.num_heads, config.head_dim
  query, keys, values, gradient = jax.random.normal(jax.random.key(0), (4, *shape), args.dtype)
  start = jnp.zeros(shape[:2], jnp.int32)
  stop = jnp.full(shape[:2], args.length)
  bias = jax.random.normal(jax.random.key(1), (config.num_heads, 257))
  seen = query, keys, values, start, stop, bias
  sums = jnp.zeros((args.rows, config.num_heads, args.length))
  back = (*seen, gradient, sums, sums)
  programs = {
    '_FORWARD': (kernels._attended, seen),
    '_OF_QUERIES': (kernels._of_queries, back),
    '_OF_KEYS': (kernels._of_keys, back),
    '_OF_BIAS': (kernels._of_bias, back),
  }

  def timed(kernel, arrays):
    run = jax.jit(functools.partial(kernel, 1.0))
    return seconds_of(lambda _: run(*arrays), jax.block_until_ready, args.steps)

  found = {}
  for name, (kernel, arrays) in programs.items():
    ours, times = getattr(kernels, name), []
    for tiles in [ours, *(x for x in _tiles(kernels, args.quick) if x != ours)]:
      setattr(kernels, name, tiles)
      try:
        seconds = timed(kernel, arrays)
      except Exception as e:  # whatever Triton or XLA says of tiles that do not fit
        print(f'{name} {tiles}: {str(e).splitlines()[0][:100]}')
        continue
      described = f'{tiles.queries} x {tiles.keys}, {tiles.warps} warps, {tiles.stages} stages'
      times.append((1e3 * statistics.median(seconds), described + ' (ours)' * (tiles == ours)))
    setattr(kernels, name, ours)
    found[name.strip('_').lower()] = sorted(times)
  return found


def _tiles(kernels, quick: bool) -> Iterator[Any]:
  for (queries, keys), warps, stages in itertools.islice(
    itertools.product(*TILES), 2 if quick else None
  ):
    yield kernels._Tiles(queries=queries, keys=keys, warps=warps, stages=stages)


PROGRAMS = {
  'flan_jax': run_ours,
  'flan_jax_without_bias': functools.partial(run_ours, biased=False),
  'xla': functools.partial(run_ours, kernels=False),
  'torch': run_torch,
  'torch_without_bias': functools.partial(run_torch, biased=False),
  'gemm': lambda args: measure.gemm_peak(args.dtype, quick=args.quick),
  'tiles': run_tiles,
}


def figures_of(runs: list[dict], args, peak: dict) -> dict:
  """One program's figures over all its processes."""
  config = peers.our_config(args.model)
  # Scores and weighted sums, 2 per multiply-add, and twice as much backward.
  flops = 12 * args.rows * config.num_heads * args.length**2 * config.head_dim
  seconds, forward = (
    measure.spread([1e3 * second for run in runs for second in run[name]])
    for name in ('seconds', 'forward')
  )
  rate = flops / seconds['median'] * 1e3
  return {
    'forward_ms': forward,
    'both_ms': seconds,
    'gflop_per_second': round(rate / 1e9, 3),
    **measure.shares(rate, peak),
  }


def main() -> None:
  parser = measure.parser(__doc__)
  peers.add_flags(parser, peers.T5, 't5_1_1_xl', 'bfloat16')
  parser.add_argument('--rows', type=int, default=64)
  parser.add_argument('--length', type=int, default=512, help='tokens of a row')
  parser.add_argument('--steps', type=int, default=5, help='measured times of a process')
  parser.add_argument('--tiles', action='store_true', help="also each kernel's by its tiles")
  parser.add_argument('--run', choices=PROGRAMS, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.quick:
    args.model, args.rows, args.length, args.steps, args.repeats = 'tiny', 1, 128, 1, 1
  if args.run:
    print(json.dumps(PROGRAMS[args.run](args)))
    return
  torchs = [name for name in PROGRAMS if name.startswith('torch')] if peers.installed() else []
  runs = measure.in_turns(
    ['gemm', 'flan_jax'], ['flan_jax_without_bias', 'xla', *torchs], args.repeats
  )
  peak = measure.median_peak(runs.pop('gemm'))
  figures: dict = {
    'work': f'attention of {args.model}, {args.rows} rows of {args.length}',
    'dtype': args.dtype,
    'gemm': peak,
    'programs': {name: figures_of(found, args, peak) for name, found in runs.items()},
  }
  if args.tiles:
    figures['tiles'] = measure.in_own_process('tiles')
  measure.finish('kernel_speed', measure.with_ratios(figures, 'gflop_per_second'), args)


if __name__ == '__main__':
  main()
