"""Wordings of collections: how they are read, and every fault that the linter knows."""

import json

import pytest
from flan_jax.tasks.lint import lint_wordings
from flan_jax.tasks.templates import TemplateError
from flan_jax.tasks.wordings import FewShotWording, Wording, Wordings, load_wordings


def test_a_group_is_read_with_its_kinds_and_layouts(tmp_path):
  path = tmp_path / 'w.json'
  few = {'id': 'b', 'inputs': '{q}\n{options}', 'targets': '{answer}', 'targets_prefix': 'A: '}
  groups = {
    'zero_shot': [{'id': 'a', 'inputs': '{q}?', 'targets': '{answer}'}],
    'few_shot': [few, {**few, 'id': 'c', 'mix': False}],
  }
  path.write_text(json.dumps({'g': groups}))
  wordings = load_wordings(path, 'g')
  assert wordings.zero_shot == (Wording('a', '{q}?', '{answer}'),)
  assert [w.id for w in wordings.mixed_few_shot()] == ['b']
  assert [w.inputs for w in wordings.few_shot_without_options()] == ['{q}', '{q}']
  assert wordings.few_shot[0].layout().ask('Who?') == 'Who?\nA: '


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    ('{', 'is not JSON'),
    ('{"h": {}}', "No group 'g' in .* Groups: h"),
    ('{"g": {"zero_shots": []}}', "has 'zero_shots'. Did you mean 'zero_shot'"),
    ('{"g": {"zero_shot": [{"id": "a"}]}}', "has no 'inputs'"),
    ('{"g": {"zero_shot": [{"id": 1}]}}', 'must be a str'),
    ('{"g": {"few_shot": [{"id": "a", "seperator": ""}]}}', "Did you mean 'separator'"),
  ],
)
def test_a_malformed_file_is_refused_by_place(tmp_path, content, message):
  path = tmp_path / 'w.json'
  path.write_text(content)
  with pytest.raises(TemplateError, match=message):
    load_wordings(path, 'g')


def faults(options, in_rows=False, **kinds):
  return ' '.join(lint_wordings(Wordings(**{k: (v,) for k, v in kinds.items()}), options, in_rows))


@pytest.mark.parametrize(
  ('wording', 'options', 'fault'),
  [
    (Wording('a', '{q}', '{answer}'), True, "'a' shows {options} 0 times; it must be 1"),
    (Wording('a', '{options} {q}\n{options}', '{answer}'), True, 'shows {options} 2 times'),
    (Wording('a', '{q}\n{options}', '{answer}'), False, 'shows {options} 1 times; it must be 0'),
    (Wording('a', '{q} Pick one.', '{answer}'), False, "speaks of 'Pick' where no options"),
    (Wording('a', '{q}', '{text}'), False, 'mark it inverted'),
    (Wording('a', '', '{answer}'), False, 'has empty inputs'),
    (Wording('a', '{q} is {answer}', '{answer}'), False, 'gives its whole target'),
    (Wording('a', '{q', '{answer}'), False, 'A lone'),
  ],
)
def test_a_fault_of_a_wording_is_named(wording, options, fault):
  assert fault in faults(options, zero_shot=wording)


def test_good_wordings_have_no_fault():
  shown = Wording('a', '{q}\nChoose:\n{options}', '{answer}')
  assert not faults(True, zero_shot=shown, no_options=Wording('a', '{q}', '{answer}'))
  assert not faults(True, zero_shot=Wording('b', 'Ask for {answer}.', '{q}', inverted=True))
  assert not faults(False, True, zero_shot=Wording('a', '{q} Pick an option.', '{answer}'))
  assert 'speaks of' in faults(True, no_options=Wording('a', '{q} Pick one.', '{answer}'))


def test_few_shot_wordings_differ_by_what_is_around_them_too():
  pair = [
    FewShotWording(i, '{q}', '{answer}', inputs_prefix=p) for i, p in (('a', ''), ('b', 'Q:'))
  ]
  assert not lint_wordings(Wordings(few_shot=tuple(pair)), False)
  same = [FewShotWording(i, '{q}', '{answer}') for i in ('a', 'b')]
  (fault,) = lint_wordings(Wordings(few_shot=tuple(same)), False)
  assert "'b' has the wording of 'a'" in fault
