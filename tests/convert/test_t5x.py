"""T5X's checkpoints give T5X's logits, in all three of its layouts."""

import json
import re
import shutil

import numpy as np
import pytest
from flax import serialization

from flan_jax.convert import t5x
from flan_jax.convert.source import ConvertError


def packed(shared):
  """The packed batch of the oracles, and where it has tokens."""
  arrays = np.load(shared('oracles/t5_network.npz'))
  batch = {key[6:]: arrays[key] for key in arrays.files if key.startswith('batch/')}
  return batch, batch['decoder_segment_ids'] > 0


def whole(stored):
  return stored.read((slice(None),) * len(stored.shape))


@pytest.mark.parametrize('folder', ['t5x_ckpt', 't5x_ckpt/checkpoint_10', 't5x_ckpt_orbax'])
def test_logits_are_those_of_t5x(folder, shared, logits):
  batch, seen = packed(shared)
  expected = np.load(shared('oracles/t5_network.npz'))['train10/logits_packed']
  found = logits(t5x.open_checkpoint(shared(f'oracles/{folder}')), batch)
  np.testing.assert_allclose(found[seen], expected[seen], rtol=0, atol=1e-4)


def test_a_scanned_checkpoint_holds_what_its_network_had(shared):
  oracle = np.load(shared('oracles/t5_scalable.npz'))
  source = t5x.open_checkpoint(shared('oracles/t5x_ckpt_scalable'))
  trained = {k[13:].replace('/', '.'): k for k in oracle.files if k.startswith('train5/param/')}
  assert source.stored.keys() == trained.keys()
  for name, key in trained.items():
    np.testing.assert_array_equal(whole(source.stored[name]), oracle[key], err_msg=name)
  assert source.config.relative_bias_per_layer


def write(folder, parameters, *, inline):
  """A checkpoint of T5X's legacy layout: arrays in folders, or in the msgpack file."""
  import tensorstore

  folder.mkdir(parents=True)
  target = {}
  for path, array in parameters.items():
    *parents, name = path.split('/')
    tree = target
    for parent in parents:
      tree = tree.setdefault(parent, {})
    tree[name] = array
    if not inline:
      place = f'target.{path.replace("/", ".")}'
      spec = {'driver': 'zarr', 'kvstore': {'driver': 'file', 'path': f'{folder / place}/'}}
      shape = {'dtype': array.dtype.name, 'shape': array.shape, 'create': True}
      tensorstore.open(spec, **shape).result().write(array).result()
      # Where T5X wrote it, in a bucket of long ago.
      tree[name] = spec | {'kvstore': {'driver': 'gfile', 'path': f'/old/checkpoint_5/{place}/'}}
  state = {'version': 3, 'optimizer': {'target': target, 'state': {}}}
  (folder / 'checkpoint').write_bytes(serialization.msgpack_serialize(state))
  return folder


@pytest.mark.parametrize('inline', [False, True])
def test_logits_of_a_scanned_checkpoint_are_those_of_t5x(inline, shared, logits, tmp_path):
  oracle = np.load(shared('oracles/t5_scalable.npz'))
  parameters = {key[6:]: oracle[key] for key in oracle.files if key.startswith('param/')}
  folder = write(tmp_path / 'model' / 'checkpoint_5', parameters, inline=inline)
  batch, seen = packed(shared)
  found = logits(t5x.open_checkpoint(folder.parent), batch)
  np.testing.assert_allclose(found[seen], oracle['logits_packed'][seen], rtol=0, atol=1e-4)


