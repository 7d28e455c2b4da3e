"""Data in a bucket is read as data on disk is, and what cannot be reached is named."""

import importlib.util
import io
import json
from pathlib import Path

import bucket
import pytest
from flan_jax.tasks import cot, niv2
from flan_jax.tasks.flan2021.files import file_source
from flan_jax.tasks.flan2022 import FLAN2021
from flan_jax.tasks.folders import set_folder
from flan_jax.tasks.huggingface import HuggingFace
from flan_jax.tasks.paths import data_path
from flan_jax.tasks.readers import DataError
from flan_jax.tasks.sources import CSV, JSONL, TSV, Parquet

from flan_jax.console import console
from flan_jax.data.cache import TaskCache
from flan_jax.data.prepare import PrepareConfig, prepare
from flan_jax.data.vocabularies import get_vocabulary

ROWS = [{'q': f'Größe {i}?', 'a': str(i)} for i in range(3)]
NIV2_FILE = {
  'Definition': ['Count.'],
  'Positive Examples': [],
  'Instances': [{'id': 'i', 'input': 'x', 'output': ['1']}],
}


@pytest.fixture
def objects(tmp_path):
  """Returns the folder that is s3://b."""
  bucket.serve(tmp_path)
  (tmp_path / 'b').mkdir()
  return tmp_path / 'b'


def write(path: Path) -> None:
  """Writes ROWS in the format that the path's ending names."""
  path.parent.mkdir(parents=True, exist_ok=True)
  if path.suffix == '.jsonl':
    path.write_text(''.join(json.dumps(row) + '\n' for row in ROWS), encoding='utf-8')
  elif path.suffix in ('.tsv', '.csv'):
    mark = '\t' if path.suffix == '.tsv' else ','
    lines = [mark.join(cells) for cells in (('q', 'a'), *(row.values() for row in ROWS))]
    path.write_text('\n'.join(lines) + '\n', encoding='utf-8')
  else:
    pyarrow = pytest.importorskip('pyarrow')
    table = pyarrow.Table.from_pylist(ROWS)
    if path.suffix == '.parquet':
      pytest.importorskip('pyarrow.parquet').write_table(table, path)
    else:
      with pytest.importorskip('pyarrow.ipc').new_stream(str(path), table.schema) as writer:
        writer.write_table(table)


@pytest.mark.parametrize(
  'name, source',
  [
    ('a.jsonl', JSONL),
    ('a.csv', CSV),
    ('a.tsv', lambda path: TSV(path, columns=('q', 'a'), header=True)),
    ('a.parquet', Parquet),
    ('a.parquet', lambda path: Parquet(path, columns=('q', 'a'))),
    ('data/train-00000-of-00001.parquet', lambda _: HuggingFace('s3://b')),
    ('part/train/0000.parquet', lambda _: HuggingFace('s3://b', 'part')),
    ('a-train.arrow', lambda _: HuggingFace('s3://b/')),
    ('train.jsonl', lambda _: HuggingFace('s3://b')),
    ('x/a.arrow', HuggingFace),
  ],
)
def test_every_kind_of_file_is_read_from_a_bucket_as_from_disk(objects, name, source):
  write(objects / name)
  in_bucket, on_disk = source(f's3://b/{name}'), HuggingFace if 'arrow' in name else JSONL
  assert in_bucket.available() == (True, '', '')
  rows = list(in_bucket.rows())
  assert [row.fields for row in rows] == ROWS
  assert all(row.place.startswith(f's3://b/{name} ') for row in rows)
  assert in_bucket.fingerprint() == on_disk(objects / name).fingerprint()


