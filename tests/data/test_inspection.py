"""inspect: what is measured of a mixture, what is warned of, and that data cannot harm a reader."""

import dataclasses
import html.parser
import io
import json

import numpy as np
import pytest

from flan_jax import main, report_plots
from flan_jax.console import console
from flan_jax.data import catalogue, inspection_tasks, inspection_view
from flan_jax.data.cache import TaskCacheWriter, initialize_cache
from flan_jax.data.inspection import InspectConfig, InspectError, examine, inspect
from flan_jax.data.inspection_groups import LengthCounter, group
from flan_jax.data.loader import Loader
from flan_jax.data.mixture import ExamplesProportional, Member, Mixture
from flan_jax.data.vocabularies import ByteVocabulary

HARM = '<script>alert("x")</script>[bold red]no[/bold red]\x1b[2J\u202e{{ 7 * 7 }}'
LENGTHS = {'inputs': 64, 'targets': 16}


def write_task(cache, name, examples, *, split='train', **info):
  """Writes (inputs, targets) texts as a task; every third has the template 'b'."""
  vocabulary = ByteVocabulary()
  templates = {}
  with TaskCacheWriter(cache, name, split) as writer:
    for i, (inputs, targets) in enumerate(examples):
      template = 'b' if i % 3 == 2 else 'a'
      templates[template] = templates.get(template, 0) + 1
      writer.add(
        [*vocabulary.encode(inputs), 1],
        [*vocabulary.encode(targets), 1],
        {'id': f'{split}-{i}', 'template': template, 'answer': f'the answer {targets}'},
      )
    defaults = {
      'collection': 'made',
      'cluster': 'sums',
      'licence': 'CC0-1.0',
      'metrics': ['exact_match'],
      'source': f'{name}.tsv',
      'templates': templates,
      'dropped': {},
    }
    writer.finish({**defaults, **info})


def sums(count, length=3):
  return [(f'What is {i} and {i}? ' + 'x' * (i % length), str(2 * i)) for i in range(count)]


def write_mixture(cache, mixture, **more):
  (cache / 'mixtures').mkdir(exist_ok=True)
  path = cache / 'mixtures' / f'{mixture.name}.json'
  path.write_text(json.dumps({**mixture.to_json(), **more}), encoding='utf-8')


@pytest.fixture
def cache(tmp_path):
  folder = tmp_path / 'cache'
  initialize_cache(folder, ByteVocabulary())
  write_task(folder, 'small', sums(60))
  write_task(folder, 'large', sums(180))
  write_task(folder, 'long', [('Count.', '1 2 3 4 5 6 7 8 9' * (1 + i % 2)) for i in range(60)])
  write_mixture(
    folder,
    Mixture.of('all', {name: ExamplesProportional() for name in ('small', 'large', 'long')}),
  )
  return folder


def config(cache, mixture='all', **settings):
  return InspectConfig(mixture, str(cache), **{'lengths': LENGTHS, 'batch_rows': 8, **settings})


def printed(config):
  text = io.StringIO()
  return inspect(config, out=console(text)), text.getvalue()


def test_rates_asked_and_realised_and_tokens_are_those_of_the_cache(cache):
  inspection = examine(config(cache))
  by_name = {task.name: task for task in inspection.tasks}
  assert {name: task.num_examples for name, task in by_name.items()} == {
    'small': 60,
    'large': 180,
    'long': 60,
  }
  for name, share in (('small', 0.2), ('large', 0.6), ('long', 0.2)):
    assert by_name[name].asked_rate == pytest.approx(share)
    assert by_name[name].realised_rate == pytest.approx(share, abs=0.02)
  lengths = np.array([len(text.encode()) + 1 for text, _ in sums(180)])
  inputs = by_name['large'].inputs
  assert inputs.mean == pytest.approx(lengths.mean())
  assert (inputs.p50, inputs.p90, inputs.longest) == (
    int(np.percentile(lengths, 50)),
    int(np.percentile(lengths, 90)),
    lengths.max(),
  )


def test_what_the_lengths_cut_is_counted_in_examples_and_tokens(cache):
  inspection = examine(config(cache))
  (long,) = (task for task in inspection.tasks if task.name == 'long')
  # Targets of 18 and 35 tokens with EOS, cut at 16.
  assert long.targets.cut_share == 1.0
  assert long.targets.lost_tokens == 30 * 2 + 30 * 19
  (warning,) = (w for w in inspection.warnings if 'lose the end' in w)
  assert 'long 100.0%' in warning and 'at 16 tokens' in warning and 'has 35 tokens' in warning
  roomy = examine(config(cache, lengths={'inputs': 64, 'targets': 64}))
  assert not [w for w in roomy.warnings if 'lose the end' in w]


