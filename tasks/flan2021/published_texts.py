"""How sets whose answers are texts are published: summaries, text from data, dialogs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flan_jax.tasks.flan2021.layouts import Layout, Reader, Row, document, table
from flan_jax.tasks.flan2021.published_parts import Published, aligned, jsonl, same
from flan_jax.tasks.readers import DataError, lines


def _mail(path: Path) -> Iterator[tuple[str, Row]]:
  """Yields a mail: its body, a blank line, '@subject' and its subject, then what others wrote."""
  parts: list[list[str]] = [[]]
  for _, text in lines(path):
    if text.strip():
      parts[-1].append(text)
    else:
      parts.append([])
  if len(parts) < 2 or len(parts[1]) < 2:
    raise DataError(f'{path} is no mail of AESLC: no line "@subject" with a subject below it.')
  yield str(path), {'body': '\n'.join(parts[0]), 'subject': '\n'.join(parts[1][1:])}


def _opinions(opinions: str) -> Any:
  """Returns the function that turns the object of opinions into keys and values, as TFDS does."""

  def row(raw: Row) -> Row:
    found = raw[opinions]
    return {**raw, opinions: {'key': list(found), 'value': list(found.values())}}

  return row


def _multi_news(raw: Row) -> Row:
  document = raw['line'].strip().replace('NEWLINE_CHAR', '\n')
  return {'document': document, 'summary': raw['companion'].strip()}


def _gigaword(raw: Row) -> Row:
  source, target = (raw[name].strip().replace('<unk>', 'UNK') for name in ('line', 'companion'))
  return {'document': source, 'summary': target}


def _wiki_lingua(raw: Row) -> Row:
  return {'source': raw['line'].strip(), 'target': raw['companion'].strip(), 'references': []}


def _common_gen(raw: Row) -> Iterator[Row]:
  concepts = raw['concept_set'].split('#')
  for scene in raw['scene']:
    yield {'concepts': concepts, 'target': scene, 'references': []}


def _common_gen_validation(raw: Row) -> Row:
  scenes = raw['scene']
  return {'concepts': raw['concept_set'].split('#'), 'target': scenes[0], 'references': scenes}


def _dart(raw: Row) -> Iterator[Row]:
  for found in _dart_texts(raw):
    yield {'tripleset': _flat(raw), 'target': found, 'references': []}


def _dart_validation(raw: Row) -> Row:
  found = _dart_texts(raw)
  return {'tripleset': _flat(raw), 'target': found[0] if found else '', 'references': found}


def _flat(raw: Row) -> list[str]:
  """Writes the parts of a triple with blanks between them: so TFDS has them."""
  return [' '.join(triple) for triple in raw['tripleset']]


def _dart_texts(raw: Row) -> list[str]:
  return [annotation['text'] for annotation in raw['annotations']]


def _e2e(raw: Row) -> Row:
  return {'meaning_representation': raw['mr'], 'target': raw['ref'], 'references': []}


def _web_nlg(raw: Row) -> Iterator[Row]:
  for target in raw['target']:
    yield {'input': raw['input'], 'target': target, 'references': []}


def _web_nlg_validation(raw: Row) -> Row:
  found = raw['target']
  return {'input': raw['input'], 'target': found[0] if found else '', 'references': found}


def _either(train: Any, validation: Any, files: tuple[str, str], **others: Any):
  """Returns the layouts of GEM: in train a row for each text, in validation one for all of them."""
  return (
    Layout(files={'train': (files[0],)}, row=train, **others),
    Layout(files={'validation': (files[1],)}, row=validation, **others),
  )


def _qrecc(raw: Row) -> Row:
  return {
    'context': raw['Context'],
    'question': raw['Question'],
    'answer': raw['Answer'],
    'conversation_id': raw['Conversation_no'],
    'turn_id': raw['Turn_no'],
  }


def _lists(*names: str) -> Reader:
  """Returns the reader of a JSON document that is a list, or has it under one of `names`."""

  def walk(content: Any) -> Any:
    for name in names:
      content = content[name]
    return content

  return document(walk)


_NEWS = {'train': ('train.src.cleaned', 'train.src'), 'validation': ('val.src.cleaned', 'val.src')}


TEXTS: Published = {
  'aeslc': (
    ('AESLC/enron_subject_line', 'AESLC-master/enron_subject_line'),
    (
      Layout(
        files={'train': ('train/*.subject',), 'validation': ('dev/*.subject',)},
        read=_mail,
        row=same(email_body='body', subject_line='subject'),
      ),
    ),
  ),
  'gigaword': (
    ('org_data', 'gigaword/org_data'),
    (
      aligned(
        {'train': ('train.src.txt',), 'validation': ('dev.src.txt',)}, ('.src.', '.tgt.'), _gigaword
      ),
    ),
  ),
  'multi_news': (
    (),
    (
      aligned(
        {split: names[:1] for split, names in _NEWS.items()}, ('.src.cleaned', '.tgt'), _multi_news
      ),
      aligned({split: names[1:] for split, names in _NEWS.items()}, ('.src', '.tgt'), _multi_news),
    ),
  ),
  'newsroom': (
    (),
    jsonl(
      same('text', 'title', 'summary'),
      'text',
      'title',
      'summary',
      files={'train': ('train.jsonl',), 'validation': ('dev.jsonl',)},
    ),
  ),
  'opinion_abstracts/rotten_tomatoes': (
    ('opinion_abstracts',),
    (Layout(files={'train': ('rottentomatoes.json',)}, read=_lists(), row=_opinions('_critics')),),
  ),
  'opinion_abstracts/idebate': (
    ('opinion_abstracts',),
    (
      Layout(
        files={'train': ('idebate.json',)}, read=_lists(), row=_opinions('_argument_sentences')
      ),
    ),
  ),
  'samsum': (
    ('corpus',),
    (
      Layout(
        files={'train': ('train.json',), 'validation': ('val.json',)},
        row=same('id', 'dialogue', 'summary'),
        has=('dialogue', 'summary'),
      ),
    ),
  ),
  'gem/wiki_lingua_english_en': (
    ('english', 'wiki_lingua/english'),
    (
      aligned(
        {'train': ('train.src.en',), 'validation': ('val.src.en',)},
        ('.src.', '.tgt.'),
        _wiki_lingua,
      ),
    ),
  ),
  'gem/common_gen': (
    ('commongen_data', 'commongen'),
    _either(_common_gen, _common_gen_validation, ('commongen.train.jsonl', 'commongen.dev.jsonl')),
  ),
  'gem/dart': (
    ('dart/data/v1.1.1',),
    _either(
      _dart,
      _dart_validation,
      ('dart-v1.1.1-full-train.json', 'dart-v1.1.1-full-dev.json'),
      read=_lists(),
    ),
  ),
  'gem/e2e_nlg': (
    ('e2e-cleaning/cleaned-data', 'e2e-dataset'),
    (
      Layout(
        # TFDS has the cleaned files; those of the challenge itself have the same columns.
        files={
          'train': ('train-fixed.no-ol.csv', 'trainset.csv'),
          'validation': ('devel-fixed.no-ol.csv', 'devset.csv'),
        },
        read=table(delimiter=',', quoted=True),
        row=_e2e,
        has=('mr', 'ref'),
      ),
    ),
  ),
  'gem/web_nlg_en': (
    (),
    _either(
      _web_nlg,
      _web_nlg_validation,
      ('webnlg_en_train.json', 'webnlg_en_val.json'),
      read=_lists('values'),
    ),
  ),
  'q_re_cc': (
    ('qrecc_data',),
    (
      Layout(
        files={'train': ('qrecc_train.json',), 'test': ('qrecc_test.json',)},
        read=_lists(),
        row=_qrecc,
      ),
    ),
  ),
  'huggingface:taskmaster1/one_person_dialogs': (
    ('TM-1-2019', 'taskmaster'),
    (
      Layout(
        files={'train': ('self-dialogs.json',)},
        read=_lists(),
        row=same('conversation_id', 'utterances'),
      ),
    ),
  ),
}
