"""What holds of every task and mixture that the package ships."""

import itertools

import flan_jax.tasks
import pytest
from flan_jax.tasks.lint import lint_templates
from flan_jax.tasks.mixtures import export_mixture, mixture_names
from flan_jax.tasks.registry import get_task, info, task_names, text_examples

from flan_jax.data.mixture import Mixture

TASKS = task_names()


def test_both_collections_are_registered_by_importing_the_package():
  assert set(flan_jax.tasks.__all__) == {'cot', 'demo'} == {info(name).collection for name in TASKS}


@pytest.mark.parametrize('family', sorted({info(name).family for name in TASKS}))
def test_no_wording_has_a_fault(family, shared, monkeypatch):
  if info(family).collection == 'cot':
    monkeypatch.setenv('FLAN_JAX_COT_DIR', str(shared('data/cot/flan_v2')))
  if not info(family).available().available:
    pytest.skip(f'The data of {family} is not there.')
  row = next(get_task(family).rows('train' if 'train' in info(family).splits else 'validation'))
  for name in TASKS:
    if info(name).family == family:
      assert lint_templates(get_task(name).templates, row.fields) == [], name


def test_every_built_in_task_gives_examples_in_each_split_with_ids_of_their_own():
  for name in TASKS:
    if info(name).collection == 'demo':
      for split in info(name).splits:
        examples = list(itertools.islice(text_examples(name, split), 20))
        assert examples and len({e['id'] for e in examples}) == len(examples)
        assert all(e['inputs'].strip() and e['targets'].strip() for e in examples)
        assert all(e['template'].split('/')[0] for e in examples)


def test_every_mixture_can_be_exported_and_holds_registered_tasks():
  assert len(mixture_names()) >= 4
  for name in mixture_names():
    mixture = export_mixture(name)
    assert Mixture.from_json(mixture.to_json()) == mixture
    assert set(mixture.task_names()) <= set(TASKS)
