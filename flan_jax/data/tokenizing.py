"""Turns the examples of one task's split into tokens and writes them to the cache.

Where examples come from is the caller's concern (prepare.py): here they are text, or ids that
SeqIO made. An example that would be lost or changed in silence is an error or a counted note.
"""

import dataclasses
import itertools
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from flan_jax.data.cache import CacheError, TaskCacheWriter
from flan_jax.data.vocabularies import Vocabulary

_SNIPPET = 40  # characters shown around a character that is lost
_REPORT_SECONDS = 0.2

Status = Literal['built', 'kept', 'failed', 'missing', 'no space', 'not started']


@dataclasses.dataclass(frozen=True)
class Example:
  """One example before it is written.

  Attributes:
    id: its id within the split.
    template: the wording that made it, or ''.
    inputs: text that the model reads.
    targets: text that it should write.
    metadata: further entries, such as answer, options, references.
    input_ids: ids that SeqIO or an objective made of inputs; None to tokenise here.
    target_ids: the same of targets.
  """

  id: str
  template: str
  inputs: str
  targets: str
  metadata: Mapping[str, Any]
  input_ids: Sequence[int] | None = None
  target_ids: Sequence[int] | None = None


@dataclasses.dataclass(frozen=True)
class LossyCharacter:
  """A character that the vocabulary does not give back.

  Attributes:
    becomes: what it decodes to.
    examples: number of examples that hold it.
    example_id: the first of them.
    snippet: the text around it there.
  """

  becomes: str
  examples: int
  example_id: str
  snippet: str


@dataclasses.dataclass(frozen=True)
class SplitResult:
  """What became of one task's split.

  Attributes:
    status: 'built', 'kept' (was there already), 'failed' (broken data), 'missing' (no source),
      'no space' (the disk), 'not started'.
    message: why, in one or two sentences; '' if all is well.
    remedy: how missing data is got.
    dropped: reason -> examples left out.
    lossy: character -> what the vocabulary does to it.
    seconds: time it took.
    traceback: for --traceback; '' unless the error was not one of ours.
  """

  task: str
  split: str
  status: Status
  message: str = ''
  remedy: str = ''
  num_examples: int = 0
  input_tokens: int = 0
  target_tokens: int = 0
  dropped: Mapping[str, int] = dataclasses.field(default_factory=dict)
  lossy: Mapping[str, LossyCharacter] = dataclasses.field(default_factory=dict)
  seconds: float = 0.0
  traceback: str = ''


class LossyCounter:
  """Counts the examples whose characters the vocabulary does not give back."""

  def __init__(self, vocabulary: Vocabulary):
    self._vocabulary = vocabulary
    self._faithful: set[str] = set()
    self._becomes: dict[str, str] = {}
    self._found: dict[str, LossyCharacter] = {}

  def add(self, example: Example) -> None:
    """Looks at both texts of one example; each character is tried once in a life."""
    suspects = (set(example.inputs) | set(example.targets)) - self._faithful
    for character in sorted(suspects):
      if character not in self._becomes and self._survives(character):
        continue
      first = self._found.get(character)
      if first is None:
        text = example.inputs if character in example.inputs else example.targets
        first = LossyCharacter(
          self._becomes[character], 0, example.id, _around(text, text.index(character))
        )
      self._found[character] = dataclasses.replace(first, examples=first.examples + 1)

  def found(self) -> dict[str, LossyCharacter]:
    """Returns character -> what happens to it, the most frequent first."""
    return dict(sorted(self._found.items(), key=lambda item: (-item[1].examples, item[0])))

  def _survives(self, character: str) -> bool:
    # Between letters, since SentencePiece may add or drop blanks at the ends of a text.
    decoded = self._vocabulary.decode(self._vocabulary.encode(f'a{character}b'))
    if character in decoded:
      self._faithful.add(character)
      return True
    self._becomes[character] = decoded.removeprefix('a').removesuffix('b')
    return False


