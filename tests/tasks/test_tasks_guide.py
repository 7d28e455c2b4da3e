"""The example of docs/tasks.md does what the page says."""

import json
import re
import sys
from pathlib import Path

import pytest
from flan_jax.tasks.mixtures import export_mixture
from flan_jax.tasks.registry import info, task_names, text_examples

from flan_jax.data.catalogue import import_task_modules

README = Path(__file__).resolve().parents[2] / 'README.md'
GUIDE = Path(__file__).resolve().parents[2] / 'docs/tasks.md'
BLOCKS = re.findall(r'```python\n(.*?)```', GUIDE.read_text(encoding='utf-8'), re.DOTALL)


@pytest.fixture
def example(tmp_path, monkeypatch):
  """Imports the page's my_tasks.py as prepare does, with data beside it."""
  (tmp_path / 'my_tasks.py').write_text(BLOCKS[0])
  rows = [{'country': f'C{i}', 'capital': f'T{i}', 'why': f'T{i} rules C{i}.'} for i in range(200)]
  (tmp_path / 'capitals.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
  monkeypatch.setenv('FLAN_JAX_MY_DATA', str(tmp_path))
  monkeypatch.chdir(tmp_path)
  import_task_modules(('flan_jax.tasks', 'my_tasks'))
  yield
  del sys.modules['my_tasks']


def test_the_example_registers_the_tasks_of_its_table(example):
  table = set(re.findall(r'`(capitals\w*)`', GUIDE.read_text().split('registers these tasks')[1]))
  assert table == {name for name in task_names() if name.startswith('capitals')}
  assert len(table) == 5
  assert info('capitals_cot').licence == 'CC0-1.0' and info('capitals_cot').available().available


def test_the_example_s_rows_become_questions_and_answers(example):
  texts = {
    name: [e for split in info(name).splits for e in text_examples(name, split)]
    for name in task_names()
    if name.startswith('capitals')
  }
  assert len(texts['capitals_cot']) == 200
  for e in texts['capitals_cot']:
    n = e['answer'].removeprefix('T')
    assert e['inputs'].startswith(f'What is the capital of C{n}?')
    assert e['targets'] == f'T{n} rules C{n}. So the answer is T{n}.'
  for e in texts['capitals']:
    assert (
      e['answer'] == e['targets']
      and e['targets'][0] == {'ask': 'T', 'inverted': 'C'}[e['template']]
    )
  assert 0 < len(texts['capitals_unseen_wordings']) < 30
  mixture = export_mixture('my_mixture')
  assert {'capitals', 'capitals_cot', 'gsm8k_cot'} <= set(mixture.task_names())


def test_the_example_of_the_readme_registers_its_task(tmp_path, monkeypatch):
  (block,) = re.findall(r'```python\n(.*?)```', README.read_text(encoding='utf-8'), re.DOTALL)
  (tmp_path / 'qa').mkdir()
  for name in ('train', 'dev'):
    (tmp_path / f'qa/{name}.jsonl').write_text('{"question": "Who?", "answer": "Ann"}\n')
  monkeypatch.chdir(tmp_path)
  exec(block, {})
  for split in ('train', 'validation'):
    (made,) = text_examples('my_qa', split)
    assert (made['inputs'], made['targets']) == ('Answer the question: Who?', 'Ann')


@pytest.mark.seqio
def test_the_example_through_seqio_gives_tokens(shared, monkeypatch):
  monkeypatch.setenv('FLAN_JAX_COT_DIR', str(shared('data/cot/flan_v2')))
  scope = {}
  exec(BLOCKS[1], scope)
  first = next(scope['dataset'].as_numpy_iterator())
  assert first['inputs'][-1] == 1 and first['targets_pretokenized'].decode()
