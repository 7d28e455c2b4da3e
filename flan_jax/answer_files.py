"""The files of `infer`: a JSONL input checked as a whole, an output that survives being killed.

Beside OUTPUT lies OUTPUT.header.json, which says what its answers were made from. What an answer is
made of is infer.py's concern.
"""

import dataclasses
import difflib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

PROMPT_KEYS = ('inputs', 'prompt')
ADDED_KEYS = ('prediction', 'score', 'index', 'candidates', 'truncated_input_tokens')
_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Source:
  """An input that was read through once: every line holds one prompt."""

  path: Path
  lines: int
  digest: str


def check_input(path: str | os.PathLike) -> Source:
  """Read the whole input once, so that no line can stop a run that is half done.

  Raises:
    ValueError: no such file, nothing in it, or a line without a prompt, by number.
  """
  path = Path(path)
  if not path.is_file():
    kind = 'is not a regular file' if path.exists() else 'does not exist'
    raise ValueError(f"The input '{path}' {kind}; give a file of JSON lines.")
  digest, lines = hashlib.blake2b(digest_size=16), 0
  try:
    with path.open('rb') as file:
      for lines, line in enumerate(file, start=1):
        digest.update(line)
        _parse(path, lines, line)
  except OSError as e:
    raise ValueError(f"The input '{path}' cannot be read: {e.strerror}.") from e
  if not lines:
    raise ValueError(
      f'The input \'{path}\' is empty; give one JSON object a line, such as {{"prompt": "Hi"}}.'
    )
  return Source(path, lines, digest.hexdigest())


def read_rows(source: Source, start: int = 0) -> Iterator[dict[str, Any]]:
  """Yield the objects of the input from line index `start` on."""
  with source.path.open('rb') as file:
    for number, line in enumerate(file, start=1):
      if number > start:
        yield _parse(source.path, number, line)


def prompt_of(row: Mapping[str, Any]) -> str:
  """Return the text of the one prompt key that `row` has."""
  return row['inputs'] if 'inputs' in row else row['prompt']


