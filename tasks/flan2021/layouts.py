"""How publishers keep a data set in files: which files, how they are read, what a row means.

A layout turns each row of a file into the row that TFDS makes of it, so that the `fields` function
of the data set reads both. The layouts themselves are in published_*.py, who looks for the files
in files.py.
"""

import csv
import io
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flan_jax.tasks.readers import DataError, cannot_read, json_objects, lines

from flan_jax.naming import listing, nearest

Row = dict[str, Any]
# Yields (place that a person finds, row as the file has it).
Reader = Callable[[Path], Iterator[tuple[str, Row]]]


@dataclass(frozen=True, kw_only=True)
class Layout:
  """One way of keeping a data set.

  files: split of TFDS -> names, of which the first that is there counts; one with '*' stands for
  all files that it matches. row: row of the file -> row as TFDS gives it, or several. has: columns
  by which the layout is known, with a dot where one lies in another ('question.stem'). companion:
  what to replace in a file's name, and by what, to find the file that goes with it line by line;
  its line is the column 'companion'. part: split -> its rows, for a file that holds two.
  """

  files: Mapping[str, tuple[str, ...]]
  row: Callable[[Row], Row | Iterable[Row]]
  read: Reader = field(default_factory=lambda: json_rows)
  has: tuple[str, ...] = ()
  companion: tuple[str, str] = ('', '')
  part: Mapping[str, tuple[int, int]] = field(default_factory=dict)

  def find(self, folder: Path, split: str) -> tuple[Path, ...]:
    """Returns the files of a split in their order, or none."""
    for name in self.files.get(split, ()):
      found = tuple(sorted(folder.glob(name))) if '*' in name else (folder / name,)
      needed = [*found, *(beside for path in found if (beside := self.beside(path)))]
      if found and all(path.is_file() for path in needed):
        return found
    return ()

  def beside(self, path: Path) -> Path | None:
    """Returns the file that goes with `path` line by line."""
    old, new = self.companion
    return path.with_name(path.name.replace(old, new)) if old else None

  def spelled(self, name: str) -> str:
    """Returns the name of a file with that of the one beside it."""
    beside = self.beside(Path(name))
    return f'{name} with {beside.name}' if beside else name

  def fits(self, path: Path) -> bool:
    """Says whether the first row of a file has the columns of this layout.

    Raises:
      DataError: the file has no first row that can be read.
    """
    _, first = next(self.read(path), ('', {})) if self.has else ('', {})
    return all(_reach(first, name) for name in self.has)

  def rows(self, path: Path, split: str) -> Iterator[tuple[str, Row]]:
    """Yields (place, row as TFDS gives it) of one file.

    Raises:
      DataError: file and line of a row that is not what the publisher's rows are.
    """
    start, stop = self.part.get(split, (0, None))
    for place, raw in itertools.islice(self._read(path), start, stop):
      try:
        one_or_more: Any = self.row(raw)
        made = [one_or_more] if isinstance(one_or_more, dict) else list(one_or_more)
      except KeyError as e:
        name = str(e.args[0])
        raise DataError(
          f'{place} has no {name!r}.{nearest(name, raw)} It has: {listing(raw)}.'
        ) from e
      except (AttributeError, IndexError, TypeError, ValueError) as e:
        raise DataError(f'{place} is not as its publisher writes rows: {e}.') from e
      for row in made:
        yield place, row

  def _read(self, path: Path) -> Iterator[tuple[str, Row]]:
    beside = self.beside(path)
    if beside is None:
      yield from self.read(path)
      return
    pairs = itertools.zip_longest(self.read(path), text_lines(beside))
    for number, (row, other) in enumerate(pairs, start=1):
      if row is None or other is None:
        longer, shorter = (path, beside) if other is None else (beside, path)
        raise DataError(
          f'{longer} has more lines than {shorter}, which ends at line {number - 1}; they must '
          'belong together line by line. Take both from one release.'
        )
      yield row[0], {**row[1], 'companion': other[1]['line']}


