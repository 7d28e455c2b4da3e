import collections
import json

import pytest
from flan_jax.tasks.lint import lint_templates
from flan_jax.tasks.templates import (
  Template,
  TemplateError,
  choose,
  digest,
  fill,
  load_groups,
  load_templates,
  slots,
  text_of,
)
from hypothesis import given
from hypothesis import strategies as st


@given(st.text())
def test_the_text_of_a_field_is_never_expanded_again(text):
  assert fill('<{x}|{y}>', {'x': text, 'y': '{x}'}) == f'<{text}|{{x}}>'


@given(st.text())
def test_doubled_braces_write_any_text_literally(text):
  assert fill(text.replace('{', '{{').replace('}', '}}'), {}) == text


@pytest.mark.parametrize(
  'wording', ['{a.__class__}', '{a[0]}', '{a!r}', '{a:>9}', '{}', '{0}', 'a } b', '{']
)
def test_anything_but_a_plain_slot_in_braces_is_refused(wording):
  with pytest.raises(TemplateError, match=r"A lone '[{}]' at character \d+ of the wording"):
    fill(wording, {'a': 'x'})


def test_slots_are_found_without_the_literal_braces():
  assert slots('{{no}} {a} {b_2}{{{c}}}') == {'a', 'b_2', 'c'}


def test_a_slot_without_a_field_names_template_place_and_nearest_field():
  with pytest.raises(TemplateError) as e:
    Template('t', 'Is {qestion} so?', '{answer}').render(
      {'question': 'x', 'answer': 'y'}, 'f line 3'
    )
  assert str(e.value) == (
    "f line 3: Template 't' has a slot {qestion} but there is no such field. "
    "Did you mean 'question'? Fields: answer, question."
  )


@pytest.mark.parametrize('side', ['inputs', 'targets'])
def test_a_text_that_renders_to_nothing_is_an_error_with_its_place(side):
  texts = {'inputs': 'say', 'targets': 'say', side: '{x}'}
  with pytest.raises(TemplateError) as e:
    Template('t', **texts).render({'x': ' \n'}, 'f line 3')
  assert str(e.value).startswith(
    f"f line 3: template 't' gives an empty {side[:-1]} (its wording is '{{x}}')"
  )


def test_fields_are_written_as_a_person_would():
  values = {'text': 'a', 'number': 3, 'real': 0.5, 'truth': True, 'items': ['red', 2]}
  assert fill('{text} {number} {real} {truth}\n{items}', values) == 'a 3 0.5 true\n- red\n- 2'


@pytest.mark.parametrize(
  'value, kind', [(None, 'null'), ({'a': 1}, 'a dict'), ([['a']], 'a list'), (b'a', 'a bytes')]
)
def test_a_field_that_is_no_text_is_an_error(value, kind):
  with pytest.raises(
    TemplateError, match=f"f line 1: field 'x' is {kind}, which cannot be written"
  ):
    text_of(value, 'x', 'f line 1')


def test_the_choice_of_a_template_is_uniform_and_depends_on_every_part_of_its_key():
  counts = collections.Counter(choose('abcd', 'task', f'train-{i}', 0) for i in range(8000))
  assert all(abs(n - 2000) < 200 for n in counts.values())  # 5 standard deviations are 194
  keys = [
    ('task', 'train-1', 0),
    ('task', 'train-1', 1),
    ('task', 'train-2', 0),
    ('other', 'train-1', 0),
  ]
  assert len({digest(*key) for key in keys}) == 4


def test_the_hash_is_the_same_in_every_process_and_version():
  assert digest('task', 'train-1', 0) == 11418512898072877389


def test_a_file_of_templates_is_read_by_group(tmp_path):
  path = tmp_path / 't.json'
  path.write_text(json.dumps({'a': [{'id': 'x', 'inputs': '{q}', 'targets': '{a}'}], 'b': []}))
  assert load_templates(path, 'a', 'b') == (Template('x', '{q}', '{a}'),)
  with pytest.raises(TemplateError, match="No group 'c' in .* Groups: a, b."):
    load_templates(path, 'c')


@pytest.mark.parametrize(
  'content, error',
  [
    (b'{"a": [}', 'line 1 column 8 is not JSON'),
    (b'\xff', 'is not UTF-8 at byte 0'),
    (b'[]', 'holds a list; it must be'),
    (b'{"a": {}}', "group 'a' is a dict; it must be a list"),
    (b'{"a": ["x"]}', 'template 1 is a str; it must be an object'),
    (b'{"a": [{"id": "x", "inputs": "y"}]}', "template 1 has no 'targets'"),
    (b'{"a": [{"id": "x", "input": "y"}]}', "unknown key 'input'. Did you mean 'inputs'?"),
    (b'{"a": [{"id": 3}]}', "'id' is 3; it must be a str"),
    (b'{"a": [{"id": "x", "held_out": "no"}]}', "'held_out' is 'no'; it must be a bool"),
  ],
)
def test_a_wrong_file_of_templates_is_named(tmp_path, content, error):
  path = tmp_path / 't.json'
  path.write_bytes(content)
  with pytest.raises(TemplateError) as e:
    load_groups(path)
  assert str(path) in str(e.value) and error in str(e.value)


def test_a_file_of_templates_that_is_not_there_is_named(tmp_path):
  with pytest.raises(TemplateError, match='Cannot read the templates .*none.json: No such file'):
    load_groups(tmp_path / 'none.json')


@pytest.mark.parametrize(
  'templates, fault',
  [
    ([('a', '{q}', '{answer}'), ('a', 'So {q}', '{answer}')], "'a' stands twice"),
    ([('a', '{q}', '{answer}'), ('b', ' {q}', '{answer}')], "'b' has the wording of 'a'"),
    ([('', '{q}', '{answer}')], 'has an empty id'),
    ([('a', ' ', '{answer}')], 'has empty inputs'),
    ([('a', '{q}', '')], 'has empty targets'),
    ([('a', 'Hello', '{answer}')], 'no slot in its input'),
    ([('a', '{q}', 'yes')], 'no slot in its target'),
    ([('a', '{qq}', '{answer}')], "slot {qq} but there is no such field. Did you mean 'q'?"),
    ([('a', '{q} {answer}', '{answer}')], 'gives its whole target, answer, away'),
    ([('a', '{q} {answer}', '{q} {answer}')], 'gives its whole target, answer, q, away'),
    ([('a', '{q} {answer}', '{rationale} {answer}')], 'gives the answer away'),
    ([('a', '{q', '{answer}')], "A lone '{' at character 1"),
  ],
)
def test_lint_finds_each_fault(templates, fault):
  faults = lint_templates([Template(*t) for t in templates], ['q', 'answer', 'rationale'])
  assert len(faults) == 1 and fault in faults[0], faults


def test_lint_allows_inverted_templates_that_ask_for_the_question():
  template = Template('a', 'Which question has the answer {answer}?', '{q}')
  assert lint_templates([template], ['q', 'answer']) == []
