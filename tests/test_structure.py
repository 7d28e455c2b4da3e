"""The tree keeps its shape: who imports whom, what stays out of the core, how long a module is."""

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / 'flan_jax'
MAX_LINES = 400
TRAINING = 'flan_jax.main, flan_jax.train'
NEEDED = 'jax, flax.nnx, optax, orbax.checkpoint'
MAX_IMPORT_RATIO = 1.3

# What each part of flan_jax may import from flan_jax. A part is a module or a package; one that
# is not here fails a test until its line is written.
BASE = {'partitioning', 'console'}
MODEL = BASE | {'models', 'decoding', 'checkpoints', 'checkpoint_files'}
PAGE = {'report_page', 'report_plots'}  # how any page looks; they know nothing of what is on it
REPORT = {'report', 'report_comparison', 'report_data', 'scores_report', 'scores_comparison'}
ANYTHING = None
MAY_IMPORT = {  # beside `naming`, which all may
  'naming': set(),
  'whole_file': set(),
  'parameter_names': set(),
  'partitioning': {'parameter_names'},
  'console': set(),
  'compiling': set(),
  'kept_step': {'whole_file'},
  'host_memory': set(),
  'command_line': {'command_line_data'},
  'command_line_data': set(),
  'guard': set(),
  'metrics': {'console', 'whole_file'},
  'losses': {'partitioning'},
  'chunked_loss': {'partitioning', 'losses'},
  'adafactor': {'partitioning'},
  'optimizers': {'parameter_names', 'partitioning', 'adafactor'},
  'checkpoints': {'parameter_names', 'checkpoint_files', 'whole_file'},
  'checkpoint_files': {'whole_file'},
  'models': {'partitioning'},
  'train_state': {
    *('partitioning', 'checkpoints', 'checkpoint_files', 'guard', 'models'),
    *('compiling', 'multihost', 'parameter_names'),
  },
  'data': {'console', 'whole_file'} | PAGE,
  'decoding': {'partitioning', 'models', 'beam_search', 'chunked_loss'},
  'beam_search': {'partitioning', 'models'},
  'listing': {'console', 'data'},
  'goodput': {'whole_file'},
  'replicas': {'parameter_names'},
  'watchdog': {'goodput', 'multihost'},
  'run_log': {'console', 'goodput', 'guard', 'metrics', 'partitioning', 'watchdog', 'whole_file'},
  'preemption': set(),
  'roll_call': {'preemption'},
  'multihost': {'preemption', 'roll_call'},
  'train': MODEL
  | {'losses', 'chunked_loss', 'optimizers', 'metrics', 'guard', 'run_log', 'data', 'train_state'}
  | {'compiling', 'goodput', 'kept_step', 'multihost', 'preemption', 'replicas'},
  'evaluation': MODEL | {'chunked_loss', 'metrics', 'data', 'whole_file'},
  'loading': MODEL | {'data'},
  'evaluate': MODEL | {'data', 'evaluation', 'loading', 'scores_report'},
  'harness': MODEL | {'data', 'evaluation', 'loading', 'metrics'},
  'answer_files': set(),
  'infer': MODEL | {'data', 'evaluation', 'metrics', 'answer_files'},
  'convert': MODEL | {'data', 'metrics', 'parameter_names'},
  'planning': ANYTHING,
  **dict.fromkeys(PAGE, {'whole_file'}),
  **dict.fromkeys(REPORT, {'evaluation', 'data', 'goodput'} | REPORT | PAGE),
  'export_text': {'console', 'data'},
  'programs': ANYTHING,
  'programs_train': ANYTHING,
  'main': ANYTHING,
}
# Libraries that only the named modules may import, with the modules of flan_jax that may.
ONLY_IN = {
  'gin': {'main'},
  'absl': {'main'},
  'seqio': {'data.prepare', 'data.seqio_tasks', 'data.seqio_vocabulary', 'data.catalogue'},
  'tensorflow': {'data.prepare', 'data.seqio_tasks', 'data.seqio_vocabulary'},
  'clu': set(),
  'apache_beam': {'data.prepare_beam'},
  'transformers': {'convert'},
  'lm_eval': {'harness'},
  'torch': {'convert'},
}
# Imported by nothing that training or decoding needs.
HEAVY = ('tensorflow', 'seqio', 'clu', 'transformers', 'torch')
MESH_AXES = {'data', 'fsdp', 'tensor', 'sequence'}
TAKES_MESH_AXES = {
  *('P', 'PartitionSpec', 'Mesh', 'AbstractMesh', 'make_mesh', 'psum', 'pmean', 'pmax', 'pmin'),
  *('all_gather', 'all_to_all', 'ppermute', 'axis_index', 'axis_size', 'psum_scatter'),
}


