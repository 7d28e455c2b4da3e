import csv
import json
import os
import subprocess
import sys

import pytest
from flan_jax.tasks import niv2, niv2_table
from flan_jax.tasks.collection import HELD_OUT, UNKNOWN_LICENCE, derived_from, table
from flan_jax.tasks.folders import FolderError
from flan_jax.tasks.niv2 import NIV2_DIR, NIV2_TASKS, NaturalInstructions
from flan_jax.tasks.readers import DataError
from flan_jax.tasks.rows import LeftOut

BY_NAME = {task.name: task for task in NIV2_TASKS}
POSITIVE = {'input': 'two', 'output': '2', 'explanation': 'Two is 2.'}


def task_file(**changes):
  """Returns a small task file as the clone has them."""
  return {
    'Contributors': ['Ann'],
    'Source': ['ours'],
    'Categories': ['Misc.'],
    'Definition': ['Write the number in digits.'],
    'Input_language': ['English'],
    'Output_language': ['English'],
    'Instruction_language': ['English'],
    'Domains': ['Mathematics'],
    'Positive Examples': [POSITIVE, {'input': 'ten', 'output': '10', 'explanation': ''}],
    'Negative Examples': [],
    'Instances': [
      {'id': 't-1', 'input': ' one\n', 'output': ['1', ' 01']},
      {'id': 't-2', 'input': 'two', 'output': ['2']},
    ],
    'Instance License': ['MIT'],
    **changes,
  }


@pytest.fixture
def written(tmp_path):
  """Returns a function that writes a task file and gives its source."""

  def write(**changes):
    path = tmp_path / 'task001_digits.json'
    path.write_text(json.dumps(task_file(**changes)))
    return NaturalInstructions(path)

  return write


def fails(source, *parts):
  with pytest.raises(DataError) as e:
    list(source.rows())
  for part in parts:
    assert part in str(e.value), str(e.value)


def test_ours_are_1554_tasks_of_one_name_and_one_file_each():
  assert len(NIV2_TASKS) == len(BY_NAME) == len({task.file for task in NIV2_TASKS}) == 1554
  assert len({task.category for task in NIV2_TASKS}) > 100
  assert all(task.dataset and task.category and task.languages for task in NIV2_TASKS)
  assert all(set(task.held_out) <= set(HELD_OUT) for task in NIV2_TASKS)
  assert not any('-' in task.name for task in NIV2_TASKS)
  assert BY_NAME['task535_alt_translation_ch_en'].languages == ('Chinese', 'English')


def test_ours_are_the_public_list_without_the_two_that_are_left_out(shared):
  with open(shared('data/flan_v2/flan_collection_info.csv')) as file:
    listed = {r['Specific Task Category']: r for r in csv.DictReader(file) if r['Source'] == 'NIv2'}
  ours = {niv2_table.public_name(task.file): task for task in NIV2_TASKS}
  assert len(listed) == 1556
  assert set(listed) - set(ours) == set(niv2_table.LEFT_OUT) and set(ours) < set(listed)
  assert all(listed[name]['Generic Task Category'] == task.category for name, task in ours.items())


def test_the_119_official_test_tasks_and_only_they_are_held_out(shared):
  official = set(shared('data/niv2/splits/default/test_tasks.txt').read_text().split())
  assert {task.file for task in NIV2_TASKS if 'niv2_test' in task.held_out} == official
  assert len(official) == 119
  assert not any(derived_from(task.name) for task in NIV2_TASKS)


@pytest.mark.parametrize(
  'name, suites',
  [
    ('task696_mmmlu_answer_generation_elementary_mathematics', ('mmlu',)),
    ('task062_bigbench_repeat_copy_logic', ('bbh',)),
    ('my_BBH_navigate', ('bbh',)),
    ('tydiqa_goldp', ('tydiqa',)),
    ('mgsm_en', ('mgsm',)),
    ('gsm8k_test', ('mgsm',)),
    ('gsm8k', ()),
    ('task1146_country_capital', ()),
  ],
)
def test_a_name_tells_the_suite_that_a_task_was_made_from(name, suites):
  assert derived_from(name) == suites


