"""Options of the compiler by device, and who has the last word on them."""

from types import SimpleNamespace

import jax
import numpy as np

from flan_jax import compiling, partitioning

GATHER = 'xla_enable_async_all_gather'


def tpus():
  return SimpleNamespace(devices=np.array([SimpleNamespace(platform='tpu')]))


def test_a_device_that_is_no_tpu_gets_no_option_that_it_would_not_know():
  mesh = partitioning.make_mesh(partitioning.MeshConfig(), jax.devices())
  assert compiling.compiler_options(mesh) == {}


def test_an_option_in_the_environment_wins(monkeypatch):
  monkeypatch.delenv('LIBTPU_INIT_ARGS', raising=False)
  ours = compiling.compiler_options(tpus())
  assert ours[GATHER] is True
  monkeypatch.setenv('LIBTPU_INIT_ARGS', f'--{GATHER}=false --xla_other=1')
  theirs = compiling.compiler_options(tpus())
  assert ours.items() - theirs.items() == {(GATHER, True)}