def test_examples_are_what_the_model_sees_beside_the_answer(cache):
  inspection = examine(config(cache, examples=2))
  (long,) = (task for task in inspection.tasks if task.name == 'long')
  for example in long.examples:
    assert example.targets == '1 2 3 4 5 6 7 8'
    assert example.answer.startswith('the answer 1 2 3 4 5 6 7 8 9')
    assert example.lost_target_tokens in (2, 19)
  for task in inspection.tasks:  # different templates first
    assert {example.template for example in task.examples} == {'a', 'b'}
  assert all(not task.examples for task in examine(config(cache, examples=0)).tasks)


def test_rendered_texts_are_among_those_that_the_loader_hands_to_the_model(cache):
  inspection = examine(config(cache, examples=2))
  loader = Loader(str(cache), 'all', lengths=LENGTHS, batch_rows=8, seed=0)
  seen, vocabulary = set(), ByteVocabulary()
  for step in range(60):
    batch = loader.batch(step)
    for tokens, segments in zip(
      batch['decoder_target_tokens'], batch['decoder_segment_ids'], strict=True
    ):
      for segment in range(1, segments.max() + 1):
        seen.add(vocabulary.decode(tokens[segments == segment]))
  rendered = {example.targets for task in inspection.tasks for example in task.examples}
  assert len(rendered) == 3 and rendered <= seen


def test_steps_until_a_task_is_drawn_whole_are_those_of_the_loader(cache):
  inspection = examine(config(cache))
  steps = {task.name: task.steps_to_repeat for task in inspection.tasks}
  assert steps['small'] == pytest.approx(steps['large'])  # proportional: all end together
  drawn = inspection.statistics.examples_per_step
  assert steps['small'] == pytest.approx(300 / drawn)


def test_everything_asked_for_is_on_the_terminal_and_on_the_page(cache, tmp_path):
  page = tmp_path / 'page.html'
  _, text = printed(config(cache, html=str(page)))
  written = page.read_text(encoding='utf-8')
  for shown in ('small', 'large', 'long', 'CC0-1.0', '60.00%', 'What is 0 and 0?', 'long 100.0%'):
    assert shown in text and shown in written
  for shown in ('small.tsv', 'exact_match', 'width=device-width'):
    assert shown in written
  assert '://' not in written  # it opens offline
  assert text.isprintable() or set(c for c in text if not c.isprintable()) == {'\n'}


def test_missing_tasks_are_named_with_their_reason(cache):
  members = {name: 1.0 for name in ('small', 'large')}
  write_mixture(cache, Mixture.of('part', members), missing={'gone': 'Ask Ann for it.'})
  inspection, text = printed(config(cache, 'part'))
  assert inspection.missing == {'gone': 'Ask Ann for it.'}
  assert '1 tasks are missing: gone.' in text and 'missing gone: Ask Ann for it.' in text
  write_mixture(cache, Mixture.of('more', {**members, 'never': 1.0}))
  assert "no split 'train' in the cache" in examine(config(cache, 'more')).missing['never']


def test_few_examples_no_licence_and_lost_characters_are_warned_of(cache):
  lossy = {'\n': {'becomes': ' ', 'examples': 7, 'example_id': 'train-1', 'snippet': 'a\nb'}}
  write_task(cache, 'few', sums(9), licence='', lossy=lossy)
  warnings = '\n'.join(examine(config(cache, 'few')).warnings)
  assert '1 tasks have fewer than 50 examples: few 9.' in warnings
  assert '1 tasks state no licence: few.' in warnings
  assert "newline becomes blank in 7 of 9 examples of 1 tasks, such as few 'train-1'" in warnings


class _Tags(html.parser.HTMLParser):
  def __init__(self):
    super().__init__()
    self.tags, self.text = set(), []

  def handle_starttag(self, tag, attrs):
    self.tags.add(tag)

  def handle_data(self, data):
    self.text.append(data)


