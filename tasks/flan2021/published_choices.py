"""How questions with answers to choose from are published: science, stories, plans, pronouns."""

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from flan_jax.tasks.flan2021.layouts import Layout, Row, table
from flan_jax.tasks.flan2021.published_parts import (
  Published,
  between,
  jsonl,
  label,
  labelled,
  same,
)
from flan_jax.tasks.readers import DataError, lines

_LETTERS = ('A|1', 'B|2', 'C|3', 'D|4', 'E|5')


def _arc(raw: Row) -> Row:
  choices = raw['question']['choices']
  return {
    'question': raw['question']['stem'],
    'choices': {
      'label': [label(choice['label'], *_LETTERS) for choice in choices],
      'text': [choice['text'] for choice in choices],
    },
    'answerKey': label(raw.get('answerKey'), *_LETTERS),
  }


def _openbookqa(raw: Row) -> Row:
  choices = raw['question']['choices']
  named = {
    f'choice_{letter}': choice['text'] for letter, choice in zip('ABCD', choices, strict=True)
  }
  return {
    'question': {'stem': raw['question']['stem'], **named},
    'fact1': raw['fact1'],
    'answerKey': label(raw['answerKey'], *'ABCD'),
  }


def _title_in_passage(passage: str) -> Row:
  """Parts 'Title -- text', as SuperGLUE writes the passages of BoolQ."""
  title, mark, rest = passage.partition(' -- ')
  return {'title': title, 'passage': rest} if mark else {'title': '', 'passage': passage}


def _boolq_of_super_glue(raw: Row) -> Row:
  answer = {'answer': raw['label']}
  return {'question': raw['question'], **_title_in_passage(raw['passage']), **answer}


def _boolq_carried(raw: Row) -> Row:
  question, passage = between(raw['sentence'], 'question: ', 'passage: ')
  answer = bool(label(raw['label'], 'False', 'True'))
  return {'question': question, **_title_in_passage(passage), 'answer': answer}


def _story_cloze(raw: Row) -> Row:
  return {
    'context': ' '.join(raw[f'InputSentence{i}'] for i in range(1, 5)),
    'endings': [raw[f'RandomFifthSentenceQuiz{i}'] for i in (1, 2)],
    'label': int(raw.get('AnswerRightEnding', -1)),
  }


def _hellaswag(raw: Row) -> Row:
  return {'context': raw['ctx'], 'endings': raw['endings'], 'label': raw.get('label', -1)}


def _winogrande(raw: Row) -> Row:
  return {
    **same('sentence', 'option1', 'option2')(raw),
    'label': label(raw.get('answer'), '1', '2'),
  }


def _blocks_of_pronouns(path: Path) -> Iterator[tuple[str, Row]]:
  """Yields blocks of four lines: sentence, pronoun, two candidates with a comma, the right one."""
  block: list[str] = []
  number = 0
  for number, text in lines(path):
    if text.strip():
      block.append(text.strip())
    elif block:
      yield _pronoun_block(path, number - 1, block)
      block = []
  if block:
    yield _pronoun_block(path, number, block)


def _pronoun_block(path: Path, number: int, block: list[str]) -> tuple[str, Row]:
  if len(block) != 4:
    raise DataError(
      f'{path} line {number}: a block of {len(block)} lines ends here; it must have four: '
      'sentence, pronoun, candidates, answer.'
    )
  return f'{path} line {number}', dict(
    zip(('sentence', 'pronoun', 'candidates', 'answer'), block, strict=True)
  )


def _pronoun(raw: Row) -> Row:
  candidates = [candidate.strip() for candidate in raw['candidates'].split(',')]
  right = candidates.index(raw['answer'])
  return {**same('sentence', 'pronoun')(raw), 'candidates': candidates, 'label': right}


def _winograd_schemas(path: Path) -> Iterator[tuple[str, Row]]:
  """Yields the first 273 schemas of WSCollection.xml; those after them came later."""
  try:
    schemas = ElementTree.parse(path).getroot().findall('schema')
  except (OSError, ElementTree.ParseError) as e:
    raise DataError(f'{path} cannot be read as XML: {e}.') from e
  for number, schema in enumerate(schemas[:273], start=1):
    found = {name: _xml_text(schema, f'text/{name}') for name in ('txt1', 'pron', 'txt2')}
    answers = [_one_line(answer.text) for answer in schema.findall('answers/answer')]
    right = _xml_text(schema, 'correctAnswer')
    yield f'{path} schema {number}', {**found, 'answers': answers, 'right': right}


