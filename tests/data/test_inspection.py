"""inspect: what is measured of a mixture, what is warned of, and that data cannot harm a reader."""

import dataclasses
import html.parser
import io
import json

import numpy as np
import pytest

from flan_jax.console import console
from flan_jax.data.cache import TaskCacheWriter, initialize_cache
from flan_jax.data.inspection import InspectConfig, InspectError, examine, inspect
from flan_jax.data.loader import Loader
from flan_jax.data.mixture import ExamplesProportional, Mixture
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


def test_what_cannot_be_inspected_is_said_in_a_sentence(cache, tmp_path):
  with pytest.raises(ValueError, match="No mixture or task 'smal' .* Did you mean 'small'"):
    examine(config(cache, 'smal'))
  with pytest.raises(ValueError, match='There is no token cache'):
    examine(config(tmp_path / 'none'))
  with pytest.raises(InspectError, match='examples=-1 must be 0 or more.'):
    config(cache, examples=-1)
  with pytest.raises(InspectError, match="Cannot write the page '.*': No such file or directory"):
    printed(config(cache, html=str(tmp_path / 'no' / 'page.html')))
  (tmp_path / 'folder').mkdir()
  with pytest.raises(InspectError, match="Cannot write the page '.*folder': Is a directory"):
    printed(config(cache, html=str(tmp_path / 'folder')))
  assert sorted(path.name for path in tmp_path.iterdir()) == ['cache', 'folder']


def test_every_setting_is_documented():
  for field in dataclasses.fields(InspectConfig):
    assert f'    {field.name}: ' in InspectConfig.__doc__