def test_markup_and_control_characters_in_data_are_shown_and_do_nothing(cache, tmp_path):
  write_task(
    cache,
    'harm',
    [(HARM, HARM)] * 60,
    licence=HARM,
    source=HARM,
    cluster=HARM,
    collection=HARM,
    dropped={HARM: 3},
    templates={HARM: 60},
    lossy={'\x1b': {'becomes': HARM, 'examples': 1, 'example_id': HARM, 'snippet': HARM}},
  )
  page = tmp_path / 'page.html'
  lengths = {'inputs': 256, 'targets': 256}
  _, text = printed(config(cache, 'harm', html=str(page), lengths=lengths))
  assert '[bold red]no[/bold red]' in text and '\\x1b[2J\\u202e' in text
  parser = _Tags()
  written = page.read_text(encoding='utf-8')
  parser.feed(written)
  assert 'script' not in parser.tags
  assert any('<script>alert("x")</script>' in data for data in parser.text)
  assert '{{ 7 * 7 }}' in written
  for shown in (text, written):
    assert '\x1b' not in shown and '\u202e' not in shown


def test_many_tasks_show_a_few_examples_and_point_to_the_page(cache):
  names = [f'task{i:02}' for i in range(12)]
  for name in names:
    write_task(cache, name, sums(5))
  write_mixture(cache, Mixture.of('many', dict.fromkeys(names, 1.0)))
  _, text = printed(config(cache, 'many', examples=1))
  assert 'Examples of 4 more tasks are on the page' in text
  assert text.count('What is') == 8


def test_epochs_are_draws_a_step_times_steps_over_examples(cache):
  inspection = examine(config(cache, steps=40))
  loader = Loader(str(cache), 'all', lengths=LENGTHS, batch_rows=8, seed=0)
  drawn, windows = dict.fromkeys(loader.mixture.tasks, 0), 4
  for window in range(windows):
    for task in loader.window(window).draws.tasks:
      drawn[loader.mixture.tasks[task]] += 1
  steps = windows * loader.steps_per_window
  for task in inspection.tasks:
    expected = drawn[task.name] / steps * 40 / task.num_examples
    assert task.epochs == pytest.approx(expected, rel=0.05)
    assert task.epochs == pytest.approx(40 / task.steps_to_repeat)
  _, text = printed(config(cache, steps=40))
  assert '40 steps draw each example' in text and 'epochs' in text
  assert all(task.epochs is None for task in examine(config(cache)).tasks)


def test_repetition_and_one_wording_for_all_are_warned_of(cache):
  write_task(cache, 'same', sums(60), templates={'a': 59, 'b': 1})
  warnings = '\n'.join(examine(config(cache, 'same', steps=2000)).warnings)
  assert '1 tasks are repeated more than 10 times: same' in warnings
  assert '1 tasks have nearly always the same template: same 98%' in warnings
  assert not [w for w in examine(config(cache, 'small', steps=1)).warnings if 'repeated' in w]


@pytest.mark.parametrize(
  ('templates', 'used', 'entropy', 'most', 'shown'),
  [
    ({}, 0, 0.0, 0.0, ''),
    ({'a': 7}, 1, 0.0, 1.0, '1 of 4, 0.0 bits'),
    ({'a': 5, 'b': 5}, 2, 1.0, 0.5, '2 of 4, 1.0 bits'),
    ({'a': 4, 'b': 2, 'c': 1, 'd': 1, 'e': 0}, 4, 1.75, 0.5, '4 of 4, 1.8 bits'),
    ({'a/x': 1, 'a/y': 1, 'b/x': 1, 'b/y': 1, 'c/x': 4}, 5, 2.0, 0.5, '5, 2.0 bits'),
  ],
)
def test_the_entropy_of_templates_is_shannons(templates, used, entropy, most, shown):
  found = inspection_tasks.wordings(templates, 4)
  assert (found.used, found.registered) == (used, 4)
  assert found.entropy == pytest.approx(entropy) and found.most_frequent == most
  assert inspection_view.wordings(found) == shown