def write_split(
  examples: Iterable[Example],
  *,
  cache_dir: str | os.PathLike[str],
  task: str,
  split: str,
  vocabulary: Vocabulary,
  key: Mapping[str, Any],
  info: Mapping[str, Any],
  max_examples: int | None = None,
  dropped: Callable[[], Mapping[str, int]] = dict,
  report: Callable[[tuple[int, int]], None] = lambda _: None,
) -> SplitResult:
  """Tokenises and writes one split; ends both sides of each example in EOS.

  Args:
    examples: in their order.
    cache_dir: a cache of `vocabulary`.
    task: name of the task.
    split: name of the split.
    vocabulary: makes the ids.
    key: what decides the content, for `is_finished`.
    info: entries of the manifest.
    max_examples: stop after so many; None takes all.
    dropped: asked at the end for the examples left out, by reason.
    report: told (examples, tokens) so far, a few times a second.

  Raises:
    ValueError: a text that tokenises to nothing, data that cannot be read, no examples at all.
    CacheError: the cache cannot be written.
  """
  started = reported = time.monotonic()
  lossy, templates, tokens = LossyCounter(vocabulary), Counter(), 0
  with TaskCacheWriter(cache_dir, task, split, key=key, extra_ids=vocabulary.extra_ids) as writer:
    count = 0
    for count, example in enumerate(itertools.islice(examples, max_examples), start=1):
      inputs, targets = _ids(example, task, split, vocabulary)
      metadata = {'id': example.id, 'template': example.template, **example.metadata}
      writer.add(inputs, targets, metadata)
      lossy.add(example)
      templates[example.template] += 1
      tokens += len(inputs) + len(targets)
      if time.monotonic() - reported > _REPORT_SECONDS:
        reported = time.monotonic()
        report((count, tokens))
    left_out = dict(sorted(dropped().items()))
    if not count:
      raise ValueError(
        f"Task '{task}' split '{split}' has no examples"
        + (f' (left out: {spelled(left_out)})' if left_out else '')
        + '; correct its data or its fields=, or leave the task out.'
      )
    found = lossy.found()
    manifest = writer.finish(
      {
        **info,
        'templates': dict(sorted(templates.items())),
        'dropped': left_out,
        'lossy': {c: dataclasses.asdict(f) for c, f in found.items()},
      }
    )
  return dataclasses.replace(result_of(manifest, 'built'), seconds=time.monotonic() - started)


def result_of(manifest: Mapping[str, Any], status: Status) -> SplitResult:
  """Tells of a split that is in the cache."""
  return SplitResult(
    task=manifest['task'],
    split=manifest['split'],
    status=status,
    num_examples=manifest['num_examples'],
    input_tokens=manifest['input_tokens'],
    target_tokens=manifest['target_tokens'],
    dropped=manifest.get('dropped', {}),
    lossy={c: LossyCharacter(**f) for c, f in manifest.get('lossy', {}).items()},
  )


def spelled(counts: Mapping[str, int]) -> str:
  """Spells counts for people: {'without output': 3, 'too long': 1} -> '3 without output, ...'."""
  return ', '.join(f'{count:,} {what}' for what, count in counts.items())


def is_disk_error(error: BaseException) -> bool:
  """Whether the cache could not be written, so that every other task would fail as well."""
  return isinstance(error, CacheError) and isinstance(error.__cause__, OSError)


def _ids(
  example: Example, task: str, split: str, vocabulary: Vocabulary
) -> tuple[list[int], list[int]]:
  """Returns both sides: with one EOS at the end, or as the chat template writes them."""
  if vocabulary.chat:
    try:
      return vocabulary.encode_example(example.inputs, example.targets)
    except ValueError as e:
      raise ValueError(f"Task '{task}' split '{split}', example '{example.id}': {e}") from e
  sides = []
  for name, text, ids in (
    ('input', example.inputs, example.input_ids),
    ('target', example.targets, example.target_ids),
  ):
    made = vocabulary.encode(text) if ids is None else list(ids)
    while made and made[-1] == vocabulary.eos_id:
      made.pop()
    # A SeqIO task may train on bare targets (language modelling), so its inputs may be empty.
    if not made and (name == 'target' or ids is None):
      where = f"template '{example.template}'" if example.template else 'no template'
      raise ValueError(
        f"Task '{task}' split '{split}', example '{example.id}' ({where}): the {name} "
        f'{_short(text)} becomes no tokens in this {vocabulary.kind} vocabulary. Leave the row '
        'out with fields=, correct it, or choose another vocabulary.'
      )
    sides.append([*made, vocabulary.eos_id])
  return sides[0], sides[1]


def _around(text: str, index: int) -> str:
  return text[max(0, index - _SNIPPET // 2) : index + _SNIPPET // 2]


def _short(text: str) -> str:
  return repr(text) if len(text) <= _SNIPPET else repr(text[:_SNIPPET]) + '...'
