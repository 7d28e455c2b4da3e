"""How the sets of GLUE and SuperGLUE are published: tables and JSON lines."""

import re
from collections.abc import Iterator

from flan_jax.tasks.flan2021.layouts import Layout, Row, table
from flan_jax.tasks.flan2021.published_parts import (
  THREE_WAY,
  TSV,
  TWO_WAY,
  Published,
  carried,
  jsonl,
  label,
  labelled,
  same,
)


def _pair(*names: str, of: str = 'label', first: str = 'sentence1', second: str = 'sentence2'):
  """Returns the layout of a GLUE table of two sentences under their own names."""
  columns = {first: first, second: second}
  return Layout(
    files=TSV, read=table(), row=labelled(*names, of=of, **columns), has=(first, second, of)
  )


def _stsb(raw: Row) -> Row:
  score = raw['score']
  return {**same('sentence1', 'sentence2')(raw), 'label': -1.0 if score is None else float(score)}


def _copa_item(raw: Row) -> Row:
  return {
    'premise': raw['premise'],
    'choice1': raw['alternative1'],
    'choice2': raw['alternative2'],
    'question': raw['asks_for'],
    'label': label(raw['most_plausible_alternative'], '1', '2'),
  }


def _wsc(raw: Row) -> Row:
  spans = {
    name: _as_in_text(raw['target'][name], raw['text']) for name in ('span1_text', 'span2_text')
  }
  return {'text': raw['text'], **spans, 'label': label(raw.get('label'), 'False', 'True')}


def _as_in_text(span: str, text: str) -> str:
  """Writes a span as the text does; a few differ in case, line ends or a full stop."""
  words = span.rstrip('.').split()
  found = re.search(r'\s+'.join(map(re.escape, words)), text, re.IGNORECASE)
  return ' '.join(found[0].split()) if found and span not in text else span


def _multirc(raw: Row) -> Iterator[Row]:
  for question in raw['passage']['questions']:
    for answer in question['answers']:
      yield {
        'paragraph': raw['passage']['text'],
        'question': question['question'],
        'answer': answer['text'],
        'label': label(answer.get('label'), 'False', 'True'),
      }


def _record(raw: Row) -> Iterator[Row]:
  text = raw['passage']['text']
  spans = {text[span['start'] : span['end'] + 1] for span in raw['passage']['entities']}
  for question in raw['qas']:
    yield {
      'passage': text,
      'query': question['query'],
      'entities': sorted(spans),
      'answers': sorted({answer['text'] for answer in question.get('answers', ())}),
    }


_MNLI_FILES = {
  'train': ('train.tsv', 'multinli_1.0_train.txt'),
  'validation_matched': ('dev_matched.tsv', 'multinli_1.0_dev_matched.txt'),
  'validation_mismatched': ('dev_mismatched.tsv', 'multinli_1.0_dev_mismatched.txt'),
}
_PREMISE = labelled(*THREE_WAY, of='gold_label', premise='sentence1', hypothesis='sentence2')
_MARKS = {'premise': 'sentence 1: ', 'hypothesis': 'sentence 2: '}


GLUE: Published = {
  'glue/cola': (
    ('CoLA', 'cola_public/raw', 'CoLA/original/raw'),
    (
      Layout(
        files={
          'train': ('train.tsv', 'in_domain_train.tsv'),
          'validation': ('dev.tsv', '*_domain_dev.tsv'),
        },
        read=table('source', 'label', 'mark', 'sentence'),
        row=labelled('unacceptable|0', 'acceptable|1', sentence='sentence'),
      ),
    ),
  ),
  'glue/sst2': (
    ('SST-2',),
    (
      Layout(
        files=TSV,
        read=table(),
        row=labelled('negative|0', 'positive|1', sentence='sentence'),
        has=('sentence', 'label'),
      ),
      Layout(
        files=TSV | {'test': ('test.tsv',)},
        read=table('label', 'sentence'),
        row=labelled('negative|0', 'positive|1', sentence='sentence'),
      ),
    ),
  ),
  'glue/mrpc': (
    ('MRPC', 'mrpc'),
    (
      Layout(
        files=TSV,
        read=table(),
        row=labelled('0', '1', of='Quality', sentence1='#1 String', sentence2='#2 String'),
        has=('Quality', '#1 String'),
      ),
    ),
  ),
  'glue/qqp': (
    ('QQP', 'qqp'),
    (
      _pair('0', '1', of='is_duplicate', first='question1', second='question2'),
      carried('False', 'True', question1='first sentence: ', question2='second sentence: '),
    ),
  ),
  'glue/stsb': (
    ('STS-B',),
    (Layout(files=TSV, read=table(), row=_stsb, has=('sentence1', 'sentence2', 'score')),),
  ),
  'glue/mnli': (
    ('MNLI', 'mnli', 'multinli_1.0'),
    (
      Layout(
        files=_MNLI_FILES,
        read=table(),
        row=_PREMISE,
        has=('sentence1', 'sentence2', 'gold_label'),
      ),
      Layout(
        files={
          split: tuple(name.replace('.txt', '.jsonl') for name in names if name.endswith('.txt'))
          for split, names in _MNLI_FILES.items()
        },
        row=_PREMISE,
      ),
      carried(*THREE_WAY, **_MARKS),
    ),
  ),
  'glue/qnli': (('QNLI',), (_pair(*TWO_WAY, first='question', second='sentence'),)),
  'glue/wnli': (('WNLI',), (_pair('not_entailment|0', 'entailment|1'),)),
  'super_glue/rte': (
    ('RTE',),
    (
      *jsonl(
        labelled(*TWO_WAY, premise='premise', hypothesis='hypothesis'),
        'premise',
        'hypothesis',
        'label',
      ),
      Layout(
        files=TSV,
        read=table(),
        row=labelled(*TWO_WAY, premise='sentence1', hypothesis='sentence2'),
        has=('sentence1', 'sentence2', 'label'),
      ),
      carried(*TWO_WAY, **_MARKS),
    ),
  ),
  'super_glue/cb': (
    ('CB',),
    (
      *jsonl(
        labelled(
          'entailment', 'contradiction', 'neutral', premise='premise', hypothesis='hypothesis'
        ),
        'premise',
        'hypothesis',
        'label',
      ),
      carried('entailment', 'contradiction', 'neutral', **_MARKS),
    ),
  ),
  'super_glue/copa': (
    ('COPA',),
    (
      *jsonl(
        labelled(
          'choice1',
          'choice2',
          premise='premise',
          choice1='choice1',
          choice2='choice2',
          question='question',
        ),
        'choice1',
        'label',
      ),
      # COPA's development set is SuperGLUE's train and validation, in this order.
      Layout(
        files={'train': ('copa-dev.jsonl',), 'validation': ('copa-dev.jsonl',)},
        row=_copa_item,
        part={'train': (0, 400), 'validation': (400, 500)},
      ),
    ),
  ),
  'super_glue/wic': (
    ('WiC',),
    jsonl(
      labelled('False', 'True', word='word', sentence1='sentence1', sentence2='sentence2'),
      'word',
      'label',
    ),
  ),
  'super_glue/wsc.fixed': (('WSC',), jsonl(_wsc, 'target.span1_text')),
  'super_glue/multirc': (('MultiRC',), jsonl(_multirc, 'passage.questions')),
  'super_glue/record': (('ReCoRD',), jsonl(_record, 'qas', 'passage.entities')),
}
