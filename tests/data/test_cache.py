"""The token cache: what is written is read, dead writers leave nothing, damage is refused."""

import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flan_jax.data import cache, vocabularies
from flan_jax.data.cache import CacheError, TaskCache, TaskCacheWriter
from flan_jax.data.cache_layout import DATA_FILES, sealed
from flan_jax.data.cache_writer import adopt_split

ids = st.lists(st.integers(3, 258), max_size=20).map(lambda x: [*x, 1])
EXAMPLES = [([5, 6, 1], [7, 1]), ([1], [8, 9, 1]), ([3, 1], [1])]


@pytest.fixture
def cache_dir(tmp_path):
  cache.initialize_cache(tmp_path / 'cache', vocabularies.get_vocabulary('bytes'))
  return tmp_path / 'cache'


def write(cache_dir, task='task', split='train', examples=EXAMPLES, key=None, **info):
  with TaskCacheWriter(cache_dir, task, split, key=key or {'seed': 1}) as writer:
    for number, (inputs, targets) in enumerate(examples):
      writer.add(inputs, targets, {'id': str(number), 'answer': 'né\n'})
    return writer.finish(info)


def run(code, *arguments):
  """Runs code in a process of its own, which may be limited or killed."""
  return subprocess.Popen(
    [sys.executable, '-c', textwrap.dedent(code), *map(str, arguments)],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    cwd=pathlib.Path(__file__).parents[2],
  )


@settings(max_examples=25)
@given(st.lists(st.tuples(ids, ids), max_size=12))
def test_examples_come_back_as_they_were_written(tmp_path_factory, examples):
  cache_dir = tmp_path_factory.mktemp('cache')
  cache.initialize_cache(cache_dir, vocabularies.get_vocabulary('bytes'))
  manifest = write(cache_dir, examples=examples, cot=True)
  opened = TaskCache.open(cache_dir, 'task', 'train')
  opened.verify()
  assert opened.num_examples == manifest['num_examples'] == len(examples)
  assert opened.input_lengths().tolist() == [len(x) for x, _ in examples]
  assert opened.target_lengths().tolist() == [len(y) for _, y in examples]
  assert manifest['input_tokens'] == sum(len(x) for x, _ in examples)
  assert manifest['target_tokens'] == sum(len(y) for _, y in examples)
  for number, (inputs, targets) in enumerate(examples):
    got = opened.example(number)
    assert (got[0].tolist(), got[1].tolist()) == (inputs, targets)
    assert opened.metadata(number) == {'id': str(number), 'answer': 'né\n'}
  assert opened.manifest['cot'] is True


def test_tokens_take_two_bytes_when_the_vocabulary_fits_and_four_when_not(cache_dir, tmp_path):
  write(cache_dir)
  assert TaskCache.open(cache_dir, 'task', 'train').example(0)[0].dtype == np.uint16

  class Large(vocabularies.ByteVocabulary):
    size = 70_000
    fingerprint = 'large'

  cache.initialize_cache(tmp_path / 'large', Large())
  write(tmp_path / 'large', examples=[([69_999, 1], [1])])
  opened = TaskCache.open(tmp_path / 'large', 'task', 'train')
  assert opened.example(0)[0].dtype == np.uint32
  assert opened.example(0)[0].tolist() == [69_999, 1]


def test_a_cache_carries_its_vocabulary(cache_dir):
  assert cache.cache_vocabulary(cache_dir).fingerprint == 'utf8-offset-3'


def test_tasks_and_splits_are_listed_when_finished(cache_dir):
  write(cache_dir, 'b')
  write(cache_dir, 'a', 'validation')
  assert cache.list_tasks(cache_dir) == ('a', 'b')
  assert cache.list_tasks(cache_dir, 'train') == ('b',)
  assert cache.list_splits(cache_dir, 'a') == ('validation',)
  assert cache.list_tasks(cache_dir / 'none') == ()


