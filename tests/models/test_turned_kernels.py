"""A model with its kernels turned around for the steps of decoding is the same model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flan_jax.models.config import Lora, TransformerConfig
from flan_jax.models.transformer import Transformer

SIZES = dict(vocab_size=50, embed_dim=16, num_heads=4, head_dim=8, mlp_dim=24, dtype='float32')
MODELS = {
  'encoder_decoder': dict(num_encoder_layers=2, num_decoder_layers=2),
  'tied': dict(num_encoder_layers=1, num_decoder_layers=2, tie_embeddings=True),
  'shared_heads': dict(
    num_encoder_layers=0, num_decoder_layers=2, num_kv_heads=2, position='rope', qkv_bias=True
  ),
  'adapters': dict(num_encoder_layers=1, num_decoder_layers=2, lora=Lora(rank=2, alpha=4.0)),
}


@pytest.mark.parametrize('name', MODELS)
def test_steps_of_decoding_give_the_same_logits(name):
  config = TransformerConfig(**SIZES, **MODELS[name])
  model = Transformer(config, nnx.Rngs(params=0))
  # Adapters begin as nothing.
  model = jax.tree.map(lambda x: x + 0.1 * jnp.cos(jnp.arange(x.size)).reshape(x.shape), model)
  prompts = jnp.asarray(np.random.default_rng(0).integers(2, 50, (3, 7)), jnp.int32)
  cache = model.start_decoding(prompts, jnp.ones_like(prompts), max_length=4)
  turned, turned_cache = model.unstacked(cache)
  assert turned.turned and not model.turned
  token = jnp.zeros(3, jnp.int32)
  for _ in range(3):
    logits, cache = model.decode_step(token, cache)
    found, turned_cache = turned.decode_step(token, turned_cache)
    np.testing.assert_allclose(found, logits, atol=1e-4, rtol=1e-4)
    token = jnp.argmax(logits, axis=-1).astype(jnp.int32)
