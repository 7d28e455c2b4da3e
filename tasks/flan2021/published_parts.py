"""What the descriptions of published files are put together from: labels, columns, usual names."""

import re
from collections.abc import Callable
from typing import Any

from flan_jax.tasks.flan2021.layouts import Layout, Row, text_lines

# TFDS's name -> folders that it may have beside its own name, and the layouts.
Published = dict[str, tuple[tuple[str, ...], tuple[Layout, ...]]]

JSONL = {
  'train': ('train.jsonl',),
  'validation': ('val.jsonl', 'validation.jsonl', 'dev.jsonl'),
}
TSV = {'train': ('train.tsv',), 'validation': ('dev.tsv',)}
CARRIED = {'train': ('train.json',), 'validation': ('dev.json',)}
# In the order of TFDS's labels; who carries RTE calls what is not entailed a contradiction.
TWO_WAY = ('entailment', 'not_entailment|contradiction')
THREE_WAY = ('entailment', 'neutral', 'contradiction')


def same(*columns: str, **renamed: str) -> Callable[[Row], Row]:
  """Returns the function that takes columns as they are, those of `renamed` under another name."""

  def row(raw: Row) -> Row:
    kept = {name: raw[name] for name in columns}
    return kept | {name: raw[published] for name, published in renamed.items()}

  return row


def labelled(*names: str, of: str = 'label', **columns: str) -> Callable[[Row], Row]:
  """Returns the function that takes columns (TFDS's name = the file's) and the label in `of`."""
  texts = same(**columns)
  return lambda raw: {**texts(raw), 'label': label(raw[of], *names)}


def carried(*names: str, **marks: str) -> Layout:
  """Returns the layout of O-LoRA's copies: a JSON array of {"sentence", "label"}.

  marks: column -> the mark before its text, where a sentence has several parts.
  """

  def row(raw: Row) -> Row:
    texts = between(raw['sentence'], *marks.values()) if marks else [raw['sentence']]
    columns = marks or {'text': ''}
    return {**dict(zip(columns, texts, strict=True)), 'label': label(raw['label'], *names)}

  return Layout(files=CARRIED, row=row, has=('sentence', 'label'))


def jsonl(row: Callable, *has: str, files: Any = None) -> tuple[Layout, ...]:
  """Returns the one layout of JSON lines; files are named as in SuperGLUE unless told."""
  return (Layout(files=files or JSONL, row=row, has=has),)


def aligned(files: dict[str, tuple[str, ...]], companion: tuple[str, str], row: Callable) -> Layout:
  """Returns the layout of two files whose lines belong together: 'line' and 'companion'."""
  return Layout(files=files, read=text_lines, companion=companion, row=row)


def label(value: Any, *names: str) -> int:
  """Returns the place of a label among those of TFDS, -1 for none: ('yes', 'no', 'yes') -> 1.

  A name such as 'False|0' has two spellings; a number stands for its place.
  """
  if value in (None, '', '-', -1, '-1'):
    return -1
  if isinstance(value, bool):
    value = int(value)
  for place, name in enumerate(names):
    if str(value) in name.split('|'):
      return place
  if str(value).isdigit() and int(value) < len(names):
    return int(value)
  raise ValueError(f'the label is {value!r}, which is none of {", ".join(names)}')


def between(text: str, *marks: str) -> list[str]:
  r"""Returns what stands behind each mark: ('a: x\nb: y', 'a: ', 'b: ') -> ['x', 'y'].

  Raises:
    ValueError: the marks do not part the text.
  """
  pattern = r'\n'.join(rf'{re.escape(mark)}(.*)' for mark in marks)
  match = re.fullmatch(pattern, text, re.DOTALL)
  if match is None:
    raise ValueError(f'{text!r:.60} is not {" ... ".join(marks)}')
  return list(match.groups())
