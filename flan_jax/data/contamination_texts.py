"""Reads evaluation sets as text, from whatever plain files they come in.

A file is one set; a row of it has texts: every string field. The structure tells what a row is, not
the name of the set, so that any JSONL, JSON (a list, examples under a key, the layout of SQuAD),
CSV, TSV or plain text can be compared with training data. What a text matches is left to
contamination_index.py.
"""

import csv
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flan_jax.naming import nearest

SUFFIXES = ('.jsonl', '.jsonlines', '.ndjson', '.json', '.tsv', '.csv', '.txt')
_JSON_LINES = ('.jsonl', '.jsonlines', '.ndjson')
_BOM = b'\xef\xbb\xbf'


class ContaminationError(ValueError):
  """A comparison that cannot be made: evaluation files that cannot be read, or nothing in them."""


@dataclass(frozen=True)
class EvaluationRow:
  """One row of an evaluation set: 'bbh/navigate', 'examples[3]', its texts."""

  set_name: str
  row: str
  texts: tuple[str, ...]


@dataclass(frozen=True)
class EvaluationFile:
  """A file to read, and the name of the set that it is."""

  path: Path
  set_name: str

  @property
  def group(self) -> str:
    """The path that the user gave, by its last name: 'bbh' of 'bbh/navigate'."""
    return self.set_name.partition('/')[0]


def find_files(paths: Sequence[str | os.PathLike[str]]) -> tuple[EvaluationFile, ...]:
  """Lists the evaluation files at `paths`: files, or folders with all that is below them.

  Raises:
    ContaminationError: a path that is not there, a file of another kind, a folder without any.
  """
  roots = [Path(os.path.expanduser(path)) for path in paths]
  if not roots:
    raise ContaminationError('No evaluation set is named; give files or folders to compare with.')
  files = []
  for root, name in zip(roots, _names(roots), strict=True):
    if root.is_dir():
      found = sorted(p for p in root.rglob('*') if _is_wanted(p, root))
      if not found:
        raise ContaminationError(
          f"The folder '{root}' holds no evaluation file; such end in {', '.join(SUFFIXES)}."
        )
      for path in found:
        inner = path.relative_to(root).with_suffix('').as_posix()
        files.append(EvaluationFile(path, f'{name}/{inner}'))
    elif not root.exists():
      beside = [p.name for p in root.parent.glob('*')] if root.parent.is_dir() else []
      raise ContaminationError(
        f"There is no evaluation set '{root}'.{nearest(root.name, beside)} Give a file or folder."
      )
    elif root.suffix.lower() not in SUFFIXES:
      raise ContaminationError(
        f"'{root}' ends in '{root.suffix}'; an evaluation file ends in {', '.join(SUFFIXES)}."
      )
    else:
      files.append(EvaluationFile(root, name))
  return tuple(files)


def read_rows(files: Iterable[EvaluationFile]) -> Iterator[EvaluationRow]:
  """Yields the rows of all files that have any text.

  Raises:
    ContaminationError: an empty or binary file, or a line that is not what the suffix says.
  """
  for file in files:
    for row, value in _values(file.path):
      texts = tuple(text for text in _strings(value) if text.strip())
      if texts:
        yield EvaluationRow(file.set_name, row, texts)


def fingerprint(files: Iterable[EvaluationFile]) -> str:
  """Names the files by content; neither their places nor their order matter."""
  digests = sorted(hashlib.blake2b(_read(f.path), digest_size=16).hexdigest() for f in files)
  return hashlib.blake2b('\n'.join(digests).encode(), digest_size=16).hexdigest()


def _names(roots: Sequence[Path]) -> list[str]:
  """Last names of the paths, with parents before them as far as two would be the same."""
  parts = [[*root.absolute().parts[1:-1], root.stem if root.is_file() else root.name]
           for root in roots]  # fmt: skip
  if len(set(map(tuple, parts))) < len(parts):
    twice = next(root for i, root in enumerate(roots) if parts[i] in parts[:i])
    raise ContaminationError(f"The evaluation set '{twice}' is given twice; name each once.")
  depth = 1
  while len({tuple(part[-depth:]) for part in parts}) < len(parts):
    depth += 1
  return ['.'.join(part[-depth:]) for part in parts]


def _is_wanted(path: Path, root: Path) -> bool:
  hidden = any(part.startswith('.') for part in path.relative_to(root).parts)
  return not hidden and path.suffix.lower() in SUFFIXES and path.is_file()


