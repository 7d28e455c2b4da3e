"""Shows an Inspection on a terminal: tables, warnings, and examples with their templates named.

Data is never trusted: control characters are shown as escapes. The page is inspection_page.py's.
"""

from typing import Any

from rich.console import Console
from rich.text import Text

from flan_jax.console import Column, print_table, visible
from flan_jax.data import licences
from flan_jax.data.inspection import Inspection
from flan_jax.data.inspection_groups import Group, group
from flan_jax.data.inspection_tasks import Lengths, TaskReport, Wordings
from flan_jax.naming import listing

_TERMINAL_TASKS = 8  # tasks whose examples are printed; the page has more
_MOST_LENGTH_ROWS = 200  # of single tasks; their sums say more of a larger mixture
_MOST_NAMES = 12  # of missing tasks with one reason

_LENGTHS = (
  Column('task'),
  *(
    Column(f'{side} {what}', right=True)
    for side in ('inputs', 'targets')
    for what in ('mean', 'p50', 'p90', 'p99', 'max', 'cut')
  ),
  Column('target tokens lost', right=True),
)


def print_inspection(inspection: Inspection, out: Console) -> None:
  """Prints tables, warnings and a few examples."""
  for line in summary(inspection):
    out.print(visible(line))
  tasks = inspection.shown_tasks
  if inspection.shown:
    out.print(f'Below: {len(tasks):,} of its tasks, with their shares of the whole.')
  for key in ('collection', 'cluster', 'form'):
    groups = group(tasks, key, inspection.tasks)
    if len(groups) > 1:
      _print_groups(f'By {key}', key, groups, out)
  _print_groups('Licences', 'licence', group(tasks, 'licence', inspection.tasks), out)
  out.print()
  columns = _rate_columns(inspection)
  print_table(out, columns, (_rate_row(task) for task in tasks), title='Rates')
  out.print()
  if len(tasks) <= _MOST_LENGTH_ROWS:
    rows = (_length_row(task) for task in tasks)
    print_table(out, _LENGTHS, rows, title='Tokens (EOS included)')
  else:
    out.print('Lengths of single tasks: --task NAME, or the page that --html=FILE writes.')
  _print_examples(inspection, tasks, out)
  for what, reasons in (('missing', inspection.missing), ('left out', inspection.left_out)):
    for why, names in licences.by_reason(reasons).items():
      listed = listing(names, _MOST_NAMES)
      out.print(Text(f'{what} {visible(listed)}: {visible(why)}', style='yellow'))
  for warning in inspection.warnings:
    out.print(Text(f'warning: {visible(warning, newlines=True)}', style='yellow'))


def summary(inspection: Inspection) -> list[str]:
  """Returns the first lines: what is there, what a step holds, how often data repeats."""
  s = inspection.statistics
  examples = sum(task.num_examples for task in inspection.tasks)
  tokens = sum(task.num_examples * task.inputs.mean for task in inspection.tasks)
  targets = sum(task.num_examples * task.targets.mean for task in inspection.tasks)
  first = min(inspection.tasks, key=lambda task: task.steps_to_repeat)
  drawn = s.main + s.filler
  lines = [
    f'{inspection.mixture}, split {inspection.split}: {len(inspection.tasks):,} '
    f'{"task" if len(inspection.tasks) == 1 else "tasks"}, '
    f'{examples:,} examples, {tokens:,.0f} input and {targets:,.0f} target tokens '
    f'({inspection.vocabulary}).',
    f'A step of {inspection.batch_rows} rows of {inspection.limits["inputs"]}/'
    f'{inspection.limits["targets"]} tokens holds {s.examples_per_step:,.0f} examples; '
    f'{s.input_fill:.1%} of input and {s.target_fill:.1%} of target positions are filled.',
    f'At these lengths {s.truncated_inputs / drawn:.2%} of inputs and '
    f'{s.truncated_targets / drawn:.2%} of targets are cut, and {s.lost_targets:,} of {drawn:,} '
    f'examples drawn have nothing left to learn.',
    f'{first.name} is the first to be drawn whole, after {first.steps_to_repeat:,.0f} steps; then '
    f'its examples come again in another order.',
  ]
  if inspection.steps:
    lines.append(_epochs(inspection))
  return lines


def _epochs(inspection: Inspection) -> str:
  by_epochs = sorted(inspection.tasks, key=lambda task: task.epochs or 0)
  least, most = by_epochs[0], by_epochs[-1]
  more = sum((task.epochs or 0) > 1 for task in by_epochs)
  return (
    f'{inspection.steps:,} steps draw each example {epochs(least.epochs)} ({least.name}) to '
    f'{epochs(most.epochs)} times ({most.name}); {more:,} of {len(by_epochs):,} tasks are seen '
    'whole and begin again.'
  )


