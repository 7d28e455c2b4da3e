import json
import os
import subprocess
import sys
import time

import pytest
from flan_jax.tasks.few_shot import FewShot
from flan_jax.tasks.instruction import clean
from flan_jax.tasks.objectives import PrefixLM, text_task
from flan_jax.tasks.readers import DataError
from flan_jax.tasks.registry import (
  cache_key,
  get_task,
  info,
  infos,
  instruction_task,
  text_examples,
  unregister,
)
from flan_jax.tasks.rows import LeftOut
from flan_jax.tasks.sources import JSONL, TSV, GeneratorSource
from flan_jax.tasks.splits import HashSplit
from flan_jax.tasks.templates import TemplateError
from hypothesis import given
from hypothesis import strategies as st

PLAIN = [{'id': 'ask', 'inputs': 'Say: {q}', 'targets': '{answer}'}]


def simple(name, rows, templates=PLAIN, **options):
  source = GeneratorSource(lambda split: rows, splits=('train',))
  return instruction_task(
    name, source=source, templates=templates, cluster='c', collection='test', **options
  )


def test_a_task_is_registered_in_each_form_that_it_can_have(sums):
  assert sums(few_shot=FewShot(2)) == (
    'sums',
    'sums_cot',
    'sums_fewshot',
    'sums_cot_fewshot',
    'sums_unseen_wordings',
  )
  assert [info(n).cot for n in ('sums', 'sums_cot', 'sums_fewshot', 'sums_cot_fewshot')] == [
    False,
    True,
    False,
    True,
  ]
  assert info('sums_cot').postprocessor == 'cot_answer'
  assert info('sums').postprocessor == 'identity'
  assert info('sums_unseen_wordings').splits == ('validation',)
  assert sums(name='plain', cot_templates=None) == ('plain', 'plain_unseen_wordings')


def test_an_example_has_its_id_template_texts_and_answer(sums):
  sums()
  example = next(iter(text_examples('sums_cot', 'validation')))
  assert example == {
    'id': 'validation-1',
    'template': 'think',
    'inputs': '0 + 1? Reason first.',
    'targets': '0 and 1 make 1. So the answer is 1.',
    'answer': '1',
  }


def test_held_out_wordings_are_seen_only_in_their_own_task(sums):
  sums()
  assert {e['template'] for e in text_examples('sums', 'train')} == {'ask', 'add'}
  assert {e['template'] for e in text_examples('sums_unseen_wordings', 'validation')} == {'new'}
  with pytest.raises(ValueError, match="has no split 'train'. Splits: validation"):
    list(text_examples('sums_unseen_wordings', 'train'))


def test_the_text_is_a_pure_function_of_task_id_and_seed(sums):
  sums(few_shot=FewShot(2))
  sums(name='other', few_shot=FewShot(2))
  sums(name='seeded', few_shot=FewShot(2), seed=1)
  a = list(text_examples('sums_fewshot', 'train'))
  assert a == list(text_examples('sums_fewshot', 'train'))
  assert a != list(text_examples('other_fewshot', 'train'))
  assert a != list(text_examples('seeded_fewshot', 'train'))
  # Rows that go or come elsewhere in the data leave an example's wording as it was.
  half = [{'uid': i, 'q': f'q{i}', 'answer': 'x'} for i in range(0, 40, 2)]
  whole = [{'uid': i, 'q': f'q{i}', 'answer': 'x'} for i in range(40)]
  wordings = [*PLAIN, {'id': 'b', 'inputs': 'B {q}', 'targets': '{answer}'}]
  texts = []
  for rows in (half, whole):
    source = GeneratorSource(lambda split, rows=rows: rows, splits=('train',), id_field='uid')
    instruction_task('t', source=source, templates=wordings, cluster='c', collection='test')
    texts.append({e['id']: e['inputs'] for e in text_examples('t', 'train')})
    unregister('t')
  assert texts[0].items() <= texts[1].items()


