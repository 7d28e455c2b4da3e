"""Adafactor as T5X has it (Shazeer and Stern, arXiv:1804.04235), on parameters named by path.

Second moments of matrices are kept as a row and a column. Which dimensions are rows, columns or
separate parameters follows from logical axes. `optimizers.adafactor` is the way in; settings,
schedules and clipping by global norm are there.
"""

import dataclasses
import difflib
import math

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

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

  def update(self, grads: dict, state: AdafactorState, params: dict, axes: dict, learning_rate):
    """The updates to add to `params`, by path, and the state after them."""
    count = (state.step - self.step_offset).astype(jnp.float32) + 1.0
    decay = 1.0 - count**-self.decay_rate
    updates, slots = {}, {}
    for path, param in params.items():
      layout = self.layout(path, param.shape, axes[path])
      grad = grads[path].astype(jnp.float32)
      direction, new = _precondition(grad, state.slots[path], layout, decay)
      step = direction * (learning_rate * self._size(direction, param, layout))
      if self.momentum is not None:
        step = self.momentum * state.slots[path]['m'] + (1.0 - self.momentum) * step
        new['m'] = step
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

  def _size(self, direction, param, layout):
    """Parameter scale over update clipping: one number a layer, its dimensions kept as 1."""
    size = jnp.float32(1.0)
    if self.multiply_by_parameter_scale:
      scale = _root_mean_square(param.astype(jnp.float32), layout.averaged)
      size = jnp.maximum(scale, _LEAST_SCALE)
    if self.clipping_threshold is not None:
      rms = _root_mean_square(direction, layout.averaged)
      size = size / jnp.maximum(1.0, rms / self.clipping_threshold)
    return size

  def _weight_decay(self, learning_rate):
    """The share of every parameter taken off in a step, or None."""
    if self.weight_decay_exponent is None:
      return self.weight_decay
    rate = 1.0 if self.weight_decay is None else self.weight_decay
    return rate * learning_rate**self.weight_decay_exponent


def _precondition(grad, slots, layout, decay):
  """The gradient over the root of its mean square, and the new slots."""
  square = jnp.square(grad) + _LEAST_SQUARE

  def average(slot, dims):
    return decay * slots[slot] + (1.0 - decay) * jnp.mean(square, axis=dims)

  if not layout.row:
    v = decay * slots['v'] + (1.0 - decay) * square
    return grad * jax.lax.rsqrt(v), {'v': v}
  new = {'v_row': average('v_row', layout.column), 'v_col': average('v_col', layout.row)}
  v_row = jnp.expand_dims(new['v_row'], layout.column)
  row = jax.lax.rsqrt(v_row / jnp.mean(v_row, axis=layout.row, keepdims=True))
  column = jax.lax.rsqrt(jnp.expand_dims(new['v_col'], layout.row))
  return grad * row * column, new


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
      close = difflib.get_close_matches(str(axis), ROLES, n=1)
      hint = f' Did you mean {close[0]!r}?' if close else ''
      raise ValueError(
        f'Parameter {path} has the logical axis {axis!r}, which Adafactor has no role for.{hint} '
        f'Known: {", ".join(sorted(ROLES))}.'
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