def epochs(number: float | None) -> str:
  """Writes epochs with two or three digits: 0.031, 1.4, 27.5; '' for none."""
  if number is None:
    return ''
  if number >= 100 or number == 0:
    return f'{number:,.0f}'
  return f'{number:.1f}' if number >= 10 else f'{number:.2g}'


def wordings(one: Wordings) -> str:
  """'7 of 10, 2.8 bits': how many templates occur, and how evenly; '' if none is named."""
  if not one.used:
    return ''
  of = f' of {one.registered:,}' if one.registered >= one.used else ''
  return f'{one.used:,}{of}, {one.entropy:.1f} bits'


def _print_groups(title: str, what: str, groups: tuple[Group, ...], out: Console) -> None:
  epochs_given = groups[0].most_epochs is not None
  columns = [
    Column(what),
    *(
      Column(name, right=True)
      for name in ('tasks', 'examples', 'asked', 'realised', 'of tokens', 'inputs cut')
    ),
    Column('targets cut', right=True),
    Column('most epochs' if epochs_given else 'first repeats at step', right=True),
  ]
  rows = (
    (
      one.name or 'not stated',
      f'{one.tasks:,}',
      f'{one.examples:,}',
      share(one.asked_rate),
      share(one.realised_rate),
      share(one.token_share),
      f'{one.cut_inputs:.1%}',
      f'{one.cut_targets:.1%}',
      epochs(one.most_epochs) if epochs_given else _number(one.soonest_repeat),
    )
    for one in groups
  )
  out.print()
  print_table(out, columns, rows, title=title)


def share(value: float) -> str:
  """Writes a rate so that small ones, of 1,836 tasks, keep two digits: 52.00%, 0.0062%."""
  return f'{value:.2%}' if value >= 0.001 or value == 0 else f'{100 * value:.2g}%'


def _number(value: Any) -> str:
  return f'{value:,.0f}'


def _rate_columns(inspection: Inspection) -> tuple[Column, ...]:
  numbers = ['asked', 'realised', 'examples', 'all drawn by step']
  if inspection.steps:
    numbers.append('epochs')
  return (
    Column('task'),
    Column('collection'),
    *(Column(name, right=True) for name in numbers),
    Column('templates', right=True),
    Column('licence'),
  )


def _rate_row(task: TaskReport) -> tuple[str, ...]:
  return (
    task.name,
    task.collection,
    share(task.asked_rate),
    share(task.realised_rate),
    f'{task.num_examples:,}',
    _number(task.steps_to_repeat),
    *(() if task.epochs is None else (epochs(task.epochs),)),
    wordings(task.wordings),
    task.licence or 'not stated',
  )


def _length_row(task: TaskReport) -> tuple[str, ...]:
  def cells(lengths: Lengths) -> tuple[str, ...]:
    numbers = (lengths.mean, lengths.p50, lengths.p90, lengths.p99, lengths.longest)
    return (*(_number(n) for n in numbers), f'{lengths.cut_share:.1%}')

  lost = _number(task.targets.lost_tokens)
  return (task.name, *cells(task.inputs), *cells(task.targets), lost)


def _print_examples(inspection: Inspection, tasks: tuple[TaskReport, ...], out: Console) -> None:
  """Prints examples of the tasks asked for, or of a few."""
  with_examples = [task for task in tasks if task.examples]
  most = len(with_examples) if inspection.shown else _TERMINAL_TASKS
  for task in with_examples[:most]:
    _print_task_examples(task, out)
  left = len(with_examples) - most
  if left > 0:
    out.print(f'\nExamples of {left} more tasks are on the page that --html=FILE writes.')


def _print_task_examples(task: TaskReport, out: Console) -> None:
  for example in task.examples:
    cut = ''
    if example.lost_input_tokens or example.lost_target_tokens:
      cut = f', cut by {example.lost_input_tokens:,}/{example.lost_target_tokens:,}'
    out.print(
      Text(
        f"\n{visible(task.name)} '{visible(example.id)}' template {visible(example.template)} "
        f'({example.input_tokens:,}/{example.target_tokens:,} tokens{cut})',
        style='bold',
      )
    )
    out.print(Text('inputs   ', style='dim') + Text(visible(example.inputs, newlines=True)))
    out.print(Text('targets  ', style='dim') + Text(visible(example.targets, newlines=True)))
    out.print(Text('answer   ', style='dim') + Text(visible(example.answer, newlines=True)))