def json_rows(path: Path) -> Iterator[tuple[str, Row]]:
  """Yields the objects of JSON lines or of one JSON array."""
  if _first_character(path) != '[':
    for number, row in json_objects(path):
      yield f'{path} line {number}', row
    return
  for number, row in enumerate(load_json(path), start=1):
    if not isinstance(row, dict):
      raise DataError(f'{path} element {number} is a {type(row).__name__}; it must be an object.')
    yield f'{path} element {number}', row


def document(walk: Callable[[Any], Iterable[Row]]) -> Reader:
  """Returns the reader of one JSON document; `walk` yields the rows that lie in it."""

  def read(path: Path) -> Iterator[tuple[str, Row]]:
    content, number = load_json(path), 0
    try:
      for number, row in enumerate(walk(content), start=1):
        yield f'{path} row {number}', row
    except (AttributeError, KeyError, TypeError) as e:
      raise DataError(
        f'{path} is not laid out as its publisher does, after row {number}: {type(e).__name__} {e}.'
      ) from e

  return read


def table(
  *columns: str, delimiter: str = '\t', quoted: bool = False, encoding: str = 'utf-8'
) -> Reader:
  """Returns the reader of a table; without columns its first line names them.

  Cells that are missing at the end of a line are null: GLUE has such lines, and TFDS leaves them
  out. quoted: cells may stand between quotation marks and then hold line ends.
  """

  def read(path: Path) -> Iterator[tuple[str, Row]]:
    names = list(columns)
    for number, cells in _cells(path, delimiter, quoted, encoding):
      if not names:
        names = [cell.strip() for cell in cells]
        continue
      if len(cells) > len(names):
        raise DataError(
          f'{path} line {number} has {len(cells)} columns; it may have {len(names)}: '
          f'{", ".join(names)}.'
        )
      cells += [None] * (len(names) - len(cells))
      yield f'{path} line {number}', dict(zip(names, cells, strict=True))

  return read


def text_lines(path: Path, encoding: str = 'utf-8') -> Iterator[tuple[str, Row]]:
  """Yields each line as the column 'line'."""
  for number, text in _lines(path, encoding):
    yield f'{path} line {number}', {'line': text}


def whole_file(path: Path) -> Iterator[tuple[str, Row]]:
  """Yields the one row of a file that is a text of its own: 'text', and 'folder' that it is in."""
  text = '\n'.join(line for _, line in lines(path))
  yield str(path), {'text': text, 'folder': path.parent.name}


def load_json(path: Path) -> Any:
  """Reads one JSON document; an error names file, line and column."""
  try:
    return json.loads(path.read_bytes())
  except OSError as e:
    raise cannot_read(path, e) from e
  except json.JSONDecodeError as e:
    raise DataError(f'{path} line {e.lineno} column {e.colno} is not JSON: {e.msg}.') from e
  except (RecursionError, ValueError) as e:  # nested too deep; not UTF-8
    raise DataError(f'{path} cannot be read as JSON: {e}.') from e


def _cells(
  path: Path, delimiter: str, quoted: bool, encoding: str
) -> Iterator[tuple[int, list[Any]]]:
  numbered = _lines(path, encoding)
  if not quoted:
    yield from ((number, text.split(delimiter)) for number, text in numbered if text)
    return
  csv.field_size_limit(sys.maxsize)  # the default refuses cells of more than 131,072 characters
  reader = csv.reader((text + '\n' for _, text in numbered), delimiter=delimiter)
  try:
    yield from ((reader.line_num, cells) for cells in reader if cells)
  except csv.Error as e:
    raise DataError(f'{path} line {reader.line_num} is not CSV: {e}.') from e


def _lines(path: Path, encoding: str) -> Iterator[tuple[int, str]]:
  if encoding == 'utf-8':
    yield from lines(path)
    return
  try:
    with io.TextIOWrapper(path.open('rb'), encoding=encoding, newline='\n') as file:
      for number, text in enumerate(file, start=1):
        yield number, text.rstrip('\r\n')
  except OSError as e:
    raise cannot_read(path, e) from e


def _first_character(path: Path) -> str:
  for _, text in lines(path):
    if text.strip():
      return text.strip()[0]
  return ''


def _reach(row: Any, name: str) -> bool:
  """Says whether a row has a column; 'a.b' is the column b in the object a."""
  for part in name.split('.'):
    if not isinstance(row, dict) or part not in row:
      return False
    row = row[part]
  return True
