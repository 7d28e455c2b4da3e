"""prepare: what is in the cache afterwards, what is kept, and what is said when things go wrong."""

import dataclasses
import io
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest
import sentencepiece
import tiny_tokenizers
from rich.console import Console

from flan_jax.console import console
from flan_jax.data import catalogue, seqio_tasks
from flan_jax.data.cache import CacheError, TaskCache, initialize_cache, list_tasks
from flan_jax.data.mixture import resolve
from flan_jax.data.prepare import PrepareConfig, PrepareError, prepare
from flan_jax.data.prepare_job import run_job
from flan_jax.data.prepare_plan import plan
from flan_jax.data.vocabularies import get_vocabulary

_NUMBERS = itertools.count()

HEADER = """
from flan_jax.tasks.few_shot import FewShot
from flan_jax.tasks.mixtures import instruction_mixture
from flan_jax.tasks.registry import instruction_task
from flan_jax.tasks.sources import TSV, GeneratorSource
from flan_jax.tasks.splits import HashSplit

TEMPLATES = [
  {'id': 'plain', 'inputs': '{question}', 'targets': '{answer}'},
  {'id': 'asked', 'inputs': 'Answer this: {question}', 'targets': '{answer}'},
]

def task(name, path, **more):
  settings = dict(templates=TEMPLATES, cluster='sums', collection='made', licence='CC0-1.0')
  source = TSV(path, columns=('question', 'answer'), how_to_get='Ask Ann for it.')
  return instruction_task(name, source=source, **{**settings, **more})

def generated(name, rows, **more):
  settings = dict(templates=TEMPLATES, cluster='sums', collection='made', licence='CC0-1.0')
  source = GeneratorSource(rows, splits=('train',))
  return instruction_task(name, source=source, **{**settings, **more})
"""


class Tasks:
  """Writes task modules and data into a folder; names are new in every test."""

  def __init__(self, folder: Path):
    self.folder = folder
    self.prefix = f'made{next(_NUMBERS)}'

  def module(self, body: str) -> str:
    name = f'{self.prefix}_tasks{next(_NUMBERS)}'
    text = (HEADER + body).replace('P_', f'{self.prefix}_')
    (self.folder / f'{name}.py').write_text(text, encoding='utf-8')
    return name

  def name(self, name: str) -> str:
    return f'{self.prefix}_{name}'

  def tsv(self, name: str, rows) -> Path:
    path = self.folder / name
    path.write_text(''.join(f'{q}\t{a}\n' for q, a in rows), encoding='utf-8')
    return path


@pytest.fixture
def tasks(tmp_path, monkeypatch):
  folder = tmp_path / 'modules'
  folder.mkdir()
  monkeypatch.chdir(folder)
  monkeypatch.setenv('FLAN_JAX_SEQIO', 'off')
  monkeypatch.setenv('FLAN_JAX_COT_DIR', '')  # put back afterwards, whatever a test sets
  made = Tasks(folder)
  yield made
  for name in catalogue.mixture_names():
    if name.startswith(made.prefix):
      catalogue.mixtures().unregister_mixture(name)
  for name in catalogue.task_names():
    if name.startswith(made.prefix):
      catalogue.registry().unregister(name)


def run(mixture, cache_dir, module, **settings):
  """Prepares with one worker; returns (result, what was printed)."""
  text = io.StringIO()
  config = PrepareConfig(
    mixture=mixture,
    cache_dir=str(cache_dir),
    **{'tasks_modules': (module,), 'workers': 1, **settings},
  )
  return prepare(config, out=console(text)), text.getvalue()


SUMS = [(f'{a} + {b}?', a + b) for a in range(10) for b in range(5)]


def files_of(folder: Path) -> dict[str, bytes]:
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in sorted(folder.rglob('*'))
    if path.is_file()
  }


@pytest.fixture(scope='module')
def small_model(tmp_path_factory) -> str:
  """A SentencePiece model with T5's normalisation, which drops zero-width and folds newlines."""
  folder = tmp_path_factory.mktemp('model')
  (folder / 'text').write_text(
    'what is one plus two ? three a b 1 2 3 4 5\n' * 50, encoding='utf-8'
  )
  sentencepiece.SentencePieceTrainer.train(
    input=str(folder / 'text'),
    model_prefix=str(folder / 'small'),
    vocab_size=40,
    pad_id=0,
    eos_id=1,
    unk_id=2,
    bos_id=-1,
    hard_vocab_limit=False,
    minloglevel=2,
  )
  return str(folder / 'small.model')


