"""What holds of every task and mixture that the package ships."""

import itertools

import flan_jax.tasks
import pytest
from flan_jax.tasks.lint import lint_templates
from flan_jax.tasks.mixtures import export_mixture, mixture_names
from flan_jax.tasks.registry import get_task, info, task_names, text_examples

from flan_jax.data.mixture import Mixture

TASKS = task_names()
FOLDERS = {
  'FLAN_JAX_COT_DIR': 'data/cot/flan_v2',
  'FLAN_JAX_NIV2_DIR': 'data/niv2',
  'FLAN_JAX_FLAN2021_DIR': 'data/classical',
}


@pytest.fixture
def folders(shared, monkeypatch):
  for variable, folder in FOLDERS.items():
    monkeypatch.setenv(variable, str(shared(folder)))


def test_all_collections_are_registered_by_importing_the_package():
  assert set(flan_jax.tasks.__all__) == {'cot', 'demo', 'flan2022', 'flan2022_mixtures'}
  collections = {get_task(name).collection for name in TASKS}
  assert collections == {
    *('cot', 'demo', 'flan2021', 't0', 'niv2', 'dialog', 'program_synthesis'),
  }


def available(collection):
  """The tasks of a collection that can be read from what is here."""
  for name in TASKS:
    task = get_task(name)
    if task.collection == collection and info(name).available(task.splits[0]).available:
      yield task


@pytest.mark.parametrize('collection', ['cot', 'flan2021', 'niv2'])
def test_real_rows_make_examples_of_every_form(collection, folders):
  tasks = list(itertools.islice(available(collection), 90))
  assert len(tasks) > 20
  for task in tasks:
    split = task.splits[0]
    row = next(task.rows(split))
    if not task.option_styles and not task.dialog_styles:
      assert lint_templates(task.templates, row.fields) == [], task.name
    examples = list(itertools.islice(text_examples(task.name, split), 8))
    assert examples and len({e['id'] for e in examples}) == len(examples), task.name
    for example in examples:
      assert example['inputs'].strip() and example['targets'].strip(), task.name


def test_sources_are_named_alike_in_every_process():
  for task in map(get_task, TASKS):
    if task.collection != 'demo':  # a generator's version names its rows
      assert ' at 0x' not in repr(dict(task.sources)), task.name


def test_no_wording_of_the_demo_has_a_fault():
  for task in map(get_task, TASKS):
    if task.collection == 'demo':
      row = next(task.rows('train' if 'train' in task.splits else 'validation'))
      assert lint_templates(task.templates, row.fields) == [], task.name


def test_every_built_in_task_gives_examples_in_each_split_with_ids_of_their_own():
  for name in TASKS:
    if get_task(name).collection == 'demo':
      for split in info(name).splits:
        examples = list(itertools.islice(text_examples(name, split), 20))
        assert examples and len({e['id'] for e in examples}) == len(examples)
        assert all(e['inputs'].strip() and e['targets'].strip() for e in examples)
        assert all(e['template'].split('/')[0] for e in examples)


def test_every_mixture_can_be_exported_and_holds_registered_tasks():
  known = set(TASKS)
  assert len(mixture_names()) >= 4
  for name in mixture_names():
    mixture = export_mixture(name)
    assert Mixture.from_json(mixture.to_json()) == mixture
    assert set(mixture.task_names()) <= known
