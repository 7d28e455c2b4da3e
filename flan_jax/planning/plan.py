"""Compiles the steps of a run for TPUs that are not there, and says whether and how fast they run.

What a compiled program says of itself is read here; hlo.py and estimate.py read its text, search.py
compiles variants of a run.
"""

import dataclasses
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from flan_jax import compiling, partitioning, train_state
from flan_jax.models.config import train_step_flops
from flan_jax.planning import estimate, executable, hlo, steps
from flan_jax.planning.topologies import Topology, devices
from flan_jax.train import TrainConfig

# Of a chip's memory: what fragments, the runtime and a longer batch of evaluation may need besides.
ROOM = 0.75

_SIZE = r'([\d.]+)([KMGT])'  # as XLA writes bytes


@dataclasses.dataclass(frozen=True)
class Memory:
  """Bytes of one chip's main memory.

  Attributes:
    parameters: of the model.
    optimizer: its state, the guard's and the step count; 0 where a step has none.
    inputs: a batch, or prompts and the cache.
    outputs: that take the place of no input.
    gradients: in training, float32, by their shapes; a part of what XLA calls temporary.
    temporaries: the rest of it: activations kept for the backward pass, and work space.
    code: the program.
  """

  parameters: int
  optimizer: int
  inputs: int
  outputs: int
  gradients: int
  temporaries: int
  code: int

  @property
  def total(self) -> int:
    """All together."""
    return sum(dataclasses.astuple(self))


@dataclasses.dataclass(frozen=True)
class StepPlan:
  """One compiled step.

  Attributes:
    step: of steps.STEPS.
    memory: of a chip, or None where the program does not fit.
    missing: bytes by which a chip's memory is too small, 0 where it is not.
    model_flops: of a training step by the model's shape, all chips together; 0 for others.
    program: what one chip does; empty where it does not fit.
    estimate: seconds; None where it does not fit.
    compile_seconds: of this compilation.
  """

  step: str
  memory: Memory | None
  missing: int
  model_flops: float
  program: hlo.Program
  estimate: estimate.Estimate | None
  compile_seconds: float


@dataclasses.dataclass(frozen=True)
class Plan:
  """Steps of a run on a topology."""

  config: TrainConfig
  topology: Topology
  mesh: dict[str, int]
  steps: tuple[StepPlan, ...]
  replicated: tuple[str, ...]

  @property
  def fits(self) -> bool:
    """Whether every step leaves a quarter of the memory free."""
    return all(s.memory and self.share(s.memory.total) <= ROOM for s in self.steps)

  def share(self, size: int) -> float:
    """Bytes as a share of a chip's memory."""
    return size / self.topology.chip.hbm_bytes

  def mfu(self, step: StepPlan) -> float:
    """Predicted share of the peak that the model's own operations reach."""
    if step.estimate is None:
      return 0.0
    peak = self.topology.chip.flops_per_second * self.topology.num_chips
    return step.model_flops / step.estimate.step / peak


def gathered_outside_scan(program: hlo.Program, config: TrainConfig) -> list[hlo.Collective]:
  """Gathers of a kernel of all layers at once, which the scan should do layer by layer."""
  stacked = {config.model.num_encoder_layers, config.model.num_decoder_layers} - {0, 1}
  return [
    c
    for c in program.collectives
    if c.kind == 'all-gather' and len(c.shape) > 2 and c.shape[0] in stacked
    if c.count < c.shape[0]
  ]


def plan(
  config: TrainConfig,
  topology: Topology,
  names: Sequence[str] = ('train',),
  *,
  save: Path | None = None,
) -> Plan:
  """Compiles steps of a run; with `save`, writes the training step's executable.

  Raises:
    ValueError: mesh, rows or parameters do not divide; says what would.
    ImportError: libtpu is not there.
  """
  mesh = make_mesh(config, topology)
  planned = []
  for name in names:
    lowered = steps.lower(name, config, mesh)
    options = compiling.compiler_options(mesh.devices.flat[0].platform) if name == 'train' else {}
    start = time.perf_counter()
    try:
      compiled = lowered.compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as e:
      seconds = time.perf_counter() - start
      missing = missing_bytes(e, sum(_state_bytes(name, _state(config, mesh))))
      planned.append(StepPlan(name, None, missing, 0.0, hlo.Program(), None, seconds))
      continue
    seconds = time.perf_counter() - start
    planned.append(read(name, compiled, config, topology, mesh, seconds))
    if save and name == names[0]:
      executable.write(save, compiled)
  replicated = tuple(steps.replicated(config, mesh))
  return Plan(config, topology, dict(mesh.shape), tuple(planned), replicated)


