"""One training step on random tokens, beside Hugging Face's model in PyTorch.

  python benchmarks/train_step.py                  # T5 1.1 small, 8 rows of 512/128, float32
  python benchmarks/train_step.py --model smollm2_135m --rows 2 --out step.json
  python benchmarks/train_step.py --model llama_8b --lora 16 --remat full --dtype bfloat16 --rows 32

Each program runs in a process of its own, one after the other and in turns, on rows of the same
lengths, with Adafactor. Every position holds a token, drawn anew for each step, so all FLOPs are
useful. Parameters are float32 and products of --dtype; with --lora adapters beside all kernels are
trained, and what they stand beside is of --dtype.
"""

import argparse
import dataclasses
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


def our_config(args) -> Any:
  """The model that is trained."""
  from flan_jax.models.config import Lora

  changes: dict = {'dtype': args.dtype, 'remat': args.remat}
  if args.lora:
    changes['lora'] = Lora(rank=args.lora, alpha=args.lora)
  if args.scan_layers is not None:
    changes['scan_layers'] = args.scan_layers
  return peers.our_config(args.model, **changes)


def run_ours(args) -> dict:
  import jax

  from flan_jax import host_memory, optimizers, partitioning, train, train_state

  host_memory.keep_freed()
  config = train.TrainConfig(
    model=our_config(args),
    data=train.DataConfig('', '', {'inputs': args.inputs, 'targets': args.targets}, args.rows),
    optimizer=optimizers.adafactor(1e-3),
    steps=1,
    seed=0,
  )

  @jax.jit
  def begin(key):
    state = train_state.initialize(config, key)
    trained, frozen = train_state.split(state.model, config)
    frozen = jax.tree.map(lambda x: x.astype(args.dtype), frozen)
    return dataclasses.replace(state, model=train_state.join(state.model, trained, frozen))

  with partitioning.use_mesh(partitioning.MeshConfig()) as mesh:
    state = begin(jax.random.key(0))
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
  args.rows = args.peer_rows
  device = peers.torch_device()
  with device:
    model = peers.hugging_face_model(args.model)
  if args.lora:
    from peft import LoraConfig, get_peft_model

    model = model.to(getattr(torch, args.dtype))
    lora = LoraConfig(r=args.lora, lora_alpha=args.lora, target_modules='all-linear')
    model = get_peft_model(model, lora)
  if args.peer_checkpointing:
    model.gradient_checkpointing_enable()
  optimizer = Adafactor(
    [p for p in model.parameters() if p.requires_grad],
    lr=1e-3,
    scale_parameter=True,
    relative_step=False,
    warmup_init=False,
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


def figures_of(runs: list[dict], args, rows: int, peak: dict) -> dict:
  """One program's figures over all its processes, whose steps have so many rows."""
  seconds = [second for run in runs for second in run['seconds']]
  rate = rows / statistics.median(seconds)
  return {
    'seconds': measure.spread(seconds),
    'rows': rows,
    'tokens_per_second': round(rate * (args.inputs + args.targets)),
    **measure.shares(rate * flops_of_row(args), peak),
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


def flops_of_row(args) -> float:
  from flan_jax.models.config import train_step_flops

  return train_step_flops(our_config(args), 1, args.inputs, args.targets)


def main() -> None:
  parser = measure.parser(__doc__)
  peers.add_flags(parser, peers.MODELS, 't5_1_1_small')
  parser.add_argument('--remat', choices=('none', 'minimal', 'full'), default='none')
  parser.add_argument('--scan_layers', action=argparse.BooleanOptionalAction)
  parser.add_argument('--lora', type=int, default=0, metavar='RANK', help='train adapters alone')
  parser.add_argument('--rows', type=int, default=8, help='rows of a step')
  parser.add_argument(
    '--peer_rows', type=int, help="rows of the peer's step, if not as many; 0 for no peer"
  )
  parser.add_argument('--peer_checkpointing', action='store_true', help='as remat full')
  parser.add_argument('--inputs', type=int, default=512, help='input tokens of a row')
  parser.add_argument('--targets', type=int, default=128, help='target tokens of a row')
  parser.add_argument('--steps', type=int, default=5, help='measured steps of a process')
  parser.add_argument('--compiled', action='store_true', help='also the peer by torch.compile')
  parser.add_argument('--run', choices=PROGRAMS, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.quick:
    args.model, args.rows, args.inputs, args.targets, args.steps = 'tiny', 2, 16, 8, 1
    args.repeats = 1
  args.peer_rows = args.rows if args.peer_rows is None else args.peer_rows
  if args.run:
    print(json.dumps(PROGRAMS[args.run](args)))
    return
  peers_of = ['hugging_face', *(['hugging_face_compiled'] if args.compiled else [])]
  measured = peers_of if peers.installed() and args.peer_rows else []
  runs = measure.in_turns(['gemm', 'flan_jax'], measured, args.repeats)
  peak = measure.median_peak(runs.pop('gemm'))
  tokens = args.rows * (args.inputs + args.targets)
  trained = f', adapters of rank {args.lora}' if args.lora else ''
  remat = '' if args.remat == 'none' else f', remat {args.remat}'
  figures: dict = {
    'work': f'{args.model}{trained}, {args.rows} rows of {args.inputs}/{args.targets}, '
    f'Adafactor{remat}',
    'dtype': args.dtype,
    'positions': tokens,
    'real_tokens': tokens,
    'gflop_per_step': round(args.rows * flops_of_row(args) / 1e9, 1),
    'flops': measure.FLOPS,
    'gemm': peak,
    'programs': {
      name: figures_of(found, args, args.rows if name == 'flan_jax' else args.peer_rows, peak)
      for name, found in runs.items()
    },
  }
  measure.finish('train_step', measure.with_ratios(figures, 'tokens_per_second'), args)


if __name__ == '__main__':
  main()
