r"""Blocks of options: a heading and one answer an item, in one of many styles.

A style is put together by a hash of the example's key from the parts in data/option_styles.json.
When its items are lettered or numbered, the label stands for the answer as the target. The
wordings that a block is placed in are templates; see templates.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

from flan_jax.tasks.readers import DataError
from flan_jax.tasks.styles import load_parts
from flan_jax.tasks.templates import TemplateError, choose

from flan_jax.naming import listing, nearest

# The alphabet ends here, so every kind of label does.
MAX_OPTIONS = 26

_ROMAN_ONES = ('', 'i', 'ii', 'iii', 'iv', 'v', 'vi', 'vii', 'viii', 'ix')
_SYMBOLS = {
  'letter_lower': lambda i: chr(ord('a') + i),
  'letter_upper': lambda i: chr(ord('A') + i),
  'digit': lambda i: str(i + 1),
  'roman_lower': lambda i: 'x' * ((i + 1) // 10) + _ROMAN_ONES[(i + 1) % 10],
  'roman_upper': lambda i: _SYMBOLS['roman_lower'](i).upper(),
}
KINDS = ('bullet', *_SYMBOLS)


@dataclass(frozen=True)
class OptionStyle:
  r"""How options are laid out: {heading}{before}(symbol){after} option{ending}{between}...

  heading: with the line end or blank behind it. kind: 'bullet', or what counts the items; a bullet
  is `before` alone. ending: stands behind each option that does not end a sentence or so itself.

  '(A) red\n(B) blue' is kind='letter_upper', before='(', after=')'.
  """

  id: str
  heading: str = ''
  kind: str = 'bullet'
  before: str = '-'
  after: str = ''
  between: str = '\n'
  ending: str = ''

  def __post_init__(self):
    if self.kind not in KINDS:
      raise TemplateError(
        f'Option style {self.id!r} has the kind {self.kind!r}.{nearest(self.kind, KINDS)} '
        f'Kinds: {listing(KINDS)}.'
      )
    if self.kind == 'bullet' and not self.before.strip():
      # T5's vocabulary reads every line end as a blank, so the items would run into one another.
      raise TemplateError(f"Option style {self.id!r} has no bullet; give one, such as before='-'.")

  def label(self, index: int) -> str:
    """Returns what stands before the option at `index`, as printed: '-', '(b).' or 'Option 2:'."""
    symbol = '' if self.kind == 'bullet' else _SYMBOLS[self.kind](index)
    return f'{self.before}{symbol}{self.after}'


PLAIN = OptionStyle('plain', 'OPTIONS:\n')
LETTERED = OptionStyle('lettered', 'OPTIONS:\n', 'letter_upper', '(', ')')


@dataclass(frozen=True)
class OptionParts:
  """The parts that styles are put together from; each holds its own field of a style."""

  headings: tuple[OptionStyle, ...]
  items: tuple[OptionStyle, ...]
  endings: tuple[OptionStyle, ...]


@lru_cache(maxsize=1)
def option_parts() -> OptionParts:
  """Reads data/option_styles.json, once; templates.templates_hash([...]) names the content."""
  item = {f.name for f in fields(OptionStyle)} - {'heading', 'ending'}
  allowed = {'headings': {'id', 'heading'}, 'items': item, 'endings': {'id', 'ending'}}
  return OptionParts(**load_parts('option_styles.json', OptionStyle, allowed))


def choose_style(*key: Any) -> OptionStyle:
  """Returns the style that the hash of `key` decides: heading, items and ending each on its own."""
  parts = option_parts()
  heading = choose(parts.headings, 'option heading', *key)
  item = choose(parts.items, 'option item', *key)
  ending = choose(parts.endings, 'option ending', *key)
  return replace(
    item,
    id=f'{heading.id}/{item.id}/{ending.id}',
    heading=heading.heading,
    ending=ending.ending,
  )


def render_options(
  style: OptionStyle, options: Sequence[str], place: str = ''
) -> tuple[str, list[str] | None]:
  r"""Returns the block of options and the label of each, or None where a label cannot answer.

  LETTERED, ['red', 'blue'] -> 'OPTIONS:\n(A) red\n(B) blue', ['(A)', '(B)'].
  Labels cannot answer when the items are bullets, or when a label is also the text of an option.

  Raises:
    DataError: fewer than 2 options, more than 26, an empty one, or two that are equal; `place`
      (file and line of the row) is part of the message.
  """
  _check_options(options, place)
  items = []
  for index, option in enumerate(options):
    ending = '' if option.endswith(('.', '!', '?', ';')) else style.ending
    items.append(f'{style.label(index)} {option}{ending}')
  block = style.heading + style.between.join(items)
  if style.kind == 'bullet':
    return block, None
  labels = [style.label(index) for index in range(len(options))]
  return block, None if set(labels) & {option.strip() for option in options} else labels


def answer_label(style: OptionStyle, options: Sequence[str], answer: str, place: str = '') -> str:
  """Returns the target for `answer`: its label where labels can answer, else the text itself.

  Raises:
    DataError: as render_options, or an answer that is not among the options.
  """
  labels = render_options(style, options, place)[1]
  if answer not in options:
    raise DataError(
      f'{_at(place)}the answer {answer!r} is not among the options.{nearest(answer, options)} '
      f'Options: {listing(map(repr, options))}.'
    )
  return labels[list(options).index(answer)] if labels else answer


def _check_options(options: Sequence[str], place: str) -> None:
  """Refuses what cannot be a choice."""
  if isinstance(options, str):
    raise DataError(f'{_at(place)}the options are the one text {options!r}; give a list of texts.')
  if not 2 <= len(options) <= MAX_OPTIONS:
    what = f'is 1 option, {options[0]!r}' if len(options) == 1 else f'are {len(options)} options'
    raise DataError(
      f'{_at(place)}there {what}; a choice has 2 to {MAX_OPTIONS}. Leave the row out with fields=, '
      'or use a wording without options.'
    )
  seen: dict[str, int] = {}
  for number, option in enumerate(options, start=1):
    text = option.strip()
    if not text:
      raise DataError(f'{_at(place)}option {number} of {len(options)} is empty.')
    if text in seen:
      raise DataError(
        f'{_at(place)}options {seen[text]} and {number} are both {text!r}; each must differ.'
      )
    seen[text] = number


def _at(place: str) -> str:
  return f'{place}: ' if place else ''
