"""The trainer: one configuration in, checkpoints and metrics out.

`train_step` is the whole mathematics of an update and `train` reads in the order things happen.
Neither knows gin, SeqIO or TensorFlow: main.py fills TrainConfig, `prepare` has written the token
cache, and evaluation comes in as a function.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

from flan_jax import checkpoints, losses, multihost, optimizers, partitioning, preemption, run_log
from flan_jax import guard as guard_lib
from flan_jax import train_state as state_lib
from flan_jax.chunked_loss import CHUNK_TOKENS, cross_entropy
from flan_jax.compiling import compiler_options
from flan_jax.data import cache as cache_lib
from flan_jax.data import layouts
from flan_jax.data import loader as loader_lib
from flan_jax.data import mixture as mixture_lib
from flan_jax.goodput import Stopwatch
from flan_jax.kept_step import KeptSteps, compile_step
from flan_jax.models import transformer
from flan_jax.models.config import DTYPES, TransformerConfig, train_step_flops
from flan_jax.naming import unknown
from flan_jax.replicas import check_replicas, computed_twice
from flan_jax.train_state import TrainState, join, split, to_save

# Called with (model, step); writes its own files and returns numbers for the log. 'score', higher
# is better, decides which checkpoint is kept as the best.
Evaluate = Callable[[transformer.Transformer, int], Mapping[str, float]]


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """Which tokens a run trains on.

  Attributes:
    cache_dir: The token cache that `flan-jax prepare` wrote.
    mixture: Name of a mixture or task in it.
    lengths: {'inputs': tokens, 'targets': tokens} of a packed row.
    batch_rows: Rows of the global batch, each of the given lengths.
    pack: Put several examples into a row.
    include_cot: Whether chain-of-thought tasks take part.
    rates: Member name -> rate, in place of the mixture's own.
    rule: Mixing rule in place of the mixture's own, e.g. flan_jax.data.mixture.NumExamples.
    skip_missing: Train without the members whose cache is not there.
    licence: Regular expression; tasks whose licence does not match it take no part.
  """

  cache_dir: str
  mixture: str
  lengths: Mapping[str, int]
  batch_rows: int
  pack: bool = True
  include_cot: bool = True
  rates: Mapping[str, float] | None = None
  rule: Any = None
  skip_missing: bool = False
  licence: str | None = None


@dataclasses.dataclass(frozen=True)
class LossConfig:
  """Attributes: as in chunked_loss.cross_entropy and losses.normalizing_factor."""

  label_smoothing: float = 0.0
  z_loss: float = 0.0
  normalizing_factor: str | float | None = 'NUM_REAL_TARGET_TOKENS'
  chunk_tokens: int = CHUNK_TOKENS


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """Everything a run needs besides its workdir.

  Attributes:
    model: The network.
    data: What to train on.
    optimizer: From optimizers.adafactor(...) or optimizers.adamw(...).
    steps: Updates of the whole run.
    seed: Of initialisation, dropout and data order.
    microbatches: Parts a batch is split into, one after the other, to save memory.
    loss: Smoothing, z-loss, normaliser.
    mesh: Devices by axis.
    checkpoint: When to save and what to keep.
    guard: Which updates to skip.
    initial_checkpoint_path: Parameters to start from, with a fresh optimizer; a resumed run
      ignores it.
    trainable: Regular expression searched for in the paths of parameters; those without it are
      frozen. None is all, or the adapters alone where the model has them.
    frozen_dtype: What frozen parameters of INITIAL_CHECKPOINT_PATH are held in; bfloat16 takes
      half the memory.
    log_every_steps: Steps between log lines.
    evaluate_every_steps: Steps between evaluations, besides the one before the first step and the
      one after the last; 0 leaves only these two.
  """

  model: TransformerConfig
  data: DataConfig
  optimizer: optimizers.Optimizer
  steps: int
  seed: int
  microbatches: int = 1
  loss: LossConfig = LossConfig()
  mesh: partitioning.MeshConfig = partitioning.MeshConfig()
  checkpoint: checkpoints.CheckpointConfig = checkpoints.CheckpointConfig()
  guard: guard_lib.GuardConfig = guard_lib.GuardConfig()
  initial_checkpoint_path: str | None = None
  trainable: str | None = None
  frozen_dtype: str = 'float32'
  log_every_steps: int = 100
  evaluate_every_steps: int = 0

  def __post_init__(self):
    if self.steps < 1:
      raise ValueError(f'TRAIN_STEPS={self.steps} must be at least 1.')
    if self.frozen_dtype not in DTYPES:
      raise ValueError(f'FROZEN_DTYPE: {unknown("dtype", self.frozen_dtype, DTYPES)}')
    if self.data.batch_rows % self.microbatches:
      divisors = partitioning.divisors(self.data.batch_rows)
      raise ValueError(
        f'BATCH_SIZE={self.data.batch_rows} rows cannot be split into '
        f'MICROBATCHES={self.microbatches}; use one of {", ".join(map(str, divisors))}.'
      )


def train_step(
  state: TrainState, batch: Mapping[str, jax.Array], *, config: TrainConfig, collections: int
) -> tuple[TrainState, dict[str, jax.Array]]:
  """One optimizer update on one global batch. Pure; jit with donate_argnums=0.

  The loss is the sum of the weighted token losses over the normalising factor of the whole batch,
  so neither packing nor microbatching changes it.

  Args:
    state: What the step before returned.
    batch: Features, [batch, length] (see data/features.py).
    config: The run.
    collections: Number of collections in `decoder_collection_ids`.

  Returns:
    The next state, and float32 sums for the log ([collections] for the last two).
  """
  sums, grads = _gradients(state, batch, config, collections)
  grad_norm = optax.tree.norm(grads)
  mean_loss = sums['loss'] / jnp.maximum(sums['weight'], 1e-9)
  good, guard_state = guard_lib.judge(state.guard, mean_loss, grad_norm, config.guard)

  trained, frozen = split(state.model, config)

  def update():
    updates, opt_state = config.optimizer.update(grads, state.opt_state, trained)
    params: Any = trained
    return optax.apply_updates(params, updates), opt_state

  trained, opt_state = jax.lax.cond(good, update, lambda: (trained, state.opt_state))
  model = join(state.model, trained, frozen)
  next_state = TrainState(step=state.step + 1, model=model, opt_state=opt_state, guard=guard_state)
  return next_state, {
    **sums,
    'grad_norm': grad_norm,
    'skipped_updates': guard_state.skipped,
    'skipped_in_a_row': guard_state.skipped_in_a_row,
  }


def _gradients(state, batch, config, collections):
  """Sums for the log, and the gradient of the loss, over all microbatches."""
  divisor = losses.normalizing_factor(config.loss.normalizing_factor, batch)
  key = jax.random.fold_in(jax.random.key(config.seed), state.step)
  weights = losses.loss_weights(config.loss.normalizing_factor, batch)
  batch = {**batch, 'decoder_loss_weights': weights}

  trained, frozen = split(state.model, config)

  def loss_fn(trained, part, key):
    model = join(state.model, trained, frozen)
    hidden = model.hidden(part, dropout_key=key if config.model.dropout_rate else None)
    loss = cross_entropy(
      model.head(),
      hidden,
      part['decoder_target_tokens'],
      part['decoder_loss_weights'],
      label_smoothing=config.loss.label_smoothing,
      z_loss=config.loss.z_loss,
      chunk_tokens=config.loss.chunk_tokens,
    )
    by_collection = losses.per_collection_sums(
      loss.token_loss, part['decoder_loss_weights'], part['decoder_collection_ids'], collections
    )
    sums = {name: getattr(loss, name) for name in ('loss', 'z_loss', 'correct', 'weight')}
    sums |= {
      **losses.token_counts(part),
      'collection_loss': by_collection.loss,
      'collection_weight': by_collection.weight,
    }
    return loss.loss / divisor, sums

  grad_fn = jax.grad(loss_fn, has_aux=True)
  if config.microbatches == 1:
    grads, sums = grad_fn(trained, batch, key)
    return sums, grads

  def body(total, inputs):
    part, index = inputs
    grads, sums = grad_fn(trained, part, jax.random.fold_in(key, index))
    return jax.tree.map(jnp.add, total, (grads, sums)), None

  parts = jax.tree.map(lambda x: partitioning.split_rows(x, config.microbatches), batch)
  first, rest = jax.tree.map(lambda x: x[0], parts), jax.tree.map(lambda x: x[1:], parts)
  start = grad_fn(trained, first, jax.random.fold_in(key, 0))
  (grads, sums), _ = jax.lax.scan(body, start, (rest, jnp.arange(1, config.microbatches)))
  return sums, grads


def train(
  config: TrainConfig,
  workdir: str | Path,
  *,
  evaluate: Evaluate | None = None,
  notices: preemption.Notices | None = None,
  programs: KeptSteps | None = None,
) -> TrainState:
  """Trains, or goes on where the last checkpoint in `workdir` stands; returns the last state.

  Args:
    config: The run.
    workdir: Its folder; a file `save_now` in it asks for a checkpoint.
    evaluate: What to measure meanwhile; it may call `notices.check` between batches.
    notices: Where notices to stop are heard; by default signals are, from here on.
    programs: Where the compiled step is kept for the next start. Only for a process whose modules
      are as their files have them: one that is patched may find what it was before.

  Raises:
    ValueError: Mesh, batch, cache, checkpoint and configuration do not fit; says how.
    guard_lib.DivergedError: Too many updates in a row were skipped.
    replicas.CorruptionError: A device computed wrongly.
    KeyboardInterrupt: SIGINT came; the state was saved first.
    preemption.Preempted: The same for any other notice.
  """
  workdir = Path(workdir)
  workdir.mkdir(parents=True, exist_ok=True)
  with contextlib.ExitStack() as stack:
    watch = Stopwatch(workdir if jax.process_index() == 0 else None)
    notices = notices or stack.enter_context(preemption.Notices())
    # ---- mesh and data
    mesh = stack.enter_context(partitioning.use_mesh(config.mesh))
    loader = make_loader(config)
    sharding = partitioning.batch_sharding(mesh, config.mesh.rules)
    partitioning.check_batch_rows(config.data.batch_rows // config.microbatches, mesh)
    rows = partitioning.local_rows(sharding, config.data.batch_rows)
    place = functools.partial(
      partitioning.place_rows, sharding=sharding, rows=rows, batch_rows=config.data.batch_rows
    )

    # ---- state and log, and meanwhile the step
    saved = stack.enter_context(checkpoints.Checkpoints(workdir / 'checkpoints', config.checkpoint))
    aside = stack.enter_context(concurrent.futures.ThreadPoolExecutor(1))
    accepted: concurrent.futures.Future = concurrent.futures.Future()
    stack.callback(accepted.cancel)  # nobody is to wait for the step of a run that is refused
    if programs:
      stack.callback(programs.wait)
    with watch.spend('restore'):
      abstract = state_lib.abstract_state(config)
      compiling = aside.submit(_compile, config, mesh, abstract, loader, programs, accepted)
      loader.verify()
      origin = state_lib.find_origin(config, abstract, saved, loader)
      accepted.set_result(True)
      start, state = origin.step, origin.load()
      run_log.write_facts(workdir, config, mesh, loader, state, start)
      flops = train_step_flops(config.model, config.data.batch_rows, *loader.layout.limits)
      evaluates_first = evaluate is not None and (
        start == 0 or bool(saved.meta(start).get('unevaluated'))
      )
      opened = run_log.open_log(
        config, workdir, loader, start, watch, flops_per_step=flops, evaluates_first=evaluates_first
      )
      log = stack.enter_context(opened)
      with watch.spend('compile'):
        step_fn, seconds = compiling.result()
      print(f'Compiled the train step in {seconds:.1f} s.')

    # ---- loop
    requests = multihost.Requests(notices, workdir, mesh)
    batches = stack.enter_context(contextlib.closing(loader.prefetch(start, rows)))
    score = None
    if evaluate and evaluates_first:
      log.evaluation(start, evaluate, state.model)
    notices.collect()
    multihost.barrier('the first step')
    watch.begin_steps(start)
    while (step := log.step) < config.steps:
      with watch.spend('data'):
        batch = place(next(batches))
      state, step_metrics = step_fn(state, batch)
      log.train(step_metrics)
      step += 1
      saved.poll()
      requests.agree()
      last = step == config.steps
      unevaluated = False
      if evaluate and (last or _due(step, config.evaluate_every_steps)):
        try:
          notices.check()
          score = log.evaluation(step, evaluate, state.model).get('score')
        except preemption.Preempted:
          requests.stop = unevaluated = True
      if last or requests.stop or requests.save or _due(step, config.checkpoint.save_every_steps):
        log.flush()
        with log.paused('save'):
          model, told = to_save(state.model, config, origin.base)
          meta = {
            'data': loader.position(step),
            'model': dataclasses.asdict(config.model),
            'lengths': dict(config.data.lengths),
            'unevaluated': unevaluated,
            **told,
          }
          multihost.barrier(f'the save of step {step}')
          check_replicas({'parameters': model, 'optimizer': state.opt_state}, step)
          saved.save(step, model, (state.opt_state, state.guard), meta=meta, score=score)
        score = None
        requests.saved()
      if requests.stop:
        saved.wait()
        raise preemption.stopped(requests.reason, step)
  return state


def make_loader(config: TrainConfig) -> loader_lib.Loader:
  """The loader of a run: resolves the mixture against the cache."""
  data = config.data
  info = cache_lib.read_cache_info(data.cache_dir)
  if info.size > config.model.vocab_size:
    raise ValueError(
      f'The {info.kind} vocabulary of {data.cache_dir} has {info.size} ids and the model room for '
      f'{config.model.vocab_size}; set VOCAB_SIZE to at least {info.size}, or choose another cache.'
    )
  mixture = mixture_lib.resolve(
    data.mixture,
    data.cache_dir,
    include_cot=data.include_cot,
    rates=data.rates,
    rule=data.rule,
    skip_missing=data.skip_missing,
    licence=data.licence,
  )
  largest, task = max(
    (manifest.get('largest_id', 0), manifest['task']) for manifest in mixture.manifests
  )
  if largest >= config.model.vocab_size:
    raise ValueError(
      f"Task '{task}' has the token id {largest}, a sentinel above its vocabulary, and the model "
      f'room for {config.model.vocab_size}; set VOCAB_SIZE to at least {largest + 1}, or leave the '
      'task out.'
    )
  return loader_lib.Loader(
    data.cache_dir,
    mixture,
    lengths=data.lengths,
    batch_rows=data.batch_rows,
    seed=config.seed,
    pack=data.pack,
    decoder_only=config.model.decoder_only,
  )


def _compile(config, mesh, state, loader, programs, accepted):
  """Finds the step, or compiles it once the run is accepted; also the seconds since now."""
  start = time.perf_counter()
  # Without what a step does not read, a run that is to go on for longer finds the same program.
  unread = {'data': DataConfig('', '', {}, config.microbatches), 'steps': 1}
  unread |= {'checkpoint': None, 'log_every_steps': 0, 'evaluate_every_steps': 0}
  read = dataclasses.replace(config, **unread)
  step = functools.partial(train_step, config=read, collections=len(loader.collections))
  sharding, before = partitioning.batch_sharding(mesh, config.mesh.rules), accepted.result
  batch = state_lib.abstract_batch(layouts.one_row(loader.layout), config.data.batch_rows, sharding)
  with partitioning.use_mesh(mesh, config.mesh.rules):  # each thread has its own
    options = compiler_options(partitioning.platform())
    compiled = compile_step(step, state, batch, options, kept=programs, before=before)
  step_fn = computed_twice(compiled, config.guard.recompute_every_steps)
  return step_fn, time.perf_counter() - start


def _due(step: int, every: int) -> bool:
  return bool(every) and step % every == 0
