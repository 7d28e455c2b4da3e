"""Saving and restoring T5 1.1 small with Adafactor's state while a CPU trains: time and memory.

  python benchmarks/checkpoint.py                  # base, 3 saves measured; then 30 saves of tiny
  python benchmarks/checkpoint.py --json saves.json

A save holds training up for as long as it takes to copy the state off the devices; that is measured
beside a plain copy of the same arrays, as is the peak of memory while the files are written. Then a
tiny state is saved many times over and the memory of the process is read after each.
"""

import argparse
import functools
import json
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import peers
from flax import nnx

from flan_jax import checkpoints, optimizers, parameter_names, partitioning
from flan_jax.models.transformer import Transformer


def resident() -> int:
  """Bytes of memory that this process holds."""
  return int(Path('/proc/self/statm').read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE')


class Peak:
  """The most memory held while it is entered."""

  def __enter__(self):
    self.bytes, self._stop = resident(), threading.Event()
    self._thread = threading.Thread(target=self._watch)
    self._thread.start()
    return self

  def __exit__(self, *exception):
    self._stop.set()
    self._thread.join()

  def _watch(self):
    while not self._stop.wait(0.005):
      self.bytes = max(self.bytes, resident())


def make_state(config: Any) -> Any:
  """A model and its optimizer's state."""
  optimizer = optimizers.adafactor(1e-3)

  @jax.jit
  def create(key):
    model = Transformer(config, nnx.Rngs(params=key))
    return model, optimizer.init(dict(parameter_names.variables(model)))

  return create(jax.random.key(0))


def one_save(state: Any, saved: checkpoints.Checkpoints, step: int) -> dict[str, float]:
  """Seconds and bytes of a copy, and of a save of the same."""
  jax.block_until_ready(state)
  leaves = jax.tree.leaves(state)
  start = time.perf_counter()
  copies = [np.array(x) for x in leaves]
  copied = time.perf_counter() - start
  del copies
  before = resident()
  with Peak() as peak:
    start = time.perf_counter()
    saved.save(step, *state, meta={})
    blocked = time.perf_counter() - start
    saved.wait()
    written = time.perf_counter() - start
  return {
    'copy_seconds': copied,
    'blocked_seconds': blocked,
    'written_seconds': written,
    'peak_bytes': peak.bytes - before,
  }


def measure_saves(config: Any, folder: Path, number: int) -> dict[str, Any]:
  """The median of some saves, and a restore."""
  state = make_state(config)
  size = sum(x.nbytes for x in jax.tree.leaves(state))
  keep = checkpoints.CheckpointConfig(save_every_steps=1, keep_last=2, keep_best=0)
  with checkpoints.Checkpoints(folder, keep) as saved:
    runs = [one_save(state, saved, step) for step in range(1, number + 2)][1:]
  found = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
  abstract = partitioning.abstract(lambda: jax.tree.map(lambda x: x + 0, state))
  start = time.perf_counter()
  with checkpoints.Checkpoints(folder) as saved:
    checkpoints.verify(folder / str(number + 1))
    jax.block_until_ready(saved.restore(number + 1, *abstract))
  return {
    'state_mb': round(size / 1e6),
    'copy_ms': round(1e3 * found['copy_seconds']),
    'blocked_ms': round(1e3 * found['blocked_seconds']),
    'blocked_over_copy': round(found['blocked_seconds'] / found['copy_seconds'], 2),
    'written_s': round(found['written_seconds'], 2),
    'memory_beside_the_state': round(found['peak_bytes'] / size, 2),
    'verified_and_restored_s': round(time.perf_counter() - start, 2),
  }


def measure_many(config: Any, folder: Path, number: int) -> dict[str, Any]:
  """Memory over many saves: its slope, by least squares over the second half."""
  state = make_state(config)
  size = sum(x.nbytes for x in jax.tree.leaves(state))
  held = []
  keep = checkpoints.CheckpointConfig(save_every_steps=1, keep_last=2, keep_best=0)
  with checkpoints.Checkpoints(folder, keep) as saved:
    for step in range(1, number + 1):
      saved.save(step, *state, meta={})
      saved.wait()
      held.append(resident())
  half = held[number // 2 :]
  slope = float(np.polyfit(np.arange(len(half)), half, 1)[0])
  return {
    'saves': number,
    'state_mb': round(size / 1e6, 1),
    'memory_mb_after_a_tenth_half_all': [
      round(held[i] / 1e6) for i in (number // 10, number // 2, -1)
    ],
    'growth_kb_a_save': round(slope / 1e3, 1),
  }


def main() -> None:
  parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
  parser.add_argument('--saves', type=int, default=3, help='saves of the large state')
  parser.add_argument('--many', type=int, default=60, help='saves of the small state')
  parser.add_argument('--json', help='also write the figures there')
  args = parser.parse_args()
  config = peers.our_config()
  tiny = functools.partial(type(config), vocab_size=1024, num_heads=2, head_dim=32)
  with (
    tempfile.TemporaryDirectory() as folder,
    partitioning.use_mesh(partitioning.MeshConfig()),
  ):
    figures = {
      'cores': os.cpu_count(),
      'save': measure_saves(config, Path(folder, 'large'), args.saves),
      'many': measure_many(
        tiny(embed_dim=64, num_encoder_layers=2, num_decoder_layers=2, mlp_dim=128),
        Path(folder, 'small'),
        args.many,
      ),
    }
  print(json.dumps(figures, indent=1))
  if args.json:
    Path(args.json).write_text(json.dumps(figures, indent=1), encoding='utf-8')


if __name__ == '__main__':
  main()
