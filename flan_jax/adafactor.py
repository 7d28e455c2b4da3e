"""Adafactor as T5X has it (Shazeer and Stern, arXiv:1804.04235), on parameters named by path.

Second moments of matrices are kept as a row and a column. Which dimensions are rows, columns or
separate parameters follows from logical axes. `optimizers.adafactor` is the way in; settings,
schedules and clipping by global norm are there.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from flan_jax import partitioning
from flan_jax.naming import listing, nearest

# What a logical axis is to the second moment. A row times a column approximates it, 'batch' axes
# hold separate parameters, and an axis of 'none' keeps its parameter from being factored.
ROLES = {
  'embed': 'row',
  'vocab': 'column',
  'mlp': 'column',
  'heads': 'column',
  'kv_heads': 'column',
  'head_dim': 'column',
  'layers': 'batch',
  'buckets': 'none',
  'norm': 'none',
  'lora_rank': 'none',
}
FACTORING = ('by_size', 'by_axes', 'none')

# Least square of a gradient and least scale of a parameter: Adafactor's epsilon 1 and 2.
_LEAST_SQUARE = 1e-30
_LEAST_SCALE = 1e-3


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AdafactorState:
  """Adafactor's memory between steps.

  Attributes:
    step: int32 scalar, updates made so far.
    slots: parameter path -> slot -> float32 array, laid on the mesh as the parameter is. Slot
      `v_row` is the mean square gradient over the column dimensions, `v_col` over the row
      dimensions, `v` that of each element where nothing is factored, `m` the momentum if any.
  """

  step: jax.Array
  slots: dict[str, dict[str, jax.Array]]


@dataclasses.dataclass(frozen=True)
class Layout:
  """Dimensions of one parameter: averaged over, and both sides of its matrix if factored."""

  averaged: tuple[int, ...]
  row: tuple[int, ...] = ()
  column: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Adafactor:
  """Settings of `optimizers.adafactor`, which documents them, and the arithmetic."""

  decay_rate: float
  step_offset: int
  clipping_threshold: float | None
  multiply_by_parameter_scale: bool
  momentum: float | None
  weight_decay: float | None
  weight_decay_exponent: float | None
  factoring: str
  min_dim_size_to_factor: int

  def init(self, params: dict, axes: dict) -> AdafactorState:
    """Zeros for every parameter; `axes` maps its path to its logical axes, or to None."""
    slots = {}
    for path, param in params.items():
      layout = self.layout(path, param.shape, axes[path])
      if layout.row:
        slots[path] = {'v_row': _zeros(param, layout.column), 'v_col': _zeros(param, layout.row)}
      else:
        slots[path] = {'v': _zeros(param)}
      if self.momentum is not None:
        slots[path]['m'] = _zeros(param)
    return AdafactorState(step=jnp.zeros((), jnp.int32), slots=slots)

  def update(
    self, grads: dict, state: AdafactorState, params: dict, axes: dict, *, learning_rate, scale
  ) -> tuple[dict, AdafactorState]:
    """The updates to add to `params`, by path, of the gradients times `scale`; the next state."""
    count = (state.step - self.step_offset).astype(jnp.float32) + 1.0
    decay = 1.0 - count**-self.decay_rate
    updates, slots = {}, {}
    for path, param in params.items():
      layout = self.layout(path, param.shape, axes[path])
      old = state.slots[path]
      grad = grads[path].astype(jnp.float32)
      new, factors = _second_moment(grad, scale, old, layout, decay)
      size = scale * learning_rate * self._size(grad, scale, factors, param, layout)
      step = _product(grad, factors) * size
      if self.momentum is not None:
        step = new['m'] = self.momentum * old['m'] + (1.0 - self.momentum) * step
      weight_decay = self._weight_decay(learning_rate)
      updates[path] = -step if weight_decay is None else -step - weight_decay * param
      slots[path] = new
    return updates, AdafactorState(step=state.step + 1, slots=slots)

  def layout(self, path: str, shape: tuple[int, ...], axes: tuple[str, ...] | None) -> Layout:
    """How the parameter at `path` is averaged and factored."""
    roles = _roles(path, shape, axes)
    averaged = tuple(i for i, role in enumerate(roles) if role != 'batch')
    row = tuple(i for i in averaged if roles[i] == 'row')
    column = tuple(i for i in averaged if roles[i] == 'column')
    # T5X factors a plain matrix by its size alone, so that this holds for any axes.
    plain = len(averaged) == len(shape) <= 2
    if len(averaged) == 2 and (plain or self.factoring == 'by_size'):
      row, column = averaged[:1], averaged[1:]
    if self.factoring == 'none' or len(row) + len(column) < len(averaged) or not (row and column):
      return Layout(averaged)
    if not plain and self.factoring == 'by_axes':
      return Layout(averaged, row, column)
    # T5X calls the smaller side the row, of equal sides the first.
    sides = [(math.prod(shape[i] for i in side), side) for side in sorted((row, column))]
    (size, row), (_, column) = sorted(sides, key=lambda side: side[0])
    factored = size >= self.min_dim_size_to_factor
    return Layout(averaged, row, column) if factored else Layout(averaged)

  def _size(self, grad, scale, factors, param, layout):
    """Parameter scale over update clipping: one number a layer, its dimensions kept as 1."""
    size = jnp.float32(1.0)
    if self.multiply_by_parameter_scale:
      rms = _root_mean_square(param.astype(jnp.float32), layout.averaged)
      size = jnp.maximum(rms, _LEAST_SCALE)
    if self.clipping_threshold is not None:
      direction = _product(*_apart(grad, factors))
      rms = scale * _root_mean_square(direction, layout.averaged)
      size = size / jnp.maximum(1.0, rms / self.clipping_threshold)
    return size

  def _weight_decay(self, learning_rate):
    """The share of every parameter taken off in a step, or None."""
    if self.weight_decay_exponent is None:
      return self.weight_decay
    rate = 1.0 if self.weight_decay is None else self.weight_decay
    return rate * learning_rate**self.weight_decay_exponent


def _apart(x, use):
  """Returns `x` and `use`, made different arrays in XLA's eyes from `x` used elsewhere.

  What two reductions share, such as the squares of the gradient, XLA writes to memory, and on a
  CPU that takes four times as long as reading the gradient once more for each.
  """
  return jax.lax.optimization_barrier((x, use))


def _product(grad, factors):
  for factor in factors:
    grad = grad * factor
  return grad


def _second_moment(grad, scale, slots, layout, decay):
  """The new slots, and the factors that divide a gradient by the root of its mean square."""

  def average(slot, dims):
    grad_apart, old = _apart(grad, slots[slot])
    square = _mean_square(grad_apart, dims)
    return decay * old + (1.0 - decay) * (jnp.square(scale) * square + _LEAST_SQUARE)

  if not layout.row:
    v = average('v', ())
    return {'v': v}, (jax.lax.rsqrt(v),)
  v_row, v_col = average('v_row', layout.column), average('v_col', layout.row)
  row = jnp.expand_dims(v_row, layout.column)
  row = jax.lax.rsqrt(row / jnp.mean(row, axis=layout.row, keepdims=True))
  column = jax.lax.rsqrt(jnp.expand_dims(v_col, layout.row))
  return {'v_row': v_row, 'v_col': v_col}, (row, column)


def _mean_square(x, dims):
  square = jnp.square(x)
  if x.ndim == 2 and dims == (0,) and partitioning.on_one_cpu():
    # Rows of a vocabulary added up: XLA takes six times as long for a sum over the first dimension.
    return jnp.full(len(x), 1 / len(x), x.dtype) @ square
  return jnp.mean(square, axis=dims)


def _root_mean_square(x, dims):
  return jnp.sqrt(jnp.mean(jnp.square(x), axis=dims, keepdims=True))


def _roles(path, shape, axes):
  """The role of each dimension; without axes, that of a vector or a matrix."""
  if axes is None:
    if len(shape) > 2:
      raise ValueError(
        f'Parameter {path} of shape {tuple(shape)} has {len(shape)} dimensions and no logical '
        "axes, so which of them are rows, columns or layers is unknown; give its 'axes'."
      )
    return ('none',) * len(shape)
  if len(axes) != len(shape):
    raise ValueError(
      f'Parameter {path} of shape {tuple(shape)} has {len(shape)} dimensions and '
      f'{len(axes)} logical axes {tuple(axes)}; name one axis for each dimension.'
    )
  for axis in axes:
    if axis not in ROLES:
      raise ValueError(
        f'Parameter {path} has the logical axis {axis!r}, which Adafactor has no role for.'
        f'{nearest(axis, ROLES)} Known: {listing(ROLES)}.'
      )
  return tuple(ROLES[axis] for axis in axes)


def _zeros(param, dropped=()):
  """Float32 zeros shaped and laid on the mesh like `param` without the `dropped` dimensions."""
  kept = [i for i in range(param.ndim) if i not in dropped]
  shape = tuple(param.shape[i] for i in kept)
  sharding = jax.typeof(param).sharding
  if sharding.mesh.empty:
    return jnp.zeros(shape, jnp.float32)
  entries = (*sharding.spec, *[None] * (param.ndim - len(sharding.spec)))
  layout = PartitionSpec(*(entries[i] for i in kept))
  return jnp.zeros(shape, jnp.float32, out_sharding=layout)
