"""Contamination: planted copies are found, unrelated text is not, and every file format is read."""

import io
import json
import random
import re
from collections import Counter
from functools import partial

import pytest

from flan_jax import main
from flan_jax.console import console
from flan_jax.data import catalogue, contamination_texts, decontamination
from flan_jax.data.cache import TaskCache, TaskCacheWriter, initialize_cache, read_manifest
from flan_jax.data.cache_layout import sealed
from flan_jax.data.contamination import ContaminationConfig, contamination
from flan_jax.data.contamination_index import (
  COVERED,
  LONG,
  MOST,
  SIMILAR,
  WHOLE,
  ContaminationIndex,
  words_of,
)
from flan_jax.data.contamination_texts import ContaminationError, EvaluationRow
from flan_jax.data.mixture import ExamplesProportional, Mixture
from flan_jax.data.prepare import PrepareConfig, prepare
from flan_jax.data.vocabularies import ByteVocabulary

HARM = '<script>alert("x")</script>[bold]no[/bold]\x1b[2J\u202e{{ 7 * 7 }}'

START, MIDDLE = ('b', 'd', 'gr', 'k', 'l', 'm', 'pl', 's', 'tr', 'v'), ('a', 'e', 'i', 'o', 'u')
END = ('ck', 'dle', 'ft', 'lk', 'mp', 'nd', 'rn', 'st', 'tch', 'zz')
NOUNS = [f'{a}{b}{c}' for a in START for b in MIDDLE for c in END]
VERBS = 'buys|sells|counts|paints|loses|carries|borrows|hides|repairs|measures'.split('|')
SMALL = 'the|the|a|of|in|to|and|that|is|for|with|on|at|by|from|each|more|than|has|are'.split('|')
WRAPPED = (
  'Read the problem and work it out in plain steps, then say what you found.\n\n{}\n\n'
  'First we add what is there. Then we take away what was used, so the answer is {}.'
)


def phrase(rng):
  """Three to six words, half of them so frequent that they are in every text."""
  return ' '.join(rng.choice(rng.choice((NOUNS, SMALL))) for _ in range(rng.randint(3, 6)))


def sentence(rng):
  number, noun = rng.randint(2, 90), rng.choice(NOUNS)
  return rng.choice(
    [
      f'{noun} {rng.choice(VERBS)} {number} {phrase(rng)}, and each of them costs {phrase(rng)}.',
      f'{phrase(rng)}, a friend takes {number} of the {noun} that {phrase(rng)}.',
      f'If there are {number} {phrase(rng)}, then how many are left over, {phrase(rng)}?',
      f'{phrase(rng)}; it {rng.choice(VERBS)} the {noun} at the end of {phrase(rng)}.',
    ]
  )


def problem(rng):
  """A made-up problem of 25 to 90 words; two of them share turns of phrase."""
  question = rng.choice(['How many are left?', 'What is the total?', 'Who has the most?'])
  return ' '.join([*(sentence(rng) for _ in range(rng.randint(2, 4))), question])


def index_of(*texts):
  return ContaminationIndex(
    EvaluationRow('made', f'line {i}', (text,)) for i, text in enumerate(texts, start=1)
  )


@pytest.fixture(scope='module')
def made():
  """300 evaluation texts and their index."""
  rng = random.Random(7)
  texts = [problem(rng) for _ in range(300)]
  return texts, index_of(*texts)


def share_found(made, edit):
  """Which share of the evaluation texts is found in an example that holds an edited copy."""
  texts, index = made
  rng = random.Random(3)
  found = 0
  for number, text in enumerate(texts):
    example = WRAPPED.format(edit(text, rng), rng.randint(0, 99))
    found += number in {match.text for match in index.matches(words_of(example))}
  return found / len(texts)