def test_finished_means_whole_and_made_from_the_same_key(cache_dir):
  key = {'source': 'x', 'templates': ('a', 'b')}
  assert not cache.is_finished(cache_dir, 'task', 'train', key=key)
  write(cache_dir, key=key)
  assert cache.is_finished(cache_dir, 'task', 'train', key=key)
  assert not cache.is_finished(cache_dir, 'task', 'train', key={**key, 'source': 'y'})
  os.truncate(cache.task_directory(cache_dir, 'task', 'train') / 'tokens.npy', 130)
  assert not cache.is_finished(cache_dir, 'task', 'train', key=key)


def test_writing_again_replaces(cache_dir):
  write(cache_dir)
  write(cache_dir, examples=EXAMPLES[:1])
  assert TaskCache.open(cache_dir, 'task', 'train').num_examples == 1
  assert [p.name for p in (cache_dir / 'tasks' / 'task').iterdir()] == ['train']


def test_a_writer_that_raises_or_never_finishes_leaves_nothing(cache_dir):
  with pytest.raises(RuntimeError), TaskCacheWriter(cache_dir, 'task', 'train') as writer:
    writer.add([1], [1], {})
    raise RuntimeError
  with TaskCacheWriter(cache_dir, 'task', 'train') as writer:
    writer.add([1], [1], {})
  assert list((cache_dir / 'tasks' / 'task').iterdir()) == []


def test_a_split_written_elsewhere_is_adopted_whole_or_not_at_all(cache_dir, tmp_path):
  write(cache_dir)
  cache.initialize_cache(tmp_path / 'other', vocabularies.get_vocabulary('bytes'))
  made, there = cache_dir / 'tasks/task/train', tmp_path / 'other/tasks/task'

  def adopt(folder):
    adopt_split(tmp_path / 'other', 'task', 'train', lambda name: open(folder / name, 'rb'))

  adopt(made)
  TaskCache.open(tmp_path / 'other', 'task', 'train').verify()
  assert [p.name for p in there.iterdir()] == ['train']
  (made / 'tokens.npy').write_bytes((made / 'tokens.npy').read_bytes()[:-2])
  with pytest.raises(CacheError, match="tokens.npy of task 'task' split 'train' was damaged"):
    adopt(made)
  (made / 'tokens.npy').unlink()
  with pytest.raises(CacheError, match="Cannot copy task 'task' split 'train' into .*tokens.npy"):
    adopt(made)
  assert [p.name for p in there.iterdir()] == ['train']
  TaskCache.open(tmp_path / 'other', 'task', 'train').verify()


WRITE_FOREVER = """
  import sys
  from flan_jax.data.cache import TaskCacheWriter
  with TaskCacheWriter(sys.argv[1], 'task', 'train') as writer:
    print('writing', flush=True)
    while True:
      writer.add([5] * 100 + [1], [6, 1], {'id': 'x'})
"""


def test_a_killed_writer_leaves_no_cache_and_the_next_one_cleans_up(cache_dir):
  process = run(WRITE_FOREVER, cache_dir)
  assert process.stdout.readline() == 'writing\n'
  time.sleep(0.1)
  folder = cache_dir / 'tasks' / 'task'
  assert cache.remove_leftovers(folder) == []  # it lives
  process.send_signal(signal.SIGKILL)
  process.wait()
  assert len(list(folder.iterdir())) == 1
  assert cache.list_tasks(cache_dir) == ()
  with pytest.raises(CacheError, match="Task 'task' has no split 'train'"):
    TaskCache.open(cache_dir, 'task', 'train')
  write(cache_dir)
  assert [p.name for p in folder.iterdir()] == ['train']


def test_a_folder_not_yet_locked_is_left_until_it_is_old(cache_dir):
  partial = cache_dir / 'tasks' / 'task' / '.train.abc.partial'
  partial.mkdir(parents=True)
  assert cache.remove_leftovers(partial.parent) == []
  os.utime(partial, (time.time() - 120,) * 2)
  assert cache.remove_leftovers(partial.parent) == ['.train.abc.partial']


