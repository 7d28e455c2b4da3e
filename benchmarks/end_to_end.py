r"""Useful tokens per second of training on a real cache, beside the Hugging Face Trainer.

  flan-jax prepare --mixture cot --vocabulary t5.model --cot_dir DATA --cache_dir CACHE \
      --skip_missing
  python benchmarks/end_to_end.py --cache_dir CACHE --mixture cot

Both train one model from scratch with Adafactor on the same token lists, from loading the data to
the update: ours in packed rows through the loader, the Trainer in batches of examples padded to the
longest, drawn at random, which is its default, and once more grouped by length. Tokens are counted
without padding, EOS included; the first steps, which compile and warm up, are left out.
Each runs in a process of its own, in turns.
"""

import argparse
import functools
import json
import statistics
import tempfile
import time

import measure
import numpy as np
import peers

WARM_UP_STEPS = 2


def run_ours(args) -> list[tuple[float, float]]:
  """(seconds, useful tokens) of each step."""
  import jax

  from flan_jax import host_memory, optimizers, partitioning, train, train_state

  host_memory.keep_freed()
  config = train.TrainConfig(
    model=peers.our_config(args.model, dtype=args.dtype, remat=args.remat),
    data=train.DataConfig(
      args.cache_dir,
      args.mixture,
      {'inputs': args.inputs_length, 'targets': args.targets_length},
      args.rows,
    ),
    optimizer=optimizers.adafactor(1e-3),
    steps=1,
    seed=0,
  )
  timed = []
  with partitioning.use_mesh(partitioning.MeshConfig()) as mesh:
    loader = train.make_loader(config)
    state = jax.jit(lambda key: train_state.initialize(config, key))(jax.random.key(0))
    sharding = partitioning.batch_sharding(mesh)
    step = jax.jit(
      lambda state, batch: train.train_step(
        state, batch, config=config, collections=len(loader.collections)
      ),
      donate_argnums=0,
    )
    batches = loader.prefetch(0)
    for _ in range(args.steps + WARM_UP_STEPS):
      start = time.perf_counter()
      state, metrics = step(state, jax.device_put(next(batches), sharding))
      tokens = float(metrics['input_tokens'] + metrics['target_tokens'])
      timed.append((time.perf_counter() - start, tokens))
    batches.close()
  return timed[WARM_UP_STEPS:]


def run_hugging_face(args, *, sampling: str = 'random') -> list[tuple[float, float]]:
  """(seconds, useful tokens) of each step of the Trainer; `sampling` of its examples."""
  import torch
  from transformers import Trainer, TrainerCallback, TrainingArguments

  from flan_jax.data import cache
  from flan_jax.data.mixture import resolve

  device = peers.torch_device()
  examples = []
  for task in resolve(args.mixture, args.cache_dir).tasks:
    data = cache.TaskCache.open(args.cache_dir, task, 'train')
    for index in range(data.num_examples):
      inputs, targets = (side.tolist() for side in data.example(index))
      inputs, targets = inputs[: args.inputs_length], targets[: args.targets_length]
      examples.append({'input_ids': inputs, 'labels': targets, 'length': len(inputs)})
  useful = []

  def collate(batch):
    """Pads to the longest of the batch."""

    def pad(name, value):
      longest = max(len(e[name]) for e in batch)
      return torch.tensor([e[name] + [value] * (longest - len(e[name])) for e in batch])

    useful.append(sum(len(e['input_ids']) + len(e['labels']) for e in batch))
    ids = pad('input_ids', 0)
    return {'input_ids': ids, 'attention_mask': (ids != 0).long(), 'labels': pad('labels', -100)}

  times = []

  class Clock(TrainerCallback):
    def on_step_end(self, *args, **kwargs):
      times.append(time.perf_counter())

  model = peers.hugging_face_model(args.model)
  with tempfile.TemporaryDirectory() as folder:
    Trainer(
      model=model,
      args=TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=args.examples,
        max_steps=args.steps + WARM_UP_STEPS,
        learning_rate=1e-3,
        optim='adafactor',
        train_sampling_strategy=sampling,
        length_column_name='length',
        use_cpu=device.type == 'cpu',
        bf16=args.dtype == 'bfloat16',
        report_to=[],
        save_strategy='no',
        disable_tqdm=True,
        logging_strategy='no',
        remove_unused_columns=False,
        dataloader_num_workers=0,
        seed=0,
      ),
      train_dataset=examples,
      data_collator=collate,
      callbacks=[Clock()],
    ).train()
  seconds = np.diff(times)[WARM_UP_STEPS - 1 :]
  return list(
    zip(seconds.tolist(), useful[WARM_UP_STEPS : WARM_UP_STEPS + len(seconds)], strict=True)
  )


PROGRAMS = {
  'flan_jax': run_ours,
  'hugging_face': run_hugging_face,
  'hugging_face_by_length': functools.partial(run_hugging_face, sampling='group_by_length'),
}


def main() -> None:
  parser = measure.parser(__doc__)
  parser.add_argument('--cache_dir', required=True)
  parser.add_argument('--mixture', default='cot')
  peers.add_flags(parser, peers.MODELS, 't5_1_1_small')
  parser.add_argument('--remat', choices=('none', 'minimal', 'full'), default='none')
  parser.add_argument('--inputs_length', type=int, default=256)
  parser.add_argument('--targets_length', type=int, default=192)
  parser.add_argument('--rows', type=int, default=8, help='packed rows of our batch')
  parser.add_argument('--examples', type=int, default=32, help="examples of the Trainer's batch")
  parser.add_argument('--steps', type=int, default=12, help='measured steps a process')
  parser.add_argument('--run', choices=PROGRAMS, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.quick:
    args.model, args.steps, args.repeats = 'tiny', 2, 1
  if args.run:
    timed = PROGRAMS[args.run](args)
    print(json.dumps({'steps': timed, 'peak_mb': measure.peak_mb()}))
    return
  trainers = [name for name in PROGRAMS if name != 'flan_jax'] if peers.installed() else []
  runs = measure.in_turns(['flan_jax'], trainers, args.repeats)
  figures = {
    'work': f'{args.model}, {args.mixture}: rows of {args.inputs_length}/{args.targets_length}, '
    f'packed, {args.rows} a step, beside {args.examples} examples',
    'dtype': args.dtype,
    'positions': args.rows * (args.inputs_length + args.targets_length),
    'programs': {program: figures_of(found) for program, found in runs.items()},
  }
  measure.finish('end_to_end', measure.with_ratios(figures, 'real_tokens_per_second'), args)


def figures_of(runs: list[dict]) -> dict:
  """One program's figures over all its processes."""
  steps = [step for run in runs for step in run['steps']]
  rates = [sum(n for _, n in run['steps']) / sum(s for s, _ in run['steps']) for run in runs]
  return {
    'seconds': measure.spread([seconds for seconds, _ in steps]),
    'real_tokens': round(statistics.mean(tokens for _, tokens in steps)),
    'real_tokens_per_second': round(statistics.median(rates)),
    'of_each_process': [round(rate) for rate in rates],
    'peak_mb': max(run['peak_mb'] for run in runs),
  }


if __name__ == '__main__':
  main()
