r"""Useful tokens per second of training on a real cache, beside the Hugging Face Trainer.

  flan-jax prepare --mixture cot --vocabulary t5.model --cot_dir DATA --cache_dir CACHE \
      --skip_missing
  python benchmarks/end_to_end.py --cache_dir CACHE --mixture cot

Both train T5 1.1 small from scratch in float32 with Adafactor on the same token lists, from loading
the data to the update: ours in packed rows through the loader, the Trainer in batches of examples
grouped by length and padded to the longest. Tokens are counted without padding, EOS included; the
first steps, which compile and warm up, are left out. Each runs in a process of its own, in turns.
"""

import argparse
import json
import os
import statistics
import tempfile
import time

import numpy as np
import t5_small

WARM_UP_STEPS = 2


def run_ours(args) -> list[tuple[float, float]]:
  """(seconds, useful tokens) of each step."""
  import jax

  from flan_jax import optimizers, partitioning, train, train_state

  config = train.TrainConfig(
    model=t5_small.our_config(),
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


def run_hugging_face(args) -> list[tuple[float, float]]:
  """(seconds, useful tokens) of each step of the Trainer."""
  import torch
  from transformers import Trainer, TrainerCallback, TrainingArguments

  from flan_jax.data import cache
  from flan_jax.data.mixture import resolve

  torch.set_num_threads(os.cpu_count() or 1)
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

  model = t5_small.hugging_face_model()
  with tempfile.TemporaryDirectory() as folder:
    Trainer(
      model=model,
      args=TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=args.examples,
        max_steps=args.steps + WARM_UP_STEPS,
        learning_rate=1e-3,
        optim='adafactor',
        train_sampling_strategy='group_by_length',
        length_column_name='length',
        use_cpu=True,
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


def main() -> None:
  parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
  parser.add_argument('--cache_dir', required=True)
  parser.add_argument('--mixture', default='cot')
  parser.add_argument('--inputs_length', type=int, default=256)
  parser.add_argument('--targets_length', type=int, default=192)
  parser.add_argument('--rows', type=int, default=8, help='packed rows of our batch')
  parser.add_argument('--examples', type=int, default=32, help="examples of the Trainer's batch")
  parser.add_argument('--steps', type=int, default=12, help='measured steps a process')
  parser.add_argument('--repeats', type=int, default=2, help='processes of each, in turns')
  parser.add_argument('--json', help='also write the figures there')
  parser.add_argument('--run', choices=('ours', 'hugging_face'), help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.run:
    print(json.dumps((run_ours if args.run == 'ours' else run_hugging_face)(args)))
    return
  rates = {'ours': [], 'hugging_face': []}
  for _ in range(args.repeats):
    for program, found in rates.items():
      timed = t5_small.in_own_process(program)
      found.append(sum(tokens for _, tokens in timed) / sum(seconds for seconds, _ in timed))
  medians = {program: statistics.median(found) for program, found in rates.items()}
  figures = {
    'work': f'T5 1.1 small, float32, Adafactor, {args.mixture}',
    'ours_rows': f'{args.rows} x {args.inputs_length}/{args.targets_length}',
    'hugging_face_examples': args.examples,
    'useful_tokens_per_second': {p: [round(r) for r in found] for p, found in rates.items()},
    'ours_over_hugging_face': round(medians['ours'] / medians['hugging_face'], 2),
  }
  print(json.dumps(figures, indent=1))
  if args.json:
    with open(args.json, 'w', encoding='utf-8') as f:
      json.dump(figures, f, indent=1)


if __name__ == '__main__':
  main()