def change_words(text, rng, every=12):
  """Replaces, drops or adds one word in so many."""
  words = text.split()
  for _ in range(max(1, len(words) // every)):
    at, how = rng.randrange(len(words)), rng.random()
    if how < 0.2:
      del words[at]
    elif how < 0.4:
      words.insert(at, 'really')
    else:
      words[at] = rng.choice(['some', 'green', 'seven', 'quickly', 'Bob'])
  return ' '.join(words)


def change_punctuation(text, rng):
  return re.sub(r'[.,;?]', lambda _: rng.choice(['', ' -', '...', '!']), text).replace(' ', '  ')


def swap_clauses(text, rng):
  """Puts the second part of a text before the first, at a full stop or a comma."""
  cuts = [match.end() for match in re.finditer(r'[.,;] ', text)]
  cut = rng.choice(cuts)
  return f'{text[cut:]} {text[:cut]}'


def change_all(text, rng):
  return change_punctuation(swap_clauses(change_words(text, rng), rng), rng).upper()


def test_verbatim_copies_are_found(made):
  assert share_found(made, lambda text, _: text) >= 0.99


@pytest.mark.parametrize(
  'edit',
  [change_words, lambda text, _: text.swapcase(), change_punctuation, swap_clauses, change_all],
  ids=['words', 'case', 'punctuation', 'order', 'all'],
)
def test_light_edits_are_found(made, edit):
  assert share_found(made, edit) >= 0.95


def test_unrelated_text_of_the_same_kind_is_left_alone(made):
  texts, index = made
  rng = random.Random(11)
  alarms = Counter()
  for _ in range(1000):
    example = problem(rng)
    assert example not in texts
    alarms.update({m.test for m in index.matches(words_of(WRAPPED.format(example, 5)))})
  assert sum(alarms.values()) <= 1, alarms


def swap_halves(text, _):
  """Swaps the halves where they meet, as short texts have no clauses."""
  words = text.split()
  return ' '.join([*words[len(words) // 2 :], *words[: len(words) // 2]])


def change_all_of_a_short_text(text, rng):
  return change_punctuation(swap_halves(change_words(text, rng, every=10), rng), rng).upper()


REAL_EDITS = {
  'none': lambda text, _: text,
  'words': partial(change_words, every=10),
  'more words': partial(change_words, every=7),
  'order': swap_halves,
  'all': change_all_of_a_short_text,
}
REAL_LENGTHS = ((10, 12), (13, 15), (16, 20), (21, 40), (41, 400))


@pytest.fixture(scope='module')
def real(shared):
  """For each of REAL_LENGTHS 60 texts of benchmarks, and an index of all."""
  files = contamination_texts.find_files([shared(f'data/eval/{name}') for name in ('bbh', 'mmlu')])
  of_length = {lengths: {} for lengths in REAL_LENGTHS}
  for row in contamination_texts.read_rows(files):
    for text in row.texts:
      words = words_of(text)
      for least, most in REAL_LENGTHS:
        if least <= len(words) <= most:
          of_length[least, most][tuple(words)] = text
  rng = random.Random(1)
  texts = {lengths: rng.sample(list(of_length[lengths].values()), 60) for lengths in of_length}
  return texts, index_of(*(text for found in texts.values() for text in found))


@pytest.mark.parametrize('edit', REAL_EDITS)
def test_light_edits_of_real_texts_of_every_length_are_found(real, edit):
  of_length, index = real
  numbers = {text.text: number for number, text in enumerate(index.texts)}
  rng = random.Random(3)
  for lengths, texts in of_length.items():
    found = 0
    for text in texts:
      example = WRAPPED.format(REAL_EDITS[edit](text, rng), rng.randint(0, 99))
      found += numbers[text] in {match.text for match in index.matches(words_of(example))}
    assert found / len(texts) >= (0.99 if edit == 'none' else 0.95), lengths


def test_real_texts_that_are_not_in_training_data_are_not_found_there(real, shared):
  _, index = real
  for path in sorted(shared('data/cot/flan_v2').glob('*_train.tsv')):
    for line in path.read_text(encoding='utf-8').splitlines()[::10]:
      assert not index.matches(words_of(line.replace('\\n', '\n'))), line


@pytest.mark.parametrize(
  ('text', 'words'),
  [
    ("Don't pay 1,000 €, JANE’S “bill”!", 'dont pay 1000 janes bill'),
    ('ﬁne  ＡＢＣ\t½\u00a0cup', 'fine abc 1 2 cup'),
    ('co\u00adoperate\u200b well-known snake_case', 'cooperate well known snake case'),
    ('Straße ÉCOLE', 'strasse école'),
    ('小明有3个apple。', '小 明 有 3 个 apple'),
    ('ข้าว', 'ข ้ า ว'),
    ('দুই কেজি', 'দুই কেজি'),
    ('half a pair: \ud800!', 'half a pair'),
    (' \n.,;', ''),
  ],
)
def test_words_are_folded(text, words):
  assert words_of(text) == words.split()


ALPHABET = [f'{a}{b}' for a in 'bcdfghklmn' for b in ('ack', 'ell', 'ing', 'ost', 'und', 'imp')]


def found_in(text, example):
  found = index_of(' '.join(text)).matches(words_of(f'zero one {" ".join(example)} two three'))
  assert len(found) == len({match.test for match in found})
  return {match.test: match for match in found}


def test_thirteen_words_of_a_long_text_are_told_apart_from_its_half():
  text = ALPHABET[:60]
  assert set(found_in(text, text[20:32])) == set()
  found = found_in(text, text[20:33])
  assert set(found) == {LONG}
  assert (found[LONG].score, found[LONG].start, found[LONG].end) == (13, 2, 15)


def test_coverage_counts_eight_grams_in_any_place():
  text = ALPHABET[:25]
  # Two runs of 12 hold 10 of the 18 8-grams, but no 13-gram; runs of 11 and 12 hold 9.
  found = found_in(text, [*text[13:], 'other', *text[:12]])
  assert found[COVERED].score == pytest.approx(10 / 18)
  assert LONG not in found
  assert COVERED in found_in(text, [*text[13:], 'other', *text[:11]])
  assert COVERED not in found_in(text, [*text[14:], 'other', *text[:11]])


def test_a_repeated_eight_gram_covers_each_place_once():
  # 8 words, three times: every 8-gram of the text is among those of two copies.
  found = found_in(ALPHABET[:8] * 3, ALPHABET[:8] * 2)
  assert found[COVERED].score == 1.0


def test_similarity_is_jaccard_of_the_best_stretch():
  text = ALPHABET[:50]
  edited = [f'other{i}' if i % 10 == 9 else word for i, word in enumerate(text)]
  found = found_in(text, edited)
  # Each changed word but the last costs three of 48 shingles, on both sides.
  kept = 48 - 4 * 3 - 1
  assert set(found) == {SIMILAR}
  assert found[SIMILAR].score == pytest.approx(kept / (2 * 48 - kept))
  assert (found[SIMILAR].start, found[SIMILAR].end) in [(s, s + 50) for s in range(1, 5)]


@pytest.mark.parametrize('length', [8, 9])
def test_the_shortest_texts_must_be_there_with_all_their_words(length):
  text = ALPHABET[:length]
  assert set(found_in(text, text)) == {MOST, WHOLE}
  assert set(found_in(text, [*text[4:], *text[:4]])) == {MOST}
  assert not found_in(text, [*text[:4], 'other', *text[5:]])
  assert not found_in(text, text[1:])


@pytest.mark.parametrize(('length', 'changed'), [(10, 1), (12, 1), (13, 2), (20, 4), (40, 8)])
def test_of_a_short_text_most_words_are_enough(length, changed):
  text = ALPHABET[:length]

  def with_others(count):
    return [f'other{i}' if i < count else word for i, word in enumerate(text)]

  found = found_in(text, with_others(changed))
  assert found[MOST].score == (length - changed) / length
  assert found[MOST].end - found[MOST].start == length
  assert MOST not in found_in(text, with_others(changed + 1))
  # The same words in another order are another text.
  assert not found_in(text, random.Random(1).sample(text, length))


def test_a_turn_of_phrase_is_no_text():
  index = index_of('Which one of the following is NOT a centripetal force in a state?')
  example = (
    'Which one of the following is not a prime number?\nOptions:\n- 31\n- a force in a state'
  )
  assert not index.matches(words_of(example))


def test_a_text_of_few_different_words_is_not_found_by_its_words():
  index = index_of('not ( True ) and not ( False ) or not ( True and False ) is')
  assert not index.matches(words_of('not ( False or True ) and not ( True ) or not False is'))


def test_texts_of_seven_words_are_not_compared():
  assert not index_of(' '.join(ALPHABET[:7]), ' '.join(ALPHABET[:9])).matches(ALPHABET[:8])
  with pytest.raises(ContaminationError, match='None of the 1 rows of made has a text of 8 words'):
    index_of('Yes')


def test_scripts_without_blanks_are_compared_by_character():
  text = '小明有三个苹果和五个梨他一共有多少个水果'
  example = words_of(f'请回答:{text[:9]}、{text[9:]}?答案是八')
  found = {match.test for match in index_of(text).matches(example)}
  assert found == {LONG, COVERED, SIMILAR, MOST}


def test_an_example_of_hundreds_of_thousands_of_words_is_searched():
  rng = random.Random(5)
  text = ALPHABET[:40]
  words = [rng.choice(ALPHABET) for _ in range(300_000)]
  words[200_000:200_040] = text
  found = {match.test for match in index_of(' '.join(text)).matches(words)}
  assert found == {LONG, COVERED, SIMILAR, MOST}


LONG_TEXT = (
  'Nine hungry foxes walk past the old stone bridge and count every duck that swims there.'
)


def read(*paths):
  return list(contamination_texts.read_rows(contamination_texts.find_files(paths)))


@pytest.mark.parametrize(
  ('name', 'content', 'rows'),
  [
    ('a.jsonl', '\ufeff{"q": "one", "n": 3, "o": ["two", {"x": "three"}]}\n\n"four"\n',
     [('line 1', ('one', 'two', 'three')), ('line 3', ('four',))]),
    ('a.tsv', 'one\t18\r\ntwo\t\n', [('line 1', ('one', '18')), ('line 2', ('two',))]),
    ('a.csv', '"o, ""ne""\nmore",A\ntwo,B\n',
     [('line 1', ('o, "ne"\nmore', 'A')), ('line 3', ('two', 'B'))]),
    ('a.txt', 'one\n\n two\u2028more\n', [('line 1', ('one',)), ('line 3', (' two\u2028more',))]),
    ('a.json', '["one", {"q": "two"}]', [('[0]', ('one',)), ('[1]', ('two',))]),
    ('a.json', '{"canary": "no", "examples": [{"input": "one", "target": "A"}]}',
     [('canary', ('no',)), ('examples[0]', ('one', 'A'))]),
    ('a.json', '{"data": [{"title": "t", "paragraphs": [{"context": "c", "qas": ['
     '{"id": "7", "question": "q", "answers": [{"text": "a", "answer_start": 0}]},'
     '{"question": "r"}]}]}]}',
     [('data[0].title', ('t',)), ('7', ('c', '7', 'q', 'a')),
      ('data[0].paragraphs[0].qas[1]', ('c', 'r'))]),
    ('a.json', '{"q": "one"}\n{"q": "two"}\n', [('line 1', ('one',)), ('line 2', ('two',))]),
    ('a.json', '{"es": {"1": {"q": "one"}}, "n": [1, 2]}', [('es.1.q', ('one',))]),
  ],
)  # fmt: skip
def test_rows_are_found_by_structure(tmp_path, name, content, rows):
  path = tmp_path / name
  path.write_bytes(content.encode())
  assert read(path) == [EvaluationRow('a', row, texts) for row, texts in rows]


def test_folders_give_a_set_for_each_file_below_them(tmp_path):
  for name in ('bbh/one.json', 'bbh/deep/two.tsv', 'bbh/README.md', 'bbh/.git/x.txt', 'c/bbh.txt'):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text('"text"', encoding='utf-8')
  names = [row.set_name for row in read(tmp_path / 'bbh')]
  assert names == ['bbh/deep/two', 'bbh/one']
  files = contamination_texts.find_files([tmp_path / 'bbh', tmp_path / 'c' / 'bbh.txt'])
  assert len({file.group for file in files}) == 2
  with pytest.raises(ContaminationError, match=r"bbh.txt' is given twice"):
    read(tmp_path / 'c' / 'bbh.txt', tmp_path / 'c' / 'bbh.txt')


@pytest.mark.parametrize(
  ('name', 'content', 'sentence'),
  [
    ('a.jsonl', b'', r"file '.*a\.jsonl' is empty"),
    ('a.txt', b' \n\n', r"file '.*a\.txt' is empty"),
    ('a.txt', b'fine\nPK\x00\x01', r"a\.txt' line 2 is not text: byte 0x00 at byte 8"),
    ('a.csv', b'fine\n\xff\xfe', r"a\.csv' line 2 is not text: byte 0xff at byte 6"),
    ('a.parquet', b'PAR1', r"ends in '\.parquet'; an evaluation file ends in \.jsonl, "),
    ('a.jsonl', b'{"q": "one"}\n{"q": "two"\n', r"a\.jsonl' line 2 column 12 is not JSON"),
    ('a.json', b'{\n"q": one}', r"a\.json' line 2 column 6 is not JSON"),
    ('a.json', b'{"q": "one"}\n{"q": two}', r"a\.json' line 2 column 7 is not JSON"),
    ('a.json', b'[' * 100_000, r"a\.json' cannot be read as JSON"),
    ('a.csv', b'a,b\n"x"y,b\n', r"a\.csv' line 2 is not CSV"),
  ],
)
def test_bad_files_are_named_with_their_line(tmp_path, name, content, sentence):
  path = tmp_path / name
  path.write_bytes(content)
  with pytest.raises(ContaminationError, match=sentence):
    read(path)


def test_bad_paths_are_named(tmp_path):
  (tmp_path / 'questions.txt').write_text('one', encoding='utf-8')
  with pytest.raises(ContaminationError, match=r"no evaluation set .* Did you mean 'questions"):
    read(tmp_path / 'question.txt')
  (tmp_path / 'folder').mkdir()
  (tmp_path / 'folder' / 'picture.png').write_bytes(b'\x89PNG')
  with pytest.raises(ContaminationError, match='holds no evaluation file; such end in .jsonl'):
    read(tmp_path / 'folder')
  with pytest.raises(ContaminationError, match='No evaluation set is named'):
    read()


@pytest.fixture
def cache(tmp_path):
  """A cache of two tasks; 'taught' holds one evaluation text twice and another with edits."""
  rng = random.Random(2)
  vocabulary, folder = ByteVocabulary(), tmp_path / 'cache'
  initialize_cache(folder, vocabulary)
  edited = LONG_TEXT.replace('foxes', 'wolves').upper()
  tasks = {
    'clean': [problem(rng) for _ in range(20)],
    'taught': [problem(rng), LONG_TEXT, HARM + LONG_TEXT, edited, problem(rng)],
  }
  for task, texts in tasks.items():
    with TaskCacheWriter(folder, task, 'train') as writer:
      for i, text in enumerate(texts):
        ids = [*vocabulary.encode(f'Here it is:\n{text}'), 1]
        writer.add(ids, [*vocabulary.encode('four'), 1], {'id': f'row-{i}', 'template': 't'})
      writer.finish({'collection': 'made'})
  mixture = Mixture.of('both', {task: ExamplesProportional() for task in tasks})
  (folder / 'mixtures').mkdir()
  path = folder / 'mixtures' / 'both.json'
  path.write_text(json.dumps(mixture.to_json()), encoding='utf-8')
  return folder


def examined(cache, against, **settings):
  text = io.StringIO()
  settings = {'mixture': 'both', **settings}
  config = ContaminationConfig(cache_dir=str(cache), against=(str(against),), **settings)
  return contamination(config, out=console(text)), text.getvalue()


def test_the_report_counts_examples_and_rows_by_task_set_and_test(cache, tmp_path):
  against = tmp_path / 'exam'
  against.mkdir()
  (against / 'foxes.tsv').write_text(f'{LONG_TEXT}\t4\nShort\t5\n', encoding='utf-8')
  (against / 'other.txt').write_text('Who are you?\n', encoding='utf-8')
  result, printed = examined(cache, against)
  clean, taught = result.tasks
  assert (clean.task, clean.num_examples, clean.examples) == ('clean', 20, 0)
  assert (taught.num_examples, taught.examples) == (5, 3)
  assert taught.by_test == {LONG: 3, COVERED: 3, SIMILAR: 3, MOST: 3, WHOLE: 0}
  (exam,) = result.sets
  assert (exam.files, exam.num_rows, exam.comparable, exam.rows) == (2, 3, 1, 1)
  assert {(o.task, o.evaluation_set, o.test) for o in result.overlaps} == {
    ('taught', 'exam/foxes', test) for test in (LONG, COVERED, SIMILAR, MOST)
  }
  long = next(o for o in result.overlaps if o.test == LONG)
  assert {(s.example, s.row, s.score) for s in long.samples} == {
    ('row-1', 'line 1', 16.0),
    ('row-2', 'line 1', 16.0),
    ('row-3', 'line 1', 13.0),
  }
  assert 'examples/s' in printed and "taught 'row-1', exam/foxes line 1" in printed
  assert 'No row of exam/other has a text of 8 words' in printed


def test_a_set_of_one_row_and_one_task_is_enough(cache, tmp_path):
  path = tmp_path / 'one.txt'
  path.write_text(LONG_TEXT, encoding='utf-8')
  result, _ = examined(cache, path, mixture='taught', samples=1)
  assert [(s.name, s.num_rows, s.rows) for s in result.sets] == [('one', 1, 1)]
  assert all(len(overlap.samples) == 1 for overlap in result.overlaps)


def test_reports_are_written_and_data_cannot_harm_a_reader(cache, tmp_path):
  path = tmp_path / 'exam.jsonl'
  path.write_text(json.dumps({'q': f'{HARM} {LONG_TEXT} \ud800'}) + '\n', encoding='utf-8')
  result, printed = examined(cache, path, out=str(tmp_path / 'found.html'))
  assert result.sets[0].rows == 1
  assert '\x1b' not in printed and '\u202e' not in printed
  page = (tmp_path / 'found.html').read_text(encoding='utf-8')
  assert '<script' not in page and '\x1b' not in page and '{{' in page
  assert 'exam: ' not in page and '8-gram coverage' in page
  examined(cache, path, out=str(tmp_path / 'found.json'))
  found = json.loads((tmp_path / 'found.json').read_text(encoding='utf-8'))
  assert found['tasks'][1]['examples'] == 3
  assert found['rules'][LONG].endswith('13 words in a row')


def test_a_report_that_cannot_be_written_is_told(cache, tmp_path):
  path = tmp_path / 'one.txt'
  path.write_text(LONG_TEXT, encoding='utf-8')
  with pytest.raises(ContaminationError, match='must end in .json or .html'):
    examined(cache, path, out='found.txt')
  with pytest.raises(ContaminationError, match='Cannot write the report .*No such file'):
    examined(cache, path, out=str(tmp_path / 'none' / 'found.json'))


def test_letters_that_the_tokens_lack_are_told(cache, tmp_path):
  manifest = cache / 'tasks' / 'taught' / 'train' / 'manifest.json'
  content = json.loads(manifest.read_text(encoding='utf-8'))
  lost = {'becomes': '⁇', 'examples': 2, 'example_id': 'row-1', 'snippet': ''}
  content['lossy'] = {'é': lost, '{': {**lost, 'examples': 9}}
  manifest.write_text(json.dumps(sealed(content)), encoding='utf-8')
  path = tmp_path / 'one.txt'
  path.write_text(LONG_TEXT, encoding='utf-8')
  result, _ = examined(cache, path)
  (warning,) = result.warnings
  assert '1 letters and digits' in warning and '(é)' in warning and 'up to 2 examples' in warning


MODULE = """
from flan_jax.tasks.registry import instruction_task
from flan_jax.tasks.sources import TSV

instruction_task(
  NAME,
  source={split: TSV(path, columns=('question', 'answer')) for split, path in PATHS.items()},
  templates=[{'id': 'plain', 'inputs': 'Answer this: {question}', 'targets': '{answer}'}],
  cluster='made', collection='made', licence='CC0-1.0',
)
"""


@pytest.fixture
def task(tmp_path, monkeypatch):
  """The name of a task whose rows 3 of train and 0 of validation hold LONG_TEXT."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('FLAN_JAX_SEQIO', 'off')
  rng = random.Random(9)
  paths = {}
  for split, at in (('train', 3), ('validation', 0)):
    rows = [f'{problem(rng)}\t{i}\n' for i in range(6)]
    rows[at] = f'{LONG_TEXT}\t7\n'
    paths[split] = str(tmp_path / f'{split}.tsv')
    (tmp_path / f'{split}.tsv').write_text(''.join(rows), encoding='utf-8')
  name = f'contamination_made_{tmp_path.name}'  # Python imports a module of one name once
  text = f'NAME = {name!r}\nPATHS = {paths!r}\n{MODULE}'
  (tmp_path / f'{name}.py').write_text(text, encoding='utf-8')
  yield name
  if name in catalogue.task_names():
    catalogue.registry().unregister(name)


def prepared(task, tmp_path, **settings):
  text = io.StringIO()
  config = PrepareConfig(
    mixture=task,
    cache_dir=str(tmp_path / 'made'),
    workers=1,
    tasks_modules=(task,),
    **settings,
  )
  result = prepare(config, out=console(text))
  return {r.split: r for r in result.results}, text.getvalue()


def test_prepare_leaves_contaminated_training_examples_out_and_counts_them(task, tmp_path):
  exam = tmp_path / 'exam.txt'
  exam.write_text(LONG_TEXT + '\n', encoding='utf-8')
  settings = {'decontaminate_against': (str(exam),)}
  results, printed = prepared(task, tmp_path, **settings)
  assert {split: r.num_examples for split, r in results.items()} == {'train': 5, 'validation': 6}
  assert '1 contaminated: 13-gram' in printed
  manifest = read_manifest(tmp_path / 'made', task, 'train')
  assert manifest['dropped'] == {'contaminated: 13-gram': 1}
  kept = TaskCache.open(tmp_path / 'made', task, 'train')
  assert [kept.metadata(i)['id'] for i in range(5)] == [f'train-{i}' for i in (1, 2, 3, 5, 6)]

  results, _ = prepared(task, tmp_path, **settings)
  assert {r.status for r in results.values()} == {'kept'}
  # Moved, it is the same file; with another content it is not; the filter never was validation's.
  exam.rename(tmp_path / 'moved.txt')
  results, _ = prepared(task, tmp_path, decontaminate_against=(str(tmp_path / 'moved.txt'),))
  assert {r.status for r in results.values()} == {'kept'}
  (tmp_path / 'moved.txt').write_text(f'{LONG_TEXT} Indeed.\n', encoding='utf-8')
  results, _ = prepared(task, tmp_path, decontaminate_against=(str(tmp_path / 'moved.txt'),))
  assert (results['train'].status, results['validation'].status) == ('built', 'kept')
  results, _ = prepared(task, tmp_path)
  assert (results['train'].status, results['train'].num_examples) == ('built', 6)


def test_a_contaminated_row_goes_with_the_examples_of_all_its_epochs(task, tmp_path):
  (tmp_path / 'exam.txt').write_text(LONG_TEXT + '\n', encoding='utf-8')
  settings = {'decontaminate_against': (str(tmp_path / 'exam.txt'),), 'epochs': 2}
  results, _ = prepared(task, tmp_path, **settings)
  assert results['train'].num_examples == 10
  assert results['train'].dropped == {'contaminated: 13-gram': 1}
  kept = TaskCache.open(tmp_path / 'made', task, 'train')
  assert [(kept.metadata(i)['id'], kept.metadata(i)['epoch']) for i in range(10)] == [
    (f'train-{row}', epoch) for row in (1, 2, 3, 5, 6) for epoch in (0, 1)
  ]


def test_prepare_starts_nothing_when_an_evaluation_set_is_broken(task, tmp_path):
  (tmp_path / 'exam.jsonl').write_text('{"q": 1}\n{', encoding='utf-8')
  with pytest.raises(ContaminationError, match='line 2 column 2 is not JSON'):
    prepared(task, tmp_path, decontaminate_against=(str(tmp_path / 'exam.jsonl'),))
  (tmp_path / 'exam.txt').write_text('Yes\nNo\n', encoding='utf-8')
  with pytest.raises(ContaminationError, match='No text of the evaluation sets .* has 8 words'):
    decontamination.cache_key((str(tmp_path / 'exam.txt'),))


def test_the_verb_reports_and_fails_in_one_sentence(cache, tmp_path, capsys):
  path = tmp_path / 'one.txt'
  path.write_text(LONG_TEXT, encoding='utf-8')
  argv = ['contamination', '--mixture', 'both', '--cache_dir', str(cache), '--against']
  assert main.console([*argv, f' {path},']) == 0
  assert 'Examples that hold an evaluation text' in capsys.readouterr().out
  assert main.console([*argv, str(tmp_path / 'on.txt')]) == 1
  assert "Did you mean 'one.txt'?" in capsys.readouterr().err
  assert main.console([*argv, ' ,']) == 1
  assert 'names no evaluation set' in capsys.readouterr().err
  assert main.console(argv[:-1]) == 2
  assert '--against' in capsys.readouterr().err
