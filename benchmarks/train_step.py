"""One training step on random tokens, beside Hugging Face's model in PyTorch.

  python benchmarks/train_step.py                  # T5 1.1 small, 8 rows of 512/128, float32
  python benchmarks/train_step.py --model smollm2_135m --rows 2 --out step.json

Each program runs in a process of its own, one after the other and in turns, on the same shapes,
with Adafactor. Every position holds a token, drawn anew for each step, so all FLOPs are useful.
"""

import argparse
import functools
import json
import statistics
import time
from typing import Any

import measure
import numpy as np
import peers


def seconds_of(step, steps: int) -> list[float]:
  """Seconds of each step, the first of which compiles."""
  seconds = []
  for number in range(steps + 1):
    start = time.perf_counter()
    step(np.random.default_rng(number))
    seconds.append(time.perf_counter() - start)
  return seconds


def batch(args, rng: np.random.Generator) -> dict[str, np.ndarray]:
  """Random tokens as the loader lays them out; a decoder alone takes both lengths as targets."""
  config = peers.our_config(args.model)
  inputs, targets = args.inputs, args.targets
  if config.decoder_only:
    inputs, targets = 0, inputs + targets
  made = {}
  for side, length in (('encoder', inputs), ('decoder', targets)):
    if length:
      made[f'{side}_segment_ids'] = np.ones((args.rows, length), np.int32)
      made[f'{side}_positions'] = np.tile(np.arange(length, dtype=np.int32), (args.rows, 1))
  tokens = rng.integers(2, config.vocab_size, (args.rows, inputs + targets)).astype(np.int32)
  if inputs:
    made['encoder_input_tokens'] = tokens[:, :inputs]
  else:
    made['decoder_prefix'] = np.zeros((args.rows, targets), np.int32)
  made['decoder_target_tokens'] = tokens[:, inputs:]
  made['decoder_input_tokens'] = np.pad(tokens[:, inputs:], ((0, 0), (1, 0)))[:, :-1]
  made['decoder_loss_weights'] = np.ones((args.rows, targets), np.float32)
  made['decoder_collection_ids'] = np.ones((args.rows, targets), np.int32)
  return made


def run_ours(args) -> dict:
  import jax

  from flan_jax import host_memory, optimizers, partitioning, train, train_state

  host_memory.keep_freed()
  config = train.TrainConfig(
    model=peers.our_config(args.model, args.dtype),
    data=train.DataConfig('', '', {'inputs': args.inputs, 'targets': args.targets}, args.rows),
    optimizer=optimizers.adafactor(1e-3),
    steps=1,
    seed=0,
  )
  with partitioning.use_mesh(partitioning.MeshConfig()) as mesh:
    state = jax.jit(lambda key: train_state.initialize(config, key))(jax.random.key(0))
    place = functools.partial(jax.device_put, device=partitioning.batch_sharding(mesh))
    step_fn = functools.partial(train.train_step, config=config, collections=1)
    start = time.perf_counter()
    first = place(batch(args, np.random.default_rng(0)))
    lowered = jax.jit(step_fn, donate_argnums=0).lower(state, first)
    traced = time.perf_counter()
    compiled = lowered.compile()
    ended = time.perf_counter()

    def step(rng):
      nonlocal state
      state, metrics = compiled(state, place(batch(args, rng)))
      float(metrics['loss'])

    seconds = seconds_of(step, args.steps)
  device = jax.local_devices()[0]
  memory: Any = compiled.memory_analysis()
  return {
    'seconds': seconds[1:],
    'trace_seconds': traced - start,
    'compile_seconds': ended - traced,
    'peak_mb': measure.peak_mb((device.memory_stats() or {}).get('peak_bytes_in_use')),
    'temporary_mb': round(memory.temp_size_in_bytes / 1e6),
  }


