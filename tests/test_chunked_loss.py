"""The chunked loss against that of whole logits, T5X's arrays, other meshes, and its promises."""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flan_jax import chunked_loss, losses, partitioning
from flan_jax.models.head import Head
from flan_jax.partitioning import MeshConfig

SETTINGS = {'label_smoothing': 0.1, 'z_loss': 1e-3}


def example(seed, rows, length, embed, columns, vocab_size, dtype='float32') -> Any:
  """Hidden states, a kernel, targets and weights with padding, also of a whole row."""
  rng = np.random.default_rng(seed)
  weights = rng.choice([0.0, 0.5, 1.0], (rows, length)).astype(np.float32)
  weights[-1] = 0.0
  return (
    (rng.normal(size=(rows, length, embed))).astype(dtype),
    (rng.normal(size=(embed, columns))).astype(dtype),
    rng.integers(0, vocab_size, (rows, length)).astype(np.int32),
    weights,
  )


def of_chunks(kernel, hidden, targets, weights, *, vocab_size, softcap, **changes):
  head = Head(kernel, vocab_size, softcap)
  sums = chunked_loss.cross_entropy(head, hidden, targets, weights, **changes)
  return sums.loss, sums


def of_logits(kernel, hidden, targets, weights, *, vocab_size, softcap, chunk_tokens, **changes):
  del chunk_tokens
  logits = Head(kernel, vocab_size, softcap)(hidden)
  sums = losses.cross_entropy(logits, targets, weights, vocab_size=vocab_size, **changes)
  return sums.loss, sums


def with_gradients(loss, example, **changes):
  """((loss, sums), gradients of kernel and hidden states)."""
  hidden, kernel, targets, weights = map(jnp.asarray, example)
  loss = functools.partial(loss, **changes)
  return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(kernel, hidden, targets, weights)


def assert_same(ours, theirs, tolerance=1e-5):
  def same(a, b):
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * max(1.0, np.abs(b).max()))

  jax.tree.map(same, ours, theirs)


@settings(max_examples=6)
@given(
  seed=st.integers(0, 1000),
  rows=st.integers(2, 4),
  length=st.integers(1, 7),
  vocab=st.integers(5, 9),
  padding=st.integers(0, 3),
  chunk_tokens=st.integers(1, 30),
  softcap=st.sampled_from([None, 3.0]),
  smoothing=st.sampled_from([0.0, 0.1]),
  z_loss=st.sampled_from([0.0, 1e-2]),
)
def test_any_chunks_give_the_loss_and_gradients_of_whole_logits(
  seed, rows, length, vocab, padding, chunk_tokens, softcap, smoothing, z_loss
):
  made = example(seed, rows, length, 3, vocab + padding, vocab)
  how = {
    'vocab_size': vocab,
    'softcap': softcap,
    'chunk_tokens': chunk_tokens,
    'label_smoothing': smoothing,
    'z_loss': z_loss,
  }
  ours = with_gradients(of_chunks, made, **how)
  assert_same(ours, with_gradients(of_logits, made, **how))
  kernel, hidden = ours[1]
  assert np.all(np.asarray(kernel)[:, vocab:] == 0)
  assert np.all(np.asarray(hidden)[-1] == 0)  # nothing of it counts


def test_in_bfloat16_the_loss_stays_float32():
  made = example(0, 4, 40, 16, 300, 259, dtype=jnp.bfloat16)
  how = {'vocab_size': 259, 'softcap': None, 'chunk_tokens': 24, **SETTINGS}
  ours, theirs = with_gradients(of_chunks, made, **how), with_gradients(of_logits, made, **how)
  assert ours[0][0].dtype == jnp.float32 and ours[1][0].dtype == jnp.bfloat16
  assert_same(ours[0], theirs[0])
  assert_same(ours[1], theirs[1], tolerance=1e-2)


