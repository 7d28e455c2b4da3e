"""The demo collection: its questions are right, its splits apart, its wordings sound."""

import hashlib
import json
import re
from collections import Counter
from functools import cache

import pytest
from flan_jax.tasks import demo  # noqa: F401, registers the collection
from flan_jax.tasks.demo import examples, vocabulary, words
from flan_jax.tasks.demo.examples import HALF, HELD_OUT_CLUSTERS, QUARTER, TASKS, TRAINED
from flan_jax.tasks.lint import lint_templates
from flan_jax.tasks.mixtures import export_mixture
from flan_jax.tasks.registry import get_task, infos, text_examples
from flan_jax.tasks.templates import load_groups

from flan_jax.data.vocabularies import get_vocabulary

NAMES = [task.name for task in TASKS]
BY_NAME = {task.name: task for task in TASKS}
GOLDEN = ('1', '412deaae62d3f934')
INPUT_TOKENS, TARGET_TOKENS = 64, 32  # rows of the demo's runs


@cache
def questions(name, split):
  task = BY_NAME[name]
  return [examples.example(task, split, i) for i in range(examples.NUM_EXAMPLES[split])]


def asked(question):
  """What a question asks, without what follows from it."""
  return tuple(
    sorted((k, v) for k, v in question.items() if k not in ('id', 'answer', 'rationale'))
  )


@cache
def wordings(name):
  groups = load_groups(f'demo/{BY_NAME[name].cluster}.json')
  return groups[name], groups.get(f'{name}_cot', ())


# A second opinion on every answer, from the text of the fields and not from the generator's state.
def _lookup(table):
  return lambda q: ' '.join(table[q[place]] for place in ('first', 'second'))


def _read(pattern, asked_for, given):
  def solve(q):
    facts = {m[given]: m[asked_for] for m in re.finditer(pattern, q['passage'])}
    return next(facts[q[field]] for field in ('thing', 'name', 'fruit') if q.get(field) in facts)

  return solve


def _running_total(q):
  total = int(q['start'])
  for deed, number in re.findall(r'(adds|takes) (\d)\.', q['moves']):
    total += int(number) if deed == 'adds' else -int(number)
    assert 0 <= total <= 9
  return str(total)


def _coin(q):
  flipped = q['moves'].count('flips') % 2
  return q['start'] if not flipped else {'heads': 'tails', 'tails': 'heads'}[q['start']]


def _cups(q):
  ball = {cup: cup == q['start'] for cup in 'ABC'}
  for a, b in re.findall(r'swaps ([ABC])([ABC])\.', q['moves']):
    ball[a], ball[b] = ball[b], ball[a]
  return next(cup for cup, here in ball.items() if here)


def _turning(q):
  names = {1j: 'north', 1: 'east', -1j: 'south', -1: 'west'}
  facing = next(point for point, name in names.items() if name == q['start'])
  for turn in re.findall(r'says (\w+)\.', q['moves']):
    facing *= {'left': 1j, 'right': -1j, 'back': -1}[turn]
  return names[facing]


def _chain(q):
  calls = dict(re.findall(r'(\w+) calls (\w+)\.', q['moves']))
  assert len(calls) == 6
  name = q['start']
  while name in calls:
    name = calls[name]
  return name


def _tallest(q):
  pairs = re.findall(r'(\w+) is taller than (\w+)\.', q['passage'])
  return ({a for a, _ in pairs} - {b for _, b in pairs}).pop()


def _sentiment(q):
  return 'positive' if any(word in q['review'] for word in words.PRAISE) else 'negative'


def _topic(q):
  found = [
    t
    for t, parts in words.TOPICS.items()
    if any(f'the {w}' in q['sentence'] for w in sum(parts, ()))
  ]
  assert len(found) == 1
  return found[0]


