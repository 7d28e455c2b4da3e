"""The wordings of the collection beyond Flan 2021: dialog, CoT, NIv2, P3 and programs."""

import json
import re

import pytest
from flan_jax.tasks import cot
from flan_jax.tasks.few_shot import Exemplar, FewShotPattern, Question
from flan_jax.tasks.lint import lint_templates
from flan_jax.tasks.templates import DATA, Template, fill, load_groups, parse, slots

from flan_jax.evaluation.postprocessors import cot_answer

RATIONALE = {'question', 'rationale', 'answer'}
POSITIVE = {'positive_input', 'positive_output', 'positive_explanation'}
# (file, group, kind) -> the least number, the slots there are, and those that each wording needs.
KINDS = {
  ('dialog', 'next_turn', 'zero_shot'): (10, {'dialog', 'answer'}, {'dialog', 'answer'}),
  ('dialog', 'next_turn', 'few_shot'): (10, {'dialog', 'answer'}, {'dialog', 'answer'}),
  ('dialog', 'dialog_inversion', 'zero_shot'): (10, {'preceding', 'answer'}, {'preceding'}),
  ('dialog', 'dialog_inversion', 'few_shot'): (10, {'preceding', 'answer'}, {'preceding'}),
  ('cot_collection', 'cot', 'few_shot'): (10, RATIONALE, RATIONALE),
  ('cot_collection', 'cot_inversion', 'zero_shot'): (18, RATIONALE, {'rationale', 'answer'}),
  ('cot_collection', 'cot_inversion', 'few_shot'): (10, RATIONALE, {'rationale', 'answer'}),
  ('niv2', 'niv2', 'zero_shot'): (10, {'definition', 'input', 'answer'}, {'definition', 'input'}),
  ('niv2', 'niv2', 'one_positive'): (
    10,
    {'definition', 'input', 'answer'} | POSITIVE,
    {'definition', 'input'} | POSITIVE,
  ),
  ('niv2', 'niv2', 'few_shot'): (10, {'definition', 'input', 'answer'}, {'input', 'answer'}),
  ('p3', 'p3', 'zero_shot'): (10, {'prompt', 'answer'}, {'prompt', 'answer'}),
  ('p3', 'p3', 'few_shot'): (10, {'prompt', 'answer'}, {'prompt', 'answer'}),
}
for _group, _slots in {
  'repair_with_error': {'broken', 'error', 'answer'},
  'repair': {'broken', 'answer'},
  'break_with_error': {'program', 'error', 'answer'},
  'break': {'program', 'answer'},
  'problem_to_program': {'problem', 'answer'},
  'program_to_problem': {'problem', 'answer'},
}.items():
  for _kind in ('zero_shot', 'few_shot'):
    KINDS['program_synthesis', _group, _kind] = (10, _slots, _slots)

PLAIN_KEYS = {'id', 'inputs', 'targets', 'inverted'}
LAYOUT_KEYS = {'inputs_prefix', 'targets_prefix', 'between', 'separator'}
# Words that speak of options; none of these wordings may, as no options are shown by them.
OPTION_WORDS = re.compile(
  r'\b(options?|choices?|choose|picks?|select|multiple[- ]choice|'
  r'(following|above|below|listed) answers?|answers? (above|below|listed))\b',
  re.IGNORECASE,
)
FILES = sorted({file for file, _, _ in KINDS})
each_kind = pytest.mark.parametrize('file, group, kind', KINDS, ids=map('-'.join, KINDS))
FEW_SHOT = [key for key in KINDS if key[2] == 'few_shot']
few_shot_kinds = pytest.mark.parametrize('file, group, kind', FEW_SHOT, ids=map('-'.join, FEW_SHOT))


def wordings(file, group, kind):
  return json.loads((DATA / f'{file}.json').read_text(encoding='utf-8'))[group][kind]


def layout(item):
  return FewShotPattern('p', **{key: item[key] for key in LAYOUT_KEYS & set(item)})


def whole(item):
  """All that a reader sees of a wording, without punctuation, case and line ends."""
  shown = layout(item)
  parts = (
    item.get('prompt_prefix', ''),
    *(shown.inputs_prefix, item['inputs'], shown.targets_prefix, item['targets']),
  )
  return ' '.join(re.findall(r'\w+', ' '.join(parts).casefold()))


@pytest.mark.parametrize('file', FILES)
def test_a_file_holds_the_groups_that_are_known_and_no_others(file):
  groups = json.loads((DATA / f'{file}.json').read_text(encoding='utf-8'))
  found = {(file, group, kind) for group, kinds in groups.items() for kind in kinds}
  assert found == {key for key in KINDS if key[0] == file}


@each_kind
def test_there_are_enough_wordings_with_ids_of_their_own(file, group, kind):
  items = wordings(file, group, kind)
  assert len(items) >= KINDS[file, group, kind][0]
  assert len({item['id'] for item in items}) == len(items)
  assert all(re.fullmatch(r'[a-z0-9]+(-[a-z0-9]+)*', item['id']) for item in items)


@each_kind
def test_every_wording_has_only_keys_that_are_known(file, group, kind):
  keys = set(PLAIN_KEYS)
  if kind == 'few_shot':
    keys |= LAYOUT_KEYS | {'mix'} | ({'prompt_prefix'} if file == 'niv2' else set())
  for item in wordings(file, group, kind):
    assert {'id', 'inputs', 'targets'} <= set(item) <= keys, item['id']
    assert all(
      isinstance(value, bool if key in ('inverted', 'mix') else str) for key, value in item.items()
    )


