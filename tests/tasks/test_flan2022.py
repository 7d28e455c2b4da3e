"""The Flan 2022 collection: its counts, its cells and how an example of each is written."""

import hashlib
import json
import re

import pytest
from flan_jax.tasks import cells, flan2022
from flan_jax.tasks.cells import CollectionSet, register_cells
from flan_jax.tasks.examples import TextExamples
from flan_jax.tasks.mixtures import export_mixture
from flan_jax.tasks.registry import get_task, infos, unregister
from flan_jax.tasks.sources import GeneratorSource
from flan_jax.tasks.wordings import load_wordings

COUNTS = {'muffin': 80, 't0': 193, 'niv2': 1554, 'cot': 9}


def families(mixture):
  return {get_task(name).family for name in export_mixture(mixture).task_names()}


@pytest.mark.parametrize(('collection', 'count'), COUNTS.items())
def test_a_sub_collection_has_as_many_tasks_as_the_paper_counts(collection, count):
  assert len(families(f'{collection}_submix')) == count


@pytest.mark.parametrize(
  ('mixture', 'count'),
  [('flan2022_9_tasks', 9), ('flan2022_89_tasks', 89), ('flan2022_282_tasks', 282)],
)
def test_the_ladder_climbs_to_1836_tasks(mixture, count):
  assert len(families(mixture)) == count
  assert families(mixture) < families('flan2022')
  assert len(families('flan2022')) == len(families('flan2022_a')) == 1836


def test_what_is_held_out_is_in_no_held_out_mixture():
  kept = families('flan2022_held_out')
  left_out = families('flan2022') - kept
  assert len(left_out) == 119
  assert all(info.held_out for info in infos() if info.family in left_out)
  for info in infos():
    assert not (info.family in kept and info.held_out), info.name
  assert families('flan2022_open') - families('flan2022_open_held_out') == left_out


def test_every_task_states_what_it_is():
  names = set(export_mixture('flan2022').task_names())
  for info in infos():
    if info.name in names:
      assert info.category and info.cluster and info.licence and info.source and info.splits


def rows(split):
  for i in range(40 if split == 'train' else 6):
    yield {'premise': f'{split} {i} sleeps.', 'hypothesis': f'{i} rests.', 'label': i % 3}


def fields(row):
  options = ['yes', 'maybe', 'no']
  return {
    'premise': row['premise'],
    'hypothesis': row['hypothesis'],
    'options': options,
    'answer': options[row['label']],
  }


@pytest.fixture
def inference():
  """Registers a set with all the wordings of ANLI's groups; returns the names of its tasks."""
  group = next(d for d in flan2022.FLAN2021 if d.name == 'rte')
  made = CollectionSet(
    name='sleeping',
    collection='flan2021',
    sources={s: GeneratorSource(rows).for_split(s) for s in ('train', 'validation')},
    wordings=load_wordings(f'flan2021/{group.templates_file}.json', group.templates),
    fields=fields,
    cluster='natural_language_inference',
    category='Natural Language Inference',
    licence='CC0-1.0',
    options=True,
  )
  names = register_cells(made, cells.ALL)
  yield names
  for name in names:
    unregister(name)


def of_cell(name, epoch=0):
  return list(TextExamples(get_task(name), 'train', (epoch,)))


def is_inverted(name, example):
  templates = {t.id: t for t in get_task(name).templates}
  return templates[example['template']].inverted


def test_targets_are_the_label_or_the_text_of_an_option_that_the_input_shows(inference):
  styles = set()
  for name in ('sleeping_zs_opt', 'sleeping_fs_opt', 'sleeping_fs_opt_mix'):
    for example in of_cell(name):
      if is_inverted(name, example):
        continue
      question = int(re.search(r'\d+', example['id'])[0]) - 1
      shown = example['options']
      assert example['targets'] == example['answer'] == shown[question % 3]
      styles.add(shown[0])
      position = -1
      for option in shown:  # all are shown, in their order, in the question that comes last
        position = example['inputs'].find(option, position + 1)
        assert position >= 0, (option, example['inputs'])
  assert len(styles) > 15 and 'yes' in styles


def test_cells_without_options_show_none(inference):
  for name in ('sleeping_zs_noopt', 'sleeping_fs_noopt'):
    for example in of_cell(name):
      if not is_inverted(name, example):
        assert example['targets'] in ('yes', 'maybe', 'no')
        assert not re.search(r'yes\W*\n\W*maybe\W*\n\W*no\b', example['inputs'])


def test_few_shot_prompts_show_other_rows_in_one_wording_or_in_several(inference):
  for name, most in (('sleeping_fs_opt', 3), ('sleeping_fs_opt_mix', 5), ('sleeping_fs_noopt', 3)):
    for example in of_cell(name):
      shown = re.findall(r'train (\d+) sleeps', example['inputs'] + example['targets'])
      assert example['shots'] == str(most)
      assert len(set(shown)) == len(shown) == most + 1
  mixed = of_cell('sleeping_fs_opt_mix')
  prefixes = {t.inputs_prefix for t in get_task('sleeping_fs_opt_mix').templates} - {''}
  assert max(sum(p in e['inputs'] for p in prefixes) for e in mixed) >= 3


def test_another_epoch_words_the_same_rows_anew(inference):
  for name in inference:
    first, again, second = of_cell(name), of_cell(name), of_cell(name, epoch=1)
    assert first == again
    assert [e['id'] for e in first] == [e['id'] for e in second]
    assert sum(a['inputs'] != b['inputs'] for a, b in zip(first, second, strict=True)) > 30


def test_examples_are_what_they_were(inference):
  """A change of these is a change of everyone's data: raise instruction.FORMAT with it."""
  digests = {}
  for name in inference:
    text = json.dumps([of_cell(name, epoch) for epoch in (0, 1)], sort_keys=True)
    digests[name] = hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
  assert digests == GOLDEN


GOLDEN = {
  'sleeping_zs_opt': '3916d05a4470',
  'sleeping_zs_noopt': '86065b660e1b',
  'sleeping_fs_opt': '4c22cc8dafce',
  'sleeping_fs_opt_mix': 'f5e7c19835f0',
  'sleeping_fs_noopt': '8d41fe7c55af',
}
