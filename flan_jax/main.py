"""The command line and gin: flags -> configuration object -> program.

The only file that imports gin. A gin file is parsed, a frozen `Run` is built from it, every value
is shown with where it came from, and bindings that nothing uses are refused; what runs afterwards
is plain Python.
"""

import dataclasses
import difflib
import inspect
import keyword
import logging
import os
import re
import sys
import tokenize
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gin
from gin import config as gin_config
from gin import config_parser

from flan_jax import command_line, command_line_data, preemption, programs, programs_train
from flan_jax.naming import nearest, unknown
from flan_jax.whole_file import FULL

# Flags of `prepare` that a run's gin file can give, so that one file serves both.
PREPARE_MACROS = {
  'mixture': 'MIXTURE_OR_TASK_NAME',
  'cache_dir': 'CACHE_DIR',
  'vocabulary': 'VOCABULARY',
  'chat_template': 'CHAT_TEMPLATE',
  'licence': 'LICENCE',
  **{name: name.upper() for name in command_line_data.FOLDERS},
}


@dataclasses.dataclass(frozen=True)
class Run:
  """What a gin file of gin/runs builds: what to train, and how to evaluate it meanwhile."""

  train: Any
  evaluation: Any = None


@dataclasses.dataclass(frozen=True)
class Resolved:
  """A configuration: the objects, and each value with its source, as text for people."""

  run: Run
  values: dict[str, dict[str, str]]
  gin_text: str


class ConfigError(Exception):
  """A gin file or binding is wrong; exit status 2."""


def gin_folder() -> Path:
  """The gin files of the installed package, or of the checkout."""
  here = Path(__file__).resolve().parent
  return here / 'gin' if (here / 'gin').is_dir() else here.parent / 'gin'


def load_run(
  files: Sequence[str], bindings: Sequence[str], search_paths: Sequence[str] = ()
) -> Resolved:
  """Parses gin files and `NAME = VALUE` bindings into a Run.

  Raises:
    ConfigError: With the file, line and nearest name of what is wrong.
  """
  folders = _forget(search_paths)
  paths = [_find_file(name, folders) for name in files]
  sources, imports = {}, []
  for path in paths:
    _collect_sources(path, folders, sources, imports)
  for binding in bindings:
    sources[binding.split('=')[0].strip()] = 'command line'
  text = '\n'.join(['from __gin__ import dynamic_registration', *dict.fromkeys(imports), *bindings])
  logging.disable(logging.ERROR)  # gin logs every folder in which a file is not
  try:
    for path in paths:
      gin.parse_config_file(str(path), print_includes_and_imports=False)
    gin.parse_config(text)
    _check_required(sources)
    run = gin.get_configurable(Run)()
  except ConfigError:
    raise
  except Exception as e:
    raise ConfigError(_explain(e, imports)) from e
  finally:
    logging.disable(logging.NOTSET)
  values = _resolved_values(sources)
  _refuse_unused(sources)
  return Resolved(run, values, gin.operative_config_str())


def load_model(path: Path) -> Any:
  """The MODEL of a gin file, a `models.config.TransformerConfig`."""
  _forget()
  gin.parse_config_file(str(path), print_includes_and_imports=False)
  gin.parse_config(
    'from __gin__ import dynamic_registration\nfrom flan_jax import main\nmain.Run.train = %MODEL'
  )
  return gin.get_configurable(Run)().train


def model_parameters(path: Path) -> int:
  """How many parameters the MODEL of a gin file has, without rows that pad the vocabulary."""
  from flan_jax.models import config

  return config.parameter_count(dataclasses.replace(load_model(path), vocab_multiple=1))


def _forget(search_paths: Sequence[str] = ()) -> list[str]:
  """Empties gin of earlier files; returns the folders where it finds the next ones."""
  gin.clear_config()
  folders = ['', *search_paths, str(gin_folder())]
  gin_config._LOCATION_PREFIXES[:] = folders
  # gin also takes 'runs/train.gin' for a file of a Python package `runs`, and fails on a folder
  # that is none, such as that of the work directories.
  del gin_config._FILE_READERS[1:]
  return folders