def test_texts_are_the_same_in_another_process_with_another_hash_seed():
  program = (
    'from flan_jax.tasks.registry import *; from flan_jax.tasks.sources import *;'
    'from flan_jax.tasks.few_shot import FewShot\n'
    "rows = [{'q': str(i), 'answer': str(-i)} for i in range(30)]\n"
    "t = [{'id': c, 'inputs': c + '{q}', 'targets': '{answer}'} for c in 'xyz']\n"
    "instruction_task('t', source=GeneratorSource(lambda s: rows, splits=('train',)), templates=t,"
    " few_shot=FewShot(2), cluster='c', collection='c')\n"
    "print(list(text_examples('t_fewshot', 'train')))"
  )
  outputs = [
    subprocess.run(
      [sys.executable, '-c', program],
      env={**os.environ, 'PYTHONHASHSEED': seed, 'FLAN_JAX_SEQIO': 'off'},
      capture_output=True,
      text=True,
      check=True,
    ).stdout
    for seed in ('1', '2')
  ]
  assert outputs[0] == outputs[1] and 'train-30' in outputs[0]


def test_registering_opens_no_data_and_takes_microseconds():
  start = time.perf_counter()
  for i in range(200):
    instruction_task(
      f'many{i}',
      source={'train': JSONL('/nowhere/a.jsonl'), 'validation': TSV('/nowhere/b', columns=('q',))},
      templates=PLAIN,
      few_shot=FewShot(3),
      cluster='c',
      collection='test',
    )
  assert (time.perf_counter() - start) / 200 < 0.005  # measured: 0.0002 s on a busy machine
  assert info('many7').available().why == 'There is no file /nowhere/a.jsonl.'


def test_importing_the_tasks_without_seqio_leaves_tensorflow_out():
  program = (
    'import sys, flan_jax.tasks\n'
    "print([m for m in ('tensorflow', 'seqio', 'jax', 'clu') if m in sys.modules])"
  )
  result = subprocess.run(
    [sys.executable, '-c', program],
    env={**os.environ, 'FLAN_JAX_SEQIO': 'off'},
    capture_output=True,
    text=True,
    check=True,
  )
  assert result.stdout.strip() == '[]'


def test_a_validation_split_is_cut_from_train_once_for_all_forms(sums):
  rows = [{'a': i, 'b': 1, 'answer': str(i + 1), 'rationale': 'r'} for i in range(300)]
  sums(source=GeneratorSource(lambda split: rows, splits=('train',)), splits=HashSplit(0.2))
  ids = {
    (name, split): {e['id'] for e in text_examples(name, split)}
    for name in ('sums', 'sums_cot')
    for split in ('train', 'validation')
  }
  assert ids['sums', 'train'] == ids['sums_cot', 'train']
  assert not ids['sums', 'train'] & ids['sums', 'validation']
  assert ids['sums', 'train'] | ids['sums', 'validation'] == {f'train-{i}' for i in range(1, 301)}
  assert 30 < len(ids['sums', 'validation']) < 90


def test_few_shot_exemplars_of_a_validation_example_come_from_the_rows_of_train(sums):
  rows = [{'a': i, 'b': 1, 'answer': str(i + 1), 'rationale': 'r'} for i in range(100)]
  sums(
    source=GeneratorSource(lambda split: rows, splits=('train',)),
    splits=HashSplit(0.3),
    templates=[{'id': 'x', 'inputs': '<{a}>', 'targets': '{answer}'}],
    few_shot=FewShot(4),
  )
  held_back = {e['inputs'] for e in text_examples('sums', 'validation')}
  for example in text_examples('sums_fewshot', 'validation'):
    assert sum(text in example['inputs'] for text in held_back) == 1


def test_fields_are_renamed_or_made_and_rows_left_out_are_counted():
  rows = [{'Question': f'q{i}', 'Answer': 'a', 'keep': i % 2} for i in range(10)]
  simple('named', rows, fields={'q': 'Question', 'answer': 'Answer'})
  assert next(iter(text_examples('named', 'train')))['inputs'] == 'Say: q0'

  def make(row):
    return {'q': row['Question'].upper(), 'answer': 'A'} if row['keep'] else None

  simple('made', rows, fields=make)
  examples = text_examples('made', 'train')
  for _ in range(2):  # a second pass counts anew
    assert [e['inputs'] for e in examples] == [f'Say: Q{i}' for i in (1, 3, 5, 7, 9)]
    assert examples.dropped == {'left out by fields=': 5}


def test_rows_are_left_out_for_a_reason_that_is_counted():
  long = 'x' * 1_000_001
  rows = [{'q': long[:1_000_000], 'answer': 'y'}, {'q': long, 'answer': 'y'}, {'q': 'x'}]
  rows += [{'q': 'x', 'answer': 'y', 'options': ['a', {'b': [long]}]}]

  def fields(row):
    return row if 'answer' in row else LeftOut('without answer')

  simple('long', rows, fields=fields)
  examples = text_examples('long', 'train')
  assert [example['id'] for example in examples] == ['train-1']
  assert examples.dropped == {'over 1,000,000 characters in a field': 2, 'without answer': 1}


