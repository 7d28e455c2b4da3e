"""Tables of the big sub-collections: names, data sets, categories, licences, what is held out.

They are TSV files in tasks/data/collection, small enough to be read when a module is imported;
no data set is opened. Whether a task has to be kept out of training follows from its table, or,
for tasks that stand in no table, from their name.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from flan_jax.tasks.readers import tsv_rows
from flan_jax.tasks.templates import DATA

UNKNOWN_LICENCE = 'unknown, see the data set'
# What a task may be held out for: NIv2's official test list, and the evaluation suites.
HELD_OUT = ('niv2_test', 'mmlu', 'bbh', 'tydiqa', 'mgsm')

# How tasks made from the suites are named in public collections. 'bigbench' counts as BBH, which
# is 23 tasks of it; MGSM is the test set of GSM8K, translated.
_SUITES = {
  'mmlu': re.compile('mm?mlu|hendrycks_test'),
  'bbh': re.compile('big_?bench|(?<![a-z])bbh(?![a-z])'),
  'tydiqa': re.compile('tydi_?qa'),
  'mgsm': re.compile('mgsm|gsm8k.*test'),
}


@dataclass(frozen=True, kw_only=True)
class CollectionTask:
  """What is known of a task of a sub-collection before its data is read.

  category: the kind of task, as the public list of the Flan collection names it. languages: of
  instruction, input and output together. held_out: those of HELD_OUT that it belongs to.
  """

  name: str
  dataset: str
  category: str
  licence: str = UNKNOWN_LICENCE
  languages: tuple[str, ...] = ('English',)
  held_out: tuple[str, ...] = ()


def table(name: str, columns: Iterable[str]) -> list[dict[str, str]]:
  """Reads tasks/data/collection/`name`; its first line repeats the columns."""
  path = DATA / 'collection' / name
  rows = tsv_rows(path, tuple(columns), header=True, unescape=False)
  return [fields for _, fields in rows]


def words(cell: str) -> tuple[str, ...]:
  """Splits a cell of several words: 'English, Persian' -> ('English', 'Persian')."""
  return tuple(word.strip() for word in cell.split(',') if word.strip())


def derived_from(name: str) -> tuple[str, ...]:
  """Returns the evaluation suites that a task's name tells it was made from.

  'task696_mmmlu_answer_generation_elementary_mathematics' -> ('mmlu',).
  """
  return tuple(suite for suite, pattern in _SUITES.items() if pattern.search(name.lower()))
