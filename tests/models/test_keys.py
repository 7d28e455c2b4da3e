"""Keys hashed many at a time are those that Flax gives one by one."""

import jax
import numpy as np
import pytest
from flax import nnx

from flan_jax.models.keys import Keys


def draws(rngs, count):
  return [np.asarray(jax.random.key_data(rngs.params())) for _ in range(count)]


@pytest.mark.parametrize('layers', [None, 3])
def test_keys_are_those_of_flax_however_many(layers):
  count = 70
  rngs = nnx.Rngs(params=jax.random.key(3))
  keys = Keys.of(rngs)
  np.testing.assert_array_equal(draws(keys, 2), draws(rngs, 2))
  if layers:

    def of_each_layer(rngs):
      return jax.vmap(lambda own: [jax.random.key_data(own.params()) for _ in range(count)])(rngs)

    np.testing.assert_array_equal(
      of_each_layer(keys.split(layers)), of_each_layer(rngs.split(layers))
    )
  np.testing.assert_array_equal(draws(keys, count), draws(rngs, count))
