"""Scores of predicted against expected answers, 0 to 100, as plain functions of two lists.

Every metric is `metric(targets, predictions) -> dict[str, float]`; a target is one string or a list
of acceptable strings (the best one counts). No TensorFlow here, so the trainer, the stand-alone
evaluation and SeqIO (as metric_fns) share these functions. Cutting the answer out of a generated
text is the work of postprocessors.py.
"""

import functools
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from flan_jax.naming import unknown

Target = str | Sequence[str]
Scores = dict[str, float]

_ARTICLES = re.compile(r'\b(a|an|the)\b')
_NUMBER = re.compile(r'(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+')
_NEGATIVE = re.compile(r'(?:^|[^\w.)\]])-[$€£¥]?$')  # after a digit or bracket, '-' is an operator
_FRACTION_TAIL = re.compile(r'\ ?/\ ?(\d+)(?![\d/.,]*[\d/])')
_EXPONENT_TAIL = re.compile(r'[eE]([-+]?\d{1,3})(?![\w.])')
_MAX_DIGITS = (
  1000  # int() refuses more than 4,300 digits; a model stuck on one digit can write them
)


def fold(text: str) -> str:
  """Normalise `text` for comparison: NFKC, runs of whitespace as one blank, ends stripped.

  T5's vocabulary does the same to everything it encodes, so a target with a newline or two blanks
  can never be generated letter for letter; folding keeps the vocabulary out of the score.
  """
  return ' '.join(unicodedata.normalize('NFKC', text).split())


def last_number(text: str) -> Fraction | None:
  """Return the last number written in `text`, exactly, or None.

  '1,234.50' is 1234.5; '-$3' is -3; '3/4' is three quarters but '3/4/2020' is a date (2020);
  '1.5e3' is 1500. A sign after a digit or before a blank is an operator: '5-3' and '5 - 3' end in
  3. A percent sign is a unit and is ignored: '50%' is 50, not 0.5.
  """
  text = unicodedata.normalize('NFKC', text).translate({0x2212: '-', 0x2044: '/'})
  number = None
  end = 0
  for match in _NUMBER.finditer(text):
    if match.start() < end:  # the denominator or exponent of the number before
      continue
    digits = match[0].replace(',', '')
    end = match.end()
    if len(digits) > _MAX_DIGITS:
      continue
    number = Fraction(digits)
    before = text[max(0, match.start() - 3) : match.start()]
    fraction = None if before.endswith('/') else _FRACTION_TAIL.match(text, end)
    if fraction and len(fraction[1]) <= _MAX_DIGITS and int(fraction[1]):
      number, end = number / int(fraction[1]), fraction.end()
    elif exponent := _EXPONENT_TAIL.match(text, end):
      number, end = number * Fraction(10) ** int(exponent[1]), exponent.end()
    if _NEGATIVE.search(before):
      number = -number
  return number


def exact_match(targets: Sequence[Target], predictions: Sequence[str]) -> Scores:
  """Share of predictions equal to a target after `fold` and without regard to case."""
  return _mean_of_examples('exact_match', targets, predictions)


def token_f1(targets: Sequence[Target], predictions: Sequence[str]) -> Scores:
  """F1 of the bags of words; case, punctuation and English articles do not count.

  Source: Rajpurkar et al. 2016 (SQuAD), the official script's definition. Two empty bags score 100.
  """
  return _mean_of_examples('token_f1', targets, predictions)


def number_match(targets: Sequence[Target], predictions: Sequence[str]) -> Scores:
  """Share of predictions whose last number equals the target's last number (see `last_number`).

  A target without any number is compared as exact_match does, so that a stray worded answer among
  numbers ('no solution') neither stops an evaluation nor counts as always wrong.
  """
  return _mean_of_examples('number_match', targets, predictions)


def rouge(targets: Sequence[Target], predictions: Sequence[str]) -> Scores:
  """ROUGE-1, ROUGE-2 and ROUGE-L F-measures with Porter stemming, by the rouge-score package.

  Its tokeniser keeps a-z and 0-9 only: text in other scripts scores 0; use chrf there.
  """
  return _mean_of_examples('rouge', targets, predictions)


def bleu(targets: Sequence[Target], predictions: Sequence[str]) -> Scores:
  """Corpus BLEU with sacrebleu's defaults (13a tokens, exponential smoothing)."""
  import sacrebleu

  references = _check(targets, predictions)
  score = sacrebleu.BLEU().corpus_score(list(predictions), _transpose(references))
  return {'bleu': min(100.0, float(score.score))}  # exp(log) can end a hair above 100


def chrf(targets: Sequence[Target], predictions: Sequence[str]) -> Scores:
  """Corpus chrF2 (character 6-grams, beta 2) with sacrebleu's defaults."""
  import sacrebleu

  references = _check(targets, predictions)
  score = sacrebleu.CHRF().corpus_score(list(predictions), _transpose(references))
  return {'chrf': float(score.score)}