@each_kind
def test_no_wording_has_a_fault(file, group, kind):
  _, known, needed = KINDS[file, group, kind]
  items = wordings(file, group, kind)
  templates = []
  for item in items:
    # A layout is part of what tells two few-shot wordings apart, and a prefix stands before them.
    shown = layout(item)
    inputs = f'{item.get("prompt_prefix", "")}{shown.inputs_prefix}{item["inputs"]}'
    templates.append(
      Template(item['id'], inputs + shown.between + shown.targets_prefix, item['targets'])
    )
  assert lint_templates(templates, known) == []
  for template in templates:
    assert needed <= template.slots(), template.id
    asked = slots(template.inputs)
    assert not asked & slots(template.targets), template.id
    names = [part.name for part in parse(template.inputs) if not isinstance(part, str)]
    assert len(set(names)) == len(names), f'{template.id} repeats a field'


@pytest.mark.parametrize('file', FILES)
def test_no_two_wordings_of_a_group_are_alike_up_to_punctuation(file):
  for group in {group for f, group, _ in KINDS if f == file}:
    for kind in {kind for f, g, kind in KINDS if (f, g) == (file, group)}:
      items = wordings(file, group, kind)
      seen: dict[str, str] = {}
      for item in items:
        assert whole(item) not in seen, (item['id'], seen[whole(item)])
        seen[whole(item)] = item['id']


@each_kind
def test_no_wording_speaks_of_options(file, group, kind):
  for item in wordings(file, group, kind):
    assert not OPTION_WORDS.search(' '.join(v for v in item.values() if isinstance(v, str))), item


@each_kind
def test_only_what_writes_another_field_than_the_answer_is_inverted(file, group, kind):
  for item in wordings(file, group, kind):
    asks_for_more = group in ('cot_inversion',)
    inverted = asks_for_more or 'answer' not in slots(item['targets'])
    assert item.get('inverted', False) == inverted, item['id']


@few_shot_kinds
def test_few_shot_wordings_are_short_and_laid_out_in_several_ways(file, group, kind):
  items = wordings(file, group, kind)
  layouts = {tuple(item.get(key, '') for key in sorted(LAYOUT_KEYS)) for item in items}
  assert len(layouts) >= 5
  assert sum(item.get('mix', True) for item in items) >= 6
  for item in items:
    words = [part for part in parse(item['inputs']) if isinstance(part, str)]
    assert len(' '.join(words).split()) <= 16, item['id']


@few_shot_kinds
def test_a_few_shot_prompt_stops_where_the_target_is_to_be_written(file, group, kind):
  known = KINDS[file, group, kind][1]
  for item in wordings(file, group, kind):
    fields = [{name: f'<{name}{i}>' for name in known} for i in range(2)]
    inputs, targets = zip(
      *((fill(item['inputs'], f), fill(item['targets'], f)) for f in fields), strict=True
    )
    shot = Exemplar(layout(item), inputs[0], targets[0])
    prompt = Question(layout(item), inputs[1]).prompt([shot])
    for name in slots(item['targets']):
      assert f'<{name}0>' in prompt and f'<{name}1>' not in prompt
    prefix = layout(item).targets_prefix.rstrip()
    assert prompt.endswith(prefix or inputs[1].rstrip())


def test_the_definition_of_a_task_stands_once_at_the_start_of_a_few_shot_prompt():
  for item in wordings('niv2', 'niv2', 'few_shot'):
    assert slots(item['prompt_prefix']) == {'definition'}, item['id']
    assert item['prompt_prefix'][-1] in ' \n'
    assert 'definition' not in slots(item['inputs'])


def test_line_ends_of_a_prompt_are_kept_as_they_are():
  prompt = 'Title\n\n  First line\n\tSecond line\n'
  for kind in ('zero_shot', 'few_shot'):
    for item in wordings('p3', 'p3', kind):
      made = fill(item['inputs'], {'prompt': prompt})
      assert prompt in made and not slots(item['inputs']) - {'prompt'}


@pytest.mark.parametrize('cot_set', cot.SETS, ids=lambda cot_set: cot_set.name)
def test_every_chain_of_thought_set_has_ten_zero_shot_wordings_to_train_on(cot_set):
  groups = load_groups('cot.json')
  trained = [t for t in (*groups['cot_any'], *groups[f'cot_{cot_set.kind}']) if not t.held_out]
  assert len(trained) >= 10
  assert all({'rationale', 'answer'} <= slots(t.targets) for t in trained)


def test_all_four_directions_of_a_rationale_are_asked_for():
  directions = {('question',), ('rationale',), ('answer', 'question'), ('question', 'rationale')}
  for kind, least in (('zero_shot', 3), ('few_shot', 2)):
    found = [
      tuple(sorted(slots(item['targets'])))
      for item in wordings('cot_collection', 'cot_inversion', kind)
    ]
    assert set(found) == directions
    assert min(found.count(direction) for direction in directions) >= least


def test_an_answer_is_found_again_in_every_few_shot_target_that_names_it():
  fields = {'question': 'q', 'rationale': 'It rained all day.', 'answer': 'blue'}
  explained_after = 0
  for item in wordings('cot_collection', 'cot', 'few_shot'):
    target = fill(item['targets'], fields)
    if target.index('blue') < target.index('It rained'):
      explained_after += 1
    if 'answer' in target.casefold():
      assert cot_answer(target) == 'blue', item['id']
  assert explained_after >= 3


def test_the_wordings_of_cot_json_are_not_said_again():
  old = {
    ' '.join(re.findall(r'\w+', t.inputs.casefold()))
    for group in load_groups('cot.json').values()
    for t in group
  }
  for kind in ('zero_shot', 'few_shot'):
    for item in wordings('cot_collection', 'cot_inversion', kind):
      assert ' '.join(re.findall(r'\w+', item['inputs'].casefold())) not in old
