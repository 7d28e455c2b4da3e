"""Contamination: which examples of a mixture hold texts of the evaluation sets.

Reads a prepared cache, decoding what the model will see, one example at a time. What counts as held
is contamination_index.py's concern, how it looks contamination_report.py's; decontamination.py is
the filter of `prepare`, which sees the text itself.
"""

import dataclasses
import heapq
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from flan_jax.console import console, visible
from flan_jax.data import cache, contamination_texts
from flan_jax.data.contamination_bar import Bar
from flan_jax.data.contamination_index import LEAST_WORDS, TESTS, ContaminationIndex, Match
from flan_jax.data.contamination_texts import ContaminationError
from flan_jax.data.contamination_words import words_of
from flan_jax.data.mixture import ResolvedMixture, resolve

_QUOTED = 400  # characters of a text in a sample


@dataclasses.dataclass(frozen=True)
class ContaminationConfig:
  """What to compare.

  Attributes:
    mixture: a mixture or task in the cache.
    cache_dir: what prepare wrote.
    against: files and folders of evaluation sets.
    out: a report to write: .json or .html.
    split: split to look at.
    samples: pairs of texts kept for each task, evaluation set and test.
  """

  mixture: str
  cache_dir: str
  against: tuple[str, ...]
  out: str | None = None
  split: str = 'train'
  samples: int = 3

  def __post_init__(self):
    if self.samples < 0:
      raise ContaminationError(f'samples={self.samples} must be 0 or more.')
    if self.out is not None and Path(self.out).suffix not in ('.json', '.html'):
      raise ContaminationError(f"--out '{self.out}' must end in .json or .html.")


@dataclasses.dataclass(frozen=True)
class Sample:
  """A training example beside the evaluation text that it holds, both cut."""

  example: str
  row: str
  score: float
  training_text: str
  evaluation_text: str


@dataclasses.dataclass(frozen=True)
class Overlap:
  """What one task shares with one evaluation set by one test.

  Attributes:
    examples: training examples that hold a text of the set.
    rows: rows of the set that an example holds.
    samples: those of the highest score.
  """

  task: str
  evaluation_set: str
  test: str
  examples: int
  rows: int
  samples: tuple[Sample, ...]


@dataclasses.dataclass(frozen=True)
class TaskOverlap:
  """A task of the mixture: how many of its examples hold any evaluation text, by test."""

  task: str
  num_examples: int
  examples: int
  by_test: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class SetOverlap:
  """A path that was given: its sets and rows, and how many rows some example holds.

  Attributes:
    comparable: rows with a text that is long enough to compare.
    files: sets of it.
  """

  name: str
  files: int
  num_rows: int
  comparable: int
  rows: int
  by_test: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class Contamination:
  """The report."""

  mixture: str
  split: str
  vocabulary: str
  tasks: tuple[TaskOverlap, ...]
  sets: tuple[SetOverlap, ...]
  overlaps: tuple[Overlap, ...]
  warnings: tuple[str, ...]
  texts: int
  index_seconds: float
  seconds: float

  @property
  def num_examples(self) -> int:
    """Training examples that were looked at."""
    return sum(task.num_examples for task in self.tasks)


def contamination(config: ContaminationConfig, *, out: Console | None = None) -> Contamination:
  """Examines a mixture in a cache, prints the report and writes it where asked.

  Raises:
    ContaminationError: evaluation sets that cannot be read, or a report that cannot be written.
    ValueError: the mixture is not in the cache.
  """
  from flan_jax.data import contamination_report

  out = out or console()
  result = examine(config, out)
  contamination_report.print_report(result, out)
  if config.out is not None:
    out.print(f'Report: {visible(contamination_report.write(result, config.out))}')
  return result


def examine(config: ContaminationConfig, out: Console | None = None) -> Contamination:
  """Compares every example of the mixture's split with every evaluation text."""
  files = contamination_texts.find_files(config.against)
  mixture = resolve(config.mixture, config.cache_dir, split=config.split)
  vocabulary = cache.cache_vocabulary(config.cache_dir)
  started = time.monotonic()
  index = ContaminationIndex(contamination_texts.read_rows(files))
  indexed = time.monotonic()
  tallies = []
  with Bar(sum(mixture.num_examples), out or console()) as advance:
    for name in mixture.tasks:
      task = cache.TaskCache.open(config.cache_dir, name, config.split)
      tally = _Tally(name, index, config.samples)
      for number in range(task.num_examples):
        input_ids, target_ids = task.example(number)
        inputs, targets = vocabulary.decode_prompt(input_ids), vocabulary.decode(target_ids)
        tally.add(task, number, words_of(f'{inputs}\n{targets}'))
        advance(name)
      tallies.append(tally)
  ended = time.monotonic()
  return Contamination(
    mixture=mixture.name,
    split=mixture.split,
    vocabulary=vocabulary.kind,
    tasks=tuple(tally.result() for tally in tallies),
    sets=_sets(index, tallies),
    overlaps=tuple(overlap for tally in tallies for overlap in tally.overlaps()),
    warnings=(*_too_short(index), *_lost(mixture)),
    texts=len(index.texts),
    index_seconds=indexed - started,
    seconds=ended - indexed,
  )