METRICS: dict[str, Callable[[Sequence[Target], Sequence[str]], Scores]] = {
  'exact_match': exact_match,
  'token_f1': token_f1,
  'number_match': number_match,
  'rouge': rouge,
  'bleu': bleu,
  'chrf': chrf,
}


def get_metric(name: str) -> Callable[[Sequence[Target], Sequence[str]], Scores]:
  """Return the metric called `name`.

  Raises:
    ValueError: no such metric; the message lists all and the nearest name.
  """
  if name not in METRICS:
    raise ValueError(unknown('metric', name, METRICS))
  return METRICS[name]


def headline(name: str) -> str:
  """Return the one key of metric `name` that averages and tables use."""
  get_metric(name)
  return 'rougeL' if name == 'rouge' else name


def example_scores(
  name: str, targets: Sequence[Target], predictions: Sequence[str]
) -> list[Scores] | None:
  """Return the scores of each example, or None for a corpus metric (bleu, chrf).

  The mean of the list is the metric, which is what a bootstrap over examples needs.
  """
  references = _check(targets, predictions)
  get_metric(name)
  if name not in _EXAMPLE_SCORES:
    return None
  score = _EXAMPLE_SCORES[name]
  return [_best(score, r, p) for r, p in zip(references, predictions, strict=True)]


def _check(targets, predictions) -> list[list[str]]:
  """Return every target as a list of references, after checking both lists."""
  for label, value in (('targets', targets), ('predictions', predictions)):
    if isinstance(value, str):
      raise ValueError(f'{label} is the string {value[:40]!r}; give a list of strings.')
  if len(targets) != len(predictions):
    raise ValueError(
      f'{len(targets)} targets but {len(predictions)} predictions; '
      'give one prediction for each target.'
    )
  if not len(targets):
    raise ValueError('A metric needs at least one example; targets and predictions are empty.')
  references = [[target] if isinstance(target, str) else list(target) for target in targets]
  for i, reference in enumerate(references):
    if not reference:
      raise ValueError(f'Target {i} is an empty list; give at least one acceptable answer.')
  return references


def _mean_of_examples(name, targets, predictions) -> Scores:
  scores = example_scores(name, targets, predictions)
  assert scores is not None  # only called with the names of _EXAMPLE_SCORES
  return {key: sum(s[key] for s in scores) / len(scores) for key in scores[0]}


def _best(score, references: list[str], prediction: str) -> Scores:
  """Return, key by key, the best score over the references."""
  each = [score(reference, prediction) for reference in references]
  return {key: max(s[key] for s in each) for key in each[0]}


def _exact_match_one(reference: str, prediction: str) -> Scores:
  same = fold(reference).casefold() == fold(prediction).casefold()
  return {'exact_match': 100.0 * same}


def _number_match_one(reference: str, prediction: str) -> Scores:
  expected = last_number(reference)
  if expected is None:
    return {'number_match': _exact_match_one(reference, prediction)['exact_match']}
  return {'number_match': 100.0 * (last_number(prediction) == expected)}


def _words(text: str) -> list[str]:
  """Return SQuAD's words: lower case, no ASCII punctuation, no articles."""
  text = fold(text).lower().translate(str.maketrans('', '', string.punctuation))
  return _ARTICLES.sub(' ', text).split()


def _token_f1_one(reference: str, prediction: str) -> Scores:
  expected, words = Counter(_words(reference)), Counter(_words(prediction))
  if not expected or not words:
    return {'token_f1': 100.0 * (expected == words)}
  common = (expected & words).total()
  return {'token_f1': 100.0 * 2 * common / (expected.total() + words.total())}


@functools.cache
def _rouge_scorer():
  from rouge_score import rouge_scorer

  return rouge_scorer.RougeScorer(['rouge1', 'rouge2', 'rougeL'], use_stemmer=True)


def _rouge_one(reference: str, prediction: str) -> Scores:
  scores = _rouge_scorer().score(reference, prediction)
  return {key: 100.0 * float(scores[key].fmeasure) for key in ('rouge1', 'rouge2', 'rougeL')}


def _transpose(references: list[list[str]]) -> list[list[Any]]:
  """Return sacrebleu's layout, one list per reference number, None where an example has fewer."""
  most = max(len(r) for r in references)
  return [[r[i] if i < len(r) else None for r in references] for i in range(most)]


_EXAMPLE_SCORES: dict[str, Callable[[str, str], Scores]] = {
  'exact_match': _exact_match_one,
  'token_f1': _token_f1_one,
  'number_match': _number_match_one,
  'rouge': _rouge_one,
}
