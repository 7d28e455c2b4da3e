"""Measures the loader on FLAN-like lengths, and SeqIO reading the same examples from its own cache.

Builds a token cache of --tasks tasks (input median 250 tokens, 90th percentile 1,200, limit 2,048;
targets 12, 120 and 512; up to 7,869 examples a task, rates capped at 30,000), then measures each
reader in a fresh process: process start to the first batch on a device, rows per second, peak
memory, threads, filling and rates. Prints JSON. SeqIO at 1,836 tasks takes minutes and 16 GB, so it
reads --seqio_tasks of them unless told otherwise.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from statistics import NormalDist
from typing import Any

import measure
import numpy as np

from flan_jax.data import cache, vocabularies
from flan_jax.data.mixture import ExamplesProportional, Mixture, list_mixtures, save_mixture

INPUT_QUANTILES = ((0.0, 20), (0.5, 250), (0.9, 1200), (1.0, 2048))
TARGET_QUANTILES = ((0.0, 2), (0.5, 12), (0.9, 120), (1.0, 512))
MAX_EXAMPLES, RATE_CAP = 7869, 30_000
TASK_SHARE = 0.5  # of the variance of log lengths that is between tasks


def main() -> None:
  arguments = parse_arguments()
  if arguments.measure:
    run = measure_seqio if arguments.measure == 'seqio' else measure_flan_jax
    print(json.dumps(run(arguments)))
    return
  if arguments.quick:
    arguments.tasks, arguments.rows, arguments.seqio = 5, 200, False
  with tempfile.TemporaryDirectory() as temporary:
    arguments.cache_dir = pathlib.Path(arguments.cache_dir or temporary)
    build_cache(arguments.cache_dir, arguments.tasks)
    bring_to_memory(arguments.cache_dir / 'tasks')
    programs = {'flan_jax': measure_in_new_process(arguments, 'flan_jax')}
    lengths = f'{arguments.input_length}/{arguments.target_length}'
    work = f'{arguments.tasks:,} tasks, rows of {lengths}, batches of {arguments.batch_rows}'
    if arguments.seqio:
      arguments.tasks = min(arguments.tasks, arguments.seqio_tasks)
      build_cache(arguments.cache_dir, arguments.tasks)
      build_seqio_cache(arguments.cache_dir, arguments.tasks)
      bring_to_memory(arguments.cache_dir / 'seqio')
      arguments.rows = arguments.seqio_rows
      programs['seqio'] = measure_in_new_process(arguments, 'seqio')
      work += f'; SeqIO {arguments.tasks:,} tasks'
  figures = {'work': work, 'programs': programs}
  measure.finish('data_pipeline', measure.with_ratios(figures, 'rows_per_second'), arguments)


def parse_arguments() -> argparse.Namespace:
  parser = measure.parser(__doc__, repeats=1)
  parser.add_argument('--tasks', type=int, default=1836, help='tasks in the mixture')
  parser.add_argument('--rows', type=int, default=30_000, help='rows to read from the loader')
  parser.add_argument('--batch_rows', type=int, default=64, help='rows of a step')
  parser.add_argument('--input_length', type=int, default=2048, help='input tokens of a row')
  parser.add_argument('--target_length', type=int, default=512, help='target tokens of a row')
  parser.add_argument('--cache_dir', help='keeps the caches there, to be used again')
  parser.add_argument('--seqio', action='store_true', help='measure SeqIO as well')
  parser.add_argument('--seqio_tasks', type=int, default=10, help='tasks that SeqIO mixes')
  parser.add_argument('--seqio_rows', type=int, default=8_000, help='rows to read from SeqIO')
  parser.add_argument('--measure', choices=('flan_jax', 'seqio'), help=argparse.SUPPRESS)
  parser.add_argument('--started', type=float, help=argparse.SUPPRESS)
  return parser.parse_args()


def measure_in_new_process(arguments: argparse.Namespace, reader: str) -> dict[str, Any]:
  """Runs this file --repeats times with --measure, so that start-up and memory are the reader's.

  Returns the figures of the process whose rate is the median, and the rates of all.
  """
  options = ('tasks', 'rows', 'batch_rows', 'input_length', 'target_length', 'cache_dir')
  command = [sys.executable, __file__, '--measure', reader]
  command += [f'--{name}={getattr(arguments, name)}' for name in options]
  runs = []
  for _ in range(arguments.repeats):
    started = f'--started={time.time()}'
    done = subprocess.run([*command, started], stdout=subprocess.PIPE, text=True, check=True)
    runs.append(json.loads(done.stdout.splitlines()[-1]))
  runs.sort(key=lambda run: run['rows_per_second'])
  rates = [round(run['rows_per_second']) for run in runs]
  return {**runs[len(runs) // 2], 'rows_per_second_of_each': rates}


def mixture_name(num_tasks: int) -> str:
  return f'flan_like_{num_tasks}'


def build_cache(cache_dir: pathlib.Path, num_tasks: int) -> None:
  """Writes tasks of random bytes; their sizes and lengths are what is measured."""
  cache.initialize_cache(cache_dir, vocabularies.get_vocabulary('bytes'))
  if mixture_name(num_tasks) in list_mixtures(cache_dir):
    return
  pool = np.random.default_rng(0).integers(3, 259, 1 << 20).astype(np.uint16)
  there = cache.list_tasks(cache_dir, 'train')
  for task in range(num_tasks):
    name = f'task_{task:04d}'
    if name in there:
      continue
    rng = np.random.default_rng([1, task])
    size = int(np.exp(rng.uniform(np.log(100), np.log(MAX_EXAMPLES))))
    lengths = np.column_stack([_lengths(rng, size, q) for q in (INPUT_QUANTILES, TARGET_QUANTILES)])
    starts = rng.integers(0, len(pool) - 4096, size)
    with cache.TaskCacheWriter(cache_dir, name, 'train', key={'benchmark': 1}) as writer:
      for (inputs, targets), start in zip(lengths.tolist(), starts.tolist(), strict=True):
        tokens = pool[start : start + inputs + targets].copy()
        tokens[[inputs - 1, -1]] = 1
        writer.add(tokens[:inputs], tokens[inputs:], {})
      writer.finish({'cot': False, 'collection': f'collection_{task % 5}'})
  members = {f'task_{i:04d}': ExamplesProportional(maximum=RATE_CAP) for i in range(num_tasks)}
  save_mixture(cache_dir, Mixture.of(mixture_name(num_tasks), members))


def bring_to_memory(folder: pathlib.Path) -> None:
  """Reads every file once: the readers are measured, not the disk that happens to be below."""
  for path in folder.rglob('*'):
    if path.is_file():
      with path.open('rb') as f:
        while f.read(1 << 24):
          pass


def _lengths(rng: np.random.Generator, size: int, quantiles: tuple) -> np.ndarray:
  """Lengths whose logarithm is linear between quantiles; part of their spread is the task's."""
  own = rng.normal() * TASK_SHARE**0.5
  normal = own + rng.normal(size=size) * (1 - TASK_SHARE) ** 0.5
  share = np.vectorize(NormalDist().cdf)(normal)
  levels, values = zip(*quantiles, strict=True)
  return np.exp(np.interp(share, levels, np.log(values))).astype(np.int64)


