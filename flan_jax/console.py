"""Text for people: tables on a terminal, aligned lines on a pipe, and data that cannot harm either.

Whatever comes from data, a file name or an error is shown through `visible`, never as markup: a
control character in a data set must not move the cursor or colour the screen.
"""

import dataclasses
import sys
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text


@dataclasses.dataclass(frozen=True)
class Column:
  """A column of a table; numbers stand right."""

  title: str
  right: bool = False


def visible(text: Any, *, newlines: bool = False) -> str:
  r"""Writes control and invisible characters as escapes: 'a\x1b[31m' -> 'a\\x1b[31m'.

  Args:
    text: anything; str() of it is taken.
    newlines: keep line ends (in a paragraph); otherwise they become \n (in a cell).
  """
  text = str(text)
  if text.isprintable():
    return text
  return ''.join(
    c if c.isprintable() or (newlines and c == '\n') else c.encode('unicode_escape').decode()
    for c in text
  )


def console(file: TextIO | None = None) -> Console:
  """Returns a console that neither reads markup nor colours numbers; standard output by default."""
  return Console(
    file=file or sys.stdout, markup=False, highlight=False, emoji=False, soft_wrap=True
  )


def print_table(
  out: Console, columns: Sequence[Column], rows: Iterable[Sequence[Any]], *, title: str = ''
) -> None:
  """Prints a table on a terminal, aligned lines without cutting anything elsewhere."""
  cells = [[visible(cell) for cell in row] for row in rows]
  if title:
    out.print(Text(visible(title), style='bold'))
  if out.is_terminal:
    table = Table(box=None, pad_edge=False, header_style='bold')
    for column in columns:
      table.add_column(column.title, justify='right' if column.right else 'left', overflow='fold')
    for row in cells:
      table.add_row(*(Text(cell) for cell in row))
    out.print(table, soft_wrap=False)
    return
  lines = [[column.title for column in columns], *cells]
  widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
  for line in lines:
    parts = (
      cell.rjust(width) if column.right else cell.ljust(width)
      for cell, width, column in zip(line, widths, columns, strict=True)
    )
    out.print(Text('  '.join(parts).rstrip()))