def test_the_configuration_follows_from_the_arrays(shared, load, tmp_path):
  oracle = np.load(shared('oracles/t5_network.npz'))
  given = {k[6:]: oracle[k] for k in oracle.files if k.startswith('param/')}
  # T5 1.0: one projection, tied; and one encoder layer fewer, so that the stacks differ.
  ungated = {
    name.replace('wi_1', 'wi'): x
    for name, x in given.items()
    if 'wi_0' not in name and 'logits_dense' not in name and 'encoder/layers_1' not in name
  }
  source = t5x.open_checkpoint(write(tmp_path / 'checkpoint_1', ungated, inline=True))
  config = source.config
  assert (config.activation, config.tie_embeddings, config.scale_tied_logits) == (
    'relu',
    True,
    True,
  )
  assert (config.num_encoder_layers, config.num_decoder_layers) == (1, 2)
  assert (config.num_heads, config.head_dim, config.mlp_dim) == (4, 16, 128)
  up = np.asarray(load(source).decoder.layers.mlp.up[...])
  np.testing.assert_array_equal(up[1], given['decoder/layers_1/mlp/wi_1/kernel'])


def test_of_several_steps_the_last_is_taken(tmp_path, shared):
  oracle = np.load(shared('oracles/t5_network.npz'))
  given = {k[6:]: oracle[k] for k in oracle.files if k.startswith('param/')}
  for step in (9, 10, 1000):
    write(tmp_path / f'checkpoint_{step}', given, inline=True)
  assert 'checkpoint_1000' in t5x.open_checkpoint(tmp_path).title


# ---- refused


def test_what_is_no_checkpoint_is_refused(tmp_path):
  with pytest.raises(ConvertError, match='is no T5X checkpoint: it has neither a file checkpoint'):
    t5x.open_checkpoint(tmp_path)
  with pytest.raises(ConvertError, match='is no T5X checkpoint'):
    t5x.open_checkpoint(tmp_path / 'none')
  for content in (b'', b'\x93no', serialization.msgpack_serialize({'optimizer': {}})):
    (tmp_path / 'checkpoint').write_bytes(content)
    with pytest.raises(ConvertError, match='is damaged or was not written by T5X'):
      t5x.open_checkpoint(tmp_path)


def test_a_model_without_an_encoder_is_named(tmp_path, shared):
  oracle = np.load(shared('oracles/t5_network.npz'))
  given = {k[6:]: oracle[k] for k in oracle.files if k.startswith('param/dec')}
  folder = write(tmp_path / 'checkpoint_1', given, inline=True)
  with pytest.raises(ConvertError, match="is of no T5: it has no array 'token_embedder.embedding'"):
    t5x.open_checkpoint(folder)


def copy(shared, tmp_path, name):
  return shutil.copytree(shared(f'oracles/{name}'), tmp_path / name, copy_function=copy_writable)


def copy_writable(source, target):
  shutil.copyfile(source, target)


def make_writable(folder):
  for path in [folder, *folder.rglob('*')]:
    path.chmod(0o755 if path.is_dir() else 0o644)
  return folder


def test_an_array_that_is_gone_or_cut_short_is_named(shared, tmp_path, load):
  folder = make_writable(copy(shared, tmp_path, 't5x_ckpt')) / 'checkpoint_10'
  array = folder / 'target.decoder.logits_dense.kernel'
  chunk = next(path for path in array.iterdir() if path.name != '.zarray')
  chunk.write_bytes(chunk.read_bytes()[:-20])
  source = t5x.open_checkpoint(folder)
  with pytest.raises(ConvertError, match=re.escape(f'{array} is cut short or damaged')):
    load(source)
  shutil.rmtree(array)
  with pytest.raises(ConvertError, match=re.escape(f'{array} is missing or damaged')):
    t5x.open_checkpoint(folder)


def test_damaged_metadata_of_orbax_is_named(shared, tmp_path):
  folder = make_writable(copy(shared, tmp_path, 't5x_ckpt_orbax')) / 'checkpoint_10'
  path = folder / 'state' / '_METADATA'
  for content in ('{', json.dumps({'tree_metadata': 3}), '{}'):
    path.write_text(content)
    with pytest.raises(ConvertError, match=re.escape(f'{path} is damaged')):
      t5x.open_checkpoint(folder)
