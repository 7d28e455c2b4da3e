import csv
import hashlib
import io
import json
import re
import tracemalloc

import numpy as np
import pytest
from bucket import serve
from flan_jax.tasks.folders import FolderError, folder, folders, set_folder
from flan_jax.tasks.readers import DataError
from flan_jax.tasks.sources import CSV, JSONL, TFDS, TSV, GeneratorSource, Parquet, as_splits
from hypothesis import given, settings
from hypothesis import strategies as st

CELL = st.text(st.characters(exclude_categories=['Cs']), max_size=20)


def fails(source, *parts):
  with pytest.raises(DataError) as e:
    list(source.rows())
  for part in parts:
    assert part in str(e.value), str(e.value)


@settings(max_examples=50)
@given(st.lists(st.dictionaries(CELL, st.one_of(CELL, st.integers(), st.none())), min_size=1))
def test_jsonl_gives_back_what_was_written(tmp_path_factory, rows):
  path = tmp_path_factory.mktemp('j') / 'a.jsonl'
  path.write_text(''.join(json.dumps(r) + '\n\n' for r in rows), encoding='utf-8')
  assert [r.fields for r in JSONL(path).rows()] == rows


@settings(max_examples=50)
@given(st.lists(st.tuples(CELL, CELL), min_size=1))
def test_csv_gives_back_what_was_written(tmp_path_factory, rows):
  path = tmp_path_factory.mktemp('c') / 'a.csv'
  text = io.StringIO(newline='')
  csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator='\n').writerows([('q', 'a'), *rows])
  path.write_bytes(text.getvalue().encode())
  got = [(r.fields['q'], r.fields['a']) for r in CSV(path).rows()]
  # A line end inside quotes comes back as a newline, as clean() would make it anyway.
  assert got == [tuple(cell.replace('\r\n', '\n') for cell in row) for row in rows]


def test_tsv_reads_cells_as_they_stand_and_unescapes_newlines_if_asked(tmp_path):
  path = tmp_path / 'a.tsv'
  path.write_bytes(b'1 "q\\nx\tyes\r\n\n\xe2\x80\xa8b\t\n')
  rows = list(TSV(path, columns=('q', 'a'), unescape=True).rows())
  assert [(r.id, r.fields) for r in rows] == [
    ('1', {'q': '1 "q\nx', 'a': 'yes'}),
    ('3', {'q': '\u2028b', 'a': ''}),  # U+2028 is text, not a line end
  ]
  assert next(TSV(path, columns=('q', 'a')).rows()).fields['q'] == '1 "q\\nx'
  assert rows[1].place == f'{path} line 3'


def test_a_byte_order_mark_is_no_part_of_the_first_field(tmp_path):
  path = tmp_path / 'a.tsv'
  path.write_bytes(b'\xef\xbb\xbfq\ta\n1\t2\n')
  source = TSV(path, columns=('q', 'a'), header=True)
  assert [r.fields for r in source.rows()] == [{'q': '1', 'a': '2'}]


def test_rows_may_be_named_by_a_field(tmp_path):
  path = tmp_path / 'a.jsonl'
  path.write_text('{"uid": 7}\n{"uiid": 8}\n')
  rows = JSONL(path, id_field='uid').rows()
  assert next(rows).id == '7'
  with pytest.raises(DataError, match="line 2 has no field 'uid'.* Did you mean 'uiid'"):
    next(rows)


@pytest.mark.parametrize(
  'content, error',
  [
    (b'{"a": 1}\n{"a": }\n', 'line 2 column 7 is not JSON'),
    (b'{"a": 1}\n[1]\n', 'line 2 is a JSON list, not an object'),
    (b'"x"\n', 'line 1 is a JSON str, not an object'),
    (b'', 'is empty; it must hold at least one row'),
    (b' \n\n', 'is empty; it must hold at least one row'),
    (
      b'{"a": "x"}\n{"a": "\xffx"}\n',
      'line 2 is not UTF-8: byte 0xff at byte 8 of the line (byte 19 of the file)',
    ),
    (b'[' * 100_000 + b'\n', 'line 1 cannot be read as JSON'),
    (b'{"a": ' + b'9' * 5000 + b'}\n', 'line 1 cannot be read as JSON'),
  ],
)
def test_a_wrong_jsonl_file_is_named_with_its_line(tmp_path, content, error):
  path = tmp_path / 'a.jsonl'
  path.write_bytes(content)
  fails(JSONL(path), str(path), error)


