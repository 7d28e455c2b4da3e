"""What a run keeps between steps, where it comes from, and which of its parameters change.

Parameters that a run does not change are in no gradient, no optimizer and, where a checkpoint has
them already, in no checkpoint.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from flan_jax import (
  checkpoint_files,
  checkpoints,
  compiling,
  guard,
  multihost,
  parameter_names,
  partitioning,
)
from flan_jax.models import lora, transformer
from flan_jax.models.config import TransformerConfig, differences
from flan_jax.naming import some

Parameters = dict[str, nnx.Param]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
  """What a checkpoint holds. step: int32 scalar, batches consumed (skipped updates included)."""

  step: jax.Array
  model: transformer.Transformer
  opt_state: Any
  guard: guard.GuardState


def initialize(config: Any, key: jax.Array) -> TrainState:
  """Fresh parameters and optimizer of a TrainConfig, laid out on the current mesh."""
  model = transformer.Transformer(config.model, nnx.Rngs(params=key))
  trained, _ = split(model, config)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    model=model,
    opt_state=config.optimizer.init(trained),
    guard=guard.GuardState.create(),
  )


def split(model: transformer.Transformer, config: Any) -> tuple[Parameters, Parameters]:
  """The parameters that a TrainConfig's run changes, and those that it leaves, by path.

  Raises:
    ValueError: it would change none.
  """
  pattern = config.trainable
  if pattern is None and config.model.lora is not None:
    pattern = rf'{lora.SUFFIX}\.'
  parts: tuple[Parameters, Parameters] = {}, {}
  for path, variable in parameter_names.variables(model):
    parts[pattern is not None and not re.search(pattern, path)][path] = variable
  if not parts[0]:
    raise ValueError(
      f'TRAINABLE={pattern!r} is found in no parameter; those of the model are called '
      f'{some(parts[1], 4)}.'
    )
  return parts


def join(model: transformer.Transformer, *parts: Parameters) -> transformer.Transformer:
  """The model with the parameters of `split`'s parts in place of its own."""
  named = {path: variable for part in parts for path, variable in part.items()}
  paths = [path for path, _ in parameter_names.variables(model)]
  structure = jax.tree.structure(model, is_leaf=parameter_names.is_variable)
  return jax.tree.unflatten(structure, [named[path] for path in paths])


@dataclasses.dataclass(frozen=True)
class Origin:
  """Where a run goes on from; nothing of its state has been read or computed yet.

  Attributes:
    step: updates done.
    base: which checkpoint has what the run does not change, if one does: the one that it began
      with, though newer ones may lie beside it by now.
    load: gives the state, which the devices may still be computing.
  """

  step: int
  base: dict[str, str] | None
  load: Callable[[], TrainState]


def abstract_state(config: Any) -> TrainState:
  """Shapes, dtypes and shardings of a run's state on the current mesh, which may be a plan's."""
  key = jax.eval_shape(lambda: jax.random.key(0))  # devices that are not there cannot make one
  abstract = partitioning.abstract(functools.partial(initialize, config), key)
  return dataclasses.replace(abstract, model=_as_stored(abstract.model, config))


def abstract_batch(
  row: Mapping[str, np.ndarray], rows: int, sharding: jax.sharding.Sharding
) -> dict[str, jax.ShapeDtypeStruct]:
  """The same for a batch of so many rows like `row`, the features of one."""
  return {
    name: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype, sharding=sharding)
    for name, x in row.items()
  }


def find_origin(
  config: Any, abstract: TrainState, saved: checkpoints.Checkpoints, loader: Any
) -> Origin:
  """What to go on from: 1. the run's own checkpoint, 2. INITIAL_CHECKPOINT_PATH, 3. scratch.

  Args:
    config: a TrainConfig.
    abstract: its `abstract_state`.
    saved: the run's checkpoints.
    loader: its data.

  Raises:
    ValueError: the checkpoint is of another run or model, or damaged: all that can be told of it
      without reading its arrays into memory.
  """
  key = jax.random.key(config.seed)
  step = multihost.from_first(saved.latest_intact)
  saved.steps()  # process 0 may have set one aside
  if step is not None:
    return _own(step, abstract, saved, loader)
  if config.initial_checkpoint_path:
    return _of_another(config, abstract, key)

  # Lowered here already, so that it compiles while the step is traced in another thread.
  create = jax.jit(functools.partial(initialize, config)).lower(key)

  def begin():
    print('Starting from scratch.')
    return create.compile(_run_once())(key)

  return Origin(0, None, begin)