@functools.cache
def modules() -> dict[str, Path]:
  """Every module of the core by its name below flan_jax, '' for the package itself."""
  found = {}
  for path in sorted(CORE.rglob('*.py')):
    parts = path.relative_to(CORE).with_suffix('').parts
    found['.'.join(parts[:-1] if parts[-1] == '__init__' else parts)] = path
  return found


def parse(path: Path) -> ast.Module:
  return ast.parse(path.read_text(encoding='utf-8'), filename=str(path))


def imported_names(node: ast.AST, module: str) -> Iterator[str]:
  """The full names that an import statement may bind: 'flan_jax.data.cache', 'numpy'."""
  if isinstance(node, ast.Import):
    yield from (alias.name for alias in node.names)
  elif isinstance(node, ast.ImportFrom):
    base = node.module or ''
    if node.level:
      package = ['flan_jax', *module.split('.')][: -node.level]
      base = '.'.join([*package, base] if base else package)
    yield from (f'{base}.{alias.name}' for alias in node.names)


def core_imports(path: Path, module: str, *, top_level: bool = False) -> set[str]:
  """The modules of flan_jax that one imports; `top_level` leaves out imports in functions."""
  tree = parse(path)
  names = set()
  for node in tree.body if top_level else ast.walk(tree):
    for name in imported_names(node, module):
      parts = name.split('.')[1:]
      if name.split('.')[0] == 'flan_jax':
        # The last part may be a function; the longest part that is a module counts.
        while parts and '.'.join(parts) not in modules():
          parts.pop()
        names.add('.'.join(parts))
  return names - {''}


def part_of(module: str) -> str:
  return module.split('.')[0]


ALL = {name: path for name, path in modules().items() if name}


@pytest.mark.parametrize('module', ALL)
def test_a_module_imports_only_what_the_arrows_allow(module):
  part = part_of(module)
  assert part in MAY_IMPORT, f'flan_jax.{part} is new: say in MAY_IMPORT what it may import.'
  if MAY_IMPORT[part] is not ANYTHING:
    used = {part_of(name) for name in core_imports(ALL[module], module)}
    extra = used - MAY_IMPORT[part] - {part, 'naming'}
    assert not extra, f'flan_jax.{module} imports {sorted(extra)}, against the arrows.'


def test_modules_import_one_another_without_a_circle():
  graph = {name: core_imports(path, name, top_level=True) for name, path in ALL.items()}
  done: set[str] = set()

  def visit(name: str, trail: tuple[str, ...]) -> None:
    assert name not in trail, 'a circle of imports: ' + ' -> '.join([*trail, name])
    if name not in done:
      for other in graph.get(name, ()):
        visit(other, (*trail, name))
      done.add(name)

  for name in graph:
    visit(name, ())


@pytest.mark.parametrize('module', ALL)
def test_a_library_is_imported_only_where_it_belongs(module):
  used = {
    name.split('.')[0]
    for node in ast.walk(parse(ALL[module]))
    for name in imported_names(node, module)
  }
  for library in used & ONLY_IN.keys():
    allowed = ONLY_IN[library]
    assert module in allowed or part_of(module) in allowed, (
      f'flan_jax.{module} imports {library}; only {sorted(allowed)} may.'
    )


@pytest.mark.parametrize('module', [name for name in ALL if part_of(name) == 'data'])
def test_the_data_package_is_plain_numpy(module):
  tree = parse(ALL[module])
  used = {name.split('.')[0] for node in ast.walk(tree) for name in imported_names(node, module)}
  frameworks = used & {'jax', 'flax', 'optax', 'orbax'}
  assert not frameworks or module == 'data.loader', f'flan_jax.{module} imports {frameworks}.'


def test_the_core_never_imports_the_tasks():
  for module, path in ALL.items():
    names = {n for node in ast.walk(parse(path)) for n in imported_names(node, module)}
    wrong = sorted(n for n in names if n.startswith(('tasks.', 'flan_jax.tasks')) or n == 'tasks')
    assert not wrong, f'flan_jax.{module} imports {wrong}; prepare imports what gin names.'


def mesh_axis_literals(tree: ast.AST) -> list[str]:
  """Strings naming a mesh axis where JAX would take them as one."""
  found = []
  for node in ast.walk(tree):
    places = []
    if isinstance(node, ast.Call):
      called = node.func.attr if isinstance(node.func, ast.Attribute) else None
      called = node.func.id if isinstance(node.func, ast.Name) else called
      if called in TAKES_MESH_AXES:
        places = [*node.args, *(keyword.value for keyword in node.keywords)]
      else:
        places = [k.value for k in node.keywords if k.arg in ('axis_name', 'axis_names')]
    elif isinstance(node, ast.Subscript) and isinstance(node.value, ast.Attribute):
      places = [node.slice] if node.value.attr == 'shape' else []
    for place in places:
      for part in ast.walk(place):
        if isinstance(part, ast.Constant) and part.value in MESH_AXES:
          found.append(f'line {part.lineno}: {part.value!r}')
  return found


