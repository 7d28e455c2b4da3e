"""Evaluates a model on held-out rows of the token cache, in the training loop or alone.

For every task of the named mixtures: the teacher-forced loss, and answers generated and compared.
Which rows, how they are batched and on which mesh does not change the results.
"""

import contextlib
import dataclasses
import os
import time
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flan_jax import chunked_loss, decoding, metrics
from flan_jax.data import cache, layouts, mixture
from flan_jax.data.vocabularies import Vocabulary
from flan_jax.evaluation import batching, scoring
from flan_jax.evaluation.results import EvaluationResult


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
  """What to evaluate and how.

  Attributes:
    mixtures: Names of mixtures or tasks in the cache; each gets an average over its tasks.
    lengths: {'inputs': tokens, 'targets': tokens}; longer examples are cut and counted.
    batch_rows: Rows of a batch.
    decode: How answers are generated.
    split: Split of every task.
    include_cot: Whether tasks with rationales take part.
    skip_missing: Leave out tasks without the split, by name in the result, instead of failing.
    max_examples_per_task: Evaluate a fixed random choice of this many; None means all.
    samples_per_task: Examples shown in the result.
    buckets: Lengths of inputs to compile for; see batching.bucket_lengths.
    bootstrap: How intervals are made.
    seed: Of the choice of examples and of sampled answers.
  """

  mixtures: tuple[str, ...]
  lengths: Mapping[str, int]
  batch_rows: int
  decode: decoding.DecodeConfig
  split: str = 'validation'
  include_cot: bool = True
  skip_missing: bool = False
  max_examples_per_task: int | None = None
  samples_per_task: int = 3
  buckets: int = 3
  bootstrap: scoring.Bootstrap = scoring.Bootstrap()
  seed: int = 0

  def __post_init__(self):
    if isinstance(self.mixtures, str) or not self.mixtures:
      raise ValueError(
        f'mixtures={self.mixtures!r} names nothing to evaluate; give a list of names.'
      )
    if set(self.lengths) != {'inputs', 'targets'} or min(self.lengths.values()) < 1:
      raise ValueError(
        f"lengths={dict(self.lengths)} must be {{'inputs': tokens, 'targets': tokens}}, "
        'each at least 1.'
      )
    if self.max_examples_per_task is not None and self.max_examples_per_task < 1:
      raise ValueError(
        f'max_examples_per_task={self.max_examples_per_task} must be at least 1, or None for all.'
      )


@dataclasses.dataclass(frozen=True)
class _Example:
  """One chosen example, cut to the lengths."""

  task: str
  index: int
  inputs: np.ndarray
  targets: np.ndarray


def evaluate(
  model: Any,
  config: EvaluationConfig,
  cache_dir: str | os.PathLike,
  vocabulary: Vocabulary,
  *,
  step: int = 0,
  progress: bool = True,
  between: Callable[[], None] = lambda: None,
) -> EvaluationResult:
  """Evaluate `model` on the current mesh.

  Args:
    model: A Transformer.
    config: What and how.
    cache_dir: The token cache.
    vocabulary: Of model and cache.
    step: Updates the model has seen, for the result.
    progress: Show a bar on a terminal; a training loop has its own.
    between: Called after every batch; what it raises ends the evaluation.

  Raises:
    ValueError: unknown mixture, missing tasks, another vocabulary, rows that the mesh cannot split.
  """
  start = time.perf_counter()
  batching.check_batch_rows(config.batch_rows)
  _check_vocabulary(cache_dir, vocabulary)
  resolved = {name: _resolve(name, config, cache_dir) for name in config.mixtures}
  caches = {
    task: cache.TaskCache.open(cache_dir, task, config.split)
    for task in sorted({task for r in resolved.values() for task in r.tasks})
  }
  truncated = {task: {'inputs': 0, 'targets': 0} for task in caches}
  examples = [
    example
    for task, data in caches.items()
    for example in _choose(data, config, vocabulary, truncated[task])
  ]
  outputs = _run(model, config, examples, vocabulary, progress, between)
  rows: dict[str, list[scoring.Row]] = {task: [] for task in caches}
  for example, (tokens, sums) in zip(examples, outputs, strict=True):
    rows[example.task].append(
      scoring.Row(
        inputs=vocabulary.decode_prompt(example.inputs),
        target=vocabulary.decode(example.targets),
        generated=vocabulary.decode(tokens),
        metadata=caches[example.task].metadata(example.index),
        loss=float(sums[0]),
        correct=float(sums[1]),
        tokens=float(sums[2]),
      )
    )
  scored = {
    task: scoring.score_task(
      data.manifest,
      rows[task],
      available=data.num_examples,
      bootstrap=config.bootstrap,
      num_samples=config.samples_per_task,
      truncated=truncated[task],
    )
    for task, data in caches.items()
  }
  return _result(config, resolved, scored, step, time.perf_counter() - start)


