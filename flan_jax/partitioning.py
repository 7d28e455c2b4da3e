"""Logical axis names laid on a device mesh: the one file that knows a mesh axis name.

Code elsewhere says what an axis means ('batch', 'heads', 'mlp'); a preset of rules says which
mesh axis shards it. Every mesh axis is Explicit, so a layout that cannot be had fails while
tracing. Without a mesh everything here does nothing, and the same model runs on one device.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from flan_jax import parameter_names
from flan_jax.naming import unknown

MESH_AXES = ('data', 'fsdp', 'tensor', 'sequence')

# A parameter and an activation name the same size differently ('embed', 'act_embed'), so that
# rules can shard a weight at rest without sharding what is computed with it.
_UNSHARDED = {
  'batch': None,
  'length': None,
  'kv_length': None,
  'act_embed': None,
  'act_carry': None,
  'act_heads': None,
  'act_mlp': None,
  'act_vocab': None,
  'vocab': None,
  'embed': None,
  'heads': None,
  'kv_heads': None,
  'head_dim': None,
  'mlp': None,
  'buckets': None,
  'norm': None,
  'layers': None,
  'lora_rank': None,
}
_ACTIVATIONS = {'batch': ('data', 'fsdp'), 'length': 'sequence'}
_TENSOR = {
  name: 'tensor'
  for name in ('heads', 'kv_heads', 'mlp', 'vocab', 'act_heads', 'act_mlp', 'act_vocab')
}
# Preset -> logical axis -> mesh axis, mesh axes (major first) or None for replicated.
PRESETS: dict[str, dict[str, Any]] = {
  'data_parallel': {**_UNSHARDED, **_ACTIVATIONS},
  'fsdp': {**_UNSHARDED, **_ACTIVATIONS, 'embed': 'fsdp'},
  'fsdp_tensor': {
    **_UNSHARDED,
    **_ACTIVATIONS,
    'embed': 'fsdp',
    'act_carry': 'tensor',
    **_TENSOR,
  },
}
_DEFAULT_PRESET = 'fsdp_tensor'


class _Rules(NamedTuple):
  preset: str = _DEFAULT_PRESET
  whole: tuple[str, ...] = ()


# Part of jit's cache key: a function traced under one preset is traced again under another.
_rules = jax.make_user_context(_Rules())


@dataclasses.dataclass(frozen=True)
class MeshConfig:
  """Sizes of the mesh axes in devices, and the preset of rules laid on them.

  `data` replicates parameters, `fsdp` shards them and gathers each layer before use, `tensor`
  splits heads, mlp and vocabulary, `sequence` splits the positions of activations. At most one
  size may be -1: it takes the devices that the others leave.
  """

  data: int = -1
  fsdp: int = 1
  tensor: int = 1
  sequence: int = 1
  rules: str = _DEFAULT_PRESET

  def __post_init__(self):
    if self.rules not in PRESETS:
      raise ValueError(unknown('sharding preset', self.rules, PRESETS))
    wrong = [name for name in MESH_AXES if getattr(self, name) < 1 and getattr(self, name) != -1]
    if wrong:
      raise ValueError(
        f'{wrong[0]}={getattr(self, wrong[0])} is no size of a mesh axis; '
        'give a positive number of devices, or -1 for those that the other axes leave.'
      )
    open_axes = [name for name in MESH_AXES if getattr(self, name) == -1]
    if len(open_axes) > 1:
      raise ValueError(
        f'{" and ".join(open_axes)} are both -1; only one mesh axis can take what is left.'
      )
    if self.tensor != 1 and not _uses(self.rules, 'tensor'):
      raise ValueError(
        f"tensor={self.tensor} would only repeat work, as rules='{self.rules}' shard nothing over "
        "it; use tensor=1, or rules='fsdp_tensor'."
      )

  def sizes(self, num_devices: int) -> tuple[int, ...]:
    """The size of each of MESH_AXES, with -1 resolved for `num_devices` devices."""
    given = [getattr(self, name) for name in MESH_AXES]
    product = math.prod(size for size in given if size != -1)
    if -1 in given and num_devices % product == 0:
      return tuple(num_devices // product if size == -1 else size for size in given)
    if -1 not in given and product == num_devices:
      return tuple(given)
    widest = max(MESH_AXES, key=lambda name: getattr(self, name))
    others = product // max(given)
    fitting = divisors(num_devices // others) if num_devices % others == 0 else []
    if -1 not in given:
      fitting = fitting[-1:]
    advice = (
      f'use {widest}={nearest(max(given), fitting)}'
      if fitting
      else f'choose sizes whose product is {num_devices}'
    )
    names = ' x '.join(f'{name}={size}' for name, size in zip(MESH_AXES, given, strict=True))
    raise ValueError(
      f'The mesh {names} needs {"a multiple of " if -1 in given else ""}{product} devices, '
      f'but there {"is" if num_devices == 1 else "are"} {num_devices}; {advice} in MESH.'
    )


def make_mesh(config: MeshConfig, devices: list | None = None) -> Mesh:
  """A mesh with Explicit axes MESH_AXES over `devices` (all of the program's when None).

  Over several slices, `data` is the axis between them, and all others stay inside one.
  """
  devices = jax.devices() if devices is None else devices
  sizes = config.sizes(len(devices))
  types = (AxisType.Explicit,) * len(MESH_AXES)
  slices = len({getattr(device, 'slice_index', 0) for device in devices})
  if slices == 1:
    # An axis whose size is no product of dimensions of the torus shares one with another axis.
    grid = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    return Mesh(grid, MESH_AXES, axis_types=types)
  data, *inside = sizes
  if data % slices:
    raise ValueError(
      f'data={data} in MESH is no multiple of the {slices} slices: between slices the network is '
      f'slow, and only data crosses it; use data={slices * max(1, round(data / slices))}.'
    )
  grid = mesh_utils.create_hybrid_device_mesh(
    (data // slices, *inside), (slices, *(1 for _ in inside)), devices
  )
  return Mesh(grid, MESH_AXES, axis_types=types)


@contextlib.contextmanager
def use_mesh(mesh: MeshConfig | Mesh, rules: str | None = None) -> Iterator[Mesh]:
  """Makes a mesh and a preset of rules current; `rules` defaults to the config's own."""
  if isinstance(mesh, MeshConfig):
    rules = rules or mesh.rules
    mesh = make_mesh(mesh)
  rules = rules or _DEFAULT_PRESET
  if rules not in PRESETS:
    raise ValueError(unknown('sharding preset', rules, PRESETS))
  with jax.set_mesh(mesh), _rules(_Rules(rules)):
    yield mesh


@contextlib.contextmanager
def whole(*axes: str) -> Iterator[None]:
  """Leaves these logical axes unsharded inside, as where an array has length 1."""
  with _rules(_rules.value._replace(whole=axes)):
    yield


def has_mesh() -> bool:
  """Whether a mesh is current and arrays are to be laid on it: not so inside `per_device`."""
  mesh = jax.sharding.get_abstract_mesh()
  return not mesh.empty and not mesh.are_all_axes_manual


def platform() -> str:
  """'cpu', 'gpu' or 'tpu': of the current mesh, which need not be this machine's, or of JAX."""
  device = jax.sharding.get_abstract_mesh().abstract_device
  return device.platform if device is not None else jax.default_backend()


def on_one_cpu() -> bool:
  """Whether the program is for a single CPU device, where what fits the cache decides the speed."""
  mesh = jax.sharding.get_abstract_mesh()
  return platform() == 'cpu' and (mesh.empty or mesh.size == 1)


def per_device(fn: Callable, in_specs: Any, out_specs: Any) -> Callable:
  """`fn` of each device's own part of its arguments; without a mesh `fn` itself.

  The specs come from `spec`. What `fn` adds up over devices, it adds up by collectives over
  `mesh_axes`, of which () leaves a value as it is.
  """
  if not has_mesh():
    return fn
  return jax.shard_map(fn, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def spec(*axes: str | None) -> PartitionSpec:
  """The PartitionSpec of an array whose dimensions have these logical axes.

  None, as an axis, is a dimension that is never sharded. Without a mesh all are unsharded.
  """
  rules = _current_rules()
  entries, taken = [], {}
  for axis in axes:
    if axis is not None and axis not in rules:
      raise ValueError(unknown('logical axis', axis, rules))
    entry = None if axis is None else rules[axis]
    for mesh_axis in (entry,) if isinstance(entry, str) else entry or ():
      if mesh_axis in taken:
        raise ValueError(
          f"Axes '{taken[mesh_axis]}' and '{axis}' of one array {axes} would both be sharded over "
          f"mesh axis '{mesh_axis}'; name one of them None, or change the rules."
        )
      taken[mesh_axis] = axis
    entries.append(entry)
  return PartitionSpec(*entries)


def mesh_axes(*axes: str | None) -> tuple[str, ...]:
  """The mesh axes over which an array with these logical axes is split; not those of size 1."""
  sizes = dict(jax.sharding.get_abstract_mesh().shape)
  entries = [(e,) if isinstance(e, str) else e or () for e in spec(*axes)]
  return tuple(mesh_axis for entry in entries for mesh_axis in entry if sizes[mesh_axis] > 1)


def is_split(*axes: str | None) -> bool:
  """Whether an array with these logical axes is split over several devices."""
  return bool(mesh_axes(*axes))


def shard(x: jax.Array, *axes: str | None) -> jax.Array:
  """Lays `x` out by its logical axes."""
  return jax.sharding.reshard(x, spec(*axes)) if has_mesh() else x


def out(*axes: str | None) -> PartitionSpec | None:
  """The `out_sharding` of an operation whose result has these logical axes."""
  return spec(*axes) if has_mesh() else None


def layout(x: jax.Array) -> PartitionSpec | None:
  """The `out_sharding` that gives a result the layout of `x`."""
  return jax.typeof(x).sharding.spec if has_mesh() else None


def batch_sharding(mesh: Mesh, rules: str = _DEFAULT_PRESET) -> NamedSharding:
  """How every [batch, length] feature of a batch is laid on `mesh`."""
  with use_mesh(mesh, rules):
    return NamedSharding(mesh, spec('batch', 'length'))


def check_batch_rows(rows: int, mesh: Mesh) -> None:
  """Refuses a global batch whose rows do not divide over the devices that share them."""
  axes = PRESETS[_DEFAULT_PRESET]['batch']
  devices = math.prod(mesh.shape[axis] for axis in axes)
  if rows < 1 or rows % devices:
    below = rows // devices * devices
    choice = f'{below} or {below + devices}' if below > 0 else f'{devices}'
    widest = max(axes, key=lambda axis: mesh.shape[axis])
    raise ValueError(
      f'{rows} rows cannot be split over {" x ".join(axes)} = {devices} devices; '
      f'use {choice}, or lower {widest} in MESH.'
    )


def local_rows(sharding: NamedSharding, batch_rows: int) -> slice:
  """The rows of a global batch that this process's devices hold; they are contiguous."""
  held = sharding.addressable_devices_indices_map((batch_rows, 1)).values()
  bounds = [index[0].indices(batch_rows) for index in held if index is not None]
  return slice(min(b[0] for b in bounds), max(b[1] for b in bounds))


def place_rows(
  batch: dict[str, np.ndarray], *, sharding: NamedSharding, rows: slice, batch_rows: int
) -> dict[str, jax.Array]:
  """The `rows` of a batch of `batch_rows` that this process has, as global arrays on the mesh."""

  def place(x):
    def piece(index):
      start, stop, _ = index[0].indices(batch_rows)
      return x[start - rows.start : stop - rows.start, index[1]]

    return jax.make_array_from_callback((batch_rows, *x.shape[1:]), sharding, piece)

  return {name: place(x) for name, x in batch.items()}


def split_rows(x: jax.Array, parts: int) -> jax.Array:
  """[batch, length] -> [parts, batch / parts, length], every row staying on its device."""
  rows = x.reshape(
    x.shape[0] // parts, parts, *x.shape[1:], out_sharding=out('batch', None, 'length')
  )
  return shard(rows.swapaxes(0, 1), None, 'batch', 'length')


def abstract(fn: Callable, *args) -> Any:
  """What `fn(*args)` would return, as ShapeDtypeStructs with their shardings; computes nothing.

  Parameters that the current mesh cannot split evenly are refused first (`check_divisible`).
  The shardings are on the concrete current mesh, so that they serve jit and restoring alike.
  """
  if not has_mesh():
    return jax.eval_shape(fn, *args)
  mesh = jax.sharding.get_mesh()
  if mesh.size > 1:
    check_divisible(fn, *args)
  shapes = jax.eval_shape(fn, *args)

  def concrete(x):
    # A constant, such as a step count of zero, carries no sharding: it is replicated.
    layout = x.sharding.spec if x.sharding else PartitionSpec()
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, layout))

  return jax.tree.map(concrete, shapes)


