"""The kept train step: found without tracing by the same run, never by one that differs."""

import dataclasses
import enum
import functools
import hashlib
import importlib
import os
import pickle
import subprocess
import sys
import textwrap
import zlib

import gin
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax import kept_step, optimizers

traced = []


@dataclasses.dataclass(frozen=True)
class Settings:
  rate: float
  schedule: object = None


class Colour(enum.Enum):
  RED = 1


class Opaque:
  pass


def train_step(state, batch, *, settings):
  traced.append(settings.rate)
  return state - settings.rate * batch['x'], {'loss': jnp.sum(state), 'count': batch['x'].size}


@pytest.fixture(autouse=True)
def functions_of_tests_are_known(monkeypatch):
  monkeypatch.setattr(kept_step, '_KNOWN', {*kept_step._KNOWN, __name__.split('.')[0]})


def arguments():
  return jnp.arange(4.0), {'x': jnp.ones(4)}


def run(folder, rate=0.5, options=None):
  """Compiles, runs one step, and returns its results and whether it was traced."""
  traced.clear()
  step = functools.partial(train_step, settings=Settings(rate))
  kept = folder and kept_step.KeptSteps(folder)
  compiled = kept_step.compile_step(step, *arguments(), options or {}, kept=kept)
  if kept:
    kept.wait()
  state, metrics = compiled(*arguments())
  return np.asarray(state), {k: float(v) for k, v in metrics.items()}, bool(traced)


def test_the_same_step_is_found_and_another_is_not(tmp_path):
  state, metrics, new = run(tmp_path / 'programs')
  again, metrics_again, new_again = run(tmp_path / 'programs')
  assert (new, new_again) == (True, False)
  np.testing.assert_array_equal(again, state)
  assert metrics_again == metrics == {'loss': 6.0, 'count': 4.0}
  other, _, new = run(tmp_path / 'programs', rate=0.25)
  assert new and other[0] == -0.25
  assert run(tmp_path / 'programs', options={'xla_backend_optimization_level': '1'})[2]
  assert run(None)[2]


@pytest.fixture
def loads(monkeypatch):
  """The names of the files that are loaded."""
  load, names = kept_step._load, []

  def named(path):
    names.append(path.name)
    return load(path)

  monkeypatch.setattr(kept_step, '_load', named)
  return names


def run_ahead(folder, rate=0.5, args=None):
  """Whether a step was traced that a process may have begun to load before it knew its name."""
  traced.clear()
  kept = kept_step.KeptSteps(folder)
  kept.load_ahead()
  args = args or arguments()
  step = functools.partial(train_step, settings=Settings(rate))
  state, _ = kept_step.compile_step(step, *args, {}, kept=kept)(*args)
  kept.wait()
  np.testing.assert_array_equal(state, np.arange(4.0) - rate)
  return bool(traced)


def test_the_step_used_last_is_loaded_before_it_is_asked_for(tmp_path, loads):
  assert run_ahead(tmp_path / 'none yet')
  run(tmp_path, rate=0.5)
  (half,) = (path.name for path in tmp_path.glob('*.kept'))
  run(tmp_path, rate=0.25)
  (quarter,) = (path.name for path in tmp_path.glob('*.kept') if path.name != half)
  for rate, loaded in ((0.25, [quarter]), (0.5, [quarter, half]), (0.5, [half])):
    loads.clear()
    assert not run_ahead(tmp_path, rate)
    assert loads == loaded


def test_a_step_of_another_device_is_loaded_for_that(tmp_path, loads):
  def on_another():
    return jax.device_put(arguments(), jax.devices()[1])

  assert run_ahead(tmp_path, args=on_another())
  loads.clear()
  assert not run_ahead(tmp_path, args=on_another()) and len(loads) == 1


def test_a_damaged_step_that_was_loaded_ahead_is_compiled_anew(tmp_path):
  run(tmp_path)
  (path,) = tmp_path.glob('*.kept')
  path.write_bytes(path.read_bytes()[:-1])
  assert run_ahead(tmp_path)
  assert not run_ahead(tmp_path)