def test_the_cache_holds_every_example_as_the_task_writes_it(tasks, tmp_path):
  module = tasks.module(f"task('P_sums', {str(tasks.tsv('a.tsv', SUMS))!r})")
  result, printed = run(tasks.name('sums'), tmp_path / 'cache', module, splits=('train',))
  assert result.ok
  texts = list(catalogue.registry().text_examples(tasks.name('sums'), 'train'))
  cached = TaskCache.open(tmp_path / 'cache', tasks.name('sums'), 'train')
  vocabulary = get_vocabulary('bytes')
  assert cached.num_examples == len(texts) == 50
  for i, text in enumerate(texts):
    inputs, targets = cached.example(i)
    assert inputs.tolist() == [*vocabulary.encode(text['inputs']), 1]
    assert targets.tolist() == [*vocabulary.encode(text['targets']), 1]
    expected = {k: v for k, v in text.items() if k not in ('inputs', 'targets')}
    assert cached.metadata(i) == expected
  manifest = cached.manifest
  assert (manifest['cluster'], manifest['licence']) == ('sums', 'CC0-1.0')
  assert manifest['metrics'] == ['exact_match'] and manifest['cot'] is False
  assert sum(manifest['templates'].values()) == 50 and set(manifest['templates']) == {
    'plain',
    'asked',
  }
  assert '50' in printed and 'built' in printed


def test_workers_of_instruction_tasks_import_neither_tensorflow_nor_seqio_nor_jax(tasks, tmp_path):
  module = tasks.module("""
import sys
def rows(split):
  heavy = [name for name in ('tensorflow', 'seqio', 'jax', 'flax') if name in sys.modules]
  yield {'question': 'Which?', 'answer': ' '.join(heavy) or 'none'}
generated('P_heavy', rows)
""")
  run(tasks.name('heavy'), tmp_path / 'cache', module, splits=('train',))
  cached = TaskCache.open(tmp_path / 'cache', tasks.name('heavy'), 'train')
  assert cached.metadata(0)['answer'] == 'none'


def test_what_has_not_changed_is_kept_and_what_has_is_made_again(tasks, tmp_path):
  path = tasks.tsv('a.tsv', SUMS)
  module = tasks.module(f"""
task('P_a', {str(path)!r})
task('P_b', {str(path)!r}, fields=lambda row: {{**row, 'question': row['question'].upper()}})
""")
  cache, both = tmp_path / 'cache', f'{tasks.name("a")},{tasks.name("b")}'

  def statuses(**settings):
    return [r.status for r in run(both, cache, module, splits=('train',), **settings)[0].results]

  assert statuses() == ['built', 'built']
  before = files_of(cache)
  assert statuses() == ['kept', 'kept']
  os.utime(path)  # a new time alone changes nothing
  assert statuses() == ['kept', 'kept']
  assert files_of(cache) == before
  assert statuses(force=True) == ['built', 'built']
  assert files_of(cache) == before
  tasks.tsv('a.tsv', SUMS[:20])
  assert statuses(max_examples=7) == ['built', 'built']
  assert TaskCache.open(cache, tasks.name('a'), 'train').num_examples == 7


def test_all_that_decides_the_tokens_is_part_of_the_key(tasks, tmp_path):
  path, other = tasks.tsv('a.tsv', SUMS), tasks.tsv('b.tsv', SUMS[1:])
  (tasks.folder / 'moved').mkdir()
  moved = tasks.tsv('moved/a.tsv', SUMS)
  name = tasks.name('a')

  def key(line="task('P_a', PATH)", path=path, vocabulary='bytes', **settings):
    module = tasks.module(line.replace('PATH', repr(str(path))))
    catalogue.import_task_modules((module,))
    config = PrepareConfig(name, str(tmp_path / 'cache'), tasks_modules=(module,), **settings)
    _, (job,) = plan(config, [(name, 'train')], get_vocabulary(vocabulary))
    catalogue.registry().unregister(name)
    return json.dumps(job.key, sort_keys=True)

  keys = [
    key(),
    key(path=other),
    key(seed=1),
    key(max_examples=5),
    key("task('P_a', PATH, templates=TEMPLATES[:1])"),
    key("task('P_a', PATH, few_shot=None, seed=3)"),
    key("task('P_a', PATH, splits=HashSplit(0.2))"),
    key("task('P_a', PATH, fields={'question': 'answer', 'answer': 'question'})"),
    key("task('P_a', PATH, fields=lambda row: row)"),
    key("task('P_a', PATH, fields=lambda row: {**row, 'x': 1})"),
    key(
      "source = TSV(PATH, columns=('answer', 'question'))\n"
      "instruction_task('P_a', source=source, templates=TEMPLATES, cluster='c', collection='d')"
    ),
  ]
  assert len(set(keys)) == len(keys)
  assert key() == keys[0] == key(path=moved)


