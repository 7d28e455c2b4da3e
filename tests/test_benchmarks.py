"""Each benchmark runs in its quick mode, and its figures become a page."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / 'benchmarks'


def quick(name: str, out: Path, *flags: str) -> dict:
  """What a benchmark writes in its quick mode."""
  command = [sys.executable, str(BENCHMARKS / f'{name}.py'), '--quick', f'--out={out}', *flags]
  environment = {k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'}  # one device, as it is
  subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=280, env=environment)
  return json.loads(out.read_text())


@pytest.mark.slow
@pytest.mark.parametrize('name', ['train_step', 'data_pipeline', 'prepare', 'startup'])
def test_a_quick_run_writes_what_it_measured(name, tmp_path):
  figures = quick(name, tmp_path / 'out.json')
  assert figures['benchmark'] == name and figures['machine']['cores'] and figures['work']
  if name == 'startup':
    seconds = figures['starts']['again']
    assert 0 < seconds['imports_and_settings']['median'] < seconds['to_first_step']['median']
    assert seconds['to_first_step']['median'] < seconds['to_end_of_first_step']['median']
  else:
    ours = figures['programs']['flan_jax']
    assert ours['peak_mb'] > 10
    assert next(value for key, value in ours.items() if key.endswith('_per_second')) > 0
  if name == 'train_step':
    assert ours['share_of_gemm_peak'] > 0
    assert figures['positions'] == figures['real_tokens'] == 2 * (16 + 8)


@pytest.mark.slow
def test_a_quick_run_decodes_the_same_tokens_as_the_peer(tmp_path):
  pytest.importorskip('torch', reason='PyTorch is not installed: make bench installs it')
  figures = quick('decode', tmp_path / 'out.json')
  assert figures['share_of_equal_tokens'] == {'hugging_face': 1.0}
  assert figures['times_the_rate_of'].keys() == {'hugging_face'}


@pytest.mark.slow
@pytest.mark.parametrize('case', ['llama_8b', 'decode_xl', 'kernels'])
def test_the_cases_for_a_gpu_run_quickly_on_a_cpu(case, tmp_path):
  script = str(BENCHMARKS / 'gpu.py')
  command = [sys.executable, script, f'--out={tmp_path}', '--quick', case]
  environment = {k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'}
  said = [
    subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    for _ in range(2)
  ]
  assert said[0].startswith(f'{case}: measured') and f'{case}: there already' in said[1]
  figures = json.loads((tmp_path / f'{case}.json').read_text())
  assert next(v for k, v in figures['programs']['flan_jax'].items() if k.endswith('_second')) > 0
  if importlib.util.find_spec('peft'):  # without PyTorch there is no peer
    assert any(name.startswith(('hugging', 'torch')) for name in figures['programs'])


def test_a_case_for_a_gpu_that_is_not_there_is_refused(tmp_path):
  command = [sys.executable, str(BENCHMARKS / 'gpu.py'), f'--out={tmp_path}', 'xxxl']
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 2 and 'xxxl' in done.stderr and 'decode_xl' in done.stderr


def test_a_peer_that_fails_is_left_out_and_ours_is_not(monkeypatch, capsys):
  monkeypatch.syspath_prepend(str(BENCHMARKS))
  import measure

  def process(program):
    if program != 'flan_jax':
      raise subprocess.CalledProcessError(1, program)
    return {'seconds': [1.0]}

  monkeypatch.setattr(measure, 'in_own_process', process)
  runs = measure.in_turns(['flan_jax'], ['torch'], 2)
  assert runs == {'flan_jax': [{'seconds': [1.0]}] * 2} and 'torch' in capsys.readouterr().err
  with pytest.raises(subprocess.CalledProcessError):
    measure.in_turns(['gemm'], [], 1)


@pytest.mark.slow
def test_a_step_compiled_for_a_gpu_that_is_not_there_holds_no_scores():
  plugins = importlib.util.find_spec('jax_plugins')  # a folder that the plugins share
  folders = list(plugins.submodule_search_locations or ()) if plugins else []
  if not any(path for folder in folders for path in Path(folder).glob('xla_cuda*')):
    pytest.skip('flan_jax[cuda] is not installed')
  command = [sys.executable, str(BENCHMARKS / 'gpu_compile.py'), '--model=t5_1_1/small', '--rows=2']
  environment = {k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'}
  done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
  rows = [line.strip('| ').split(' | ') for line in done.stdout.splitlines()]
  steps = {row[0]: row for row in rows if row[0].startswith(('scanned', 'apart'))}
  assert len(steps) == 4 and all(row[-1] == '0' for row in steps.values())
  assert float(steps['apart minimal'][3]) < float(steps['scanned minimal'][3])
  assert any(row[0] == 'token' and 0 < float(row[3]) < 1 for row in rows)
  kernels = [row for row in rows if row[0] in ('64', '128')]
  assert len(kernels) == 14 and all(int(row[4]) == 0 for row in kernels)


@pytest.fixture
def page(monkeypatch):
  monkeypatch.syspath_prepend(str(BENCHMARKS))
  import page

  return page


def result(**changes) -> dict:
  spread = {'median': 2.0, 'least': 1.5, 'most': 2.25, 'count': 3}
  return {
    'benchmark': 'train_step',
    'command': 'python benchmarks/train_step.py',
    'work': 'a model, 8 rows',
    'date': '2026-01-31',
    'machine': {'cores': 2, 'jax': '0.10'},
    'gflop_per_step': 1234.5,
    'programs': {
      'flan_jax': {
        'seconds': spread,
        'tokens_per_second': 2560,
        'share_of_gemm_peak': 0.654,
        'peak_mb': 1234,
      },
      'torch': {'seconds': spread, 'tokens_per_second': 2000},
    },
    'times_the_rate_of': {'torch': 1.28},
    **changes,
  }


def test_a_page_holds_the_figures_and_leaves_the_rest(page, tmp_path, monkeypatch):
  document = tmp_path / 'performance.md'
  document.write_text(f'before\n{page.BEGIN}\nold\n{page.END}\nafter\n')
  (tmp_path / 'images').mkdir()
  (tmp_path / 'one.json').write_text(json.dumps(result()))
  monkeypatch.setattr(page, 'DOCS', tmp_path)
  monkeypatch.setattr(sys, 'argv', ['page.py', str(tmp_path / 'one.json')])
  page.main()
  text = document.read_text()
  assert text.startswith('before\n') and text.endswith('after\n') and 'old' not in text
  assert '| flan_jax | 2.00 (1.50 to 2.25) | 2,560 | 65% | 1,234 MB |' in text
  assert '| torch | 2.00 (1.50 to 2.25) | 2,000; flan_jax 1.28 times |  |  |' in text
  assert '1.28' in (tmp_path / 'images' / 'performance.svg').read_text()
  before = document.read_text()
  page.main()
  assert document.read_text() == before


def test_the_starts_of_a_run_are_a_table(page):
  seconds = {'median': 2.0, 'least': 1.5, 'most': 2.25}
  table = page.table({'starts': {'cold': {'to_first_step': seconds}}})
  assert table.splitlines()[0] == '| start | to first step |'
  assert table.splitlines()[2] == '| cold | 2.00 (1.50 to 2.25) |'
