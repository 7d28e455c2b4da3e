import json
import re
from pathlib import Path
from typing import Any

import pytest
from flan_jax.tasks import dialog
from flan_jax.tasks.flan2021 import files
from flan_jax.tasks.flan2022 import FLAN2021
from flan_jax.tasks.readers import DataError

DATA_SETS = {d.name: d for d in (*FLAN2021, *dialog.DATA_SETS)}
# Their publishers have no files of rows: they are read from a dump or from TFDS.
WITHOUT_LAYOUT = {'cnn_dailymail', 'xsum', 'wiki_dialog/OQ'}


def cases():
  """Reads published_files.txt: (data set, split, files, rows)."""
  text = (Path(__file__).parent / 'published_files.txt').read_text(encoding='utf-8')
  for block in text.split('\n=== ')[1:]:
    head, *parts = re.split(r'^--- ', block, flags=re.MULTILINE)
    name, split = head.split()
    contents = dict(part.split('\n', 1) for part in parts)
    rows = [json.loads(line) for line in contents.pop('rows').splitlines() if line]
    yield pytest.param(name, split, contents, rows, id=f'{name}-{next(iter(contents))}')


# What a text file cannot show: bytes that are not UTF-8, a byte order mark, other line ends.
BYTES = [
  (
    'sentiment140',
    'train',
    {
      'sentiment140/training.1600000.processed.noemoticon.csv': (
        b'"4","7","Mon","NO_QUERY","u","caf\xe9, at ""last"""\n'
      )
    },
    [{'text': 'café, at "last"', 'polarity': 4}],
  ),
  (
    'trec',
    'train',
    {'trec/train_5500.label': b'NUM:date When did sister\xf0city end ?\n'},
    [{'label-coarse': 4, 'text': 'When did sister city end ?'}],
  ),
  (
    'glue_mrpc',
    'train',
    {
      'MRPC/train.tsv': (
        b'\xef\xbb\xbfQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n1\t7\t8\tA.\tB.\r\n'
      )
    },
    [{'sentence1': 'A.', 'sentence2': 'B.', 'label': 1}],
  ),
  (
    'e2e_nlg',
    'train',
    {'e2e-dataset/trainset.csv': b'mr,ref\r\n"name[The Eagle], food[Thai]","A ""Thai""."\r\n'},
    [
      {
        'meaning_representation': 'name[The Eagle], food[Thai]',
        'target': 'A "Thai".',
        'references': [],
      }
    ],
  ),
]
CASES = [*cases(), *(pytest.param(*case, id=f'{case[0]}-bytes') for case in BYTES)]


def write(folder, contents):
  for name, content in contents.items():
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.fixture
def root(tmp_path, monkeypatch):
  monkeypatch.setenv('FLAN_JAX_FLAN2021_DIR', str(tmp_path))
  return tmp_path


@pytest.mark.parametrize('name, split, contents, rows', CASES)
def test_a_published_file_gives_the_rows_of_tfds(root, name, split, contents, rows):
  write(root, contents)
  source = files.FlanFiles(DATA_SETS[name], split)
  assert source.available().available, source.available()
  found = list(source.rows())
  assert [row.fields for row in found] == rows
  assert [row.id for row in found] == [str(i) for i in range(1, len(rows) + 1)]
  assert all(row.place.startswith(str(root)) for row in found)


@pytest.mark.parametrize('name, split, contents, rows', CASES)
def test_the_fields_of_a_data_set_read_the_row_of_a_file(root, name, split, contents, rows):
  assert DATA_SETS[name].fields(rows[0])['answer']


def test_every_layout_has_a_file_here(tmp_path, monkeypatch):
  seen = []
  for number, case in enumerate(CASES):
    name, split, contents, _ = case.values
    monkeypatch.setenv('FLAN_JAX_FLAN2021_DIR', str(tmp_path / str(number)))
    write(tmp_path / str(number), contents)
    seen.append(files.FlanFiles(DATA_SETS[name], split).find().layout)

  def family(name):
    return 'wmt' if name.startswith('wmt') else name  # all languages have the same

  known, tested = set(), set()
  for name, (_, layouts) in files.PUBLISHED.items():
    for index, layout in enumerate(layouts):
      known.add((family(name), index))
      if any(layout is other for other in seen):
        tested.add((family(name), index))
  assert known == tested


