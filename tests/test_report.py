"""The report: complete from a whole run, honest about a torn one, harmless whatever data say."""

import json
import math
import random
import re
from html.parser import HTMLParser

import pytest

from flan_jax import report, report_data, report_page, report_plots
from flan_jax.data.vocabularies import ByteVocabulary
from flan_jax.evaluation.results import (
  EvaluationResult,
  GroupResult,
  Sample,
  Score,
  TaskResult,
)

CLUSTERS = {
  'arithmetic': ('add_two_numbers', 'word_problems'),
  'lists': ('reverse_list', 'largest_of_list'),
  'knowledge': ('capital_of',),
}
# Seconds of two starts by cause; a third of the first one's steps were done again.
FIRST = {'start': 15.0, 'step': 45.0}
SECOND = {'compile': 10.0, 'step': 80.0, 'save': 10.0}
EVIL = (
  '<script>alert(1)</script>',
  '"><img src=x onerror=alert(2)>',
  "' onmouseover='alert(3)",
  '{{ 7 * 7 }}{% raw %}',
  '\x1b[31mred\x1b[0m',
  'nul\x00byte',
  'right\u202eto left',
  '$x^2$ & <b>bold</b> ]]> --> </style></svg>',
  '\ud800 lone surrogate',
)


def make_sample(task, number, right, text='The cat has 3 kittens and finds 4 more.'):
  answer = '7' if right else '5'
  return Sample(
    example=f'{task}-{number}',
    prompt=f'{text} How many are there? Think step by step.',
    target='There are 3 + 4 = 7. The answer is 7.',
    references=('7',),
    generated=f'There are 3 + 4 = {answer}. The answer is {answer}.',
    prediction=answer,
    score=100.0 * right,
  )


def make_evaluation(step, level, names=CLUSTERS, text='The cat has 3 kittens and finds 4 more.'):
  rng = random.Random(step)
  tasks = {}
  for cluster, members in names.items():
    for task in members:
      value = min(99.0, max(0.0, level + rng.uniform(-15, 15)))
      tasks[task] = TaskResult(
        task=task,
        cluster=cluster,
        collection='demo',
        cot=task == 'word_problems',
        examples=100,
        available=400,
        tokens=2000,
        loss=3.0 - level / 40,
        accuracy=level / 100,
        headline='exact_match',
        scores={'exact_match': Score(value, max(0.0, value - 8), min(100.0, value + 8))},
        truncated_inputs=3 if task == 'reverse_list' else 0,
        samples=tuple(make_sample(task, i, level > 50 + 10 * i, text) for i in range(3)),
      )

  def group(name, members):
    value = sum(tasks[t].score.value for t in members) / len(members)
    low, high = max(0.0, value - 4), min(100.0, value + 4)
    return GroupResult(name, tuple(members), Score(value, low, high), 3.0 - level / 40, level / 100)

  everything = tuple(tasks)
  return EvaluationResult(
    step=step,
    split='validation',
    seconds=12.5,
    mixtures={
      'demo_unseen_examples': group('demo_unseen_examples', everything),
      'demo_held_out_clusters': group('demo_held_out_clusters', everything[-2:]),
    },
    clusters={c: group(c, members) for c, members in names.items()},
    tasks=tasks,
    settings={'lengths': {'inputs': 128, 'targets': 64}, 'bootstrap': {'confidence': 0.95}},
  )