def _find_file(name: str, folders: Sequence[str]) -> Path:
  for folder in folders:
    path = Path(folder, os.path.expanduser(name))
    if path.is_file():
      return path
  known = [str(p.relative_to(gin_folder())) for p in sorted(gin_folder().rglob('*.gin'))]
  raise ConfigError(unknown('gin file', name, known))


class _Names:
  """Lets gin's parser read a file without resolving what it refers to."""

  def configurable_reference(self, name, evaluate):
    return f'@{name}' + ('()' if evaluate else '')

  def macro(self, name):
    return f'%{name}'


def _collect_sources(path: Path, folders, sources: dict[str, str], imports: list[str]) -> None:
  """Fills `sources` with 'name' -> 'file:line', the later definition winning as in gin."""
  try:
    text = path.read_text(encoding='utf-8')
    for statement in config_parser.ConfigParser(text, _Names()):
      if isinstance(statement, config_parser.IncludeStatement):
        _collect_sources(_find_file(statement.filename, folders), folders, sources, imports)
      elif isinstance(statement, config_parser.ImportStatement):
        line = statement.format()
        if '__gin__' not in line:
          imports.append(line)
      elif isinstance(statement, config_parser.BindingStatement):
        parts = [statement.scope, statement.selector]
        name = '/'.join(p for p in parts if p)
        name += f'.{statement.arg_name}' if statement.arg_name else ''
        sources[name] = f'{_short(path)}:{statement.location.line_num}'
  except UnicodeDecodeError as e:
    raise ConfigError(f'{path} is not a text file (byte {e.start} is not UTF-8).') from e
  except SyntaxError as e:
    raise ConfigError(f'{path}: {_one_line(e)}') from e


def _short(path: Path) -> str:
  root = gin_folder()
  return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def _check_required(sources: dict[str, str]) -> None:
  missing = [
    scope
    for (scope, selector), bound in gin_config._CONFIG.items()
    if selector == 'gin.macro' and str(bound.get('value')) == '%gin.REQUIRED'
  ]
  unknown = [n for n, s in sources.items() if s == 'command line' and '.' not in n]
  hints = [(m, difflib.get_close_matches(m, unknown, n=1, cutoff=0.7)) for m in missing]
  if missing:
    near = ''.join(f' Did you mean {m} by {h[0]}?' for m, h in hints if h)
    raise ConfigError(
      f'{", ".join(missing)} must be given: --gin.{missing[0]}=VALUE or in a gin file.{near}'
    )


def _refuse_unused(sources: dict[str, str]) -> None:
  """Refuses bindings of the user's that nothing used; the package's own defaults may idle.

  So may what only `prepare` reads, in a gin file that serves both.
  """
  unused, used_macros = [], []
  for (scope, selector), bound in gin_config._CONFIG.items():
    used = _used_parameters(scope, selector)
    if selector != 'gin.macro':
      unused += [_name(scope, selector, p) for p in bound if p not in used]
    elif used:
      used_macros.append(scope)
    else:
      unused.append(scope)
  packaged = {_short(p) for p in gin_folder().rglob('*.gin')}
  for name in unused:
    source = _source_of(name, sources)
    of_prepare = name in PREPARE_MACROS.values() and source != 'command line'
    if of_prepare or source.rpartition(':')[0] in packaged:
      continue
    macros = [*used_macros, *PREPARE_MACROS.values()]
    near = nearest(name, macros if '.' not in name else list(sources))
    raise ConfigError(f'Nothing uses the binding {name} ({source}).{near}')


def _used_parameters(scope: str, selector: str) -> set[str]:
  """What was read of a selector in a scope or below it: what a macro makes is in its scope."""
  return {
    parameter
    for (place, used), bound in gin_config._OPERATIVE_CONFIG.items()
    if used == selector and (scope in ('', place) or place.startswith(f'{scope}/'))
    for parameter in bound
  }


