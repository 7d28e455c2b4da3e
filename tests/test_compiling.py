"""Options of the compiler by device, and who has the last word on them."""

import jax
import jax.numpy as jnp
import pytest

from flan_jax import compiling


def test_a_device_gets_no_option_that_it_would_not_know():
  assert compiling.compiler_options('gpu') == {}
  options = compiling.compiler_options('cpu')
  assert jax.jit(jnp.sin).lower(1.0).compile(options)(0.0) == 0


@pytest.mark.parametrize(
  'platform, variable, name, value',
  [
    ('tpu', 'LIBTPU_INIT_ARGS', 'xla_enable_async_all_gather', True),
    ('cpu', 'XLA_FLAGS', 'xla_cpu_opt_preset', 'CPU_OPT_PRESET_FAST_COMPILE'),
  ],
)
def test_an_option_in_the_environment_wins(monkeypatch, platform, variable, name, value):
  monkeypatch.delenv(variable, raising=False)
  ours = compiling.compiler_options(platform)
  assert ours[name] == value
  monkeypatch.setenv(variable, f'--{name}=false --xla_other=1')
  theirs = compiling.compiler_options(platform)
  assert ours.items() - theirs.items() == {(name, value)}
