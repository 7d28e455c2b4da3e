"""Arrays kept as zarr: each in a folder of its own (T5X), or many in one database (Orbax).

TensorStore reads them, in parts and without the frameworks that wrote them.
"""

import json
from pathlib import Path
from typing import Any

import tensorstore

from flan_jax.convert.arrays import Stored
from flan_jax.convert.source import ConvertError

METADATA = '_METADATA'  # of Orbax: the names of the arrays in its folder


def open_zarr(folder: Path) -> Stored:
  """Opens the array in a folder."""
  return _open({'driver': 'zarr', 'kvstore': _files(folder)}, folder)


def open_orbax(folder: Path) -> dict[tuple[str, ...], Stored]:
  """Opens the arrays of a pytree that Orbax saved, by their keys in it.

  Raises:
    ConvertError: the folder is damaged.
  """
  try:
    metadata = json.loads((folder / METADATA).read_text(encoding='utf-8'))
    trees = metadata['tree_metadata'].values()
    names = [tuple(str(key['key']) for key in tree['key_metadata']) for tree in trees]
    driver = 'zarr3' if metadata.get('use_zarr3') else 'zarr'
    database = metadata.get('use_ocdbt', True)
  except (AttributeError, LookupError, OSError, TypeError, ValueError) as e:
    raise ConvertError(f'{folder / METADATA} is damaged: {e!r}; copy the checkpoint again.') from e
  stored = {}
  for keys in names:
    name = '.'.join(keys)
    kvstore = {'driver': 'ocdbt', 'base': _files(folder), 'path': f'{name}/'}
    if not database:
      kvstore = _files(folder / name)
    stored[keys] = _open({'driver': driver, 'kvstore': kvstore}, folder / name)
  return stored


def _open(spec: dict[str, Any], title: Path) -> Stored:
  try:
    array = tensorstore.open(spec, read=True, open=True).result()
  except ValueError as e:
    raise ConvertError(f'{title} is missing or damaged: {str(e)[:200]}. Copy it again.') from e

  def read(index):
    try:
      return array[index].read().result()
    except ValueError as e:
      raise ConvertError(f'{title} is cut short or damaged: {str(e)[:200]}. Copy it again.') from e

  chunk = array.chunk_layout.read_chunk.shape
  granule = chunk[0] if chunk and chunk[0] else 1
  return Stored(tuple(array.shape), array.dtype.name, read, granule)


def _files(folder: Path) -> dict[str, str]:
  return {'driver': 'file', 'path': f'{folder.resolve()}/'}
