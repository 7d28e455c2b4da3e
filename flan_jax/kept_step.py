"""The compiled train step, found again without tracing, which takes a start seconds of Python.

JAX's cache (`jax_compilation_cache_dir`) is asked with a program that has been traced and lowered.
Here the step is found by all that tracing reads: the Python files of the packages that it runs, the
releases of all others, flags, devices, what the step closes over, and its arguments' shapes and
layouts. A step of which that cannot be told for certain, as it calls a user's function or one that
gin configures, is traced as ever.
"""

import contextlib
import dataclasses
import enum
import functools
import hashlib
import importlib.util
import itertools
import os
import pickle
import platform
import secrets
import sys
import types
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Thread
from typing import Any

import jax
import numpy as np
from jax.experimental import serialize_executable

from flan_jax import whole_file

_DIGEST = 32  # bytes of SHA-256, before what it is of
# Whose functions and classes read nothing but arguments, what they close over, flags and their own
# files; those of a user's module may read anything.
_KNOWN = {'flan_jax', 'jax', 'numpy', 'optax', 'builtins', 'math'}
_BENEATH = {'flax', 'jaxlib', 'opt_einsum'}  # what those call
_FLAGS = ('JAX_', 'XLA_', 'LIBTPU_', 'TPU_', 'CUDA_', 'NVIDIA_', 'TF_')  # of the environment


# (state, batch) -> (next state, metrics by name).
Step = Callable[[Any, Any], tuple[Any, dict[str, Any]]]


class UndescribableError(TypeError):
  """A value whose meaning cannot be told from what it holds."""


class KeptSteps:
  """The compiled steps in a folder.

  Attributes:
    folder: Need not exist yet.
  """

  def __init__(self, folder: Path):
    self.folder = folder
    self._ahead: tuple[Path, Future] | None = None
    self._writing: Thread | None = None

  def load_ahead(self) -> None:
    """Begins to load the step that was used last, while the caller imports what is to call it.

    That starts JAX's back end: for a process that is alone.
    """
    with contextlib.suppress(OSError, ValueError):  # ValueError: there is none
      last = max(self.folder.glob('*.kept'), key=lambda path: path.stat().st_mtime_ns)
      executor = ThreadPoolExecutor(1)
      self._ahead = last, executor.submit(_load, last)
      executor.shutdown(wait=False)

  def find(self, path: Path, state: Any, batch: Any) -> Step | None:
    """The step that was written to `path`, if it is there and whole."""
    try:
      if self._ahead and self._ahead[0] == path:
        loaded = self._ahead[1].result()
      else:
        loaded = _load(path)
    except Exception as e:  # whatever a back end raises: it can be compiled again
      print(f'The compiled step {path} cannot be loaded ({e}); it is compiled anew.')
      return None
    if not loaded:
      return None
    with contextlib.suppress(OSError):
      os.utime(path)
    flat, metrics = loaded
    results = jax.tree.structure((state, dict.fromkeys(metrics, 0)))
    return lambda state, batch: jax.tree.unflatten(results, flat(*jax.tree.leaves((state, batch))))

  def keep(self, path: Path, compiled: jax.stages.Compiled, devices: list) -> None:
    """Begins to write a step, in a thread that the process waits for when it ends."""
    self._writing = Thread(target=_keep, args=(path, compiled, devices))
    self._writing.start()

  def wait(self) -> None:
    """Returns when what `keep` began is written."""
    if self._writing:
      self._writing.join()


def compile_step(
  step: Step,
  state: Any,
  batch: Any,
  options: Mapping[str, Any],
  *,
  kept: KeptSteps | None,
  before: Callable[[], Any] = lambda: None,
) -> Step:
  """What `jax.jit(step, donate_argnums=0)` compiles to, perhaps in an earlier process.

  Args:
    step: to be jitted.
    state, batch: what it begins with, or its shapes, dtypes and shardings.
    options: XLA's, see `compiling.compiler_options`.
    kept: where it is kept; None, and in a run of several processes, nowhere.
    before: called before what takes long, where nothing is found; may raise.
  """
  path = _path(kept.folder, step, (state, batch), options) if kept else None
  if kept and path and (found := kept.find(path, state, batch)):
    return found
  before()
  if path and jax.default_backend() == 'cpu':
    # XLA on CPU writes an executable that it has itself read, as from JAX's cache, without its
    # machine code: one that is to be kept has to be compiled.
    step = _under_a_new_name(step)
  lowered = jax.jit(step, donate_argnums=0).lower(state, batch)
  compiled = lowered.compile(compiler_options=dict(options))
  if kept and path:
    kept.keep(path, compiled, _devices(state))
  return compiled


