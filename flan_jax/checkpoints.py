"""Saving, verifying, resuming and retaining training state through Orbax.

A checkpoint is a folder `checkpoints/<step>` with three Orbax items: `parameters` and `optimizer`
(flat dicts of arrays keyed by their path, the only layout there is) and `meta` (JSON: step, data
position, model configuration, shapes). Beside them lies `checksums.json`, so damage is found before
anything is restored. What goes into the state is train.py's business.
"""

import concurrent.futures
import contextlib
import dataclasses
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from flan_jax import checkpoint_files, parameter_names
from flan_jax.checkpoint_files import DamagedCheckpointError, free_name, verify, write_checksums
from flan_jax.whole_file import FULL

PARAMETERS = 'parameters'
OPTIMIZER = 'optimizer'
META = 'meta'
# Each thread that compresses holds one chunk, and what it has become.
_CHUNK_BYTES = 2 << 20
# Replicas share the saving of what is at least this for each. Orbax would also cut a norm's scales
# for that, by a program for each shape, and save the pieces as chunks.
_SHARED_BYTES = 1 << 20


class CheckpointError(ValueError):
  """A checkpoint that could not be written."""


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
  """When to save and what to keep.

  Attributes:
    save_every_steps: Steps between saves; the last step is always saved.
    keep_last: How many of the newest checkpoints to keep.
    keep_best: How many of the best to keep besides, by the evaluation's score at their step.
    asynchronous: Write in the background while training goes on.
  """

  save_every_steps: int = 1000
  keep_last: int = 3
  keep_best: int = 1
  asynchronous: bool = True

  def __post_init__(self):
    for name in ('save_every_steps', 'keep_last'):
      if getattr(self, name) < 1:
        raise ValueError(
          f'CheckpointConfig.{name}={getattr(self, name)} must be at least 1; '
          f'change it in the gin file or with --gin.CheckpointConfig.{name}=...'
        )
    if self.keep_best < 0:
      raise ValueError(f'CheckpointConfig.keep_best={self.keep_best} must be 0 or more.')


