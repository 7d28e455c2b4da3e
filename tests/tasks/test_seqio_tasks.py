"""The tasks seen through SeqIO alone: what its own programs and converters make of them."""

import json

import numpy as np
import pytest
from flan_jax.tasks.few_shot import FewShot
from flan_jax.tasks.mixtures import instruction_mixture
from flan_jax.tasks.registry import instruction_task, text_examples
from flan_jax.tasks.sources import GeneratorSource
from flan_jax.tasks.vocabulary import set_vocabulary, vocabulary_spec

from flan_jax.data.vocabularies import get_vocabulary

pytestmark = pytest.mark.seqio

LONG = {'inputs': 1024, 'targets': 256}


def dataset(name, split='train', **options):
  import seqio

  options = {'sequence_length': LONG, 'split': split, 'shuffle': False, **options}
  return list(seqio.get_mixture_or_task(name).get_dataset(**options).as_numpy_iterator())


@pytest.fixture
def hostile():
  """Registers a task whose texts are hard to carry."""
  texts = [
    'plain',
    'é 漢字 🙂',
    'a\x00b\x1b[0m',
    '{x} {answer}',
    'tab\tand\r\nline',
    ' spaces  ',
    '\ud800',
  ]
  rows = [
    {'q': t, 'answer': f'{i}: {t}', 'rationale': t, 'options': [t, 'b'], 'references': [t]}
    for i, t in enumerate(texts)
  ]
  templates = [{'id': str(i), 'inputs': f'{i} {{q}}', 'targets': '{answer}'} for i in range(3)]
  cot = [{'id': 'c', 'inputs': 'Why {q}?', 'targets': '{rationale} The answer is {answer}.'}]
  instruction_task(
    'hostile',
    source=GeneratorSource(lambda split: rows, splits=('train',)),
    templates=templates,
    cot_templates=cot,
    few_shot=FewShot(2),
    cluster='c',
    collection='test',
  )


@pytest.mark.parametrize('kind', ['bytes', 'sentencepiece'])
def test_plain_python_and_seqio_give_the_same_tokens_and_metadata(sums, hostile, shared, kind):
  if kind == 'sentencepiece':
    set_vocabulary(next(iter(sorted(shared('data/tokenizer').glob('**/*.model')))))
  sums(few_shot=FewShot(2))
  vocabulary = get_vocabulary(vocabulary_spec())
  for family in ('sums', 'hostile'):
    for form in ('', '_cot', '_fewshot', '_cot_fewshot'):
      ours = list(text_examples(family + form, 'train'))
      theirs = dataset(family + form)
      assert len(ours) == len(theirs)
      for a, b in zip(ours, theirs, strict=True):
        for side in ('inputs', 'targets'):
          assert b[side].dtype == np.int32
          assert b[side].tolist() == [*vocabulary.encode(a[side]), vocabulary.eos_id]
          assert b[f'{side}_pretokenized'].decode() == a[side]
        for field in ('id', 'template', 'answer'):
          assert b[field].decode() == a[field]
        assert b['shots'].decode() == a.get('shots', '')
        assert json.loads(b['options'] or 'null') == a.get('options')
        assert json.loads(b['references'] or 'null') == a.get('references')


def test_long_examples_are_cut_and_still_end_in_eos(sums):
  sums()
  for example in dataset('sums_cot', sequence_length={'inputs': 10, 'targets': 7}):
    assert len(example['inputs']) == 10 and example['inputs'][-1] == 1
    assert len(example['targets']) == 7 and example['targets'][-1] == 1


def test_splits_counts_and_metrics_are_seqio_s(sums):
  import seqio

  sums(metrics=('exact_match', 'number_match'))
  task = seqio.get_mixture_or_task('sums_cot')
  assert set(task.splits) == {'train', 'validation'}
  assert task.num_input_examples('train') == 40 and task.num_input_examples('validation') == 12
  assert task.output_features['inputs'].vocabulary.vocab_size == 259
  assert task.output_features['inputs'].add_eos
  example = dataset('sums_cot', 'validation')[0]
  target = task.postprocess_fn('', example=example, is_target=True)
  prediction = task.postprocess_fn('0 and 1 is 1. So the answer is 1.', example=example)
  assert target == ['1'] and prediction == '1'
  scores = {}
  for metric in task.metric_fns:
    scores.update(metric(targets=[target, ['x']], predictions=[prediction, 'y']))
  assert scores == {'exact_match': 50.0, 'number_match': 50.0}