def test_another_seed_draws_other_wordings(tasks, tmp_path):
  module = tasks.module(f"task('P_a', {str(tasks.tsv('a.tsv', SUMS))!r})")
  chosen = []
  for seed in (0, 0, 1):
    cache = tmp_path / f'cache{len(chosen)}'
    run(tasks.name('a'), cache, module, splits=('train',), seed=seed)
    task = TaskCache.open(cache, tasks.name('a'), 'train')
    chosen.append([task.metadata(i)['template'] for i in range(50)])
  assert chosen[0] == chosen[1] != chosen[2]


REPEATED = """
for name, count in (('P_a', 50), ('P_b', 20)):
  def rows(split, count=count):
    for i in range(count):
      yield {'question': f'{i}?', 'answer': str(i)}
  source = GeneratorSource(rows, splits=('train', 'validation'))
  instruction_task(
    name, source=source, templates=TEMPLATES, few_shot=FewShot(k=2), cluster='c', collection='d'
  )
"""


def test_epochs_give_each_training_row_several_wordings(tasks, tmp_path):
  module = tasks.module(REPEATED)
  names = (tasks.name('a'), tasks.name('a_fewshot'))
  for cache, epochs in (('thrice', 3), ('once', 1)):
    run(','.join(names), tmp_path / cache, module, epochs=epochs, max_examples=12)
  decode = get_vocabulary('bytes').decode
  for name in names:
    thrice, once = (TaskCache.open(tmp_path / c, name, 'train') for c in ('thrice', 'once'))
    assert (thrice.num_examples, once.num_examples) == (36, 12)
    assert (thrice.manifest['epochs'], once.manifest['epochs']) == (3, 1)
    third = list(catalogue.text_examples(name, 'train', epochs=(2,)))
    for i in range(12):
      of_row = [thrice.metadata(3 * i + epoch) for epoch in range(3)]
      assert [m['epoch'] for m in of_row] == [0, 1, 2] and len({m['id'] for m in of_row}) == 1
      assert thrice.example(3 * i)[0].tolist() == once.example(i)[0].tolist()
      assert decode(thrice.example(3 * i + 2)[0]) == third[i]['inputs']
      assert 'epoch' not in once.metadata(i)
    assert len({decode(thrice.example(i)[0]) for i in range(36)}) > 1.4 * 12
    held_out = [files_of(tmp_path / c / 'tasks' / name / 'validation') for c in ('thrice', 'once')]
    assert held_out[0] == held_out[1]  # what is evaluated stands there once


@pytest.mark.slow
def test_epochs_are_the_same_with_one_worker_and_with_eight(tasks, tmp_path):
  module = tasks.module(REPEATED)
  mixture = ','.join(tasks.name(name) for name in ('a', 'b', 'a_fewshot', 'b_fewshot'))
  made = []
  for workers in (1, 8):
    run(mixture, tmp_path / f'by_{workers}', module, workers=workers, epochs=3)
    made.append(files_of(tmp_path / f'by_{workers}'))
  assert made[0] == made[1] and len(made[0]) > 8 * 5


def test_the_number_of_epochs_is_part_of_the_key_of_what_is_trained_on(tasks, tmp_path):
  module, name = tasks.module(REPEATED), tasks.name('a')
  catalogue.import_task_modules((module,))

  def key(split, **settings):
    config = PrepareConfig(name, str(tmp_path / 'cache'), tasks_modules=(module,), **settings)
    _, (job,) = plan(config, [(name, split)], get_vocabulary('bytes'))
    return job.key

  assert key('train') == key('train', epochs=1)
  assert len({json.dumps(key('train', epochs=n)) for n in (1, 2, 3)}) == 3
  assert key('validation') == key('validation', epochs=2)


def test_broken_data_fails_its_task_alone_by_name_and_is_never_skipped(tasks, tmp_path):
  (tasks.folder / 'bad.tsv').write_text('1 + 1?\t2\nno answer here\n', encoding='utf-8')
  module = tasks.module(f"""
task('P_bad', {str(tasks.folder / 'bad.tsv')!r})
task('P_good', {str(tasks.tsv('good.tsv', SUMS))!r})
task('P_absent', {str(tasks.folder / 'absent.tsv')!r})
instruction_mixture('P_all', ['P_bad', 'P_good', 'P_absent'])
""")
  cache = tmp_path / 'cache'
  result, printed = run(tasks.name('all'), cache, module, splits=('train',), skip_missing=True)
  by_task = {r.task: r for r in result.results}
  assert by_task[tasks.name('good')].status == 'built'
  assert by_task[tasks.name('bad')].status == 'failed'
  assert 'bad.tsv line 2 has 1 columns' in by_task[tasks.name('bad')].message
  assert by_task[tasks.name('absent')].status == 'missing'
  assert by_task[tasks.name('absent')].remedy == 'Ask Ann for it.' and 'Ask Ann' in printed
  assert [r.task for r in result.failed] == [tasks.name('bad')] and not result.ok
  assert list_tasks(cache) == (tasks.name('good'),)
  assert f'failed {tasks.name("bad")} train:' in printed
  mixture = json.loads((cache / 'mixtures' / f'{tasks.name("all")}.json').read_text())
  assert [m['task'] for m in mixture['members']] == [tasks.name('bad'), tasks.name('good')]
  assert list(mixture['missing']) == [tasks.name('absent')]