def test_a_full_disk_is_one_sentence_and_leaves_nothing(cache_dir):
  process = run(
    """
    import resource, sys
    from flan_jax.data.cache import TaskCacheWriter
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, resource.RLIM_INFINITY))
    try:
      with TaskCacheWriter(sys.argv[1], 'task', 'train') as writer:
        while True:
          writer.add([5] * 1000 + [1], [6, 1], {'id': 'x'})
    except ValueError as e:
      print(e)
    """,
    cache_dir,
  )
  output = process.communicate()[0]
  assert process.returncode == 0
  assert output.startswith("No space left while writing task 'task' split 'train' under")
  assert 'Nothing of this task was kept.' in output
  assert list((cache_dir / 'tasks' / 'task').iterdir()) == []


def test_a_disk_that_fills_up_while_finishing_leaves_nothing(cache_dir):
  process = run(
    """
    import resource, sys
    from flan_jax.data.cache import TaskCacheWriter
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    try:
      with TaskCacheWriter(sys.argv[1], 'task', 'train') as writer:
        for _ in range(10_000):
          writer.add([1], [1], {})
        writer.finish({})
    except ValueError as e:
      print(e)
    """,
    cache_dir,
  )
  output = process.communicate()[0]
  assert output.startswith("No space left while writing task 'task'")
  assert list((cache_dir / 'tasks' / 'task').iterdir()) == []


def test_a_directory_that_cannot_be_written_is_named(cache_dir):
  (cache_dir / 'tasks').write_text('in the way')
  with pytest.raises(
    CacheError, match="Cannot write task 'task' split 'train' under .*: Not a dir"
  ):
    write(cache_dir)


def test_an_example_without_targets_is_refused(cache_dir):
  with pytest.raises(CacheError, match=r"Example 0 \(id '7'\) of task 'task' has no targets"):
    with TaskCacheWriter(cache_dir, 'task', 'train') as writer:
      writer.add([1], [], {'id': '7'})


@pytest.mark.parametrize('wrong', [259, -1])
def test_an_id_outside_the_vocabulary_is_refused(cache_dir, wrong):
  with pytest.raises(CacheError, match=f'has token id {wrong}; the cache.s bytes vocabulary has'):
    with TaskCacheWriter(cache_dir, 'task', 'train') as writer:
      writer.add([wrong, 1], [1], {'id': '7'})


@pytest.mark.parametrize('name', ['../x', 'a/b', '.hidden', '', 'a b', '-x'])
def test_a_name_that_cannot_be_a_folder_is_refused(cache_dir, name):
  with pytest.raises(CacheError, match='cannot name a folder'):
    TaskCacheWriter(cache_dir, name, 'train')


def test_another_vocabulary_is_refused_with_both_named(cache_dir, shared):
  t5 = vocabularies.get_vocabulary(shared('data/tokenizer/t5/spiece.model'))
  with pytest.raises(
    CacheError, match=rf'bytes vocabulary utf8-offset-3 \(259 ids\), not with .* {t5.fingerprint}'
  ):
    cache.initialize_cache(cache_dir, t5)
  assert cache.initialize_cache(cache_dir, vocabularies.get_vocabulary('bytes')).size == 259


def test_a_task_of_another_vocabulary_is_refused(cache_dir):
  write(cache_dir)
  edit(cache_dir / 'tasks/task/train/manifest.json', vocabulary='other')
  with pytest.raises(CacheError, match='tokenised with vocabulary other, but the cache'):
    TaskCache.open(cache_dir, 'task', 'train')


def test_a_cache_whose_vocabulary_was_swapped_is_refused(cache_dir):
  info = json.loads((cache_dir / 'cache.json').read_text())
  info['vocabulary']['fingerprint'] = 'other'
  (cache_dir / 'cache.json').write_text(json.dumps(info))
  with pytest.raises(CacheError, match='made with vocabulary other but its vocabulary/ holds utf8'):
    cache.cache_vocabulary(cache_dir)