def test_sums_add_up_to_the_mixture(cache):
  write_task(cache, 'other', sums(100), cluster='other', collection='else', licence='MIT')
  members = {name: ExamplesProportional() for name in ('small', 'large', 'long', 'other')}
  write_mixture(cache, Mixture.of('four', members))
  inspection = examine(config(cache, 'four', steps=10))
  for key in ('collection', 'cluster', 'form', 'licence', 'family'):
    groups = group(inspection.tasks, key, inspection.tasks)
    assert sum(one.tasks for one in groups) == 4
    assert sum(one.examples for one in groups) == 400
    for share in ('asked_rate', 'realised_rate', 'token_share'):
      assert sum(getattr(one, share) for one in groups) == pytest.approx(1)
  licences = group(inspection.tasks, 'licence', inspection.tasks)
  assert [(one.name, one.tasks) for one in licences] == [('CC0-1.0', 3), ('MIT', 1)]
  assert licences[1].asked_rate == pytest.approx(0.25)
  # Of the draws with licence CC0, those of `long` (60 of 300) have targets above 16 tokens.
  assert licences[0].cut_targets == pytest.approx(0.2) and licences[1].cut_targets == 0
  assert licences[0].most_epochs == max(t.epochs for t in inspection.tasks if t.name != 'other')
  _, text = printed(config(cache, 'four'))
  for shown in ('By collection', 'By cluster', 'Licences', '25.00%'):
    assert shown in text


def test_the_histogram_is_that_of_what_is_drawn(cache):
  found = examine(config(cache)).histogram
  assert sum(found.inputs) == pytest.approx(1) and sum(found.targets) == pytest.approx(1)
  # All targets of `long`, a fifth of the draws, have 18 or 35 tokens; no others have above 4.
  above = [s for edge, s in zip(found.edges, found.targets, strict=False) if edge >= 16]
  assert sum(above) == pytest.approx(0.2)
  counter = LengthCounter()
  counter.add(0.25, np.array([1, 3, 3, 4]), np.array([5, 10**9]))
  assert counter.result().inputs[:3] == (0.0625, 0.0, 0.125)
  assert sum(counter.result().targets) == pytest.approx(0.25)


def test_only_licences_that_match_are_drawn_from_as_if_the_others_were_not_listed(cache):
  write_task(cache, 'mit', sums(60), licence='MIT')
  write_task(cache, 'none', sums(60), licence='')
  inner = Mixture.of('inner', {'small': 1.0, 'mit': 3.0})
  write_mixture(cache, Mixture('outer', (Member('inner', 2.0, inner), Member('none', 1.0))))
  inspection, text = printed(config(cache, 'outer', licence='^mit$|cc0'))
  assert [task.name for task in inspection.tasks] == ['mit', 'small']
  assert [task.asked_rate for task in inspection.tasks] == pytest.approx([0.75, 0.25])
  assert inspection.left_out == {'none': "It states no licence, and '^mit$|cc0' asks for one."}
  assert 'left out none: It states no licence' in text
  inspection = examine(config(cache, 'outer', licence='mit'))
  assert "'CC0-1.0' does not match 'mit'" in inspection.left_out['small']
  with pytest.raises(ValueError, match=r'keeps none of the 3 tasks.*MIT \(1\)'):
    examine(config(cache, 'outer', licence='gpl'))
  with pytest.raises(ValueError, match='is no regular expression'):
    examine(config(cache, 'outer', licence='*'))
  kept = Mixture.of('kept', {'mit': 1.0})
  write_mixture(cache, kept, left_out={'gpl_task': "Its licence 'GPL' does not match 'mit'."})
  assert 'gpl_task' in examine(config(cache, 'kept')).left_out


def test_a_task_a_cell_or_a_pattern_can_be_asked_for(cache):
  for name, form in (('rte_zs', 'zero_shot'), ('rte_fs', 'fewshot'), ('cb_fs', 'fewshot')):
    write_task(cache, name, sums(60), form=form, family=name[:-3], cluster='nli')
  members = dict.fromkeys(('small', 'rte_zs', 'rte_fs', 'cb_fs'), 1.0)
  write_mixture(cache, Mixture.of('cells', members))

  def shown(*tasks):
    return examine(config(cache, 'cells', tasks=tasks)).shown

  assert shown('rte_zs') == {'rte_zs'}
  assert shown('rte') == shown('rte*') == {'rte_zs', 'rte_fs'}
  assert shown('fewshot') == shown('*_fs') == {'rte_fs', 'cb_fs'}
  assert shown('nli', 'small') == set(members)
  with pytest.raises(InspectError, match="No task.*'rte_sz'.* Did you mean 'rte_zs'"):
    shown('rte_sz')
  inspection, text = printed(config(cache, 'cells', tasks=('fewshot',), examples=2))
  assert {task.name for task in inspection.tasks if task.examples} == {'rte_fs', 'cb_fs'}
  assert text.count('inputs   ') == 4 and "rte_fs 'train-0' template a" in text
  assert 'small' not in text and 'rte_zs' not in text.split('Rates')[1]
  assert 'Below: 2 of its tasks' in text
  (licence,) = group(inspection.shown_tasks, 'licence', inspection.tasks)
  assert licence.asked_rate == pytest.approx(0.5)  # shares stay those of the whole


