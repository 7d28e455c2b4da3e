"""Optimizers and learning rates: Adafactor as T5 was trained with, AdamW, and five schedules.

An optimizer is a pair of pure functions on a pytree of parameters, such as an nnx model. Skipping
bad updates and summing microbatches are left to the train step, the arithmetic of Adafactor to
adafactor.py, that of AdamW to optax.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from flan_jax import adafactor as adafactor_lib
from flan_jax import partitioning
from flan_jax.naming import unknown
from flan_jax.parameter_names import by_path, is_variable

Schedule = Callable[[Any], jax.Array]


@dataclasses.dataclass(frozen=True)
class Optimizer:
  """What the train step calls; `optax.apply_updates(params, updates)` then takes the step.

  Attributes:
    init: params -> state, a pytree of arrays by parameter path, laid on the mesh as the
      parameters are.
    update: (gradients, state, params) -> (updates, state).
    schedule: step -> learning rate of that update, float32; steps count from 0.
  """

  init: Callable[[Any], Any]
  update: Callable[[Any, Any, Any], tuple[Any, Any]]
  schedule: Schedule


def adafactor(
  learning_rate: float | Schedule,
  *,
  decay_rate: float = 0.8,
  step_offset: int = 0,
  clipping_threshold: float | None = 1.0,
  multiply_by_parameter_scale: bool = True,
  momentum: float | None = None,
  weight_decay: float | None = None,
  weight_decay_exponent: float | None = None,
  factoring: str = 'by_size',
  min_dim_size_to_factor: int = 128,
  clip_global_norm: float | None = None,
  axes: Any = None,
) -> Optimizer:
  """Adafactor with T5X's defaults: no momentum, steps relative to the scale of a parameter.

  With g the gradient and V its running mean square, kept as row times column for matrices:
  u = g / sqrt(V); update = -learning_rate * max(rms(param), 1e-3) * u / max(1, rms(u) / clip).
  Each layer of a stack is a parameter of its own, and a kernel [embed, heads, head_dim] is the
  matrix embed x (heads * head_dim).

  Args:
    learning_rate: number or schedule; relative if multiply_by_parameter_scale.
    decay_rate: exponent c of the decay 1 - t^-c of V at update t = 1, 2, ...
    step_offset: update at which t counts from 1 again, to forget V when fine-tuning.
    clipping_threshold: greatest root mean square of u, or None.
    multiply_by_parameter_scale: whether steps are relative to the size of the parameter.
    momentum: decay of a running mean of the updates, or None.
    weight_decay: share of a parameter taken off each step, or None.
    weight_decay_exponent: if given, that share is times learning_rate ** weight_decay_exponent.
    factoring: 'by_size', a matrix both of whose sides have min_dim_size_to_factor is factored;
      'by_axes', also every smaller matrix that is stacked or has three dimensions, as T5X's
      scanned networks do; 'none'.
    min_dim_size_to_factor: least size of the smaller side of a factored matrix.
    clip_global_norm: greatest norm of all gradients together, or None.
    axes: pytree of tuples of logical axes, for parameters that are not nnx Params.

  Raises:
    ValueError: for impossible settings.

  Source: arXiv:1804.04235; T5X's adafactor.py.
  """
  _check_choice('factoring', factoring, adafactor_lib.FACTORING)
  _check_above_zero(
    decay_rate=decay_rate, clipping_threshold=clipping_threshold, clip_global_norm=clip_global_norm
  )
  _check_shares(momentum=momentum, weight_decay=weight_decay)
  schedule = _as_schedule(learning_rate)
  rule = adafactor_lib.Adafactor(
    decay_rate=decay_rate,
    step_offset=step_offset,
    clipping_threshold=clipping_threshold,
    multiply_by_parameter_scale=multiply_by_parameter_scale,
    momentum=momentum,
    weight_decay=weight_decay,
    weight_decay_exponent=weight_decay_exponent,
    factoring=factoring,
    min_dim_size_to_factor=min_dim_size_to_factor,
  )

  def update(grads, state, params, axes, scale):
    rate = schedule(state.step)
    return rule.update(grads, state, params, axes, learning_rate=rate, scale=scale)

  return _by_path(rule.init, update, schedule, clip_global_norm, axes)


def adamw(
  learning_rate: float | Schedule,
  *,
  beta1: float = 0.9,
  beta2: float = 0.98,
  epsilon: float = 1e-8,
  weight_decay: float = 0.0,
  clip_global_norm: float | None = None,
  axes: Any = None,
) -> Optimizer:
  """AdamW of optax; decays matrices only, never norms, biases, relative positions, embeddings.

  Args:
    learning_rate: number or schedule; absolute, so far below Adafactor's relative one.
    beta1: decay of the mean of the gradients.
    beta2: decay of their mean square; 0.98 remembers 50 steps, for the sparse gradients of text.
    epsilon: added to the root of the mean square.
    weight_decay: times the learning rate, the share of a matrix taken off each step.
    clip_global_norm: greatest norm of all gradients together, or None.
    axes: pytree of tuples of logical axes, for parameters that are not nnx Params.

  Raises:
    ValueError: for impossible settings.

  Source: arXiv:1711.05101.
  """
  _check_above_zero(epsilon=epsilon, clip_global_norm=clip_global_norm)
  _check_shares(beta1=beta1, beta2=beta2, weight_decay=weight_decay)
  schedule = _as_schedule(learning_rate)

  def rule(params, axes):
    mask = {path: _decays(param, axes[path]) for path, param in params.items()}
    return optax.adamw(schedule, beta1, beta2, epsilon, weight_decay=weight_decay, mask=mask)

  def init(params, axes):
    return rule(params, axes).init(params)

  def update(grads, state, params, axes, scale):
    grads = {path: scale * grad for path, grad in grads.items()}
    return rule(params, axes).update(grads, state, params)

  return _by_path(init, update, schedule, clip_global_norm, axes)


# Schedules. Each takes warmup_steps, over which the learning rate rises in a straight line from 0,
# and offset, the step from which it counts: that of the checkpoint that fine-tuning starts from.


def constant(value: float, *, warmup_steps: int = 0, offset: int = 0) -> Schedule:
  """The same learning rate at every step; T5 fine-tunes at 0.001."""
  _check_schedule(value, warmup_steps)
  return _warmed_up(lambda step: jnp.full_like(step, value), warmup_steps, offset)


def rsqrt(
  base: float, *, hold_steps: int = 10_000, warmup_steps: int = 0, offset: int = 0
) -> Schedule:
  """Falls as base / sqrt(step), level before hold_steps; T5 trains with base 1.0, first at 0.01."""
  _check_schedule(base, warmup_steps)
  if hold_steps < 1:
    raise ValueError(f'hold_steps={hold_steps} is less than 1 step; T5 uses 10000.')
  hold = jnp.float32(hold_steps)
  return _warmed_up(
    lambda step: base * jax.lax.rsqrt(jnp.maximum(step, hold)), warmup_steps, offset
  )


def linear(
  peak: float, *, total_steps: int, warmup_steps: int = 0, final: float = 0.0, offset: int = 0
) -> Schedule:
  """A straight line from `peak`, after the warm-up, to `final` at `total_steps`."""
  progress = _progress(peak, total_steps, warmup_steps)
  return _warmed_up(lambda step: peak + (final - peak) * progress(step), warmup_steps, offset)


def cosine(
  peak: float, *, total_steps: int, warmup_steps: int = 0, final: float = 0.0, offset: int = 0
) -> Schedule:
  """Half a cosine from `peak`, after the warm-up, to `final` at `total_steps`."""
  progress = _progress(peak, total_steps, warmup_steps)

  def rate(step):
    return final + (peak - final) * 0.5 * (1.0 + jnp.cos(math.pi * progress(step)))

  return _warmed_up(rate, warmup_steps, offset)


def _by_path(init, update, schedule, clip_global_norm, axes) -> Optimizer:
  """Lets functions of {path: array} and {path: axes} work on a pytree of parameters."""

  def init_tree(params):
    return init(by_path(params), _axes(params, axes))

  def update_tree(grads, state, params):
    scale = 1.0
    if clip_global_norm is not None:
      scale = jnp.minimum(1.0, clip_global_norm / optax.tree.norm(grads))
    named = by_path(params)
    updates, state = update(by_path(grads), state, named, _axes(params, axes), scale)
    leaves = [updates[path] for path in named]
    return jax.tree.unflatten(jax.tree.structure(params), leaves), state

  return Optimizer(init_tree, update_tree, schedule)


def _axes(params, axes) -> dict:
  """Path -> logical axes: those given, else those of the nnx Params, else None."""
  paths = by_path(params)
  if axes is None:
    if not all(map(is_variable, jax.tree.leaves(params, is_leaf=is_variable))):
      return dict.fromkeys(paths)
    axes = partitioning.logical_axes(params)
  leaves = jax.tree.leaves(axes, is_leaf=lambda x: isinstance(x, tuple) or x is None)
  return dict(zip(paths, leaves, strict=True))


def _decays(param, axes) -> bool:
  """Whether weight decay applies: a matrix that multiplies activations."""
  if axes is None:
    return param.ndim >= 2
  roles = {adafactor_lib.ROLES[axis] for axis in axes}
  # A table that starts with the vocabulary is looked up; the one that ends with it multiplies.
  return {'row', 'column'} <= roles and 'vocab' != axes[0]


def _warmed_up(rate, warmup_steps, offset) -> Schedule:
  """`rate` of the steps since `offset`, rising from 0 during the first `warmup_steps`."""

  def schedule(step):
    step = jnp.maximum(jnp.asarray(step, jnp.float32) - offset, 0.0)
    warm = jnp.minimum(1.0, step / warmup_steps) if warmup_steps else 1.0
    return jnp.float32(warm * rate(step))

  return schedule


def _progress(peak, total_steps, warmup_steps):
  """Step -> 0 at the end of the warm-up to 1 at `total_steps` and after."""
  _check_schedule(peak, warmup_steps)
  if total_steps <= warmup_steps:
    raise ValueError(
      f'total_steps={total_steps} leaves no step after warmup_steps={warmup_steps}; '
      f'use at least {warmup_steps + 1}, or fewer warmup_steps.'
    )
  length = total_steps - warmup_steps
  return lambda step: jnp.clip((step - warmup_steps) / length, 0.0, 1.0)


def _as_schedule(learning_rate: float | Schedule) -> Schedule:
  return learning_rate if callable(learning_rate) else constant(learning_rate)


def _check_schedule(rate, warmup_steps):
  if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate < math.inf:
    raise ValueError(f'learning rate {rate!r} is not a number of at least 0; T5 uses 0.001.')
  if warmup_steps < 0:
    raise ValueError(f'warmup_steps={warmup_steps} is negative; use 0 for no warm-up.')


def _check_above_zero(**settings):
  for name, value in settings.items():
    if value is not None and not value > 0:
      raise ValueError(f'{name}={value} is not above 0; give a positive number, or None for none.')


def _check_shares(**settings):
  for name, value in settings.items():
    if value is not None and not 0 <= value < 1:
      raise ValueError(f'{name}={value} is not a share; choose one from 0.0 up to, but not, 1.0.')


def _check_choice(kind, name, allowed):
  if name not in allowed:
    raise ValueError(unknown(kind, name, allowed))
