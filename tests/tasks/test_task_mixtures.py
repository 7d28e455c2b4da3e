import functools

import pytest
from flan_jax.tasks.mixtures import (
  MixtureExportError,
  export_mixture,
  instruction_mixture,
  mixture_names,
)
from flan_jax.tasks.registry import text_examples
from flan_jax.tasks.sources import GeneratorSource

from flan_jax.data.mixture import ExamplesProportional, Mixture, MixtureError

COT = ['sums_cot', 'more_cot']


@pytest.fixture
def two_tasks(sums):
  """Registers sums (40 rows of train) and more (10)."""
  rows = [{'a': i, 'b': 2, 'answer': str(i + 2), 'rationale': 'r'} for i in range(10)]
  sums()
  sums(name='more', source=GeneratorSource(lambda split: rows, splits=('train',)))


def sizes():
  names = ('sums', 'more', 'sums_cot', 'more_cot')
  return {name: len(list(text_examples(name, 'train'))) for name in names}


def test_a_mixture_is_exported_with_its_rules_and_nested_mixtures(two_tasks):
  instruction_mixture('cots', COT, rule=ExamplesProportional(maximum=20))
  instruction_mixture('all', {'cots': 0.25, 'sums': 'uniform', 'more': 3.0})
  exported = export_mixture('all')
  assert Mixture.from_json(exported.to_json()) == exported
  assert exported.task_rates(sizes()) == {
    'sums_cot': 0.25 * 20 / 30,
    'more_cot': 0.25 * 10 / 30,
    'sums': 1.0,
    'more': 3.0,
  }
  assert mixture_names()[-2:] == ('cots', 'all')


def test_members_without_a_rate_are_mixed_in_proportion_to_their_size(two_tasks):
  instruction_mixture('plain', ['sums', 'more'])
  assert export_mixture('plain').task_rates(sizes()) == {'sums': 40.0, 'more': 10.0}
  instruction_mixture('even', ['sums', 'more'], rule='uniform')
  assert export_mixture('even').task_rates(sizes()) == {'sums': 1.0, 'more': 1.0}


def test_a_task_is_exported_as_a_mixture_of_one(two_tasks):
  assert export_mixture('sums').task_rates(sizes()) == {'sums': 1.0}


def test_wrong_mixtures_are_refused(two_tasks):
  instruction_mixture('m', ['sums'])
  for name, kind in (('m', 'mixture'), ('sums', 'task')):
    with pytest.raises(ValueError, match=f"'{name}' is already registered as a {kind}"):
      instruction_mixture(name, ['sums'])
  with pytest.raises(
    ValueError, match="a member 'sumz' that is not registered. Did you mean 'sums'"
  ):
    instruction_mixture('n', ['sumz'])
  with pytest.raises(ValueError, match="is 'unifrom'. Did you mean 'uniform'"):
    instruction_mixture('n', {'sums': 'unifrom'})
  with pytest.raises(ValueError, match="The members of 'n' are the text 'sums'"):
    instruction_mixture('n', 'sums')
  with pytest.raises(ValueError, match='is 3; members are names'):
    instruction_mixture('n', [3])
  with pytest.raises(MixtureError, match='has no members'):
    instruction_mixture('n', [])
  with pytest.raises(MixtureError, match="The rate of 'sums' in mixture 'n' is -1"):
    instruction_mixture('n', {'sums': -1})
  with pytest.raises(MixtureError, match="The rate of mixture 'm' inside 'n' must be a number"):
    instruction_mixture('n', ['m'])
  assert 'n' not in mixture_names()


def test_an_unknown_mixture_names_the_nearest(two_tasks):
  with pytest.raises(ValueError, match="No mixture or task 'cto'. Did you mean 'cot'"):
    export_mixture('cto')


@pytest.mark.seqio
def test_seqio_mixes_at_the_rates_that_are_exported(two_tasks):
  import seqio

  instruction_mixture(
    'cots', COT, rule=ExamplesProportional(maximum=20, temperature=2.0, scale=1.5)
  )
  instruction_mixture('all', {'cots': 0.25, 'sums': ExamplesProportional(), 'sums_cot': 0.5})
  rates = export_mixture('all').task_rates(sizes())
  theirs = seqio.MixtureRegistry.get('all')
  assert {task.name: theirs.get_rate(task) for task in theirs.tasks} == rates


@pytest.mark.seqio
def test_mixtures_that_others_registered_with_seqio_are_exported(two_tasks):
  import seqio

  rate = functools.partial(seqio.mixing_rate_num_examples, maximum=20)
  try:
    seqio.MixtureRegistry.add(
      'theirs', [('sums_cot', functools.partial(rate, temperature=2.0)), ('more_cot', 2)]
    )
    seqio.MixtureRegistry.add('outer', [('theirs', 0.3), ('sums', seqio.mixing_rate_num_examples)])
    outer = seqio.MixtureRegistry.get('outer')
    exported = export_mixture('outer').task_rates(sizes())
    assert exported == {task.name: outer.get_rate(task) for task in outer.tasks}
    instruction_mixture('around', {'theirs': 1.0, 'more': 1.0})
    assert export_mixture('around').task_names() == ('more', 'more_cot', 'sums_cot')
    for wrong in (lambda task: 1.0, functools.partial(rate, split='validation')):
      seqio.MixtureRegistry.add('function', [('sums', wrong)])
      with pytest.raises(
        MixtureExportError, match="'sums' in the SeqIO mixture 'function' is the func"
      ):
        export_mixture('function')
      seqio.MixtureRegistry.remove('function')
  finally:
    for name in ('theirs', 'outer', 'function'):
      seqio.MixtureRegistry.remove(name)
