"""list: the tasks, mixtures, models and recipes that there are, and what can be had here.

A table on a terminal, aligned lines on a pipe, or JSON. How large a model is, is told by a function
of the caller's, because only main.py reads gin.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from flan_jax.console import Column, console, print_table, visible
from flan_jax.data import catalogue, seqio_tasks
from flan_jax.data.mixture import ExamplesProportional, Rate
from flan_jax.naming import some, unknown

KINDS = ('tasks', 'mixtures', 'models', 'recipes')
_RECIPE_FOLDERS = ('recipes', 'runs')
_SHARED_FILE = 'family.gin'  # what the models of a family share, and no model
_MOST_MEMBERS = 6  # of a mixture, named in the table; JSON has all


class ListError(ValueError):
  """A kind of thing that is not listed."""


@dataclasses.dataclass(frozen=True)
class ListConfig:
  """What to list.

  Attributes:
    kind: 'tasks', 'mixtures', 'models', 'recipes', or 'all' for a count of each.
    gin_folder: folder with models/, recipes/ and runs/.
    tasks_modules: Python modules that register the tasks.
    folders: folder name -> path, for data whose place the tasks leave open (cot_dir).
    as_json: print JSON instead of a table.
  """

  kind: str
  gin_folder: Path
  tasks_modules: tuple[str, ...] = catalogue.DEFAULT_MODULES
  folders: Mapping[str, str] = dataclasses.field(default_factory=dict)
  as_json: bool = False

  def __post_init__(self):
    if self.kind not in (*KINDS, 'all'):
      raise ListError(unknown('list of', self.kind, (*KINDS, 'all')))


def list_things(
  config: ListConfig,
  *,
  parameter_count: Callable[[Path], int | None] | None = None,
  out: Console | None = None,
) -> Any:
  """Prints a list and returns it as JSON has it.

  Args:
    config: what to list.
    parameter_count: gin file of a model -> parameters, None where it has no number.
    out: standard output by default.
  """
  out = out or console()
  if config.kind in ('tasks', 'mixtures', 'all'):
    catalogue.import_task_modules(config.tasks_modules)
    for name, path in config.folders.items():
      catalogue.set_folder(name, path)
  found = {
    kind: make()
    for kind, make in (
      ('tasks', tasks),
      ('mixtures', mixtures),
      ('models', lambda: models(config.gin_folder, parameter_count)),
      ('recipes', lambda: recipes(config.gin_folder)),
    )
    if config.kind in (kind, 'all')
  }
  listed: Any = found if config.kind == 'all' else found[config.kind]
  if config.as_json:
    try:
      print(json.dumps(listed, indent=1, ensure_ascii=True), file=out.file, flush=True)
    except BrokenPipeError:
      out.on_broken_pipe()  # as rich does: ends the program without a word
  elif config.kind == 'all':
    for kind, things in found.items():
      here = sum(bool(thing.get('available', True)) for thing in things)
      note = f', {here:,} with all their data here' if kind in ('tasks', 'mixtures') else ''
      out.print(f'{len(things):,} {kind}{note}: flan-jax list {kind}')
  else:
    _PRINTERS[config.kind](listed, out)
  return listed


def tasks() -> list[dict[str, Any]]:
  """Lists every registered task; `why` and `how_to_get` say what is wrong where it is not here."""
  listed = []
  known: dict[Any, Any] = {}
  if catalogue.registry():
    for info in catalogue.registry().infos():
      # The forms of a task read the same files, and looking for them is what takes time.
      data = (info.family, info.splits, info.shots > 0)
      status = known.get(data) or known.setdefault(data, _availability(info))
      listed.append(
        {
          'name': info.name,
          'family': info.family,
          'form': info.form,
          'cluster': info.cluster,
          'category': info.category,
          'collection': info.collection,
          'held_out': list(info.held_out),
          'licence': info.licence,
          'cot': info.cot,
          'splits': list(info.splits),
          'metrics': list(info.metrics),
          'source': info.source,
          'available': status.available,
          'why': status.why,
          'how_to_get': status.how_to_get,
        }
      )
  instruction = {task['name'] for task in listed}
  for name in seqio_tasks.task_names():
    if name not in instruction:
      listed.append(_seqio_task(name))
  return listed


def _availability(info: Any) -> Any:
  """Publishers' files may be of one split only, which is enough to prepare that one."""
  statuses = [info.available(split) for split in info.splits]
  return next((one for one in statuses if one.available), statuses[0])


def mixtures() -> list[dict[str, Any]]:
  """Lists every registered mixture with its members and their rates."""
  known = {task['name']: task for task in tasks()}
  listed = []
  for name in catalogue.mixture_names():
    mixture: Any = catalogue.find(name)
    names = mixture.task_names()
    families = {known[task]['family'] if task in known else task for task in names}
    here = {known[t]['family'] for t in names if t in known and known[t]['available']}
    listed.append(
      {
        'name': name,
        'members': {member.name: _rate(member.rate) for member in mixture.members},
        'tasks': sorted(families),
        'tasks_here': len(here),
        'forms': list(names),
        'available': here == families,
      }
    )
  return listed


def models(
  gin_folder: Path, parameter_count: Callable[[Path], int | None] | None = None
) -> list[dict[str, Any]]:
  """Lists the gin files of models."""
  return [
    {
      **entry,
      'parameters': parameter_count(gin_folder / entry['name']) if parameter_count else None,
    }
    for entry in _gin_files(gin_folder, ('models',))
  ]


def recipes(gin_folder: Path) -> list[dict[str, Any]]:
  """Lists the gin files of recipes and runs."""
  return _gin_files(gin_folder, _RECIPE_FOLDERS)


