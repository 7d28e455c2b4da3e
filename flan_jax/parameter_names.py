"""Parameters of a model by their paths, with the logical axes that each was made with."""

from typing import Any

import jax


def is_variable(x: Any) -> bool:
  """Whether `x` is a parameter with its metadata, the leaf of a model."""
  return hasattr(x, 'get_metadata')


def variables(model: Any) -> list[tuple[str, Any]]:
  """(path, variable) of every parameter of a pytree of nnx variables."""
  flat = jax.tree_util.tree_flatten_with_path(model, is_leaf=is_variable)[0]
  return [(_join(path), variable) for path, variable in flat if is_variable(variable)]


def by_path(tree: Any) -> dict[str, Any]:
  """Flattens a pytree to {path: leaf}, e.g. {'decoder.layers.attention.query': ...}."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {path_string(path): leaf for path, leaf in leaves}


def path_string(keypath: tuple) -> str:
  """The name of the leaf at `keypath`, such as 'decoder.layers.attention.query'."""
  # An nnx variable is a node of its own above its array, and calls it `value`.
  return _join(keypath[:-1] if getattr(keypath[-1], 'name', None) == 'value' else keypath)


def axes_of(variable: Any) -> tuple[str | None, ...]:
  """The logical axes of one parameter, 'layers' first where it is stacked."""
  axes = variable.get_metadata()['axes']
  stacked = len(variable.get_value().shape) - len(axes)
  return ('layers',) * stacked + tuple(axes)


def _join(keypath) -> str:
  return '.'.join(
    str(getattr(key, 'name', getattr(key, 'key', getattr(key, 'idx', key)))) for key in keypath
  )