@pytest.mark.parametrize('module', [name for name in ALL if name != 'partitioning'])
def test_only_partitioning_names_mesh_axes(module):
  found = mesh_axis_literals(parse(ALL[module]))
  assert not found, f'flan_jax.{module} names mesh axes: {found}; use partitioning.spec or shard.'


@pytest.mark.parametrize(
  'code',
  [
    "P('data')",
    "PartitionSpec(None, ('data', 'fsdp'))",
    "mesh.shape['tensor']",
    "f(axis_name='fsdp')",
  ],
)
def test_a_mesh_axis_written_out_is_found(code):
  assert mesh_axis_literals(ast.parse(code))


@pytest.mark.parametrize(
  'code', ["batch['data']", 'MeshConfig(data=2)', "spec('embed')", 'x.shape[0]']
)
def test_other_uses_of_the_words_are_left_alone(code):
  assert not mesh_axis_literals(ast.parse(code))


def test_no_module_is_longer_than_400_lines():
  folders = [CORE, ROOT / 'tasks', ROOT / 'benchmarks']
  lengths = {
    path.relative_to(ROOT): len(path.read_text(encoding='utf-8').splitlines())
    for folder in folders
    for path in folder.rglob('*.py')
  }
  assert lengths
  too_long = {str(path): lines for path, lines in lengths.items() if lines > MAX_LINES}
  assert not too_long, f'split these modules: {too_long}'


def test_every_module_says_what_it_is_for():
  folders = [CORE, ROOT / 'tasks', ROOT / 'benchmarks']
  paths = [path for folder in folders for path in folder.rglob('*.py')]
  silent = [str(path.relative_to(ROOT)) for path in paths if not ast.get_docstring(parse(path))]
  assert not silent, f'no module docstring: {silent}'


def python(code: str, **environment: str) -> str:
  """Runs code in a fresh interpreter at the root of the repository; returns what it prints."""
  import os

  done = subprocess.run(
    [sys.executable, '-c', code],
    cwd=ROOT,
    env={**os.environ, **environment},
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
  return done.stdout.strip()


def test_training_is_imported_quickly_and_without_tensorflow():
  # Beside what it cannot do without, in one process: a slow machine is not a slow import.
  code = f"""
import sys, time
import {NEEDED}
needed = time.process_time()
import {TRAINING}
print(time.process_time() / needed, *[name for name in {HEAVY!r} if name in sys.modules])
"""
  ratio, *loaded = python(code).split()
  assert not loaded, 'imported with flan_jax.train'
  assert float(ratio) < MAX_IMPORT_RATIO, f'importing {TRAINING} takes {ratio} times {NEEDED}'


def test_importing_the_programs_touches_no_device():
  # JAX looks for its backend when a device is first asked for, and fails on this one.
  python('import flan_jax.main, flan_jax.train, flan_jax.programs', JAX_PLATFORMS='none_such')


def test_importing_the_package_imports_nothing_else():
  code = 'import sys; before = set(sys.modules); import flan_jax; print(*set(sys.modules) - before)'
  assert python(code) == 'flan_jax'


def test_the_gin_folder_holds_no_python_and_hides_no_package():
  assert not list((ROOT / 'gin').rglob('*.py')), 'gin/ must not become a package'
  for first in (str(ROOT), ''):
    code = f'import sys; sys.path.insert(0, {first!r}); import gin; print(gin.__file__)'
    origin = Path(python(code, PYTHONPATH=str(ROOT)))
    assert ROOT / 'gin' not in origin.parents
    assert origin.name == '__init__.py'
    assert 'parse_config' in python(f'{code}; print(*dir(gin))')


def test_gin_files_are_text_with_one_binding_a_line():
  files = sorted((ROOT / 'gin').rglob('*'))
  assert any(path.suffix == '.gin' for path in files)
  for path in files:
    assert path.is_dir() or path.suffix == '.gin', f'{path.relative_to(ROOT)} is no gin file'
  macro = re.compile(r'^([A-Z][A-Z0-9_]*) *=', re.MULTILINE)
  for path in files:
    if path.is_file():
      names = macro.findall(path.read_text(encoding='utf-8'))
      assert len(names) == len(set(names)), f'{path.relative_to(ROOT)} defines a macro twice'