def test_a_folder_named_later_may_be_in_a_bucket(objects, monkeypatch):
  for name in ('cot_dir', 'niv2_dir', 'flan2021_dir'):
    monkeypatch.setenv(f'FLAN_JAX_{name.upper()}', '')  # put back afterwards
    set_folder(name, f's3://b/{name}')
  for task, text in (('cot', 'Is 1 small?\\nOptions:\\n- yes\\n- no\tyes\tIt is.\n'), ('niv2', '')):
    (objects / f'{task}_dir').mkdir()
    (objects / f'{task}_dir/creak_train.tsv').write_text(text)
  (creak,) = [cot_set for cot_set in cot.SETS if cot_set.name == 'creak']
  assert next(cot.source(creak).rows()).fields['answer'] == 'yes'
  task = niv2.NIV2_TASKS[0]
  (objects / f'niv2_dir/{task.file}.json').write_text(json.dumps(NIV2_FILE))  # not in tasks/
  assert next(niv2.source(task).rows()).fields['references'] == ['1']
  (trec,) = [data_set for data_set in FLAN2021 if data_set.name == 'trec']
  (objects / 'flan2021_dir/trec').mkdir(parents=True)
  questions = b'NUM:date When did sister\xf0city end ?\n' * 300  # Latin-1, as its publisher has it
  (objects / 'flan2021_dir/trec/train_5500.label').write_bytes(questions)
  source = file_source(trec)
  assert source.available().available and len(list(source.rows())) == 100
  assert source.fingerprint().startswith('sha256:')


def test_what_is_not_in_the_bucket_is_missing_and_what_is_damaged_is_named(objects):
  source = JSONL('s3://b/none.jsonl', how_to_get='Ask Ann.')
  assert source.available() == (False, 'There is no file s3://b/none.jsonl.', 'Ask Ann.')
  for gone in (source, Parquet('s3://b/none.parquet')):
    with pytest.raises(DataError, match='Cannot read s3://b/none.* No such file or directory'):
      list(gone.rows())
  with pytest.raises(DataError, match='Cannot read s3://b/none.jsonl: No such file or directory'):
    source.fingerprint()
  (objects / 'bad.jsonl').write_text('{"a": }')
  with pytest.raises(DataError, match='s3://b/bad.jsonl line 1 column 7 is not JSON'):
    list(JSONL('s3://b/bad.jsonl').rows())
  (objects / 'bad.parquet').write_text('none of it')
  with pytest.raises(DataError, match='s3://b/bad.parquet is damaged or not Parquet'):
    list(Parquet('s3://b/bad.parquet').rows())
  assert "no split 'train' in s3://b/none" in HuggingFace('s3://b/none').available().why


def test_a_bucket_that_cannot_be_reached_says_why(monkeypatch):
  with pytest.raises(DataError, match='https://b/a cannot be opened: a path begins with gs://, s3'):
    data_path('https://b/a')
  if importlib.util.find_spec('adlfs'):
    pytest.skip('adlfs is installed, so az:// would be looked for on the network.')
  status = JSONL('az://b/a.jsonl').available()
  assert not status.available
  assert status.why.startswith('Cannot reach az://b/a.jsonl: ImportError: Install adlfs')
  monkeypatch.setenv('FLAN_JAX_COT_DIR', 'az://b')
  with pytest.raises(DataError, match='Cannot reach az://b: ImportError'):
    cot.COT_DIR.path()


def test_a_bucket_is_prepared_by_worker_processes_without_tensorflow(
  objects, tmp_path, monkeypatch
):
  write(objects / 'sums.jsonl')
  (tmp_path / 'bucket_tasks.py').write_text(f"""
import sys
from pathlib import Path
import bucket
from flan_jax.tasks.registry import instruction_task
from flan_jax.tasks.sources import JSONL

bucket.serve(Path({str(tmp_path)!r}))
def fields(row):
  return {{**row, 'loaded': str('tensorflow' in sys.modules)}}
instruction_task(
  'in_bucket', source=JSONL('s3://b/sums.jsonl'), fields=fields, cluster='c', collection='d',
  templates=[{{'id': 'a', 'inputs': '{{q}} {{loaded}}', 'targets': '{{a}}'}}],
)
""")
  monkeypatch.syspath_prepend(str(tmp_path))
  config = PrepareConfig(
    'in_bucket',
    str(tmp_path / 'cache'),
    splits=('train',),
    tasks_modules=('bucket_tasks',),
    workers=1,
  )
  result = prepare(config, out=console(io.StringIO()))
  assert result.ok, result.results
  cached = TaskCache.open(tmp_path / 'cache', 'in_bucket', 'train')
  inputs = get_vocabulary('bytes').decode(cached.example(2)[0].tolist())
  assert inputs == 'Größe 2? False'
