"""Shows an Inspection on a terminal and as one HTML page that opens offline.

Data is never trusted: the page escapes everything, the terminal shows control characters as
escapes.
"""

import importlib.resources
import os
from pathlib import Path
from typing import Any

import jinja2
from rich.console import Console
from rich.text import Text

from flan_jax.console import Column, print_table, visible
from flan_jax.data.inspection import InspectError, Inspection, Lengths, TaskReport

_TERMINAL_TASKS = 8  # tasks whose examples are printed; the page has more

_RATES = (
  Column('task'),
  Column('collection'),
  Column('asked', right=True),
  Column('realised', right=True),
  Column('examples', right=True),
  Column('all drawn by step', right=True),
  Column('templates', right=True),
  Column('licence'),
)
_LENGTHS = (
  Column('task'),
  *(
    Column(f'{side} {what}', right=True)
    for side in ('inputs', 'targets')
    for what in ('mean', 'p50', 'p90', 'max', 'cut')
  ),
  Column('target tokens lost', right=True),
)


def print_inspection(inspection: Inspection, out: Console) -> None:
  """Prints tables, warnings and a few examples."""
  for line in summary(inspection):
    out.print(visible(line))
  out.print()
  print_table(out, _RATES, (_rate_row(task) for task in inspection.tasks), title='Rates')
  out.print()
  print_table(
    out, _LENGTHS, (_length_row(task) for task in inspection.tasks), title='Tokens (EOS included)'
  )
  for task in inspection.tasks[:_TERMINAL_TASKS]:
    _print_examples(task, out)
  left = sum(bool(task.examples) for task in inspection.tasks[_TERMINAL_TASKS:])
  if left:
    out.print(f'\nExamples of {left} more tasks are on the page that --html=FILE writes.')
  for name, why in inspection.missing.items():
    out.print(Text(f'missing {visible(name)}: {visible(why)}', style='yellow'))
  for warning in inspection.warnings:
    out.print(Text(f'warning: {visible(warning, newlines=True)}', style='yellow'))


def summary(inspection: Inspection) -> list[str]:
  """Returns the first lines: what is there, and what a step holds."""
  s = inspection.statistics
  examples = sum(task.num_examples for task in inspection.tasks)
  tokens = sum(task.num_examples * task.inputs.mean for task in inspection.tasks)
  targets = sum(task.num_examples * task.targets.mean for task in inspection.tasks)
  first = min(inspection.tasks, key=lambda task: task.steps_to_repeat)
  drawn = s.main + s.filler
  return [
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


def write_page(inspection: Inspection, path: str | os.PathLike[str]) -> Path:
  """Writes the page, whole or not at all.

  Raises:
    InspectError: it cannot be written there.
  """
  path = Path(path)
  page = (
    _environment()
    .from_string(_template())
    .render(inspection=inspection, summary=summary(inspection))
  )
  partial = path.with_name(f'.{path.name}.{os.getpid()}')
  try:
    partial.write_text(page, encoding='utf-8')
    os.replace(partial, path)
  except OSError as e:
    raise InspectError(f"Cannot write the page '{path}': {e.strerror}.") from e
  finally:
    if partial.exists():
      partial.unlink()
  return path


def _environment() -> jinja2.Environment:
  environment = jinja2.Environment(
    autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
  )
  environment.filters['visible'] = lambda text: visible(text, newlines=True)
  environment.filters['percent'] = lambda share, digits=1: f'{share:.{digits}%}'
  environment.filters['number'] = _number
  return environment


def _template() -> str:
  file = importlib.resources.files('flan_jax.data') / 'inspection.html'
  return file.read_text(encoding='utf-8')


def _number(value: Any) -> str:
  return f'{value:,.0f}'


def _rate_row(task: TaskReport) -> tuple[str, ...]:
  return (
    task.name,
    task.collection,
    f'{task.asked_rate:.2%}',
    f'{task.realised_rate:.2%}',
    f'{task.num_examples:,}',
    _number(task.steps_to_repeat),
    str(len(task.templates)),
    task.licence or 'not stated',
  )


def _length_row(task: TaskReport) -> tuple[str, ...]:
  def cells(lengths: Lengths) -> tuple[str, ...]:
    numbers = (lengths.mean, lengths.p50, lengths.p90, lengths.longest)
    return (*(_number(n) for n in numbers), f'{lengths.cut_share:.1%}')

  lost = _number(task.targets.lost_tokens)
  return (task.name, *cells(task.inputs), *cells(task.targets), lost)


def _print_examples(task: TaskReport, out: Console) -> None:
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
