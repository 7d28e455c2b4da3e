"""Few-shot prompts: k solved examples of the same task before the question.

Exemplars come from the train split, drawn by a hash of (task, example id, seed), never the
question itself. Whole exemplars are left out until the prompt fits `max_tokens`.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from flan_jax.tasks.templates import DATA, TemplateError, digest

from flan_jax.naming import listing

MAX_SHOTS = 16  # as many as Flan 2021 shows at most


@dataclass(frozen=True)
class FewShotPattern:
  """How a prompt is laid out.

  {inputs_prefix}question{between}{targets_prefix}answer{separator}, repeated, then the query up
  to and including its targets_prefix.
  """

  id: str
  inputs_prefix: str = ''
  targets_prefix: str = ''
  between: str = '\n'
  separator: str = '\n\n'

  def ask(self, inputs: str) -> str:
    """Lays out a question, up to where its answer begins."""
    return f'{self.inputs_prefix}{inputs}{self.between}{self.targets_prefix}'


@dataclass(frozen=True)
class Exemplar:
  """A solved example and how it is laid out."""

  pattern: FewShotPattern
  inputs: str
  targets: str


@dataclass(frozen=True)
class Question:
  """What a few-shot prompt ends with. prefix: stands once, before the exemplars."""

  pattern: FewShotPattern
  inputs: str
  prefix: str = ''

  def prompt(self, exemplars: Sequence[Exemplar]) -> str:
    """Lays out the exemplars and the question as one text, parted by the question's separator."""
    shots = [
      f'{shot.pattern.ask(shot.inputs)}{shot.targets}{self.pattern.separator}' for shot in exemplars
    ]
    # T5 and ByT5 both read a blank before EOS as a token of its own; FLAN trims it too.
    return (self.prefix + ''.join(shots) + self.pattern.ask(self.inputs)).rstrip()


@dataclass(frozen=True)
class FewShot:
  """The few-shot form of a task.

  k: exemplars asked for, at most 16. max_tokens: of the whole prompt with its separators and EOS;
  960 is Flan 2021's. pool: exemplars are drawn from the first `pool` rows of train, which are held
  in memory. separator: replaces that of every pattern. patterns: tasks/data/few_shot.json if empty;
  wordings with a layout of their own keep it. mixed: every exemplar has a wording of its own, in
  place of the question's.
  """

  k: int = 3
  max_tokens: int = 960
  pool: int = 2000
  separator: str | None = None
  patterns: tuple[FewShotPattern, ...] = field(default=())
  mixed: bool = False

  def __post_init__(self):
    for name in ('k', 'max_tokens', 'pool'):
      value = getattr(self, name)
      if not isinstance(value, int) or value < 1:
        raise ValueError(f'FewShot({name}={value!r}) must be a whole number of at least 1.')
    if self.k > MAX_SHOTS:
      raise ValueError(f'FewShot(k={self.k}) must be at most {MAX_SHOTS}.')

  def layouts(self) -> tuple[FewShotPattern, ...]:
    """Returns the patterns that a prompt may have."""
    patterns = self.patterns or shipped_patterns()
    if self.separator is None:
      return patterns
    from dataclasses import replace

    return tuple(replace(p, separator=self.separator) for p in patterns)


@lru_cache(maxsize=1)
def shipped_patterns() -> tuple[FewShotPattern, ...]:
  """Reads tasks/data/few_shot.json."""
  path = DATA / 'few_shot.json'
  try:
    return tuple(FewShotPattern(**item) for item in json.loads(path.read_text(encoding='utf-8')))
  except (OSError, ValueError, TypeError) as e:
    fields = listing(FewShotPattern.__dataclass_fields__)
    raise TemplateError(f'Cannot read {path}: {e}. It is a list of objects of {fields}.') from e


def draw(size: int, k: int, *key, skip: Callable[[int], bool]) -> list[int]:
  """Draws up to k different indices below `size`, in a random order that only `key` decides.

  Indices for which `skip` is true are passed over; fewer than k come back if no more are left.
  """
  chosen: list[int] = []
  for index in _order(size, *key):
    if len(chosen) == k:
      break
    if not skip(index):
      chosen.append(index)
  return chosen


def _order(size: int, *key):
  """Visits every index below `size` once: a few by hash, the rest, if ever asked for, in a walk."""
  if not size:
    return
  seen = set()
  for attempt in range(64):
    index = digest(*key, attempt) % size
    if index not in seen:
      seen.add(index)
      yield index
  start = digest(*key) % size
  for step in range(size):
    index = (start + step) % size
    if index not in seen:
      yield index


def fit(
  question: Question,
  exemplars: Sequence[Exemplar],
  max_tokens: int,
  count: Callable[[str], int],
) -> tuple[str, int] | None:
  """Returns (prompt, exemplars kept) with as many exemplars as fit; None if not one does.

  The last exemplars go first. The prompt is counted whole, because a SentencePiece vocabulary
  does not count the parts of a text as it counts the text.
  """
  for kept in range(len(exemplars), 0, -1):
    prompt = question.prompt(exemplars[:kept])
    if count(prompt) + 1 <= max_tokens:  # 1 for EOS
      return prompt, kept
  return None