class AnswerFile:
  """The output: whole lines only, appended a window at a time.

  Args:
    path: The output.
    source: What it answers.
    made_from: What the answers depend on besides the input; plain JSON.
  """

  def __init__(self, path: str | os.PathLike, source: Source, made_from: Mapping[str, Any]):
    self.path = Path(path)
    self._header_path = self.path.with_name(self.path.name + '.header.json')
    self._source = source
    input_file = {'lines': source.lines, 'blake2b': source.digest}
    self._header = {'format': _FORMAT, 'input': input_file, **made_from}
    self._header = json.loads(json.dumps(self._header))  # as it reads back: lists for tuples
    self._file = None

  def __enter__(self):
    return self

  def __exit__(self, *exc_info):
    if self._file:
      self._file.close()

  def open(self) -> int:
    """Open the output and return the number of whole answers it holds.

    Raises:
      ValueError: it holds other answers, or cannot be written to.
    """
    if self.path.exists() and self.path.samefile(self._source.path):
      raise ValueError(f"Input and output are one file, '{self.path}'; give another --output.")
    try:
      if self.path.exists():
        self._check_header()
        whole, size = self._whole_lines()
      else:
        self._write_header()
        whole, size = 0, 0
      self._file = self.path.open('ab', buffering=0)
      self._file.truncate(size)
    except OSError as e:
      raise ValueError(f"The output '{self.path}' cannot be written: {e.strerror}.") from e
    return whole

  def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write one line for each row; when the disk is full, none of them.

    Raises:
      ValueError: they could not be written.
    """
    assert self._file is not None
    data = b''.join(json.dumps(row, ensure_ascii=False).encode() + b'\n' for row in rows)
    size = os.fstat(self._file.fileno()).st_size
    try:
      rest = memoryview(data)
      while rest:
        rest = rest[self._file.write(rest) :]
      os.fsync(self._file.fileno())
    except OSError as e:
      self._file.truncate(size)
      raise ValueError(
        f"The output '{self.path}' cannot be written: {e.strerror}. The answers before are kept; "
        'make room and start again to go on.'
      ) from e

  def _write_header(self) -> None:
    partial = self._header_path.with_name(f'.{self._header_path.name}.part')
    try:
      partial.write_text(json.dumps(self._header, indent=1) + '\n', encoding='utf-8')
      partial.replace(self._header_path)
    finally:
      if partial.parent.is_dir():
        partial.unlink(missing_ok=True)

  def _check_header(self) -> None:
    advice = 'give another --output, or delete it'
    try:
      header = json.loads(self._header_path.read_text(encoding='utf-8'))
    except FileNotFoundError as e:
      raise ValueError(
        f"The output '{self.path}' exists and nothing says what it was made from "
        f"('{self._header_path.name}' is missing); {advice}."
      ) from e
    except ValueError as e:
      raise ValueError(f"'{self._header_path}' cannot be read: {e}; {advice}.") from e
    differences = list(_differences(self._header, header))
    if differences:
      raise ValueError(
        f"The output '{self.path}' was made from something else: {'; '.join(differences)}; "
        f'{advice}.'
      )

  def _whole_lines(self) -> tuple[int, int]:
    """Number of whole answers and their size in bytes; what follows them was torn by a kill."""
    count, size = 0, 0
    with self.path.open('rb') as file:
      for count, line in enumerate(file):
        if not line.endswith(b'\n'):
          return count, size
        if not _is_answer(line, count) or count >= self._source.lines:
          raise ValueError(
            f"'{self.path}' line {count + 1} is not the answer to line {count + 1} of "
            f"'{self._source.path}'; something else wrote to it, so give another --output."
          )
        size += len(line)
        count += 1
    return count, size


def _is_answer(line: bytes, index: int) -> bool:
  try:
    value = json.loads(line)
  except ValueError:
    return False
  return isinstance(value, dict) and value.get('index') == index and 'prediction' in value


def _differences(expected: Any, found: Any, name: str = '') -> Iterator[str]:
  """Yield 'decode.strategy is "beam", there "greedy"' for each leaf that differs."""
  if isinstance(expected, dict) and isinstance(found, dict):
    for key in sorted(expected.keys() | found.keys()):
      path = f'{name}.{key}' if name else key
      yield from _differences(expected.get(key), found.get(key), path)
  elif expected != found:
    yield f'{name} is {json.dumps(expected)}, there {json.dumps(found)}'


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
  """Return the object of one line.

  Raises:
    ValueError: it is no object with one prompt; names file and line.
  """
  where = f"'{path}' line {number}"
  try:
    text = line.decode('utf-8')
  except UnicodeDecodeError as e:
    raise ValueError(f'{where} is not UTF-8 (byte {e.start + 1}); convert the file.') from e
  if not text.strip():
    raise ValueError(f'{where} is blank; remove it, as there is one answer for each line.')
  try:
    row = json.loads(text)
  except json.JSONDecodeError as e:
    raise ValueError(f'{where} is not JSON: {e.msg} at character {e.pos + 1}.') from e
  except (ValueError, RecursionError) as e:
    raise ValueError(f'{where} is JSON that cannot be read: {e}.') from e
  if not isinstance(row, dict):
    raise ValueError(f'{where} is a JSON {_kind(row)}; give an object such as {{"prompt": "Hi"}}.')
  keys = [key for key in PROMPT_KEYS if key in row]
  if len(keys) != 1:
    raise ValueError(f'{where} {_prompt_problem(keys, row)}')
  if not isinstance(row[keys[0]], str):
    raise ValueError(f'{where}: "{keys[0]}" is a JSON {_kind(row[keys[0]])}; give a string.')
  taken = [key for key in ADDED_KEYS if key in row]
  if taken:
    raise ValueError(f'{where} has the key "{taken[0]}", which the answer would need; rename it.')
  try:
    json.dumps(row, ensure_ascii=False).encode()
  except UnicodeEncodeError as e:
    raise ValueError(
      f'{where} has half of a surrogate pair, which is no character; remove the \\ud... escape.'
    ) from e
  return row


def _prompt_problem(keys: list[str], row: Mapping[str, Any]) -> str:
  if keys:
    return 'has both "inputs" and "prompt"; keep one of them.'
  near = [difflib.get_close_matches(key, PROMPT_KEYS, n=1) for key in map(str.lower, row)]
  hint = next((f' Rename "{key}" to "{n[0]}".' for key, n in zip(row, near, strict=True) if n), '')
  found = ', '.join(json.dumps(key) for key in list(row)[:6]) or 'no key at all'
  return f'has neither "inputs" nor "prompt" but {found}.{hint}'


def _kind(value: Any) -> str:
  names = {dict: 'object', list: 'array', str: 'string', bool: 'boolean', type(None): 'null'}
  return names.get(type(value), 'number')
