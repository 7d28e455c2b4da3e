"""How questions that are answered freely are published: about a text, from memory, sums."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flan_jax.tasks.flan2021.layouts import Layout, Row, document, text_lines
from flan_jax.tasks.flan2021.published_parts import Published, jsonl, same
from flan_jax.tasks.readers import DataError


def _squad_questions(content: Any) -> Iterator[Row]:
  for article in content['data']:
    for paragraph in article['paragraphs']:
      for question in paragraph['qas']:
        shared = {'title': article.get('title', ''), 'context': paragraph['context']}
        yield {'section_title': article.get('section_title', ''), **article, **shared, **question}


def _answers(found: list[Row]) -> Row:
  return {name: [answer[name] for answer in found] for name in ('text', 'answer_start')}


def _squad(raw: Row) -> Row:
  row = same('id', 'title', 'context', 'question')(raw)
  return {**row, 'answers': _answers(raw['answers'])}


def _quac(raw: Row) -> Row:
  row = same('title', 'section_title', 'background', 'context', 'question', 'orig_answer')(raw)
  return {**row, 'answers': _answers(raw['answers'])}


def _drop_questions(content: Any) -> Iterator[Row]:
  for passage in content.values():
    for question in passage['qa_pairs']:
      yield {'passage': passage['passage'], **question}


def _drop(raw: Row) -> Row:
  return {
    'passage': raw['passage'],
    'question': raw['question'],
    'answer': _drop_answer(raw['answer']),
    'validated_answers': [_drop_answer(found) for found in raw.get('validated_answers') or ()],
  }


def _drop_answer(found: Row) -> str:
  """Takes the number, a date with its day, or the first span, as TFDS does."""
  date = found.get('date') or {}
  if found.get('number'):
    return found['number']
  if date.get('day'):
    return '-'.join(date[part] for part in ('year', 'month', 'day'))
  return next(iter(found.get('spans') or ()), '')


def _coqa(raw: Row) -> Row:
  return {
    'story': raw['story'],
    'questions': [question['input_text'] for question in raw['questions']],
    'answers': {'input_text': [answer['input_text'] for answer in raw['answers']]},
  }


def _trivia_qa(raw: Row) -> Row:
  answer = raw.get('Answer') or {'Value': '<unk>'}
  found = {'value': answer['Value'].strip(), 'aliases': answer.get('Aliases', [])}
  return {'question': raw['Question'].strip(), 'answer': found}


def _pairs_of_lines(path: Path) -> Iterator[tuple[str, Row]]:
  """Yields questions and answers that stand on lines of their own, one after the other."""
  question = None
  for place, row in text_lines(path):
    if not row['line'].strip():
      continue
    if question is None:
      question = row['line']
    else:
      yield place, {'question': question, 'answer': row['line']}
      question = None
  if question is not None:
    raise DataError(f'{path} ends with a question without its answer: {question!r:.60}.')


def _documents(
  train: str, validation: str, walk: Any, row: Any, split: str = 'validation'
) -> tuple[Layout, ...]:
  files = {'train': (train,), split: (validation,)}
  return (Layout(files=files, read=document(walk), row=row),)


QUESTIONS: Published = {
  'squad/v1.1': (
    ('squad', 'squad_v1.1_dev_subset'),
    (
      *_documents('train-v1.1.json', 'dev-v1.1.json', _squad_questions, _squad),
      # XQuAD's English part is a fifth of the development set.
      *_documents('', 'xquad.en.json', _squad_questions, _squad),
    ),
  ),
  'squad/v2.0': (
    ('squad', 'squad2'),
    _documents('train-v2.0.json', 'dev-v2.0.json', _squad_questions, _squad),
  ),
  'quac': ((), _documents('train_v0.2.json', 'val_v0.2.json', _squad_questions, _quac)),
  'drop': (
    ('drop_dataset',),
    _documents(
      'drop_dataset_train.json', 'drop_dataset_dev.json', _drop_questions, _drop, split='dev'
    ),
  ),
  'coqa': (
    (),
    _documents(
      'coqa-train-v1.0.json',
      'coqa-dev-v1.0.json',
      lambda content: content['data'],
      _coqa,
      split='test',
    ),
  ),
  'natural_questions_open': (
    ('nq_open',),
    jsonl(
      same('question', 'answer'),
      'question',
      'answer',
      files={'train': ('NQ-open.train.jsonl',), 'validation': ('NQ-open.dev.jsonl',)},
    ),
  ),
  'trivia_qa/rc.nocontext': (
    ('triviaqa-rc/qa', 'trivia_qa/qa', 'qa'),
    (
      Layout(
        files={'train': ('*-train.json',), 'validation': ('*-dev.json',)},
        read=document(lambda content: content['Data']),
        row=_trivia_qa,
      ),
    ),
  ),
  'math_dataset/algebra__linear_1d': (
    ('mathematics_dataset-v1.0',),
    (
      Layout(
        files={'train': ('train-*/algebra__linear_1d.txt',)},
        read=_pairs_of_lines,
        row=same('question', 'answer'),
      ),
    ),
  ),
  'lambada': (
    ('lambada-dataset',),
    (
      Layout(
        files={
          'train': ('lambada_development_plain_text.txt',),
          'test': ('lambada_test_plain_text.txt',),
        },
        read=text_lines,
        row=same(passage='line'),
      ),
    ),
  ),
}