@pytest.mark.parametrize(
  'content, error',
  [
    (b'a\tb\nc\n', 'line 2 has 1 columns; expected 2: q, a'),
    (b'a\tb\tc\n', 'line 1 has 3 columns; expected 2: q, a'),
    (b'\n\n', 'is empty'),
    (b'a\tb\n\xc3\tb\n', 'line 2 is not UTF-8: byte 0xc3'),
  ],
)
def test_a_wrong_tsv_file_is_named_with_its_line(tmp_path, content, error):
  path = tmp_path / 'a.tsv'
  path.write_bytes(content)
  fails(TSV(path, columns=('q', 'a')), str(path), error)


def test_a_tsv_file_with_another_header_names_what_is_missing(tmp_path):
  path = tmp_path / 'a.tsv'
  path.write_text('questions\ta\n1\t2\n')
  fails(
    TSV(path, columns=('question', 'a'), header=True),
    "line 1: the header is questions, a; expected question, a. There is no 'question'.",
    "Did you mean 'questions'?",
  )


def test_a_file_of_nothing_but_a_header_is_an_error(tmp_path):
  (tmp_path / 'a.tsv').write_text('q\ta\n')
  fails(TSV(tmp_path / 'a.tsv', columns=('q', 'a'), header=True), 'has no rows')
  (tmp_path / 'a.csv').write_text('q,a\n')
  fails(CSV(tmp_path / 'a.csv'), 'has no rows')


@pytest.mark.parametrize(
  'content, error',
  [
    (b'q,a\n1\n', 'line 2 has 1 columns; the header has 2: q, a'),
    (b'q,a\n"1\n2",3,4\n', 'line 3 has 3 columns'),
    (b'q,a\n"1,2\n', 'is not CSV: unexpected end of data'),
    (b'q,a\n"1"x,2\n', 'line 2 is not CSV'),
    (b'q,b\n1,2\n', 'line 1: the header is q, b; expected q, a'),
    (b'q,q\n1,2\n', 'expected q, a'),
    (b'', 'is empty'),
    (b'q,a\n1,\xff\n', 'line 2 is not UTF-8'),
  ],
)
def test_a_wrong_csv_file_is_named_with_its_line(tmp_path, content, error):
  path = tmp_path / 'a.csv'
  path.write_bytes(content)
  fails(CSV(path, columns=('q', 'a')), str(path), error)


def test_a_csv_header_that_names_a_column_twice_is_refused(tmp_path):
  (tmp_path / 'a.csv').write_text('q,q\n1,2\n')
  fails(CSV(tmp_path / 'a.csv'), "the header names 'q' twice")


def test_a_csv_cell_may_be_long(tmp_path):
  (tmp_path / 'a.csv').write_text('q\n' + 'x' * 200_000 + '\n')
  assert len(next(CSV(tmp_path / 'a.csv').rows()).fields['q']) == 200_000


def test_parquet_gives_rows_and_names_what_is_wrong(tmp_path):
  pyarrow = pytest.importorskip('pyarrow')
  pytest.importorskip('pyarrow.parquet')

  path = tmp_path / 'a.parquet'
  table = pyarrow.table({'q': ['x', 'y'], 'options': [['a'], ['b', 'c']]})
  pyarrow.parquet.write_table(table, path)
  assert [r.fields for r in Parquet(path).rows()] == table.to_pylist()
  assert [r.place for r in Parquet(path, columns=('q',)).rows()][1] == f'{path} row 2'
  fails(Parquet(path, columns=('option',)), "has no column 'option'", "Did you mean 'options'")
  damaged = tmp_path / 'b.parquet'
  damaged.write_bytes(path.read_bytes()[:-20])
  fails(Parquet(damaged), f'{damaged} is damaged or not Parquet (after 0 rows)')
  pyarrow.parquet.write_table(table.slice(0, 0), damaged)
  fails(Parquet(damaged), 'has no rows')
  fails(Parquet(tmp_path / 'c.parquet'), 'Cannot read', 'No such file')


