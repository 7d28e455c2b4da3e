"""Checkpoints: what was saved comes back, damage is found by name, retention keeps what it says."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from flan_jax import checkpoint_files, checkpoints

CONFIG = checkpoints.CheckpointConfig(save_every_steps=1, keep_last=3, keep_best=1)


def make_state(seed: float):
  model = {'decoder': {'query': jnp.full((8, 4), seed), 'scale': jnp.arange(4.0) + seed}}
  return model, {'count': jnp.int32(seed), 'v': jnp.full((8,), seed, jnp.bfloat16)}


def abstract(tree):
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def save(directory, steps, config=CONFIG, scores=None):
  with checkpoints.Checkpoints(directory, config) as saved:
    for step in steps:
      model, opt_state = make_state(step)
      saved.save(step, model, opt_state, {'data': {'seed': 7}}, (scores or {}).get(step))


def assert_equal(left, right):
  jax.tree.map(
    lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), left, right
  )


def test_a_saved_state_comes_back_bitwise_with_its_meta(tmp_path):
  save(tmp_path, [3])
  model, opt_state = make_state(3)
  with checkpoints.Checkpoints(tmp_path) as saved:
    assert saved.latest_intact() == 3
    assert saved.meta(3)['data'] == {'seed': 7}
    restored = saved.restore(3, abstract(model), abstract(opt_state))
  assert_equal(restored, (model, opt_state))
  assert jax.tree.structure(restored) == jax.tree.structure((model, opt_state))


def test_saving_goes_on_while_the_saved_arrays_are_donated(tmp_path):
  step_fn = jax.jit(lambda x: jax.tree.map(lambda a: a + 1, x), donate_argnums=0)
  state = step_fn({'w': jnp.zeros((512, 512))})
  with checkpoints.Checkpoints(tmp_path, CONFIG) as saved:
    saved.save(1, state, {'count': jnp.int32(1)}, {})
    for _ in range(20):
      state = step_fn(state)
    saved.wait()
    model, _ = saved.restore(1, abstract(state))
  np.testing.assert_array_equal(np.asarray(model['w']), 1.0)


def test_a_checkpoint_of_one_device_restores_onto_a_mesh(tmp_path):
  save(tmp_path, [1])
  mesh = jax.make_mesh((2, 4), ('x', 'y'))
  model, _ = make_state(1)
  sharded = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(
      x.shape, x.dtype, sharding=NamedSharding(mesh, PartitionSpec(*('x', 'y')[: x.ndim]))
    ),
    model,
  )
  with checkpoints.Checkpoints(tmp_path) as saved:
    restored, _ = saved.restore(1, sharded)
  assert_equal(restored, model)
  assert restored['decoder']['query'].sharding.spec == PartitionSpec('x', 'y')


def test_replicas_share_what_is_large_and_save_the_rest_without_compiling(tmp_path, caplog):
  mesh = jax.make_mesh((8,), ('x',))
  everywhere = NamedSharding(mesh, PartitionSpec())
  small = jax.device_put({'scale': jnp.arange(4096.0)}, everywhere)
  large = {'embedding': jnp.arange(8 * 2.0**18).reshape(1024, -1)}  # 1 MiB for each of eight
  large = jax.device_put(large, everywhere)
  with jax.log_compiles(), checkpoints.Checkpoints(tmp_path, CONFIG) as saved:
    saved.save(1, small, None, {})
    assert 'slice' not in caplog.text
    saved.save(2, large, None, {})
    assert 'slice' in caplog.text
    for step, model in {1: small, 2: large}.items():
      restored, _ = saved.restore(step, abstract(model))
      assert_equal(restored, model)


def test_the_newest_and_the_best_are_kept(tmp_path):
  save(tmp_path, range(1, 8), scores={2: 0.9, 4: 0.1, 6: 0.2})
  with checkpoints.Checkpoints(tmp_path) as saved:
    assert saved.steps() == [2, 5, 6, 7]


def flip_a_byte(path):
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(bytes(data))


def data_file(folder):
  return max(folder.rglob('d/*'), key=lambda p: p.stat().st_size)


@pytest.mark.parametrize('damage', ['flip', 'truncate', 'remove'])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(tmp_path, damage):
  save(tmp_path, [1, 2])
  victim = data_file(tmp_path / '2')
  if damage == 'flip':
    flip_a_byte(victim)
  elif damage == 'truncate':
    os.truncate(victim, victim.stat().st_size // 2)
  else:
    victim.unlink()
  said = []
  with checkpoints.Checkpoints(tmp_path) as saved:
    assert saved.latest_intact(said.append) == 1
  assert victim.name in said[0] and 'damaged-2' in said[0]
  assert (tmp_path / 'damaged-2').is_dir()
  save(tmp_path, [2])
  with checkpoints.Checkpoints(tmp_path) as saved:
    assert saved.latest_intact() == 2


def test_checksums_of_before_there_were_others_still_tell_damage(tmp_path):
  save(tmp_path, [1])
  path = tmp_path / '1' / checkpoint_files.CHECKSUMS
  old = {
    name: hashlib.blake2b((tmp_path / '1' / name).read_bytes()).hexdigest()[:32]
    for name in json.loads(path.read_text())
  }
  path.write_text(json.dumps(old))
  assert checkpoint_files.verify(tmp_path / '1')
  flip_a_byte(data_file(tmp_path / '1'))
  with pytest.raises(checkpoint_files.DamagedCheckpointError, match='not what was written'):
    checkpoint_files.verify(tmp_path / '1')


def test_a_checkpoint_without_checksums_is_used_only_where_no_other_is_left(tmp_path):
  """A kill between the files and their checksums leaves one that nobody can vouch for."""
  save(tmp_path, [1, 2, 3])
  for step in (2, 3):
    (tmp_path / str(step) / checkpoint_files.CHECKSUMS).unlink()
  said = []
  with checkpoints.Checkpoints(tmp_path) as saved:
    assert saved.latest_intact(said.append) == 1
  assert len(said) == 2 and 'has no checksums' in said[0] and 'unchecked-3' in said[0]
  (tmp_path / '1' / checkpoint_files.CHECKSUMS).unlink()
  with checkpoints.Checkpoints(tmp_path) as saved:
    assert saved.latest_intact() == 1


def test_beside_a_damaged_checkpoint_one_without_checksums_is_not_trusted(tmp_path):
  save(tmp_path, [1, 2])
  flip_a_byte(data_file(tmp_path / '1'))
  (tmp_path / '2' / checkpoint_files.CHECKSUMS).unlink()
  with checkpoints.Checkpoints(tmp_path) as saved:
    with pytest.raises(checkpoint_files.DamagedCheckpointError, match='or without checksums'):
      saved.latest_intact(lambda line: None)


def test_a_damaged_checkpoint_without_checksums_is_refused_in_one_sentence(tmp_path):
  save(tmp_path, [1])
  (tmp_path / '1' / checkpoint_files.CHECKSUMS).unlink()
  for path in (tmp_path / '1' / 'parameters').rglob('d/*'):
    os.truncate(path, path.stat().st_size // 2)
  with checkpoints.Checkpoints(tmp_path) as saved:
    with pytest.raises(checkpoint_files.DamagedCheckpointError, match='Cannot read .*/1: ') as e:
      saved.restore(1, abstract(make_state(1)[0]))
  assert len(str(e.value).splitlines()) == 1


def test_a_folder_of_damaged_checkpoints_only_is_refused(tmp_path):
  save(tmp_path, [1])
  flip_a_byte(data_file(tmp_path / '1'))
  with checkpoints.Checkpoints(tmp_path) as saved:
    with pytest.raises(checkpoint_files.DamagedCheckpointError, match=r'Every checkpoint .* \[1\]'):
      saved.latest_intact(lambda line: None)


def test_a_checkpoint_of_another_model_is_refused_by_parameter(tmp_path):
  save(tmp_path, [1])
  other = {'decoder': {'query': jnp.zeros((8, 5)), 'bias': jnp.zeros(3)}}
  with checkpoints.Checkpoints(tmp_path) as saved:
    with pytest.raises(ValueError, match='of another model') as error:
      saved.restore(1, abstract(other))
  message = str(error.value)
  assert 'decoder.query has shape (8, 4) there and (8, 5) here' in message
  assert 'decoder.bias is missing' in message and 'decoder.scale is not in this model' in message


def test_a_save_killed_at_any_moment_is_never_taken_for_a_checkpoint(tmp_path):
  program = textwrap.dedent("""
    import sys, jax.numpy as jnp
    from flan_jax import checkpoints
    model = {f'w{i}': jnp.full((1024, 1024), 1.0) for i in range(8)}
    with checkpoints.Checkpoints(sys.argv[1], checkpoints.CheckpointConfig(keep_last=2)) as saved:
      for step in range(1, 1000):
        saved.save(step, {k: v * step for k, v in model.items()}, {'n': jnp.int32(step)}, {})
        print(step, flush=True)
  """)
  process = subprocess.Popen(
    [sys.executable, '-c', program, str(tmp_path)], stdout=subprocess.PIPE, text=True
  )
  for line in process.stdout:
    if int(line) == 6:
      process.send_signal(signal.SIGKILL)
      break
  process.wait()
  model = {f'w{i}': jnp.zeros((1024, 1024)) for i in range(8)}
  with checkpoints.Checkpoints(tmp_path) as saved:
    step = saved.latest_intact()
    assert step is not None
    restored, _ = saved.restore(step, abstract(model))
  for value in restored.values():
    np.testing.assert_array_equal(np.asarray(value), float(step))


def test_locate_finds_the_newest_step_of_a_workdir_and_names_what_is_missing(tmp_path):
  save(tmp_path / 'checkpoints', [1, 2])
  folder = tmp_path.resolve() / 'checkpoints'
  assert checkpoint_files.locate(tmp_path) == (folder, 2)
  assert checkpoint_files.locate(folder) == (folder, 2)
  assert checkpoint_files.locate(folder / '1') == (folder, 1)
  with pytest.raises(FileNotFoundError, match='holds no finished checkpoint'):
    checkpoint_files.locate(tmp_path / 'checkpoint')


def test_checksums_cover_every_file(tmp_path):
  save(tmp_path, [1])
  listed = set(json.loads((tmp_path / '1' / checkpoint_files.CHECKSUMS).read_text()))
  files = {str(p.relative_to(tmp_path / '1')) for p in (tmp_path / '1').rglob('*') if p.is_file()}
  assert listed == files - {checkpoint_files.CHECKSUMS}


def test_impossible_settings_are_refused():
  with pytest.raises(ValueError, match='save_every_steps=0 must be at least 1'):
    checkpoints.CheckpointConfig(save_every_steps=0)
  with pytest.raises(ValueError, match='keep_best=-1'):
    checkpoints.CheckpointConfig(keep_best=-1)


@pytest.mark.parametrize(
  'meets', ['pass', 'while True: saved.poll()', 'saved.save(5, model, model, {})']
)
def test_a_save_that_cannot_be_written_is_one_sentence_wherever_it_is_met(tmp_path, meets):
  save(tmp_path, [3])
  limited = f"""
    import resource, signal, sys
    sys.path.insert(0, {str(os.path.dirname(__file__))!r})
    import jax
    from flan_jax import checkpoints
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    model = {{'kernel': jax.random.normal(jax.random.key(0), (300, 300))}}
    try:
      with checkpoints.Checkpoints({str(tmp_path)!r}, checkpoints.CheckpointConfig()) as saved:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
        saved.save(4, model, model, {{}})
        {meets}
    except checkpoints.CheckpointError as e:
      print(e)
  """
  command = [sys.executable, '-c', textwrap.dedent(limited)]
  done = subprocess.run(command, capture_output=True, text=True, check=True)
  said = f'No space is left to save a checkpoint in {tmp_path}.'
  assert said in done.stdout, done.stdout + done.stderr[-500:]
  assert 'then goes on from step 3' in done.stdout
  with checkpoints.Checkpoints(tmp_path) as saved:
    assert saved.steps() == [3]
