"""A file of lines that is replaced as a whole, and the progress of writing one.

Lines go to a hidden file beside it, which takes its place when it is finished and on disk. Killed,
the program leaves the old file as it was, and the next run writes over what is left.
"""

import contextlib
import fcntl
import os
import time
from pathlib import Path
from typing import Any, Self

from rich import progress
from rich.console import Console

from flan_jax.console import visible

_SHOWN_EVERY = 0.1  # seconds


class TextFileError(ValueError):
  """A file that cannot be written."""


class LineFile:
  """Writes lines; a context manager. Without `finish` the old file stays."""

  def __init__(self, path: str | os.PathLike[str]):
    self._path = Path(path).expanduser()
    self._partial = self._path.with_name(f'.{self._path.name}.part')
    self._finished = False

  def __enter__(self) -> Self:
    if self._path.is_dir():
      raise TextFileError(f"'{self._path}' is a folder; give a file.")
    try:
      self._file = open(self._partial, 'ab')
    except OSError as e:
      raise self._error(e) from e
    try:
      fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      self._file.truncate(0)
    except BlockingIOError as e:
      self._file.close()
      raise TextFileError(
        f"Another program is writing '{self._path}'; wait for it or give another file."
      ) from e
    return self

  def write(self, line: bytes) -> None:
    """Adds a line, its end included."""
    try:
      self._file.write(line)
    except OSError as e:
      raise self._error(e) from e

  def mark(self) -> int:
    """Returns a place to go back to."""
    try:
      self._file.flush()
      return self._file.seek(0, os.SEEK_END)
    except OSError as e:
      raise self._error(e) from e

  def go_back(self, mark: int) -> None:
    """Takes away what was written after a mark."""
    try:
      self._file.flush()
      self._file.truncate(mark)
    except OSError as e:
      raise self._error(e) from e

  def finish(self) -> None:
    """Puts the file in its place."""
    try:
      self._file.flush()
      os.fsync(self._file.fileno())
      os.replace(self._partial, self._path)
    except OSError as e:
      raise self._error(e) from e
    self._finished = True

  def __exit__(self, *exception: object) -> None:
    if not self._finished:
      with contextlib.suppress(OSError):  # before unlocking: then it may be another program's
        self._partial.unlink()
    with contextlib.suppress(OSError):  # closing tries to write what a full disk refused
      self._file.close()

  def _error(self, error: OSError) -> TextFileError:
    return TextFileError(f"Cannot write '{self._path}': {error.strerror}; give a place with room.")


class TextProgress:
  """Shows tasks under work: a bar on a terminal, elsewhere a line for each; a context manager."""

  def __init__(self, total: int, out: Console):
    self._total, self._done, self._lines, self._out = total, 0, 0, out
    self._name, self._shown = '', 0.0
    self._started = time.monotonic()
    self._bar = progress.Progress(
      progress.TextColumn('{task.description}', markup=False),
      progress.BarColumn(bar_width=30),
      progress.TextColumn('{task.fields[note]}', markup=False),
      progress.TimeRemainingColumn(),
      console=out,
      transient=True,
      disable=not out.is_terminal,
    )

  def __enter__(self) -> Self:
    self._bar.start()
    self._all: Any = self._bar.add_task('export', total=self._total, note='')
    return self

  def __exit__(self, *exception: object) -> None:
    self._bar.stop()

  def expect(self, more: int) -> None:
    """So many tasks will be read again."""
    self._total += more
    self._bar.update(self._all, total=self._total)

  def start(self, name: str) -> None:
    """Begins a task."""
    self._name = visible(name)
    self._bar.update(self._all, description=self._name)

  def advance(self, lines: int) -> None:
    """The task has come so far."""
    now = time.monotonic()
    if now - self._shown > _SHOWN_EVERY:
      self._shown = now
      rate = (self._lines + lines) / max(now - self._started, 1e-3)
      note = f'{self._done}/{self._total} tasks, {self._lines + lines:,} lines, {rate:,.0f}/s'
      self._bar.update(self._all, note=note)

  def end(self, lines: int, message: str) -> None:
    """The task ended, well or not."""
    self._done += 1
    self._lines += lines
    self._bar.update(self._all, completed=self._done)
    if not self._out.is_terminal or message:
      what = visible(message) or (f'{lines:,} lines' if lines else 'counted')
      self._out.print(f'[{self._done}/{self._total}] {self._name}: {what}')