OPPOSITES = {a: b for row in words.OPPOSITES for a, b in (row, row[::-1])}
SOLVERS = {
  'first_word': lambda q: q['items'].split()[0],
  'last_word': lambda q: q['items'].split()[-1],
  'first_number': lambda q: re.match(r'\d', q['items'])[0],
  'last_number': lambda q: re.search(r'\d$', q['items'])[0],
  'copy_words': lambda q: q['items'],
  'reverse_words': lambda q: ' '.join(q['items'].split()[::-1]),
  'remove_word': lambda q: ' '.join(q['items'].replace(q['word'], '').split()),
  'animal_sounds': _lookup({animal: facts[0] for animal, facts in words.ANIMALS.items()}),
  'animal_young': _lookup({animal: facts[1] for animal, facts in words.ANIMALS.items()}),
  'opposites': _lookup(OPPOSITES),
  'find_member': lambda q: (set(q['items'].split()) & set(words.CATEGORIES[q['category']])).pop(),
  'sentiment': _sentiment,
  'topic': _topic,
  'count_words': lambda q: str(q['items'].count(' ') + 1),
  'count_word': lambda q: str(len(re.findall(rf'\b{q["word"]}\b', q['items']))),
  'larger_number': lambda q: sorted((q['first'], q['second']))[1],
  'smaller_number': lambda q: sorted((q['first'], q['second']))[0],
  'same_words': lambda q: 'yes' if q['first'] == q['second'] else 'no',
  'who_has': _read(r'(\w+) has the (\w+)\.', 1, 2),
  'what_has': _read(r'(\w+) has the (\w+)\.', 2, 1),
  'where_is': _read(r'The (\w+) is in the (\w+)\.', 2, 1),
  'add_small': lambda q: str(int(q['first']) + int(q['second'])),
  'subtract_small': lambda q: str(int(q['first']) - int(q['second'])),
  'running_total': _running_total,
  'coin_flip': _coin,
  'cup_swaps': _cups,
  'turning': _turning,
  'message_chain': _chain,
  'who_likes': _read(r'(\w+) likes the (\w+)\.', 1, 2),
  'what_likes': _read(r'(\w+) likes the (\w+)\.', 2, 1),
  'rule_applies': lambda q: 'yes' if q['rule'] == q['colour'] else 'no',
  'tallest': _tallest,
}


@pytest.mark.parametrize('name', NAMES)
def test_every_answer_is_what_a_second_solver_finds(name):
  for split in ('train', 'validation'):
    for question in questions(name, split):
      assert question['answer'] == SOLVERS[name](question), question


@pytest.mark.parametrize('name', [name for name in NAMES if wordings(name)[1]])
def test_rationales_end_in_the_answer_and_take_a_clause_for_each_step(name):
  for question in questions(name, 'train'):
    clauses = question['rationale'].removesuffix('.').split('. ')
    assert clauses[-1].split()[-1] == question['answer'], question
    # In message_chain the clauses are the calls of one of two chains of equal length.
    steps = question['moves'].count('.') // (2 if name == 'message_chain' else 1)
    assert len(clauses) == steps >= 3


@pytest.mark.parametrize('name', NAMES)
def test_no_validation_question_is_in_train(name):
  train = {asked(question) for question in questions(name, 'train')}
  assert not train & {asked(question) for question in questions(name, 'validation')}


@pytest.mark.parametrize('name', NAMES)
def test_validation_does_not_ask_the_same_too_often_and_no_answer_prevails(name):
  validation = questions(name, 'validation')
  assert len({asked(question) for question in validation}) >= 0.6 * len(validation)
  answers = Counter(question['answer'] for question in questions(name, 'train'))
  assert len(answers) >= 2
  assert answers.most_common(1)[0][1] <= 0.6 * examples.NUM_EXAMPLES['train']


def test_a_question_depends_on_task_split_and_index_alone():
  task = BY_NAME['turning']
  late_first = [examples.example(task, 'train', i) for i in (900, 3)]
  assert late_first == [questions('turning', 'train')[i] for i in (900, 3)]
  assert questions('turning', 'train')[3] != questions('turning', 'validation')[3]


def test_changed_questions_have_a_new_version():
  # Token caches are keyed by VERSION: raise it when this hash changes, then record both here.
  text = json.dumps([[questions(n, s)[:20] for s in ('train', 'validation')] for n in NAMES])
  assert (examples.VERSION, hashlib.blake2b(text.encode(), digest_size=8).hexdigest()) == GOLDEN


