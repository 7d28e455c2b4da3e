"""The Transformer, with an encoder or without: teacher-forced logits, and decoding with a cache.

A model is a pytree of its parameters, and its methods are pure functions of them and the batch;
losses, optimizers and search are elsewhere.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from flan_jax.models.attention import attention_mask, kv_axes, within_window
from flan_jax.models.config import TransformerConfig
from flan_jax.models.kv_cache import KVCache
from flan_jax.models.layers import (
  Embedding,
  drop,
  dropout_scales,
  parameter,
  product,
  softcap,
  truncated_normal,
)
from flan_jax.models.rope import rotation
from flan_jax.models.stack import Context, Stack
from flan_jax.partitioning import out, shard, whole

# Logit of the rows that only pad the vocabulary. Finite, so that 0 x it is 0 in a loss.
UNUSED_LOGIT = -1e9


class Transformer(nnx.Module):
  """An encoder-decoder (arXiv:1910.10683) or a decoder that reads the inputs itself.

  Call it on a batch for logits; `start_decoding` and `decode_step` go token by token. Dropout is
  on exactly when a dropout key is given: the module keeps no state.
  """

  def __init__(self, config: TransformerConfig, rngs: nnx.Rngs):
    self.token_embedding = Embedding(config, rngs)
    cross = not config.decoder_only
    if cross:
      layers = config.num_encoder_layers
      self.encoder = Stack(config, rngs, num_layers=layers, cross=False, causal=False)
    layers = config.num_decoder_layers
    self.decoder = Stack(config, rngs, num_layers=layers, cross=cross, causal=True)
    if not config.tie_embeddings:
      shape = (config.embed_dim, config.padded_vocab_size)
      init = truncated_normal(config.embed_dim**-0.5)
      self.logits_kernel = parameter(rngs, init, shape, ('embed', 'vocab'))
    self.config = config

  def __call__(self, batch: dict, *, dropout_key: jax.Array | None = None) -> jax.Array:
    """Teacher-forced logits, float32 [batch, length, padded_vocab_size].

    Args:
      batch: features as data/features.py describes them: encoder_* (with an encoder only),
        decoder_input_tokens, decoder_segment_ids, decoder_positions, and decoder_prefix for a
        prefix-LM, each [batch, length].
      dropout_key: PRNG key, or None for no dropout.
    """
    encoder_key = decoder_key = None
    if dropout_key is not None:
      encoder_key, decoder_key = jax.random.split(dropout_key)
    context = self._decoder_context(batch)
    if not self.config.decoder_only:
      cross_mask = attention_mask(batch['decoder_segment_ids'], batch['encoder_segment_ids'])
      encoded = self.encode(batch, dropout_key=encoder_key)
      context = dataclasses.replace(context, encoded=encoded, cross_mask=cross_mask)
    tokens = batch['decoder_input_tokens']
    ends = {'embedded': (1, self.config.embed_dim), 'output': (1, self.config.embed_dim)}
    return self._logits(self._run(self.decoder, tokens, context, ends, decoder_key))

  def encode(self, batch: dict, *, dropout_key: jax.Array | None = None) -> jax.Array:
    """The encoder's output, [batch, encoder_length, embed] in the compute dtype."""
    segment_ids = batch['encoder_segment_ids']
    mask = attention_mask(segment_ids, segment_ids)
    context = self._context(mask, batch.get('encoder_positions'), segment_ids)
    tokens = batch['encoder_input_tokens']
    # Unlike every other dropout of T5X's, the last one drops each position on its own.
    embed = self.config.embed_dim
    ends = {'embedded': (1, embed), 'output': (tokens.shape[1], embed)}
    return self._run(self.encoder, tokens, context, ends, dropout_key)

  def start_decoding(
    self, tokens: jax.Array, segment_ids: jax.Array, *, max_length: int
  ) -> KVCache:
    """Reads the prompts once.

    Args:
      tokens: int32 [batch, length], one prompt a row, padded at the end.
      segment_ids: int32 [batch, length], 1 for tokens and 0 for padding.
      max_length: most tokens of an answer.

    Returns:
      A cache with room for `max_length` tokens.
    """
    if self.config.decoder_only:
      return self._read_prompts(tokens, segment_ids, max_length)
    encoded = self.encode({'encoder_input_tokens': tokens, 'encoder_segment_ids': segment_ids})

    def project(layer):
      return layer.cross_attention.project_kv(encoded)

    cross_key, cross_value = jax.lax.map(project, self.decoder.layers)
    empty = self._empty_slots(tokens.shape[0], max_length)
    return KVCache(
      key=empty,
      value=empty,
      position=jnp.zeros((), jnp.int32),
      cross_key=cross_key,
      cross_value=cross_value,
      encoder_segment_ids=shard(segment_ids, 'batch', 'kv_length'),
      max_length=max_length,
    )

  def decode_step(self, tokens: jax.Array, cache: KVCache) -> tuple[jax.Array, KVCache]:
    """One more token of each row.

    Args:
      tokens: int32 [batch], what was chosen last; at first 0, in place of which a decoder without
        encoder reads the last token of the prompt. Calling it more than `cache.max_length` times
        overwrites the last position.
      cache: from `start_decoding` or the step before.

    Returns:
      Logits of the tokens that follow, float32 [batch, padded_vocab_size], and the new cache.
    """
    with whole('length'):  # here it is 1
      if cache.first_tokens is not None:
        tokens = jnp.where(cache.position == 0, cache.first_tokens, tokens)
      context = self._step_context(cache)
      names = ('key', 'value', 'cross_key', 'cross_value')
      layers = {name: getattr(cache, name) for name in names}
      x = self.token_embedding(tokens[:, None])
      x, updated = self.decoder(x, context, cache=layers)
      logits = jnp.squeeze(self._logits(x), axis=1)
    return logits, dataclasses.replace(cache, **updated, position=cache.position + 1)

  def _context(self, mask, positions, segment_ids) -> Context:
    """The context of self-attention along whole rows, each token at `positions` of its example."""
    along = jnp.arange(segment_ids.shape[1])
    if positions is None:  # one example a row
      positions = shard(jnp.broadcast_to(along, segment_ids.shape), 'batch', 'length')
    return self._with_positions(Context(mask=mask, positions=(along, along)), positions, positions)

  def _with_positions(self, context, positions, kv_positions) -> Context:
    """Adds what depends on the positions [batch, length] of queries and of keys."""
    config = self.config
    if config.position == 'rope':
      context = dataclasses.replace(
        context,
        rotation=rotation(positions, config),
        local_rotation=rotation(positions, config, local=True),
      )
    if 'local' in config.window_pattern:
      near = within_window(positions, kv_positions, config.window or 0)
      context = dataclasses.replace(context, local_mask=context.mask & near)
    return context

  def _decoder_context(self, batch) -> Context:
    segment_ids = batch['decoder_segment_ids']
    prefix = batch['decoder_prefix'] > 0 if self.config.prefix_lm else None
    mask = attention_mask(segment_ids, segment_ids, causal=True, prefix=prefix)
    return self._context(mask, batch.get('decoder_positions'), segment_ids)

  def _step_context(self, cache) -> Context:
    """The context of one token of each row, at slot `position` of the answers."""
    prompts, lengths = cache.prompt_slots, cache.prompt_lengths
    slots = jnp.arange(cache.key.shape[2])
    seen = ((slots >= prompts) & (slots <= prompts + cache.position))[None, None, :]
    context = Context(
      mask=seen, positions=(cache.position[None], slots), slot=prompts + cache.position
    )
    rows = cache.key.shape[1]
    if cache.encoder_segment_ids is not None:
      cross_mask = (cache.encoder_segment_ids > 0)[:, None, :]
      context = dataclasses.replace(context, cross_mask=cross_mask)
      first = shard(jnp.zeros(rows, jnp.int32), 'batch')
    else:
      # The last token of the prompt is read again, as the first of the answer's slots.
      first = jnp.maximum(lengths - 1, 0)
      context = dataclasses.replace(context, mask=seen | (slots < first[:, None])[:, None, :])
    positions = first[:, None] + cache.position
    kv_positions = jnp.where(slots < prompts, slots, first[:, None] + slots - prompts)
    return self._with_positions(context, positions, kv_positions)

  def _read_prompts(self, tokens, segment_ids, max_length) -> KVCache:
    """The cache of a decoder without encoder after the prompts but for their last token."""
    prefix = segment_ids > 0 if self.config.prefix_lm else None
    mask = attention_mask(segment_ids, segment_ids, causal=True, prefix=prefix)
    context = self._context(mask, None, segment_ids)
    x = self.token_embedding(tokens)
    _, kv = self.decoder(x, context, keep_kv=True)
    empty = self._empty_slots(tokens.shape[0], max_length)
    lengths = jnp.sum(segment_ids > 0, axis=1, dtype=jnp.int32)
    is_last = jnp.arange(tokens.shape[1]) == lengths[:, None] - 1
    return KVCache(
      key=jnp.concatenate([kv['key'], empty], axis=2),
      value=jnp.concatenate([kv['value'], empty], axis=2),
      position=jnp.zeros((), jnp.int32),
      prompt_lengths=shard(lengths, 'batch'),
      first_tokens=shard(jnp.sum(jnp.where(is_last, tokens, 0), axis=1), 'batch'),
      max_length=max_length,
    )

  def _empty_slots(self, rows, slots):
    config = self.config
    shape = (config.num_decoder_layers, rows, slots, config.kv_heads, config.head_dim)
    return jnp.zeros(shape, config.dtype, out_sharding=out('layers', *kv_axes(config)))

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
      if config.scale_tied_logits:
        # For what meets an embedding whose standard deviation is 1.
        x = x * config.embed_dim**-0.5
      table = self.token_embedding.table[...].astype(x.dtype)
      kernel = shard(table, 'vocab', 'act_embed').T
    else:
      kernel = shard(self.logits_kernel[...].astype(x.dtype), 'act_embed', 'vocab')
    logits = product(x, kernel, out('batch', 'length', 'act_vocab'), jnp.float32)
    logits = softcap(logits, config.logits_softcap)
    if config.padded_vocab_size == config.vocab_size:
      return logits
    used = jnp.arange(config.padded_vocab_size) < config.vocab_size
    return jnp.where(used, logits, UNUSED_LOGIT)