class Checkpoints:
  """The checkpoints of one run; use as a context manager so that the last save is finished.

  Args:
    directory: The folder that holds one sub-folder per step.
    config: What to keep; None opens the folder for reading only.
    memory_bytes: Compresses no more of the parameters than this at a time while saving them, which
      the largest of them must fit in, and keeps an eighth of it before it goes to a file; None
      keeps all that is compressed until the end, and makes the fewest files.
  """

  def __init__(
    self,
    directory: str | os.PathLike,
    config: CheckpointConfig | None = None,
    *,
    memory_bytes: int | None = None,
  ):
    self.directory = Path(directory).resolve()
    self._config = config
    self._chunk_bytes = self._file_bytes = None
    handlers: dict[str, Any] = {META: ocp.JsonCheckpointHandler()}
    types = ocp.type_handlers.create_type_handler_registry(
      (np.ndarray, ocp.type_handlers.NumpyHandler()),
      (
        jax.Array,
        ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=_SHARED_BYTES),
      ),
    )
    # zstd would take 7% off float32 parameters, and restoring them would take twice the time.
    for name in (PARAMETERS, OPTIMIZER):
      handlers[name] = ocp.PyTreeCheckpointHandler(
        use_compression=False, type_handler_registry=types
      )
    if memory_bytes is not None:
      # What is compressed at a time is a chunk, which else is as large as a device's whole part.
      self._chunk_bytes = _CHUNK_BYTES
      # Else 2 GB, all of which are in memory until they are written.
      self._file_bytes = max(memory_bytes // 8, _CHUNK_BYTES)
      gigabytes: Any = (memory_bytes + 1) / 1e9  # Orbax takes fractions, and rounds none up
      handlers[PARAMETERS] = ocp.PyTreeCheckpointHandler(save_concurrent_gb=gigabytes)
    self._hasher = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix='checksums')
    self._unhashed: list[int] = []
    self._hashing: list[concurrent.futures.Future] = []
    self._manager = ocp.CheckpointManager(
      self.directory,
      item_handlers=handlers,
      options=ocp.CheckpointManagerOptions(
        create=config is not None,
        read_only=config is None,
        enable_async_checkpointing=config is not None and config.asynchronous,
        preservation_policy=_preservation(config) if config else None,
      ),
    )

  def __enter__(self):
    return self

  def __exit__(self, *exc_info):
    self.close()

  def close(self):
    """Waits for pending saves and their checksums, then releases Orbax's threads."""
    self.wait()
    self._hasher.shutdown()
    self._manager.close()

  def wait(self):
    """Blocks until every save so far is committed and has its checksums."""
    with self._telling_what_failed():
      self._manager.wait_until_finished()
      self._hash_committed()
      for future in self._hashing:
        future.result()
    self._hashing.clear()

  @contextlib.contextmanager
  def _telling_what_failed(self):
    """Turns an error of writing into a sentence with the step that a run goes on from."""
    try:
      yield
    except Exception as e:
      words = ('RESOURCE_EXHAUSTED', 'File too large')  # as TensorStore has them
      full = any(word in str(e) for word in words) or getattr(e, 'errno', None) in FULL
      if not full and not isinstance(e, OSError) and 'Error writing' not in str(e):
        raise
      steps = self.steps()
      again = f'goes on from step {steps[-1]}' if steps else 'starts anew: no save was finished'
      why = getattr(e, 'strerror', None) or str(e).splitlines()[0][:200]
      what = 'No space is left to save' if full else f'Cannot save ({why})'
      raise CheckpointError(
        f'{what} a checkpoint in {self.directory}. Make it possible, or give another --workdir; '
        f'the same command then {again}.'
      ) from e

  def steps(self) -> list[int]:
    """Committed steps, oldest first; a save that died is none of them."""
    self._manager.reload()
    return sorted(self._manager.all_steps())

  def save(self, step: int, model: Any, opt_state: Any, meta: dict, score: float | None = None):
    """Saves one step; returns once the arrays are copied off the devices.

    Args:
      step: The number of updates done.
      model: Pytree of parameters.
      opt_state: Pytree of the optimizer's arrays (and whatever else must resume exactly); None
        leaves it out (imported weights).
      meta: JSON-able; `shapes` of the parameters are added.
      score: The evaluation's score at this step, higher is better, for `keep_best`.
    """
    parameters = parameter_names.by_path(model)
    chunks = jax.tree.map(lambda x: ocp.SaveArgs(chunk_byte_size=self._chunk_bytes), parameters)
    shapes = {name: [list(x.shape), str(x.dtype)] for name, x in parameters.items()}
    optimizer = {}
    if opt_state is not None:
      optimizer[OPTIMIZER] = ocp.args.PyTreeSave(parameter_names.by_path(opt_state))
    with self._telling_what_failed():
      self._hash_committed()
      self._manager.save(
        step,
        args=ocp.args.Composite(
          **{
            PARAMETERS: ocp.args.PyTreeSave(
              parameters, save_args=chunks, ocdbt_target_data_file_size=self._file_bytes
            ),
            **optimizer,
            META: ocp.args.JsonSave({**meta, 'step': step, 'shapes': shapes}),
          }
        ),
        metrics=None if score is None else {'score': float(score)},
      )
    self._unhashed.append(step)

  def poll(self):
    """Cheap call for every step: starts hashing what has been committed since the last call."""
    if self._unhashed and not self._manager.is_saving_in_progress():
      with self._telling_what_failed():
        self._hash_committed()

  def _hash_committed(self):
    if self._unhashed:
      self._manager.wait_until_finished()
      for step in self._unhashed:
        self._hashing.append(self._hasher.submit(write_checksums, self.directory / str(step)))
      self._unhashed.clear()

  def latest_intact(self, report=print) -> int | None:
    """The newest step whose files are what was written; damaged ones are named and set aside.

    A damaged folder `S` is renamed to `damaged-S`, never deleted, so that its step can be saved
    again. So is one without checksums, `unchecked-S`, but where there is no other: beside damaged
    ones nobody can trust it. Raises DamagedCheckpointError if there are checkpoints and none is
    intact.
    """
    steps, unchecked = self.steps(), []
    for step in reversed(steps):
      try:
        checked = verify(self.directory / str(step))
      except DamagedCheckpointError as error:
        self._set_aside(step, 'damaged', str(error), report)
        continue
      if not checked:
        unchecked.append(step)
        continue
      for newer in unchecked:
        why = 'has no checksums: its run was killed before they were written.'
        self._set_aside(
          newer, 'unchecked', f'Checkpoint {self.directory / str(newer)} {why}', report
        )
      return step
    if unchecked and len(unchecked) == len(steps):
      return unchecked[0]
    if steps:
      raise DamagedCheckpointError(
        f'Every checkpoint in {self.directory} is damaged or without checksums (steps {steps}); '
        'restore the folder from '
        f'a copy, or choose a new --workdir to start again.'
      )
    return None

  def _set_aside(self, step: int, kind: str, why: str, report) -> None:
    aside = free_name(self.directory / f'{kind}-{step}')
    (self.directory / str(step)).rename(aside)
    report(f'{why} It was set aside as {aside.name}; using the one before.')

  def meta(self, step: int) -> dict:
    """The JSON saved with a step."""
    try:
      return self._manager.restore(step, args=ocp.args.Composite(**{META: ocp.args.JsonRestore()}))[
        META
      ]
    except Exception as e:
      raise DamagedCheckpointError(f'Cannot read {self.directory / str(step)}/{META}: {e}') from e

  def restore(self, step: int, model: Any, opt_state: Any = None) -> tuple[Any, Any]:
    """Restores onto the shardings of the abstract `model` and, if given, `opt_state`.

    Args:
      step: A committed step.
      model: Pytree of jax.ShapeDtypeStruct with shardings on the mesh in use, any mesh.
      opt_state: The same for the optimizer; None leaves it out (fine-tuning).

    Raises:
      ValueError: The checkpoint is of another model; names the parameters that differ.
    """
    mine, frozen, base = self._parts(step, model)
    restored = self._restore(step, mine, opt_state)
    parameters = restored[PARAMETERS]
    if frozen:
      parameters = {**parameters, **_restore_base(base, frozen, self.directory / str(step))}
    model = _like(model, parameters)
    return model, None if opt_state is None else _like(opt_state, restored[OPTIMIZER])

  def check(self, step: int, model: Any) -> None:
    """Raises what `restore` would where a step is of another model, and reads no arrays."""
    self._parts(step, model)

  def _parts(self, step, model) -> tuple[dict, dict, Any]:
    """Parameters by path that a step holds, those that the one it was tuned from does, and which.

    Raises ValueError if the shapes of the first differ.
    """
    meta, names = self.meta(step), parameter_names.by_path(model)
    own = meta['shapes'] if meta.get('base') else names
    parts: tuple[dict, dict] = {}, {}
    for name, x in names.items():
      parts[name not in own][name] = x
    self._check_shapes(step, meta['shapes'], parts[0])
    return *parts, meta.get('base')

  def _restore(self, step, parameters, opt_state=None, *, partial: bool = False) -> Any:
    """Restores arrays by path, of the parameters only those given where `partial`."""
    wanted = {PARAMETERS: parameters}
    if opt_state is not None:
      wanted[OPTIMIZER] = parameter_names.by_path(opt_state)
    args = {item: _restore_args(arrays, partial) for item, arrays in wanted.items()}
    try:
      return self._manager.restore(step, args=ocp.args.Composite(**args))
    except Exception as e:  # TensorStore's and Orbax's are of many kinds, and pages long
      why = str(e).splitlines()[0][:300] if str(e) else type(e).__name__
      raise DamagedCheckpointError(f'Cannot read {self.directory / str(step)}: {why}') from e

  def parameter_names(self, step: int) -> set[str]:
    """Paths of the parameters that a step's own files hold."""
    return set(self.meta(step)['shapes'])

  def _check_shapes(
    self, step: int, shapes: dict[str, Any], wanted: dict[str, Any], *, partial: bool = False
  ):
    saved = {name: tuple(shape) for name, (shape, _) in shapes.items()}
    problems = [f'{name} is missing' for name in wanted if name not in saved]
    if not partial:
      problems += [f'{name} is not in this model' for name in saved if name not in wanted]
    problems += [
      f'{name} has shape {saved[name]} there and {tuple(x.shape)} here'
      for name, x in wanted.items()
      if name in saved and saved[name] != tuple(x.shape)
    ]
    if problems:
      more = f' (and {len(problems) - 3} more)' if len(problems) > 3 else ''
      raise ValueError(
        f'Checkpoint {self.directory / str(step)} is of another model: '
        f'{"; ".join(problems[:3])}{more}. Choose the MODEL it was made with, or another '
        f'checkpoint or --workdir.'
      )


