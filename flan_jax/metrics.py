"""Measuring a run and writing what was measured: JSON lines, TensorBoard, the terminal.

The trainer hands over plain floats; nothing here touches the training state. Model quality
metrics (exact match, ROUGE, ...) are in evaluation/metrics.py.
"""

import contextlib
import functools
import json
import math
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import rich.console
import rich.progress

from flan_jax import whole_file

# Where PyTorch is installed, tensorboardX would import it for its own sake: two seconds of a start.
sys.modules.setdefault('torch', None)  # type: ignore[arg-type]
try:
  from tensorboardX import RecordWriter, summary
  from tensorboardX.proto.event_pb2 import Event, SessionLog  # type: ignore[attr-defined]
finally:
  if sys.modules['torch'] is None:
    del sys.modules['torch']

# Dense bfloat16 TFLOP/s of one device, from the vendors' data sheets.
DATASHEET_TFLOPS = {
  'TPU v2': 46,
  'TPU v3': 123,
  'TPU v4': 275,
  'TPU v5 lite': 197,
  'TPU v5': 459,
  'TPU v5p': 459,
  'TPU v6 lite': 918,
  'NVIDIA A100': 312,
  'NVIDIA H100': 989,
  'NVIDIA H200': 989,
}
_MEASURED = 'measured'  # how the source of a peak that is in no table begins


@functools.cache
def peak_flops_per_second() -> tuple[float, str]:
  """Peak of all devices together and where the figure comes from.

  A device that is not in the table (a CPU, say) is measured by one matrix product, and the source
  says so: a share of a measured peak is not comparable with a share of a data sheet's.
  """
  device, count = jax.devices()[0], jax.device_count()
  for kind in sorted(DATASHEET_TFLOPS, key=len, reverse=True):
    if device.device_kind.startswith(kind):
      return DATASHEET_TFLOPS[kind] * 1e12 * count, f'data sheet of {kind}, bfloat16'
  size, best = 1024, math.inf
  with jax.default_device(jax.local_devices()[0]):
    x = jnp.ones((size, size), jnp.float32)
    multiply = jax.jit(lambda a: a @ a)
    multiply(x).block_until_ready()
    for _ in range(10):
      start = time.perf_counter()
      multiply(x).block_until_ready()
      best = min(best, time.perf_counter() - start)
  # Host devices made by XLA_FLAGS share the cores, so they are counted once.
  machines = jax.process_count() if device.platform == 'cpu' else count
  return 2 * size**3 / best * machines, f'{_MEASURED} float32 product of {size} x {size}'


class MetricWriter:
  """Appends metrics to `metrics.jsonl` and TensorBoard; only process 0 writes.

  Args:
    workdir: The run's folder.
    first_step: Lines of later steps are dropped first: they are from a run that was killed after
      its last checkpoint and whose steps are done again.
    evaluates_first: Drops its evaluation at `first_step` too, as that is done again.
  """

  def __init__(
    self, workdir: str | os.PathLike, first_step: int = 0, *, evaluates_first: bool = False
  ):
    self._file = None
    if jax.process_index() != 0:
      return
    self._workdir = Path(workdir)
    path = self._workdir / 'metrics.jsonl'
    _drop_steps_after(path, first_step, evaluates_first)
    with self._naming_the_workdir():
      # Not tensorboardX's SummaryWriter: it writes from a thread, where a full disk is a traceback
      # and then a queue that nobody empties.
      folder = self._workdir / 'tensorboard'
      folder.mkdir(exist_ok=True)
      name = f'events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}'
      self._events = RecordWriter(str(folder / name))
      self._add_event(file_version='brain.Event:2')
      self._add_event(step=first_step + 1, session_log=SessionLog(status=SessionLog.START))
      self._file = path.open('a', encoding='utf-8')

  def __enter__(self):
    return self

  def __exit__(self, kind, *exc_info):
    if self._file:
      # Closing writes what a full disk did not take: that is not to hide why the run ends.
      with contextlib.suppress(OSError) if kind else self._naming_the_workdir():
        try:
          self._file.close()
        finally:
          self._events.close()

  def write(self, step: int, kind: str, values: Mapping[str, float]) -> None:
    """Writes one line; `kind` is 'train' or 'evaluation'. NaN and infinity are kept as strings."""
    if not self._file:
      return
    numbers = {name: float(value) for name, value in values.items()}
    line = {'step': step, 'time': round(time.time(), 3), 'kind': kind}
    line |= {k: v if math.isfinite(v) else str(v) for k, v in numbers.items()}
    with self._naming_the_workdir():
      self._file.write(json.dumps(line) + '\n')
      self._file.flush()
      for name, value in numbers.items():
        self._add_event(step=step, summary=summary.scalar(f'{kind}/{name}', value))
      self._events.flush()

  def _add_event(self, **event) -> None:
    self._events.write(Event(wall_time=time.time(), **event).SerializeToString())

  @contextlib.contextmanager
  def _naming_the_workdir(self) -> Iterator[None]:
    try:
      yield
    except OSError as e:
      raise OSError(e.errno, e.strerror, str(e.filename or self._workdir)) from e


