"""The log of one training run: sums up steps, writes them, and tells the terminal.

Device numbers are read one step late, so that reading them never makes the devices wait.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import flax
import jax
import numpy as np

import flan_jax
from flan_jax import goodput, guard, metrics, watchdog, whole_file
from flan_jax.naming import listing


class RunLog:
  """Use as a context manager; `step` is the number of steps handed to `train`.

  Args:
    workdir: Where metrics.jsonl and tensorboard/ go.
    start: Step the run starts or resumes at.
    evaluates_first: Whether it is evaluated at that step before it goes on.
    steps: Step it ends at.
    every: Steps between log lines.
    flops_per_step: FLOPs of one update on the whole batch, for the MFU.
    positions: Of a batch, that inputs and that targets can fill, for the packed share.
    shared: Whether both fill the same ones, as without an encoder.
    collections: Names for the per-collection losses.
    learning_rate: Update count -> learning rate.
    guard_config: When skipped updates, or a step that hangs, stop the run.
    watch: Counts where the time goes.
  """

  def __init__(
    self,
    workdir: Path,
    *,
    start: int,
    evaluates_first: bool,
    steps: int,
    every: int,
    flops_per_step: float,
    positions: tuple[int, int],
    shared: bool,
    collections: tuple[str, ...],
    learning_rate: Callable[[Any], Any],
    guard_config: guard.GuardConfig,
    watch: goodput.Stopwatch,
  ):
    self.step = start
    self._steps, self._every = steps, every
    self._positions, self._shared, self._collections = positions, shared, collections
    self._learning_rate, self._guard = learning_rate, guard_config
    self._writer = metrics.MetricWriter(workdir, start, evaluates_first=evaluates_first)
    self.throughput = metrics.Throughput(flops_per_step)
    self._progress = metrics.Progress('training', steps, start)
    self._watch = watch
    self._watchdog = watchdog.Watchdog(watch, guard_config.hang_seconds, lambda: self.step)
    self._pending = None
    self._sums, self._count = {}, 0

  def __enter__(self):
    self._progress.__enter__()
    self._watchdog.__enter__()
    return self

  def __exit__(self, *exc_info):
    if exc_info[0] is None:
      self.flush()
    with contextlib.suppress(OSError):  # a full disk is not to hide why the run ends
      self._watch.record(self.step)
    self._progress.__exit__(*exc_info)
    self._writer.__exit__(*exc_info)
    self._watchdog.__exit__(*exc_info)

  def train(self, step_metrics: Mapping[str, jax.Array]) -> None:
    """Counts one step; reads the numbers of the step before."""
    self._read_pending()
    self._pending = step_metrics
    self.step += 1
    if self.step % self._every == 0 or self.step == self._steps:
      self.flush()

  def flush(self) -> None:
    """Writes what has been summed since the last line."""
    self._read_pending()
    if not self._count:
      return
    values = self._values()
    self._writer.write(self.step, 'train', values)
    self._progress.say(metrics.step_line(self.step, values))
    self._sums, self._count = {}, 0

  def evaluation(self, step: int, evaluate, model) -> Mapping[str, float]:
    """Runs `evaluate(model, step)`, writes its numbers and keeps its time out of the rates."""
    self.flush()
    with self.paused('evaluation'):
      values = evaluate(model, step)
    self._writer.write(step, 'evaluation', values)
    shown = '  '.join(f'{name} {value:.3f}' for name, value in values.items() if '/' not in name)
    self._progress.say(f'step {step}  evaluation: {shown}')
    return values

  @contextlib.contextmanager
  def paused(self, cause: str) -> Iterator[None]:
    """Keeps what runs inside out of the rates; its time goes to `cause`."""
    with self.throughput.paused(), self._watch.spend(cause):
      yield

  def _read_pending(self) -> None:
    if self._pending is None:
      return
    values = jax.device_get(self._pending)
    self._pending = None
    loss = float(values['loss'] / max(values['weight'], 1e-9))
    guard.check(self.step, int(values['skipped_in_a_row']), loss, self._guard)
    for name, value in values.items():
      self._sums[name] = self._sums.get(name, 0.0) + np.asarray(value, np.float64)
    self._sums['skipped_updates'] = values['skipped_updates']
    self._count += 1
    self.throughput.step(float(values['input_tokens'] + values['target_tokens']))
    self._progress.advance(self.step)

  def _values(self) -> dict[str, float]:
    sums, count = self._sums, self._count
    weight = max(float(sums['weight']), 1e-9)
    inputs, targets = (
      float(sums[name]) / (count * positions)
      for name, positions in zip(('input_tokens', 'target_tokens'), self._positions, strict=True)
    )
    values = {
      'loss': float(sums['loss']) / weight,
      'z_loss': float(sums['z_loss']) / weight,
      'accuracy': float(sums['correct']) / weight,
      'grad_norm': float(sums['grad_norm']) / count,
      'learning_rate': float(self._learning_rate(self.step - 1)),
      'packed': inputs + targets if self._shared else max(inputs, targets),
      'packed_inputs': inputs,
      'packed_targets': targets,
      'skipped_updates': float(sums['skipped_updates']),
      **self.throughput.read(),
      'goodput': self._watch.record(self.step),
    }
    for name, loss, share in zip(
      self._collections, sums['collection_loss'], sums['collection_weight'], strict=True
    ):
      if share > 0:
        values[f'loss/{name}'] = float(loss / share)
    return values


def open_log(
  config: Any,
  workdir: Path,
  loader: Any,
  start: int,
  watch: goodput.Stopwatch,
  *,
  flops_per_step: float,
  evaluates_first: bool,
) -> RunLog:
  """The log of a TrainConfig's run over a Loader's data; arguments are those of RunLog."""
  return RunLog(
    workdir,
    start=start,
    evaluates_first=evaluates_first,
    steps=config.steps,
    every=config.log_every_steps,
    flops_per_step=flops_per_step,
    positions=tuple(config.data.batch_rows * positions for positions in loader.layout.positions),
    shared=config.model.decoder_only,
    collections=loader.collections,
    learning_rate=config.optimizer.schedule,
    guard_config=config.guard,
    watch=watch,
  )


def write_facts(workdir: Path, config, mesh, loader, state, start: int) -> None:
  """Writes run.json and mixture.json and prints what was decided: mesh, rows, parameters."""
  if jax.process_index() != 0:
    return
  parameters = sum(x.size for x in jax.tree.leaves(state.model))
  rows, lengths = config.data.batch_rows, config.data.lengths
  facts = {
    'flan_jax': flan_jax.__version__,
    'jax': jax.__version__,
    'flax': flax.__version__,
    'devices': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
    'hosts': jax.process_count(),
    'mesh': {name: size for name, size in mesh.shape.items()},
    'rules': config.mesh.rules,
    'parameters': parameters,
    'batch': f'{rows} rows of {lengths["inputs"]} + {lengths["targets"]} tokens',
    'started': time.strftime('%Y-%m-%d %H:%M:%S %z'),
    'resumed_at_step': start,
  }
  mixture = loader.statistics(num_windows=4).to_json()
  mixture['left_out'] = dict(loader.mixture.left_out)
  for name, value in (('run', facts), ('mixture', mixture)):
    whole_file.write(workdir / f'{name}.json', json.dumps(value, indent=1) + '\n')
  print('  '.join(f'{k}: {v}' for k, v in facts.items() if k not in ('started',)))
  if loader.mixture.left_out:
    print(f'left out for their licences: {listing(loader.mixture.left_out)} (mixture.json)')