@pytest.mark.parametrize('kind', ['jsonl', 'csv', 'parquet'])
@pytest.mark.parametrize('place', ['disk', 'bucket'])
def test_memory_does_not_grow_with_the_file(tmp_path, kind, place):
  pyarrow = pytest.importorskip('pyarrow')
  path, rows = tmp_path / f'b/a.{kind}', [{'q': f'{i:06d}' + 'x' * 994} for i in range(16_000)]
  path.parent.mkdir()
  if kind == 'parquet':  # all in one row group
    table = pyarrow.Table.from_pylist(rows)
    write_table = pytest.importorskip('pyarrow.parquet').write_table
    write_table(table, path, compression='none', use_dictionary=False)
    del table
  else:
    lines = [json.dumps(row) if kind == 'jsonl' else row['q'] for row in rows]
    path.write_text('q\n' * (kind == 'csv') + '\n'.join(lines))
    del lines
  del rows
  serve(tmp_path)
  source = {'jsonl': JSONL, 'csv': CSV, 'parquet': Parquet}[kind](
    path if place == 'disk' else f's3://b/a.{kind}'
  )
  before, most = pyarrow.total_allocated_bytes(), 0
  tracemalloc.start()
  for row in source.rows():
    if row.fields['q'].startswith('999', 3):
      most = max(most, pyarrow.total_allocated_bytes() - before)
  python = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert row.fields['q'].startswith('015999') and path.stat().st_size > 16_000_000
  assert most + python < 8_000_000


@pytest.mark.parametrize('kind', [JSONL, CSV])
def test_a_file_that_is_not_there_is_named_and_not_available(tmp_path, kind):
  source = kind(tmp_path / 'none', how_to_get='Ask Ann.')
  fails(source, f'Cannot read {tmp_path / "none"}: No such file or directory')
  assert source.available() == (False, f'There is no file {tmp_path / "none"}.', 'Ask Ann.')
  assert not source.exists()
  with pytest.raises(DataError, match='Cannot read'):
    source.fingerprint()


def test_the_fingerprint_of_a_file_follows_its_content_and_not_its_place(tmp_path):
  a, b = tmp_path / 'a', tmp_path / 'b'
  a.write_text('{"x": 1}\n')
  b.write_text('{"x": 1}\n')
  before = JSONL(a).fingerprint()
  assert before == JSONL(b).fingerprint()
  a.write_text('{"x": 12}\n')
  assert JSONL(a).fingerprint() != before


def test_a_file_with_another_content_than_its_task_was_made_for_is_refused(tmp_path):
  path = tmp_path / 'a.jsonl'
  path.write_text('{"x": 1}\n')
  sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
  source = JSONL(path, sha256=sha256.upper())
  assert [row.fields for row in source.rows()] == [{'x': 1}]
  assert source.fingerprint() == f'sha256:{sha256}' == JSONL(path).fingerprint()
  path.write_text('{"x": 2} \n')
  changed = hashlib.sha256(path.read_bytes()).hexdigest()
  fails(
    source, f'{path} has changed: its content is sha256:{changed}', 'name the new one in sha256'
  )
  with pytest.raises(DataError, match='has changed'):
    source.fingerprint()


def test_a_generator_is_read_by_split_and_checked():
  source = GeneratorSource(lambda split: [{'s': split}, {'s': 'x'}], splits=('train', 'test'))
  splits = as_splits(source)
  assert list(splits) == ['train', 'test']
  assert [(r.id, r.fields) for r in splits['test'].rows()] == [
    ('1', {'s': 'test'}),
    ('2', {'s': 'x'}),
  ]
  fails(GeneratorSource(lambda split: [], splits=('train',)), 'yields nothing for train')
  fails(GeneratorSource(lambda split: ['x'], splits=('train',)), 'row 1 of train is a str')
  with pytest.raises(ValueError, match='pick one with for_split'):
    list(source.rows())


def test_what_is_no_source_is_refused():
  with pytest.raises(ValueError, match="A source is one of TFDS, .* got 'a.jsonl'"):
    as_splits('a.jsonl')
  with pytest.raises(ValueError, match='got 3'):
    as_splits({'train': 3})


def test_a_tfds_id_without_a_version_is_refused():
  with pytest.raises(
    ValueError, match=re.escape("TFDS('gsm8k') names no version; write 'gsm8k:1.0.0'")
  ):
    TFDS('gsm8k')