def test_the_table_is_made_anew_from_the_public_list_and_a_clone(shared, tmp_path, capsys):
  info, clone = shared('data/flan_v2/flan_collection_info.csv'), shared('data/niv2')
  made = tmp_path / 'niv2.tsv'
  niv2_table.main(['--info', str(info), '--niv2_dir', str(clone), '--output', str(made)])
  assert '1,554 tasks, 21 licences' in capsys.readouterr().out
  rows = list(csv.DictReader(made.open(), delimiter='\t', quoting=csv.QUOTE_NONE))
  assert rows == table('niv2.tsv', niv2.COLUMNS)


def test_the_licence_is_what_the_file_of_a_clone_states(shared):
  for path in sorted(shared('data/niv2/tasks').glob('*.json')):
    for task in NIV2_TASKS:
      if task.file == path.stem:
        assert task.licence == (niv2_table.stated_licence(path) or UNKNOWN_LICENCE)
  assert BY_NAME['task1393_superglue_copa_text_completion'].licence == 'BSD 2-Clause'
  assert BY_NAME['task1289_trec_classification'].licence == UNKNOWN_LICENCE


def test_the_tables_are_read_quickly_and_importing_them_opens_no_data():
  code = (
    'import sys, time, flan_jax.tasks.niv2 as n, flan_jax.tasks.p3 as p;'
    'assert "pyarrow" not in sys.modules and "tensorflow" not in sys.modules;'
    'start = time.process_time();'
    'assert len(n._tasks()) + len(p._tasks()) == 1747;'
    'print(time.process_time() - start)'
  )
  environment = {**os.environ, 'FLAN_JAX_SEQIO': 'off'}
  done = subprocess.run(
    [sys.executable, '-c', code], env=environment, capture_output=True, text=True, check=True
  )
  assert float(done.stdout) < 0.2


def test_rows_have_the_definition_and_the_examples_and_fields_fill_the_wordings(written):
  first, second = written().rows()
  assert (first.id, first.place[-10:]) == ('t-1', 'instance 1')
  made = niv2.fields(first.fields)
  assert made == {
    'definition': 'Write the number in digits.',
    'input': 'one',
    'answer': '1',
    'references': ['1', '01'],
    'positives': [POSITIVE, {'input': 'ten', 'output': '10', 'explanation': ''}],
    'positive_input': 'two',
    'positive_output': '2',
    'positive_explanation': 'Two is 2.',
  }
  # The second instance is the first example: shown, it would tell the answer.
  assert niv2.fields(second.fields)['positive_input'] == 'ten'
  assert [p['input'] for p in niv2.fields(second.fields)['positives']] == ['ten']


def test_a_task_without_a_usable_example_has_instances_but_nothing_to_show(written):
  useless = [{'input': 'x'}, {'output': 'y'}, 'z', {'input': '', 'output': 'y'}]
  for positives in (useless, [], None, 'none'):
    row = next(written(**{'Positive Examples': positives}).rows())
    assert niv2.fields(row.fields)['positives'] == []
    assert niv2.fields(row.fields)['positive_output'] == ''
    assert niv2.fields_with_positive(row.fields) == LeftOut('without positive example')
  row = next(written().rows())
  assert niv2.fields_with_positive(row.fields) == niv2.fields(row.fields)


def test_an_instance_that_cannot_be_used_is_left_out_and_says_why(written):
  instances = [
    {'input': 'a', 'output': []},
    {'input': 'a', 'output': ['', '  ']},
    {'input': 'a'},
    {'input': '', 'output': ['b']},
    {'output': ['b']},
    {'input': 'a', 'output': 'b'},
    {'input': 3, 'output': [4]},
  ]
  rows = [row.fields for row in written(Instances=instances).rows()]
  made = list(map(niv2.fields, rows))
  left_out = [fields.reason for fields in made if isinstance(fields, LeftOut)]
  assert left_out == ['without output'] * 3 + ['without input'] * 2
  assert list(map(niv2.fields_with_positive, rows)) == made
  used = [fields for fields in made if not isinstance(fields, LeftOut)]
  assert [(fields['input'], fields['answer']) for fields in used] == [('a', 'b'), ('3', '4')]


def test_instances_without_ids_are_named_by_their_number(written):
  rows = written(Instances=[{'input': c, 'output': [c]} for c in 'abc']).rows()
  assert [row.id for row in rows] == ['1', '2', '3']


