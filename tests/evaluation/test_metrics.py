"""Metrics: properties of every one of them, awkward strings, and agreement with known values."""

import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flan_jax.evaluation import metrics

WORDS = st.text(st.characters(codec='utf-8', exclude_categories=('Cs',)), max_size=30)


@pytest.mark.parametrize('name', sorted(metrics.METRICS))
def test_a_prediction_equal_to_its_target_scores_100(name):
  texts = ['the cat sat on the mat again', 'it costs 1,250 dollars in all today']
  scores = metrics.get_metric(name)(texts, texts)
  assert scores[metrics.headline(name)] == pytest.approx(100.0)


@pytest.mark.parametrize('name', sorted(metrics.METRICS))
@settings(max_examples=60)
@given(pairs=st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=4))
def test_scores_stay_within_0_and_100_for_any_text(name, pairs):
  targets, predictions = zip(*pairs, strict=True)
  for value in metrics.get_metric(name)(targets, predictions).values():
    assert 0.0 <= value <= 100.0


@pytest.mark.parametrize('name', sorted(metrics.METRICS))
def test_the_order_of_the_examples_does_not_matter(name):
  pairs = [('a red house', 'a red horse'), ('7', '7'), ('one two three four', 'one two'), ('x', '')]
  shuffled = random.Random(0).sample(pairs, len(pairs))
  score = metrics.get_metric(name)
  assert score(*zip(*pairs, strict=True)) == pytest.approx(score(*zip(*shuffled, strict=True)))


@pytest.mark.parametrize('name', sorted(metrics.METRICS))
def test_another_reference_never_lowers_the_score(name):
  score, key = metrics.get_metric(name), metrics.headline(name)
  one = score([['a green house on a hill']], ['a red house on a hill'])[key]
  two = score([['a green house on a hill', 'a red house on a hill']], ['a red house on a hill'])[
    key
  ]
  assert two == pytest.approx(100.0)
  assert one < two


@pytest.mark.parametrize('name', ['exact_match', 'token_f1', 'number_match', 'rouge'])
def test_the_mean_of_the_example_scores_is_the_metric(name):
  targets, predictions = ['7 cats', 'a b', '3'], ['8 cats', 'a', '3']
  each = metrics.example_scores(name, targets, predictions)
  whole = metrics.get_metric(name)(targets, predictions)
  for key, value in whole.items():
    assert sum(scores[key] for scores in each) / 3 == pytest.approx(value)


@pytest.mark.parametrize('name', ['bleu', 'chrf'])
def test_corpus_metrics_have_no_example_scores(name):
  assert metrics.example_scores(name, ['a'], ['a']) is None


@pytest.mark.parametrize(
  'target, prediction, same',
  [
    ('Paris', 'paris', True),
    ('a b', ' a \n\t b ', True),
    ('ﬁne', 'fine', True),
    ('Straße', 'STRASSE', True),
    ('１２', '12', True),
    ('Paris', 'Paris.', False),
    ('Paris', 'Pari', False),
    ('', '', True),
  ],
)
def test_exact_match_folds_whitespace_width_and_case_and_nothing_else(target, prediction, same):
  assert metrics.exact_match([target], [prediction]) == {'exact_match': 100.0 * same}


@pytest.mark.parametrize(
  'text, number',
  [
    ('1,234.50', Fraction(2469, 2)),
    ('so it costs $1,000,000.', 1_000_000),
    ('it is 18.', 18),
    ('.5', Fraction(1, 2)),
    ('-$3', -3),
    ('−7', -7),
    ('(-7)', -7),
    ('x=-7', -7),
    ('+4', 4),
    ('5-3', 3),
    ('5 - 3', 3),
    ('pages 10-20', 20),
    ('50%', 50),
    ('3, 4', 4),
    ('1,2', 2),
    ('3/4', Fraction(3, 4)),
    ('2 / 3', Fraction(2, 3)),
    ('½', Fraction(1, 2)),
    ('3/4/2020', 2020),
    ('5/0', 0),
    ('1.5e3', 1500),
    ('2e-2', Fraction(1, 50)),
    ('7 x 8 = 56', 56),
    ('R2D2 and 12 more', 12),
    ('٣', 3),
    ('none', None),
    ('', None),
    ('9' * 5000, None),
  ],
)
def test_the_last_number_is_read_exactly(text, number):
  assert metrics.last_number(text) == number


def test_number_match_compares_values_not_spelling():
  scores = metrics.number_match(['1,000', '0.5', '-3', '12'], ['so 1000.0', 'or 1/2', '3', '12%'])
  assert scores == {'number_match': 75.0}


def test_number_match_falls_back_to_text_for_a_target_without_a_number():
  assert metrics.number_match(['no solution'], ['No solution']) == {'number_match': 100.0}
  assert metrics.number_match(['no solution'], ['4']) == {'number_match': 0.0}


def test_number_match_is_wrong_when_the_prediction_has_no_number():
  assert metrics.number_match(['4'], ['four']) == {'number_match': 0.0}


def test_token_f1_is_the_harmonic_mean_of_overlap():
  # Two of three predicted words, two of two expected: precision 2/3, recall 1.
  assert metrics.token_f1(['red house'], ['The red, old house!'])['token_f1'] == pytest.approx(80.0)
  assert metrics.token_f1(['cat'], ['dog']) == {'token_f1': 0.0}
  assert metrics.token_f1(['the'], ['']) == {'token_f1': 100.0}


def test_rouge_has_the_published_example_value():
  scores = metrics.rouge(['police killed the gunman'], ['police kill the gunman'])
  assert scores['rouge1'] == pytest.approx(100.0)  # the stemmer makes killed = kill
  scores = metrics.rouge(['police killed the gunman'], ['the gunman police killed'])
  assert scores['rouge1'] == pytest.approx(100.0)
  assert scores['rougeL'] == pytest.approx(50.0)


def test_bleu_is_of_the_corpus_and_takes_uneven_references():
  scores = metrics.bleu([['a b c d e', 'x'], 'c d e f g'], ['a b c d e', 'c d e f g'])
  assert scores['bleu'] == pytest.approx(100.0)


@pytest.mark.parametrize('name', sorted(metrics.METRICS))
def test_bad_lists_are_refused_in_a_sentence(name):
  score = metrics.get_metric(name)
  with pytest.raises(ValueError, match='at least one example; targets and predictions are empty'):
    score([], [])
  with pytest.raises(ValueError, match='2 targets but 1 predictions; give one prediction'):
    score(['a', 'b'], ['a'])
  with pytest.raises(ValueError, match="predictions is the string 'a'; give a list of strings"):
    score(['a'], 'a')
  with pytest.raises(ValueError, match='Target 1 is an empty list; give at least one acceptable'):
    score(['a', []], ['a', 'b'])


def test_an_unknown_metric_names_the_nearest():
  with pytest.raises(
    ValueError,
    match=r"No metric 'exact_mach'\. Did you mean 'exact_match'\? Known: bleu, chrf, exact_match",
  ):
    metrics.get_metric('exact_mach')