def slow_to_compile(config: TrainConfig) -> str:
  """Why a run's steps take unusually long to compile, and what would not; '' where they do not."""
  layers = config.model.num_encoder_layers + config.model.num_decoder_layers
  if config.model.scan_layers or layers <= 4:
    return ''
  return (
    f'scan_layers=False: XLA for TPU generates code for each of the {layers} layers, which takes '
    'many minutes; --gin.model_config.TransformerConfig.scan_layers=True generates it once.'
  )


def make_mesh(config: TrainConfig, topology: Topology) -> Mesh:
  """The run's mesh over the chips of a topology."""
  config.mesh.sizes(topology.num_chips)  # refused before libtpu is looked for
  return partitioning.make_mesh(config.mesh, devices(topology))


def read(
  name: str,
  compiled: Any,
  config: TrainConfig,
  topology: Topology,
  mesh: Mesh,
  seconds: float,
) -> StepPlan:
  """What a compiled step, its text and its memory analysis, says of itself."""
  program = hlo.read(compiled.as_text())
  lengths = config.data.lengths
  model_flops = 0.0
  if name == 'train':
    rows = config.data.batch_rows
    model_flops = train_step_flops(config.model, rows, lengths['inputs'], lengths['targets'])
  memory = read_memory(name, compiled, config, mesh)
  timing = estimate.estimate(program, topology, mesh)
  return StepPlan(
    name,
    memory,
    max(0, memory.total - topology.chip.hbm_bytes),
    model_flops,
    program,
    timing,
    seconds,
  )


def read_memory(name: str, compiled: Any, config: TrainConfig, mesh: Mesh) -> Memory:
  """Bytes by class, from what XLA says of arguments and temporaries and the shapes of the state."""
  stats = compiled.memory_analysis()
  state = _state(config, mesh)
  parameters, optimizer = _state_bytes(name, state)
  gradients = 0
  if name == 'train':
    trained, _ = train_state.split(state.model, config)
    gradients = min(steps.bytes_per_chip(trained), stats.temp_size_in_bytes)
  return Memory(
    parameters=parameters,
    optimizer=optimizer,
    inputs=max(0, stats.argument_size_in_bytes - parameters - optimizer),
    outputs=stats.output_size_in_bytes - stats.alias_size_in_bytes,
    gradients=gradients,
    temporaries=stats.temp_size_in_bytes - gradients,
    code=stats.generated_code_size_in_bytes,
  )


def missing_bytes(error: Exception, held: int) -> int:
  """Bytes that a program needs beyond the memory, as XLA's refusal says; others are raised.

  Args:
    error: what compiling raised.
    held: bytes of the state, which are not in what XLA says of temporaries alone.
  """
  text = str(error)
  found = re.search(r'[Ee]xceeded hbm capacity by ' + _SIZE, text)
  if found is not None:
    return _bytes_of(*found.groups())
  found = re.search(rf'HLO temporaries \({_SIZE}\) exceeds available HBM \({_SIZE}\)', text)
  if found is None:
    raise error
  return held + _bytes_of(*found.groups()[:2]) - _bytes_of(*found.groups()[2:])


def _bytes_of(number: str, unit: str) -> int:
  return round(float(number) * 2 ** {'K': 10, 'M': 20, 'G': 30, 'T': 40}[unit])


def _state(config: TrainConfig, mesh: Mesh) -> train_state.TrainState:
  """The abstract state of a run over the chips of a topology."""
  with partitioning.use_mesh(mesh, config.mesh.rules):
    return train_state.abstract_state(config)


def _state_bytes(name: str, state: train_state.TrainState) -> tuple[int, int]:
  """What a chip holds of the parameters and, where the step trains, of the optimizer's state."""
  optimizer = (state.opt_state, state.guard, state.step) if name == 'train' else ()
  return steps.bytes_per_chip(state.model), steps.bytes_per_chip(optimizer)