def check_divisible(fn: Callable, *args) -> None:
  """Refuses a parameter made by `fn(*args)` that the current mesh cannot split evenly."""
  with whole(*_UNSHARDED):
    # A new function, as eval_shape remembers what it traced.
    shapes = jax.eval_shape(lambda *args: fn(*args), *args)
  sizes = dict(jax.sharding.get_abstract_mesh().shape)
  for path, variable in parameter_names.variables(shapes):
    axes = parameter_names.axes_of(variable)
    for axis, length, entry in zip(axes, variable.get_value().shape, spec(*axes), strict=True):
      mesh_axes = (entry,) if isinstance(entry, str) else entry or ()
      parts = math.prod(sizes[mesh_axis] for mesh_axis in mesh_axes)
      if length % parts:
        over = ' x '.join(mesh_axes)
        raise ValueError(
          f"Parameter {path}: axis '{axis}' of size {length} cannot be split over {over} = {parts} "
          f'devices; use {over} = {math.gcd(length, parts)} in MESH, or make it a multiple of '
          f'{parts}.'
        )


def logical_axes(model: Any) -> Any:
  """`model`'s pytree with each parameter replaced by the tuple of its logical axes."""
  axes = [parameter_names.axes_of(variable) for _, variable in parameter_names.variables(model)]
  return jax.tree.unflatten(jax.tree.structure(model), axes)


