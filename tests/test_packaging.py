"""What is installed, and how: the wheel, the lock, `make` and the installer."""

import distutils.core
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
PINNED = re.compile(
  r'^(?P<name>[a-z0-9._-]+)==(?P<version>[^ ;]+)(?: ; (?P<marker>.*?))?  +# via .+$'
)


def tracked_files() -> list[str]:
  """Every file of the checkout that git does not ignore, new ones included."""
  command = ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard']
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
  return sorted({name for name in done.stdout.split('\0') if name and (ROOT / name).is_file()})


def copy_checkout(target: Path) -> Path:
  """Copies the checkout, without what git ignores, so that a build leaves nothing behind."""
  for name in tracked_files():
    (target / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(ROOT / name, target / name)
  return target


def run(command, cwd, **environment):
  return subprocess.run(
    command,
    cwd=cwd,
    env={**os.environ, **environment},
    capture_output=True,
    text=True,
    timeout=300,
  )


@pytest.fixture(scope='module')
def installed(tmp_path_factory) -> Path:
  """A folder outside the checkout holding what the wheel installs."""
  checkout = copy_checkout(tmp_path_factory.mktemp('checkout'))
  wheels, target = tmp_path_factory.mktemp('wheels'), tmp_path_factory.mktemp('target')
  pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check', '-q']
  build = [*pip, 'wheel', '--no-deps', '--no-build-isolation', '-w', str(wheels), str(checkout)]
  done = run(build, wheels)
  assert done.returncode == 0, done.stdout + done.stderr
  (wheel,) = wheels.glob('flan_jax-*.whl')
  done = run([*pip, 'install', '--no-deps', '--target', str(target), str(wheel)], wheels)
  assert done.returncode == 0, done.stdout + done.stderr
  return target


def test_the_wheel_holds_every_module_gin_file_template_and_data_file(installed):
  homes = {'flan_jax/': 'flan_jax/', 'tasks/': 'flan_jax/tasks/', 'gin/': 'flan_jax/gin/'}
  wanted = {
    homes[top] + name.removeprefix(top)
    for name in tracked_files()
    for top in homes
    if name.startswith(top) and not name.endswith('.md')
  }
  assert any(name.startswith('flan_jax/gin/') for name in wanted)
  missing = sorted(name for name in wanted if not (installed / name).is_file())
  assert not missing, f'package_data in setup.py does not reach {missing}'


def test_the_wheel_installs_nothing_beside_flan_jax(installed):
  names = {path.name for path in installed.iterdir() if not path.name.endswith('.dist-info')}
  assert names - {'bin', '__pycache__'} == {'flan_jax'}


def test_the_installed_wheel_runs_outside_the_checkout(installed, tmp_path):
  environment = {'PYTHONPATH': str(installed)}
  # Found, not imported: the tasks bring TensorFlow.
  names = ('flan_jax', 'flan_jax.train', 'flan_jax.tasks')
  where = f'import importlib.util as u; print(*(u.find_spec(n).origin for n in {names}))'
  done = run([sys.executable, '-c', where], tmp_path, **environment)
  assert done.returncode == 0, done.stderr
  assert all(Path(name).is_relative_to(installed) for name in done.stdout.split())
  done = run([sys.executable, '-m', 'flan_jax.main', 'list', 'models'], tmp_path, **environment)
  assert done.returncode == 0, done.stderr
  assert 't5_1_1' in done.stdout


def lock_lines(name: str) -> list[re.Match]:
  lines = (ROOT / 'requirements' / name).read_text(encoding='utf-8').splitlines()
  found = [(line, PINNED.match(line)) for line in lines if line and not line.startswith('#')]
  wrong = [line for line, match in found if match is None]
  assert not wrong, f'{name} may hold only NAME==VERSION lines, not {wrong}'
  return [match for _, match in found]


def requirements_of_setup() -> dict[str, list[Requirement]]:
  before = Path.cwd()
  os.chdir(ROOT)
  try:
    described = distutils.core.run_setup('setup.py', stop_after='init')
  finally:
    os.chdir(before)
  groups = {'': described.install_requires, **described.extras_require}
  return {name: [Requirement(line) for line in lines] for name, lines in groups.items()}


@pytest.mark.parametrize('python', ['3.11', '3.12', '3.13'])
@pytest.mark.parametrize(
  ('lock', 'extras'), [('locked.txt', ('', 'seqio', 'dev')), ('bench.txt', ('bench',))]
)
def test_the_lock_pins_what_setup_asks_for_on_each_python(python, lock, extras):
  machine = {
    **default_environment(),
    'python_version': python,
    'python_full_version': f'{python}.5',
  }
  pinned = {}
  for match in lock_lines(lock):
    line = f'{match["name"]}; {match["marker"]}' if match['marker'] else match['name']
    requirement = Requirement(line)
    if requirement.marker is None or requirement.marker.evaluate(machine):
      assert requirement.name not in pinned, f'{requirement.name} is pinned twice on {python}'
      pinned[requirement.name] = match['version']
  setup = requirements_of_setup()
  for requirement in (r for extra in extras for r in setup[extra]):
    if requirement.marker is None or requirement.marker.evaluate(machine):
      name = re.sub(r'[-_.]+', '-', requirement.name).lower()
      assert name in pinned, f'{lock} lacks {name}; run `make lock`.'
      assert requirement.specifier.contains(pinned[name]), (
        f'{lock} pins {name} {pinned[name]}, setup.py asks for {requirement.specifier}; '
        'run `make lock`.'
      )


def test_both_locks_agree():
  versions = {}
  for name in ('locked.txt', 'bench.txt'):
    for match in lock_lines(name):
      versions.setdefault((match['name'], match['marker']), set()).add(match['version'])
  assert not {key for key, found in versions.items() if len(found) > 1}


def test_make_alone_lists_every_target_with_a_sentence():
  text = (ROOT / 'Makefile').read_text(encoding='utf-8')
  phony = re.search(r'^\.PHONY: (.+)$', text, re.MULTILINE).group(1).split()
  done = run(['make'], ROOT)
  assert done.returncode == 0, done.stderr
  listed = re.findall(r'^make ([a-z-]+) +[A-Z].*\.$', done.stdout, re.MULTILINE)
  assert listed == phony


@pytest.mark.parametrize('target', ['demo', 'ablation', 'test', 'test-slow', 'kill-test', 'lint'])
def test_a_target_sets_up_first_on_a_fresh_checkout(target, tmp_path):
  checkout = copy_checkout(tmp_path)
  own = {k: v for k, v in os.environ.items() if k not in ('MAKEFLAGS', 'MAKEOVERRIDES', 'PYTHON')}
  done = subprocess.run(
    ['make', '-n', target], cwd=checkout, env=own, capture_output=True, text=True, check=True
  )
  plan = done.stdout.splitlines()
  first = next(i for i, line in enumerate(plan) if line.startswith(('bash ', '.venv/bin/python')))
  assert 'python3 requirements/install.py' in plan[:first]
  (checkout / '.venv').mkdir()
  (checkout / '.venv' / 'ready').touch()
  assert 'install.py' not in run(['make', '-n', target], checkout).stdout


@pytest.mark.parametrize('changed', ['setup.py', 'requirements/locked.txt'])
def test_setup_runs_again_only_when_what_it_installs_has_changed(changed, tmp_path):
  checkout = copy_checkout(tmp_path)
  ready = checkout / '.venv' / 'ready'
  ready.parent.mkdir()
  ready.touch()
  assert 'install.py' not in run(['make', '-n', 'setup'], checkout).stdout
  os.utime(checkout / changed, (ready.stat().st_mtime + 10,) * 2)
  assert 'install.py' in run(['make', '-n', 'setup'], checkout).stdout


def test_setup_without_python_says_what_to_install(tmp_path):
  done = run(['make', 'setup', 'PYTHON=no-such-python'], copy_checkout(tmp_path))
  assert done.returncode != 0
  assert (
    'There is no no-such-python on the PATH. Install Python 3.11, 3.12 or 3.13, or name one: '
    'make setup PYTHON=/path/to/python3.12'
  ) in done.stderr
  assert not (tmp_path / '.venv').exists()


@pytest.fixture
def installer(tmp_path):
  """The installer of a copy of the checkout, as a module."""
  path = copy_checkout(tmp_path / 'checkout') / 'requirements' / 'install.py'
  spec = importlib.util.spec_from_file_location('flan_jax_installer', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  assert tmp_path / 'checkout' / '.venv' == module.VENV
  return module


@pytest.mark.parametrize('version', [(3, 7, 16), (3, 10, 13), (3, 14, 0)])
def test_an_unsupported_python_is_refused_with_the_supported_ones(installer, version):
  given = '.'.join(map(str, version))
  expected = f'/usr/bin/python3 is Python {given}; flan_jax runs on 3.11, 3.12 and 3.13. '
  with pytest.raises(SystemExit) as refused:
    installer.check_python(version, '/usr/bin/python3')
  assert str(refused.value) == expected + (
    'Install one of them and run: make setup PYTHON=python3.12'
  )


@pytest.mark.parametrize('version', [(3, 11, 0), (3, 12, 9), (3, 13, 0)])
def test_the_supported_pythons_are_accepted(installer, version):
  installer.check_python(version, 'python3')


def test_a_python_without_ensurepip_is_refused_with_the_package_to_install(installer, monkeypatch):
  monkeypatch.setitem(sys.modules, 'ensurepip', None)
  with pytest.raises(SystemExit, match=r'has no ensurepip.* sudo apt-get install python3\.11-venv'):
    installer.check_python((3, 11, 2), 'python3')


def test_a_lock_without_uv_is_refused(installer):
  installer.LOCK.write_text('numpy==2.4.6\n', encoding='utf-8')
  with pytest.raises(SystemExit, match='does not pin uv; make it again with `make lock`'):
    installer.install_locked()


def test_a_step_that_fails_is_named_with_its_exit_status(installer):
  with pytest.raises(SystemExit) as failed:
    installer.run([sys.executable, '-c', 'raise SystemExit(3)'])
  assert str(failed.value).startswith(f'Failed with exit status 3: {sys.executable} -c')


def test_an_installation_that_was_killed_is_made_anew(installer, capfd):
  half = installer.VENV / 'lib' / 'half-written'
  half.parent.mkdir(parents=True)
  half.touch()
  installer.UNFINISHED.touch()
  installer.make_venv()
  assert not half.exists()
  assert 'Making .venv anew: its installation did not finish.' in capfd.readouterr().out
  assert installer.venv_version() == '{}.{}'.format(*sys.version_info)
  installer.UNFINISHED.unlink()
  half.touch()
  installer.make_venv()  # a finished one is kept, and marked while it is changed
  assert half.exists()
  assert installer.UNFINISHED.exists()
  assert not (installer.ROOT / '.venv.removed').exists()
