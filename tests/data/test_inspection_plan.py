"""inspect without a cache: the rates of a registered mixture by stated sizes."""

import io

import pytest
from flan_jax.tasks import mixtures, registry
from flan_jax.tasks.cells import ZERO_SHOT, CollectionSet, register_cells
from flan_jax.tasks.sources import JSONL
from flan_jax.tasks.wordings import Wording, Wordings

from flan_jax.console import console
from flan_jax.data.inspection_plan import inspect_plan
from flan_jax.data.licences import LicenceError
from flan_jax.data.mixture import ExamplesProportional, MixtureError

SETS = {'big': (9000, 'MIT'), 'small': (100, 'CC-BY-4.0'), 'unknown': (None, 'CC-BY-4.0')}


@pytest.fixture
def planned(monkeypatch):
  """Registers three sets that are nowhere, capped at 300, at 3 to 1 beside one alone."""
  monkeypatch.setenv('FLAN_JAX_SEQIO', 'off')
  names = []
  for name, (size, licence) in SETS.items():
    made = CollectionSet(
      name=name,
      collection='planned',
      sources={'train': JSONL('nowhere.jsonl')},
      wordings=Wordings(zero_shot=(Wording('a', '{q}', '{answer}'),)),
      fields=dict,
      cluster='c',
      category='c',
      licence=licence,
      stated_examples=size,
    )
    names += register_cells(made, [ZERO_SHOT])
  cap = ExamplesProportional(maximum=300)
  mixtures.instruction_mixture('planned_part', names, rule=cap)
  mixtures.instruction_mixture('planned', {'planned_part': 3.0, 'small_zs_opt': 1.0})
  yield
  for name in ('planned', 'planned_part'):
    mixtures.unregister_mixture(name)
  for name in names:
    registry.unregister(name)


def look(*args, **kwargs):
  out = io.StringIO()
  tasks = inspect_plan(*args, out=console(out), **kwargs)
  return {task.name: task.rate for task in tasks}, out.getvalue()


def test_rates_are_those_of_the_stated_sizes_and_unknown_ones_count_at_the_cap(planned):
  rates, text = look('planned')
  # 300, 100 and 300 of 700 share three quarters.
  assert rates == pytest.approx(
    {
      'big_zs_opt': 0.75 * 3 / 7,
      'unknown_zs_opt': 0.75 * 3 / 7,
      'small_zs_opt': 0.75 / 7 + 0.25,
    }
  )
  assert 'planned: 3 tasks in 3 forms' in text and 'at the cap' in text
  assert '1 tasks state no size' in text


def test_another_licence_counts_as_if_not_listed(planned):
  rates, text = look('planned', licence='^cc')
  assert rates == pytest.approx({'small_zs_opt': 0.75 / 4 + 0.25, 'unknown_zs_opt': 0.75 * 3 / 4})
  assert '1 forms are left out for their licence' in text
  with pytest.raises(LicenceError, match='keeps none of the 3 tasks'):
    look('planned', licence='gpl')


def test_some_tasks_keep_their_share_of_the_whole(planned):
  rates, text = look('planned', tasks=('big*',))
  assert rates == pytest.approx({'big_zs_opt': 0.75 * 3 / 7})
  assert '2 forms were not asked for' in text
  with pytest.raises(MixtureError, match="Did you mean 'big'"):
    look('planned', tasks=('bigg',))


def test_an_unknown_mixture_is_refused_with_the_nearest(planned):
  with pytest.raises(MixtureError, match="No mixture or task 'planed'.* Did you mean 'planned'"):
    look('planed')