def test_missing_data_fails_unless_it_is_allowed(tasks, tmp_path):
  module = tasks.module(f"""
task('P_good', {str(tasks.tsv('good.tsv', SUMS))!r})
task('P_absent', {str(tasks.folder / 'absent.tsv')!r})
""")
  both = f'{tasks.name("good")}, {tasks.name("absent")}'
  assert not run(both, tmp_path / 'cache', module, splits=('train',))[0].ok
  assert run(both, tmp_path / 'cache', module, splits=('train',), skip_missing=True)[0].ok
  only = run(tasks.name('absent'), tmp_path / 'cache', module, splits=('train',), skip_missing=True)
  assert not only[0].ok  # nothing at all is in the cache


def test_a_worker_that_is_killed_fails_only_the_task_it_held(tasks, tmp_path):
  module = tasks.module(f"""
import os, signal
def rows(split):
  yield {{'question': 'q', 'answer': 'a'}}
  os.kill(os.getpid(), signal.SIGKILL)
def broken(split):
  yield {{'question': 'q', 'answer': 'a'}}
  raise KeyError('colour')
generated('P_killed', rows)
generated('P_broken', broken)
task('P_good', {str(tasks.tsv('good.tsv', SUMS))!r})
instruction_mixture('P_all', ['P_killed', 'P_broken', 'P_good'])
""")
  result, _ = run(tasks.name('all'), tmp_path / 'cache', module, splits=('train',))
  messages = {r.task: (r.status, r.message) for r in result.results}
  status, message = messages[tasks.name('killed')]
  assert status == 'failed' and 'SIGKILL' in message
  status, message = messages[tasks.name('broken')]
  assert status == 'failed' and "KeyError: 'colour'" in message
  assert messages[tasks.name('good')][0] == 'built'
  assert list_tasks(tmp_path / 'cache') == (tasks.name('good'),)
  assert not list((tmp_path / 'cache' / 'tasks').glob('*/.*/manifest.json'))


def test_a_target_that_tokenises_to_nothing_names_task_example_and_template(
  tasks, tmp_path, small_model
):
  rows = [('one plus two?', 3), ('what?', '\u200b')]
  module = tasks.module(f"task('P_a', {str(tasks.tsv('a.tsv', rows))!r}, templates=TEMPLATES[:1])")
  result, _ = run(
    tasks.name('a'), tmp_path / 'cache', module, splits=('train',), vocabulary=small_model
  )
  (failed,) = result.failed
  assert failed.message == (
    f"Task '{tasks.name('a')}' split 'train', example 'train-2' (template 'plain'): the target "
    "'\\u200b' becomes no tokens in this sentencepiece vocabulary. Leave the row out with fields=, "
    'correct it, or choose another vocabulary.'
  )


def test_rows_that_the_task_leaves_out_are_counted(tasks, tmp_path):
  module = tasks.module(f"""
def fields(row):
  return None if row['answer'] == '3' else row
task('P_a', {str(tasks.tsv('a.tsv', SUMS))!r}, fields=fields)
task('P_none', {str(tasks.tsv('a.tsv', SUMS))!r}, fields=lambda row: None)
""")
  both = f'{tasks.name("a")},{tasks.name("none")}'
  result, printed = run(both, tmp_path / 'cache', module, splits=('train',))
  kept, none = result.results
  assert kept.num_examples == 46 and dict(kept.dropped) == {'left out by fields=': 4}
  assert '4 left out by fields=' in printed
  assert none.status == 'failed' and 'has no examples (left out: ' in none.message


def test_lost_characters_are_warned_of_once_with_counts_and_an_example(
  tasks, tmp_path, small_model
):
  rows = [('one {1} plus\\ntwo?', 3), ('one plus two?', 3), ('one\\ntwo?', 3)]
  module = tasks.module(f"""
source = TSV({str(tasks.tsv('a.tsv', rows))!r}, columns=('question', 'answer'), unescape=True)
for name in ('P_a', 'P_b'):
  instruction_task(name, source=source, templates=TEMPLATES[:1], cluster='c', collection='d')
instruction_mixture('P_both', ['P_a', 'P_b'])
""")
  _, printed = run(
    tasks.name('both'), tmp_path / 'cache', module, splits=('train',), vocabulary=small_model
  )
  warning = printed[printed.index('The sentencepiece vocabulary') :]
  assert 'newline becomes blank in 4 of 6 examples of 2 tasks' in warning
  assert f"such as {tasks.name('a')} 'train-1': one {{1}} plus\\ntwo?" in warning
  assert "'{' becomes '⁇' in 2 of 6 examples" in warning
  assert printed.count('does not give back') == 1
  _, bytes_printed = run(tasks.name('both'), tmp_path / 'bytes', module, splits=('train',))
  assert 'does not give back' not in bytes_printed