def test_a_plain_text_may_be_long_because_it_is_cut():
  source = GeneratorSource(lambda split: [{'text': 'x' * 1_000_001}], splits=('train',))
  name = text_task('book', source=source, objective=PrefixLM(length=100_000))
  examples = text_examples(name, 'train')
  assert len(list(examples)) > 5 and not examples.dropped


def test_options_and_references_go_along():
  simple('o', [{'q': 'x', 'answer': 'b', 'options': ['a', 'b'], 'references': ['b', 'B']}])
  example = next(iter(text_examples('o', 'train')))
  assert example['options'] == ['a', 'b'] and example['references'] == ['b', 'B']


def test_the_answer_of_an_inverted_template_is_its_whole_target():
  templates = [*PLAIN, {'id': 'i', 'inputs': 'What has the answer {answer}?', 'targets': '{q}'}]
  simple('inverted', [{'q': f'q{i}', 'answer': f'a{i}'} for i in range(20)], templates)
  for example in text_examples('inverted', 'train'):
    assert example['answer'] == example['targets']
    assert example['answer'][0] == ('q' if example['template'] == 'i' else 'a')


@given(st.text())
def test_cleaned_text_has_no_control_characters_and_can_be_written(text):
  cleaned = clean(text)
  assert clean(cleaned) == cleaned
  assert not any(ord(c) < 32 and c not in '\t\n' or 127 <= ord(c) < 160 for c in cleaned)
  cleaned.encode('utf-8')


def test_only_line_ends_and_control_characters_are_changed():
  assert clean('a\r\nb\rc\td\x00\x1b[31m\x7f\x85\ud800 é{x}<b>\u2028') == (
    'a\nb\nc\td\ufffd\ufffd[31m\ufffd\ufffd\ufffd é{x}<b>\u2028'
  )


def test_hostile_text_reaches_the_example_as_data():
  text = '{answer} {0.__class__} %s \\n <script>'
  simple('hostile', [{'q': text, 'answer': '{q}'}])
  example = next(iter(text_examples('hostile', 'train')))
  assert example['inputs'] == f'Say: {text}' and example['targets'] == '{q}'


def refused(error, *parts, **changes):
  options = {'templates': PLAIN, 'source': JSONL('x'), 'cluster': 'c', 'collection': 'test'}
  name = changes.pop('name', 'wrong')
  with pytest.raises(error) as e:
    instruction_task(name, **{**options, **changes})
  for part in parts:
    assert part in str(e.value), str(e.value)
  assert not any(i.name.startswith('wrong') for i in infos())


def test_a_name_that_is_taken_or_malformed_is_refused(sums):
  sums(few_shot=FewShot(2))
  refused(ValueError, "'sums' is already registered (collection 'test'", name='sums')
  refused(ValueError, "'sums_cot' is already registered", name='sums_cot')
  for name in ('', 'a b', 'a-b', 'a/b', '../a', 'é', None):
    refused(ValueError, f'{name!r} cannot name a task', name=name)


def test_templates_that_cannot_work_are_refused_when_registering():
  base = {'id': 'a', 'inputs': '{q}', 'targets': '{answer}'}
  refused(TemplateError, 'has no templates', templates=[])
  refused(TemplateError, 'only held-out templates', templates=[{**base, 'held_out': True}])
  refused(TemplateError, "'a' stands twice", templates=[base, {**base, 'inputs': 'x{q}'}])
  refused(TemplateError, "'a' has empty targets", templates=[{**base, 'targets': ''}])
  refused(TemplateError, "A lone '{'", templates=[{**base, 'inputs': '{q'}])
  refused(TemplateError, "unknown key 'input'", templates=[{'id': 'a', 'input': '{q}'}])
  refused(
    TemplateError,
    "slot {qq} but there is no such field. Did you mean 'q'?",
    templates=[{**base, 'inputs': '{qq}'}],
    fields={'q': 'Question', 'answer': 'Answer'},
  )
  refused(TemplateError, 'it must hold {rationale} and {answer}', cot_templates=[base])


