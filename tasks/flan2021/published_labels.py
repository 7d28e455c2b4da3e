"""How sets of texts with labels outside GLUE are published: inference, sentiment, topics."""

from typing import Any

from flan_jax.tasks.flan2021.layouts import Layout, Row, table, text_lines, whole_file
from flan_jax.tasks.flan2021.published_parts import (
  THREE_WAY,
  TSV,
  Published,
  carried,
  jsonl,
  label,
  labelled,
)

_TREC = ('DESC', 'ENTY', 'ABBR', 'HUM', 'NUM', 'LOC')
# A copy with numbered labels counts places before numbers.
_TREC_NUMBERS = (0, 1, 2, 3, 5, 4)


def _trec(raw: Row) -> Row:
  kind, _, text = raw['line'].replace('\xf0', ' ').strip().partition(' ')
  coarse = kind.partition(':')[0]
  place = _TREC_NUMBERS[int(coarse)] if coarse.isdigit() else label(coarse, *_TREC)
  return {'label-coarse': place, 'text': text}


def _yelp(raw: Row) -> Row:
  # TFDS parts the line itself instead of reading it as CSV, so quotation marks stay doubled.
  line = raw['line']
  return {'text': line[5:-1].strip(), 'label': label(line[1], '1', '2')}


def _latin_lines(path) -> Any:
  return text_lines(path, 'latin-1')


def _with(suffix: str, files: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
  return {split: tuple(name + suffix for name in names) for split, names in files.items()}


_SNLI_FILES = {'train': ('snli_1.0_train', 'train'), 'validation': ('snli_1.0_dev', 'dev')}
_ANLI = {'train': ('train.jsonl',), 'validation': ('dev.jsonl', 'validation.jsonl')}
_PREMISE = labelled(*THREE_WAY, of='gold_label', premise='sentence1', hypothesis='sentence2')


LABELS: Published = {
  **{
    f'anli/r{n}': (
      (f'anli/R{n}', f'anli_v0.1/R{n}', f'anli_v1.0/R{n}'),
      jsonl(
        labelled('e', 'n', 'c', context='context', hypothesis='hypothesis'),
        'context',
        'label',
        files=_ANLI,
      ),
    )
    for n in (1, 2, 3)
  },
  'snli': (
    ('snli_1.0',),
    (
      Layout(files=_with('.jsonl', _SNLI_FILES), row=_PREMISE, has=('gold_label',)),
      Layout(files=_with('.txt', _SNLI_FILES), read=table(), row=_PREMISE, has=('gold_label',)),
    ),
  ),
  'paws_wiki/labeled_final_tokenized': (
    ('paws_wiki_labeled_final', 'paws_wiki/final'),
    (
      Layout(
        files=TSV,
        read=table(quoted=True),
        row=labelled('0', '1', sentence1='sentence1', sentence2='sentence2'),
        has=('sentence1', 'sentence2', 'label'),
      ),
    ),
  ),
  'sentiment140': (
    ('trainingandtestdata',),
    (
      Layout(
        files={'train': ('training.1600000.processed.noemoticon.csv',)},
        read=table(
          'polarity',
          'id',
          'date',
          'query',
          'user',
          'text',
          delimiter=',',
          quoted=True,
          encoding='latin-1',
        ),
        row=lambda raw: {'text': raw['text'], 'polarity': int(raw['polarity'])},
      ),
    ),
  ),
  'imdb_reviews/plain_text': (
    ('aclImdb', 'imdb'),
    (
      Layout(
        files={'train': ('train/[np]*[gs]/*.txt',), 'test': ('test/[np]*[gs]/*.txt',)},
        read=whole_file,
        row=lambda raw: {'text': raw['text'], 'label': label(raw['folder'], 'neg', 'pos')},
      ),
      carried('Bad', 'Good'),
    ),
  ),
  'yelp_polarity_reviews': (
    ('yelp_review_polarity_csv',),
    (Layout(files={'train': ('train.csv',)}, read=text_lines, row=_yelp),),
  ),
  'trec': (
    (),
    (
      Layout(
        files={
          'train': ('train_5500.label', 'TREC.train.all'),
          'test': ('TREC_10.label', 'TREC.test.all'),
        },
        read=_latin_lines,
        row=_trec,
      ),
    ),
  ),
  'ag_news_subset': (
    ('ag_news', 'ag_news_csv'),
    (
      Layout(
        files={'train': ('train.csv',), 'test': ('test.csv',)},
        read=table('label', 'title', 'description', delimiter=',', quoted=True),
        row=labelled('1', '2', '3', '4', title='title', description='description'),
      ),
    ),
  ),
}