SLOW = """
import time
import tracemalloc
def slow(n):
  def rows(split):
    for i in range(n):
      time.sleep(0.004)
      yield {'question': f'{i} times {n}?', 'answer': str(i * n)}
  return rows
for n in (100, 150, 250, 350):
  generated(f'P_{n}', slow(n))
instruction_mixture('P_slow', ['P_100', 'P_150', 'P_250', 'P_350'])
"""
PROGRAM = """
import sys
from flan_jax.data.mixture import resolve
from flan_jax.data.prepare import PrepareConfig, prepare
if __name__ == '__main__':
  mixture, cache_dir, module = sys.argv[1:4]
  result = prepare(
    PrepareConfig(mixture, cache_dir, splits=('train',), tasks_modules=(module,), workers=2)
  )
  sys.exit(0 if result.ok else 1)
"""


def program(tasks, tmp_path, module, mixture, cache, **settings):
  path = tmp_path / 'program.py'
  path.write_text(PROGRAM, encoding='utf-8')
  return subprocess.Popen(
    [sys.executable, str(path), mixture, str(cache), module],
    cwd=tasks.folder,
    start_new_session=True,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    **settings,
  )


def test_killed_at_any_moment_it_goes_on_and_the_cache_is_the_same_to_the_byte(tasks, tmp_path):
  module, mixture = tasks.module(SLOW), tasks.name('slow')
  whole = program(tasks, tmp_path, module, mixture, tmp_path / 'whole')
  cache, draw = tmp_path / 'killed', random.Random(0)
  for finished in range(3):
    running = program(tasks, tmp_path, module, mixture, cache)
    while running.poll() is None and not (
      len(list_tasks(cache)) >= finished and list(cache.glob('tasks/*/.train.*.partial'))
    ):
      time.sleep(0.01)
    time.sleep(draw.uniform(0, 0.1))
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate()
    assert running.returncode == -signal.SIGKILL
    for task in list_tasks(cache):
      TaskCache.open(cache, task, 'train').verify()
  last = program(tasks, tmp_path, module, mixture, cache)
  assert '4 of 4 splits are in the cache' in last.communicate()[0] and last.returncode == 0
  assert '(4 built now)' in whole.communicate()[0]
  assert files_of(cache) == files_of(tmp_path / 'whole')


def test_a_full_disk_ends_it_in_a_sentence_and_leaves_nothing_half_written(tasks, tmp_path):
  import resource

  module = tasks.module("""
def rows(split):
  for i in range(20_000):
    yield {'question': 'how many? ' * 10, 'answer': str(i)}
generated('P_big', rows)
generated('P_next', rows)
instruction_mixture('P_all', ['P_big', 'P_next'])
""")

  def small_files():  # EFBIG stands for ENOSPC: both are what a write says when it will not fit
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

  cache = tmp_path / 'cache'
  process = program(tasks, tmp_path, module, tasks.name('all'), cache, preexec_fn=small_files)
  printed = process.communicate()[0]
  assert process.returncode == 1
  assert 'No space left while writing task' in printed and 'Traceback' not in printed
  assert list_tasks(cache) == ()
  assert not [p for p in (cache / 'tasks').rglob('*') if p.is_file()]


def test_two_preparations_of_one_cache_at_once_are_refused(tasks, tmp_path):
  module, mixture = tasks.module(SLOW), tasks.name('slow')
  first = program(tasks, tmp_path, module, mixture, tmp_path / 'cache')
  while not (tmp_path / 'cache' / '.prepare.lock').exists() and first.poll() is None:
    time.sleep(0.01)
  time.sleep(0.05)
  with pytest.raises(PrepareError, match='Another `prepare` is writing the cache .*; wait for it'):
    run(mixture, tmp_path / 'cache', module, splits=('train',))
  first.communicate()
  assert first.returncode == 0


def test_names_that_are_not_there_are_answered_with_the_nearest(tasks, tmp_path):
  module = tasks.module(f"task('P_sums', {str(tasks.tsv('a.tsv', SUMS))!r})")
  name, cache = tasks.name('sums'), tmp_path / 'cache'
  with pytest.raises(ValueError, match=f"No mixture or task '{name}x'. Did you mean '{name}'"):
    run(f'{name}x', cache, module)
  with pytest.raises(ValueError, match="There is no task module 'flan_jax.taks'. Did you mean"):
    run(name, cache, 'flan_jax.taks')
  with pytest.raises(ValueError, match="has a split 'trian'. Did you mean 'train'"):
    run(name, cache, module, splits=('trian',))
  with pytest.raises(ValueError, match="No folder 'cot_dri'. Did you mean 'cot_dir'"):
    run(name, cache, module, folders={'cot_dri': '/data'})
  with pytest.raises(PrepareError, match="mixture=' , ' names nothing"):
    run(' , ', cache, module)
  assert not cache.exists()


