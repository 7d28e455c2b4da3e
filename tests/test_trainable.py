"""Frozen parameters and adapters: only what is trained changes, and only that is saved."""

import dataclasses
import json
import re
import shutil

import jax
import numpy as np
import pytest
import tiny
from flax import nnx
from test_train import arrays, assert_same

from flan_jax import (
  checkpoint_files,
  checkpoints,
  parameter_names,
  partitioning,
  train,
  train_state,
)
from flan_jax.models import lora
from flan_jax.models.config import Lora
from flan_jax.models.transformer import Transformer

MESH = partitioning.MeshConfig(data=2, fsdp=2, tensor=2)
LORA = Lora(rank=2, alpha=4.0)
ADAPTED = {'model': {'lora': LORA, 'dtype': 'bfloat16'}, 'frozen_dtype': 'bfloat16'}


@pytest.fixture(scope='module')
def cache_dir(tmp_path_factory):
  return tiny.make_cache(tmp_path_factory.mktemp('cache'))


@pytest.fixture(scope='module')
def base(cache_dir, tmp_path_factory):
  """The workdir of a run to start from, and its parameters by path."""
  workdir = tmp_path_factory.mktemp('base')
  state = train.train(tiny.make_config(cache_dir, steps=2), workdir)
  return workdir, arrays(state.model)


def start_from(base, cache_dir, **changes):
  changes = {'mesh': MESH, 'initial_checkpoint_path': str(base[0]), 'seed': 5, **changes}
  return tiny.make_config(cache_dir, **changes)


@pytest.mark.slow
def test_fine_tuning_goes_on_from_the_parameters(base, cache_dir, tmp_path):
  tuned = train.train(start_from(base, cache_dir, steps=2), tmp_path)
  assert int(tuned.step) == 2
  moved = [np.abs(x - base[1][name]).max() for name, x in arrays(tuned.model).items()]
  assert min(moved) > 0
  # A step of Adafactor is at most the learning rate, 0.01, of a parameter's scale.
  assert max(moved) < 0.2


@pytest.fixture(scope='module')
def adapted(base, cache_dir, tmp_path_factory):
  """A run that trained adapters on a base in bfloat16, resumed once in between."""
  config = start_from(
    base,
    cache_dir,
    **ADAPTED,
    steps=4,
    checkpoint=checkpoints.CheckpointConfig(save_every_steps=2),
  )
  workdir = tmp_path_factory.mktemp('adapted')
  whole = train.train(config, tmp_path_factory.mktemp('whole'))
  train.train(dataclasses.replace(config, steps=2), workdir)
  return config, workdir, train.train(config, workdir), whole


def test_adapters_alone_are_trained_and_a_resumed_run_ends_bitwise_the_same(base, adapted):
  config, _, resumed, whole = adapted
  assert_same(resumed.model, whole.model)
  for name, x in arrays(resumed.model).items():
    if lora.SUFFIX in name:
      assert x.dtype == np.float32
      assert np.abs(x).max() > 0, name
    else:
      assert str(x.dtype) == config.frozen_dtype
      np.testing.assert_array_equal(x, base[1][name].astype(x.dtype))
  trained = {name for name in arrays(resumed.model) if lora.SUFFIX in name}
  assert len(trained) == 2 * (2 * 4 + 2 * 3 + 4)  # of kernels: encoder, decoder, cross attention
  in_optimizer = '\n'.join(arrays(resumed.opt_state))
  assert all(name in in_optimizer for name in trained)
  assert 'query' in in_optimizer and not re.search(r'query$', in_optimizer, re.MULTILINE)


def test_the_checkpoint_holds_adapters_and_names_its_base(base, adapted):
  _, workdir, state, _ = adapted
  with checkpoints.Checkpoints(workdir / 'checkpoints') as saved:
    names = saved.parameter_names(4)
    meta = saved.meta(4)
    assert names == {name for name in arrays(state.model) if lora.SUFFIX in name}
    assert meta['base']['path'].startswith(str(base[0]))
    assert json.loads(json.dumps(meta['model']))['lora'] == {
      'rank': 2,
      'alpha': 4.0,
      'targets': list(LORA.targets),
    }


def test_a_base_that_is_gone_or_another_is_named(base, adapted, cache_dir, tmp_path):
  config, workdir, state, _ = adapted
  folder = next((base[0] / 'checkpoints').glob('[0-9]*'))
  abstract = jax.eval_shape(lambda: train_state.initialize(config, jax.random.key(0)).model)
  aside = folder.with_name('aside')
  with checkpoints.Checkpoints(workdir / 'checkpoints') as saved:
    folder.rename(aside)
    try:
      with pytest.raises(ValueError, match=f'{folder}, which is not there'):
        saved.restore(4, abstract)
    finally:
      aside.rename(folder)
    checksums = folder / checkpoint_files.CHECKSUMS
    content = checksums.read_text()
    checksums.write_text(content + ' ')
    try:
      with pytest.raises(ValueError, match='which is another checkpoint now'):
        saved.restore(4, abstract)
    finally:
      checksums.write_text(content)