def _values(path: Path) -> Iterator[tuple[str, Any]]:
  """Yields (name of the row, whatever holds its strings)."""
  data = _read(path)
  suffix = path.suffix.lower()
  if suffix == '.json' and not _is_json_lines(data):
    yield from _rows_of_json(_json(path, _decode(path, data), 'file'), '')
    return
  if suffix == '.csv':
    yield from _rows_of_csv(path, _decode(path, data))
    return
  for number, line in enumerate(_decode(path, data).split('\n'), start=1):
    line = line.rstrip('\r')
    if line.strip():
      if suffix == '.json' or suffix in _JSON_LINES:
        yield f'line {number}', _json(path, line, f'line {number}')
      else:
        yield f'line {number}', line.split('\t') if suffix == '.tsv' else line


def _read(path: Path) -> bytes:
  try:
    data = path.read_bytes().removeprefix(_BOM)
  except OSError as e:
    raise ContaminationError(f"Cannot read the evaluation file '{path}': {e.strerror}.") from e
  if not data.strip():
    raise ContaminationError(f"The evaluation file '{path}' is empty; it must hold a row.")
  return data


def _decode(path: Path, data: bytes) -> str:
  where = data.find(b'\0')
  try:
    text = data.decode('utf-8')
  except UnicodeDecodeError as e:
    where = e.start if where < 0 else min(where, e.start)
  if where >= 0:
    line = data.count(b'\n', 0, where) + 1
    raise ContaminationError(
      f"'{path}' line {line} is not text: byte 0x{data[where]:02x} at byte {where + 1} of the file "
      'is not UTF-8. Save the file as UTF-8, or leave it out.'
    )
  return text


def _is_json_lines(data: bytes) -> bool:
  """Whether a .json file has an object on its first line and more below, as many data sets do."""
  first, _, rest = data.partition(b'\n')
  try:
    return bool(rest.strip()) and isinstance(json.loads(first), dict)
  except (ValueError, RecursionError):
    return False


def _json(path: Path, text: str, what: str) -> Any:
  """Parses the whole file or one line of it."""
  try:
    return json.loads(text)
  except json.JSONDecodeError as e:
    line = f'line {e.lineno}' if what == 'file' else what
    raise ContaminationError(f"'{path}' {line} column {e.colno} is not JSON: {e.msg}.") from e
  except (RecursionError, ValueError) as e:  # nested too deep; a number of too many digits
    line = '' if what == 'file' else f' {what}'
    raise ContaminationError(f"'{path}'{line} cannot be read as JSON: {e}.") from e


def _rows_of_csv(path: Path, text: str) -> Iterator[tuple[str, Any]]:
  csv.field_size_limit(sys.maxsize)  # the default refuses cells of more than 131,072 characters
  reader = csv.reader(text.splitlines(keepends=True), strict=True)
  first = 1
  try:
    for cells in reader:
      yield f'line {first}', cells
      first = reader.line_num + 1
  except csv.Error as e:
    raise ContaminationError(
      f"'{path}' line {reader.line_num} is not CSV: {e}. Quotes inside a quoted cell are doubled."
    ) from e


def _rows_of_json(value: Any, place: str) -> Iterator[tuple[str, Any]]:
  """Finds rows: items of a list, questions of SQuAD's layout, strings that stand by themselves."""
  if isinstance(value, Mapping):
    if 'context' in value and isinstance(value.get('qas'), list):
      for i, question in enumerate(value['qas']):
        name = question.get('id') if isinstance(question, Mapping) else None
        yield str(name or f'{place}.qas[{i}]'), [value['context'], question]
      return
    for key, inner in value.items():
      yield from _rows_of_json(inner, f'{place}.{key}' if place else str(key))
  elif isinstance(value, list):
    for i, item in enumerate(value):
      name = f'{place}[{i}]'
      if isinstance(item, Mapping) and ('paragraphs' in item or 'qas' in item):
        yield from _rows_of_json(item, name)
      else:
        yield name, item
  else:
    yield place or 'line 1', value


def _strings(value: Any) -> Iterator[str]:
  """The strings in a value, those of lists and objects inside it too; names of fields are none."""
  if isinstance(value, str):
    yield value
  elif isinstance(value, Mapping):
    for inner in value.values():
      yield from _strings(inner)
  elif isinstance(value, list | tuple):
    for inner in value:
      yield from _strings(inner)
