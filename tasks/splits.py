"""How a validation split is cut from the rows of train: never overlapping, the same each time.

A task whose source has a validation split of its own needs none of this.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from flan_jax.tasks.readers import DataError
from flan_jax.tasks.rows import Row
from flan_jax.tasks.templates import digest


@dataclass(frozen=True)
class HashSplit:
  """Keeps back a share of train by a hash of what the row says.

  Equal rows fall on the same side, so a duplicate never leaks into training. `key` is the field
  to hash (all of them without it): with the question as key, one question asked with two
  rationales stays whole.
  """

  validation: float = 0.05
  key: str | None = None

  def __post_init__(self):
    if not 0 < self.validation < 1:
      raise ValueError(
        f'HashSplit(validation={self.validation}) must be a share between 0 and 1, such as 0.05.'
      )

  def select(self, rows: Iterable[Row], split: str) -> Iterator[Row]:
    """Yields the rows of train or of validation, in order."""
    threshold = int(self.validation * 2**64)
    for row in rows:
      if self.key is not None and self.key not in row.fields:
        raise DataError(f'{row.place} has no field {self.key!r}, by which validation is split.')
      said = row.fields[self.key] if self.key is not None else sorted(row.fields.items())
      if (digest('validation', said) < threshold) == (split == 'validation'):
        yield row


@dataclass(frozen=True)
class TailSplit:
  """Keeps back the last `rows` rows of train, as the Flan collection does for many sets."""

  rows: int = 200

  def __post_init__(self):
    if self.rows < 1:
      raise ValueError(f'TailSplit(rows={self.rows}) must keep back at least 1 row.')

  def select(self, rows: Iterable[Row], split: str) -> Iterator[Row]:
    """Yields the rows of train or of validation, in order; holds `self.rows` rows in memory."""
    tail: deque[Row] = deque()
    for row in rows:
      tail.append(row)
      if len(tail) > self.rows:
        head = tail.popleft()
        if split == 'train':
          yield head
    if split == 'validation':
      yield from tail