def test_a_newer_checkpoint_beside_the_base_changes_nothing(base, cache_dir, tmp_path, monkeypatch):
  workdir = shutil.copytree(base[0], tmp_path / 'base')
  newer = workdir / 'checkpoints' / '9'
  restore = checkpoints.Checkpoints.restore

  def restore_while_the_base_trains_on(saved, step, *args):
    if saved.directory == newer.parent and not newer.exists():
      shutil.copytree(newer.with_name(str(step)), newer)
      (newer / checkpoint_files.CHECKSUMS).write_text('{}')
    return restore(saved, step, *args)

  monkeypatch.setattr(checkpoints.Checkpoints, 'restore', restore_while_the_base_trains_on)
  config = start_from((workdir,), cache_dir, **ADAPTED, steps=1)
  train.train(config, tmp_path / 'run')
  assert checkpoint_files.locate(workdir)[1] == 9
  train.train(dataclasses.replace(config, steps=2), tmp_path / 'run')
  with checkpoints.Checkpoints(tmp_path / 'run' / 'checkpoints') as saved:
    named = [saved.meta(step)['base']['path'] for step in (1, 2)]
  assert named == [str(workdir / 'checkpoints' / '2')] * 2


def test_new_adapters_add_nothing_and_merged_ones_add_the_same(adapted):
  _, _, state, _ = adapted
  model = jax.tree.map(lambda x: np.asarray(x, np.float32), state.model)
  model = _with(model, dtype='float32')
  batch = {
    name: np.arange(1, 25, dtype=np.int32).reshape(2, 12) % 7 + 2
    for name in ('encoder_input_tokens', 'decoder_input_tokens')
  }
  ones = np.ones((2, 12), np.int32)
  batch |= {'encoder_segment_ids': ones, 'decoder_segment_ids': ones}
  run = jax.jit(Transformer.__call__)
  named = dict(parameter_names.variables(model))
  plain = _with(model, lora=None, leaves=[x for n, x in named.items() if lora.SUFFIX not in n])
  silent = jax.tree_util.tree_map_with_path(
    lambda path, x: np.zeros_like(x) if '_lora.b' in parameter_names.path_string(path) else x, model
  )
  np.testing.assert_array_equal(run(silent, batch), run(plain, batch))
  leaves = []
  for name, x in named.items():
    if lora.SUFFIX not in name:
      a, b = named.get(f'{name}{lora.SUFFIX}.a'), named.get(f'{name}{lora.SUFFIX}.b')
      leaves.append(x if a is None else lora.merged(x[...], a[...], b[...], LORA))
  merged = _with(model, lora=None, leaves=leaves)
  np.testing.assert_allclose(run(merged, batch), run(model, batch), rtol=1e-4, atol=1e-4)
  assert np.abs(np.asarray(run(merged, batch)) - run(plain, batch)).max() > 1e-3


def _with(model, leaves=None, **changes):
  """The same parameters, or others, in another configuration."""
  config = dataclasses.replace(model.config, **changes)

  other = jax.eval_shape(lambda: Transformer(config, nnx.Rngs(params=0)))
  leaves = jax.tree.leaves(model) if leaves is None else jax.tree.leaves(leaves)
  return jax.tree.unflatten(jax.tree.structure(other), leaves)


def test_a_base_that_computes_something_else_is_refused(base, cache_dir, tmp_path):
  config = start_from(
    base, cache_dir, model={'relative_bias_max_distance': 64, 'dropout_rate': 0.1}
  )
  expected = f'model in {base[0]}/checkpoints/2 has relative_bias_max_distance=128, not 64 of this'
  with pytest.raises(ValueError, match=expected):
    train.train(config, tmp_path)


def test_a_pattern_freezes_the_rest(base, cache_dir, tmp_path):
  config = start_from(base, cache_dir, trainable=r'decoder\..*mlp', steps=2)
  state = train.train(config, tmp_path)
  for name, x in arrays(state.model).items():
    moved = np.abs(x - base[1][name]).max() > 0
    assert moved == bool(re.search(config.trainable, name)), name


def test_a_pattern_that_names_nothing_is_refused(base, cache_dir, tmp_path):
  config = start_from(base, cache_dir, trainable='decodr')
  with pytest.raises(ValueError, match="TRAINABLE='decodr' is found in no parameter"):
    train.train(config, tmp_path)
  with pytest.raises(ValueError, match=r"FROZEN_DTYPE: No dtype 'bfloat'\. Did you mean"):
    start_from(base, cache_dir, frozen_dtype='bfloat')
