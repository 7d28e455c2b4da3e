import csv
import json

import pytest
from flan_jax.tasks import p3
from flan_jax.tasks.collection import UNKNOWN_LICENCE, derived_from
from flan_jax.tasks.folders import FolderError
from flan_jax.tasks.p3 import T0_TASKS
from flan_jax.tasks.readers import DataError
from flan_jax.tasks.rows import LeftOut

BY_NAME = {task.name: task for task in T0_TASKS}
ROWS = [
  {
    'inputs_pretokenized': '  Is the sea salty?\n\nAnswer:\n',
    'targets_pretokenized': '\n yes\nit is ',
    'answer_choices': ['yes\nit is', 'no'],
  },
  {'inputs_pretokenized': 'And lakes?', 'targets_pretokenized': 'no', 'answer_choices': None},
]


def test_ours_are_the_193_prompts_that_the_public_list_marks_t0(shared):
  with open(shared('data/flan_v2/flan_collection_info.csv')) as file:
    listed = [row for row in csv.DictReader(file) if row['Source'] == 'T0']
  assert len(listed) == 193
  assert {row['Specific Task Category']: row['Generic Task Category'] for row in listed} == {
    task.name: task.category for task in T0_TASKS
  }


def test_each_subtask_belongs_to_one_of_22_data_sets_and_tells_of_its_options():
  assert len(BY_NAME) == len(T0_TASKS) == 193
  assert len({task.dataset for task in T0_TASKS}) == 22
  assert all(task.name.startswith(task.dataset + '_') for task in T0_TASKS)
  kinds = [task.options for task in T0_TASKS]
  assert [kinds.count(kind) for kind in ('', 'in_prompt', 'separate')] == [104, 70, 19]
  assert BY_NAME['race_high_Select_the_best_answer'].licence == 'non-commercial research only'
  assert BY_NAME['wiqa_effect_with_label_answer'].licence == UNKNOWN_LICENCE
  assert not any(task.held_out or derived_from(task.name) for task in T0_TASKS)


def test_newlines_are_kept_and_blanks_around_are_not():
  assert p3.fields(ROWS[0]) == {
    'prompt': 'Is the sea salty?\n\nAnswer:',
    'answer': 'yes\nit is',
    'options': ['yes\nit is', 'no'],
  }
  assert p3.fields(ROWS[1]) == {'prompt': 'And lakes?', 'answer': 'no'}


@pytest.mark.parametrize(
  'choices', [None, [], ['no'], ['no', 'no '], ['yes', 'perhaps'], ['no', '', None]]
)
def test_choices_that_are_none_are_not_offered(choices):
  row = {**ROWS[1], 'answer_choices': choices}
  assert 'options' not in p3.fields(row)
  assert p3.fields_with_options(row) == LeftOut('without options')
  assert p3.fields_with_options(ROWS[0]) == p3.fields(ROWS[0])


@pytest.mark.parametrize(
  'changes, missing',
  [
    ({'targets_pretokenized': ' \n'}, 'answer'),
    ({'inputs_pretokenized': ''}, 'prompt'),
    ({'inputs_pretokenized': None}, 'prompt'),
  ],
)
@pytest.mark.parametrize('fields', [p3.fields, p3.fields_with_options])
def test_a_row_without_a_text_is_left_out_and_says_which(fields, changes, missing):
  assert fields({**ROWS[0], **changes}) == LeftOut(f'without {missing}')


def test_a_table_of_another_set_is_refused():
  with pytest.raises(DataError, match='no inputs_pretokenized; .* Fields: answer, question'):
    p3.fields({'question': 'q', 'answer': 'a'})


def write_jsonl(path):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(''.join(json.dumps(row) + '\n' for row in ROWS))


def write_parquet(path):
  pyarrow = pytest.importorskip('pyarrow')
  pytest.importorskip('pyarrow.parquet')
  path.parent.mkdir(parents=True, exist_ok=True)
  pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)


@pytest.mark.parametrize(
  'relative',
  [
    'qasc_is_correct_1.jsonl',
    'qasc_is_correct_1/train.jsonl',
    'qasc_is_correct_1/train.parquet',
    'qasc_is_correct_1/train-00000-of-00001.parquet',
    'qasc_is_correct_1/train/0000.parquet',
    'qasc_is_correct_1/data/train-00000-of-00001.parquet',
    'data/qasc_is_correct_1/train-00000-of-00001.parquet',
    'qasc_is_correct_1.parquet',
  ],
)
def test_a_subtask_is_found_where_dumps_keep_it(tmp_path, monkeypatch, relative):
  (write_jsonl if relative.endswith('jsonl') else write_parquet)(tmp_path / relative)
  monkeypatch.setenv('FLAN_JAX_P3_DIR', str(tmp_path))
  source = p3.source(BY_NAME['qasc_is_correct_1'])
  assert source.available().available
  assert [p3.fields(row.fields) for row in source.rows()] == [p3.fields(row) for row in ROWS]
  assert not p3.source(BY_NAME['qasc_is_correct_2']).available().available


def test_a_subtask_that_is_not_there_is_named_with_the_way_to_get_it(tmp_path, monkeypatch):
  source = p3.source(BY_NAME['qasc_is_correct_1'])
  monkeypatch.delenv('FLAN_JAX_P3_DIR', raising=False)
  with pytest.raises(FolderError, match='The folder of the subtasks of P3 is not set'):
    list(source.rows())
  assert source.where() == 'huggingface:P3_DIR/qasc_is_correct_1 train'
  get = source.available().how_to_get
  assert "load_dataset('bigscience/P3', NAME)" in get
  assert 'FLAN_JAX_P3_DIR' in get and source.licence == 'CC-BY-4.0'
  monkeypatch.setenv('FLAN_JAX_P3_DIR', str(tmp_path))
  write_jsonl(tmp_path / 'qasc_is_correct_1/validation.jsonl')
  with pytest.raises(DataError, match="no split 'train' in .*qasc_is_correct_1: .* validation"):
    list(source.rows())