def _name(scope: str, selector: str, parameter: str) -> str:
  short = '.'.join(selector.split('.')[-2:])
  return f'{scope}/{short}.{parameter}' if scope else f'{short}.{parameter}'


def _source_of(name: str, sources: dict[str, str]) -> str:
  """Source of a value; gin files may name a selector by more or fewer of its last parts."""
  for given, source in sources.items():
    if given == name or given.endswith('.' + name) or name.endswith('.' + given):
      return source
  return 'default'


def _resolved_values(sources: dict[str, str]) -> dict[str, dict[str, str]]:
  values = {}
  for (_, selector), bound in sorted(gin_config._OPERATIVE_CONFIG.items(), key=lambda i: i[0][1]):
    if selector.startswith('gin.'):
      continue
    for parameter, value in bound.items():
      # gin's scope here is the macro that made the object, which the sources do not have.
      name, macro = _name('', selector, parameter), None
      while isinstance(value, gin_config.ConfigurableReference) and value.selector == 'gin.macro':
        macro = value.scoped_selector.rpartition('/')[0]
        value = gin_config._CONFIG[(macro, 'gin.macro')]['value']
      source = f'{macro}, {_source_of(macro, sources)}' if macro else _source_of(name, sources)
      values[name] = {'value': _literal(value), 'source': source}
  return values


def _literal(value: Any) -> str:
  text = repr(value)
  return re.sub(r' at 0x[0-9a-f]+', '', text)


def _explain(error: Exception, imports: Sequence[str]) -> str:
  """What gin raised, as one or two sentences."""
  if isinstance(error, tokenize.TokenError):  # from Python 3.12 on, where gin expects a SyntaxError
    return f'Unable to parse value: {error.args[0]}. Quote text as in --gin.NAME="text".'
  text = _one_line(error)
  match = re.search(r"Configurable '([\w.]+)' doesn't have a parameter named '(\w+)'", text)
  if match:
    parameters = list(inspect.signature(_resolve(match[1])).parameters)
    near, where = nearest(match[2], parameters), text.rpartition(' In ')[2]
    known = ', '.join(parameters)
    return f'{match[1]} has no parameter {match[2]!r}.{near} It has: {known}. In {where}.'
  match = re.search(r'has no attribute (\w+)', text)
  if match:
    module = re.search(r"<module '([\w.]+)'", text)
    names = [n for n in dir(sys.modules[module[1]]) if not n.startswith('_')] if module else []
    return f'{text.split(";")[0]}.{nearest(match[1], names)}'
  match = re.search(r"macro\(\) missing .* in scope '(\w+)'", text)
  if match:
    macros = [s for s, selector in gin_config._CONFIG if selector == 'gin.macro']
    return f'No macro %{match[1]} is defined.{nearest(match[1], macros)}'
  match = re.search(r"'(\w+)' was not provided by an import", text)
  if match:
    names = [re.split(r'\s|\.', line)[-1] for line in imports]
    return f'{match[1]!r} is no module of the gin files.{nearest(match[1], names)} {text}'
  return text


def _resolve(dotted: str) -> Any:
  """The imported class or function that a gin selector such as 'train.TrainConfig' means."""
  module, _, name = dotted.rpartition('.')
  for imported in list(sys.modules.values()):
    path = getattr(imported, '__name__', '')
    if (path == module or path.endswith('.' + module)) and hasattr(imported, name):
      return getattr(imported, name)
  raise LookupError(dotted)


def _one_line(e: BaseException) -> str:
  if isinstance(e, OSError) and e.errno in FULL:
    return f'No space is left for {e.filename or "a file"} ({e.strerror}); make some and go on.'
  return ' '.join(str(e.args[0] if isinstance(e, KeyError) and e.args else e).split())


