"""A tiny real run for tests: a token cache of generated tasks, a small T5, a configuration."""

import dataclasses

import jax
import numpy as np

from flan_jax import checkpoints, optimizers, partitioning, train, train_state
from flan_jax.data import cache, mixture_rates, vocabularies
from flan_jax.data.cache_layout import initialize_cache
from flan_jax.data.cache_writer import TaskCacheWriter
from flan_jax.models.config import TransformerConfig
from flan_jax.models.transformer import abstract_model

MODEL = TransformerConfig(
  vocab_size=259,
  embed_dim=16,
  num_encoder_layers=2,
  num_decoder_layers=2,
  num_heads=2,
  head_dim=8,
  mlp_dim=32,
)
TASKS = {
  'copy': lambda words: ('say: ' + ' '.join(words), ' '.join(words)),
  'last': lambda words: ('last of: ' + ' '.join(words), words[-1]),
  'count_cot': lambda words: ('count: ' + ' '.join(words), f'{" ".join(words)}: {len(words)}'),
}


def make_cache(cache_dir, *, examples=60, tasks=tuple(TASKS), splits=('train', 'validation')):
  """A byte-vocabulary cache of a few generated tasks and the mixture 'tiny' of all of them."""
  vocabulary = vocabularies.get_vocabulary('bytes')
  initialize_cache(cache_dir, vocabulary)
  rng = np.random.default_rng(0)
  for task in tasks:
    for split in splits:
      with TaskCacheWriter(cache_dir, task, split, key={'task': task}) as writer:
        for index in range(examples):
          words = [''.join(rng.choice(list('abcd'), 2)) for _ in range(rng.integers(1, 5))]
          inputs, targets = TASKS[task](words)
          writer.add(
            [*vocabulary.encode(inputs), vocabulary.eos_id],
            [*vocabulary.encode(targets), vocabulary.eos_id],
            {'id': f'{split}{index}', 'template': 't0', 'answer': targets},
          )
        writer.finish(
          {
            'cluster': 'words',
            'collection': 'cot' if task.endswith('_cot') else 'direct',
            'cot': task.endswith('_cot'),
            'metrics': ['exact_match'],
            'postprocessor': 'identity',
          }
        )
  members = {task: 1.0 for task in tasks}
  mixture_rates.save_mixture(cache_dir, mixture_rates.Mixture.of('tiny', members))
  assert set(cache.list_tasks(cache_dir)) >= set(tasks)
  return cache_dir


def make_config(cache_dir, **changes) -> train.TrainConfig:
  """A run of a few steps; `changes` go to TrainConfig, `data` and `model` may be partial dicts."""
  data = train.DataConfig(
    cache_dir=str(cache_dir),
    mixture='tiny',
    lengths={'inputs': 64, 'targets': 32},
    batch_rows=8,
    **changes.pop('data', {}),
  )
  settings = {
    'model': dataclasses.replace(MODEL, **changes.pop('model', {})),
    'data': data,
    'optimizer': optimizers.adafactor(1e-2),
    'steps': 6,
    'seed': 0,
    'mesh': partitioning.MeshConfig(data=2, fsdp=2, tensor=2),
    'checkpoint': checkpoints.CheckpointConfig(save_every_steps=3),
    'log_every_steps': 2,
  }
  return train.TrainConfig(**(settings | changes))


def random_model(config: TransformerConfig, deviation=0.4):
  """The same parameters on every mesh, without compiling anything."""
  rng = np.random.default_rng(3)

  def fill(leaf):
    value = deviation * rng.normal(size=leaf.shape)
    return jax.device_put(value.astype(np.float32), leaf.sharding)

  return jax.tree.map(fill, abstract_model(config))


def random_state(config: train.TrainConfig, deviation=0.1) -> train_state.TrainState:
  """The state of a run before its first step, whose optimizer begins with zeros."""

  def fill(leaf):
    return jax.device_put(np.zeros(leaf.shape, leaf.dtype), leaf.sharding)

  state = jax.tree.map(fill, train_state.abstract_state(config))
  return dataclasses.replace(state, model=random_model(config.model, deviation))
