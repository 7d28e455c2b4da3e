"""The evaluator: the same scores in any batch and on any mesh, equal to sums over examples."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest
from flax import nnx

from flan_jax import decoding, losses, partitioning
from flan_jax.data import cache, mixture_rates
from flan_jax.data.layouts import EncoderDecoder
from flan_jax.data.vocabularies import ByteVocabulary
from flan_jax.evaluation import batching, evaluator
from flan_jax.evaluation.results import EvaluationResult
from flan_jax.models.config import TransformerConfig
from flan_jax.models.transformer import Transformer

VOCABULARY = ByteVocabulary()
MODEL = TransformerConfig(
  vocab_size=259,
  embed_dim=16,
  num_encoder_layers=1,
  num_decoder_layers=1,
  num_heads=2,
  head_dim=8,
  mlp_dim=32,
  dtype='float32',
)
TASKS = {'upper': 'letters', 'repeat_cot': 'letters', 'count': 'numbers'}
DECODE = decoding.DecodeConfig(max_length=8)


def make_cache(path, fingerprint_of=VOCABULARY, tasks=None):
  cache.initialize_cache(path, fingerprint_of)
  rng = np.random.default_rng(0)
  for task, cluster in (TASKS if tasks is None else tasks).items():
    with cache.TaskCacheWriter(path, task, 'validation') as writer:
      for i in range(11):
        word = ''.join(rng.choice(list('abc'), rng.integers(1, 70)))
        answer = {'upper': word.upper()[:5], 'repeat_cot': 'x', 'count': str(len(word))}.get(task)
        target = f'hm. The answer is {answer}.' if task.endswith('_cot') else answer
        ids = [[*VOCABULARY.encode(text), 1] for text in (f'{task}: {word}', target)]
        writer.add(*ids, {'id': f'{task}-{i}', 'template': 't', 'answer': answer})
      writer.finish(
        {
          'cluster': cluster,
          'collection': 'tests',
          'cot': task.endswith('_cot'),
          'metrics': ['number_match', 'chrf'] if task == 'count' else ['exact_match', 'token_f1'],
          'postprocessor': 'cot_answer' if task.endswith('_cot') else 'identity',
        }
      )
  if tasks is None:
    mixtures = {'all': tuple(TASKS), 'words': ('upper', 'repeat_cot')}
    for name, members in mixtures.items():
      members = {task: float(i) for i, task in enumerate(members)}  # one of them has rate 0
      mixture_rates.save_mixture(path, mixture_rates.Mixture.of(name, members))
  return path


@pytest.fixture(scope='module')
def cache_dir(tmp_path_factory):
  return make_cache(tmp_path_factory.mktemp('evaluation') / 'cache')


def make_config(**changes):
  settings = {
    'mixtures': ('all', 'words'),
    'lengths': {'inputs': 48, 'targets': 24},
    'batch_rows': 8,
    'decode': DECODE,
    'buckets': 1,
  }
  return evaluator.EvaluationConfig(**(settings | changes))


@functools.cache
def one_device_model():
  return make_model()


def make_model():
  return Transformer(MODEL, nnx.Rngs(params=jax.random.key(7)))


def run(cache_dir, config, mesh=None):
  """Evaluates the same random model, without a mesh or on one."""
  if mesh is None:
    return evaluator.evaluate(one_device_model(), config, cache_dir, VOCABULARY, progress=False)
  with partitioning.use_mesh(mesh):
    model = jax.jit(make_model)()
    return evaluator.evaluate(model, config, cache_dir, VOCABULARY, progress=False)


@pytest.fixture(scope='module')
def result(cache_dir):
  return run(cache_dir, make_config())


def assert_same(one, two):
  assert one.tasks.keys() == two.tasks.keys()
  for name, task in one.tasks.items():
    other = two.tasks[name]
    assert task.loss == pytest.approx(other.loss, rel=1e-5)
    assert task.accuracy == pytest.approx(other.accuracy, abs=1e-6)
    assert task.scores == other.scores
    assert [s.generated for s in task.samples] == [s.generated for s in other.samples]
  for name, group in one.mixtures.items():
    assert group.score == two.mixtures[name].score


def test_few_examples_make_small_batches():
  rows = [batching.enough_rows(examples, 16) for examples in (0, 1, 2, 3, 5, 16, 100)]
  assert rows == [1, 1, 2, 4, 8, 16, 16]
  assert batching.enough_rows(100, 12) == 12


def test_scores_do_not_depend_on_batch_rows_or_buckets(cache_dir, result):
  evaluator._score_rows.clear_cache()
  assert_same(result, run(cache_dir, make_config(batch_rows=5, buckets=3)))
  # Two lengths, 32 and 48, in more batches than that: one program for each length.
  assert evaluator._score_rows._cache_size() == 2


@pytest.mark.slow
@pytest.mark.parametrize(
  'mesh',
  [
    partitioning.MeshConfig(),
    partitioning.MeshConfig(data=2, fsdp=2, tensor=2),
  ],
  ids=['eight_by_data', 'two_by_two_by_two'],
)
def test_scores_on_eight_devices_are_those_of_one(cache_dir, result, mesh):
  assert_same(result, run(cache_dir, make_config(), mesh))


def test_the_loss_is_the_sum_over_examples_one_by_one(cache_dir, result):
  model = one_device_model()
  data = cache.TaskCache.open(cache_dir, 'upper', 'validation')
  loss = correct = weight = 0.0
  forward = jax.jit(lambda model, batch: model(batch))
  for i in range(data.num_examples):
    inputs, targets = data.example(i)
    inputs, targets = batching.cut(inputs, 48, 1), batching.cut(targets, 24, 1)
    batch = batching.make_batch([inputs], [targets], batch_rows=1, layout=EncoderDecoder((48, 24)))
    logits, wanted = forward(model, batch), batch['decoder_target_tokens']
    sums = losses.cross_entropy(logits, wanted, batch['decoder_loss_weights'], vocab_size=259)
    loss, correct, weight = loss + sums.loss, correct + sums.correct, weight + sums.weight
  task = result.tasks['upper']
  assert task.loss == pytest.approx(float(loss / weight), rel=1e-5)
  assert task.accuracy == pytest.approx(float(correct / weight), abs=1e-6)
  assert task.tokens == int(weight)


def test_generated_answers_are_those_of_decoding_each_prompt_alone(cache_dir, result):
  data = cache.TaskCache.open(cache_dir, 'count', 'validation')
  model = one_device_model()
  for i, sample in enumerate(result.tasks['count'].samples):
    inputs = np.zeros((1, 48), np.int32)
    tokens = batching.cut(data.example(i)[0], 48, 1)
    inputs[0, : len(tokens)] = tokens
    decoded = decoding.generate(model, {'encoder_input_tokens': inputs}, DECODE)
    assert sample.generated == VOCABULARY.decode(np.asarray(decoded.tokens[0, 0]))
    assert sample.prompt == VOCABULARY.decode(inputs[0])


def test_averages_count_each_task_once_whatever_its_rate(result):
  score = {name: task.score.value for name, task in result.tasks.items()}
  loss = {name: (task.loss * task.tokens, task.tokens) for name, task in result.tasks.items()}
  for name, members in (('all', TASKS), ('words', ('upper', 'repeat_cot'))):
    group = result.mixtures[name]
    assert set(group.tasks) == set(members)
    assert group.score.value == pytest.approx(sum(score[t] for t in members) / len(members))
    total, tokens = (sum(x) for x in zip(*(loss[t] for t in members), strict=True))
    assert group.loss == pytest.approx(total / tokens)
  assert set(result.clusters) == {'letters', 'numbers'}
  assert result.clusters['letters'].tasks == ('repeat_cot', 'upper')
  assert result.tasks['repeat_cot'].cot and not result.tasks['upper'].cot
  assert set(result.tasks['count'].scores) == {'number_match', 'chrf'}
  assert result.tasks['count'].scores['chrf'].low is None


def test_fewer_examples_are_a_fixed_choice(cache_dir):
  config = make_config(mixtures=('upper',), max_examples_per_task=4, samples_per_task=9)
  one, two = run(cache_dir, config), run(cache_dir, config)
  ids = [sample.example for sample in one.tasks['upper'].samples]
  assert ids == [sample.example for sample in two.tasks['upper'].samples]
  assert len(ids) == 4
  assert (one.tasks['upper'].examples, one.tasks['upper'].available) == (4, 11)
  other = run(cache_dir, dataclasses.replace(config, seed=1))
  assert ids != [sample.example for sample in other.tasks['upper'].samples]


def test_cut_examples_are_counted(cache_dir, result):
  data = cache.TaskCache.open(cache_dir, 'upper', 'validation')
  long = int(np.sum(data.input_lengths() > 48))
  assert long > 0
  assert result.tasks['upper'].truncated_inputs == long
  assert result.tasks['upper'].truncated_targets == 0


def test_a_result_survives_json(result, tmp_path):
  result.write(tmp_path / 'evaluations' / '0.json')
  assert EvaluationResult.read(tmp_path / 'evaluations' / '0.json') == result
  assert EvaluationResult.from_json(json.loads(json.dumps(result.to_json()))) == result
  values = result.log_values()
  assert values['score'] == pytest.approx(sum(m.score.value for m in result.mixtures.values()) / 2)
  assert 'mixture/all/score' in values and 'task/count/number_match' in values


@pytest.mark.parametrize(
  'content, message',
  [
    ('{', 'cannot be read as an evaluation'),
    ('[]', 'not the result of an evaluation'),
    ('{"format": 99}', 'has format 99; this version reads 1'),
    ('{"format": 1, "mixtures": {}}', 'not the result of an evaluation'),
  ],
)
def test_other_files_are_no_results(tmp_path, content, message):
  (tmp_path / '0.json').write_text(content)
  with pytest.raises(ValueError, match=message):
    EvaluationResult.read(tmp_path / '0.json')


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'mixtures': ()}, r'mixtures=\(\) names nothing to evaluate'),
    ({'mixtures': 'all'}, "mixtures='all' names nothing to evaluate; give a list"),
    ({'lengths': {'inputs': 3}}, r"lengths=\{'inputs': 3\} must be"),
    ({'max_examples_per_task': 0}, 'max_examples_per_task=0 must be at least 1, or None'),
    ({'mixtures': ('al',)}, "No mixture or task 'al'.*Did you mean 'all'"),
    ({'split': 'test'}, "have no split 'test'"),
    ({'batch_rows': 0}, 'batch_rows=0 must be at least 1'),
    ({'buckets': 0}, '0 buckets make no batches'),
  ],
)
def test_wrong_settings_are_refused_in_a_sentence(cache_dir, changes, message):
  with pytest.raises(ValueError, match=message):
    run(cache_dir, make_config(**changes))


def test_rows_that_the_mesh_cannot_split_are_refused(cache_dir):
  with pytest.raises(ValueError, match='12 rows cannot be split over data x fsdp = 8 devices'):
    run(cache_dir, make_config(batch_rows=12), partitioning.MeshConfig())


def test_a_cache_of_another_vocabulary_is_refused(tmp_path):
  class Other(ByteVocabulary):
    fingerprint = 'other'

  make_cache(tmp_path / 'cache')
  with pytest.raises(
    ValueError, match="the model's is the bytes vocabulary other; prepare a cache"
  ):
    evaluator.evaluate(one_device_model(), make_config(), tmp_path / 'cache', Other())


def test_an_unknown_metric_names_the_task(tmp_path):
  cache.initialize_cache(tmp_path / 'cache', VOCABULARY)
  with cache.TaskCacheWriter(tmp_path / 'cache', 'odd', 'validation') as writer:
    writer.add([5, 1], [6, 1], {'id': '0', 'answer': 'a'})
    writer.finish({'metrics': ['exact']})
  with pytest.raises(ValueError, match="Task 'odd' cannot be scored. No metric 'exact'"):
    run(tmp_path / 'cache', make_config(mixtures=('odd',)))