def test_an_old_file_with_one_text_as_definition_is_read(written):
  row = next(written(Definition='Count.').rows())
  assert row.fields['definition'] == 'Count.'


@pytest.mark.parametrize(
  'changes, parts',
  [
    ({'Instances': []}, ['Instances is []; it must be a list of at least one']),
    ({'Instances': {}}, ['Instances is {}']),
    ({'Instances': ['x']}, ['instance 1 is a str; it must be an object']),
    ({'Definition': []}, ['Definition is []; it must tell what is to be done']),
    ({'Definition': ['  ']}, ["Definition is ['  ']"]),
    ({'Definition': ['x' * 2_000_000]}, ['Definition has 2,000,000 characters; at most 1,000,000']),
    (
      {'Instances': [{'id': 'a', 'input': c, 'output': [c]} for c in 'xy']},
      ["instance 2 has the id 'a' of instance 1; ids must be unique"],
    ),
  ],
)
def test_a_file_that_is_no_task_is_named(written, changes, parts):
  source = written(**changes)
  fails(source, str(source.path), *parts)


@pytest.mark.parametrize(
  'content, error',
  [
    (b'{"Definition": [', 'line 1 column 17 is not JSON'),
    (b'', 'line 1 column 1 is not JSON'),
    (b'[]', 'is a JSON list; a task file is an object'),
    (b'{"Definition": ["a"], "instances": []}', "has no Instances. Did you mean 'instances'?"),
    (b'{"Definition": ["\xff"]}', 'is not UTF-8 at byte 18'),
    (b'[' * 100_000, 'cannot be read as JSON'),
  ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, content, error):
  path = tmp_path / 'task001_x.json'
  path.write_bytes(content)
  fails(NaturalInstructions(path), str(path), error)


def test_the_folder_may_be_the_clone_or_its_tasks_and_a_missing_one_tells_how(
  tmp_path, monkeypatch
):
  task = BY_NAME['task105_story_cloze_rocstories_sentence_generation']
  source = niv2.source(task)
  monkeypatch.delenv('FLAN_JAX_NIV2_DIR', raising=False)
  with pytest.raises(FolderError, match='FLAN_JAX_NIV2_DIR'):
    list(source.rows())
  assert 'git clone' in source.available().how_to_get
  monkeypatch.setenv('FLAN_JAX_NIV2_DIR', str(tmp_path))
  missing = tmp_path / 'tasks/task105_story_cloze-rocstories_sentence_generation.json'
  assert source.available().why == f'There is no file {missing}.'
  fails(source, f'Cannot read {missing}: No such file')
  missing.parent.mkdir()
  missing.write_text(json.dumps(task_file()))
  for folder in (tmp_path, missing.parent):
    monkeypatch.setenv('FLAN_JAX_NIV2_DIR', str(folder))
    assert source.available().available and len(list(source.rows())) == 2
  assert source.licence == 'CC BY-SA 4.0' and source.fingerprint().startswith('sha256:')
  assert source.where() == f'NIV2_DIR/tasks/{missing.name}' and NIV2_DIR.environment in str(
    NIV2_DIR.how()
  )


def test_every_instance_of_the_real_files_is_read(shared, monkeypatch):
  folder = shared('data/niv2')
  monkeypatch.setenv('FLAN_JAX_NIV2_DIR', str(folder))
  files = {path.stem: path for path in (folder / 'tasks').glob('*.json')}
  ours = [task for task in NIV2_TASKS if task.file in files]
  # The one that is not ours was made from MMLU.
  assert [name for name in files if name not in {task.file for task in ours}] == [
    'task696_mmmlu_answer_generation_elementary_mathematics'
  ]
  assert len(files) == 37 and sum('niv2_test' in task.held_out for task in ours) == 14
  longest = 0
  for task in ours:
    instances = json.loads(files[task.file].read_bytes())['Instances']
    made = [niv2.fields(row.fields) for row in niv2.source(task).rows()]
    assert len(made) == len(instances) > 30 and all(made)
    for fields, instance in zip(made, instances, strict=True):
      assert fields['answer'] == instance['output'][0].strip() and fields['definition']
      assert fields['positive_input'] and fields['positive_output']
      assert fields['positive_input'] != fields['input']
      longest = max(longest, len(fields['input']))
  assert 1000 < longest < 100_000
