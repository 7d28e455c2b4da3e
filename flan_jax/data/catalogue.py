"""What the task modules that the user named have registered: tasks and mixtures by name.

flan_jax never imports tasks: it imports the modules whose names it was given and asks the
registry that came with them. What only SeqIO knows is in seqio_tasks.py.
"""

import contextlib
import importlib
import os
import pkgutil
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from flan_jax.data.mixture import Mixture
from flan_jax.naming import nearest, unknown

DEFAULT_MODULES = ('flan_jax.tasks',)

# Set while modules are imported: tasks then register without SeqIO, whose import takes 10 to 20
# seconds in every process.
_SEQIO_SWITCH = 'FLAN_JAX_SEQIO'


class CatalogueError(ValueError):
  """A task module, task or mixture that is not there."""


def import_task_modules(names: Sequence[str], *, seqio: bool = False) -> None:
  """Imports the modules that register tasks, in order.

  Args:
    names: dotted module names; the current folder is searched as well.
    seqio: register with SeqIO too, as modules need whose SeqIO mixtures hold our tasks.

  Raises:
    CatalogueError: a module that is not there or cannot be imported.
  """
  with _seqio_registration(seqio), _current_folder_on_path():
    for name in names:
      try:
        importlib.import_module(name)
      except ModuleNotFoundError as e:
        if e.name is not None and (name == e.name or name.startswith(f'{e.name}.')):
          raise CatalogueError(
            f"There is no task module '{name}'.{_near_modules(name)} Give a dotted name that "
            'Python can import: flan_jax.tasks, or `my_tasks` for my_tasks.py in this folder.'
          ) from e
        raise CatalogueError(
          f"Task module '{name}' imports '{e.name}', which is not installed; install it or leave "
          'the module out.'
        ) from e
      except Exception as e:
        raise CatalogueError(
          f"Task module '{name}' cannot be imported: {type(e).__name__}: {e}"
        ) from e


def registry() -> Any:
  """Returns the registry of instruction tasks, or None if no named module brought it in."""
  return sys.modules.get('flan_jax.tasks.registry')


def mixtures() -> Any:
  """Returns the module of instruction mixtures, or None if none brought it in."""
  return sys.modules.get('flan_jax.tasks.mixtures')


def task_names() -> tuple[str, ...]:
  """Names of the instruction tasks, in the order of registration."""
  module = registry()
  return tuple(module.task_names()) if module else ()


def mixture_names() -> tuple[str, ...]:
  """Names of the instruction mixtures, in the order of registration."""
  module = mixtures()
  return tuple(module.mixture_names()) if module else ()


def find(name: str) -> Mixture | None:
  """Returns the instruction mixture of that name, a task as a mixture of one, or None."""
  if name in mixture_names():
    return mixtures().export_mixture(name)
  if name in task_names():
    return Mixture.of(name, {name: 1.0})
  return None


def info(name: str) -> Any:
  """Returns the TaskInfo of an instruction task."""
  return registry().info(name)


def text_examples(name: str, split: str, *, seed: int = 0, epochs: Sequence[int] = (0,)) -> Any:
  """Returns the registry's TextExamples; seed and epoch decide its wordings and exemplars."""
  return registry().text_examples(name, split, seed=seed, epochs=epochs)


def set_folder(name: str, path: str) -> None:
  """Tells where a folder is that tasks leave open, in this process and those it starts.

  Raises:
    CatalogueError: no named module leaves such a folder open.
  """
  module: Any = sys.modules.get('flan_jax.tasks.folders')
  known = tuple(module.folders()) if module else ()
  if name not in known:
    raise CatalogueError(unknown('folder', name, known))
  module.set_folder(name, path)


def set_vocabulary(spec: str) -> None:
  """Tells the instruction tasks, which count tokens of few-shot prompts, what counts them."""
  module: Any = sys.modules.get('flan_jax.tasks.vocabulary')
  if module:
    module.set_vocabulary(spec)


@contextlib.contextmanager
def _seqio_registration(wanted: bool) -> Iterator[None]:
  before = os.environ.get(_SEQIO_SWITCH)
  # A process that has SeqIO already has paid for it, and may want the tasks there.
  if not wanted and 'seqio' not in sys.modules:
    os.environ[_SEQIO_SWITCH] = 'off'
  try:
    yield
  finally:
    if before is None:
      os.environ.pop(_SEQIO_SWITCH, None)
    else:
      os.environ[_SEQIO_SWITCH] = before


@contextlib.contextmanager
def _current_folder_on_path() -> Iterator[None]:
  """An installed program does not search the folder it is called in, where users keep tasks."""
  folder = os.getcwd()
  added = folder not in sys.path and '' not in sys.path
  if added:
    sys.path.append(folder)
  try:
    yield
  finally:
    if added:
      sys.path.remove(folder)


def _near_modules(name: str) -> str:
  """Compares with the modules beside it: 'flan_jax.taks' -> 'flan_jax.tasks'."""
  parent = name.rpartition('.')[0]
  try:
    # Of the top level only the current folder: whatever else is installed holds no tasks.
    path = list(importlib.import_module(parent).__path__) if parent else [os.getcwd()]
  except (ImportError, AttributeError):
    path, parent = [], ''
  beside = [f'{parent}.{module.name}'.lstrip('.') for module in pkgutil.iter_modules(path)]
  return nearest(name, (*beside, *DEFAULT_MODULES))