def key_of(function: Callable, args: Any, options: Mapping[str, Any]) -> str:
  """Of a program: equal only if tracing would give the same one.

  Args:
    function: to be jitted, of flan_jax; it closes over plain values, arrays, dataclasses and
      functions of flan_jax, JAX, NumPy or Optax.
    args: what it is called with.
    options: of the compiler.

  Raises:
    UndescribableError: says which value is none of these.
  """
  arrays, structure = jax.tree.flatten(args)
  mesh = jax.sharding.get_abstract_mesh()
  described = (
    (describe(function), describe(options)),
    str(structure),
    [(x.shape, str(x.dtype), x.weak_type, repr(x.sharding)) for x in arrays],
    (repr(mesh), [(d.id, d.process_index, d.device_kind) for d in jax.devices()]),
    [d.id for d in _devices(args)],
    sorted((name, repr(value)) for name, value in jax.config.values.items()),
    sorted((name, x) for name, x in os.environ.items() if name.startswith(_FLAGS)),
    (_maker(), _files()),
  )
  return hashlib.sha256(repr(described).encode()).hexdigest()


def describe(value: Any) -> Any:
  """Nested tuples of strings and numbers, the same for values of the same meaning.

  Raises:
    UndescribableError: for an object that is none of those which `key_of` names.
  """
  kind = type(value)
  name = f'{kind.__module__}.{kind.__qualname__}'
  if value is None or value is ... or isinstance(value, bool | int | float | complex | str | bytes):
    return name, repr(value)
  if isinstance(value, tuple | list):
    return name, tuple(map(describe, value))
  if isinstance(value, Mapping):
    return name, tuple((describe(k), describe(v)) for k, v in value.items())
  if isinstance(value, np.dtype | np.generic):
    return name, repr(value)
  if isinstance(value, np.ndarray | jax.Array):
    array = np.asarray(value)
    return name, array.shape, str(array.dtype), hashlib.sha256(array.tobytes()).hexdigest()
  if isinstance(value, functools.partial):
    return name, describe(value.func), describe(value.args), describe(value.keywords)
  if isinstance(value, types.MethodType):
    return name, describe(value.__func__), describe(value.__self__)
  if isinstance(value, types.FunctionType):
    return name, *_function(value)
  if isinstance(value, type | types.BuiltinFunctionType) and _is_known(value.__module__):
    return name, value.__module__, value.__qualname__
  if isinstance(value, enum.Enum) and _is_known(kind.__module__):
    return name, value.name
  if dataclasses.is_dataclass(value) and _is_known(kind.__module__):
    fields = dataclasses.fields(value)
    return name, tuple((f.name, describe(getattr(value, f.name))) for f in fields)
  raise UndescribableError(f'{value!r} of type {name}')


def _function(function: types.FunctionType):
  """Where it is written and what it closes over; not for another module's wrapper around it.

  Such a wrapper (gin's, say) may read settings that are kept elsewhere.
  """
  module, code = sys.modules.get(function.__module__), function.__code__
  written_in = getattr(module, '__file__', None)
  if not _is_known(function.__module__) or written_in != code.co_filename:
    raise UndescribableError(f'{function!r} of {code.co_filename}')
  try:
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
  except ValueError as e:
    raise UndescribableError(f'{function!r} closes over what is not yet there') from e
  return (
    (function.__module__, function.__qualname__, code.co_firstlineno),
    tuple(map(describe, cells)),
    describe(function.__defaults__),
    describe(function.__kwdefaults__),
  )


def _is_known(module: str | None) -> bool:
  return module is not None and module.split('.')[0] in _KNOWN


def _files() -> list[tuple]:
  """Each Python file of the packages that tracing runs, by its size and the time it was written.

  Whether it is loaded does not count: that hangs on what else a process does, in any thread.
  """
  packages = (_KNOWN | _BENEATH) - sys.stdlib_module_names
  found = []
  for where, _, names in itertools.chain.from_iterable(map(os.walk, _folders(packages))):
    found += [_written(os.path.join(where, name)) for name in names if name.endswith('.py')]
  return sorted(found)


