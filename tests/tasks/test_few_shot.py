import pytest
from flan_jax.tasks.few_shot import (
  Exemplar,
  FewShot,
  FewShotPattern,
  Question,
  draw,
  fit,
  shipped_patterns,
)
from flan_jax.tasks.registry import text_examples
from flan_jax.tasks.sources import GeneratorSource
from flan_jax.tasks.vocabulary import set_vocabulary
from hypothesis import given
from hypothesis import strategies as st

PATTERN = FewShotPattern('p', 'Q: ', 'A: ', '\n', '\n\n')


def shots(pairs, pattern=PATTERN):
  return [Exemplar(pattern, inputs, targets) for inputs, targets in pairs]


def test_a_prompt_is_laid_out_as_the_pattern_says():
  prompt = Question(PATTERN, '3+3').prompt(shots([('1+1', '2'), ('2+2', '4')]))
  assert prompt == 'Q: 1+1\nA: 2\n\nQ: 2+2\nA: 4\n\nQ: 3+3\nA:'


@given(st.integers(0, 300), st.integers(1, 9), st.sets(st.integers(0, 300)), st.integers())
def test_a_draw_has_different_indices_and_none_to_skip_and_as_many_as_there_are(size, k, skip, key):
  drawn = draw(size, k, key, skip=skip.__contains__)
  assert len(set(drawn)) == len(drawn) == min(k, len(set(range(size)) - skip))
  assert not set(drawn) & skip and all(0 <= i < size for i in drawn)
  assert drawn == draw(size, k, key, skip=skip.__contains__)


def test_draws_are_spread_over_the_whole_pool():
  drawn = [i for key in range(4000) for i in draw(20, 2, key, skip=lambda i: False)]
  counts = [drawn.count(i) for i in range(20)]
  assert min(counts) > 300 and max(counts) < 500  # 400 expected, standard deviation 19


@given(
  st.lists(st.tuples(st.text(max_size=9), st.text(max_size=9)), max_size=5), st.integers(1, 90)
)
def test_exemplars_are_left_out_until_the_whole_prompt_fits(exemplars, budget):
  question, exemplars = Question(PATTERN, 'query'), shots(exemplars)
  made = fit(question, exemplars, budget, len)
  sizes = [len(question.prompt(exemplars[:k])) + 1 for k in range(len(exemplars) + 1)]
  fitting = [k for k in range(1, len(sizes)) if sizes[k] <= budget]
  assert made == ((question.prompt(exemplars[: fitting[-1]]), fitting[-1]) if fitting else None)


@pytest.mark.parametrize('k', [3, 16])
def test_exemplars_are_of_the_same_task_and_never_the_question_itself(sums, k):
  sums(few_shot=FewShot(k=k, patterns=(PATTERN,)))

  for split in ('train', 'validation'):
    plain = {e['id']: e for e in text_examples('sums', split)}
    for example in text_examples('sums_fewshot', split):
      *shots, query = example['inputs'].removesuffix('\nA:').split('\n\n')
      query = query.removeprefix('Q: ')
      assert len(shots) == len(set(shots)) == k and example['shots'] == str(k)
      assert f'Q: {query}\n' not in example['inputs'].removesuffix(f'Q: {query}\nA:')
      for shot in shots:
        question, answer = shot.removeprefix('Q: ').split('\nA: ')
        a, b = [int(n) for n in question.rstrip('?.').split() if n.isdigit() or n[:-1].isdigit()]
        assert int(answer) == a + b and 0 <= a < 40
      assert example['answer'] == plain[example['id']]['answer']


def test_a_question_that_stands_twice_in_the_data_is_no_exemplar_for_itself(sums):
  rows = [{'a': 1, 'b': i % 3, 'answer': str(1 + i % 3), 'rationale': 'r'} for i in range(9)]
  sums(
    source=GeneratorSource(lambda split: rows, splits=('train',)),
    few_shot=FewShot(k=8, patterns=(PATTERN,)),
  )
  for example in text_examples('sums_fewshot', 'train'):
    query = example['inputs'].split('\n\n')[-1].removesuffix('A:')
    assert example['inputs'].count(query) == 1 and example['shots'] == '6'


def test_a_question_too_long_for_any_exemplar_keeps_its_zero_shot_form(sums):
  sums(few_shot=FewShot(k=2, max_tokens=20))
  inputs = {e['inputs'] for e in text_examples('sums_fewshot', 'train')}
  assert all(
    e['shots'] == '0' and '/' not in e['template'] for e in text_examples('sums_fewshot', 'train')
  )
  assert all(text.startswith(('What is', 'Add')) for text in inputs)


def test_prompts_are_counted_in_the_chosen_vocabulary(sums, shared):
  from flan_jax.data.vocabularies import get_vocabulary

  sums(few_shot=FewShot(k=5, max_tokens=64))
  by_bytes = list(text_examples('sums_cot_fewshot', 'train'))
  assert max(len(e['inputs'].encode()) + 1 for e in by_bytes) <= 64
  path = next(iter(sorted(shared('data/tokenizer').glob('**/*.model'))))
  set_vocabulary(path)
  by_pieces = list(text_examples('sums_cot_fewshot', 'train'))
  vocabulary = get_vocabulary(path)
  assert max(len(vocabulary.encode(e['inputs'])) + 1 for e in by_pieces) <= 64
  assert sum(int(e['shots']) for e in by_pieces) > sum(int(e['shots']) for e in by_bytes)


def test_the_separator_of_a_task_replaces_that_of_the_patterns(sums):
  sums(few_shot=FewShot(k=2, separator='\n@@@\n'))
  assert all(e['inputs'].count('\n@@@\n') == 2 for e in text_examples('sums_fewshot', 'train'))


def test_the_shipped_patterns_differ_and_all_are_used(sums):
  patterns = shipped_patterns()
  assert len(patterns) >= 8 and len({p.id for p in patterns}) == len(patterns)
  assert len({Question(p, 'z').prompt(shots([('x', 'y')], p)) for p in patterns}) == len(patterns)
  rows = [{'a': i, 'b': 1, 'answer': str(i + 1), 'rationale': 'r'} for i in range(200)]
  sums(source=GeneratorSource(lambda split: rows, splits=('train',)), few_shot=FewShot(k=2))
  used = {e['template'].split('/')[1] for e in text_examples('sums_fewshot', 'train')}
  assert used == {p.id for p in patterns}


@pytest.mark.parametrize('field', ['k', 'max_tokens', 'pool'])
@pytest.mark.parametrize('value', [0, -1, 2.5])
def test_a_few_shot_form_that_cannot_be_is_refused(field, value):
  with pytest.raises(ValueError, match=rf'FewShot\({field}={value}\) must be a whole number'):
    FewShot(**{field: value})