def test_what_is_not_a_cache_is_refused(tmp_path):
  with pytest.raises(CacheError, match='There is no token cache'):
    cache.read_cache_info(tmp_path / 'none')
  (tmp_path / 'letter.txt').touch()
  with pytest.raises(CacheError, match='is not a token cache: it has no cache.json'):
    cache.read_cache_info(tmp_path)
  with pytest.raises(CacheError, match="not empty and not a token cache .it holds 'letter.txt'"):
    cache.initialize_cache(tmp_path, vocabularies.get_vocabulary('bytes'))


def test_another_format_is_refused(cache_dir):
  write(cache_dir)
  edit(cache_dir / 'tasks/task/train/manifest.json', format=2)
  with pytest.raises(CacheError, match='cache format 2; this version reads format 1'):
    TaskCache.open(cache_dir, 'task', 'train')
  edit(cache_dir / 'cache.json', format=7)
  with pytest.raises(CacheError, match='cache format 7; this version reads format 1'):
    cache.read_cache_info(cache_dir)


def test_a_description_that_is_no_json_or_has_no_vocabulary_is_refused(cache_dir):
  edit(cache_dir / 'cache.json', vocabulary={'kind': 'bytes'})
  with pytest.raises(CacheError, match='does not describe a vocabulary'):
    cache.read_cache_info(cache_dir)
  (cache_dir / 'cache.json').write_text('{')
  with pytest.raises(CacheError, match='is damaged: it is not JSON'):
    cache.read_cache_info(cache_dir)


def test_an_unfinished_task_is_refused(cache_dir):
  write(cache_dir)
  (cache_dir / 'tasks/task/train/manifest.json').unlink()
  with pytest.raises(CacheError, match="'task' split 'train' in .* is unfinished"):
    TaskCache.open(cache_dir, 'task', 'train')


def test_a_missing_split_lists_what_is_there(cache_dir):
  write(cache_dir)
  with pytest.raises(CacheError, match="has no split 'test' .*; it has train"):
    TaskCache.open(cache_dir, 'task', 'test')


@pytest.mark.parametrize('name', DATA_FILES)
def test_damage_to_any_file_is_found(cache_dir, name):
  write(cache_dir)
  path = cache_dir / 'tasks/task/train' / name
  whole = path.read_bytes()
  path.write_bytes(whole[:-1])
  with pytest.raises(CacheError, match=rf'{name}. has {len(whole) - 1} bytes, the manifest says'):
    TaskCache.open(cache_dir, 'task', 'train')
  for position in (len(whole) - 1, len(whole) - 3):
    flipped = bytearray(whole)
    flipped[position] ^= 4
    path.write_bytes(flipped)
    with pytest.raises(CacheError, match=rf'damaged: .*{name}. differs from its checksum'):
      TaskCache.open(cache_dir, 'task', 'train').verify()
  path.unlink()
  with pytest.raises(CacheError, match=rf'{name}. is missing'):
    TaskCache.open(cache_dir, 'task', 'train')


def test_a_damaged_header_is_named(cache_dir):
  write(cache_dir)
  path = cache_dir / 'tasks/task/train/tokens.npy'
  path.write_bytes(b'\0' + path.read_bytes()[1:])
  with pytest.raises(CacheError, match='tokens.npy. does not begin as 12 numbers of type uint16'):
    TaskCache.open(cache_dir, 'task', 'train')


def test_a_damaged_metadata_line_is_named(cache_dir):
  write(cache_dir)
  path = cache_dir / 'tasks/task/train/metadata.jsonl'
  path.write_bytes(path.read_bytes().replace(b'{', b'[', 1))
  with pytest.raises(CacheError, match='metadata.jsonl. line 1 is not JSON'):
    TaskCache.open(cache_dir, 'task', 'train').metadata(0)


