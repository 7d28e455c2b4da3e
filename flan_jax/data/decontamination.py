"""The filter of `prepare`: leaves out examples that hold texts of evaluation sets, and counts them.

It compares the text before it is tokenised, by the tests of contamination_index.py. The report on a
cache that is already there is contamination.py.
"""

import functools
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from flan_jax.data import contamination_texts
from flan_jax.data.contamination_index import LEAST_WORDS, RULES, TESTS, ContaminationIndex
from flan_jax.data.contamination_texts import ContaminationError
from flan_jax.data.contamination_words import words_of
from flan_jax.data.tokenizing import Example


def cache_key(paths: Sequence[str]) -> dict[str, Any]:
  """Returns what decides the filter's work, for the key of a cache; reads every file.

  Raises:
    ContaminationError: a file cannot be read, or none holds a text to compare.
  """
  files = contamination_texts.find_files(paths)
  # To the end, so that a broken file is told of now and not by each worker.
  texts = [text for row in contamination_texts.read_rows(files) for text in row.texts]
  if not any(len(words_of(text)) >= LEAST_WORDS for text in texts):
    raise ContaminationError(
      f'No text of the evaluation sets {", ".join(map(str, paths))} has {LEAST_WORDS} words or '
      'more; shorter ones are in thousands of examples by chance.'
    )
  return {'rules': RULES, 'files': contamination_texts.fingerprint(files)}


def without_contaminated(
  examples: Iterable[Example],
  paths: Sequence[str],
  dropped: Counter[str],
  *,
  epochs: int = 1,
) -> Iterator[Example]:
  """Yields the examples that hold no evaluation text; counts the others by the test that told.

  A row stays with the examples of all its epochs or goes with them.

  Args:
    examples: with their inputs and targets as text.
    paths: files and folders of evaluation sets.
    dropped: 'contaminated: 13-gram' -> rows, filled on the way. A row counts once, by the first of
      TESTS that finds something.
    epochs: examples of each row, one after the other.
  """
  index = _index(tuple(map(str, paths)))
  examples = iter(examples)
  while of_row := list(itertools.islice(examples, epochs)):
    texts = (words_of(f'{example.inputs}\n{example.targets}') for example in of_row)
    matches = [match for text in texts for match in index.matches(text)]
    if matches:
      dropped[f'contaminated: {min((m.test for m in matches), key=TESTS.index)}'] += 1
    else:
      yield from of_row


@functools.lru_cache(maxsize=1)
def _index(paths: tuple[str, ...]) -> ContaminationIndex:
  """One index for all splits that a worker makes."""
  files = contamination_texts.find_files(paths)
  return ContaminationIndex(contamination_texts.read_rows(files))