def test_a_task_module_that_cannot_be_imported_says_why(tasks, tmp_path):
  with pytest.raises(ValueError, match="imports 'no_such_library', which is not installed"):
    run('x', tmp_path / 'cache', tasks.module('import no_such_library'))
  with pytest.raises(ValueError, match='cannot be imported: ZeroDivisionError: division by zero'):
    run('x', tmp_path / 'cache', tasks.module('1 / 0'))


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'workers': 0}, 'workers=0 cannot prepare anything; use 1 or more.'),
    ({'max_examples': 0}, 'max_examples=0 must be at least 1.'),
    ({'epochs': 0}, 'epochs=0 must be at least 1.'),
    ({'splits': ()}, 'splits is empty; name at least one'),
  ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
  with pytest.raises(PrepareError, match=message):
    PrepareConfig(mixture='x', cache_dir='y', **settings)


def test_a_cache_dir_that_cannot_be_used_is_said_in_a_sentence(tasks, tmp_path, small_model):
  module = tasks.module(f"task('P_sums', {str(tasks.tsv('a.tsv', SUMS))!r})")
  name = tasks.name('sums')
  (tmp_path / 'file').write_text('text')
  with pytest.raises(PrepareError, match="The cache '.*file' is a file; give a folder"):
    run(name, tmp_path / 'file', module, splits=('train',))
  with pytest.raises(PrepareError, match="Cannot write the cache '.*cache': Not a directory"):
    run(name, tmp_path / 'file' / 'cache', module, splits=('train',))
  with pytest.raises(PrepareError, match="Cannot write the cache '/proc/cache'"):
    run(name, '/proc/cache', module, splits=('train',))
  with pytest.raises(CacheError, match='is not empty and not a token cache'):
    run(name, tasks.folder, module, splits=('train',))
  run(name, tmp_path / 'cache', module, splits=('train',))
  with pytest.raises(CacheError, match='was made with the bytes vocabulary'):
    run(name, tmp_path / 'cache', module, splits=('train',), vocabulary=small_model)
  with pytest.raises(ValueError, match="There is no vocabulary at '.*nothing.model'"):
    run(name, tmp_path / 'new', module, splits=('train',), vocabulary='nothing.model')
  assert not (tmp_path / 'new').exists()


def test_without_a_vocabulary_the_cache_keeps_its_own(tasks, tmp_path, small_model):
  module = tasks.module(f"task('P_sums', {str(tasks.tsv('a.tsv', SUMS))!r})")
  run(tasks.name('sums'), tmp_path / 'cache', module, splits=('train',), vocabulary=small_model)
  result, _ = run(tasks.name('sums'), tmp_path / 'cache', module, splits=('train',))
  assert [r.status for r in result.results] == ['kept']


def test_control_characters_in_errors_and_data_are_shown_not_obeyed(tasks, tmp_path):
  (tasks.folder / 'bad.tsv').write_text('[red]x[/red]\x1b[2J\n', encoding='utf-8')
  module = tasks.module("""
def rows(split):
  raise ValueError('\\x1b[2J[bold]gone[/bold]')
  yield
generated('P_bad', rows)
""")
  _, printed = run(tasks.name('bad'), tmp_path / 'cache', module, splits=('train',))
  assert '\x1b' not in printed and '\\x1b[2J[bold]gone[/bold]' in printed


def test_on_a_terminal_there_is_a_bar_and_markup_stays_text(tasks, tmp_path):
  module = tasks.module("""
import time
import tracemalloc
def slow(split):
  for i in range(3):
    time.sleep(0.25)
    yield {'question': 'q', 'answer': str(i)}
def bad(split):
  raise ValueError('[bold]gone[/bold]\\x1b[2J')
  yield
generated('P_slow', slow)
generated('P_bad', bad)
""")
  screen = io.StringIO()
  out = Console(file=screen, force_terminal=True, width=120, markup=False, highlight=False)
  both = f'{tasks.name("slow")},{tasks.name("bad")}'
  config = PrepareConfig(
    both, str(tmp_path / 'cache'), splits=('train',), tasks_modules=(module,), workers=2
  )
  result = prepare(config, out=out)
  assert [r.status for r in result.results] == ['built', 'failed']
  shown = screen.getvalue()
  assert '2/2 splits, 3 examples' in shown and '━' in shown
  assert '[bold]gone[/bold]\\x1b[2J' in shown and '\x1b[2J' not in shown


