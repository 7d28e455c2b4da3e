"""A model with its kernels laid out for the steps of decoding is the same model."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flan_jax.models import transformer
from flan_jax.models.config import KERNELS, Lora, TransformerConfig
from flan_jax.models.transformer import Transformer

SIZES = dict(vocab_size=50, embed_dim=16, num_heads=4, head_dim=8, mlp_dim=24)
MODELS = {
  'encoder_decoder': dict(num_encoder_layers=2, num_decoder_layers=2),
  'tied': dict(num_encoder_layers=1, num_decoder_layers=2, tie_embeddings=True),
  'shared_heads': dict(
    num_encoder_layers=0, num_decoder_layers=2, num_kv_heads=2, position='rope', qkv_bias=True
  ),
  'adapters': dict(num_encoder_layers=1, num_decoder_layers=2, lora=Lora(rank=2, alpha=4.0)),
}


# On one CPU kernels are turned around, on a GPU not.
@pytest.mark.parametrize(
  'name, turn, dtype, atol',
  [
    *((name, True, 'float32', 1e-4) for name in MODELS),
    ('encoder_decoder', False, 'bfloat16', 0.05),
    ('shared_heads', True, 'bfloat16', 0.05),
  ],
)
def test_steps_of_decoding_give_the_same_logits(name, turn, dtype, atol, monkeypatch):
  config = TransformerConfig(**SIZES, **MODELS[name], dtype=dtype)
  model = Transformer(config, nnx.Rngs(params=0))
  # Adapters begin as nothing.
  model = jax.tree.map(lambda x: x + 0.1 * jnp.cos(jnp.arange(x.size)).reshape(x.shape), model)
  prompts = jnp.asarray(np.random.default_rng(0).integers(2, 50, (3, 7)), jnp.int32)
  read = jax.jit(functools.partial(Transformer.start_decoding, max_length=4))
  cache = read(model, prompts, jnp.ones_like(prompts))
  monkeypatch.setattr(transformer, 'on_one_cpu', lambda: turn)
  laid_out, cache_of_layers = model.unstacked(cache)
  assert laid_out.turned == turn and not model.turned
  for layer in laid_out.decoder.layers:
    kernels = [
      getattr(part, k) for part in vars(layer).values() for k in KERNELS if hasattr(part, k)
    ]
    assert len(kernels) >= 7 and {kernel.dtype.name for kernel in kernels} == {dtype}
  token, step = jnp.zeros(3, jnp.int32), jax.jit(Transformer.decode_step)
  for _ in range(3):
    logits, cache = step(model, token, cache)
    found, cache_of_layers = step(laid_out, token, cache_of_layers)
    np.testing.assert_allclose(found, logits, atol=atol, rtol=1e-4)
    token = jnp.argmax(logits, axis=-1).astype(jnp.int32)