def test_there_are_enough_tasks_clusters_and_held_out_ones():
  clusters = {task.cluster for task in TASKS}
  assert len(TASKS) >= 24 and len(clusters) >= 6
  assert set(HELD_OUT_CLUSTERS) < clusters
  assert all(task.cluster not in HELD_OUT_CLUSTERS for task in TRAINED)
  assert set(QUARTER) < set(HALF) < {task.name for task in TRAINED}
  assert len(QUARTER) * 4 == len(HALF) * 2 == len(TRAINED)


@pytest.mark.parametrize('name', NAMES)
def test_wordings_are_sound_and_some_are_kept_for_evaluation(name):
  direct, cot = wordings(name)
  fields = questions(name, 'train')[0]
  assert lint_templates(direct, fields) == [] == lint_templates(cot, fields)
  assert len(direct) >= 8
  for group in (direct, cot):
    seen = {template.inputs for template in group if not template.held_out}
    held_out = {template.inputs for template in group if template.held_out}
    assert not group or (len(held_out) >= 2 and not seen & held_out)


@pytest.mark.parametrize('name', [name for name in NAMES if BY_NAME[name] in TRAINED])
def test_words_of_unseen_wordings_are_taught_by_other_wordings(name):
  def vocabulary_of(templates):
    return set(re.findall(r'[A-Za-z]+', ' '.join(t.inputs for t in templates)))

  taught = set()
  for task in TRAINED:
    taught |= vocabulary_of(t for t in wordings(task.name)[0] if not t.held_out)
  assert vocabulary_of(t for t in wordings(name)[0] if t.held_out) <= taught


def test_the_training_mixture_holds_no_held_out_task_and_the_smaller_ones_are_parts_of_it():
  def members(mixture):
    return {member.name for member in export_mixture(mixture).members}

  families = {get_task(name).family for name in members('demo')}
  assert families == {task.name for task in TRAINED}
  assert members('demo_quarter') < members('demo_half') < members('demo')
  assert not any('unseen' in name for name in members('demo'))
  assert {get_task(name).cluster for name in members('demo_held_out')} == set(HELD_OUT_CLUSTERS)
  # Without rationales the same tasks are still trained on, directly.
  direct = {get_task(name).family for name in members('demo') if not get_task(name).cot}
  assert members('demo_multistep') <= direct
  assert {f'{name}_cot' for name in members('demo_multistep')} == members('demo_cot_eval')


def test_every_example_fits_the_rows_of_the_demo(monkeypatch):
  monkeypatch.setenv('FLAN_JAX_VOCABULARY', str(vocabulary.PATH))
  encode = get_vocabulary(str(vocabulary.PATH)).encode
  for info in infos():
    if info.collection != 'demo':
      continue
    for split in info.splits:
      for i, example in enumerate(text_examples(info.name, split)):
        assert len(encode(example['inputs'])) < INPUT_TOKENS, example
        assert len(encode(example['targets'])) < TARGET_TOKENS, example
        if i == 100:
          break


def test_the_shipped_vocabulary_is_what_its_script_makes():
  assert vocabulary.PATH.stat().st_size <= 60_000
  assert vocabulary.train_vocabulary() == vocabulary.PATH.read_bytes()


def test_a_word_is_one_token_and_any_text_survives():
  shipped = get_vocabulary(str(vocabulary.PATH))
  listed = (
    *words.NAMES,
    *words.COLOURS,
    *words.FRUITS,
    *words.THINGS,
    *words.PLACES,
    *words.ANIMALS,
  )
  split_up = [word for word in listed if len(shipped.encode(f'The {word} is')) != 3]
  assert split_up == []
  assert len(shipped.encode('2026')) == 5  # the mark of a word's begin, then digit by digit
  for text in ('a\nb', 'naïve {x} <y>', '日本 🙂'):
    assert shipped.decode(shipped.encode(text)) == text
