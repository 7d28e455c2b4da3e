"""prepare on Apache Beam writes what local workers write; without Beam it says how to get it."""

import io
import itertools
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flan_jax import command_line, main
from flan_jax.console import console
from flan_jax.data import catalogue
from flan_jax.data.prepare import PrepareConfig, PrepareError, prepare

_NUMBERS = itertools.count()

MODULE = """
import os, signal, time
from flan_jax.tasks.few_shot import FewShot
from flan_jax.tasks.mixtures import instruction_mixture
from flan_jax.tasks.registry import instruction_task
from flan_jax.tasks.sources import TSV, GeneratorSource
from flan_jax.tasks.splits import HashSplit

TEMPLATES = [
  {'id': 'plain', 'inputs': '{question}', 'targets': '{answer}'},
  {'id': 'asked', 'inputs': 'Answer this: {question}', 'targets': '{answer}'},
]

def task(name, source, **more):
  instruction_task(
    'P_' + name, source=source, templates=TEMPLATES, cluster='c', collection='d', **more
  )

def sums(split):
  for i in range(60):
    yield {'question': f'{i} + {i}?', 'answer': str(2 * i)}

def killed(split):
  yield from sums(split)
  os.kill(os.getpid(), signal.SIGKILL)

def broken(split):
  yield from sums(split)
  raise KeyError('colour')

source = GeneratorSource(sums, splits=('train',))
task('a', source, few_shot=FewShot(k=2), splits=HashSplit(0.2, key='question'))
task('killed', GeneratorSource(killed, splits=('train',)))
task('broken', GeneratorSource(broken, splits=('train',)))
task('wrong', TSV('wrong.tsv', columns=('question', 'answer')))
task('absent', TSV('absent.tsv', columns=('question', 'answer')))
instruction_mixture('P_well', ['P_a', 'P_a_fewshot'])
def slowly(split):
  for row in sums(split):
    time.sleep(0.02)
    yield row

for number in range(6):
  task(f'slow{number}', GeneratorSource(slowly, splits=('train',)))
instruction_mixture('P_slow', [f'P_slow{number}' for number in range(6)])
names = ['killed', 'broken', 'wrong', 'absent', 'a', 'a_fewshot']
instruction_mixture('P_all', ['P_' + name for name in names])
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
  """Returns the prefix of the names of a module's tasks; the module is PREFIX_tasks."""
  prefix = f'beam{next(_NUMBERS)}'
  (tmp_path / f'{prefix}_tasks.py').write_text(MODULE.replace('P_', f'{prefix}_'), encoding='utf-8')
  (tmp_path / 'wrong.tsv').write_text('1 + 1?\t2\nno answer here\n')
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('FLAN_JAX_SEQIO', 'off')
  yield prefix
  for name in catalogue.mixture_names():
    if name.startswith(prefix):
      catalogue.mixtures().unregister_mixture(name)
  for name in catalogue.task_names():
    if name.startswith(prefix):
      catalogue.registry().unregister(name)


def run(module, mixture, cache_dir, **settings):
  """Returns (task -> result of train, what was printed, whether all is well)."""
  text = io.StringIO()
  config = PrepareConfig(
    f'{module}_{mixture}',
    str(cache_dir),
    tasks_modules=(f'{module}_tasks',),
    **{'workers': 2, **settings},
  )
  result = prepare(config, out=console(text))
  by_task = {r.task.removeprefix(f'{module}_'): r for r in result.results if r.split == 'train'}
  return by_task, text.getvalue(), result.ok


def files_of(folder: Path) -> dict[str, bytes]:
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in sorted(folder.rglob('*'))
    if path.is_file()
  }


def test_without_beam_the_error_names_what_to_install_and_nothing_is_written(
  module, tmp_path, monkeypatch, capsys
):
  monkeypatch.setitem(sys.modules, 'apache_beam', None)  # as if it were not installed
  monkeypatch.setitem(sys.modules, 'apache_beam.options.pipeline_options', None)
  status = main.console(
    ['prepare', '--mixture', f'{module}_well', '--cache_dir', str(tmp_path / 'cache')]
    + ['--tasks_module', f'{module}_tasks', '--runner', 'direct']
  )
  assert status == 1
  assert capsys.readouterr().err == (
    'flan-jax: --runner direct needs Apache Beam, which is not installed: '
    "pip install 'flan_jax[beam]'. Without --runner, processes of this machine prepare the data.\n"
  )
  assert not (tmp_path / 'cache').exists()


