"""Optimizers on pytrees and meshes, schedules, and what either refuses."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from flan_jax import optimizers, parameter_names, partitioning
from flan_jax.models.config import TransformerConfig
from flan_jax.models.transformer import Transformer

CONFIG = TransformerConfig(
  vocab_size=128,
  embed_dim=16,
  num_encoder_layers=1,
  num_decoder_layers=2,
  num_heads=4,
  head_dim=8,
  mlp_dim=32,
)
MAKERS = {
  'adafactor': lambda **given: optimizers.adafactor(0.01, min_dim_size_to_factor=16, **given),
  'momentum': lambda **given: optimizers.adafactor(0.01, factoring='none', momentum=0.9, **given),
  'adamw': lambda **given: optimizers.adamw(0.001, weight_decay=0.1, **given),
}


def _fill(abstract, seed, scale=1.0):
  """Random numbers in place of abstract arrays, laid out as they are."""
  rng = np.random.default_rng(seed)

  def fill(leaf):
    value = (scale * rng.normal(size=leaf.shape)).astype(np.float32)
    return jax.device_put(value, leaf.sharding)

  return jax.tree.map(fill, abstract)


def _model():
  return partitioning.abstract(
    lambda key: Transformer(CONFIG, nnx.Rngs(params=key)), jax.random.key(0)
  )


def _steps(optimizer, params, gradients):
  @jax.jit
  def step(params, state, grads):
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state

  state = jax.jit(optimizer.init)(params)
  for grads in gradients:
    params, state = step(params, state, grads)
  return params, state


@pytest.mark.parametrize('name', MAKERS)
def test_a_model_on_a_mesh_gets_the_updates_of_one_device(name):
  optimizer = MAKERS[name](clip_global_norm=1.0)

  def run():
    model = _model()
    return _steps(optimizer, _fill(model, 0), [_fill(model, 1), _fill(model, 2)])

  alone = run()
  with partitioning.use_mesh(partitioning.MeshConfig(data=2, fsdp=2, tensor=2)):
    params, state = run()
    abstract = partitioning.abstract(optimizer.init, _fill(_model(), 0))

  def same(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6 * max(1e-6, float(np.abs(a).max())))

  jax.tree.map(same, alone, (params, state))
  # The state is laid out as eval_shape says, and stays so.
  assert jax.tree.structure(abstract) == jax.tree.structure(state)
  for expected, leaf in zip(jax.tree.leaves(abstract), jax.tree.leaves(state), strict=True):
    assert (expected.shape, expected.dtype) == (leaf.shape, leaf.dtype)
    assert expected.sharding.is_equivalent_to(leaf.sharding, leaf.ndim)


def test_slots_are_sharded_as_the_dimensions_they_keep():
  with partitioning.use_mesh(partitioning.MeshConfig(data=2, fsdp=2, tensor=2)):
    state = partitioning.abstract(MAKERS['adafactor']().init, _fill(_model(), 0))
    spec = partitioning.spec
    slots = state.slots['decoder.layers.attention.output']
    assert slots['v_row'].sharding.spec == spec('layers', 'embed')
    assert slots['v_col'].sharding.spec == spec('layers', 'heads', 'head_dim')
    assert slots['v_row'].shape == (2, 16) and slots['v_col'].shape == (2, 4, 8)
    whole = state.slots['decoder.relative_bias.table']['v']
    assert whole.sharding.spec == spec('heads', 'buckets')


def _separate(tree, axes):
  """{name: [layers, ...]} -> {name.0: ..., name.1: ...}, and their axes."""
  parts, names = {}, {}
  for name, value in tree.items():
    for i in range(value.shape[0]):
      parts[f'{name}{i}'], names[f'{name}{i}'] = value[i], axes[name][1:]
  return parts, names


@pytest.mark.parametrize('factoring', ['by_size', 'none'])
def test_a_stack_is_updated_as_its_layers_are_one_by_one(factoring):
  axes = {
    'kernel': ('layers', 'embed', 'heads', 'head_dim'),
    'mlp': ('layers', 'mlp', 'embed'),
    'scale': ('layers', 'norm'),
    'bias': ('layers', 'heads', 'buckets'),
  }
  shapes = {'kernel': (3, 12, 4, 5), 'mlp': (3, 20, 12), 'scale': (3, 12), 'bias': (3, 4, 32)}
  scales = np.asarray([0.1, 1.0, 10.0])
  rng = np.random.default_rng(0)

  def random():
    drawn = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    layer = {name: scales.reshape(-1, *[1] * (x.ndim - 1)) * x for name, x in drawn.items()}
    return {name: jnp.asarray(x, jnp.float32) for name, x in layer.items()}

  params, gradients = random(), [random(), random()]
  parts, part_axes = _separate(params, axes)
  settings = {'factoring': factoring, 'min_dim_size_to_factor': 8}
  stacked, _ = _steps(optimizers.adafactor(0.1, axes=axes, **settings), params, gradients)
  split, _ = _steps(
    optimizers.adafactor(0.1, axes=part_axes, **settings),
    parts,
    [_separate(grads, axes)[0] for grads in gradients],
  )
  for name, value in _separate(stacked, axes)[0].items():
    np.testing.assert_allclose(value, split[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
  'axes', [('embed', 'heads', 'head_dim'), ('heads', 'head_dim', 'embed')], ids='/'.join
)
def test_kernels_of_heads_are_updated_as_joined_matrices(axes):
  sizes = {'embed': 24, 'heads': 4, 'head_dim': 5}
  shape = tuple(sizes[axis] for axis in axes)
  joined = (24, 20) if axes[0] == 'embed' else (20, 24)
  rng = np.random.default_rng(0)
  arrays = [jnp.asarray(rng.normal(size=shape), jnp.float32) for _ in range(3)]
  matrices = [x.reshape(joined) for x in arrays]
  for least, factored in ((20, True), (21, False)):
    whole = optimizers.adafactor(0.1, axes={'w': axes}, min_dim_size_to_factor=least)
    flat = optimizers.adafactor(0.1, min_dim_size_to_factor=least)
    ours, state = _steps(whole, {'w': arrays[0]}, [{'w': x} for x in arrays[1:]])
    theirs, flat_state = _steps(flat, {'w': matrices[0]}, [{'w': x} for x in matrices[1:]])
    np.testing.assert_allclose(ours['w'].reshape(joined), theirs['w'], rtol=1e-5, atol=1e-6)
    assert ('v_row' in state.slots['w']) == ('v_row' in flat_state.slots['w']) == factored


def test_updates_do_not_depend_on_the_size_of_gradients():
  """What Adafactor is chosen for: the first step is the sign and profile of the gradient alone."""
  params = {'w': jnp.asarray(np.random.default_rng(0).normal(size=(4, 6)), jnp.float32)}
  grads = {'w': jnp.asarray(np.random.default_rng(1).normal(size=(4, 6)), jnp.float32)}
  optimizer = optimizers.adafactor(0.1)
  first, _ = _steps(optimizer, params, [grads])
  second, _ = _steps(optimizer, params, [jax.tree.map(lambda x: 1000 * x, grads)])
  np.testing.assert_allclose(first['w'], second['w'], rtol=1e-5)


def test_clipping_by_global_norm_scales_all_gradients_together():
  rng = np.random.default_rng(0)
  params = {'a': jnp.ones((3, 4)), 'b': jnp.ones(5)}
  grads = {
    name: jnp.asarray(10 * rng.normal(size=x.shape), jnp.float32) for name, x in params.items()
  }
  norm = math.sqrt(sum(float(jnp.sum(x**2)) for x in grads.values()))
  # Without a second moment to divide it out, so that the scale shows: AdamW's epsilon is large.
  clipped, _ = _steps(optimizers.adamw(0.1, epsilon=100.0, clip_global_norm=0.5), params, [grads])
  scaled = jax.tree.map(lambda x: x * 0.5 / norm, grads)
  by_hand, _ = _steps(optimizers.adamw(0.1, epsilon=100.0), params, [scaled])
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), clipped, by_hand)
  loose = optimizers.adamw(0.1, epsilon=100.0, clip_global_norm=2 * norm)
  unclipped, _ = _steps(optimizers.adamw(0.1, epsilon=100.0), params, [grads])
  jax.tree.map(np.testing.assert_array_equal, _steps(loose, params, [grads])[0], unclipped)


def test_weight_decay_of_adamw_spares_norms_tables_and_embeddings():
  model = _fill(_model(), 0)
  still = jax.tree.map(jnp.zeros_like, model)
  decayed, _ = _steps(optimizers.adamw(0.1, weight_decay=0.5), model, [still])
  spared, shrunk = set(), set()
  for path, value in parameter_names.by_path(decayed).items():
    ratio = np.asarray(value) / np.asarray(parameter_names.by_path(model)[path])
    assert np.allclose(ratio, 1.0) or np.allclose(ratio, 0.95), path
    (spared if np.allclose(ratio, 1.0) else shrunk).add(path.rsplit('.', 1)[-1])
  assert spared == {'scale', 'table'}
  assert shrunk == {'query', 'key', 'value', 'output', 'gate', 'up', 'down', 'logits_kernel'}


@settings(max_examples=12)
@given(
  st.sampled_from(['constant', 'rsqrt', 'linear', 'cosine']),
  st.integers(0, 20),
  st.integers(0, 1000),
  st.floats(1e-6, 10.0),
)
def test_schedules_warm_up_never_rise_after_and_are_shifted_by_offset(name, warmup, offset, value):
  given = {
    'rsqrt': {'hold_steps': 30},
    'linear': {'total_steps': 50},
    'cosine': {'total_steps': 50},
  }
  settings = {'warmup_steps': warmup, **given.get(name, {})}
  rates = getattr(optimizers, name)(value, **settings)(jnp.arange(80))
  assert rates.dtype == jnp.float32
  peak = value / math.sqrt(30) if name == 'rsqrt' else value
  np.testing.assert_allclose(rates[:warmup], peak * np.arange(warmup) / max(warmup, 1), rtol=1e-5)
  np.testing.assert_allclose(rates[warmup], peak, rtol=1e-5)
  assert (np.diff(rates[warmup:]) <= 1e-6 * peak).all()
  if name in ('linear', 'cosine'):
    np.testing.assert_allclose(rates[50:], 0.0, atol=1e-6 * peak)
    np.testing.assert_allclose(rates[25 + warmup // 2], peak / 2, rtol=0.1)
  shifted = getattr(optimizers, name)(value, offset=offset, **settings)
  np.testing.assert_allclose(shifted(jnp.arange(80) + offset), rates, rtol=1e-6)


def test_schedules_have_the_known_values():
  np.testing.assert_allclose(
    optimizers.rsqrt(1.0)(jnp.asarray([0, 10_000, 40_000])), [0.01, 0.01, 0.005]
  )
  np.testing.assert_allclose(
    optimizers.linear(1.0, total_steps=10, final=0.2)(jnp.asarray([0, 5, 10, 99])),
    [1, 0.6, 0.2, 0.2],
  )
  np.testing.assert_allclose(
    optimizers.cosine(2.0, total_steps=8, final=1.0)(jnp.asarray([0, 2, 4, 8])),
    [2, 1.5 + 0.5 * math.sqrt(0.5), 1.5, 1],
    rtol=1e-6,
  )
  assert optimizers.constant(0.001)(10**9) == jnp.float32(0.001)


def test_the_learning_rate_of_each_step_is_that_of_its_schedule():
  schedule = optimizers.linear(0.1, total_steps=4)
  params, grads = {'w': jnp.ones(4)}, {'w': jnp.ones(4)}
  for optimizer in (
    optimizers.adafactor(schedule, multiply_by_parameter_scale=False),
    optimizers.adamw(schedule),
  ):
    state, rates = optimizer.init(params), []
    for step in range(5):
      updates, state = optimizer.update(grads, state, params)
      rates.append(-float(updates['w'][0]))
      np.testing.assert_allclose(rates[-1], optimizer.schedule(step), rtol=1e-4, atol=1e-7)
    assert rates[-1] == 0


@pytest.mark.parametrize(
  'make, words',
  [
    (lambda: optimizers.constant(-1.0), 'learning rate -1.0 is not a number of at least 0'),
    (lambda: optimizers.constant('0.1'), "learning rate '0.1' is not a number of at least 0"),
    (lambda: optimizers.adafactor(math.nan), 'learning rate nan is not a number'),
    (lambda: optimizers.constant(1.0, warmup_steps=-2), 'warmup_steps=-2 is negative'),
    (lambda: optimizers.rsqrt(1.0, hold_steps=0), 'hold_steps=0 is less than 1 step'),
    (
      lambda: optimizers.cosine(1.0, total_steps=10, warmup_steps=10),
      'total_steps=10 leaves no step after warmup_steps=10; use at least 11',
    ),
    (
      lambda: optimizers.adafactor(0.1, factoring='size'),
      "No factoring 'size'. Did you mean 'by_size'",
    ),
    (
      lambda: optimizers.adafactor(0.1, clipping_threshold=0),
      'clipping_threshold=0 is not above 0',
    ),
    (lambda: optimizers.adamw(0.1, clip_global_norm=-1), 'clip_global_norm=-1 is not above 0'),
    (lambda: optimizers.adafactor(0.1, momentum=1.0), 'momentum=1.0 is not a share'),
    (lambda: optimizers.adamw(0.1, beta2=1.5), 'beta2=1.5 is not a share'),
  ],
)
def test_impossible_settings_are_refused(make, words):
  with pytest.raises(ValueError, match='^' + words):
    make()


@pytest.mark.parametrize(
  'axes, words',
  [
    (None, r'Parameter a.w of shape \(2, 3, 4\) has 3 dimensions and no logical axes'),
    (('embed', 'mlp'), r'Parameter a.w of shape \(2, 3, 4\) has 3 dimensions and 2 logical axes'),
    (
      ('layer', 'embed', 'mlp'),
      "Parameter a.w has the logical axis 'layer', .* Did you mean 'layers'",
    ),
  ],
)
def test_parameters_of_unknown_meaning_are_refused_by_name(axes, words):
  axes = None if axes is None else {'a': {'w': axes}}
  with pytest.raises(ValueError, match='^' + words):
    optimizers.adafactor(0.1, axes=axes).init({'a': {'w': jnp.ones((2, 3, 4))}})
