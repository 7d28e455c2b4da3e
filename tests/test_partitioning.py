"""Meshes and logical axes: layouts, names of parameters, and every refusal with its advice."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

from flan_jax import parameter_names, partitioning
from flan_jax.models.config import TransformerConfig
from flan_jax.models.transformer import Transformer
from flan_jax.partitioning import MeshConfig

TINY = TransformerConfig(
  vocab_size=256,
  embed_dim=32,
  num_encoder_layers=2,
  num_decoder_layers=2,
  num_heads=4,
  head_dim=8,
  mlp_dim=48,
)


def _make(config=TINY):
  return Transformer(config, nnx.Rngs(params=0))


def test_minus_one_takes_the_devices_that_are_left():
  assert MeshConfig().sizes(8) == (8, 1, 1, 1)
  assert MeshConfig(data=2, fsdp=-1, tensor=2).sizes(8) == (2, 2, 2, 1)
  mesh = partitioning.make_mesh(MeshConfig(data=1, sequence=2), jax.devices()[:2])
  assert dict(mesh.shape) == {'data': 1, 'fsdp': 1, 'tensor': 1, 'sequence': 2}
  assert set(mesh.axis_types) == {jax.sharding.AxisType.Explicit}


@pytest.mark.parametrize(
  ('sizes', 'message'),
  [
    (
      {'fsdp': 3},
      'The mesh data=-1 x fsdp=3 x tensor=1 x sequence=1 needs a multiple of 3 devices, but there '
      'are 8; use fsdp=2 in MESH.',
    ),
    (
      {'data': 2, 'fsdp': 8},
      'data=2 x fsdp=8 x tensor=1 x sequence=1 needs 16 devices, but there are 8; use fsdp=4',
    ),
    (
      {'data': 3, 'fsdp': 5},
      'needs 15 devices, but there are 8; choose sizes whose product is 8 in MESH.',
    ),
    ({'data': 0}, 'data=0 is no size of a mesh axis; give a positive number of devices, or -1 for'),
    ({'fsdp': -1}, 'data and fsdp are both -1; only one mesh axis can take what is left.'),
    (
      {'rules': 'fsdp_tensors'},
      "No sharding preset 'fsdp_tensors'. Did you mean 'fsdp_tensor'? Known: data_parallel, fsdp, "
      'fsdp_tensor.',
    ),
    (
      {'tensor': 2, 'rules': 'fsdp'},
      "tensor=2 would only repeat work, as rules='fsdp' shard nothing over it; use tensor=1, or",
    ),
  ],
)
def test_a_mesh_that_does_not_fit_says_what_would(sizes, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    partitioning.make_mesh(MeshConfig(**sizes))


def test_a_preset_named_on_use_is_checked_too():
  mesh = partitioning.make_mesh(MeshConfig())
  with pytest.raises(ValueError, match=re.escape("No sharding preset 'fsd'. Did you mean 'fsdp'?")):
    with partitioning.use_mesh(mesh, 'fsd'):
      pass


def test_presets_lay_out_what_they_say():
  mesh = partitioning.make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
  expected = {
    'data_parallel': (None, None, None),
    'fsdp': ('fsdp', None, None),
    'fsdp_tensor': ('fsdp', 'tensor', None),
  }
  assert expected.keys() == partitioning.PRESETS.keys()
  for rules, entries in expected.items():
    with partitioning.use_mesh(mesh, rules):
      assert partitioning.spec('embed', 'heads', 'head_dim') == PartitionSpec(*entries)
      rows = partitioning.spec('batch', 'length', None)
      assert rows == PartitionSpec(('data', 'fsdp'), 'sequence', None)
    layout = partitioning.batch_sharding(mesh, rules)
    assert layout.spec == PartitionSpec(('data', 'fsdp'), 'sequence')


def test_every_preset_knows_the_same_axes():
  known = {frozenset(rules) for rules in partitioning.PRESETS.values()}
  assert len(known) == 1


def test_without_a_mesh_nothing_is_laid_out():
  x = jnp.ones((3, 5))
  assert partitioning.shard(x, 'batch', 'length') is x
  assert partitioning.out('batch', 'length') is None
  assert partitioning.spec('batch', 'length') == PartitionSpec(None, None)
  assert not partitioning.has_mesh()
  assert partitioning.abstract(lambda: jnp.ones(3)).shape == (3,)


def test_axes_named_whole_are_not_sharded():
  with partitioning.use_mesh(MeshConfig(data=4, sequence=2)):
    with partitioning.whole('length'):
      assert partitioning.spec('batch', 'length') == PartitionSpec(('data', 'fsdp'), None)
    assert partitioning.spec('length') == PartitionSpec('sequence')


def test_a_function_jitted_under_one_preset_is_laid_out_anew_under_another():
  mesh = partitioning.make_mesh(MeshConfig(data=4, fsdp=2))
  make = jax.jit(lambda: partitioning.shard(jnp.ones((4, 4)), 'embed', 'mlp'))
  with partitioning.use_mesh(mesh, 'fsdp'):
    assert make().sharding.spec == PartitionSpec('fsdp', None)
  with partitioning.use_mesh(mesh, 'data_parallel'):
    assert make().sharding.spec == PartitionSpec(None, None)


def test_an_unknown_axis_is_refused_with_the_nearest():
  message = "No logical axis 'head'. Did you mean 'heads'? Known: act_carry, act_embed, act_heads"
  with pytest.raises(ValueError, match=re.escape(message)):
    partitioning.spec('embed', 'head')


def test_two_axes_of_an_array_cannot_share_a_mesh_axis():
  with partitioning.use_mesh(MeshConfig(data=4, tensor=2)):
    message = (
      "Axes 'heads' and 'mlp' of one array ('heads', 'mlp') would both be sharded over mesh axis "
      "'tensor'; name one of them None, or change the rules."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
      partitioning.spec('heads', 'mlp')


@pytest.mark.parametrize(
  ('rows', 'advice'),
  [(100, 'use 96 or 104, or lower fsdp'), (3, 'use 8, or lower fsdp'), (0, 'use 8, or lower fsdp')],
)
def test_rows_that_do_not_divide_are_refused(rows, advice):
  mesh = partitioning.make_mesh(MeshConfig(data=2, fsdp=4))
  message = f'{rows} rows cannot be split over data x fsdp = 8 devices; {advice} in MESH.'
  with pytest.raises(ValueError, match=re.escape(message)):
    partitioning.check_batch_rows(rows, mesh)
  partitioning.check_batch_rows(96, mesh)


@pytest.mark.parametrize(
  ('changes', 'mesh', 'message'),
  [
    (
      {'num_heads': 6},
      MeshConfig(data=2, tensor=4),
      "Parameter decoder.layers.attention.key: axis 'kv_heads' of size 6 cannot be split over "
      'tensor = 4 devices; use tensor = 2 in MESH, or make it a multiple of 4.',
    ),
    (
      {'embed_dim': 36},
      MeshConfig(data=1, fsdp=8),
      "axis 'embed' of size 36 cannot be split over fsdp = 8 devices; use fsdp = 4 in MESH, or",
    ),
    (
      {'num_kv_heads': 2},
      MeshConfig(data=2, tensor=4),
      "Parameter decoder.layers.attention.key: axis 'kv_heads' of size 2 cannot be split over "
      'tensor = 4 devices; use tensor = 2 in MESH, or make it a multiple of 4.',
    ),
  ],
)
def test_a_parameter_that_does_not_divide_is_refused_by_name(changes, mesh, message):
  config = TransformerConfig(**{**vars(TINY), 'num_kv_heads': None, **changes})
  with partitioning.use_mesh(mesh):
    with pytest.raises(ValueError, match=re.escape(message)):
      partitioning.abstract(lambda: _make(config))


def test_parameters_and_optimizer_state_have_shapes_and_layouts_before_they_exist():
  optimizer = optax.adam(1e-3)

  def make():
    model = _make()
    return model, optimizer.init(model)

  with partitioning.use_mesh(MeshConfig(data=2, fsdp=2, tensor=2)) as mesh:
    model, state = partitioning.abstract(make)
    concrete = jax.jit(make, compiler_options={'xla_backend_optimization_level': '0'})()
  moments = jax.tree.leaves(state[0].mu)
  for parameter, moment in zip(jax.tree.leaves(model), moments, strict=True):
    assert parameter.sharding == moment.sharding
    assert parameter.sharding.mesh == mesh
  for expected, array in zip(
    jax.tree.leaves((model, state)), jax.tree.leaves(concrete), strict=True
  ):
    assert (expected.shape, expected.dtype) == (array.shape, array.dtype)
    assert expected.sharding.is_equivalent_to(array.sharding, array.ndim)


def test_no_parameter_is_replicated_that_a_rule_should_shard():
  with partitioning.use_mesh(MeshConfig(data=2, fsdp=2, tensor=2)):
    rows = partitioning.parameter_table(partitioning.abstract(_make))
  replicated = {row.path.split('.')[-1] for row in rows if not any(row.spec)}
  assert replicated == {'scale'}


def test_paths_name_parameters_and_stacked_axes_begin_with_layers():
  model = jax.eval_shape(_make)
  axes = partitioning.logical_axes(model)
  named = {}
  jax.tree.map(lambda leaf, its: named.setdefault(its, []).append(leaf.shape), model, axes)
  assert named[('layers', 'heads', 'head_dim', 'embed')] == [(2, 4, 8, 32)] * 3
  assert named[('vocab', 'embed')] == [(256, 32)]
  paths = [
    parameter_names.path_string(path) for path, _ in jax.tree_util.tree_flatten_with_path(model)[0]
  ]
  assert paths == [row.path for row in partitioning.parameter_table(model)]
  assert len(set(paths)) == len(paths)
  assert 'decoder.layers.attention.value' in paths
  assert 'logits_kernel' in paths
  plain = jax.tree_util.tree_flatten_with_path({'a': [np.ones(2), {'value': 1}]})[0]
  assert [parameter_names.path_string(path) for path, _ in plain] == ['a.0', 'a.1.value']