def test_offsets_of_another_number_of_examples_are_refused(cache_dir):
  write(cache_dir)
  edit(cache_dir / 'tasks/task/train/manifest.json', num_examples=2)
  with pytest.raises(CacheError, match='offsets.npy. does not begin as 5 numbers of type int64'):
    TaskCache.open(cache_dir, 'task', 'train')


def test_a_file_cut_while_it_is_open_is_an_error_not_a_crash(cache_dir):
  write(cache_dir)
  opened = TaskCache.open(cache_dir, 'task', 'train')
  os.truncate(cache_dir / 'tasks/task/train/tokens.npy', 140)
  with pytest.raises(CacheError, match="Task 'task' .* damaged: .*tokens.npy. has become shorter"):
    opened.example(2)


def test_arrays_are_numpy_files(cache_dir):
  write(cache_dir)
  folder = cache_dir / 'tasks/task/train'
  assert np.load(folder / 'offsets.npy').tolist() == [0, 3, 5, 6, 9, 11, 12]
  assert np.load(folder / 'tokens.npy').tolist() == [5, 6, 1, 7, 1, 1, 8, 9, 1, 3, 1, 1]
  assert len(np.load(folder / 'metadata_offsets.npy')) == 4


def test_an_example_out_of_range_is_named(cache_dir):
  write(cache_dir)
  with pytest.raises(IndexError, match="Example 3 of task 'task' does not exist; it has 3"):
    TaskCache.open(cache_dir, 'task', 'train').example(3)


def test_too_many_open_files_say_how_to_raise_the_limit(cache_dir):
  write(cache_dir)
  info, soft = cache.read_cache_info(cache_dir), resource.getrlimit(resource.RLIMIT_NOFILE)
  manifest = cache.read_manifest(cache_dir, 'task', 'train')
  opened = []
  try:
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir('/proc/self/fd')) + 4, soft[1]))
    with pytest.raises(CacheError, match='raise the limit with `ulimit -n`'):
      for _ in range(20):
        opened.append(TaskCache.open(cache_dir, 'task', 'train', info=info, manifest=manifest))
  finally:
    resource.setrlimit(resource.RLIMIT_NOFILE, soft)


def test_a_manifest_that_someone_changed_is_refused_and_one_without_checksum_read(cache_dir):
  write(cache_dir)
  path = cache_dir / 'tasks/task/train/manifest.json'
  manifest = json.loads(path.read_text())
  path.write_text(json.dumps({**manifest, 'cot': not manifest.get('cot')}))
  with pytest.raises(CacheError, match=r'manifest.json. differs from its checksum; delete'):
    TaskCache.open(cache_dir, 'task', 'train')
  del manifest['checksum']  # as earlier versions wrote it
  path.write_text(json.dumps(manifest))
  assert TaskCache.open(cache_dir, 'task', 'train').num_examples == len(EXAMPLES)


def edit(path, **changes):
  """Changes a file as a writer would: a manifest keeps a checksum that fits."""
  changed = {**json.loads(path.read_text()), **changes}
  path.write_text(json.dumps(sealed(changed) if 'checksum' in changed else changed))


def test_writers_of_one_task_never_take_each_other_for_dead(tmp_path):
  cache.initialize_cache(tmp_path, vocabularies.get_vocabulary('bytes'))
  script = """
    import sys
    from flan_jax.data.cache import TaskCacheWriter
    for i in range(500):
      with TaskCacheWriter(sys.argv[1], 'task', sys.argv[2], key={'i': i}) as writer:
        writer.add([3, 1], [4, 1], {})
  """
  running = [
    subprocess.Popen(
      [sys.executable, '-c', textwrap.dedent(script), str(tmp_path), split], stderr=subprocess.PIPE
    )
    for split in ('train', 'validation', 'test')
  ]
  for process in running:
    _, error = process.communicate(timeout=120)
    assert process.returncode == 0, error.decode()
