"""list: tasks, mixtures, models and recipes, for people and as JSON."""

import io
import json
import os
import subprocess
import sys

import pytest

from flan_jax.console import console
from flan_jax.data import catalogue
from flan_jax.listing import ListConfig, list_things

MODULE = """
from flan_jax.data.mixture import ExamplesProportional
from flan_jax.tasks.mixtures import instruction_mixture
from flan_jax.tasks.registry import instruction_task
from flan_jax.tasks.sources import TSV

TEMPLATES = [{'id': 'plain', 'inputs': '{question}', 'targets': '{answer}'}]
for name, file in (('here', 'here.tsv'), ('away', 'away.tsv')):
  instruction_task(
    f'listed_{name}',
    source=TSV(FOLDER + '/' + file, columns=('question', 'answer'), how_to_get='Ask Ann for it.'),
    templates=TEMPLATES,
    cluster='sums',
    collection='listed',
    licence='CC0-1.0',
    metrics=('exact_match', 'token_f1'),
  )
instruction_mixture(
  'listed_pair', ['listed_here', 'listed_away'], rule=ExamplesProportional(maximum=3000)
)
instruction_mixture('listed_nested', {'listed_pair': 0.25, 'listed_here': 0.75})
"""


@pytest.fixture
def listed(tmp_path, monkeypatch):
  """Lists with a module of two tasks, one of them without its data."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('FLAN_JAX_SEQIO', 'off')
  name = f'listed_{tmp_path.name}'
  (tmp_path / 'here.tsv').write_text('1 + 1?\t2\n', encoding='utf-8')
  text = MODULE.replace('FOLDER', repr(str(tmp_path)))
  (tmp_path / f'{name}.py').write_text(text, encoding='utf-8')
  for path, content in (
    ('models/tiny.gin', '# A model to try things with. Not for more.\n#\n# Second part.\nX = 1\n'),
    ('models/family.gin', '# What models share.\n'),
    ('recipes/first.gin', '# First recipe.\n# Hardware: none. Not yet run.\n'),
    ('runs/train.gin', 'X = 1\n'),
  ):
    (tmp_path / 'gin' / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / 'gin' / path).write_text(content, encoding='utf-8')

  def run(kind, *, parameter_count=None, **settings):
    text = io.StringIO()
    config = ListConfig(kind, tmp_path / 'gin', tasks_modules=(name,), **settings)
    things = list_things(config, parameter_count=parameter_count, out=console(text))
    return things, text.getvalue()

  yield run
  for mixture in catalogue.mixture_names():
    if mixture.startswith('listed_'):
      catalogue.mixtures().unregister_mixture(mixture)
  for task in catalogue.task_names():
    if task.startswith('listed_'):
      catalogue.registry().unregister(task)


def line_of(text, name):
  (line,) = (line for line in text.splitlines() if line.split()[:1] == [name])
  return line


def test_tasks_of_the_collection_tell_what_they_are_held_out_for(listed):
  tasks, text = listed('tasks')
  (task,) = [t for t in tasks if t['name'] == 'task1344_glue_entailment_classification_zs_opt']
  assert task['category'] == 'Textual Entailment' and task['held_out'] == ['niv2_test']
  assert ' niv2_test ' in line_of(text, task['family'])


def test_tasks_tell_whether_their_data_is_here_and_how_to_get_it(listed):
  tasks, text = listed('tasks')
  by_name = {task['name']: task for task in tasks}
  assert by_name['listed_here']['available'] and not by_name['listed_away']['available']
  assert by_name['listed_away']['how_to_get'] == 'Ask Ann for it.'
  assert line_of(text, 'listed_here').split() == [
    *('listed_here', '1', 'listed', 'sums', 'train', 'exact_match', 'token_f1', 'CC0-1.0', 'yes')
  ]
  assert line_of(text, 'listed_away').endswith('no')
  assert 'not here: listed_away: There is no file' in text and 'Ask Ann for it.' in text


def test_mixtures_tell_their_members_rates_and_tasks(listed):
  mixtures, text = listed('mixtures')
  by_name = {mixture['name']: mixture for mixture in mixtures}
  assert by_name['listed_nested']['tasks'] == ['listed_away', 'listed_here']
  assert by_name['listed_nested']['tasks_here'] == 1
  assert by_name['listed_pair']['members']['listed_here']['maximum'] == 3000
  assert 'by examples, at most 3,000: listed_here, listed_away' in line_of(text, 'listed_pair')
  assert 'rate 0.25: listed_pair; rate 0.75: listed_here' in line_of(text, 'listed_nested')


def test_models_tell_their_size_as_the_caller_computes_it(listed):
  models, text = listed('models', parameter_count=lambda path: len(path.name) * 1000)
  assert models == [
    {
      'name': 'models/tiny.gin',
      'about': 'A model to try things with.',
      'header': 'A model to try things with. Not for more.\n\nSecond part.',
      'parameters': 8000,
    }
  ]
  assert 'models/tiny.gin       8,000  A model to try things with.' in text
  assert 'None' not in listed('models')[1]


def test_recipes_are_those_of_recipes_and_runs(listed):
  recipes, text = listed('recipes')
  assert [(r['name'], r['about']) for r in recipes] == [
    ('recipes/first.gin', 'First recipe.'),
    ('runs/train.gin', ''),
  ]
  assert recipes[0]['header'] == 'First recipe.\nHardware: none. Not yet run.'


@pytest.mark.parametrize('kind', ['tasks', 'mixtures', 'models', 'recipes', 'all'])
def test_json_is_the_whole_list_and_nothing_else(listed, kind):
  things, text = listed(kind, as_json=True)
  assert json.loads(text) == things


def test_a_reader_who_has_seen_enough_is_no_error():
  read, write = os.pipe()
  os.close(read)
  command = [sys.executable, '-m', 'flan_jax.main', 'list', 'recipes', '--json']
  ended = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
  os.close(write)
  assert (ended.returncode, ended.stderr) == (1, '')


def test_all_counts_each_kind(listed):
  things, text = listed('all')
  assert set(things) == {'tasks', 'mixtures', 'models', 'recipes'}
  assert '1 models: flan-jax list models' in text


def test_an_unknown_kind_is_answered_with_the_nearest(tmp_path):
  with pytest.raises(ValueError, match="No list of 'taks'. Did you mean 'tasks'"):
    ListConfig('taks', tmp_path)