FOREIGN = """
import functools
import seqio
import tensorflow as tf

def rows(split, shuffle_files=False, seed=None):
  return tf.data.Dataset.from_tensor_slices(
    {'inputs': ['what is one?', 'two?', ''], 'targets': ['one', 'two', 'three']}
  )

FEATURES = {
  name: seqio.Feature(seqio.ByteVocabulary(), add_eos=True) for name in ('inputs', 'targets')
}
STEPS = [seqio.preprocessors.tokenize, seqio.preprocessors.append_eos]
for name in ('P_first', 'P_second'):
  seqio.TaskRegistry.add(
    name,
    source=seqio.FunctionDataSource(rows, splits=['train'], num_input_examples={'train': 3}),
    preprocessors=STEPS,
    output_features=FEATURES,
    metric_fns=[],
  )
seqio.TaskRegistry.add(
  'P_file',
  source=seqio.TextLineDataSource({'train': 'no_such_file*.txt'}),
  preprocessors=STEPS,
  output_features=FEATURES,
)
seqio.MixtureRegistry.add('P_mixed', [('P_first', 3), ('P_second', 1), ('P_file', 1)])
"""


@pytest.mark.seqio
@pytest.mark.slow
def test_tasks_and_mixtures_that_only_seqio_knows_are_prepared_with_the_chosen_vocabulary(
  tasks, tmp_path, small_model
):
  module, cache = tasks.module(FOREIGN), tmp_path / 'cache'
  result, _ = run(
    tasks.name('mixed'),
    cache,
    module,
    splits=('train',),
    vocabulary=small_model,
    skip_missing=True,
  )
  assert {r.task: r.status for r in result.results} == {
    tasks.name('first'): 'built',
    tasks.name('second'): 'built',
    tasks.name('file'): 'missing',
  }
  vocabulary = get_vocabulary(small_model)
  cached = TaskCache.open(cache, tasks.name('first'), 'train')
  inputs, targets = cached.example(0)
  assert inputs.tolist() == [*vocabulary.encode('what is one?'), 1]
  assert targets.tolist() == [*vocabulary.encode('one'), 1]
  assert cached.example(2)[0].tolist() == [1]  # a task may train on bare targets
  assert cached.metadata(1) == {'id': 'train-1', 'template': '', 'answer': 'two'}
  mixture = json.loads((cache / 'mixtures' / f'{tasks.name("mixed")}.json').read_text())
  assert {m['task']: m['rate'] for m in mixture['members']} == {
    tasks.name('first'): 3,
    tasks.name('second'): 1,
  }
  again, _ = run(tasks.name('first'), cache, module, splits=('train',), vocabulary=small_model)
  assert [r.status for r in again.results] == ['kept']


@pytest.mark.seqio
@pytest.mark.parametrize('kind', ['bytes', 'small', 't5', 'byte_pairs'])
def test_both_paths_give_the_same_tokens_and_metadata(
  tasks, tmp_path, small_model, shared, kind, monkeypatch
):
  import seqio  # noqa: F401  (seqio_tasks finds it in sys.modules)
  from flan_jax.tasks import preprocessors, vocabulary

  spec = {
    'bytes': lambda: 'bytes',
    'small': lambda: small_model,
    't5': lambda: str(shared('data/tokenizer/t5/spiece.model')),
    'byte_pairs': lambda: str(tiny_tokenizers.byte_pairs(tmp_path / 'byte_pairs')),
  }[kind]()
  monkeypatch.setenv('FLAN_JAX_VOCABULARY', spec)
  rows = [*SUMS, ('Größe — “naïve”\\n{x}?', 'a\\nb'), ('  blanks   inside ', '½ ﬁne')]
  module = tasks.module(f"""
source = TSV({str(tasks.tsv('a.tsv', rows))!r}, columns=('question', 'answer'), unescape=True)
instruction_task(
  'P_a', source=source, templates=TEMPLATES, cluster='c', collection='d', few_shot=FewShot(k=2),
  fields=lambda row: {{**row, 'options': ['a', 'b'], 'references': [row['answer']]}},
)
""")
  both = f'{tasks.name("a")},{tasks.name("a_fewshot")}'
  run(both, tmp_path / 'cache', module, splits=('train',), vocabulary=spec)
  for name in both.split(','):
    preprocessors.register(catalogue.registry().get_task(name))
    vocabulary.set_vocabulary(spec)
    cached = TaskCache.open(tmp_path / 'cache', name, 'train')
    try:
      examples = list(seqio_tasks.examples(name, 'train', vocabulary=spec, seed=0))
    finally:
      seqio.TaskRegistry.remove(name)
    assert cached.num_examples == len(examples) == len(rows)
    for i, example in enumerate(examples):
      inputs, targets = cached.example(i)
      assert inputs.tolist() == list(example.input_ids)
      assert targets.tolist() == list(example.target_ids)
      metadata = {'id': example.id, 'template': example.template, **example.metadata}
      assert cached.metadata(i) == metadata