def _restore_base(base: dict[str, str], wanted: dict[str, Any], of: Path) -> dict[str, Any]:
  """Restores by path the parameters that a checkpoint left in the one it was tuned from."""
  path = checkpoint_files.base_folder(base, of)
  step = int(path.name)
  with Checkpoints(path.parent) as source:
    source._check_shapes(step, source.meta(step)['shapes'], wanted, partial=True)
    return source._restore(step, wanted, partial=True)[PARAMETERS]


def _restore_args(arrays: dict[str, Any], partial: bool):
  layouts = ocp.checkpoint_utils.construct_restore_args(arrays)
  return ocp.args.PyTreeRestore(arrays, restore_args=layouts, partial_restore=partial)


def _like(tree: Any, arrays: dict[str, Any]) -> Any:
  """A pytree with arrays by path in place of its leaves."""
  return jax.tree.unflatten(
    jax.tree.structure(tree), [arrays[name] for name in parameter_names.by_path(tree)]
  )


def _preservation(config: CheckpointConfig):
  policies: list[Any] = [checkpoint_managers.LatestN(config.keep_last)]
  if config.keep_best:
    policies.append(
      checkpoint_managers.BestN(
        get_metric_fn=lambda metrics: metrics['score'],
        n=config.keep_best,
        keep_checkpoints_without_metrics=False,
      )
    )
  return checkpoint_managers.AnyPreservationPolicy(policies)


def verified(checkpoint: str | os.PathLike) -> tuple[Path, dict[str, Any]]:
  """The folder of one step of a checkpoint, found whole, and what its run wrote beside it.

  Args:
    checkpoint: a workdir, its `checkpoints` folder, or the folder of one step.

  Raises:
    FileNotFoundError: there is none; says what is there.
    DamagedCheckpointError: it is not what was written.
  """
  folder, step = checkpoint_files.locate(checkpoint)
  checkpoint_files.verify(folder / str(step))
  with Checkpoints(folder) as saved:
    return folder / str(step), saved.meta(step)