def test_unknown_metrics_postprocessors_and_double_splits_are_refused():
  refused(ValueError, "No metric 'exact_mach'", "'exact_match'", metrics=['exact_mach'])
  refused(ValueError, "No postprocessor 'cot_anwser'", postprocessor='cot_anwser')
  refused(
    ValueError,
    'cuts validation from train, but the source has train, validation',
    source={'train': JSONL('x'), 'validation': JSONL('y')},
    splits=HashSplit(),
  )
  refused(
    ValueError,
    'few_shot draws exemplars from train, but the source has only test',
    source={'test': JSONL('x')},
    few_shot=FewShot(2),
  )
  refused(ValueError, 'A source is one of', source='a.jsonl')


def test_an_unknown_task_names_the_nearest(sums):
  sums()
  with pytest.raises(ValueError, match="No task 'sums_cto'. Did you mean 'sums_cot'"):
    info('sums_cto')


def test_a_slot_without_a_field_is_found_at_the_row():
  simple('slot', [{'q': 'x', 'answr': 'y'}])
  with pytest.raises(
    TemplateError, match="row 1 of train: .* slot {answer} .* Did you mean 'answr'"
  ):
    list(text_examples('slot', 'train'))


def test_a_target_that_is_nothing_is_found_at_the_line(tmp_path):
  path = tmp_path / 'a.jsonl'
  path.write_text('{"q": "x", "answer": "y"}\n{"q": "x", "answer": " "}\n')
  instruction_task('e', source=JSONL(path), templates=PLAIN, cluster='c', collection='test')
  with pytest.raises(TemplateError, match=f"{path} line 2: template 'ask' gives an empty target"):
    list(text_examples('e', 'train'))


def test_a_missing_field_is_found_at_the_line_with_the_nearest_name(tmp_path):
  path = tmp_path / 'a.jsonl'
  path.write_text('{"question": "x", "answer": "y"}\n{"qestion": "x", "answer": "y"}\n')
  fields = {'q': 'question', 'answer': 'answer'}
  instruction_task(
    'm', source=JSONL(path), templates=PLAIN, fields=fields, cluster='c', collection='test'
  )
  with pytest.raises(DataError, match="line 2 has no field 'question'. Did you mean 'qestion'"):
    list(text_examples('m', 'train'))


def test_a_fields_function_that_fails_is_named_with_its_row():
  simple('f', [{'q': 'x'}], fields=lambda row: {'q': row['x']})
  with pytest.raises(
    DataError, match="row 1 of train: fields= of task 'f' failed with KeyError: 'x'"
  ):
    list(text_examples('f', 'train'))
  simple('g', [{'q': 'x'}], fields=lambda row: 'x')
  with pytest.raises(DataError, match="fields= of task 'g' returned a str"):
    list(text_examples('g', 'train'))


def test_an_id_given_twice_is_refused():
  source = GeneratorSource(
    lambda split: [{'q': 'x', 'answer': 'y', 'i': 1}] * 2, splits=('train',), id_field='i'
  )
  instruction_task('twice', source=source, templates=PLAIN, cluster='c', collection='test')
  with pytest.raises(DataError, match="the id 'train-1' was given to an earlier row too"):
    list(text_examples('twice', 'train'))


def test_the_cache_key_follows_data_templates_and_seed(tmp_path, sums):
  path = tmp_path / 'a.jsonl'

  def key(**changes):
    options = {'source': JSONL(path), 'templates': PLAIN, 'cluster': 'c', 'collection': 'x'}
    names = instruction_task('k', **{**options, **changes})
    found = cache_key(names[-1], 'train')
    for name in names:
      unregister(name)
    json.dumps(found)
    return found

  path.write_text('{"q": "1"}\n')
  first = key()
  assert first == key(cluster='d')
  others = [
    key(seed=1),
    key(templates=[{**PLAIN[0], 'inputs': 'Q {q}'}]),
    key(splits=HashSplit(0.1)),
    key(few_shot=FewShot(2)),
    key(few_shot=FewShot(3)),
  ]
  path.write_text('{"q": "2"}\n')
  others.append(key())
  assert len({json.dumps(k, sort_keys=True) for k in [first, *others]}) == 7


def test_the_licence_of_the_source_is_the_task_s_unless_it_has_its_own(sums):
  sums(source=GeneratorSource(lambda split: [], licence='MIT'))
  sums(name='own', source=GeneratorSource(lambda split: [], licence='MIT'), licence='CC0')
  assert info('sums').licence == 'MIT' and info('own').licence == 'CC0'
  assert get_task('sums').family == 'sums'