def test_what_is_cut_short_or_changed_is_compiled_anew(tmp_path):
  state, _, _ = run(tmp_path)
  (path,) = tmp_path.glob('*.kept')
  whole = path.read_bytes()
  for damaged in (b'', whole[:20], whole[:-1], whole[:500] + b'?' + whole[501:]):
    path.write_bytes(damaged)
    again, _, new = run(tmp_path)
    assert new and path.read_bytes() != damaged
    np.testing.assert_array_equal(again, state)
  assert not run(tmp_path)[2]


def change(path, **facts):
  """Writes other facts into the file of a step."""
  kept = pickle.loads(zlib.decompress(path.read_bytes()[32:]))
  assert facts.keys() <= kept.keys()
  data = zlib.compress(pickle.dumps(kept | facts))
  path.write_bytes(hashlib.sha256(data).digest() + data)


def test_what_a_back_end_cannot_load_is_compiled_anew(tmp_path, capsys):
  run(tmp_path)
  (path,) = tmp_path.glob('*.kept')
  change(path, executable=b'of another release')
  assert run(tmp_path)[2] and str(path) in capsys.readouterr().out
  assert not run(tmp_path)[2]


def test_what_another_release_or_machine_compiled_is_not_even_loaded(tmp_path, capsys):
  run(tmp_path)
  (path,) = tmp_path.glob('*.kept')
  change(path, executable=b'', maker='another')
  assert run_ahead(tmp_path) and not capsys.readouterr().out
  assert not run_ahead(tmp_path)


def test_a_disk_that_refuses_costs_nothing_but_the_next_start(tmp_path):
  (tmp_path / 'programs').write_text('not a folder')
  assert run(tmp_path / 'programs')[2]


def test_what_a_step_closes_over_tells_it_apart():
  def schedule(rate, offset=0):
    return lambda step: rate / (step + offset)

  same = [kept_step.describe(Settings(1.0, schedule(2.0))) for _ in range(2)]
  assert same[0] == same[1]
  others = [
    Settings(2.0, schedule(2.0)),
    Settings(1.0, schedule(3.0)),
    Settings(1.0, schedule(2.0, 1)),
    Settings(1.0, schedule(2)),
    Settings(1.0, schedule(np.float32(2))),
    Settings(1.0, functools.partial(schedule, 2.0)),
    Settings(1.0, Colour.RED),
    Settings(1.0, (1, 2)),
    Settings(1.0, [1, 2]),
    Settings(1.0, {'a': 1}),
    Settings(1.0, np.arange(3)),
    Settings(1.0, np.arange(3) + 1),
    Settings(1.0, jnp.bfloat16),
    Settings(1.0, np.dtype('float32')),
  ]
  described = {repr(kept_step.describe(x)) for x in others}
  assert len(described | {repr(same[0])}) == len(others) + 1


@pytest.mark.parametrize('optimizer', ['adafactor', 'adamw'])
def test_our_optimizers_are_told_apart(optimizer):
  make = getattr(optimizers, optimizer)
  same, again, other = (repr(kept_step.describe(make(rate))) for rate in (1e-3, 1e-3, 1e-4))
  assert same == again != other


def test_what_may_read_settings_from_elsewhere_is_not_described():
  @gin.configurable(module='test_kept_step')
  def schedule(step, rate=1.0):
    return rate * step

  users = textwrap.dedent  # of a module that is neither ours nor JAX's
  compiled_in_memory = eval('lambda x: x', {'__name__': __name__})
  for value in (users, [].append, schedule, compiled_in_memory, [Opaque()], jax.jit(train_step)):
    with pytest.raises(kept_step.UndescribableError):
      kept_step.describe(Settings(1.0, value))


def test_a_step_that_cannot_be_described_is_traced_each_time(tmp_path):
  for _ in range(2):
    traced.clear()
    settings = Settings(0.5, Opaque())
    step = functools.partial(train_step, settings=settings)
    kept_step.compile_step(step, *arguments(), {}, kept=kept_step.KeptSteps(tmp_path))
    assert traced
  assert not list(tmp_path.glob('*.kept'))