def _drop_steps_after(path: Path, step: int, evaluates_again: bool) -> None:
  if not path.exists():
    return
  kept = []
  for line in path.read_text(encoding='utf-8', errors='replace').splitlines():
    try:
      found = json.loads(line)
      again = evaluates_again and found['step'] == step and found['kind'] == 'evaluation'
      if found['step'] <= step and not again:
        kept.append(line)
    except (ValueError, KeyError, TypeError):
      continue  # a line torn by a kill
  whole_file.write(path, ''.join(line + '\n' for line in kept))


class Throughput:
  """Tokens, seconds and FLOPs since the last reading; excludes what runs inside `paused()`."""

  def __init__(self, flops_per_step: float):
    self._flops_per_step = flops_per_step
    # Asked for at the first reading: a start has better to do than to be measured.
    self._peak, self.peak_source = 0.0, ''
    self._start, self._paused = time.perf_counter(), 0.0
    self._steps, self._tokens = 0, 0.0

  def step(self, tokens: float) -> None:
    """Counts one step with its real (non-padding) encoder and decoder tokens."""
    self._steps += 1
    self._tokens += tokens

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Takes evaluation and compilation out of the rates."""
    start = time.perf_counter()
    yield
    self._paused += time.perf_counter() - start

  def read(self) -> dict[str, float]:
    """Rates since the last reading: tokens/s, steps/s and the share of the peak (MFU)."""
    now = time.perf_counter()
    seconds = max(now - self._start - self._paused, 1e-9)
    reached = self._steps * self._flops_per_step / seconds
    if not self._peak:
      self._peak, self.peak_source = peak_flops_per_second()
    if self.peak_source.startswith(_MEASURED):  # perhaps while others used the machine
      self._peak = max(self._peak, reached)
    rates = {
      'tokens_per_second': self._tokens / seconds,
      'steps_per_second': self._steps / seconds,
      'mfu': reached / self._peak,
    }
    self._start, self._paused, self._steps, self._tokens = time.perf_counter(), 0.0, 0, 0.0
    return rates


class Progress:
  """A progress bar with the time left on a terminal, plain lines elsewhere; process 0 only."""

  def __init__(self, description: str, total: int, done: int = 0):
    self.console = rich.console.Console(
      quiet=jax.process_index() != 0, highlight=False, markup=False, soft_wrap=True
    )
    self._bar = rich.progress.Progress(
      rich.progress.TextColumn('{task.description}'),
      rich.progress.BarColumn(),
      rich.progress.MofNCompleteColumn(),
      rich.progress.TimeElapsedColumn(),
      rich.progress.TextColumn('left'),
      rich.progress.TimeRemainingColumn(),
      console=self.console,
      disable=not self.console.is_terminal,
      transient=True,
    )
    self._task = self._bar.add_task(description, total=total, completed=done)

  def __enter__(self):
    self._bar.start()
    return self

  def __exit__(self, *exc_info):
    self._bar.stop()

  def advance(self, done: int) -> None:
    """Moves the bar to `done` of the total."""
    self._bar.update(self._task, completed=done)

  def say(self, line: str) -> None:
    """Prints one line above the bar."""
    self.console.print(line)


def step_line(step: int, values: Mapping[str, float]) -> str:
  """`step 120  loss 1.843  accuracy 61.0%  412k tokens/s  packed 97%  MFU 38%  lr 1.0e-3`."""
  tokens = values['tokens_per_second']
  rate = f'{tokens / 1000:.1f}k' if tokens >= 1000 else f'{tokens:.0f}'
  line = (
    f'step {step}  loss {values["loss"]:.3f}  accuracy {100 * values["accuracy"]:.1f}%  '
    f'{rate} tokens/s  packed {100 * values["packed"]:.0f}%  MFU {100 * values["mfu"]:.0f}%  '
    f'grad {values["grad_norm"]:.2f}  lr {values["learning_rate"]:.1e}'
  )
  skipped = int(values.get('skipped_updates', 0))
  return line + (f'  {skipped} updates skipped' if skipped else '')