def run_hugging_face(args, *, compiled: bool = False) -> dict:
  import torch
  from transformers.optimization import Adafactor

  torch.manual_seed(0)
  device = peers.torch_device()
  model = peers.hugging_face_model(args.model).to(device)
  optimizer = Adafactor(
    model.parameters(), lr=1e-3, scale_parameter=True, relative_step=False, warmup_init=False
  )
  model.train()
  forward = torch.compile(model) if compiled else model
  mixed = torch.autocast(device.type, torch.bfloat16, enabled=args.dtype == 'bfloat16')

  def step(rng):
    features = {name: torch.from_numpy(x).to(device) for name, x in batch(args, rng).items()}
    labels = features['decoder_target_tokens'].long().contiguous()
    ids = features.get('encoder_input_tokens', labels).long()
    optimizer.zero_grad(set_to_none=True)
    with mixed:
      loss = forward(input_ids=ids, labels=labels).loss
    loss.backward()
    optimizer.step()
    float(loss.detach())

  seconds = seconds_of(step, args.steps)
  peak = torch.cuda.max_memory_allocated() if device.type == 'cuda' else None
  return {
    'seconds': seconds[1:],
    'compile_seconds': seconds[0] - seconds[1] if compiled else 0.0,
    'peak_mb': measure.peak_mb(peak),
  }


PROGRAMS = {
  'flan_jax': run_ours,
  'hugging_face': run_hugging_face,
  'hugging_face_compiled': functools.partial(run_hugging_face, compiled=True),
  'gemm': lambda args: measure.gemm_peak(args.dtype, quick=args.quick),
}


def figures_of(runs: list[dict], flops: float, tokens: int, peak: dict) -> dict:
  """One program's figures over all its processes."""
  seconds = [second for run in runs for second in run['seconds']]
  median = statistics.median(seconds)
  return {
    'seconds': measure.spread(seconds),
    'tokens_per_second': round(tokens / median),
    **measure.shares(flops / median, peak),
    **{
      name: round(statistics.median(run[name] for run in runs), 2)
      for name in ('trace_seconds', 'compile_seconds')
      if name in runs[0]
    },
    **{
      name: max(run[name] for run in runs)
      for name in ('peak_mb', 'temporary_mb')
      if name in runs[0]
    },
  }


def main() -> None:
  parser = measure.parser(__doc__)
  parser.add_argument('--model', choices=peers.MODELS, default='t5_1_1_small')
  parser.add_argument('--dtype', choices=('float32', 'bfloat16'), default='float32')
  parser.add_argument('--rows', type=int, default=8, help='rows of a step')
  parser.add_argument('--inputs', type=int, default=512, help='input tokens of a row')
  parser.add_argument('--targets', type=int, default=128, help='target tokens of a row')
  parser.add_argument('--steps', type=int, default=5, help='measured steps of a process')
  parser.add_argument('--compiled', action='store_true', help='also the peer by torch.compile')
  parser.add_argument('--run', choices=PROGRAMS, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.quick:
    args.model, args.rows, args.inputs, args.targets, args.steps = 'tiny', 2, 16, 8, 1
    args.repeats = 1
  if args.run:
    print(json.dumps(PROGRAMS[args.run](args)))
    return
  from flan_jax.models.config import train_step_flops

  flops = train_step_flops(peers.our_config(args.model), args.rows, args.inputs, args.targets)
  runs = {'gemm': [], 'flan_jax': []}
  if peers.installed():
    runs['hugging_face'] = []
    if args.compiled:
      runs['hugging_face_compiled'] = []
  for _ in range(args.repeats):
    for program, found in runs.items():
      found.append(measure.in_own_process(program))
  peak = measure.median_peak(runs.pop('gemm'))
  tokens = args.rows * (args.inputs + args.targets)
  figures: dict = {
    'work': f'{args.model}, {args.rows} rows of {args.inputs}/{args.targets}, Adafactor',
    'dtype': args.dtype,
    'positions': tokens,
    'real_tokens': tokens,
    'gflop_per_step': round(flops / 1e9, 1),
    'flops': measure.FLOPS,
    'gemm': peak,
    'programs': {name: figures_of(found, flops, tokens, peak) for name, found in runs.items()},
  }
  measure.finish('train_step', measure.with_ratios(figures, 'tokens_per_second'), args)


if __name__ == '__main__':
  main()