def test_a_step_out_of_the_cache_of_jax_runs_at_the_next_start(tmp_path):
  script = f"""
    import flan_jax.kept_step as kept, jax, jax.numpy as jnp, pathlib, users
    kept._KNOWN.add('users')
    jax.config.update('jax_compilation_cache_dir', {str(tmp_path / 'compiled')!r})
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
    folder = kept.KeptSteps(pathlib.Path({str(tmp_path)!r}))
    args = jnp.ones((4, 4)), {{'x': jnp.ones((4, 4))}}
    step = kept.compile_step(users.step, *args, {{}}, kept=folder)
    print(float(step(*args)[1]['loss']))
  """
  module = tmp_path / 'users.py'
  module.write_text(
    'import jax.numpy as jnp\n'
    'def step(state, batch):\n'
    "  return state + 1, {'loss': jnp.sum(jnp.tanh(state @ batch['x']))}\n"
  )
  command = [sys.executable, '-c', textwrap.dedent(script)]
  environment = {**os.environ, 'PYTHONPATH': str(tmp_path)}
  said = []
  for comment in ('', '# the file is another, the program is the same', '', ''):
    with module.open('a') as file:
      file.write(comment)
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    said.append((done.returncode, done.stdout, done.stderr[-200:]))
  assert len(set(said)) == 1 and said[0][0] == 0


def key(**environment):
  """Of a step in a process of its own, one of whose modules lies in a file that may change."""
  script = """
    import flan_jax.kept_step as kept, jax, jax.numpy as jnp, users
    kept._KNOWN.add('users')
    print(kept.key_of(users.step, (jnp.ones(3), {}), {}))
  """
  command = [sys.executable, '-c', textwrap.dedent(script)]
  done = subprocess.run(
    command, env={**os.environ, **environment}, capture_output=True, text=True, check=True
  )
  return done.stdout


def test_code_flags_and_devices_tell_steps_apart(tmp_path):
  module = tmp_path / 'users.py'
  module.write_text('def step(state, batch):\n  return state, {}\n')
  first = key(PYTHONPATH=str(tmp_path))
  assert key(PYTHONPATH=str(tmp_path)) == first
  flags = f'{os.environ.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count=3'
  keys = [
    key(PYTHONPATH=str(tmp_path), XLA_FLAGS=flags),
    key(PYTHONPATH=str(tmp_path), JAX_DEFAULT_MATMUL_PRECISION='float32'),
  ]
  module.write_text('def step(state, batch):\n  return state + 1, {}\n')
  keys.append(key(PYTHONPATH=str(tmp_path)))
  assert len({first, *keys}) == 4


def test_shapes_types_and_layouts_tell_steps_apart():
  devices = jax.devices()
  arrays = [
    jnp.ones(8),
    jnp.ones(4),
    jnp.ones(8, jnp.int32),
    jax.device_put(jnp.ones(8), devices[1]),
    jax.device_put(jnp.ones(8), jax.NamedSharding(jax.make_mesh((8,), ('data',)), jax.P('data'))),
  ]
  keys = [kept_step.key_of(train_step, (x, {}), {}) for x in arrays]
  assert len({*keys, kept_step.key_of(train_step, (arrays[0],), {})}) == 6


def test_what_a_process_has_loaded_changes_no_key(tmp_path, monkeypatch):
  (tmp_path / 'late_module.py').write_text('x = 1\n')
  monkeypatch.syspath_prepend(tmp_path)
  before = kept_step.key_of(train_step, arguments(), {})
  importlib.invalidate_caches()
  monkeypatch.setitem(sys.modules, 'late_module', importlib.import_module('late_module'))
  assert kept_step.key_of(train_step, arguments(), {}) == before


def test_a_step_whose_files_cannot_be_told_has_no_key(tmp_path, monkeypatch):
  monkeypatch.setattr(kept_step, '_BENEATH', {'a package that is not there'})
  with pytest.raises(kept_step.UndescribableError, match='not there'):
    kept_step.key_of(train_step, arguments(), {})
  (tmp_path / 'late_package').mkdir()
  (tmp_path / 'late_package' / '__init__.py').write_text('')
  (tmp_path / 'late_package' / '.#edited.py').symlink_to('nowhere')
  monkeypatch.syspath_prepend(tmp_path)
  monkeypatch.setattr(kept_step, '_BENEATH', {'late_package'})
  with pytest.raises(kept_step.UndescribableError, match='edited'):
    kept_step.key_of(train_step, arguments(), {})