def _xml_text(schema: ElementTree.Element, name: str) -> str:
  return _one_line(schema.findtext(name))


def _one_line(text: str | None) -> str:
  return ' '.join((text or '').split())


def _winograd(raw: Row) -> Row:
  gap = '' if len(raw['txt2']) == 1 else ' '  # a full stop follows the pronoun without a blank
  first, second = (_cased_like(raw['pron'], answer) for answer in raw['answers'])
  return {
    'text': f'{raw["txt1"]} {raw["pron"]}{gap}{raw["txt2"]}',
    'pronoun_text': raw['pron'],
    'option1_normalized': first,
    'option2_normalized': second,
    'label': label(raw['right'][:1], 'A', 'B'),
  }


def _cased_like(pronoun: str, name: str) -> str:
  """Writes an article or possessive at the beginning of a name with the pronoun's case."""
  word, _, rest = name.partition(' ')
  if word.lower() in ('the', 'his', 'my', 'her', 'their', 'an', 'a'):
    word = word.lower() if pronoun[0].islower() else word.capitalize()
  return f'{word} {rest}' if rest else word


_PIQA = {'train': ('train.jsonl',), 'validation': ('dev.jsonl', 'valid.jsonl', 'validation.jsonl')}


_BOOLQ = same('question', 'title', 'passage', 'answer')

CHOICES: Published = {
  **{
    f'ai2_arc/{name}': (
      (name, f'ARC-V1-Feb2018-2/{name}'),
      jsonl(
        _arc,
        'question.stem',
        files={'train': (f'{name}-Train.jsonl',), 'validation': (f'{name}-Dev.jsonl',)},
      ),
    )
    for name in ('ARC-Challenge', 'ARC-Easy')
  },
  'openbookqa': (
    ('OpenBookQA-V1-Sep2018/Data/Additional',),
    jsonl(
      _openbookqa,
      'question.choices',
      files={'train': ('train_complete.jsonl',), 'validation': ('dev_complete.jsonl',)},
    ),
  ),
  'cosmos_qa': (
    ('cosmosqa/data',),
    (
      Layout(
        files={'train': ('train.csv',), 'validation': ('valid.csv',)},
        read=table(delimiter=',', quoted=True),
        row=labelled(
          *'0123',
          context='context',
          question='question',
          **{f'answer{i}': f'answer{i}' for i in range(4)},
        ),
        has=('context', 'answer0', 'label'),
      ),
    ),
  ),
  'bool_q': (
    ('boolq', 'BoolQ'),
    (
      *jsonl(_BOOLQ, 'title', 'answer'),
      *jsonl(_boolq_of_super_glue, 'passage', 'label'),
      Layout(files={'validation': ('dev.json',)}, row=_boolq_carried, has=('sentence', 'label')),
    ),
  ),
  'unified_qa/ai2_science_middle': (
    ('ai2_science_middle',),
    (
      Layout(
        files={'train': ('train.tsv',), 'validation': ('dev.tsv',)},
        read=table('input', 'output', quoted=True),
        row=same('input', 'output'),
      ),
    ),
  ),
  'story_cloze/2016': (
    (),
    (
      Layout(
        files={
          'validation': ('cloze_test_val__spring2016.csv',),
          'test': ('cloze_test_test__spring2016.csv',),
        },
        read=table(delimiter=',', quoted=True),
        row=_story_cloze,
      ),
    ),
  ),
  'piqa': (
    ('physicaliqa-train-dev',),
    (
      Layout(
        files=_PIQA,
        row=labelled('0', '1', of='companion', goal='goal', sol1='sol1', sol2='sol2'),
        companion=('.jsonl', '-labels.lst'),
      ),
    ),
  ),
  'hellaswag': (
    (),
    jsonl(
      _hellaswag,
      'ctx',
      'endings',
      files={'train': ('hellaswag_train.jsonl',), 'validation': ('hellaswag_val.jsonl',)},
    ),
  ),
  'winogrande': (
    ('winogrande_1.1',),
    jsonl(
      _winogrande,
      'sentence',
      'answer',
      files={'train_xl': ('train_xl.jsonl',), 'validation': ('dev.jsonl',)},
    ),
  ),
  'definite_pronoun_resolution': (
    (),
    (Layout(files={'train': ('train.c.txt',)}, read=_blocks_of_pronouns, row=_pronoun),),
  ),
  'wsc273': (
    (),
    (Layout(files={'test': ('WSCollection.xml',)}, read=_winograd_schemas, row=_winograd),),
  ),
}
