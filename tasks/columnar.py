"""Parquet and Arrow files, read some rows at a time: memory grows neither with file nor row group.

Used by sources.py and huggingface.py; errors name file, row and column.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from flan_jax.tasks.paths import is_url
from flan_jax.tasks.readers import DataError

from flan_jax.naming import nearest

_BATCH = 1000  # rows that are Python objects at a time


def columnar_rows(
  path: Path, columns: tuple[str, ...] | None
) -> Iterator[tuple[int, dict[str, Any]]]:
  """Yields (row number from 1, fields) of a Parquet file, or of an Arrow file by its ending.

  Raises:
    DataError: no such file or column, or a file that is damaged.
  """
  try:
    import pyarrow
    import pyarrow.ipc
    import pyarrow.parquet
  except ImportError as e:
    raise DataError(f'Reading {path} needs pyarrow; pip install pyarrow.') from e
  number = 0
  kind, batches = ('Arrow', _arrow) if path.suffix == '.arrow' else ('Parquet', _parquet)
  try:
    for batch in batches(pyarrow, path, columns):
      for start in range(0, batch.num_rows, _BATCH):
        for fields in batch.slice(start, _BATCH).to_pylist():
          number += 1
          yield number, fields
  except FileNotFoundError as e:
    raise DataError(f'Cannot read {path}: No such file or directory.') from e
  except (pyarrow.ArrowException, OSError) as e:
    reason = (str(e).splitlines() or ['it is empty'])[0].rstrip('.')
    raise DataError(f'{path} is damaged or not {kind} (after {number} rows): {reason}.') from e


def check_columns(where: Path | str, columns: tuple[str, ...] | None, known: list[str]) -> None:
  """Refuses a column that is not there.

  Raises:
    DataError: with the nearest name.
  """
  for name in columns or ():
    if name not in known:
      raise DataError(
        f'{where} has no column {name!r}.{nearest(name, known)} Columns: {", ".join(known)}.'
      )


def _parquet(pyarrow: Any, path: Path, columns: tuple[str, ...] | None) -> Iterator[Any]:
  # By default the whole file would be fetched ahead, and a whole row group without a buffer size.
  with (
    _open(pyarrow, path, pyarrow.OSFile) as source,
    pyarrow.parquet.ParquetFile(source, pre_buffer=False, buffer_size=2**20) as file,
  ):
    check_columns(path, columns, file.schema_arrow.names)
    yield from file.iter_batches(_BATCH, columns=list(columns) if columns else None)


def _arrow(pyarrow: Any, path: Path, columns: tuple[str, ...] | None) -> Iterator[Any]:
  """Yields the batches of a stream (what `datasets` writes) or of a file with a footer."""
  # A batch may be the whole file: mapped, it is memory that the system takes back when it must.
  with _open(pyarrow, path, pyarrow.memory_map) as file:
    footer = file.read(6) == b'ARROW1'
    file.seek(0)
    reader = pyarrow.ipc.open_file(file) if footer else pyarrow.ipc.open_stream(file)
    check_columns(path, columns, reader.schema.names)
    batches = map(reader.get_batch, range(reader.num_record_batches)) if footer else reader
    for batch in batches:
      yield batch.select(list(columns)) if columns else batch


def _open(pyarrow: Any, path: Path, on_disk: Callable[[str], Any]) -> Any:
  return pyarrow.PythonFile(path.open('rb'), 'r') if is_url(path) else on_disk(str(path))
