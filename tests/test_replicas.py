"""Copies on several devices that differ are found, and the device that is off is named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from flan_jax import replicas

SHAPE = (8, 6)


def array(spec, dtype=np.float32, damage=()):
  """An array on a mesh of 4 x 2; `damage` gives devices whose copy is off by one bit."""
  mesh = Mesh(np.array(jax.devices()[:8]).reshape(4, 2), ('data', 'tensor'))
  sharding = NamedSharding(mesh, PartitionSpec(*spec))
  values = np.random.default_rng(0).normal(size=SHAPE).astype(dtype)
  parts = []
  for device, index in sharding.devices_indices_map(SHAPE).items():
    part = values[index].copy()
    if device.id in damage:
      bits = part.view(f'uint{8 * part.itemsize}')
      bits[-1, -1] ^= 1
    parts.append(jax.device_put(part, device))
  return jax.make_array_from_single_device_arrays(SHAPE, sharding, parts)


def test_equal_copies_pass():
  specs = [(), (None, 'tensor'), ('data',), (('data', 'tensor'),)]
  dtypes = [np.float32, jnp.bfloat16, np.int32]
  replicas.check_replicas({f'{s} {d}': array(s, d) for s in specs for d in dtypes}, 3)


@pytest.mark.parametrize(
  ('spec', 'damage', 'named'),
  [((), (5,), '5'), ((None, 'tensor'), (3,), '3'), ((None, 'tensor'), (2, 5), '5|2')],
)
def test_one_bit_on_one_device_is_found_by_name(spec, damage, named):
  tree = {'well': array(()), 'kernel': array(spec, damage=damage)}
  with pytest.raises(replicas.CorruptionError, match=f'step 7 the copies of kernel .*({named})'):
    replicas.check_replicas(tree, 7)


def test_of_two_copies_both_are_named():
  with pytest.raises(replicas.CorruptionError) as error:
    replicas.check_replicas({'kernel': array(('data',), damage=(2,))}, 1)
  named = [str(d) for d in jax.devices()[:8] if f'{d} of process 0' in str(error.value)]
  assert named == [str(jax.devices()[2]), str(jax.devices()[3])]


def test_what_is_sharded_over_all_devices_has_no_copies():
  replicas.check_replicas({'kernel': array((('data', 'tensor'),), damage=(0,))}, 1)


def test_exchanged_numbers_are_found():
  good, exchanged = np.arange(4.0, dtype=np.float32), np.array([1, 0, 2, 3], np.float32)
  mesh = Mesh(np.array(jax.devices()[:2]), ('data',))
  sharding = NamedSharding(mesh, PartitionSpec())
  parts = [jax.device_put(x, d) for x, d in zip((good, exchanged), jax.devices(), strict=False)]
  with pytest.raises(replicas.CorruptionError):
    whole = jax.make_array_from_single_device_arrays((4,), sharding, parts)
    replicas.check_replicas({'a': whole}, 1)


def flaky(wrong_call, bit):
  """A step that adds the batch, and in one call gets one bit of one number wrong."""
  calls = iter(range(1, 100))

  def step(state, batch):
    kernel = np.array(state['kernel'] + batch)
    if next(calls) == wrong_call:
      kernel.view(np.uint32)[1, 2] ^= bit
    return {'kernel': jnp.asarray(kernel), 'nan': state['nan']}, {'loss': batch.sum()}

  return step


@pytest.mark.parametrize('wrong_call', [3, 4])
def test_one_bit_of_a_step_that_is_computed_twice_is_found_by_name(wrong_call):
  # With every third step twice, the fake's calls are steps 1, 2, 3 again and 3.
  step = replicas.computed_twice(flaky(wrong_call, 1 << 7), 3)
  state = {'kernel': jnp.ones((2, 3)), 'nan': jnp.full(2, jnp.nan)}
  for _ in range(2):
    state, _ = step(state, jnp.ones((2, 3)))
  with pytest.raises(replicas.CorruptionError, match='computed twice .* differs in 0.kernel: '):
    step(state, jnp.ones((2, 3)))


def test_a_step_that_donates_its_state_is_computed_twice_on_a_mesh():
  mesh = Mesh(np.array(jax.devices()[:8]).reshape(4, 2), ('data', 'tensor'))
  rows = NamedSharding(mesh, PartitionSpec('data', 'tensor'))
  state = {'kernel': jax.device_put(np.ones((8, 6), np.float32), rows)}
  add = jax.jit(lambda s, b: ({'kernel': s['kernel'] + b}, b.sum()), donate_argnums=0)
  step = replicas.computed_twice(add.lower(state, 2.0).compile(), 2)
  for _ in range(4):
    state, _ = step(state, 2.0)
  np.testing.assert_array_equal(np.asarray(state['kernel']), 9.0)
  assert replicas.computed_twice(add, 0) is add