class _Tally:
  """Counts what the examples of one task hold."""

  def __init__(self, task: str, index: ContaminationIndex, samples: int):
    self._task, self._index, self._most = task, index, samples
    self._total = self._matched = 0
    self._by_test: Counter[str] = Counter()
    self._examples: Counter[tuple[str, str]] = Counter()  # (set, test)
    self.rows: dict[tuple[str, str], set[str]] = {}
    self._samples: dict[tuple[str, str], list] = {}

  def add(self, task: cache.TaskCache, number: int, words: Sequence[str]) -> None:
    """Adds an example by its words."""
    self._total += 1
    matches = self._index.matches(words)
    if not matches:
      return
    self._matched += 1
    self._by_test.update({match.test for match in matches})
    example, places = str(task.metadata(number).get('id', number)), set()
    for match in matches:
      for evaluation_set, row in self._index.texts[match.text].owners:
        place = evaluation_set, match.test
        places.add(place)
        self.rows.setdefault(place, set()).add(row)
        self._keep(place, example, row, match, words)
    self._examples.update(places)

  def _keep(self, place, example: str, row: str, match: Match, words: Sequence[str]) -> None:
    """Keeps the samples of the highest score, the first of equal ones."""
    kept = self._samples.setdefault(place, [])
    key = (match.score, -self._matched, -match.text)
    if len(kept) >= self._most and (not kept or key <= kept[0][0]):
      return
    if any(key == other for other, _ in kept):  # another row with the same text
      return
    sample = Sample(
      example=example,
      row=row,
      score=match.score,
      training_text=_cut(' '.join(words[match.start : match.end])),
      evaluation_text=_cut(self._index.texts[match.text].text),
    )
    heapq.heappush(kept, (key, sample))
    if len(kept) > self._most:
      heapq.heappop(kept)

  def result(self) -> TaskOverlap:
    """The task as a whole."""
    by_test = {test: self._by_test[test] for test in TESTS}
    return TaskOverlap(self._task, self._total, self._matched, by_test)

  def overlaps(self) -> Iterator[Overlap]:
    """Each set and test with an overlap, the largest first."""
    order = sorted(self._examples, key=lambda p: (-self._examples[p], p[0], TESTS.index(p[1])))
    for place in order:
      samples = tuple(sample for _, sample in sorted(self._samples[place], reverse=True))
      count, rows = self._examples[place], len(self.rows[place])
      yield Overlap(self._task, *place, examples=count, rows=rows, samples=samples)


def _sets(index: ContaminationIndex, tallies: Iterable[_Tally]) -> tuple[SetOverlap, ...]:
  """Sums over the sets of each path that was given."""
  held: dict[str, dict[str, set]] = {}
  for tally in tallies:
    for (name, test), rows in tally.rows.items():
      by_test = held.setdefault(_group(name), {})
      by_test.setdefault(test, set()).update((name, row) for row in rows)
  found = []
  for group in dict.fromkeys(map(_group, index.rows)):
    names = [name for name in index.rows if _group(name) == group]
    by_test = {test: held.get(group, {}).get(test, set()) for test in TESTS}
    found.append(
      SetOverlap(
        name=group,
        files=len(names),
        num_rows=sum(index.rows[name] for name in names),
        comparable=sum(index.comparable[name] for name in names),
        rows=len(set().union(*by_test.values())),
        by_test={test: len(rows) for test, rows in by_test.items()},
      )
    )
  return tuple(found)


def _group(set_name: str) -> str:
  return set_name.partition('/')[0]


def _too_short(index: ContaminationIndex) -> list[str]:
  blind = [name for name, count in index.comparable.items() if not count]
  if not blind:
    return []
  some = ', '.join(blind[:8]) + (f' and {len(blind) - 8} more' if len(blind) > 8 else '')
  return [f'No row of {some} has a text of {LEAST_WORDS} words, so nothing there was compared.']


def _lost(mixture: ResolvedMixture) -> list[str]:
  """Says which letters and digits cannot be compared because the tokens do not hold them."""
  lost: Counter[str] = Counter()
  for manifest in mixture.manifests:
    for character, found in manifest.get('lossy', {}).items():
      if words_of(character) not in ([], words_of(found['becomes'])):
        lost[character] += found['examples']
  if not lost:
    return []
  some = ' '.join(visible(c) for c, _ in lost.most_common(20))
  return [
    f'The tokens do not hold {len(lost):,} letters and digits of these texts ({some}), in up to '
    f'{lost.most_common(1)[0][1]:,} examples. `prepare --decontaminate_against` compares the text '
    'itself.'
  ]


def _cut(text: str) -> str:
  return text if len(text) <= _QUOTED else f'{text[:_QUOTED]}...'
