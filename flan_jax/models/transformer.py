"""The encoder-decoder Transformer: layers stacked on a leading axis, scanned, decoded with a cache.

A model is a pytree of its parameters, and its methods are pure functions of them and the batch;
losses, optimizers and search are elsewhere.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from flan_jax.models.attention import Attention, RelativeBias, attention_mask
from flan_jax.models.config import TransformerConfig
from flan_jax.models.kv_cache import KVCache
from flan_jax.models.layers import (
  Embedding,
  Mlp,
  RMSNorm,
  drop,
  dropout_scales,
  parameter,
  product,
  truncated_normal,
)
from flan_jax.partitioning import out, shard, whole

# Logit of the rows that only pad the vocabulary. Finite, so that 0 x it is 0 in a loss.
UNUSED_LOGIT = -1e9

_REMAT = {
  'minimal': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
  'full': jax.checkpoint_policies.nothing_saveable,
}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Context:
  """What every layer of a stack reads beside its input.

  Attributes:
    mask, bias: of self-attention, as `Attention` takes them.
    encoded: [batch, encoder_length, embed] for cross attention; None in the encoder and where
      the cache has its keys already.
    cross_mask: bool [batch, length, encoder_length], or None in the encoder.
    position: where decode_step writes into the cache, or None.
  """

  mask: jax.Array
  bias: jax.Array
  encoded: Any = None
  cross_mask: Any = None
  position: Any = None


class Layer(nnx.Module):
  """Self-attention, in the decoder cross attention, and the feed-forward layer, each residual."""

  def __init__(self, config: TransformerConfig, rngs: nnx.Rngs, *, cross: bool):
    self.attention_norm = RMSNorm(config.embed_dim, rngs)
    self.attention = Attention(config, rngs)
    if cross:
      self.cross_norm = RMSNorm(config.embed_dim, rngs)
      self.cross_attention = Attention(config, rngs)
    self.mlp_norm = RMSNorm(config.embed_dim, rngs)
    self.mlp = Mlp(config, rngs)
    self.config = config
    self.cross = cross

  def __call__(self, x, context: Context, cache=None, dropout_key=None):
    """[batch, length, embed] -> the same, and this layer's part of the cache or None."""
    scales = self._dropout_scales(dropout_key, x, context)
    y = self.attention_norm(x)
    key, value = self.attention.project_kv(y)
    if cache is not None:
      at = (0, context.position, 0, 0)
      key = jax.lax.dynamic_update_slice(cache['key'], key, at)
      value = jax.lax.dynamic_update_slice(cache['value'], value, at)
    y = self.attention(y, key, value, context.mask, context.bias, scales['attention'])
    x = x + drop(y, scales['attention_output'])
    if self.cross:
      if cache is None:
        cross_key, cross_value = self.cross_attention.project_kv(context.encoded)
      else:
        cross_key, cross_value = cache['cross_key'], cache['cross_value']
      y = self.cross_norm(x)
      mask, scale = context.cross_mask, scales['cross']
      y = self.cross_attention(y, cross_key, cross_value, mask, scale=scale)
      x = x + drop(y, scales['cross_output'])
    y = self.mlp(self.mlp_norm(x), scales['mlp'])
    x = x + drop(y, scales['mlp_output'])
    return x, None if cache is None else {'key': key, 'value': value}

  def _dropout_scales(self, dropout_key, x, context):
    rows, _, embed = x.shape
    heads = self.config.num_heads
    shapes = {
      'attention': (heads, 1, context.mask.shape[-1]),
      'attention_output': (1, embed),
      'mlp': (1, self.config.mlp_dim),
      'mlp_output': (1, embed),
    }
    if self.cross:
      shapes |= {'cross': (heads, 1, context.cross_mask.shape[-1]), 'cross_output': (1, embed)}
    return dropout_scales(dropout_key, self.config.dropout_rate, rows, shapes)


class Stack(nnx.Module):
  """Layers of one shape, their parameters stacked on a leading `layers` axis, and a final norm."""

  def __init__(self, config, rngs: nnx.Rngs, *, num_layers: int, cross: bool):
    make_layers = jax.vmap(functools.partial(Layer, config, cross=cross))
    self.layers = make_layers(rngs.split(num_layers))
    self.relative_bias = RelativeBias(config, rngs, bidirectional=not cross)
    self.norm = RMSNorm(config.embed_dim, rngs)
    self.num_layers = num_layers
    self.config = config

  def __call__(self, x, context: Context, *, cache=None, layer_keys=None):
    """[batch, length, embed] -> the same, normalised, and the layers' new cache or None."""

    def body(x, inputs):
      layer, layer_cache, layer_key = inputs
      return layer(x, context, layer_cache, layer_key)

    if self.config.remat != 'none' and cache is None:
      body = jax.checkpoint(body, policy=_REMAT[self.config.remat])
    inputs = (self.layers, cache, layer_keys)
    unroll = 1 if self.config.scan_layers else self.num_layers
    x, cache = jax.lax.scan(body, x, inputs, unroll=unroll)
    return self.norm(x), cache