@pytest.mark.parametrize('chunk_tokens', [5, 1000])
@pytest.mark.parametrize(
  'mesh',
  [
    MeshConfig(data=2, fsdp=2, tensor=2),
    MeshConfig(data=1, fsdp=2, tensor=2, sequence=2),
    MeshConfig(data=4, rules='data_parallel'),
  ],
  ids=lambda mesh: f'{mesh.data}x{mesh.fsdp}x{mesh.tensor}x{mesh.sequence}',
)
def test_on_any_mesh_it_is_that_of_one_device(mesh, chunk_tokens):
  made = example(1, 4, 6, 8, 32, 30)
  how = {'vocab_size': 30, 'softcap': 3.0, 'chunk_tokens': chunk_tokens, **SETTINGS}
  alone = with_gradients(of_chunks, made, **how)
  devices = jax.devices()[: mesh.data * mesh.fsdp * mesh.tensor * mesh.sequence]
  with partitioning.use_mesh(partitioning.make_mesh(mesh, devices), mesh.rules):
    tokens = ('batch', 'length')
    axes = ((*tokens, 'act_embed'), ('act_embed', 'vocab'), tokens, tokens)
    laid = [jax.device_put(x, partitioning.spec(*a)) for x, a in zip(made, axes, strict=True)]
    spread = with_gradients(of_chunks, laid, **how)
    assert spread[1][0].sharding.spec == partitioning.spec('act_embed', 'vocab')
  assert_same(spread, alone)


def test_loss_and_gradient_are_t5xs(shared):
  oracle = np.load(shared('oracles/t5x_loss.npz'))
  logits = jnp.asarray(oracle['logits'])
  identity = np.eye(logits.shape[-1], dtype=np.float32)
  made = (logits, identity, oracle['targets'], oracle['weights'])
  for smoothing in (0.0, 0.1):
    for z_loss in (0.0, 1e-4):
      (loss, sums), (_, to_logits) = with_gradients(
        of_chunks,
        made,
        vocab_size=logits.shape[-1],
        softcap=None,
        chunk_tokens=7,
        label_smoothing=smoothing,
        z_loss=z_loss,
      )
      expected = f'LS{smoothing}_Z{z_loss}_packed_none/'
      np.testing.assert_allclose(loss, oracle[expected + 'loss'], rtol=1e-5)
      np.testing.assert_allclose(sums.z_loss, oracle[expected + 'z_loss'], rtol=1e-5)
      np.testing.assert_allclose(to_logits, oracle[expected + 'dlogits'], rtol=1e-5, atol=1e-7)


def compiled(made, argnums) -> str:
  loss = functools.partial(of_chunks, vocab_size=500, softcap=None, chunk_tokens=16)
  hidden, kernel, targets, weights = made
  gradients = jax.value_and_grad(loss, argnums, has_aux=True)
  return jax.jit(gradients).lower(kernel, hidden, targets, weights).compile().as_text() or ''


def test_no_buffer_holds_the_logits_of_more_than_a_chunk():
  text = compiled(example(0, 8, 32, 4, 512, 500), (0, 1))
  shapes = re.findall(r'(?:f32|bf16|pred|s32)\[([\d,]+)\]', text)
  with_columns = [s for s in shapes if '512' in s.split(',')]
  assert with_columns
  largest = max(np.prod([int(n) for n in s.split(',')]) for s in with_columns)
  assert largest == 16 * 512, text


def test_a_frozen_head_costs_no_gradient():
  made = example(0, 8, 32, 4, 512, 500)

  def products(argnums):
    return len(re.findall(r'= \S+ dot\(', compiled(made, argnums)))

  assert products((1,)) == products((0, 1)) - 1


def test_only_the_loss_has_a_gradient():
  hidden, kernel, targets, weights = example(0, 2, 3, 4, 8, 8)

  def first(hidden):
    sums = chunked_loss.cross_entropy(Head(kernel, 8, None), hidden, targets, weights)
    return sums.token_loss[0, 0]

  with pytest.raises(ValueError, match='LossSums.token_loss has no gradient here'):
    jax.grad(first)(hidden)


@pytest.mark.parametrize(
  'change, words',
  [
    ({'label_smoothing': 1.0}, r'label_smoothing=1.0 is outside \[0, 1\)'),
    ({'z_loss': -1.0}, 'z_loss=-1.0 is negative'),
    ({'chunk_tokens': 0}, 'chunk_tokens=0 must be at least 1'),
    ({'targets': np.ones((2, 5), np.int32)}, r'targets \(2, 5\) and weights \(2, 3\) do not fit'),
  ],
)
def test_impossible_arguments_are_refused(change, words):
  hidden, kernel, targets, weights = example(0, 2, 3, 4, 8, 8)
  arguments = {'hidden': hidden, 'targets': targets, 'weights': weights, **change}
  with pytest.raises(ValueError, match=words):
    chunked_loss.cross_entropy(Head(kernel, 8, None), **arguments)
