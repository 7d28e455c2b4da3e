"""Which rows of TFDS's splits are train and validation, and how a slice is taken of plain files."""

import re
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

from flan_jax.tasks.flan2021.data_set import DataSet

_T = TypeVar('_T')
_SLICE = re.compile(r'(?P<split>\w+)(\[(?P<start>-?\d+)?:(?P<stop>-?\d+)?\])?')


def splits(data_set: DataSet) -> dict[str, str]:
  """Returns the slice of TFDS that is train and the one that is validation.

  Without a labelled split, validation is the end of train: {'train': 'train[:-200]',
  'validation': 'train[-200:]'}. A set for evaluation has no train.
  """
  held_back = data_set.validation
  if isinstance(held_back, str):
    named = {'train': data_set.train, 'validation': held_back}
    return {role: part for role, part in named.items() if part}
  split, start, stop = parse(data_set.train)
  if stop is None:
    return {'train': f'{split}[:-{held_back}]', 'validation': f'{split}[-{held_back}:]'}
  edge = stop - held_back
  return {'train': f'{split}[{start or ""}:{edge}]', 'validation': f'{split}[{edge}:{stop}]'}


def parse(split: str) -> tuple[str, int | None, int | None]:
  """Parts 'train[:-200]' into name, first row and end."""
  match = _SLICE.fullmatch(split)
  if match is None:
    raise ValueError(
      f'The split {split!r} is not understood; write train, train[:100], train[100:200], '
      'train[:-100] or train[-100:].'
    )
  start, stop = (int(match[edge]) if match[edge] else None for edge in ('start', 'stop'))
  return match['split'], start, stop


def part(rows: Iterable[_T], start: int | None, stop: int | None) -> Iterator[_T]:
  """Yields rows[start:stop] and keeps in memory what a negative number counts, no more."""
  if start is not None and start < 0:
    if stop is not None:
      raise ValueError(f'A slice from the end has no stop; given [{start}:{stop}].')
    yield from deque(rows, maxlen=-start)
    return
  if stop is None or stop >= 0:
    yield from islice(rows, start, stop)
    return
  kept: deque[_T] = deque()
  for row in islice(rows, start, None):
    kept.append(row)
    if len(kept) > -stop:
      yield kept.popleft()