def _result(config, resolved, scored, step, seconds) -> EvaluationResult:
  clusters: dict[str, list[scoring.ScoredTask]] = {}
  for task in scored.values():
    clusters.setdefault(task.result.cluster, []).append(task)
  return EvaluationResult(
    step=step,
    split=config.split,
    seconds=seconds,
    mixtures={
      name: scoring.score_group(name, [scored[task] for task in r.tasks], config.bootstrap)
      for name, r in resolved.items()
    },
    clusters={
      name: scoring.score_group(name, members, config.bootstrap)
      for name, members in sorted(clusters.items())
    },
    tasks={name: task.result for name, task in scored.items()},
    missing=tuple(sorted({task for r in resolved.values() for task in r.skipped})),
    settings={
      'lengths': dict(config.lengths),
      'decode': dataclasses.asdict(config.decode),
      'include_cot': config.include_cot,
      'max_examples_per_task': config.max_examples_per_task,
      'bootstrap': dataclasses.asdict(config.bootstrap),
    },
  )


def _resolve(name, config, cache_dir) -> mixture.ResolvedMixture:
  """The tasks of a mixture, whatever their rates: evaluation counts each the same."""
  return mixture.resolve(
    name,
    cache_dir,
    split=config.split,
    include_cot=config.include_cot,
    rule='uniform',
    skip_missing=config.skip_missing,
  )


def _check_vocabulary(cache_dir, vocabulary) -> None:
  info = cache.read_cache_info(cache_dir)
  if info.fingerprint != vocabulary.fingerprint:
    raise ValueError(
      f"The cache '{cache_dir}' was tokenised with the {info.kind} vocabulary {info.fingerprint}, "
      f"the model's is the {vocabulary.kind} vocabulary {vocabulary.fingerprint}; prepare a cache "
      "with the model's vocabulary."
    )


def _choose(data, config, vocabulary, truncated) -> list[_Example]:
  """The examples of a task to evaluate, in the order of the data; counts those that are cut."""
  indices = np.arange(data.num_examples)
  if config.max_examples_per_task is not None and len(indices) > config.max_examples_per_task:
    rng = np.random.default_rng((config.seed, zlib.crc32(data.task.encode())))
    indices = np.sort(rng.permutation(indices)[: config.max_examples_per_task])
  examples = []
  for index in indices.tolist():
    inputs, targets = data.example(index)
    truncated['inputs'] += len(inputs) > config.lengths['inputs']
    truncated['targets'] += len(targets) > config.lengths['targets']
    inputs = vocabulary.cut_prompt(inputs, config.lengths['inputs'])
    targets = batching.cut(targets, config.lengths['targets'], vocabulary.eos_id)
    examples.append(_Example(data.task, index, inputs, targets))
  return examples


def _run(
  model, config, examples, vocabulary, progress, between
) -> list[tuple[np.ndarray, np.ndarray]]:
  """For each example: generated tokens [length], and [loss, correct tokens, tokens]."""
  buckets = batching.bucket_lengths(config.lengths['inputs'], config.buckets)
  batches = list(
    batching.plan([len(e.inputs) for e in examples], batch_rows=config.batch_rows, buckets=buckets)
  )
  key = jax.random.key(config.seed)
  decode = dataclasses.replace(config.decode, eos_id=vocabulary.eos_ids)
  outputs: list = [None] * len(examples)
  bar = metrics.Progress('evaluating', len(batches)) if progress else None
  with bar or contextlib.nullcontext():
    for number, (input_length, indices) in enumerate(batches):
      batch = batching.place(
        batching.make_batch(
          [examples[i].inputs for i in indices],
          [examples[i].targets for i in indices],
          batch_rows=config.batch_rows,
          layout=layouts.make_layout(
            (input_length, config.lengths['targets']),
            vocabulary,
            decoder_only=model.config.decoder_only,
          ),
        )
      )
      sums = _score_rows(model, batch)
      decoded = decoding.generate(model, batch, decode, key=key)
      tokens, sums = batching.fetch(decoded.tokens, sums)
      for row, index in enumerate(indices):
        outputs[index] = (tokens[row, 0], sums[row])
      if bar:
        bar.advance(number + 1)
      between()
  return outputs


@jax.jit
def _score_rows(model, batch) -> jax.Array:
  """[batch, 3] float32: loss in nats, correctly predicted tokens and tokens of each row."""
  targets, weights = batch['decoder_target_tokens'], batch['decoder_loss_weights']
  sums = chunked_loss.cross_entropy(model.head(), model.hidden(batch), targets, weights)
  each = (sums.token_loss, sums.token_correct, weights)
  return jnp.stack([jnp.sum(x, axis=1) for x in each], axis=1)