@dataclasses.dataclass(frozen=True)
class ParameterRow:
  """One parameter as it lies on the mesh; `bytes` counts all of it, not one device's share."""

  path: str
  shape: tuple[int, ...]
  dtype: str
  spec: PartitionSpec
  bytes: int


def parameter_table(model: Any) -> list[ParameterRow]:
  """One row for each parameter of `model`, concrete or abstract, in the order of its pytree."""
  rows = []
  for path, variable in parameter_names.variables(model):
    value = variable.get_value()
    size = math.prod(value.shape) * np.dtype(value.dtype).itemsize
    layout = spec(*parameter_names.axes_of(variable))
    rows.append(ParameterRow(path, tuple(value.shape), str(value.dtype), layout, size))
  return rows


def divisors(number: int) -> list[int]:
  """The positive divisors of `number`, in order."""
  return [size for size in range(1, number + 1) if number % size == 0]


def nearest(number: int, choices: list[int]) -> int:
  """The choice closest to `number`."""
  return min(choices, key=lambda choice: abs(choice - number))


def _current_rules() -> dict[str, Any]:
  if not has_mesh():
    return _UNSHARDED
  return {**PRESETS[_rules.value.preset], **dict.fromkeys(_rules.value.whole)}


def _uses(rules: str, mesh_axis: str) -> bool:
  return any(
    mesh_axis in ((e,) if isinstance(e, str) else e or ()) for e in PRESETS[rules].values()
  )
