"""Lines, JSON and tables of text, with errors that name file, line and column.

Used by sources.py. Files are read line by line, as bytes split at newlines only: a line number is
the one an editor shows, a wrong byte is found where it stands, and one line is in memory at a time.
"""

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from flan_jax.naming import nearest


class DataError(ValueError):
  """A row or file of data that cannot be used; the message says where it is."""


def cannot_read(path: Path, error: OSError) -> DataError:
  """Names a file that the system does not give; file systems of buckets say why in other words."""
  missing = 'No such file or directory' if isinstance(error, FileNotFoundError) else str(error)
  return DataError(f'Cannot read {path}: {error.strerror or missing}.')


def lines(path: Path) -> Iterator[tuple[int, str]]:
  """Yields (line number from 1, text without its line end) of a UTF-8 file; BOM is skipped.

  Raises:
    DataError: no such file, an empty one, or bytes that are not UTF-8 (file, line, byte).
  """
  any_line = False
  for number, start, raw in _raw_lines(path):
    if number == 1:
      raw = raw.removeprefix(b'\xef\xbb\xbf')
    any_line = any_line or bool(raw.strip())
    try:
      yield number, raw.rstrip(b'\r\n').decode('utf-8')
    except UnicodeDecodeError as e:
      raise DataError(
        f'{path} line {number} is not UTF-8: byte 0x{raw[e.start]:02x} at byte {e.start + 1} of '
        f'the line (byte {start + e.start + 1} of the file). Save the file as UTF-8.'
      ) from e
  if not any_line:
    raise DataError(f'{path} is empty; it must hold at least one row.')


def _raw_lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
  """Yields (line number, offset in the file, bytes)."""
  try:
    with path.open('rb') as file:
      offset = 0
      for number, raw in enumerate(file, start=1):
        yield number, offset, raw
        offset += len(raw)
  except OSError as e:
    raise cannot_read(path, e) from e


def json_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
  """Yields (line number, object) of a JSONL file; blank lines are skipped."""
  for number, text in lines(path):
    if not text.strip():
      continue
    try:
      value = json.loads(text)
    except json.JSONDecodeError as e:
      raise DataError(
        f'{path} line {number} column {e.colno} is not JSON: {e.msg}. '
        'A JSONL file has one object a line.'
      ) from e
    except (RecursionError, ValueError) as e:  # nested too deep; a number of too many digits
      raise DataError(f'{path} line {number} cannot be read as JSON: {e}.') from e
    if not isinstance(value, dict):
      raise DataError(
        f'{path} line {number} is a JSON {type(value).__name__}, not an object; each line must be '
        'like {"question": "...", "answer": "..."}.'
      )
    yield number, value


def tsv_rows(
  path: Path, columns: Sequence[str], *, header: bool, unescape: bool
) -> Iterator[tuple[int, dict[str, Any]]]:
  """Yields (line number, fields) of a TSV file without quoting.

  unescape: the two characters backslash and n become a newline, as the CoT files of FLAN need.
  """
  for number, text in lines(path):
    if not text:
      continue
    cells = text.split('\t')
    if header:
      header = False
      _check_header(path, number, cells, columns)
      continue
    if len(cells) != len(columns):
      raise DataError(
        f'{path} line {number} has {len(cells)} columns; expected {len(columns)}: '
        f'{", ".join(columns)}. Columns are parted by one tab.'
      )
    if unescape:
      cells = [cell.replace('\\n', '\n') for cell in cells]
    yield number, dict(zip(columns, cells, strict=True))


def csv_rows(
  path: Path, columns: Sequence[str] | None, *, delimiter: str
) -> Iterator[tuple[int, dict[str, Any]]]:
  """Yields (line number of the row's end, fields) of a CSV file whose first row is its header."""
  csv.field_size_limit(sys.maxsize)  # the default refuses cells of more than 131,072 characters
  text_lines = (text + '\n' for _, text in lines(path))
  reader = csv.reader(text_lines, delimiter=delimiter, strict=True)
  try:
    header = next(reader)
    if columns is not None:
      _check_header(path, reader.line_num, header, columns)
    repeated = {name for name in header if header.count(name) > 1}
    if repeated:
      raise DataError(f'{path} line 1: the header names {sorted(repeated)[0]!r} twice.')
    for cells in reader:
      if not cells:
        continue
      if len(cells) != len(header):
        raise DataError(
          f'{path} line {reader.line_num} has {len(cells)} columns; the header has '
          f'{len(header)}: {", ".join(header)}.'
        )
      yield reader.line_num, dict(zip(header, cells, strict=True))
  except csv.Error as e:
    raise DataError(f'{path} line {reader.line_num} is not CSV: {e}.') from e


def _check_header(path: Path, number: int, header: Sequence[str], columns: Sequence[str]) -> None:
  if list(header) == list(columns):
    return
  missing = [name for name in columns if name not in header]
  hint = f' There is no {missing[0]!r}.{nearest(missing[0], header)}' if missing else ''
  raise DataError(
    f'{path} line {number}: the header is {", ".join(header)}; expected {", ".join(columns)}.{hint}'
  )
