"""Adafactor against T5X's arrays: every variant, parameters and slots over ten steps."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flan_jax import optimizers

# T5X's names of logical axes -> ours.
AXES = {'kv': 'head_dim', 'joined_kv': 'heads', 'relpos_buckets': 'buckets'}
# T5X's names of settings -> ours.
SETTINGS = {
  'beta1': 'momentum',
  'clipping_threshold': 'clipping_threshold',
  'global_norm_clip_threshold': 'clip_global_norm',
  'multiply_by_parameter_scale': 'multiply_by_parameter_scale',
  'step_offset': 'step_offset',
  'weight_decay_rate_lr_exponent': 'weight_decay_exponent',
}
VARIANTS = [
  'default',
  'heuristic',
  'beta1_0.9',
  'global_norm_clip',
  pytest.param('no_clip', marks=pytest.mark.slow),
  pytest.param('no_param_scale', marks=pytest.mark.slow),
  pytest.param('resumed_step_100', marks=pytest.mark.slow),
  'step_offset_100',
  'unfactored',
  'weight_decay',
]


@pytest.fixture(scope='module')
def oracle(shared):
  with np.load(shared('oracles/t5x_adafactor.npz')) as arrays:
    return {name: arrays[name] for name in arrays}


def _names(oracle, variant):
  return [key.split('/')[2] for key in oracle if key.startswith(f'{variant}/rule/')]


def _axes(oracle, names):
  split = {name: str(oracle[f'axes/{name}']).split('|') for name in names}
  return {name: tuple(AXES.get(axis, axis) for axis in axes) for name, axes in split.items()}


def _optimizer(oracle, variant, names):
  given = json.loads(str(oracle[f'{variant}/hp']))
  settings = {SETTINGS[key]: value for key, value in given.items() if key in SETTINGS}
  # T5X's axis rules factor what is stacked whatever its size.
  factoring = 'by_axes' if given.get('factored', True) else 'none'
  axes = _axes(oracle, names) if given['logical_factor_rules'] else None
  if variant == 'unfactored':
    # Here T5X takes a whole stack for one parameter, which we do only if it is not called one.
    axes = {
      name: tuple('mlp' if axis == 'layers' else axis for axis in axes[name]) for name in axes
    }
  optimizer = optimizers.adafactor(
    given['learning_rate'], factoring=factoring, axes=axes, **settings
  )
  return optimizer, given['start_step']


def _run(optimizer, start, params, gradients):
  """The parameters after each step, and the last state."""

  @jax.jit
  def step(params, state, grads):
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state

  state = optimizer.init(params)
  state = type(state)(step=jnp.int32(start), slots=state.slots)
  after = []
  for grads in gradients:
    params, state = step(params, state, grads)
    after.append(params)
  return after, state


def _gradients(oracle, names):
  return [{name: jnp.asarray(oracle[f'g/{step}/{name}']) for name in names} for step in range(10)]


@pytest.mark.parametrize('variant', VARIANTS)
def test_ten_steps_equal_t5x(oracle, variant):
  names = _names(oracle, variant)
  optimizer, start = _optimizer(oracle, variant, names)
  params = {name: jnp.asarray(oracle[f'p0/{name}']) for name in names}
  after, state = _run(optimizer, start, params, _gradients(oracle, names))
  assert state.step == start + 10
  compared = 0
  for name in names:
    for step in range(10):
      key = f'{variant}/p/{step}/{name}'
      if key in oracle:
        np.testing.assert_allclose(
          after[step][name], oracle[key], rtol=1e-5, atol=1e-9, err_msg=key
        )
        compared += 1
    for slot in ('v_row', 'v_col', 'v', 'm'):
      key = f'{variant}/s/9/{name}/{slot}'
      if slot in state.slots[name]:
        # Momentum changes sign, and what is left where it cancels has fewer digits.
        atol = 1e-6 * np.max(np.abs(oracle[key])) if slot == 'm' else 0.0
        np.testing.assert_allclose(
          state.slots[name][slot], oracle[key], rtol=1e-5, atol=atol, err_msg=key
        )
      else:
        assert oracle[key].shape == (1,)
  assert compared >= len(names)