def test_the_demo_collection_is_prepared_whole(tasks, tmp_path):
  cache, vocabulary = tmp_path / 'cache', Path(demo_file('vocabulary.model'))
  result, printed = run(
    'demo', cache, 'flan_jax.tasks', vocabulary=str(vocabulary), max_examples=5, workers=2
  )
  assert [r.message for r in result.results if r.status != 'built'] == [] and result.ok
  resolved = resolve('demo', cache)
  assert len(resolved.tasks) >= 24 and sum(resolved.rates) == pytest.approx(1)
  assert all(m['licence'] and m['cluster'] for m in resolved.manifests)
  assert 'does not give back' not in printed


def test_the_real_cot_sets_are_prepared_and_the_absent_ones_named(tasks, tmp_path, shared):
  result, printed = run(
    'cot',
    tmp_path / 'cache',
    'flan_jax.tasks',
    vocabulary=str(shared('data/tokenizer/t5/spiece.model')),
    folders={'cot_dir': str(shared('data/cot/flan_v2'))},
    splits=('train',),
    max_examples=40,
    skip_missing=True,
  )
  assert result.ok
  missing = {r.task for r in result.results if r.status == 'missing'}
  resolved = resolve('cot', tmp_path / 'cache')
  assert len(resolved.tasks) + len(missing) == 9 and len(resolved.tasks) >= 7
  written = json.loads((tmp_path / 'cache' / 'mixtures' / 'cot.json').read_text())
  assert set(written['missing']) == missing
  assert 'newline becomes blank in' in printed
  for task in missing:
    assert f'missing {task} train' in printed


def demo_file(name: str) -> str:
  from flan_jax.tasks.templates import DATA

  path = DATA / 'demo' / name
  if not path.exists():
    pytest.skip(f'{path} is not there.')
  return str(path)


def test_every_setting_is_documented():
  documented = PrepareConfig.__doc__
  for field in dataclasses.fields(PrepareConfig):
    assert f'  {field.name}: ' in documented


def test_tasks_of_other_licences_are_not_prepared_and_are_named(tasks, tmp_path):
  path = str(tasks.tsv('a.tsv', SUMS))
  module = tasks.module(
    f"task('P_free', {path!r}, licence='MIT')\ntask('P_bound', {path!r}, licence='CC-BY-NC-4.0')\n"
    "instruction_mixture('P_all', ['P_free', 'P_bound'])"
  )
  cache = tmp_path / 'cache'
  result, printed = run(tasks.name('all'), cache, module, splits=('train',), licence='mit|cc0')
  assert result.ok and list_tasks(cache) == (tasks.name('free'),)
  why = "Its licence 'CC-BY-NC-4.0' does not match 'mit|cc0'."
  assert f'left out {tasks.name("bound")}: {why}' in printed
  assert resolve(tasks.name('all'), cache).tasks == (tasks.name('free'),)
  written = json.loads((cache / 'mixtures' / f'{tasks.name("all")}.json').read_text())
  assert written['left_out'] == {tasks.name('bound'): why} and not written['missing']
  with pytest.raises(ValueError, match='keeps none of the 2 tasks'):
    run(tasks.name('all'), cache, module, splits=('train',), licence='gpl')


def test_memory_does_not_grow_with_the_number_of_examples(tasks, tmp_path):
  module = tasks.module("""
def rows(count):
  def made(split):
    for i in range(count):
      yield {'name': f'row {i}', 'question': 'q', 'answer': 'a'}
  return GeneratorSource(made, splits=('train',), id_field='name')
for count in (500, 8_500):
  instruction_task(
    f'P_{count}', source=rows(count), templates=TEMPLATES, splits=HashSplit(0.01, key='name'),
    cluster='c', collection='d',
  )
""")
  vocabulary = get_vocabulary('bytes')
  initialize_cache(tmp_path / 'cache', vocabulary)
  catalogue.import_task_modules((module,))
  peaks = []
  for count in (500, 8_500):
    config = PrepareConfig('', str(tmp_path / 'cache'), tasks_modules=(module,))
    _, (job,) = plan(config, [(tasks.name(str(count)), 'train')], vocabulary)
    tracemalloc.start()
    try:
      result = run_job(job, lambda _: None)
      peaks.append(tracemalloc.get_traced_memory()[1])
    finally:
      tracemalloc.stop()
    assert 0.97 * count < result.num_examples < count
  # One number kept of each example would be 64 kB.
  assert peaks[1] - peaks[0] < 40_000, peaks
