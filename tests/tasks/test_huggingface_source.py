import json
import tracemalloc

import pytest
from flan_jax.tasks.huggingface import HuggingFace
from flan_jax.tasks.readers import DataError
from flan_jax.tasks.sources import as_splits

pyarrow = pytest.importorskip('pyarrow')
pytest.importorskip('pyarrow.parquet')
pytest.importorskip('pyarrow.ipc')

TABLE = pyarrow.table(
  {'q': ['a', 'b\nc', None], 'label': [0, 1, -1], 'options': [['x'], [], ['y', 'z']]}
)


def write(path, table=TABLE, *, file_format=False):
  """Writes Parquet, JSONL or an Arrow stream (what save_to_disk writes), by the path's ending."""
  path.parent.mkdir(parents=True, exist_ok=True)
  if path.suffix == '.parquet':
    pyarrow.parquet.write_table(table, path)
  elif path.suffix == '.jsonl':
    path.write_text(''.join(json.dumps(row) + '\n' for row in table.to_pylist()))
  else:
    new = pyarrow.ipc.new_file if file_format else pyarrow.ipc.new_stream
    with new(str(path), table.schema) as writer:
      writer.write_table(table, max_chunksize=2)


def save_to_disk(folder, tables, split='train', **changes):
  """Writes a folder as Dataset.save_to_disk does."""
  names = [f'data-{i:05d}-of-{len(tables):05d}.arrow' for i in range(len(tables))]
  for name, table in zip(names, tables, strict=True):
    write(folder / name, table)
  state = {'_data_files': [{'filename': name} for name in names], '_split': split, **changes}
  (folder / 'state.json').write_text(json.dumps(state))
  (folder / 'dataset_info.json').write_text('{}')


def read(source):
  return [row.fields for row in source.rows()]


def fails(source, *parts):
  with pytest.raises(DataError) as e:
    list(source.rows())
  for part in parts:
    assert part in str(e.value), str(e.value)


@pytest.mark.parametrize(
  'relative',
  [
    'train.parquet',
    'train-00000-of-00001.parquet',
    'data/train-00000-of-00001.parquet',
    'train/0000.parquet',
    'train.arrow',
    'tiny-train.arrow',
    'train.jsonl',
  ],
)
def test_a_split_is_found_in_every_way_that_it_is_kept(tmp_path, relative):
  write(tmp_path / relative)
  write(tmp_path / relative.replace('train', 'test'), TABLE.slice(0, 1))
  assert read(HuggingFace(tmp_path)) == TABLE.to_pylist()
  assert read(HuggingFace(tmp_path, split='test')) == TABLE.slice(0, 1).to_pylist()
  moved = tmp_path / 'moved'
  write(moved / 'part' / relative)
  assert read(HuggingFace(moved, 'part')) == TABLE.to_pylist()
  assert HuggingFace(moved, 'part').where() == f'huggingface:{moved}/part train'


@pytest.mark.parametrize('name', ['a.parquet', 'a.arrow', 'a.jsonl'])
def test_a_single_file_may_be_named(tmp_path, name):
  write(tmp_path / name)
  assert read(HuggingFace(tmp_path / name)) == TABLE.to_pylist()
  assert as_splits({'train': HuggingFace(tmp_path / name)})['train'].exists()


def test_what_save_to_disk_wrote_is_read_in_the_order_of_its_state(tmp_path):
  parts = [TABLE.slice(2), TABLE.slice(0, 0), TABLE.slice(0, 2)]
  save_to_disk(tmp_path / 'one', parts)
  expected = [row for part in parts for row in part.to_pylist()]
  assert read(HuggingFace(tmp_path / 'one')) == expected
  for split in ('train', 'test'):  # a DatasetDict has a folder for each split
    save_to_disk(tmp_path / 'dict' / split, parts[:1], split)
  assert read(HuggingFace(tmp_path / 'dict', split='test')) == parts[0].to_pylist()
  fails(HuggingFace(tmp_path / 'one', split='test'), "no split 'test'")


def test_rows_say_where_they_are_and_may_be_named_by_a_field(tmp_path):
  write(tmp_path / 'train-00000-of-00002.parquet', TABLE.slice(0, 2))
  write(tmp_path / 'train-00001-of-00002.parquet', TABLE.slice(2))
  rows = list(HuggingFace(tmp_path, columns=('label',)).rows())
  assert [(row.id, row.fields) for row in rows] == [
    ('1', {'label': 0}),
    ('2', {'label': 1}),
    ('3', {'label': -1}),
  ]
  assert rows[2].place == f'{tmp_path}/train-00001-of-00002.parquet row 1'
  assert [row.id for row in HuggingFace(tmp_path, id_field='label').rows()] == ['0', '1', '-1']


def test_both_forms_of_arrow_files_are_read(tmp_path):
  write(tmp_path / 'train.arrow', file_format=True)
  assert (tmp_path / 'train.arrow').read_bytes()[:6] == b'ARROW1'
  assert read(HuggingFace(tmp_path, columns=('q',))) == TABLE.select(['q']).to_pylist()