def make_workdir(path, *, steps=600, evaluations=((0, 4.0), (200, 40.0), (600, 78.0))):
  """A workdir of the documented form."""
  path.mkdir(parents=True, exist_ok=True)
  rng = random.Random(0)
  lines = []
  for step in range(10, steps + 1, 10):
    loss = 0.4 + 5.0 * math.exp(-step / 150) + rng.uniform(-0.05, 0.05)
    lines.append(
      {
        'step': step,
        'time': 1_760_000_000 + 0.4 * step,
        'kind': 'train',
        'loss': loss,
        'accuracy': 1 - loss / 6,
        'learning_rate': 1e-3 * min(step / 100, (100 / step) ** 0.5),
        'tokens_per_second': 21_000 + rng.uniform(-900, 900),
        'packed': 0.97,
        'packed_inputs': 0.97 + rng.uniform(-0.01, 0.01),
        'packed_targets': 0.61 + rng.uniform(-0.03, 0.03),
        'mfu': 0.31,
        'grad_norm': 1.0 + rng.expovariate(2),
        'loss/demo': loss,
        'loss/cot': loss * 1.2,
        'skipped_updates': 2.0 if step > 300 else 0.0,
      }
    )
  (path / 'metrics.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
  facts = {
    'flan_jax': '0.1.0',
    'devices': '1 x cpu',
    'mesh': {'data': 1},
    'parameters': 1_234_560,
    'batch': '64 rows of 128 + 64 tokens',
    'started': '2025-10-09 08:53:20 +0000',
  }
  (path / 'run.json').write_text(json.dumps(facts))
  tasks = [task for members in CLUSTERS.values() for task in members]
  rows = [
    {
      'task': task,
      'collection': 'demo',
      'asked_rate': 0.2 + 0.02 * i,
      'realised_rate': 0.2 + 0.019 * i,
      'input_tokens': 10_000 * (i + 1),
      'target_tokens': 4_000,
    }
    for i, task in enumerate(tasks)
  ]
  statistics = {'tasks': rows, 'main': 5000, 'filler': 100, 'truncated_inputs': 12}
  (path / 'mixture.json').write_text(json.dumps(statistics))
  config = {
    'train.DataConfig.mixture': {'value': "'demo'", 'source': 'MIXTURE, command line'},
    'train.TrainConfig.steps': {'value': '600', 'source': 'runs/demo.gin:7'},
  }
  (path / 'config.json').write_text(json.dumps(config))
  starts = [
    {'began': 0.0, 'ended': 60.0, 'first_step': 0, 'last_step': 300, 'seconds': FIRST},
    {'began': 90.0, 'ended': 190.0, 'first_step': 200, 'last_step': 600, 'seconds': SECOND},
  ]
  (path / 'goodput.json').write_text(json.dumps(starts))
  (path / 'config.gin').write_text('TRAIN_STEPS = 600  # "quoted" <tag>\n')
  for step, level in evaluations:
    make_evaluation(step, level).write(path / 'evaluations' / f'{step}.json')
  ByteVocabulary().save(path / 'vocabulary')
  return path


class Page(HTMLParser):
  """Collects what a browser would see: tags, attributes and text."""

  VOID = {'meta', 'wbr', 'br', 'img', 'link', 'input', 'hr'}

  def __init__(self, text):
    super().__init__()
    self.tags, self.attributes, self.text, self.open, self.problems = [], [], [], [], []
    self.feed(text)
    self.close()

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.attributes += [(tag, name, value) for name, value in attrs]
    if tag not in self.VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.tags.append(tag)
    self.attributes += [(tag, name, value) for name, value in attrs]

  def handle_endtag(self, tag):
    if not self.open or self.open.pop() != tag:
      self.problems.append(f'unexpected </{tag}>')

  def handle_data(self, data):
    self.text.append(data)

  @property
  def words(self):
    return ' '.join(' '.join(self.text).split())


def read(path):
  return path.read_text(encoding='utf-8')


def test_a_whole_run_gives_one_well_formed_file_that_loads_nothing(tmp_path):
  path = report.write_report(make_workdir(tmp_path / 'run'))
  text = read(path)
  page = Page(text)
  assert path == tmp_path / 'run' / 'report.html'
  assert not page.problems and not page.open
  assert 'script' not in page.tags
  assert not {'link', 'iframe', 'img', 'object'} & set(page.tags)
  assert not re.search(r'url\((?!#)|@import|src=', text)
  links = [v for _, name, v in page.attributes if name in ('href', 'src', 'xlink:href')]
  assert all(value.startswith('#') for value in links)
  assert len(text.encode()) < 1_000_000
  assert 'width=device-width' in text and 'prefers-color-scheme: dark' in text


def test_a_whole_run_shows_scores_before_and_after_settings_and_warnings(tmp_path):
  workdir = make_workdir(tmp_path / 'run')
  first, last = (
    EvaluationResult.read(workdir / 'evaluations' / f'{step}.json') for step in (0, 600)
  )
  words = Page(read(report.write_report(workdir))).words
  for name, group in last.mixtures.items():
    assert name in words
    assert f'{group.score.value:.1f} of 100' in words
    assert f'{first.mixtures[name].score.value:.1f} before training' in words
  for task in last.tasks.values():
    assert f'{task.score.low:.1f}–{task.score.high:.1f}' in words
  for part in (
    '600 updates in 3 min 56 s',
    '1,234,560 parameters',
    'Loss by collection',
    'Gradient norm',
    'Packed share',
    'real tokens per second',
    'There are 3 + 4 = 7. The answer is 7.',
    '✓ right',
    '✗ wrong',
    '2 updates were skipped by the guard',
    '3 examples of 500 in the last evaluation were cut because the inputs were too long',
    'In the first windows of the training data, 12 examples of 5,100 were cut',
    'runs/demo.gin:7',
    '28.00%',
    'TRAIN_STEPS = 600 # "quoted" <tag>',
  ):
    assert part in words, part
  assert 'Not in this report' not in words


def test_ids_inside_a_page_are_unique_and_every_reference_has_one(tmp_path):
  workdir = make_workdir(tmp_path / 'run')
  conditions = {'quarter': [workdir], 'all': [workdir]}
  out = report.write_comparison({'a': conditions, 'b': conditions}, tmp_path / 'out.html')
  for path in (report.write_report(workdir), out):
    page = Page(read(path))
    ids = [value for _, name, value in page.attributes if name == 'id']
    references = re.findall(r'(?:href="|url\()#([^")]+)', read(path))
    assert len(ids) == len(set(ids))
    assert references and set(references) <= set(ids)


def test_markup_and_control_characters_in_data_are_shown_and_never_run(tmp_path):
  evil = ' | '.join(EVIL)
  workdir = make_workdir(tmp_path / 'run', evaluations=(), steps=30)
  for step, level in ((0, 4.0), (600, 80.0)):
    names = {evil: (evil, f'second {evil}')}
    data = make_evaluation(step, level, names, text=evil).to_json()
    mixture = {**data['mixtures']['demo_unseen_examples'], 'name': evil}
    data |= {'split': evil, 'mixtures': {evil: mixture}}
    (workdir / 'evaluations').mkdir(exist_ok=True)
    (workdir / 'evaluations' / f'{step}.json').write_text(json.dumps(data))
  lines = [json.loads(line) for line in read(workdir / 'metrics.jsonl').splitlines()]
  for line in lines:
    line |= {f'loss/{evil}': line['loss'], f'loss/{evil}2': line['loss']}
  (workdir / 'metrics.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
  (workdir / 'run.json').write_text(json.dumps({evil: evil, 'parameters': evil, 'batch': evil}))
  config = {evil: {'value': evil, 'source': evil}}
  (workdir / 'config.json').write_text(json.dumps(config))
  (workdir / 'config.gin').write_text(evil, encoding='utf-8', errors='replace')
  row = {'task': evil, 'collection': evil, 'asked_rate': 0.5, 'realised_rate': evil}
  (workdir / 'mixture.json').write_text(json.dumps({'tasks': [row]}))
  out = report.write_comparison({evil: {evil: [workdir]}}, tmp_path / 'o.html', title=evil)

  for text in (read(report.write_report(workdir)), read(out)):
    page = Page(text)
    assert not page.problems and not page.open
    assert not {'script', 'img', 'b'} & set(page.tags)
    assert not [name for _, name, _ in page.attributes if name.startswith('on')]
    for part in EVIL:
      assert ' '.join(report_page.shown(part).split()) in page.words
    assert all(c.isprintable() or c in '\n\u00a0' for c in text), 'a raw control character'


@pytest.mark.parametrize(
  'text, expected',
  [
    ('a\x1b[31m', 'a␛[31m'),
    ('\x00\x07\t', '␀␇␉'),
    ('\x7f\x85', '␡⟨U+0085⟩'),
    ('\u202eabc', '⟨U+202E⟩abc'),
    ('two\nlines', 'two\nlines'),
    ('ن\u200cم 👩\u200d💻', 'ن\u200cم 👩\u200d💻'),
    ('\ud800', '⟨U+D800⟩'),
  ],
)
def test_control_characters_become_symbols_and_scripts_stay_whole(text, expected):
  assert report_page.shown(text) == expected


def test_long_text_is_cut_and_says_so():
  assert report_page.shown('x' * 2000, 10) == 'x' * 10 + ' … (1,990 more characters)'


def test_where_the_time_went_is_drawn_by_cause(tmp_path):
  page = read(report.write_report(make_workdir(tmp_path / 'run')))
  # 30 + 80 of 190 s were steps that were kept.
  assert 'Goodput 57.9% of 190 s in 2 starts' in Page(page).words
  for cause, share in {'down': '16%', 'redone': '7.9%', 'save': '5.3%', 'start': '7.9%'}.items():
    assert f'>{cause}<' in page and f'>{share}<' in page


def test_a_run_killed_early_gives_a_report_that_says_what_is_missing(tmp_path):
  workdir = tmp_path / 'run'
  workdir.mkdir()
  line = {'step': 10, 'time': 1.0, 'kind': 'train', 'loss': 5.25, 'learning_rate': 0.001}
  (workdir / 'metrics.jsonl').write_text(json.dumps(line) + '\n{"step": 20, "ti')
  words = Page(read(report.write_report(workdir))).words
  for part in (
    '5.250',
    '10 updates',
    'metrics.jsonl: 1 of its lines cannot be read (line 2)',
    'evaluations/ holds no result',
    'run.json is missing.',
    'config.json is missing.',
    'mixture.json is missing.',
    'goodput.json is missing or cannot be read',
  ):
    assert part in words, part


@pytest.mark.parametrize('content', [None, b'', b'\xff\xfe\x00', b'{"a": ', b'[1, 2]', b'null'])
def test_any_file_may_be_missing_or_damaged(tmp_path, content):
  workdir = make_workdir(tmp_path / 'run')
  names = ('run.json', 'config.json', 'mixture.json', 'metrics.jsonl', 'goodput.json')
  for name in names:
    (workdir / name).unlink()
    if content is not None:
      (workdir / name).write_bytes(content)
  words = Page(read(report.write_report(workdir))).words
  for name in names:
    assert name in words


def test_a_damaged_evaluation_is_left_out_by_name(tmp_path):
  workdir = make_workdir(tmp_path / 'run')
  (workdir / 'evaluations' / '600.json').write_text('{"format": 1}')
  words = Page(read(report.write_report(workdir))).words
  assert 'evaluations/600.json was left out' in words
  assert 'after is step 200' in words


def test_one_evaluation_only_has_no_before(tmp_path):
  words = Page(
    read(report.write_report(make_workdir(tmp_path / 'r', evaluations=((600, 70.0),))))
  ).words
  assert 'There is one evaluation only' in words
  assert 'before training' not in words


def test_losses_that_are_not_finite_leave_gaps_and_a_warning(tmp_path):
  workdir = make_workdir(tmp_path / 'run')
  with (workdir / 'metrics.jsonl').open('a') as f:
    f.write(json.dumps({'step': 610, 'time': 1.0, 'kind': 'train', 'loss': 'nan'}) + '\n')
  words = Page(read(report.write_report(workdir))).words
  assert 'The training loss was not a finite number at step 610.' in words


def test_two_thousand_tasks_stay_below_a_megabyte(tmp_path):
  names = {f'cluster_{i}': tuple(f'task_{i}_{j}' for j in range(50)) for i in range(40)}
  workdir = make_workdir(tmp_path / 'run', evaluations=())
  for step, level in ((0, 5.0), (600, 80.0)):
    make_evaluation(step, level, names, text='word ' * 500).write(
      workdir / 'evaluations' / f'{step}.json'
    )
  text = read(report.write_report(workdir))
  assert len(text.encode()) < 1_000_000
  assert '1,850 more tasks are in evaluations/600.json.' in Page(text).words


def test_no_run_is_refused_in_a_sentence(tmp_path):
  with pytest.raises(ValueError, match="nowhere' does not exist; give the --workdir"):
    report.write_report(tmp_path / 'nowhere')
  (tmp_path / 'file').write_text('')
  with pytest.raises(ValueError, match=r"The workdir '.*file' is not a folder"):
    report.write_report(tmp_path / 'file')
  (tmp_path / 'empty').mkdir()
  with pytest.raises(ValueError, match='holds no measurement: no readable line in metrics.jsonl'):
    report.write_report(tmp_path / 'empty')


def test_a_report_that_cannot_be_written_leaves_the_old_one(tmp_path):
  workdir = make_workdir(tmp_path / 'run')
  (workdir / 'report.html').mkdir()
  with pytest.raises(ValueError, match="report.html' cannot be written: .*directory"):
    report.write_report(workdir)
  assert not list(workdir.glob('.report*'))


def test_thinning_keeps_the_mean_and_the_ends():
  x = list(range(10_000))
  thin_x, thin_y = report_plots.thin(x, [float(v) for v in x])
  assert len(thin_x) <= 400
  assert sum(thin_y) / len(thin_y) == pytest.approx(sum(x) / len(x), rel=0.01)


def test_config_of_any_nesting_is_flattened():
  rows = report_data._config_rows({'a': {'b': [1], 'c': {}}, 'd': {'value': 1, 'source': 'x'}})
  assert [(r.name, r.value, r.source) for r in rows] == [
    ('a.b', '[1]', ''),
    ('a.c', '{}', ''),
    ('d', '1', 'x'),
  ]


def make_seeds(folder, level):
  return [
    make_workdir(folder / str(seed), evaluations=((0, 4.0), (600 + seed, level)))
    for seed in range(3)
  ]


def test_a_comparison_gives_mean_and_spread_over_seeds(tmp_path):
  runs = {
    'Chain of thought': {
      'without': make_seeds(tmp_path / 'a', 40.0),
      'with': make_seeds(tmp_path / 'b', 70.0),
    },
    'Share <of> tasks': {'quarter': make_seeds(tmp_path / 'c', 30.0)[:1]},
  }
  path = report.write_comparison(runs, tmp_path / 'out.html', title='Ablation')
  page = Page(read(path))
  values = [
    EvaluationResult.read(tmp_path / 'b' / str(s) / 'evaluations' / f'{600 + s}.json')
    .mixtures['demo_unseen_examples']
    .score.value
    for s in range(3)
  ]
  mean = sum(values) / 3
  deviation = (sum((v - mean) ** 2 for v in values) / 2) ** 0.5
  assert not page.problems and not page.open
  assert f'{mean:.1f} ± {deviation:.1f}' in page.words
  assert 'with 3 seeds' in page.words and 'quarter 1 seed' in page.words
  assert 'Share <of> tasks' in page.words
  assert page.tags.count('svg') == 4


def test_a_comparison_refuses_nothing_and_runs_without_evaluation(tmp_path):
  with pytest.raises(ValueError, match='nothing to compare; give each condition at least one'):
    report.write_comparison({'question': {'condition': []}}, tmp_path / 'out.html')
  workdir = make_workdir(tmp_path / 'run', evaluations=())
  with pytest.raises(ValueError, match=r"The run '.*run' has no evaluation to compare"):
    report.write_comparison({'q': {'c': [workdir]}}, tmp_path / 'out.html')


def test_a_logarithmic_axis_has_plain_numbers():
  falling = report_plots.Series('loss', [0, 1, 2], [7.2, 0.4, 0.15], 0)
  svg = report_plots.line_chart([falling], title='Loss', unit='nats', scale='log')
  assert 'mathdefault' not in svg and '>0.2<' in svg
