"""What every source gives: rows with an id, their fields, and the place where a person finds them.

The sources themselves are in sources.py.
"""

import abc
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, final

from flan_jax.tasks.readers import DataError

from flan_jax.naming import listing, nearest

# The longest text that is read of one field: real ones have tens of thousands of characters, and
# none of what comes after a window of tokens is ever seen.
MAX_CHARACTERS = 1_000_000


@dataclass(frozen=True)
class Row:
  """One example as its source has it; `place` is where a person finds it."""

  id: str
  fields: dict[str, Any]
  place: str


@final
@dataclass(frozen=True)
class LeftOut:
  """Stands for a row that is not used; `prepare` counts each reason: '3 without output'."""

  reason: str


class Availability(NamedTuple):
  """Whether something can be read here; if not, why and how to get it."""

  available: bool
  why: str = ''
  how_to_get: str = ''


@dataclass(frozen=True, kw_only=True)
class Source(abc.ABC):
  """The rows of one split.

  how_to_get: what a person must do when they are not here. id_field: the field that names a row;
  without one its line or row number does.
  """

  licence: str = ''
  how_to_get: str = ''
  id_field: str | None = None

  @abc.abstractmethod
  def rows(self) -> Iterator[Row]:
    """Yields the rows in their fixed order."""

  @abc.abstractmethod
  def where(self) -> str:
    """Names the source without reading it."""

  @abc.abstractmethod
  def available(self) -> Availability:
    """Says whether the rows can be read now."""

  @abc.abstractmethod
  def fingerprint(self) -> str:
    """Names the content: the token cache is made anew when it changes."""

  def exists(self) -> bool:
    """Says whether the rows can be read now."""
    return self.available().available


def row_id(fields: Mapping[str, Any], id_field: str | None, number: int, place: str) -> str:
  """Names a row by its id field, or by its number where there is none."""
  if id_field is None:
    return str(number)
  if id_field not in fields:
    raise DataError(
      f'{place} has no field {id_field!r}, which names the rows.{nearest(id_field, fields)} '
      f'Fields: {listing(fields)}.'
    )
  return str(fields[id_field])