@pytest.mark.seqio
def test_tfds_reads_a_prepared_data_set_in_order(tmp_path):
  source = TFDS('tiny_words:1.0.0', data_dir=tmp_path)
  assert not source.exists()
  assert 'tfds build tiny_words' in source.available().how_to_get
  fails(source, 'tiny_words:1.0.0', 'tfds build')
  write_tfds(tmp_path / 'tiny_words/1.0.0', num_rows=5)
  assert source.available() == (True, '', '')
  rows = list(source.rows())
  assert [r.fields for r in rows] == [
    {'word': f'w{i}é', 'n': i, 'list': ['a', 'b']} for i in range(5)
  ]
  assert rows[2].place == 'tfds:tiny_words:1.0.0 train row 3'
  assert len(list(TFDS('tiny_words:1.0.0', split='train[:2]', data_dir=tmp_path).rows())) == 2
  assert 'tiny_words/1.0.0' in source.fingerprint()


def write_tfds(folder, num_rows):
  """Writes a TFDS data set of two shards as `tfds build` does."""
  import tensorflow as tf
  import tensorflow_datasets as tfds

  folder.mkdir(parents=True)
  features = tfds.features.FeaturesDict(
    {
      'word': tfds.features.Text(),
      'n': np.int64,
      'list': tfds.features.Sequence(tfds.features.Text()),
    }
  )
  shards = [range(0, 3), range(3, num_rows)]
  for number, shard in enumerate(shards):
    path = folder / f'tiny_words-train.tfrecord-{number:05d}-of-{len(shards):05d}'
    with tf.io.TFRecordWriter(str(path)) as writer:
      for i in shard:
        example = {'word': f'w{i}é', 'n': i, 'list': ['a', 'b']}
        writer.write(features.serialize_example(features.encode_example(example)))
  split = tfds.core.SplitInfo(
    name='train',
    shard_lengths=[len(shard) for shard in shards],
    num_bytes=0,
    filename_template=tfds.core.ShardedFileTemplate(
      dataset_name='tiny_words', split='train', filetype_suffix='tfrecord', data_dir=folder
    ),
  )
  tfds.folder_dataset.write_metadata(
    data_dir=folder, features=features, split_infos=[split], description='d'
  )


def test_a_tfds_name_that_does_not_exist_is_not_available(tmp_path):
  pytest.importorskip('tensorflow_datasets')
  status = TFDS('no_such_set_here:1.0.0', data_dir=tmp_path).available()
  assert not status.available and 'no_such_set_here' in status.why


def test_a_folder_is_found_when_rows_are_asked_for_and_an_unset_one_tells_how(
  tmp_path, monkeypatch
):
  monkeypatch.delenv('FLAN_JAX_TEST_DIR', raising=False)
  source = JSONL(folder('test_dir', holds='the test data') / 'sub/a.jsonl')
  with pytest.raises(FolderError) as e:
    list(source.rows())
  assert str(e.value) == (
    'The folder of the test data is not set. Set the environment variable FLAN_JAX_TEST_DIR, or '
    "call flan_jax.tasks.folders.set_folder('test_dir', FOLDER)."
  )
  assert source.where() == 'TEST_DIR/sub/a.jsonl' and not source.exists()
  monkeypatch.setenv('FLAN_JAX_TEST_DIR', str(tmp_path / 'none'))
  with pytest.raises(FolderError, match='none, does not exist. Set the environment variable'):
    list(source.rows())
  (tmp_path / 'file').write_text('')
  set_folder('test_dir', tmp_path / 'file')  # stronger than the environment
  with pytest.raises(FolderError, match='file, is not a folder'):
    list(source.rows())
  (tmp_path / 'sub').mkdir()
  (tmp_path / 'sub/a.jsonl').write_text('{"q": 1}\n')
  set_folder('test_dir', tmp_path)
  assert source.exists() and next(source.rows()).fields == {'q': 1}
  with pytest.raises(FolderError, match="No folder 'tst_dir' is declared. Did you mean 'test_dir'"):
    set_folder('tst_dir', tmp_path)
  with pytest.raises(FolderError, match="'test_dir' is already declared"):
    folder('test_dir', holds='other data')
  assert folders()['test_dir'].environment == 'FLAN_JAX_TEST_DIR'
