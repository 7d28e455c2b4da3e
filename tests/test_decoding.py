"""What must hold of any model: strategies agree where they should, rows do not touch each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from flan_jax import beam_search, decoding, parameter_names, partitioning
from flan_jax.models.config import TransformerConfig
from flan_jax.models.kv_cache import KVCache
from flan_jax.models.transformer import Transformer

VOCAB, LENGTH, ROWS = 40, 7, 8
KEY = jax.random.key(0)
CONFIG = TransformerConfig(
  vocab_size=VOCAB,
  embed_dim=16,
  num_encoder_layers=1,
  num_decoder_layers=2,
  num_heads=4,
  head_dim=4,
  mlp_dim=16,
)


def _model():
  """The same random parameters with a mesh and without, made without compiling anything."""
  abstract = partitioning.abstract(lambda key: Transformer(CONFIG, nnx.Rngs(params=key)), KEY)
  rng = np.random.default_rng(3)

  def fill(path, leaf):
    value = rng.normal(size=leaf.shape).astype(np.float32)
    name = parameter_names.path_string(path)
    if name.endswith('scale'):
      value = np.ones_like(value)
    elif name == 'logits_kernel':
      # Large logits, and EOS likely enough that some rows end early and some never do.
      value *= np.where(np.arange(leaf.shape[1]) == 1, 4.5, 1.5)
    elif name != 'token_embedding.table':
      value *= 0.3
    return jax.device_put(value.astype(np.float32), leaf.sharding)

  return jax.tree_util.tree_map_with_path(fill, abstract)


@pytest.fixture(scope='module')
def model():
  return _model()


def _prompts(rows=ROWS, length=9, seed=0):
  """Prompts of unequal length, padded."""
  rng = np.random.default_rng(seed)
  tokens = rng.integers(2, VOCAB, (rows, length)).astype(np.int32)
  tokens[np.arange(length) >= rng.integers(2, length + 1, rows)[:, None]] = 0
  return {
    'encoder_input_tokens': tokens,
    'encoder_segment_ids': (tokens > 0).astype(np.int32),
  }


def _generate(model, batch, key=None, **settings):
  config = decoding.DecodeConfig(max_length=LENGTH, **settings)
  decoded = decoding.generate(model, batch, config, key=key)
  return np.asarray(decoded.tokens), np.asarray(decoded.scores)


STRATEGIES = {
  'greedy': {},
  'sample': {'strategy': 'sample', 'num_samples': 2, 'temperature': 2.0, 'key': KEY},
  'nucleus': {'strategy': 'sample', 'top_k': 9, 'top_p': 0.9, 'key': KEY},
  'beam': {'strategy': 'beam', 'num_beams': 3, 'num_samples': 3},
}


def _same(ours, theirs):
  np.testing.assert_array_equal(ours[0], theirs[0])
  np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-5, atol=1e-5)


def test_answers_end_with_eos_and_then_hold_zeros(model):
  tokens, _ = _generate(model, _prompts())
  ends = (tokens == 1).sum(-1)
  assert 0 < ends.sum() < ends.size, 'the model of this test should end some answers only'
  assert ends.max() == 1
  after = np.cumsum(tokens == 1, axis=-1) - (tokens == 1)
  assert (tokens[after > 0] == 0).all()


@pytest.mark.parametrize('name', ['greedy', 'sample', 'nucleus'])
def test_an_answer_ends_with_any_of_several_tokens(model, name):
  whole, _ = _generate(model, _prompts(), eos_id=-1, **STRATEGIES[name])
  often = np.argsort(np.bincount(whole[..., :3].ravel(), minlength=VOCAB))
  eos_ids = tuple(often[-3:].tolist())
  tokens, _ = _generate(model, _prompts(), eos_id=eos_ids, **STRATEGIES[name])
  ends = np.isin(whole, eos_ids)
  ended_before = np.cumsum(ends, axis=-1) - ends
  np.testing.assert_array_equal(tokens, np.where(ended_before, 0, whole))
  assert len(set(tokens[np.isin(tokens, eos_ids)])) > 1, 'several should end an answer'


@pytest.mark.parametrize(
  'settings',
  [
    {'strategy': 'beam', 'num_beams': 1, 'length_penalty': 0.0},
    {'strategy': 'sample', 'top_k': 1, 'key': KEY},
    {'strategy': 'sample', 'temperature': 0.0},
    {'strategy': 'sample', 'temperature': 1e-30, 'key': KEY},
    {'strategy': 'sample', 'top_p': 1e-6, 'key': KEY},
  ],
)
def test_limits_of_other_strategies_are_greedy(model, settings):
  _same(_generate(model, _prompts(), **settings), _generate(model, _prompts()))


@pytest.mark.parametrize('name', STRATEGIES)
def test_a_row_is_decoded_the_same_in_any_place_and_beside_any_rows(model, name):
  batch = _prompts()
  whole = _generate(model, batch, **STRATEGIES[name])
  order = np.random.default_rng(1).permutation(ROWS)
  moved = _generate(model, {feature: x[order] for feature, x in batch.items()}, **STRATEGIES[name])
  _same(moved, (whole[0][order], whole[1][order]))
  for row in (0, 5):
    rest = np.arange(ROWS)[:, None] != row
    alone = {feature: np.where(rest, 0, x) for feature, x in batch.items()}
    tokens, scores = _generate(model, alone, **STRATEGIES[name])
    _same((tokens[row], scores[row]), (whole[0][row], whole[1][row]))


@pytest.mark.parametrize('name', ['nucleus', 'beam'])
def test_a_row_is_decoded_the_same_as_a_batch_of_its_own_with_more_padding(model, name):
  batch = _prompts()
  whole = _generate(model, batch, **STRATEGIES[name])
  alone = {feature: np.pad(x[5:6], ((0, 0), (0, 3))) for feature, x in batch.items()}
  _same(_generate(model, alone, **STRATEGIES[name]), (whole[0][5:6], whole[1][5:6]))


def _teacher_forced(batch, tokens, model):
  """`score` of every answer, [batch, answers]."""
  answers = tokens.shape[1]
  features = {name: np.repeat(x, answers, axis=0) for name, x in batch.items()}
  targets = tokens.reshape(-1, tokens.shape[-1])
  weights = (np.cumsum(targets == 1, axis=1) - (targets == 1) == 0).astype(np.float32)
  features |= {
    'decoder_target_tokens': targets,
    'decoder_input_tokens': np.pad(targets, ((0, 0), (1, 0)))[:, :-1],
    'decoder_segment_ids': weights.astype(np.int32),
    'decoder_loss_weights': weights,
  }
  return np.asarray(decoding.score(model, features)).reshape(-1, answers), weights


@pytest.mark.parametrize('name', STRATEGIES)
def test_returned_scores_are_those_of_teacher_forcing(model, name):
  batch = _prompts()
  tokens, scores = _generate(model, batch, **STRATEGIES[name])
  expected, weights = _teacher_forced(batch, tokens, model)
  if name == 'beam':
    lengths = weights.sum(1).reshape(expected.shape)
    finished = (tokens == 1).any(-1)
    # A row returns its finished beams, or where there is none its unfinished ones.
    there = finished | ~finished.any(1, keepdims=True)
    expected = np.where(finished, expected / ((5 + lengths) / 6) ** 0.6, expected)
    assert (np.diff(scores, axis=1) <= 0).all()
    expected, scores = expected[there], scores[there]
  np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-4)


def test_the_same_key_draws_the_same_and_another_key_or_sample_does_not(model):
  settings = {'strategy': 'sample', 'num_samples': 4, 'temperature': 2.0}
  first = _generate(model, _prompts(), KEY, **settings)
  again = _generate(model, _prompts(), KEY, **settings)
  other = _generate(model, _prompts(), jax.random.key(1), **settings)
  np.testing.assert_array_equal(first[0], again[0])
  assert (first[0] != other[0]).any()
  assert (first[0][:, 0] != first[0][:, 1]).any()


def test_rows_without_a_prompt_are_empty_and_cost_no_steps(model):
  batch = _prompts()
  for feature in batch.values():
    feature[::2] = 0
  for name in ('greedy', 'nucleus', 'beam'):
    tokens, scores = _generate(model, batch, **STRATEGIES[name])
    assert (tokens[::2] == 0).all() and (scores[::2] == 0).all()
    assert (tokens[1::2, 0] != 0).any()
  for feature in batch.values():
    feature[:] = 0
  assert _steps(model, batch) == 0


def _steps(model, batch, **settings):
  """How often the cache was advanced until all rows ended."""
  config = decoding.DecodeConfig(max_length=50, **settings)
  counted = []

  class Counting:
    """The model, telling the host of every step it takes."""

    def __getattr__(self, name):
      return getattr(model, name)

    def unstacked(self, cache):
      nonlocal model
      model, cache = model.unstacked(cache)
      return self, cache

    def decode_step(self, tokens, cache):
      jax.debug.callback(lambda position: counted.append(int(position)), cache.position)
      return model.decode_step(tokens, cache)

  tokens, segments = (jnp.asarray(batch[f'encoder_{x}']) for x in ('input_tokens', 'segment_ids'))
  jax.block_until_ready(
    decoding._generate.__wrapped__(Counting(), tokens, segments, None, None, config)
  )
  jax.effects_barrier()
  return len(counted)


def test_decoding_stops_when_all_rows_have_ended(model):
  batch = _prompts()
  tokens, _ = _generate(model, batch)
  ending = np.flatnonzero((tokens[:, 0] == 1).any(-1))
  some = {name: x[ending] for name, x in batch.items()}
  longest = (tokens[ending, 0] > 0).sum(-1).max()
  assert _steps(model, some) == longest


def test_equal_shapes_are_compiled_once(model):
  _generate(model, _prompts(seed=1))
  compiled = decoding._generate._cache_size()
  for seed in (2, 3):
    _generate(model, _prompts(seed=seed))
    _generate(jax.tree.map(lambda x: x + 0.0, model), {**_prompts(seed=seed), 'other': 1})
  assert decoding._generate._cache_size() == compiled
  _generate(model, _prompts(length=10))
  assert decoding._generate._cache_size() == compiled + 1


@settings(max_examples=15)
@given(
  st.integers(0, 10_000), st.floats(0.05, 0.999), st.sampled_from([0, 1, 6]), st.floats(0.3, 3.0)
)
def test_draws_stay_within_the_smallest_set_that_has_mass_top_p(seed, top_p, top_k, temperature):
  rng = np.random.default_rng(seed)
  logits = np.repeat(rng.normal(size=(1, VOCAB)).astype(np.float32) * 2, 200, axis=0)
  config = decoding.DecodeConfig(
    1, strategy='sample', top_p=top_p, top_k=top_k, temperature=temperature
  )
  uniform = jnp.asarray(np.append(rng.random(198), [0.0, 1.0 - 2**-24]), jnp.float32)
  drawn = np.asarray(decoding._draw(jnp.asarray(logits), uniform, config))
  order = np.argsort(-logits[0], kind='stable')[: top_k or VOCAB]
  probability = np.exp((logits[0][order] - logits[0].max()) / temperature).astype(np.float64)
  probability /= probability.sum()
  mass = np.cumsum(probability)
  nucleus = order[: np.searchsorted(mass, top_p - 1e-5) + 1]
  wider = order[: np.searchsorted(mass, top_p + 1e-5) + 1]
  assert set(drawn) <= set(wider)
  assert drawn[-2] == (nucleus[0] if (top_k or top_p < 1) else 0)


def test_draws_have_the_probabilities_of_the_model():
  logits = jnp.log(jnp.asarray([0.5, 0.2, 0.2, 0.1]))[None].repeat(1000, axis=0)
  uniform = (jnp.arange(1000) + 0.5) / 1000
  shares = {
    (0, 1.0): [0.5, 0.2, 0.2, 0.1],
    (2, 1.0): [5 / 7, 2 / 7, 0, 0],
    (0, 0.6): [5 / 7, 2 / 7, 0, 0],
    (1, 1.0): [1, 0, 0, 0],
  }
  for (top_k, top_p), expected in shares.items():
    config = decoding.DecodeConfig(1, strategy='sample', top_k=top_k, top_p=top_p)
    drawn = decoding._draw(logits, uniform, config)
    np.testing.assert_allclose(jnp.bincount(drawn, length=4) / 1000, expected, atol=2e-3)


@pytest.mark.parametrize(
  'name', ['greedy', 'nucleus', 'beam', pytest.param('sample', marks=pytest.mark.slow)]
)
def test_an_explicit_mesh_decodes_as_one_device(model, name):
  batch = _prompts()
  alone = _generate(model, batch, **STRATEGIES[name])
  with partitioning.use_mesh(partitioning.MeshConfig(data=2, fsdp=2, tensor=2)) as mesh:
    sharded = _model()
    layout = partitioning.batch_sharding(mesh)
    placed = {feature: jax.device_put(x, layout) for feature, x in batch.items()}
    _same(_generate(sharded, placed, **STRATEGIES[name]), alone)


def test_beams_move_within_their_row_and_between_no_devices():
  rng = np.random.default_rng(0)
  key = rng.normal(size=(2, ROWS * 3, 5, 4, 2)).astype(np.float32)
  parent = rng.integers(0, 3, (ROWS, 3)).astype(np.int32)
  rows = (parent + 3 * np.arange(ROWS)[:, None]).reshape(-1)
  with partitioning.use_mesh(partitioning.MeshConfig(data=2, fsdp=2, tensor=2)):
    layout = partitioning.spec('layers', 'batch', 'kv_length', 'act_heads', None)
    key_there = jax.device_put(key, layout)
    other = jax.device_put(np.zeros((1, 1), np.int32))
    cache = KVCache(key_there, key_there + 1, jnp.int32(0), encoder_segment_ids=other, max_length=5)
    parent_there = jax.device_put(parent, partitioning.spec('batch', None))
    compiled = jax.jit(beam_search._reorder).lower(cache, parent_there).compile()
    moved = compiled(cache, parent_there)
  np.testing.assert_array_equal(moved.key, key[:, rows])
  np.testing.assert_array_equal(moved.value, key[:, rows] + 1)
  assert 'all-gather' not in compiled.as_text()


@pytest.mark.parametrize('ends', [(1,), (1, 5, 30)])
def test_a_beam_as_wide_as_all_answers_finds_the_best_of_them(model, ends):
  """With two tokens, every answer can be tried."""
  batch = {name: x[:2] for name, x in _prompts().items()}
  beams = {'strategy': 'beam', 'num_beams': VOCAB // 2, 'length_penalty': 0.6}
  config = decoding.DecodeConfig(2, eos_id=ends, **beams)
  found = decoding.generate(model, batch, config)
  others = [token for token in range(2, VOCAB) if token not in ends]
  pairs = [(a, b) for a in others for b in ends] + [(end, 0) for end in ends]
  pairs = np.array(pairs, np.int32)
  tokens = np.repeat(pairs[None], 2, axis=0)
  likelihood, weights = _teacher_forced(batch, tokens, model)
  scores = likelihood / ((5 + weights.sum(1).reshape(likelihood.shape)) / 6) ** 0.6
  np.testing.assert_allclose(found.scores[:, 0], scores.max(1), rtol=1e-5)
  np.testing.assert_array_equal(found.tokens[:, 0], pairs[scores.argmax(1)])


@pytest.mark.parametrize(
  'change, words',
  [
    (
      {'strategy': 'gready'},
      "No decoding strategy 'gready'. Did you mean 'greedy'\\? Choose one of: greedy, sample, ",
    ),
    ({'strategy': 'xyz'}, "No decoding strategy 'xyz'. Choose one of"),
    ({'max_length': 0}, 'max_length=0 must be a whole number of 1 or more'),
    ({'max_length': 2.5}, 'max_length=2.5 must be a whole number of 1 or more'),
    ({'num_beams': 0}, 'num_beams=0 must be a whole number of 1 or more'),
    ({'num_samples': 0}, 'num_samples=0 must be a whole number of 1 or more'),
    ({'top_k': -1}, 'top_k=-1 must be a whole number of 0 or more'),
    ({'temperature': -0.5}, 'temperature=-0.5 must be a number of 0.0 or more'),
    ({'length_penalty': -1.0}, 'length_penalty=-1.0 must be a number of 0.0 or more'),
    ({'top_p': 0.0}, 'top_p=0.0 must be above 0.0 and at most 1.0'),
    ({'top_p': 1.5}, 'top_p=1.5 must be above 0.0 and at most 1.0'),
    ({'num_samples': 2}, "num_samples=2 with strategy='greedy' would repeat one answer"),
    (
      {'strategy': 'beam', 'num_samples': 5},
      'num_samples=5 is more than num_beams=4; use at most 4, or more beams',
    ),
  ],
)
def test_impossible_decoding_is_refused(change, words):
  with pytest.raises(ValueError, match='^' + words):
    decoding.DecodeConfig(**{'max_length': 4, **change})


@pytest.mark.parametrize(
  'change, words',
  [
    ({'strategy': 'sample', 'top_k': 41}, 'top_k=41 needs 41 tokens and the vocabulary has 40'),
    ({'strategy': 'beam', 'num_beams': 21}, 'num_beams=21 needs 42 tokens .* use at most 20'),
    ({'strategy': 'sample'}, "strategy='sample' needs a PRNG key"),
  ],
)
def test_a_model_that_cannot_be_decoded_so_is_refused(model, change, words):
  with pytest.raises(ValueError, match='^' + words):
    _generate(model, _prompts(), **change)


def test_packed_prompts_are_refused_by_row(model):
  batch = _prompts()
  batch['encoder_segment_ids'][3, 1:3] = 2
  with pytest.raises(ValueError, match='^Row 3 of the batch packs 2 prompts.*pack=False'):
    _generate(model, batch)


def test_the_first_step_has_one_beam_only():
  state = beam_search._first(None, jnp.zeros(2, bool), decoding.DecodeConfig(3, strategy='beam'))
  np.testing.assert_array_equal(state.alive_likelihood, [[0, -1e7, -1e7, -1e7]] * 2)