def test_every_data_set_has_a_layout_but_three():
  known = {re.sub(r':\d.*', '', d.tfds) for d in DATA_SETS.values()}
  assert len(DATA_SETS) == 75
  assert known - set(files.PUBLISHED) == WITHOUT_LAYOUT
  assert set(files.PUBLISHED) < known


@pytest.mark.slow
def test_tfds_has_every_data_set_with_the_columns_that_files_are_turned_into(tmp_path):
  tfds = pytest.importorskip('tensorflow_datasets')
  columns = {}
  for data_set in DATA_SETS.values():
    if not data_set.tfds.startswith('huggingface:'):
      builder = tfds.builder(data_set.tfds, data_dir=tmp_path, try_gcs=False)
      columns[data_set.name] = set(builder.info.features)
  for case in CASES:
    values: Any = case.values
    name, _, _, rows = values
    assert set(rows[0]) <= columns.get(name, set(rows[0])), name


@pytest.mark.parametrize(
  'name, contents, message',
  [
    (
      'rte',
      {'rte/train.jsonl': '{"premise": "A", "hypothesis": "B", "label": "perhaps"}\n'},
      "train.jsonl line 1 is not as its publisher writes rows: the label is 'perhaps', which is "
      'none of entailment, not_entailment',
    ),
    (
      'rte',
      {
        'rte/train.jsonl': '{"premise": "A", "hypothesis": "B", "label": "entailment"}\n'
        '{"premise": "A", "hypothesys": "B", "label": "entailment"}\n'
      },
      "train.jsonl line 2 has no 'hypothesis'. Did you mean 'hypothesys'?",
    ),
    (
      'rte',
      {'rte/train.json': '[{"sentence": "A", "label": "entailment"}]'},
      "'A' is not sentence 1",
    ),
    ('rte', {'rte/train.json': '[{"sentence": "A",]'}, 'train.json line 1 column 19 is not JSON'),
    ('rte', {'rte/train.json': '[3]'}, 'train.json element 1 is a int; it must be an object'),
    ('sst2', {'sst2/train.tsv': '1\ta\tb\n'}, 'train.tsv line 1 has 3 columns; it may have 2'),
    (
      'stsb',
      {'stsb/train.tsv': 'sentence1\tsentence2\tpoints\na\tb\t3\n'},
      'has not the columns of this data set as its publisher has it: sentence1, sentence2, score',
    ),
    ('squad_v1', {'squad/train-v1.1.json': '{"data": [{}]}'}, "after row 0: KeyError 'paragraphs'"),
    (
      'piqa',
      {'piqa/train.jsonl': '{"goal": "g"}\n', 'piqa/train-labels.lst': '1\n0\n'},
      "has no 'sol1'",
    ),
    (
      'gigaword',
      {'gigaword/train.src.txt': 'a\nb\n', 'gigaword/train.tgt.txt': 'a\n'},
      'train.src.txt has more lines than .*train.tgt.txt, which ends at line 1',
    ),
    (
      'wmt16_translate_deen',
      {'wmt16/a.de-en.de': 'a\n', 'wmt16/a.de-en.en': 'a\nb\n'},
      'a.de-en.en has more lines than .*a.de-en.de',
    ),
    (
      'math_dataset',
      {'math_dataset/train-easy/algebra__linear_1d.txt': 'Solve\n'},
      'question without',
    ),
    (
      'definite_pronoun_resolution',
      {'definite_pronoun_resolution/train.c.txt': 'a\nb\n\n'},
      'four',
    ),
    ('trec', {'trec/train_5500.label': 'NUM\n9 What?\n'}, 'line 2 is not as its publisher'),
  ],
)
def test_a_damaged_file_is_named_with_its_line(root, name, contents, message):
  write(root, contents)
  with pytest.raises(DataError, match=re.escape(message).replace(r'\.\*', '.*')):
    list(files.FlanFiles(DATA_SETS[name]).rows())


def test_sgml_files_that_do_not_go_together_are_refused(root):
  write(root, {'wmt16/newstest2015-deen-src.de.sgm': '<doc>\n<seg id="1">Ja</seg>\n'})
  write(root, {'wmt16/newstest2015-deen-ref.en.sgm': '<seg id="1">Yes</seg>\n<doc>\n'})
  with pytest.raises(DataError, match='line 1 .* a sentence where the other file has none'):
    list(files.FlanFiles(DATA_SETS['wmt16_translate_deen'], 'validation').rows())