def test_the_vocabulary_follows_the_choice_made_after_registration(sums, shared):
  import seqio

  sums()
  vocabulary = seqio.get_mixture_or_task('sums').output_features['inputs'].vocabulary
  assert vocabulary.encode('hi') == [107, 108] and vocabulary.decode([107, 108, 1]) == 'hi'
  set_vocabulary(next(iter(sorted(shared('data/tokenizer').glob('**/*.model')))))
  assert vocabulary.vocab_size >= 32_000
  assert vocabulary.decode(vocabulary.encode('a small test')) == 'a small test'
  assert vocabulary.decode_tf(vocabulary.encode_tf('a small test')).numpy() == b'a small test'


@pytest.mark.slow
def test_mixtures_of_them_go_through_seqio_s_packing_converter(sums, hostile):
  import seqio

  sums(few_shot=FewShot(2))
  instruction_mixture('packed', {'sums_cot_fewshot': 1.0, 'sums': 2.0, 'hostile': 1.0})
  lengths = {'inputs': 256, 'targets': 128}
  features = seqio.get_dataset(
    mixture_or_task_name='packed',
    task_feature_lengths=lengths,
    dataset_split='train',
    shuffle=True,
    seed=0,
    num_epochs=1,
    feature_converter=seqio.EncDecFeatureConverter(pack=True),
  )
  rows = list(features.as_numpy_iterator())
  assert rows and all(row['encoder_input_tokens'].shape == (256,) for row in rows)
  assert max(row['encoder_segment_ids'].max() for row in rows) > 1
  known = {tuple(e['targets']) for n in ('sums_cot_fewshot', 'sums', 'hostile') for e in dataset(n)}
  for row in rows:
    for segment in range(1, row['decoder_segment_ids'].max() + 1):
      assert tuple(row['decoder_target_tokens'][row['decoder_segment_ids'] == segment]) in known


def test_seqio_s_shards_part_the_examples(sums):
  import seqio

  sums()
  ids = []
  for index in range(3):
    shard = dataset('sums', shard_info=seqio.ShardInfo(index=index, num_shards=3))
    ids += [example['id'].decode() for example in shard]
  assert sorted(ids) == sorted(e['id'] for e in text_examples('sums', 'train'))


def test_an_error_in_the_data_comes_through_with_its_place(tmp_path):
  import tensorflow as tf
  from flan_jax.tasks.sources import JSONL

  path = tmp_path / 'a.jsonl'
  path.write_text('{"q": 1, "answer": 2}\n{"q": }\n')
  templates = [{'id': 'a', 'inputs': '{q}', 'targets': '{answer}'}]
  instruction_task(
    'broken', source=JSONL(path), templates=templates, cluster='c', collection='test'
  )
  with pytest.raises(
    (tf.errors.InvalidArgumentError, ValueError), match='line 2 column 7 is not JSON'
  ):
    dataset('broken')


def test_a_name_that_seqio_has_is_refused_before_any_form_is_registered(sums):
  import seqio
  from flan_jax.tasks.registry import task_names

  seqio.MixtureRegistry.add('taken_cot', [('gsm8k', 1.0)])
  try:
    with pytest.raises(ValueError, match="SeqIO already has a task or mixture 'taken_cot'"):
      sums(name='taken')
    assert 'taken' not in task_names() and 'taken' not in seqio.TaskRegistry.names()
  finally:
    seqio.MixtureRegistry.remove('taken_cot')


def test_every_shipped_task_and_mixture_is_known_to_seqio():
  import seqio
  from flan_jax.tasks.mixtures import mixture_names
  from flan_jax.tasks.registry import task_names

  assert set(task_names()) <= set(seqio.TaskRegistry.names())
  assert set(mixture_names()) <= set(seqio.MixtureRegistry.names())