def _folders(packages):
  for package in packages:
    spec = importlib.util.find_spec(package)
    folders = spec and (spec.submodule_search_locations or [os.path.dirname(str(spec.origin))])
    if not folders or not all(map(os.path.isdir, folders)):  # in an archive, say
      raise UndescribableError(f'the files of {package}')
    yield from folders


def _written(path):
  try:
    status = os.stat(path)
  except OSError as e:  # an editor's, say, that is gone again or points nowhere
    raise UndescribableError(f'{path} ({e.strerror})') from e
  return path, status.st_size, status.st_mtime_ns


@functools.cache
def _maker() -> str:
  """What can run a compiled step: Python, packages, back end and processor, as one number."""
  client = jax.devices()[0].client
  made_by = sys.version, _installed(), client.platform, client.platform_version, _processor()
  return hashlib.sha256(repr(made_by).encode()).hexdigest()


def _installed() -> list[tuple]:
  """Each installed package with its version and the time it was installed."""
  folders = {Path(x) for x in sys.path if x.endswith('-packages')}
  found = [path for folder in folders if folder.is_dir() for path in folder.glob('*.dist-info')]
  return sorted((str(path), path.stat().st_mtime_ns) for path in found)


def _processor() -> str:
  """What machine code depends on: the instructions that this machine has, or its name."""
  try:
    with open('/proc/cpuinfo', encoding='utf-8') as file:
      flags = next(line for line in file if line.startswith(('flags', 'Features')))
  except (OSError, StopIteration):
    flags = platform.node()
  return f'{platform.machine()} {flags}'


def _path(folder, step, args, options) -> Path | None:
  if jax.process_count() > 1:
    return None
  try:
    return folder / f'train_step-{key_of(step, args, options)}.kept'
  except (UndescribableError, RecursionError):
    return None


def _load(path: Path) -> tuple[jax.stages.Compiled, list[str]] | None:
  """What `_keep` wrote, if it is there and whole: the step of flat arguments, names of metrics.

  Whatever the back end raises of an executable that it does not know goes through.
  """
  try:
    data = path.read_bytes()
  except OSError:
    return None
  if hashlib.sha256(data[_DIGEST:]).digest() != data[:_DIGEST]:
    return None
  kept = pickle.loads(zlib.decompress(data[_DIGEST:]))
  if kept['maker'] != _maker():  # the folder may be shared, or older than a package
    return None
  arguments, results = (tuple(range(kept[name])) for name in ('arguments', 'results'))
  in_tree, out_tree = map(jax.tree.structure, ((arguments, {}), results))
  by_id = {device.id: device for device in jax.devices()}
  devices = [by_id[i] for i in kept['devices']]
  load = serialize_executable.deserialize_and_load
  flat = load(kept['executable'], in_tree, out_tree, execution_devices=devices)
  return flat, kept['metrics']


def _under_a_new_name(step: Callable) -> Callable:
  """The same step, but JAX's cache has no program of its name."""

  def renamed(state, batch):
    return step(state, batch)

  renamed.__name__ = f'train_step_{secrets.token_hex(4)}'
  return renamed


def _devices(arrays) -> list:
  """Of the mesh that they lie on, in its order."""
  shardings = [x.sharding for x in jax.tree.leaves(arrays)]
  widest = max(shardings, key=lambda sharding: len(sharding.device_set))
  mesh = getattr(widest, 'mesh', None)
  return list(widest.device_set) if mesh is None else list(mesh.devices.flat)


def _keep(path, compiled, devices) -> None:
  try:
    executable, _, _ = serialize_executable.serialize(compiled)
  except (ValueError, NotImplementedError):
    return  # of a back end that has no serialisation
  results = compiled.out_tree.num_leaves
  _, metrics = jax.tree.unflatten(compiled.out_tree, range(results))
  facts = {'arguments': compiled.in_tree.num_leaves, 'results': results, 'metrics': list(metrics)}
  facts |= {'maker': _maker(), 'devices': [device.id for device in devices]}
  kept = zlib.compress(pickle.dumps({'executable': executable, **facts}), 1)
  with contextlib.suppress(OSError):  # as JAX's cache: a full disk ends a run elsewhere
    path.parent.mkdir(parents=True, exist_ok=True)
    whole_file.write(path, hashlib.sha256(kept).digest() + kept)