class Transformer(nnx.Module):
  """An encoder-decoder Transformer of the T5 family (arXiv:1910.10683, arXiv:2002.05202).

  Call it on a batch for logits; `encode`, `start_decoding` and `decode_step` go token by token.
  Dropout is on exactly when a dropout key is given: the module keeps no state.
  """

  def __init__(self, config: TransformerConfig, rngs: nnx.Rngs):
    self.token_embedding = Embedding(config, rngs)
    self.encoder = Stack(config, rngs, num_layers=config.num_encoder_layers, cross=False)
    self.decoder = Stack(config, rngs, num_layers=config.num_decoder_layers, cross=True)
    if not config.tie_embeddings:
      shape = (config.embed_dim, config.padded_vocab_size)
      init = truncated_normal(config.embed_dim**-0.5)
      self.logits_kernel = parameter(rngs, init, shape, ('embed', 'vocab'))
    self.config = config

  def __call__(self, batch: dict, *, dropout_key: jax.Array | None = None) -> jax.Array:
    """Teacher-forced logits, float32 [batch, length, padded_vocab_size]."""
    encoder_key = decoder_key = None
    if dropout_key is not None:
      encoder_key, decoder_key = jax.random.split(dropout_key)
    encoded = self.encode(batch, dropout_key=encoder_key)
    segment_ids = batch['decoder_segment_ids']
    positions = jnp.arange(segment_ids.shape[1])
    context = Context(
      mask=attention_mask(segment_ids, segment_ids, causal=True),
      bias=self.decoder.relative_bias(positions, positions),
      encoded=encoded,
      cross_mask=attention_mask(segment_ids, batch['encoder_segment_ids']),
    )
    tokens = batch['decoder_input_tokens']
    ends = {'embedded': (1, self.config.embed_dim), 'output': (1, self.config.embed_dim)}
    return self._logits(self._run(self.decoder, tokens, context, ends, decoder_key))

  def encode(self, batch: dict, *, dropout_key: jax.Array | None = None) -> jax.Array:
    """The encoder's output, [batch, encoder_length, embed] in the compute dtype."""
    segment_ids = batch['encoder_segment_ids']
    positions = jnp.arange(segment_ids.shape[1])
    context = Context(
      mask=attention_mask(segment_ids, segment_ids),
      bias=self.encoder.relative_bias(positions, positions),
    )
    tokens = batch['encoder_input_tokens']
    # Unlike every other dropout of T5X's, the last one drops each position on its own.
    embed = self.config.embed_dim
    ends = {'embedded': (1, embed), 'output': (tokens.shape[1], embed)}
    return self._run(self.encoder, tokens, context, ends, dropout_key)

  def start_decoding(
    self, encoded: jax.Array, encoder_segment_ids: jax.Array, max_length: int
  ) -> KVCache:
    """A cache with the cross keys and values of `encoded` and room for `max_length` tokens."""

    def project(layer):
      return layer.cross_attention.project_kv(encoded)

    cross_key, cross_value = jax.lax.map(project, self.decoder.layers)
    config = self.config
    shape = (config.num_decoder_layers, encoded.shape[0], max_length)
    shape += (config.kv_heads, config.head_dim)
    layout = out('layers', 'batch', 'kv_length', 'act_heads', None)
    empty = jnp.zeros(shape, config.dtype, out_sharding=layout)
    segment_ids = shard(encoder_segment_ids, 'batch', 'kv_length')
    position = jnp.zeros((), jnp.int32)
    return KVCache(empty, empty, cross_key, cross_value, segment_ids, position)

  def decode_step(self, tokens: jax.Array, cache: KVCache) -> tuple[jax.Array, KVCache]:
    """One more token of each row.

    Args:
      tokens: int32 [batch], the tokens at `cache.position`: first 0 (the start), then what was
        chosen. Calling it more than `cache.max_length` times overwrites the last position.
      cache: from `start_decoding` or the step before.

    Returns:
      Logits of the tokens that follow, float32 [batch, padded_vocab_size], and the new cache.
    """
    with whole('length'):  # here it is 1
      positions = jnp.arange(cache.max_length)
      context = Context(
        mask=(positions <= cache.position)[None, None, :],
        bias=self.decoder.relative_bias(cache.position[None], positions),
        cross_mask=(cache.encoder_segment_ids > 0)[:, None, :],
        position=cache.position,
      )
      names = ('key', 'value', 'cross_key', 'cross_value')
      layers = {name: getattr(cache, name) for name in names}
      x = self.token_embedding(tokens[:, None])
      x, updated = self.decoder(x, context, cache=layers)
      logits = jnp.squeeze(self._logits(x), axis=1)
    return logits, dataclasses.replace(cache, **updated, position=cache.position + 1)

  def _run(self, stack, tokens, context, ends, dropout_key):
    """Embeds tokens and takes them through a stack, with dropout of shapes `ends` around it."""
    ends_key = layer_keys = None
    if dropout_key is not None:
      keys = jax.random.split(dropout_key, 1 + stack.num_layers)
      ends_key, layer_keys = keys[0], keys[1:]
    scales = dropout_scales(ends_key, self.config.dropout_rate, tokens.shape[0], ends)
    x = drop(self.token_embedding(tokens), scales['embedded'])
    x, _ = stack(x, context, layer_keys=layer_keys)
    return drop(x, scales['output'])

  def _logits(self, x):
    config = self.config
    if config.tie_embeddings:
      # T5 1.0 scales what meets the embedding, whose standard deviation is 1.
      x = x * config.embed_dim**-0.5
      table = self.token_embedding.table[...].astype(x.dtype)
      kernel = shard(table, 'vocab', 'act_embed').T
    else:
      kernel = shard(self.logits_kernel[...].astype(x.dtype), 'act_embed', 'vocab')
    logits = product(x, kernel, out('batch', 'length', 'act_vocab'), jnp.float32)
    if config.padded_vocab_size == config.vocab_size:
      return logits
    used = jnp.arange(config.padded_vocab_size) < config.vocab_size
    return jnp.where(used, logits, UNUSED_LOGIT)