def _own(step, abstract, saved, loader) -> Origin:
  """The run's own checkpoint of a step."""
  meta = saved.meta(step)
  loader.check_position(meta['data'])
  saved.check(step, abstract.model)

  def go_on():
    rest = (abstract.opt_state, abstract.guard)
    model, (opt_state, guard_state) = saved.restore(step, abstract.model, rest)
    print(f'Going on from step {step} in {saved.directory}.')
    count = jax.make_array_from_callback(
      (), abstract.step.sharding, lambda _: np.asarray(step, np.int32)
    )
    return TrainState(count, model, opt_state, guard_state)

  return Origin(step, meta.get('base'), go_on)


def _run_once() -> dict[str, str | bool]:
  """Compiler options: on a CPU, LLVM's level 1 compiles random draws 2.6 times as fast as 3."""
  if jax.default_backend() != 'cpu':
    return {}
  return compiling.compiler_options('cpu') | {'xla_backend_optimization_level': '1'}


def to_save(
  model: transformer.Transformer, config: Any, base: dict[str, str] | None
) -> tuple[Any, Mapping[str, Any]]:
  """What of a model a checkpoint is to hold, and what its meta is to say of the rest in `base`."""
  trained, frozen = split(model, config)
  return (trained, {'base': base}) if frozen and base else (model, {})


def _of_another(config, abstract, key) -> Origin:
  """The parameters of INITIAL_CHECKPOINT_PATH, adapters new if it has none, the rest fresh."""
  base = checkpoint_files.identity(config.initial_checkpoint_path)
  folder = Path(base['path'])
  checkpoint_files.verify(folder)
  step = int(folder.name)
  with checkpoints.Checkpoints(folder.parent) as source:
    made_as = TransformerConfig(**source.meta(step)['model'])
    if changed := differences(made_as, config.model):
      raise ValueError(
        f'INITIAL_CHECKPOINT_PATH: the model in {folder} has {"; ".join(changed)} of '
        'this run. Choose the MODEL it was made with.'
      )
    there = source.parameter_names(step)
    wanted = dict(parameter_names.variables(abstract.model))
    new = [path for path in wanted if lora.SUFFIX in path and path not in there]
    wanted = {path: x for path, x in wanted.items() if path not in new}
    source.check(step, wanted)

  def adapters(key):
    model = transformer.Transformer(config.model, nnx.Rngs(params=key))
    return {path: x for path, x in parameter_names.variables(model) if path in new}

  def rest(trained):
    return jnp.zeros((), jnp.int32), config.optimizer.init(trained), guard.GuardState.create()

  def begin():
    with checkpoints.Checkpoints(folder.parent) as source:
      found, _ = source.restore(step, wanted)
    print(f'Starting from the parameters in {folder} with a fresh optimizer.')
    model = join(abstract.model, found, jax.jit(adapters)(key) if new else {})
    count, opt_state, guard_state = jax.jit(rest)(split(model, config)[0])
    return TrainState(count, model, opt_state, guard_state)

  return Origin(0, base, begin)


def _as_stored(abstract, config):
  """The abstract model with FROZEN_DTYPE for what comes from another checkpoint and stays."""
  trained, frozen = split(abstract, config)
  if not frozen or not config.initial_checkpoint_path:
    return abstract

  def narrow(x):
    return jax.ShapeDtypeStruct(x.shape, config.frozen_dtype, sharding=x.sharding)

  return join(abstract, trained, jax.tree.map(narrow, frozen))
