"""A warning when a checkpoint is tested on what it was trained on."""

import json

import pytest

from flan_jax.data import cache, vocabularies
from flan_jax.data.mixture import Mixture, save_mixture
from flan_jax.evaluation.seen import seen_in_training

TASKS = {
  'rte_zs_opt': {'family': 'rte'},
  'task242_zs_opt': {'family': 'task242', 'held_out': ['niv2_test']},
  'task001_zs_opt': {'family': 'task001', 'held_out': []},
}


@pytest.fixture
def cache_dir(tmp_path):
  cache_dir = tmp_path / 'cache'
  cache.initialize_cache(cache_dir, vocabularies.get_vocabulary('bytes'))
  for task, info in TASKS.items():
    for split in ('train', 'validation'):
      with cache.TaskCacheWriter(cache_dir, task, split) as writer:
        writer.add([5, 1], [6, 1], {'id': '1'})
        writer.finish(info)
  save_mixture(cache_dir, Mixture.of('all', dict.fromkeys(TASKS, 1.0)))
  return cache_dir


def trained_on(workdir, *families):
  workdir.mkdir()
  rows = [{'task': f'{family}_fs_opt', 'family': family} for family in families]
  (workdir / 'mixture.json').write_text(json.dumps({'tasks': rows}))
  return workdir


def test_what_was_trained_on_in_any_form_is_named(cache_dir, tmp_path):
  run = trained_on(tmp_path / 'run', 'rte', 'task242')
  assert seen_in_training(run, cache_dir, ('all',), 'train') == ('rte_zs_opt', 'task242_zs_opt')


def test_held_back_rows_of_a_trained_task_are_fair_but_not_of_one_to_be_held_out(
  cache_dir, tmp_path
):
  run = trained_on(tmp_path / 'run', 'rte', 'task242', 'task001')
  assert seen_in_training(run, cache_dir, ('all',), 'validation') == ('task242_zs_opt',)


def test_nothing_is_said_of_other_data_or_of_weights_without_a_run(cache_dir, tmp_path):
  assert seen_in_training(trained_on(tmp_path / 'run', 'mnli'), cache_dir, ('all',), 'train') == ()
  assert seen_in_training(tmp_path / 'none', cache_dir, ('all',), 'train') == ()
