"""How `prepare` shows what it does: progress while it runs, a summary and warnings at its end.

On a terminal there is a bar with the splits under work; elsewhere a line for each that ended.
"""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Self

from rich import progress

from flan_jax.console import Column, console, print_table, visible
from flan_jax.data.tokenizing import LossyCharacter, SplitResult, spelled
from flan_jax.naming import some

_MOST_ROWS = 60  # of the summary; longer ones show only what is not well
_MOST_NAMES = 12  # of splits with one trouble
_SNIPPET_NAMES = {'\n': 'newline', '\t': 'tab', ' ': 'blank', '': 'nothing'}

_COLUMNS = (
  Column('task'),
  Column('split'),
  Column('examples', right=True),
  Column('input tokens', right=True),
  Column('target tokens', right=True),
  Column('dropped'),
  Column('seconds', right=True),
  Column('status'),
)


class Display:
  """Shows the progress of many splits; a context manager."""

  def __init__(self, total: int, out=None):
    self._out = out or console()
    self._total, self._done, self._started = total, 0, time.monotonic()
    self._rows: dict[str, Any] = {}
    self._counts: dict[str, int] = {}
    self._bar = progress.Progress(
      progress.TextColumn('{task.description}', markup=False),
      progress.BarColumn(bar_width=30),
      progress.TextColumn('{task.fields[note]}', markup=False),
      progress.TimeRemainingColumn(),
      console=self._out,
      transient=True,
      disable=not self._out.is_terminal,
    )

  def __enter__(self) -> Self:
    self._bar.start()
    self._all = self._bar.add_task('prepare', total=self._total, note=self._note())
    return self

  def __exit__(self, *exception: object) -> None:
    self._bar.stop()

  def start(self, name: str) -> None:
    """A worker took this split."""
    self._rows[name] = self._bar.add_task(visible(name), total=None, note='')

  def advance(self, name: str, examples: int, tokens: int) -> None:
    """A split has come so far."""
    self._counts[name] = examples
    self._bar.update(self._rows[name], note=f'{examples:,} examples, {tokens:,} tokens')
    self._bar.update(self._all, note=self._note())

  def end(self, name: str, result: SplitResult) -> None:
    """A split ended, well or not."""
    self._done += 1
    self._counts[name] = result.num_examples
    if name in self._rows:
      self._bar.remove_task(self._rows.pop(name))
    self._bar.update(self._all, completed=self._done, note=self._note())
    if not self._out.is_terminal or result.message:
      self._out.print(f'[{self._done}/{self._total}] {_line(result)}')

  def _note(self) -> str:
    examples = sum(self._counts.values())
    rate = examples / max(time.monotonic() - self._started, 1e-3)
    return f'{self._done}/{self._total} splits, {examples:,} examples, {rate:,.0f}/s'


def print_summary(results: Sequence[SplitResult], out=None) -> None:
  """Prints a row for each split, or, of very many, for those that are not well."""
  out = out or console()
  well = [r for r in results if r.status in ('built', 'kept')]
  # Of a large mixture, what is missing is told below once for each way to get it.
  told = {id(r) for r in results if r.status in ('built', 'kept', 'missing')}
  shown = results if len(results) <= _MOST_ROWS else [r for r in results if id(r) not in told]
  if shown:
    print_table(out, _COLUMNS, (_cells(r) for r in shown))
  for line in _messages(results):
    out.print(line)
  left_out = Counter[str]()
  for result in well:
    left_out.update(result.dropped)
  if left_out:
    out.print(f'Rows left out: {spelled(left_out)}.')
  totals = (
    sum(r.num_examples for r in well),
    sum(r.input_tokens for r in well),
    sum(r.target_tokens for r in well),
  )
  built = sum(r.status == 'built' for r in results)
  out.print(
    f'{len(well):,} of {len(results):,} splits are in the cache ({built:,} built now): '
    f'{totals[0]:,} examples, {totals[1]:,} input and {totals[2]:,} target tokens.'
  )
  lacking = Counter(r.status for r in results if r.status not in ('built', 'kept'))
  if lacking:
    out.print(f'Not in the cache: {spelled(lacking)}.')


def lossy_warning(results: Iterable[SplitResult], kind: str) -> str:
  """Returns one warning about all characters that the vocabulary does not give back, or ''."""
  found: dict[str, list[tuple[SplitResult, LossyCharacter]]] = {}
  examples = 0
  for result in results:
    examples += result.num_examples
    for character, lost in result.lossy.items():
      found.setdefault(character, []).append((result, lost))
  if not found:
    return ''
  counts = {c: sum(lost.examples for _, lost in found[c]) for c in found}
  order = sorted(found, key=lambda c: (-counts[c], c))
  lines = [
    f'The {kind} vocabulary does not give back {len(found)} of the characters in these texts; '
    'the model will neither see nor write them:'
  ]
  for character in order[:10]:
    result, lost = found[character][0]
    lines.append(
      f'  {name_of(character)} becomes {name_of(lost.becomes)} in {counts[character]:,} of '
      f'{examples:,} examples of {len({r.task for r, _ in found[character]})} tasks, such as '
      f"{result.task} '{visible(lost.example_id)}': {visible(lost.snippet)}"
    )
  if len(order) > 10:
    lines.append(f'  and {len(order) - 10} more: {" ".join(visible(c) for c in order[10:40])}')
  return '\n'.join(lines)


def name_of(text: str) -> str:
  """Names a character for people: newline, tab, U+00A0 or the character itself."""
  if not text.strip(' '):
    return _SNIPPET_NAMES.get(text[:1], 'nothing')
  if len(text) == 1 and not text.isprintable():
    return _SNIPPET_NAMES.get(text, f'U+{ord(text):04X}')
  return f"'{visible(text.strip())}'"


def _messages(results: Iterable[SplitResult]) -> list[str]:
  """Says each trouble once, before it the splits that have it."""
  alike: dict[tuple[str, str], list[SplitResult]] = {}
  for result in results:
    if result.message:
      # Files of one folder differ in the path that is not there, and are got in one way.
      alike.setdefault((result.status, result.remedy or result.message), []).append(result)
  return [
    f'{status} {visible(some([f"{r.task} {r.split}" for r in group], _MOST_NAMES))}: '
    f'{visible(f"{group[0].message} {group[0].remedy}".strip())}'
    for (status, _), group in alike.items()
  ]


def _line(result: SplitResult) -> str:
  name = f'{visible(result.task)} {visible(result.split)}'
  if result.message:
    return f'{result.status} {name}: {visible(f"{result.message} {result.remedy}".strip())}'
  return (
    f'{result.status} {name}: {result.num_examples:,} examples, {result.input_tokens:,} input '
    f'and {result.target_tokens:,} target tokens, {result.seconds:.1f} s'
  )


def _cells(result: SplitResult) -> tuple[str, ...]:
  if result.status not in ('built', 'kept'):
    return (result.task, result.split, '-', '-', '-', '', '', result.status)
  return (
    result.task,
    result.split,
    f'{result.num_examples:,}',
    f'{result.input_tokens:,}',
    f'{result.target_tokens:,}',
    spelled(result.dropped),
    f'{result.seconds:.1f}',
    result.status,
  )
