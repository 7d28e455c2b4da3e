"""The loss against T5X's arrays, and what must not change it: packing, sharding, microbatches."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from flan_jax import losses

KINDS = {
  'none': None,
  'const233': 233.0,
  **{name: name for name in losses.NORMALIZERS},
}


STATIC = ('label_smoothing', 'z_loss', 'vocab_size')
cross_entropy = jax.jit(losses.cross_entropy, static_argnames=STATIC)


@functools.partial(jax.jit, static_argnames=STATIC)
def mean_loss_and_gradient(logits, targets, weights, factor, **settings):
  def mean(logits):
    sums = losses.cross_entropy(logits, targets, weights, **settings)
    return sums.loss / factor, sums

  return jax.value_and_grad(mean, has_aux=True)(logits)


@pytest.fixture(scope='module')
def oracle(shared):
  return np.load(shared('oracles/t5x_loss.npz'))


def _t5x_batch(oracle, kind, name):
  """The batch as T5X saw it; `noweights` is what T5X then assumes."""
  targets, segments = oracle['targets'], oracle['segment_ids']
  weights = {
    'packed': oracle['weights'],
    'packed_frac': oracle['weights_frac'],
    'unpacked': oracle['weights'],
    # Without weights T5X counts all tokens, or the real ones if the factor is a named one.
    'noweights': (targets > 0) if isinstance(kind, str) else np.ones_like(targets),
  }[name]
  if not name.startswith('packed'):
    segments = np.ones_like(targets)
  return {
    'decoder_loss_weights': jnp.asarray(weights),
    'decoder_segment_ids': jnp.asarray(segments),
  }


@pytest.mark.parametrize('name', ['packed', 'packed_frac', 'unpacked', 'noweights'])
@pytest.mark.parametrize('kind', KINDS)
def test_loss_and_gradient_equal_t5x(oracle, name, kind):
  batch = _t5x_batch(oracle, KINDS[kind], name)
  targets = jnp.asarray(oracle['targets'])
  weights = losses.loss_weights(KINDS[kind], batch)
  factor = losses.normalizing_factor(KINDS[kind], batch)
  for smoothing, z_loss in itertools.product((0.0, 0.1), (0.0, 1e-4)):
    expected = f'LS{smoothing}_Z{z_loss}_{name}_{kind}/'

    (loss, sums), gradient = mean_loss_and_gradient(
      oracle['logits'], targets, weights, factor, label_smoothing=smoothing, z_loss=z_loss
    )
    np.testing.assert_allclose(loss, oracle[expected + 'loss'], rtol=1e-5)
    np.testing.assert_allclose(sums.z_loss / factor, oracle[expected + 'z_loss'], rtol=1e-5)
    np.testing.assert_allclose(sums.weight, oracle[expected + 'weight_sum'], rtol=1e-5)
    np.testing.assert_allclose(gradient, oracle[expected + 'dlogits'], rtol=1e-5, atol=1e-8)
    if expected + 'lnf' in oracle:
      np.testing.assert_allclose(factor, oracle[expected + 'lnf'], rtol=1e-5)
    if expected + 'weights' in oracle:
      np.testing.assert_allclose(weights, oracle[expected + 'weights'], rtol=1e-5)


def _random(seed=0, rows=8, length=6, vocab=32, scale=3.0):
  rng = np.random.default_rng(seed)
  logits = (scale * rng.normal(size=(rows, length, vocab))).astype(np.float32)
  targets = rng.integers(0, vocab, (rows, length)).astype(np.int32)
  return logits, targets, rng.integers(0, 2, (rows, length)).astype(np.float32)


@settings(max_examples=12)
@given(st.integers(0, 1000), st.sampled_from([0.0, 0.1, 0.3]), st.sampled_from([0.0, 1e-3]))
def test_hand_written_gradient_equals_automatic_differentiation(seed, smoothing, z_loss):
  logits, targets, weights = _random(seed, rows=2)

  @jax.value_and_grad
  def plain(logits):
    log_p = jax.nn.log_softmax(logits)
    low = smoothing / (logits.shape[-1] - 1)
    q = jnp.where(jax.nn.one_hot(targets, logits.shape[-1]) > 0, 1 - smoothing, low)
    cross = -jnp.sum(q * log_p, -1) + jnp.sum(jnp.where(q > 0, q * jnp.log(q + 1e-20), 0), -1)
    return jnp.sum(weights * (cross + z_loss * jax.nn.logsumexp(logits, -1) ** 2))

  expected, expected_gradient = jax.jit(plain)(logits)
  (loss, _), gradient = mean_loss_and_gradient(
    logits, targets, weights, 1.0, label_smoothing=smoothing, z_loss=z_loss
  )
  np.testing.assert_allclose(loss, expected, rtol=2e-5, atol=1e-5)
  np.testing.assert_allclose(gradient, expected_gradient, atol=1e-5)


def test_sums_are_the_same_for_any_split_into_microbatches():
  logits, targets, weights = map(jnp.asarray, _random())

  def sums(rows):
    return cross_entropy(logits[rows], targets[rows], weights[rows], z_loss=1e-4)

  whole, first, second = sums(slice(None)), sums(slice(0, 3)), sums(slice(3, None))
  for name in ('loss', 'z_loss', 'correct', 'weight'):
    added = getattr(first, name) + getattr(second, name)
    np.testing.assert_allclose(added, getattr(whole, name), rtol=1e-6)
  np.testing.assert_allclose(jnp.sum(whole.token_loss), whole.loss, rtol=1e-6)


def test_correct_follows_argmax_also_between_equal_logits():
  logits, targets, weights = _random(scale=1.0)
  logits = np.round(logits)  # many ties
  targets[0] = np.argmax(logits[0], -1)
  sums = cross_entropy(jnp.asarray(logits), jnp.asarray(targets), jnp.asarray(weights))
  expected = np.sum(weights * (np.argmax(logits, -1) == targets))
  assert expected > 0
  assert sums.correct == expected


def test_padding_columns_of_the_vocabulary_never_count():
  logits, targets, weights = _random(vocab=30)
  padded = np.concatenate([logits, np.full((8, 6, 2), -1e9, np.float32)], -1)
  targets, weights = jnp.asarray(targets), jnp.asarray(weights)

  def call(x):
    return cross_entropy(x, targets, weights, label_smoothing=0.1, z_loss=1e-4, vocab_size=30)

  for name in ('loss', 'z_loss', 'correct'):
    np.testing.assert_allclose(getattr(call(padded), name), getattr(call(logits), name), rtol=1e-6)
  gradient = jax.grad(lambda x: call(x).loss)(jnp.asarray(padded))
  assert np.all(gradient[..., 30:] == 0)


def test_a_perfect_model_has_no_loss_with_label_smoothing():
  targets = jnp.asarray([[0, 3]], jnp.int32)
  q = np.full((1, 2, 5), 0.1 / 4, np.float32)
  q[0, 0, 0] = q[0, 1, 3] = 0.9
  sums = cross_entropy(jnp.log(q), targets, jnp.ones((1, 2)), label_smoothing=0.1)
  np.testing.assert_allclose(sums.loss, 0.0, atol=1e-6)


def test_a_batch_without_targets_gives_loss_zero_and_not_nan():
  batch = {
    'decoder_loss_weights': jnp.zeros((2, 3)),
    'decoder_segment_ids': jnp.zeros((2, 3), jnp.int32),
  }
  for kind in KINDS.values():
    assert np.all(np.isfinite(losses.loss_weights(kind, batch)))
    assert losses.normalizing_factor(kind, batch) > 0


def test_collection_sums_add_up_to_the_whole_and_skip_padding():
  logits, targets, weights = map(jnp.asarray, _random())
  ids = jnp.asarray(np.random.default_rng(1).integers(0, 4, (8, 6)), jnp.int32)
  weights = weights * (ids > 0)
  whole = cross_entropy(logits, targets, weights)
  split = losses.per_collection_sums(whole.token_loss, weights, ids, 3)
  np.testing.assert_allclose(jnp.sum(split.loss), whole.loss, rtol=1e-6)
  np.testing.assert_allclose(jnp.sum(split.weight), whole.weight, rtol=1e-6)
  alone = cross_entropy(logits, targets, weights * (ids == 2))
  np.testing.assert_allclose(split.loss[1], alone.loss, rtol=1e-6)


def test_loss_on_an_explicit_mesh_equals_one_device():
  logits, targets, weights = _random()
  segments = np.asarray(np.arange(6) // 3 + 1)[None].repeat(8, 0).astype(np.int32)

  @jax.jit
  def everything(logits, targets, weights, segments):
    batch = {'decoder_loss_weights': weights, 'decoder_segment_ids': segments}

    def loss(logits):
      per_sequence = losses.loss_weights('AVERAGE_PER_SEQUENCE', batch)
      sums = losses.cross_entropy(
        logits, targets, per_sequence, label_smoothing=0.1, z_loss=1e-4, vocab_size=30
      )
      return sums.loss / losses.normalizing_factor('AVERAGE_PER_SEQUENCE', batch), sums

    out, gradient = jax.value_and_grad(loss, has_aux=True)(logits)
    return out, gradient, losses.per_collection_sums(out[1].token_loss, weights, segments, 2)

  alone = everything(logits, targets, weights, segments)
  mesh = jax.make_mesh((2, 2, 2), ('data', 'fsdp', 'tensor'), axis_types=(AxisType.Explicit,) * 3)
  with jax.set_mesh(mesh):
    rows = P(('data', 'fsdp'), None)
    sharded = everything(
      jax.device_put(logits, P(('data', 'fsdp'), None, 'tensor')),
      *(jax.device_put(x, rows) for x in (targets, weights, segments)),
    )
    assert sharded[1].sharding.spec == P(('data', 'fsdp'), None, 'tensor')
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), alone, sharded)


@pytest.mark.parametrize(
  'kind, words',
  [
    (
      'NUM_REAL_TOKENS',
      "No loss normalizing factor 'NUM_REAL_TOKENS'. Did you mean 'NUM_REAL_TARGET_TOKENS'?",
    ),
    (
      'zzz',
      "No loss normalizing factor 'zzz'. Allowed: None, a number above 0, AVERAGE_PER_SEQUENCE",
    ),
    (0, 'loss normalizing factor 0 is not a positive number'),
    (float('nan'), 'loss normalizing factor nan is not a positive number'),
    (True, 'loss normalizing factor True is a bool'),
  ],
)
def test_a_misspelt_normalizing_factor_is_refused_with_the_nearest(kind, words):
  batch = {'decoder_loss_weights': jnp.ones((1, 2)), 'decoder_segment_ids': jnp.ones((1, 2))}
  for call in (losses.normalizing_factor, losses.loss_weights):
    with pytest.raises(ValueError, match='^' + words.replace('?', r'\?')):
      call(kind, batch)


@pytest.mark.parametrize(
  'change, words',
  [
    ({'label_smoothing': 1.0}, r'label_smoothing=1.0 is outside \[0, 1\)'),
    ({'z_loss': -1.0}, 'z_loss=-1.0 is negative'),
    ({'vocab_size': 99}, 'vocab_size=99 is not within 2 and the 32 columns'),
    ({'targets': jnp.ones((8, 5), jnp.int32)}, r'targets \(8, 5\) and weights \(8, 6\) do not fit'),
  ],
)
def test_impossible_arguments_of_the_loss_are_refused(change, words):
  logits, targets, weights = map(jnp.asarray, _random())
  arguments = {'logits': logits, 'targets': targets, 'weights': weights, **change}
  with pytest.raises(ValueError, match=words):
    losses.cross_entropy(**arguments)