def test_empty_shards_are_passed_over_but_an_empty_split_is_refused(tmp_path):
  write(tmp_path / 'train-00000-of-00002.parquet', TABLE.slice(0, 0))
  write(tmp_path / 'train-00001-of-00002.parquet')
  assert read(HuggingFace(tmp_path)) == TABLE.to_pylist()
  for kind in ('parquet', 'arrow'):
    write(tmp_path / f'none.{kind}', TABLE.slice(0, 0))
    fails(HuggingFace(tmp_path / f'none.{kind}'), f'none.{kind} train has no rows')


@pytest.mark.parametrize('kind', ['parquet', 'arrow', 'jsonl'])
def test_a_column_that_is_not_there_is_named(tmp_path, kind):
  write(tmp_path / f'train.{kind}')
  fails(
    HuggingFace(tmp_path, columns=('option',)),
    f'train.{kind}',
    "has no column 'option'. Did you mean 'options'? Columns: q, label, options",
  )


@pytest.mark.parametrize('kind', ['parquet', 'arrow'])
def test_a_damaged_file_is_named(tmp_path, kind):
  path = tmp_path / f'train.{kind}'
  write(path)
  whole = path.read_bytes()
  for content in (whole[: len(whole) - 30], b'', b'none of it'):
    path.write_bytes(content)
    fails(HuggingFace(tmp_path), f'{path} is damaged or not')


def test_a_split_of_which_shards_are_missing_is_refused(tmp_path):
  for i in (0, 2):
    write(tmp_path / f'train-{i:05d}-of-00004.parquet')
  missing = f'{tmp_path}/train-00001-of-00004.parquet is missing, and 1 more of 4 shards'
  fails(HuggingFace(tmp_path), missing)
  status = HuggingFace(tmp_path, how_to_get='Ask Ann.').available()
  assert not status.available and missing in status.why and status.how_to_get == 'Ask Ann.'
  save_to_disk(tmp_path / 'saved', [TABLE, TABLE])
  (tmp_path / 'saved/data-00001-of-00002.arrow').unlink()
  fails(HuggingFace(tmp_path / 'saved'), 'data-00001-of-00002.arrow is missing: state.json names')


def test_a_state_that_cannot_be_followed_is_refused(tmp_path):
  save_to_disk(tmp_path, [TABLE], _indices_files=[{'filename': 'indices.arrow'}])
  fails(HuggingFace(tmp_path), 'call flatten_indices() on the data set and save it again')
  (tmp_path / 'state.json').write_text('{')
  fails(HuggingFace(tmp_path), 'state.json is not JSON')
  (tmp_path / 'state.json').write_text('[]')
  fails(HuggingFace(tmp_path), 'state.json is a JSON list')


def test_a_split_that_is_not_there_is_named_with_those_that_are(tmp_path):
  write(tmp_path / 'data/train-00000-of-00001.parquet')
  write(tmp_path / 'validation/0000.parquet')
  fails(
    HuggingFace(tmp_path, split='vaildation'),
    f"There is no split 'vaildation' in {tmp_path}",
    "Did you mean 'validation'? Splits: train, validation.",
  )
  fails(HuggingFace(tmp_path / 'none'), f"There is no split 'train' in {tmp_path}/none")
  assert not HuggingFace(tmp_path / 'none').exists()


def test_the_fingerprint_follows_the_content_of_every_shard(tmp_path):
  paths = [tmp_path / f'train-{i:05d}-of-00002.parquet' for i in range(2)]
  for path in paths:
    write(path)
  before = HuggingFace(tmp_path).fingerprint()
  assert before == HuggingFace(tmp_path).fingerprint() and before.startswith('sha256:')
  write(paths[1], TABLE.slice(1))
  assert HuggingFace(tmp_path).fingerprint() != before


@pytest.mark.parametrize('kind, group', [('parquet', 1000), ('parquet', 30_000), ('arrow', 1000)])
def test_memory_does_not_grow_with_the_data(tmp_path, kind, group):
  text = pyarrow.array([f'{i:06d}' + 'x' * 994 for i in range(30_000)])
  table, path = pyarrow.table({'q': text}), tmp_path / f'train.{kind}'
  if kind == 'parquet':
    pyarrow.parquet.write_table(
      table, path, row_group_size=group, compression='none', use_dictionary=False
    )
  else:
    with pyarrow.ipc.new_stream(str(path), table.schema) as writer:
      writer.write_table(table, max_chunksize=group)
  size = path.stat().st_size
  del text, table
  before = pyarrow.total_allocated_bytes()
  tracemalloc.start()
  count = most = 0
  for row in HuggingFace(tmp_path).rows():
    count += 1
    if count % 500 == 0:
      most = max(most, pyarrow.total_allocated_bytes() - before)
      assert row.fields['q'].startswith(f'{count - 1:06d}')
  python = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert count == 30_000 and size > 29_000_000
  assert most + python < size / 3
