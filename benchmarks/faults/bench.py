"""The runs of the campaign: the command under test, what it wrote, and whether that is right.

A run is `flan-jax train` on the demo tasks: a small model, dropout, evaluations and a save at every
other step. The uninterrupted one saves each step, so that whatever another run has saved at any
moment can be compared with it, bit by bit.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp

ROOT = Path(__file__).resolve().parents[2]
STEPS = 24
EQUAL = 'continued, bitwise equal'
# A run takes a few seconds; what has not ended by then hangs.
HANG_SECONDS = 300
SETTINGS = (
  *('--gin_file', 'runs/demo.gin', '--steps', str(STEPS), '--batch_size', '4'),
  '--gin.model_config.TransformerConfig.embed_dim=32',
  '--gin.model_config.TransformerConfig.head_dim=16',
  '--gin.model_config.TransformerConfig.num_encoder_layers=1',
  '--gin.model_config.TransformerConfig.num_decoder_layers=1',
  '--gin.DROPOUT_RATE=0.1',
  '--gin.WARMUP_STEPS=5',
  '--gin.LOG_EVERY_STEPS=1',
  '--gin.SAVE_EVERY_STEPS=2',
  '--gin.EVALUATE_EVERY_STEPS=8',
  "--gin.EVALUATION_MIXTURES=('demo_held_out',)",
  '--gin.EVALUATION_EXAMPLES=2',
  '--gin.EVALUATION_BATCH_SIZE=8',
)
SAVES_EACH_STEP = ('--gin.SAVE_EVERY_STEPS=1', '--gin.KEEP_CHECKPOINTS=1000')
# The campaign is about everything around the step, which LLVM need not optimise.
FAST_TO_COMPILE = '--xla_backend_optimization_level=0'
# What a run says when its steps begin, but for an evaluation.
COMPILED = 'Compiled the train step'
# Of a line of metrics.jsonl, what depends on the time.
TIMED = {'time', 'tokens_per_second', 'steps_per_second', 'mfu', 'goodput'}


class FailedError(Exception):
  """A fault that neither was survived nor refused as it should be."""


class SkippedError(Exception):
  """A fault that cannot be made on this machine; says why."""


class Process:
  """One process of a run, and its log."""

  def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]):
    self.log = log
    self.began = time.monotonic()
    with log.open('wb') as file:
      self._popen = subprocess.Popen(
        command, stdout=file, stderr=subprocess.STDOUT, env={**os.environ, **environment}
      )
    self.pid = self._popen.pid

  @property
  def said(self) -> str:
    """All that it has printed so far."""
    return self.log.read_text(errors='replace')

  @property
  def running(self) -> bool:
    """Whether it has not ended."""
    return self._popen.poll() is None

  def wait_until(self, condition: Callable[[], bool]) -> bool:
    """Waits for a condition; false where the process ended first."""
    while not condition():
      if not self.running:
        return condition()
      self._check_time()
      time.sleep(0.002)
    return True

  def wait(self, seconds: float) -> bool:
    """Waits so long; whether it has ended."""
    try:
      self._popen.wait(timeout=max(seconds, 0))
    except subprocess.TimeoutExpired:
      return False
    return True

  def finish(self, seconds: float = HANG_SECONDS) -> int:
    """Waits for the end; returns the exit status."""
    if not self.wait(seconds):
      self.signal(signal.SIGKILL)
      raise FailedError(f'hangs: not ended after {seconds:.0f} s; {self.last_line()}')
    return self._popen.returncode

  def signal(self, number: int) -> None:
    """Sends a signal and, after SIGKILL, waits for the end."""
    self._popen.send_signal(number)
    if number == signal.SIGKILL:
      self._popen.wait()

  def last_line(self) -> str:
    """The last line of its log."""
    lines = self.said.strip().splitlines()
    return lines[-1] if lines else 'it said nothing'

  def _check_time(self):
    if time.monotonic() - self.began > HANG_SECONDS:
      self.signal(signal.SIGKILL)
      raise FailedError(f'hangs: not there after {HANG_SECONDS} s; {self.last_line()}')


class Bench:
  """A folder of runs: the data, the uninterrupted run, and how others are compared with it.

  Args:
    folder: where all is written.
    seed: of the random draws; each case draws from `rng`.
  """

  def __init__(self, folder: Path, seed: int):
    self.folder, self.cache_dir, self.whole = folder, folder / 'cache', folder / 'whole'
    self.rng = np.random.default_rng(seed)
    self.seconds_to_compiled = self.seconds_of_steps = 0.0
    self._number = 0

  def prepare(self) -> None:
    """Writes the token cache and makes the uninterrupted run, unless they are there."""
    if (self.whole / 'report.html').exists():
      return
    command = [sys.executable, '-m', 'flan_jax.main', 'prepare', '--mixture', 'demo,demo_held_out']
    vocabulary = ROOT / 'tasks/data/demo/vocabulary.model'
    command += ['--cache_dir', str(self.cache_dir), '--vocabulary', str(vocabulary)]
    preparing = Process(command, self.folder / 'prepare.log', {})
    if preparing.finish():
      raise FailedError(f'cannot prepare the data: {preparing.last_line()}')
    self.finish(self.start(self.whole, SAVES_EACH_STEP))

  def new_workdir(self, name: str) -> Path:
    """A folder that no run has had."""
    self._number += 1
    workdir = self.folder / f'{name}-{self._number}'
    shutil.rmtree(workdir, ignore_errors=True)
    return workdir

  def start(
    self,
    workdir: Path,
    words: Iterable[str] = (),
    *,
    by: Iterable[str] = (),
    cache_dir: Path | None = None,
    environment: Mapping[str, str] | None = None,
    name: str = 'log',
  ) -> Process:
    """Starts a run, or goes on with it; `by` is a command that runs the command."""
    command = [*by, sys.executable, '-m', 'flan_jax.main', 'train', *SETTINGS, *words]
    command += ['--cache_dir', str(cache_dir or self.cache_dir), '--workdir', str(workdir)]
    given = {
      'JAX_PLATFORMS': 'cpu',
      'PYTHONUNBUFFERED': '1',
      'XLA_FLAGS': FAST_TO_COMPILE,
      'FLAN_JAX_COMPILATION_CACHE_DIR': str(self.folder / 'compiled'),
    }
    return Process(command, workdir.with_suffix(f'.{name}'), given | dict(environment or {}))

  def finish(self, running: Process) -> None:
    """Waits for the good end of a process."""
    if status := running.finish():
      raise FailedError(f'exit status {status}; {running.last_line()}')

  def go_on(self, workdir: Path) -> str:
    """Goes on with a run to its end, and compares it."""
    self.finish(self.start(workdir))
    return self.compare(workdir)

  def compare(self, workdir: Path, whole: Path | None = None) -> str:
    """EQUAL where a finished run is the uninterrupted one: checkpoints, metrics, evaluations."""
    whole = whole or self.whole
    if STEPS not in (saved := committed(workdir)):
      raise FailedError(f'no checkpoint of step {STEPS}: {saved}')
    self.compare_checkpoints(workdir, whole)
    mine, theirs = metrics(workdir), metrics(whole)
    if mine != theirs:
      steps = sorted(step for step in {*mine, *theirs} if mine.get(step) != theirs.get(step))
      raise FailedError(f'metrics differ at {steps[:5]}')
    if evaluations(workdir) != evaluations(whole):
      raise FailedError('the evaluations differ')
    return EQUAL

  def compare_checkpoints(self, workdir: Path, whole: Path | None = None) -> None:
    """All that a run has saved is what the uninterrupted one had at the same step."""
    for step in committed(workdir):
      mine = arrays(workdir / 'checkpoints' / str(step))
      theirs = arrays((whole or self.whole) / 'checkpoints' / str(step))
      differ = [name for name in {*mine, *theirs} if mine.get(name) != theirs.get(name)]
      if differ:
        raise FailedError(f'the checkpoints of step {step} differ in {len(differ)}: {differ[:3]}')

  def refusal(self, running: Process, status: int = 1) -> str:
    """The one sentence with which a process ends."""
    ended = running.finish()
    line = running.last_line()
    if ended != status or not line.startswith('flan-jax: ') or 'Traceback' in running.said:
      raise FailedError(f'exit status {ended} in place of {status}; {line}')
    return 'refused: ' + self.without_paths(line.removeprefix('flan-jax: '))

  def without_paths(self, text: str) -> str:
    """The same for every campaign."""
    return re.sub(rf'{re.escape(str(self.folder))}/([a-z_]+)(-\d+)?', r'\1', text)


def committed(workdir: Path) -> list[int]:
  """Steps of the checkpoints that are there as a whole."""
  found = workdir.glob('checkpoints/*/commit_success.txt')
  return sorted(int(path.parent.name) for path in found if path.parent.name.isdigit())


def saving(workdir: Path) -> bool:
  """Whether a save is under way, or was when its process was killed."""
  return any('orbax-checkpoint-tmp' in path.name for path in workdir.glob('checkpoints/*'))


def arrays(checkpoint: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
  """Type, shape and bytes of each array of a checkpoint, and where its run stood in the data."""
  found = {'data': ('', (), json.dumps(_meta(checkpoint)['data'], sort_keys=True).encode())}
  with ocp.PyTreeCheckpointer() as reader:
    for item in ('parameters', 'optimizer'):
      names = reader.metadata(checkpoint / item).item_metadata.tree
      as_numpy = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in names}
      for name, x in reader.restore(checkpoint / item, restore_args=as_numpy).items():
        found[f'{item}.{name}'] = str(x.dtype), x.shape, x.tobytes()
  return found


def _meta(checkpoint: Path) -> dict:
  return json.loads((checkpoint / 'meta' / 'metadata').read_text())


def metrics(workdir: Path) -> dict[tuple[int, str], dict]:
  """The lines of metrics.jsonl by step and kind, without what depends on the time."""
  lines: dict[tuple[int, str], dict] = {}
  for text in (workdir / 'metrics.jsonl').read_text().splitlines():
    line = json.loads(text)
    place = line['step'], line['kind']
    if place in lines:
      raise FailedError(f'metrics.jsonl has {place} twice')
    lines[place] = {name: value for name, value in line.items() if name not in TIMED}
  return lines


def evaluations(workdir: Path) -> dict[str, dict]:
  """What the evaluations found, by file."""
  found = {}
  for path in sorted(workdir.glob('evaluations/*.json')):
    found[path.name] = json.loads(path.read_text()) | {'seconds': None}
  return found