def test_a_page_of_many_tasks_stays_small_and_shows_every_kind(cache, tmp_path):
  names = [f'task{i:03}_{"zs" if i % 2 else "fs"}' for i in range(125)]
  long = [('What is it? ' * 400, 'It is this. ' * 40)] * 3
  for i, name in enumerate(names):
    write_task(cache, name, long, form=name[-2:], cluster=f'kind {i % 40}', collection=f'c{i % 3}')
  write_mixture(cache, Mixture.of('many', dict.fromkeys(names, 1.0)))
  page = tmp_path / 'page.html'
  lengths = {'inputs': 8192, 'targets': 1024}
  inspection, text = printed(config(cache, 'many', html=str(page), lengths=lengths, examples=1))
  shown = [task for task in inspection.tasks if task.examples]
  assert len(shown) == 60
  assert {task.cluster for task in shown} == {f'kind {i}' for i in range(40)}
  assert {task.form for task in shown} == {'zs', 'fs'}
  written = page.read_text(encoding='utf-8')
  assert len(written) < 600_000
  assert all(name in written and name in text for name in names)  # every leaf with its rate
  assert written.count('<svg') == 4 and written.count('0.80%') >= 125
  assert written.count('26 more') == 1  # clusters that the chart adds up


def test_charts_name_what_they_show_and_trust_no_name():
  bars = [report_plots.Bars('asked', [0.5, 0.25], 1), report_plots.Bars('real', [0.4, 0.3], 2)]
  names = ['<b>&"$x$', 'n' * 60]
  svg = report_plots.bar_chart(names, bars, title='Share <i>', unit='of all', percent=True)
  for text in ('&lt;b&gt;&amp;', '$x$', 'n' * 39 + '…', '50%, 40%', '25%, 30%', 'of all'):
    assert text in svg
  assert '<b>' not in svg and '<i>' not in svg and 'n' * 41 not in svg
  edges = [1, 2, 4, 1000]
  svg = report_plots.histogram(
    edges, [report_plots.Bars('', [0.5, 0.25, 0.25], 3)], title='t', unit='tokens', limits=((3, 1),)
  )
  assert 'tokens' in svg and 'var(--series-3)' in svg and 'var(--series-1)' in svg


def test_without_a_cache_it_shows_what_a_registered_mixture_asks_for(monkeypatch, capsys):
  monkeypatch.setenv('FLAN_JAX_SEQIO', 'off')
  assert main.console(['inspect', '--mixture', 'demo']) == 0
  shown = capsys.readouterr().out
  assert all(name in shown for name in catalogue.find('demo').task_names())
  assert main.console(['inspect', '--mixture', 'demo', '--html', 'page.html']) == 1
  assert 'need --cache_dir' in capsys.readouterr().err


def test_what_cannot_be_inspected_is_said_in_a_sentence(cache, tmp_path):
  with pytest.raises(ValueError, match="No mixture or task 'smal' .* Did you mean 'small'"):
    examine(config(cache, 'smal'))
  with pytest.raises(ValueError, match='There is no token cache'):
    examine(config(tmp_path / 'none'))
  with pytest.raises(InspectError, match='examples=-1 must be 0 or more.'):
    config(cache, examples=-1)
  with pytest.raises(InspectError, match='steps=0 must be at least 1.'):
    config(cache, steps=0)
  with pytest.raises(InspectError, match="Cannot write the page '.*': No such file or directory"):
    printed(config(cache, html=str(tmp_path / 'no' / 'page.html')))
  (tmp_path / 'folder').mkdir()
  with pytest.raises(InspectError, match="Cannot write the page '.*folder': Is a directory"):
    printed(config(cache, html=str(tmp_path / 'folder')))
  assert sorted(path.name for path in tmp_path.iterdir()) == ['cache', 'folder']


def test_every_setting_is_documented():
  for field in dataclasses.fields(InspectConfig):
    assert f'  {field.name}: ' in InspectConfig.__doc__