def test_a_runner_that_is_not_there_and_options_for_none_are_refused(capsys):
  with pytest.raises(command_line.UsageError, match="No --runner 'drect'. Did you mean 'direct'"):
    command_line.parse(['prepare', '--mixture', 'm', '--cache_dir', 'c', '--runner', 'drect'])
  with pytest.raises(PrepareError, match='are for Apache Beam; give a runner as well'):
    PrepareConfig('m', 'c', runner_options='--temp_location=gs://b')
  with pytest.raises(PrepareError, match="No runner 'drect'. Did you mean 'direct'"):
    prepare(PrepareConfig('m', 'c', runner='drect'))


@pytest.fixture
def beam():
  """Skips the test where the extra is not installed."""
  return pytest.importorskip('apache_beam')


def test_the_cache_is_the_same_to_the_byte_as_that_of_local_workers(beam, module, tmp_path):
  run(module, 'well', tmp_path / 'local')
  _, printed, ok = run(module, 'well', tmp_path / 'beam', runner='direct')
  assert ok and '4 of 4 splits are in the cache (4 built now)' in printed
  assert files_of(tmp_path / 'beam') == files_of(tmp_path / 'local')
  results, _, _ = run(module, 'well', tmp_path / 'beam', runner='direct')
  assert {r.status for r in results.values()} == {'kept'}
  assert files_of(tmp_path / 'beam') == files_of(tmp_path / 'local')


def test_workers_without_the_cache_s_disk_hand_their_splits_over(beam, module, tmp_path):
  (tmp_path / 'staging').mkdir()
  run(module, 'well', tmp_path / 'local', epochs=2)
  options = f'--temp_location={tmp_path / "staging"}'
  _, _, ok = run(
    module, 'well', tmp_path / 'beam', epochs=2, runner='direct', runner_options=options
  )
  assert ok and files_of(tmp_path / 'beam') == files_of(tmp_path / 'local')
  assert list((tmp_path / 'staging').iterdir()) == []


def test_a_task_that_fails_or_dies_fails_alone_and_by_name(beam, module, tmp_path):
  results, printed, ok = run(module, 'all', tmp_path / 'cache', runner='direct', splits=('train',))
  assert not ok and 'Not in the cache: 1 missing, 3 failed.' in printed
  assert {name: r.status for name, r in results.items()} == {
    **dict.fromkeys(('a', 'a_fewshot'), 'built'),
    **dict.fromkeys(('killed', 'broken', 'wrong'), 'failed'),
    'absent': 'missing',
  }
  assert 'was ended by SIGKILL' in results['killed'].message
  assert "KeyError: 'colour'" in results['broken'].message
  assert 'wrong.tsv line 2 has 1 columns' in results['wrong'].message
  assert [path.name for path in (tmp_path / 'cache').glob('.*')] == ['.prepare.lock']


PROGRAM = """
import sys
from flan_jax import main
if __name__ == '__main__':
  sys.exit(main.console(sys.argv[1:]))
"""


def test_killed_it_goes_on_and_the_cache_is_the_same_to_the_byte(beam, module, tmp_path):
  (tmp_path / 'program.py').write_text(PROGRAM, encoding='utf-8')
  mixture, cache = f'{module}_slow', tmp_path / 'beam'
  command = [sys.executable, 'program.py', 'prepare', '--mixture', mixture, '--splits', 'train']
  command += ['--tasks_module', f'{module}_tasks', '--workers', '2']
  command += ['--cache_dir', str(cache), '--runner', 'direct']
  running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
  while running.poll() is None and not list(cache.glob('tasks/*/train/manifest.json')):
    time.sleep(0.01)
  running.kill()
  running.communicate()
  assert running.returncode == -signal.SIGKILL
  assert len(list(cache.glob('tasks/*/train/manifest.json'))) < 6
  _, printed, ok = run(module, 'slow', cache, runner='direct', splits=('train',))
  assert ok and '6 of 6 splits are in the cache' in printed and '(6 built now)' not in printed
  run(module, 'slow', tmp_path / 'local', splits=('train',))
  assert files_of(cache) == files_of(tmp_path / 'local')


def test_a_pipeline_that_cannot_run_fails_every_split_with_the_reason(beam, module, tmp_path):
  options = '--runner=NoSuchRunner'
  results, printed, ok = run(
    module, 'well', tmp_path / 'cache', runner='direct', runner_options=options
  )
  assert not ok and {r.status for r in results.values()} == {'failed'}
  assert printed.count('The pipeline ended before it was made.') >= 1 and 'NoSuchRunner' in printed
  for options, error in (("--name='", 'No closing quotation'), ('--direct_num_workers=x', '2')):
    with pytest.raises(PrepareError, match=f'are no options of Beam: {error}'):
      run(module, 'well', tmp_path / 'cache', runner='direct', runner_options=options)
  with pytest.raises(PrepareError, match='workers=2 are of this machine'):
    run(module, 'well', tmp_path / 'cache', runner='spark')