def _gin_files(gin_folder: Path, folders: Sequence[str]) -> list[dict[str, Any]]:
  paths = [path for folder in folders for path in sorted((gin_folder / folder).rglob('*.gin'))]
  listed = []
  for path in paths:
    if path.name == _SHARED_FILE:
      continue
    header = _header(path)
    listed.append(
      {
        'name': path.relative_to(gin_folder).as_posix(),
        'about': _first_sentence(header),
        'header': header,
      }
    )
  return listed


def _header(path: Path) -> str:
  """Returns the comment that a file begins with, without its marks."""
  lines = []
  for line in path.read_text(encoding='utf-8').splitlines():
    if not line.startswith('#'):
      break
    lines.append(line.lstrip('#').removeprefix(' ').rstrip())
  return '\n'.join(lines).strip()


def _first_sentence(header: str) -> str:
  paragraph = ' '.join(header.split('\n\n')[0].split())
  return re.split(r'(?<=[.:])\s', paragraph, maxsplit=1)[0].rstrip(':')


def _seqio_task(name: str) -> dict[str, Any]:
  """Describes a task that only SeqIO has, as far as SeqIO knows."""
  info = seqio_tasks.info(name)
  why = ''
  try:
    splits = seqio_tasks.splits(name)
    why = seqio_tasks.missing(name, splits[0]) if splits else 'It has no splits.'
  except ValueError as e:
    splits, why = (), str(e)
  return {
    'name': name,
    'family': name,
    'form': 'seqio',
    'category': '',
    'held_out': [],
    **{key: info[key] for key in ('cluster', 'collection', 'licence', 'cot')},
    'splits': list(splits),
    'metrics': info['seqio_metrics'],
    'source': info['source'],
    'available': not why,
    'why': why,
    'how_to_get': '',
  }


def _rate(rate: Rate) -> Any:
  return dataclasses.asdict(rate) if isinstance(rate, ExamplesProportional) else rate


def _rate_text(rate: Any) -> str:
  if not isinstance(rate, dict):
    return f'rate {rate:g}'
  limit = f', at most {rate["maximum"]:,.0f}' if rate['maximum'] else ''
  temperature = f', temperature {rate["temperature"]:g}' if rate['temperature'] != 1 else ''
  return f'by examples{limit}{temperature}'


def _print_tasks(listed: Sequence[Mapping[str, Any]], out: Console) -> None:
  """One line a task, whatever the number of its forms, then what is not here and how to get it."""
  families: dict[str, list[Mapping[str, Any]]] = {}
  for task in listed:
    families.setdefault(task['family'], []).append(task)
  titles = ('task', 'forms', 'collection', 'cluster', 'CoT', 'splits', 'metrics', 'held out for')
  titles += ('licence', 'here')
  rows = (
    (
      name,
      len(forms),
      forms[0]['collection'],
      forms[0]['cluster'],
      'yes' if any(form['cot'] for form in forms) else '',
      ' '.join(forms[0]['splits']),
      ' '.join(forms[0]['metrics']),
      ' '.join(forms[0]['held_out']),
      forms[0]['licence'],
      'yes' if forms[0]['available'] else 'no',
    )
    for name, forms in families.items()
  )
  print_table(out, [Column(title, right=title == 'forms') for title in titles], rows)
  missing: dict[str, list[Mapping[str, Any]]] = {}
  for first, *_ in families.values():
    if not first['available']:
      # Files of one folder differ in why they are not here, and are got in one way.
      missing.setdefault(first['how_to_get'] or first['why'], []).append(first)
  for tasks_of_way in missing.values():
    names = some([task['family'] for task in tasks_of_way], _MOST_MEMBERS)
    reason = ' '.join(dict.fromkeys((tasks_of_way[0]['why'], tasks_of_way[0]['how_to_get'])))
    out.print(f'not here: {visible(names)}: {visible(reason.strip())}')
  collections: dict[str, list[bool]] = {}
  for first, *_ in families.values():
    collections.setdefault(first['collection'], []).append(first['available'])
  for collection, here in collections.items():
    out.print(f'{visible(collection)}: {sum(here):,} of {len(here):,} tasks are here')


def _print_mixtures(listed: Sequence[Mapping[str, Any]], out: Console) -> None:
  def members(mixture: Mapping[str, Any]) -> str:
    by_rate: dict[str, list[str]] = {}
    for name, rate in mixture['members'].items():
      by_rate.setdefault(_rate_text(rate), []).append(name)
    return '; '.join(f'{rate}: {some(names, _MOST_MEMBERS)}' for rate, names in by_rate.items())

  columns = [
    Column('mixture'),
    Column('tasks', right=True),
    Column('here', right=True),
    Column('forms', right=True),
    Column('rates and members'),
  ]
  rows = (
    (m['name'], f'{len(m["tasks"]):,}', f'{m["tasks_here"]:,}', f'{len(m["forms"]):,}', members(m))
    for m in listed
  )
  print_table(out, columns, rows)


def _print_models(listed: Sequence[Mapping[str, Any]], out: Console) -> None:
  columns = [Column('gin file'), Column('parameters', right=True), Column('about')]
  rows = (
    (m['name'], '' if m['parameters'] is None else f'{m["parameters"]:,}', m['about'])
    for m in listed
  )
  print_table(out, columns, rows)


def _print_recipes(listed: Sequence[Mapping[str, Any]], out: Console) -> None:
  print_table(out, [Column('gin file'), Column('about')], ((r['name'], r['about']) for r in listed))


_PRINTERS = {
  'tasks': _print_tasks,
  'mixtures': _print_mixtures,
  'models': _print_models,
  'recipes': _print_recipes,
}
