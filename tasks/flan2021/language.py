"""Word senses, grammar, kinds of question and topics of news: rows -> slots.

Wordings: tasks/data/flan2021/language.json; those that show no options name the labels.
"""

import html
import re
from typing import Any

from flan_jax.tasks.flan2021.answers import NO_YES, chosen
from flan_jax.tasks.flan2021.data_set import DataSet
from flan_jax.tasks.flan2021.text import text

ACCEPTABILITY = ('unacceptable', 'acceptable')
# The order of the labels: DESC, ENTY, ABBR, HUM, NUM, LOC.
QUESTION_TYPES = ('description', 'entity', 'abbreviation', 'human', 'number', 'location')
TOPICS = ('World', 'Sports', 'Business', 'Sci/Tech')

# AG's crawler lost the ampersands of HTML entities and set a blank before its apostrophes (#39).
_APOSTROPHE = re.compile(r' ?&?#39;')
_LOST_ENTITY = re.compile(r'(?<!&)(#\d{2,4}|\b(?:quot|amp|lt|gt));')
_TAG = re.compile(r'</?[A-Za-z][^<>]*>')


def wic(row: dict[str, Any]):
  """Labels: False, True (the word has one sense in both sentences)."""
  return chosen(
    NO_YES,
    row['label'],
    word=row['word'],
    sentence1=row['sentence1'],
    sentence2=row['sentence2'],
  )


def cola(row: dict[str, Any]):
  """Labels: unacceptable, acceptable, -1 in the test split."""
  return chosen(ACCEPTABILITY, row['label'], sentence=row['sentence'])


def trec(row: dict[str, Any]):
  """Takes the coarse one of two labels."""
  return chosen(QUESTION_TYPES, row['label-coarse'], text=row['text'])


def ag_news_subset(row: dict[str, Any]):
  """Labels: World, Sports, Business, Sci/Tech."""
  return chosen(
    TOPICS, row['label'], title=_news_text(row['title']), text=_news_text(row['description'])
  )


def _news_text(value: Any) -> str:
  """Restores entities, and takes out tags and the backslashes that stand for line ends."""
  restored = html.unescape(_LOST_ENTITY.sub(r'&\1;', _APOSTROPHE.sub("'", text(value))))
  return ' '.join(_TAG.sub(' ', restored).replace('\\', ' ').split())


DATA_SETS = (
  DataSet(
    name='wic',
    tfds='super_glue/wic:1.0.2',
    cluster='word_disambiguation',
    category='Word Sense Disambiguation',
    licence='CC-BY-NC-4.0',
    fields=wic,
    options=True,
    templates='wic',
    templates_file='language',
  ),
  DataSet(
    name='cola',
    tfds='glue/cola:2.0.0',
    cluster='linguistic_acceptability',
    category='Grammatical Acceptability',
    licence='unknown; quoted from books and articles under fair use',
    fields=cola,
    options=True,
    templates='cola',
    templates_file='language',
  ),
  DataSet(
    name='trec',
    tfds='trec:1.0.0',
    cluster='question_classification',
    category='Question Classification',
    licence='unknown',
    fields=trec,
    options=True,
    validation=200,
    templates='trec',
    templates_file='language',
  ),
  DataSet(
    name='ag_news_subset',
    tfds='ag_news_subset:1.0.0',
    cluster='summarization',
    category='Topic Classification',
    licence='custom: non-commercial use of the AG corpus',
    fields=ag_news_subset,
    options=True,
    validation=200,
    templates='ag_news_subset',
    templates_file='language',
  ),
)
