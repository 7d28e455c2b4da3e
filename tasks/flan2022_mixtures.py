"""Mixtures of the Flan 2022 collection: cells, sub-collections, and what the papers trained on.

Within a cell a data set counts by its examples, up to a cap; cells and sub-collections have the
shares that they are given here or by RATES in gin, where every mixture below goes by its name.
Each full mixture ends in _held_out once more: without NIv2's official test tasks and without all
that is made from MMLU, BBH, TyDiQA or MGSM. Sources: arXiv:2210.11416, table 23; arXiv:2301.13688.
"""

from collections.abc import Mapping

from flan_jax.tasks import flan2022
from flan_jax.tasks.mixtures import instruction_mixture
from flan_jax.tasks.registry import get_task, task_names

from flan_jax.data.mixture import ExamplesProportional

# A task's weight in its cell is its number of examples, at most this.
CAPS = {
  'muffin': 30_000,
  'flan2021': 30_000,
  't0': 20_000,
  'cot': 100_000,
  'niv2': 5_000,
  'dialog': 200_000,
}
# Shares of the paper's sub-collections, in percent: A for its studies of the number of tasks and
# of rationales, B for the released models.
PROPORTIONS = {
  'a': {'muffin': 52.0, 't0': 15.0, 'cot': 3.0, 'niv2': 30.0},
  'b': {'muffin': 46.0, 't0': 27.9, 'cot': 1.8, 'niv2': 24.2},
}
OPEN_PROPORTIONS = {'flan2021': 40.0, 't0': 32.0, 'niv2': 20.0, 'cot': 5.0, 'dialog': 3.0}
INVERTED = 0.3  # beside 1.0 for the same data set asked the usual way

_COLLECTIONS = {
  'muffin': ('flan2021', 'dialog', 'program_synthesis'),
  **{name: (name,) for name in ('flan2021', 't0', 'cot', 'niv2', 'dialog')},
}
# Data sets without options make no cells without options where the whole collection has none.
_WITHOUT_OPTIONS = ('flan2021', 't0')
_CELLS = {
  'zs_opt': ('zs_opt',),
  'fs_opt': ('fs_opt', 'fs_opt_mix', 'fs_opt_positive'),
  'zs_noopt': ('zs_noopt',),
  'fs_noopt': ('fs_noopt',),
}
# Flan 2021 keeps these clusters out together, as one gives the other away (arXiv:2109.01652, 2.3).
TOGETHER = (
  {'reading_comprehension', 'common_sense', 'read_comp_and_common_sense'},
  {'paraphrase', 'natural_language_inference'},
)
V1_MAXIMUM = 3_000
NOT_IN_V1 = ('lambada', 'unified_qa_science_inst')


def _leaves(
  collection: str, cell: str, *, held_out: bool, inverted: bool = False
) -> dict[str, float | ExamplesProportional]:
  """Returns the tasks of a sub-collection in one cell with their rates.

  What has no train split is listed at rate 0: it is evaluated, never drawn.
  """
  rule = ExamplesProportional(maximum=CAPS[collection])
  found = {}
  for name in task_names():
    task = get_task(name)
    of_cell = task.form.removeprefix('cot_') in _CELLS[cell]
    if task.collection in _COLLECTIONS[collection] and of_cell:
      if ('_inverted_' in name) == inverted and not (held_out and task.held_out):
        found[name] = rule if 'train' in task.splits else 0.0
  return found


def _submix(collection: str, *, held_out: bool = False) -> str:
  """Registers NAME_submix with halves NAME_zs and NAME_fs, and each with its cells."""
  suffix = '_held_out' if held_out else ''
  half_and_half = {}
  for shots in ('zs', 'fs'):
    cells = {}
    for options in ('opt', 'noopt'):
      if options == 'opt' or set(_COLLECTIONS[collection]) & set(_WITHOUT_OPTIONS):
        cells[_cell(collection, f'{shots}_{options}', held_out, suffix)] = 0.5
    half_and_half[_mixture(f'{collection}_{shots}{suffix}', cells)] = 0.5
  return _mixture(f'{collection}_submix{suffix}', half_and_half)


def _cell(collection: str, cell: str, held_out: bool, suffix: str) -> str:
  """Registers one cell; where data sets have an inversion, as a mixture of both directions."""
  name = f'{collection}_{cell}{suffix}'
  leaves = _leaves(collection, cell, held_out=held_out)
  if collection not in ('cot', 'dialog'):
    return _mixture(name, leaves)
  turned = _leaves(collection, cell, held_out=held_out, inverted=True)
  main = _mixture(f'{collection}_main_{cell}{suffix}', leaves)
  inverted = _mixture(f'{collection}_inverted_{cell}{suffix}', turned)
  return _mixture(name, {main: 1.0, inverted: INVERTED})


def _mixture(name: str, rates: Mapping[str, float | ExamplesProportional]) -> str:
  instruction_mixture(name, rates)
  return name


def _full(submixes: Mapping[str, str], suffix: str = '') -> None:
  """Registers flan2022 (proportion B), flan2022_a, flan2022_open and the ladder of tasks."""

  def of(shares: Mapping[str, float]) -> dict[str, float]:
    return {submixes[name]: share for name, share in shares.items()}

  _mixture(f'flan2022{suffix}', of(PROPORTIONS['b']))
  _mixture(f'flan2022_a{suffix}', of(PROPORTIONS['a']))
  _mixture(f'flan2022_open{suffix}', of(OPEN_PROPORTIONS))


def _ladder(submixes: Mapping[str, str]) -> None:
  """Registers the paper's steps to 1,836 tasks; none of the first 282 is held out."""
  shares = PROPORTIONS['a']
  for tasks, added in ((9, ('cot',)), (89, ('cot', 'muffin')), (282, ('cot', 'muffin', 't0'))):
    _mixture(f'flan2022_{tasks}_tasks', {submixes[name]: shares[name] for name in added})


def _flan2021_v1() -> None:
  """Registers Flan 2021 as first published, whole and without each of its clusters."""
  rule = ExamplesProportional(maximum=V1_MAXIMUM)
  sets = [d for d in flan2022.FLAN2021 if d.name not in NOT_IN_V1 and d.train]
  _mixture('flan2021_v1', {f'{d.name}_zs_opt': rule for d in sets})
  for cluster in sorted({d.cluster for d in sets}):
    out = {cluster}.union(*(group for group in TOGETHER if cluster in group))
    kept = [f'{d.name}_zs_opt' for d in sets if d.cluster not in out]
    _mixture(f'flan2021_v1_without_{cluster}', dict.fromkeys(kept, rule))


def _register() -> None:
  submixes = {collection: _submix(collection) for collection in CAPS}
  _full(submixes)
  _ladder(submixes)
  held_out = {get_task(name).collection for name in task_names() if get_task(name).held_out}
  of_rest = {
    name: _submix(name, held_out=True) if held_out & set(_COLLECTIONS[name]) else submix
    for name, submix in submixes.items()
  }
  _full(of_rest, '_held_out')
  _flan2021_v1()


_register()