def measure_flan_jax(arguments: argparse.Namespace) -> dict[str, Any]:
  import jax

  from flan_jax.data.loader import Loader

  loader = Loader(
    arguments.cache_dir,
    mixture_name(arguments.tasks),
    lengths={'inputs': arguments.input_length, 'targets': arguments.target_length},
    batch_rows=arguments.batch_rows,
    seed=0,
  )
  jax.block_until_ready(jax.device_put(loader.batch(0)))
  first = time.time() - arguments.started
  steps = max(arguments.rows // arguments.batch_rows, loader.steps_per_window) // 8 * 8 + 8
  began, processor = time.perf_counter(), time.process_time()
  real = np.zeros(2)
  for step in range(1, steps + 1):
    real += _count_tokens(loader.batch(step), step)
  seconds = time.perf_counter() - began
  processor = time.process_time() - processor
  memory = _memory()
  began = time.perf_counter()
  loader.batch(1_000_000)
  seek = time.perf_counter() - began
  windows = -(-steps // loader.steps_per_window)
  statistics = loader.statistics(windows)
  return {
    'tasks': arguments.tasks,
    'seconds_to_first_batch': first,
    'rows_per_second': steps * arguments.batch_rows / seconds,
    'rows_per_processor_second': steps * arguments.batch_rows / processor,
    'input_tokens_per_second': real[0] / seconds,
    **memory,
    **_filling(real, steps * arguments.batch_rows, arguments),
    'seek_to_step_1000000_seconds': seek,
    'window_rows': loader.window_size.rows,
    'windows': windows,
    'largest_rate_error_in_a_window_examples': statistics.largest_rate_error,
    'examples_per_window': (statistics.main + statistics.filler) / windows,
    'filler_share': statistics.filler / (statistics.main + statistics.filler),
    'overflow': statistics.overflow,
    'lost_targets': statistics.lost_targets,
  }


def build_seqio_cache(cache_dir: pathlib.Path, num_tasks: int) -> None:
  """Writes the same examples as SeqIO's cached TFRecords."""
  for task in range(num_tasks):
    name = f'task_{task:04d}'
    folder = cache_dir / 'seqio' / name
    if (folder / 'COMPLETED').exists():
      continue
    import tensorflow as tf

    folder.mkdir(parents=True, exist_ok=True)
    opened = cache.TaskCache.open(cache_dir, name, 'train')
    with tf.io.TFRecordWriter(str(folder / 'train.tfrecord-00000-of-00001')) as writer:
      for index in range(opened.num_examples):
        sides = zip(('inputs', 'targets'), opened.example(index), strict=True)
        features = {
          side: tf.train.Feature(int64_list=tf.train.Int64List(value=ids.tolist()))
          for side, ids in sides
        }
        example = tf.train.Example(features=tf.train.Features(feature=features))
        writer.write(example.SerializeToString())
    feature = {'dtype': 'int32', 'shape': [None]}
    info = {'num_shards': 1, 'features': {'inputs': feature, 'targets': feature}}
    (folder / 'info.train.json').write_text(json.dumps(info))
    (folder / 'stats.train.json').write_text(json.dumps({'examples': opened.num_examples}))
    (folder / 'COMPLETED').touch()


def measure_seqio(arguments: argparse.Namespace) -> dict[str, Any]:
  batches = _seqio_batches(arguments)
  next(batches)
  first = time.time() - arguments.started
  steps = max(arguments.rows // arguments.batch_rows // 8, 1) * 8
  for _ in range(steps // 4):  # its buffers fill while the first rows come slowly
    next(batches)
  began = time.perf_counter()
  real = np.zeros(2)
  for step in range(1, steps + 1):
    real += _count_tokens(next(batches), step)
  seconds = time.perf_counter() - began
  return {
    'tasks': arguments.tasks,
    'seconds_to_first_batch': first,
    'rows_per_second': steps * arguments.batch_rows / seconds,
    'input_tokens_per_second': real[0] / seconds,
    **_memory(),
    **_filling(real, steps * arguments.batch_rows, arguments),
  }


def _seqio_batches(arguments: argparse.Namespace) -> Iterator[dict[str, np.ndarray]]:
  """Packed batches of SeqIO's mixture of its cached tasks."""
  import functools

  import seqio
  import tensorflow as tf

  seqio.add_global_cache_dirs([f'{arguments.cache_dir}/seqio'])
  vocabulary = seqio.PassThroughVocabulary(259)
  names = [f'task_{i:04d}' for i in range(arguments.tasks)]
  for name in names:
    seqio.TaskRegistry.add(
      name,
      # Never called: the cache stands in for it.
      source=seqio.FunctionDataSource(  # pyright: ignore[reportArgumentType]
        lambda split, shuffle_files, seed=None: tf.data.Dataset.range(0), ['train']
      ),
      preprocessors=[seqio.CacheDatasetPlaceholder()],
      output_features={
        side: seqio.Feature(vocabulary, add_eos=False, dtype=tf.int32)
        for side in ('inputs', 'targets')
      },
    )
  rate = functools.partial(seqio.mixing_rate_num_examples, maximum=RATE_CAP)
  seqio.MixtureRegistry.add('flan_like', names, default_rate=rate)
  dataset = seqio.get_dataset(
    'flan_like',
    {'inputs': arguments.input_length, 'targets': arguments.target_length},
    feature_converter=seqio.EncDecFeatureConverter(pack=True),
    use_cached=True,
    shuffle=True,
    num_epochs=None,
    seed=0,
    batch_size=arguments.batch_rows,
  )
  return dataset.prefetch(tf.data.AUTOTUNE).as_numpy_iterator()


def _count_tokens(batch: dict[str, np.ndarray], step: int) -> np.ndarray:
  """Real tokens of both sides, from every eighth batch: counting all would be measured as well."""
  if step % 8:
    return np.zeros(2)
  names = ('encoder_segment_ids', 'decoder_segment_ids')
  return np.array([8 * np.count_nonzero(batch[name]) for name in names])


def _filling(real: np.ndarray, rows: int, arguments: argparse.Namespace) -> dict[str, float]:
  inputs, targets = real / rows / [arguments.input_length, arguments.target_length]
  return {'inputs_filled': float(inputs), 'targets_filled': float(targets)}


def _memory() -> dict[str, float]:
  """Peak memory with and without pages of files, and threads, of this process (Linux)."""
  lines = pathlib.Path('/proc/self/status').read_text().splitlines()
  status = dict(line.split(':', 1) for line in lines)
  kilobytes = {name: int(status[name].split()[0]) for name in ('VmHWM', 'RssAnon', 'RssFile')}
  return {
    'peak_mb': kilobytes['VmHWM'] / 1024,
    'anonymous_memory_mb': kilobytes['RssAnon'] / 1024,
    'file_pages_mb': kilobytes['RssFile'] / 1024,
    'threads': int(status['Threads']),
  }


if __name__ == '__main__':
  main()