def console(argv: Sequence[str] | None = None) -> int:
  """Entry point of `flan-jax`; returns the exit status.

  0 success, 1 failed, 2 wrong use, 75 preempted with nothing lost, 130 stopped from the keyboard.
  """
  argv = sys.argv[1:] if argv is None else list(argv)
  show_traceback = '--traceback' in argv
  # Orbax warns of its own read-only mode, and prints what it also raises.
  logging.getLogger('absl').setLevel(logging.CRITICAL)
  try:
    args, bindings = command_line.parse(argv)
    if args.version:
      return programs.version()
    if args.verb == 'train':
      with preemption.Notices(leave=True) as notices:
        settings = args.gin_file, _bindings(args, bindings), _paths(args)
        return programs_train.train(args, lambda: load_run(*settings), notices)
    if args.verb == 'plan':
      run = load_run(args.gin_file, _bindings(args, bindings), _paths(args))
      return programs.plan(args, run)
    if args.verb == 'prepare':
      return programs.prepare(_with_macros(args, bindings))
    if args.verb == 'list':
      return programs.list_things(args, gin_folder(), model_parameters)
    name = args.verb.replace('-', '_')
    return getattr(programs, f'{name}_' if keyword.iskeyword(name) else name)(args)
  except (command_line.UsageError, ConfigError) as e:
    return _fail(e, 2, show_traceback)
  except preemption.Preempted as e:
    return _fail(str(e), preemption.EXIT_STATUS, show_traceback)
  except KeyboardInterrupt as e:
    return _fail(str(e) or 'Interrupted.', 130, show_traceback)
  except (ValueError, OSError, RuntimeError, LookupError, ImportError) as e:
    return _fail(e, 1, show_traceback)


def _bindings(args, bindings: list[str]) -> list[str]:
  """Flags that stand for common macros, before the bindings, which win."""
  flags = {
    'MIXTURE_OR_TASK_NAME': args.mixture,
    'CACHE_DIR': args.cache_dir,
    'TRAIN_STEPS': args.steps,
    'BATCH_SIZE': args.batch_size,
    'SEED': args.seed,
  }
  return [f'{name} = {value!r}' for name, value in flags.items() if value is not None] + bindings


def _with_macros(args, bindings: list[str]):
  """Fills flags of `prepare` that were not given from the macros of gin files and bindings."""
  macros = {name: attribute for attribute, name in PREPARE_MACROS.items()}
  for binding in bindings:
    name = binding.split('=')[0].strip()
    if name not in macros:
      raise ConfigError(
        f'`flan-jax prepare` knows no macro {name}.{nearest(name, list(macros))} '
        f'It takes: {", ".join(macros)}.'
      )
  folders = _forget(_paths(args))
  try:
    for name in args.gin_file or ():
      path = _find_file(name, folders)
      gin.parse_config_file(str(path), print_includes_and_imports=False)
    gin.parse_config(bindings)
  except ConfigError:
    raise
  except Exception as e:
    raise ConfigError(_explain(e, [])) from e
  for (name, selector), bound in gin_config._CONFIG.items():
    value = bound.get('value')
    given = selector == 'gin.macro' and name in macros and isinstance(value, str)
    if given and getattr(args, macros[name]) is None:
      setattr(args, macros[name], value)
  for flag in ('mixture', 'cache_dir'):
    if getattr(args, flag) is None:
      raise command_line.UsageError(
        f'`flan-jax prepare` needs --{flag}, or {PREPARE_MACROS[flag]} in a gin file.'
      )
  return args


def _paths(args) -> list[str]:
  return [p for p in args.gin_search_paths.split(',') if p]


def _fail(error: BaseException | str, status: int, show_traceback: bool) -> int:
  if show_traceback and isinstance(error, BaseException):
    traceback.print_exception(error)
  text = _one_line(error) if isinstance(error, BaseException) else error
  print(f'flan-jax: {text or type(error).__name__}', file=sys.stderr)
  return status


if __name__ == '__main__':
  # Not this module's own `console`: gin files import flan_jax.main, which must be the same one.
  from flan_jax import main

  sys.exit(main.console())
