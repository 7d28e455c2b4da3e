"""The mixtures of the Flan 2022 collection: published probabilities, SeqIO's rates, real draws."""

import hashlib

import numpy as np
import pytest
from flan_jax.tasks.flan2022 import stated_examples
from flan_jax.tasks.flan2022_mixtures import CAPS
from flan_jax.tasks.mixtures import export_mixture, mixture_names
from flan_jax.tasks.registry import get_task

from flan_jax.data.order import DrawOrder

FULL = ('flan2022', 'flan2022_a', 'flan2022_open', 'flan2022_held_out', 'flan2022_open_held_out')


def sizes(names):
  """A made-up number of examples of each task, some above its cap and some below."""
  return {
    name: int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest()) % 60_000 + 1
    for name in names
  }


def probabilities(mixture, num_examples=None):
  """Probability of each task, by the rules that prepare writes into a cache."""
  found = export_mixture(mixture)
  rates = found.task_rates(num_examples or sizes(found.task_names()))
  total = sum(rates.values())
  return {name: rate / total for name, rate in rates.items()}


def published(name):
  """The sizes that the open collection's authors froze: one number for all cells of a data set."""
  task = get_task(name)
  return stated_examples().get(task.family.removesuffix('_cot'), 0)


@pytest.mark.parametrize(
  ('cell', 'task', 'of_mixture', 'probability'),
  [
    # W_top x 1/4 x min(cap, N) / sum of the cell; x 1/2 x 1/1.3 for CoT: 40 x (1/4), 5 x (1/2).
    ('flan2021_zs_opt', 'bool_q_zs_opt', 0.40 * 0.25, 6.2e-4),
    ('flan2021_zs_opt', 'wmt14_enfr_zs_opt', 0.40 * 0.25, 2.0e-3),
    ('flan2021_zs_opt', 'cb_zs_opt', 0.40 * 0.25, 1.3e-5),
    ('cot_zs_opt', 'gsm8k_cot_zs_opt', 0.05 * 0.5, 1.9e-3),
  ],
)
def test_published_sizes_give_the_leaf_probabilities_of_the_open_collection(
  cell, task, of_mixture, probability
):
  num_examples = {name: published(name) for name in export_mixture(cell).task_names()}
  assert probabilities(cell, num_examples)[task] * of_mixture == pytest.approx(
    probability, rel=0.05
  )


@pytest.mark.parametrize('name', FULL)
def test_sub_collections_have_the_shares_they_are_given(name):
  found = probabilities(name)
  assert sum(found.values()) == pytest.approx(1)
  shares = {}
  for task, probability in found.items():
    collection = get_task(task).collection
    shares[collection] = shares.get(collection, 0) + probability
  muffin = sum(shares.get(c, 0) for c in ('flan2021', 'dialog', 'program_synthesis'))
  expected = {'a': (52, 15, 3, 30), 'open': (43, 32, 5, 20)}.get(
    name.removeprefix('flan2022').strip('_').split('_')[0], (46, 27.9, 1.8, 24.2)
  )
  got = np.array([muffin, shares['t0'], shares['cot'], shares['niv2']])
  np.testing.assert_allclose(got, np.array(expected) / sum(expected), rtol=1e-9)


@pytest.mark.parametrize('name', FULL)
def test_half_is_zero_shot_and_half_of_what_has_both_shows_options(name):
  found = probabilities(name)
  forms = {task: get_task(task).form.removeprefix('cot_') for task in found}
  zero_shot = sum(p for task, p in found.items() if forms[task].startswith('zs'))
  assert zero_shot == pytest.approx(0.5)
  for collection in ('flan2021', 't0'):
    of = {t: p for t, p in found.items() if get_task(t).collection == collection}
    if name.startswith('flan2022_open') or collection == 't0':
      without = sum(p for task, p in of.items() if 'noopt' in forms[task])
      assert without == pytest.approx(sum(of.values()) / 2)


def test_no_task_counts_for_more_than_its_cap():
  for collection, cap in CAPS.items():
    for cell in ('zs_opt', 'fs_opt'):
      name = f'{collection}_{cell}'
      if collection in ('cot', 'dialog'):
        name = f'{collection}_main_{cell}'
      found = export_mixture(name)
      num_examples = sizes(found.task_names())
      rates = found.task_rates(num_examples)
      for task, rate in rates.items():
        assert rate == (min(num_examples[task], cap) if 'train' in get_task(task).splits else 0)


def test_inverted_twins_are_drawn_three_times_for_ten_of_the_others():
  found = probabilities('cot_submix')
  inverted = sum(p for task, p in found.items() if '_inverted_' in task)
  assert inverted == pytest.approx(0.3 / 1.3)


QUICK = ('flan2022', 'flan2022_open', 'flan2021_v1')


@pytest.mark.parametrize(
  'name', [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in mixture_names()]
)
def test_100_000_draws_fit_the_rates(name):
  num_examples = sizes(export_mixture(name).task_names())
  found = {t: p for t, p in probabilities(name, num_examples).items() if p > 0}
  tasks, rates = list(found), np.array(list(found.values()))
  order = DrawOrder(tasks, rates, [num_examples[t] for t in tasks], seed=7, draws_per_window=10_000)
  drawn = np.concatenate([order.main(window).tasks for window in range(10)])
  counts = np.bincount(drawn, minlength=len(tasks))
  expected = rates * len(drawn)
  statistic = np.sum((counts - expected) ** 2 / expected)
  # Mean and variance of chi-squared: n - 1 and 2 (n - 1). Ours are closer than independent draws.
  assert statistic < len(tasks) - 1 + 3 * np.sqrt(2 * (len(tasks) - 1))
  assert len(drawn) == pytest.approx(100_000, rel=0.001)
  assert abs(counts - expected).max() <= 1.1


@pytest.mark.seqio
@pytest.mark.parametrize('part', range(4))
def test_seqio_computes_the_same_rates(part, monkeypatch):
  import seqio
  from flan_jax.tasks.preprocessors import InstructionDataSource

  every = sizes({task for name in mixture_names() for task in export_mixture(name).task_names()})
  monkeypatch.setattr(
    InstructionDataSource, 'num_input_examples', lambda self, split: every[self._task.name]
  )
  for name in mixture_names()[part::4]:
    ours = export_mixture(name)
    rates = ours.task_rates(every)
    theirs = seqio.MixtureRegistry.get(name)
    assert {task.name for task in theirs.tasks} == set(ours.task_names())
    names = sorted(rates)
    for task in names[:: max(1, len(names) // 4)]:
      expected = theirs.get_rate(seqio.TaskRegistry.get(task))
      assert rates[task] == pytest.approx(expected, rel=1e-9), (name, task)
