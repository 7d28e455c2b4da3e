"""Attention row by row, as one CPU computes it, is attention of all rows at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax import partitioning
from flan_jax.models import dot_product, row_by_row
from flan_jax.models.config import TransformerConfig

ROWS, LENGTH, KV_LENGTH, HEADS, DIM = 5, 19, 23, 4, 8


@pytest.fixture(params=['no mesh', 'one device'])
def mesh(request):
  if request.param == 'no mesh':
    yield
    return
  one = partitioning.make_mesh(partitioning.MeshConfig(), jax.devices()[:1])
  with partitioning.use_mesh(one):
    yield


def _config(**attention):
  layers = {'num_encoder_layers': 1, 'num_decoder_layers': 1}
  return TransformerConfig(vocab_size=8, embed_dim=8, mlp_dim=8, **layers, **attention)


def _value_and_gradients(kv_heads, *, softcap=None, causal=False, dtype=jnp.float32):
  """Of a weighted sum of what is attended to, by queries, keys, values and bias."""
  length = KV_LENGTH if causal else LENGTH
  config = _config(num_heads=HEADS, num_kv_heads=kv_heads, head_dim=DIM, attention_softcap=softcap)
  keys = jax.random.split(jax.random.key(0), 7)
  kv_shape = (ROWS, KV_LENGTH, kv_heads, DIM)
  query, key, value, bias = (
    jax.random.normal(keys[i], shape)
    for i, shape in enumerate(
      [(ROWS, length, HEADS, DIM), kv_shape, kv_shape, (HEADS, length, KV_LENGTH)]
    )
  )
  query, key, value = (x.astype(dtype) for x in (query, key, value))
  mask = jax.random.bernoulli(keys[4], 0.7, (ROWS, length, KV_LENGTH))
  if causal:
    mask = mask & jnp.tri(length, dtype=bool) | jnp.eye(length, dtype=bool)
  else:
    mask = mask.at[1, 3].set(False)  # a query that may look at nothing
  scale = 2.0 * jax.random.bernoulli(keys[5], 0.5, (ROWS, HEADS, 1, KV_LENGTH))
  weights = jax.random.normal(keys[6], (ROWS, length, HEADS, DIM))

  def total(query, key, value, bias):
    found = dot_product.attend(query, key, value, mask, bias, scale, config, causal=causal)
    return jnp.sum(weights * found)

  # A new function, as jit would remember how the last one was traced.
  return jax.jit(jax.value_and_grad(total, (0, 1, 2, 3)))(query, key, value, bias)


@pytest.mark.parametrize('short', [True, False])
@pytest.mark.parametrize('causal', [False, True])
@pytest.mark.parametrize(('kv_heads', 'softcap'), [(4, None), (2, 3.0), (1, None)])
@pytest.mark.usefixtures('mesh')
def test_row_by_row_is_all_rows_at_once(monkeypatch, kv_heads, softcap, causal, short):
  monkeypatch.setattr(row_by_row, '_KEPT_KEYS', KV_LENGTH / DIM if short else 0)
  whole = _value_and_gradients(kv_heads, softcap=softcap, causal=causal)
  by_row = _row_by_row(monkeypatch, kv_heads, softcap=softcap, causal=causal)
  np.testing.assert_allclose(by_row[0], whole[0], rtol=1e-4)  # a sum of 3,000 terms
  for ours, theirs in zip(by_row[1], whole[1], strict=True):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_row_by_row_is_all_rows_at_once_in_bfloat16(monkeypatch):
  _, exact = _value_and_gradients(2)
  _, whole = _value_and_gradients(2, dtype=jnp.bfloat16)
  _, by_row = _row_by_row(monkeypatch, 2, dtype=jnp.bfloat16)
  for ours, theirs, reference in zip(by_row, whole, exact, strict=True):
    assert ours.dtype == theirs.dtype
    error, least = (np.linalg.norm(np.float32(x) - reference) for x in (ours, theirs))
    assert error <= 1.25 * least


def _row_by_row(monkeypatch, kv_heads, **options):
  monkeypatch.setattr(dot_product, '_ROW_BY_ROW', 0)
  calls = []
  attend = dot_product.attend_row_by_row
  monkeypatch.setattr(
    dot_product, 'attend_row_by_row', lambda *args, **kw: calls.append(1) or attend(*args, **kw)
  )
  found = _value_and_gradients(kv_heads, **options)
  assert calls
  return found


def test_no_buffer_has_the_scores_of_all_rows():
  shape = (16, 512, 2, 4)
  config = _config(num_heads=2, head_dim=4)
  x = jax.ShapeDtypeStruct(shape, jnp.float32)
  mask = jax.ShapeDtypeStruct((16, 512, 512), jnp.bool_)

  def total(query, key, value, mask):
    return jnp.sum(dot_product.attend(query, key, value, mask, None, None, config) ** 2)

  compiled = jax.jit(jax.grad(total, (0, 1, 2))).lower(x, x, x, mask).compile()
  of_all_rows = 4 * 16 * 2 * 512 * 512
  assert compiled.memory_analysis().temp_size_in_bytes < of_all_rows / 2
