"""One training step of T5 1.1 small on the CPU, beside Hugging Face's T5 in PyTorch.

  python benchmarks/train_step.py                  # batch 8, 512/128, Adafactor, float32
  python benchmarks/train_step.py --repeats 3 --json step.json

Each program runs in a process of its own, one after the other and in turns, on the same shapes:
every position holds a token, so all FLOPs are useful. FLOPs: flan_jax.models.config's
train_step_flops (matrix products, 2 per multiply-add, backward twice the forward). The ceiling is a
NumPy product of 4,096 x 4,096 float32 measured in the same run.
"""

import argparse
import json
import os
import statistics
import time

import numpy as np
import t5_small

ROWS, INPUTS, TARGETS = 8, 512, 128


def measure(step, steps: int) -> list[float]:
  """Seconds of each step after the first, which compiles."""
  seconds = []
  for number in range(steps + 1):
    start = time.perf_counter()
    step(np.random.default_rng(number))
    seconds.append(time.perf_counter() - start)
  return seconds


def run_ours(args) -> list[float]:
  import jax

  from flan_jax import optimizers, partitioning, train, train_state

  config = train.TrainConfig(
    model=t5_small.our_config(),
    data=train.DataConfig('', '', {'inputs': INPUTS, 'targets': TARGETS}, ROWS),
    optimizer=optimizers.adafactor(1e-3),
    steps=1,
    seed=0,
  )

  def batch(rng):
    made = {}
    for side, length in (('encoder', INPUTS), ('decoder', TARGETS)):
      made[f'{side}_segment_ids'] = np.ones((ROWS, length), np.int32)
      made[f'{side}_positions'] = np.tile(np.arange(length, dtype=np.int32), (ROWS, 1))
    tokens = rng.integers(2, 32000, (ROWS, INPUTS + TARGETS)).astype(np.int32)
    made['encoder_input_tokens'], targets = tokens[:, :INPUTS], tokens[:, INPUTS:]
    made['decoder_target_tokens'] = targets
    made['decoder_input_tokens'] = np.pad(targets, ((0, 0), (1, 0)))[:, :-1]
    made['decoder_loss_weights'] = np.ones((ROWS, TARGETS), np.float32)
    made['decoder_collection_ids'] = np.ones((ROWS, TARGETS), np.int32)
    return made

  with partitioning.use_mesh(partitioning.MeshConfig()) as mesh:
    state = jax.jit(lambda key: train_state.initialize(config, key))(jax.random.key(0))
    sharding = partitioning.batch_sharding(mesh)
    compiled = jax.jit(
      lambda state, batch: train.train_step(state, batch, config=config, collections=1),
      donate_argnums=0,
    )

    def step(rng):
      nonlocal state
      state, metrics = compiled(state, jax.device_put(batch(rng), sharding))
      float(metrics['loss'])

    return measure(step, args.steps)


def run_hugging_face(args) -> list[float]:
  import torch
  from transformers.optimization import Adafactor

  torch.manual_seed(0)
  torch.set_num_threads(os.cpu_count() or 1)
  model = t5_small.hugging_face_model()
  optimizer = Adafactor(
    model.parameters(), lr=1e-3, scale_parameter=True, relative_step=False, warmup_init=False
  )
  model.train()

  def step(rng):
    tokens = torch.from_numpy(rng.integers(2, 32000, (ROWS, INPUTS + TARGETS)))
    optimizer.zero_grad(set_to_none=True)
    model(input_ids=tokens[:, :INPUTS], labels=tokens[:, INPUTS:].contiguous()).loss.backward()
    optimizer.step()

  return measure(step, args.steps)


def gemm_peak() -> float:
  """FLOP/s of a float32 product of 4,096 x 4,096 in NumPy, the best of three."""
  x = np.ones((4096, 4096), np.float32)
  seconds = []
  for _ in range(3):
    start = time.perf_counter()
    np.matmul(x, x)
    seconds.append(time.perf_counter() - start)
  return 2 * 4096**3 / min(seconds)


def main() -> None:
  parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
  parser.add_argument('--steps', type=int, default=5, help='measured steps a process')
  parser.add_argument('--repeats', type=int, default=2, help='processes of each program, in turns')
  parser.add_argument('--json', help='also write the figures there')
  parser.add_argument('--run', choices=('ours', 'hugging_face'), help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.run:
    run = run_ours if args.run == 'ours' else run_hugging_face
    print(json.dumps(run(args)))
    return
  from flan_jax.models.config import train_step_flops

  flops = train_step_flops(t5_small.our_config(), ROWS, INPUTS, TARGETS)
  seconds = {'ours': [], 'hugging_face': []}
  first = {}
  peaks = []
  for _ in range(args.repeats):
    peaks.append(gemm_peak())
    for program, measured in seconds.items():
      all_seconds = t5_small.in_own_process(program)
      first.setdefault(program, all_seconds[0])
      measured += all_seconds[1:]
  peak = statistics.median(peaks)
  figures = {
    'work': f'T5 1.1 small, {ROWS} rows of {INPUTS}/{TARGETS}, Adafactor, float32',
    'cores': os.cpu_count(),
    'gflop_per_step': round(flops / 1e9, 1),
    'gemm_peak_gflops': round(peak / 1e9, 1),
  }
  for program, measured in seconds.items():
    median = statistics.median(measured)
    figures[program] = {
      'median_seconds': round(median, 3),
      'spread_seconds': [round(min(measured), 3), round(max(measured), 3)],
      'first_step_seconds': round(first[program], 1),
      'share_of_gemm_peak': round(flops / median / peak, 3),
      'tokens_per_second': round(ROWS * (INPUTS + TARGETS) / median),
    }
  ratio = figures['ours']['median_seconds'] / figures['hugging_face']['median_seconds']
  figures['ours_over_hugging_face'] = round(ratio, 3)
  print(json.dumps(figures, indent=1))
  if args.json:
    with open(args.json, 'w', encoding='utf-8') as f:
      json.dump(figures, f, indent=1)


if __name__ == '__main__':
  main()
