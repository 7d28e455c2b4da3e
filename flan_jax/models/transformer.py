"""The Transformer, with an encoder or without: teacher-forced logits, and decoding with a cache.

A model is a pytree of its parameters, and its methods are pure functions of them and the batch;
losses, optimizers and search are elsewhere.
"""

import copy
import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from flan_jax.models.attention import attention_mask, kv_axes, within_window
from flan_jax.models.config import TransformerConfig
from flan_jax.models.head import Head
from flan_jax.models.keys import Keys
from flan_jax.models.kv_cache import SLOT_AXIS, KVCache, Prefix, to_cache
from flan_jax.models.layers import (
  Embedding,
  drop,
  dropout_scales,
  parameter,
  truncated_normal,
)
from flan_jax.models.lora import for_steps
from flan_jax.models.rope import rotation
from flan_jax.models.stack import Context, Stack
from flan_jax.partitioning import abstract, layout, on_one_cpu, out, platform, shard, whole


class Transformer(nnx.Module):
  """An encoder-decoder (arXiv:1910.10683) or a decoder that reads the inputs itself.

  Call it on a batch for logits; `start_decoding` and `decode_step` go token by token. Dropout is
  on exactly when a dropout key is given: the module keeps no state.
  """

  turned = False  # whether kernels are [*outer, *inner], see `unstacked`

  def __init__(self, config: TransformerConfig, rngs: nnx.Rngs):
    keys = Keys.of(rngs)
    self.token_embedding = Embedding(config, keys)
    cross = not config.decoder_only
    if cross:
      layers = config.num_encoder_layers
      self.encoder = Stack(config, keys, num_layers=layers, cross=False, causal=False)
    layers = config.num_decoder_layers
    self.decoder = Stack(config, keys, num_layers=layers, cross=cross, causal=True)
    if not config.tie_embeddings:
      shape = (config.embed_dim, config.padded_vocab_size)
      init = truncated_normal(config.embed_dim**-0.5)
      self.logits_kernel = parameter(keys, init, shape, ('embed', 'vocab'))
    self.config = config

  def __call__(self, batch: dict, *, dropout_key: jax.Array | None = None) -> jax.Array:
    """Teacher-forced logits, float32 [batch, length, padded_vocab_size]; see `hidden`."""
    return self.head()(self.hidden(batch, dropout_key=dropout_key))

  def hidden(self, batch: dict, *, dropout_key: jax.Array | None = None) -> jax.Array:
    """What `head` makes the logits of, teacher-forced: [batch, length, embed], compute dtype.

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
    return self._scaled(self._run(self.decoder, tokens, context, ends, decoder_key))

  def head(self) -> Head:
    """Makes the logits of `hidden`."""
    config, axes = self.config, ('vocab', 'act_embed')
    if config.tie_embeddings:
      kernel = shard(self.token_embedding.table[...].astype(config.dtype), *axes)
      kernel = kernel if self.turned else kernel.T
    else:
      axes = axes if self.turned else axes[::-1]
      kernel = shard(self.logits_kernel[...].astype(config.dtype), *axes)
    return Head(kernel, config.vocab_size, config.logits_softcap, self.turned)

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

  def read_prefix(self, tokens: jax.Array) -> Prefix:
    """Reads what several prompts begin with, int32 [length], for `start_decoding`.

    Raises:
      ValueError: the model has an encoder or a bidirectional prefix, so that what is read first
        depends on what follows.
    """
    if not self.config.decoder_only or self.config.prefix_lm:
      kind = 'prefix-LM' if self.config.decoder_only else 'encoder-decoder'
      raise ValueError(f'The {kind} reads its prompts whole; read_prefix is for causal decoders.')
    with whole('batch'):  # one row, which no axis of the mesh can split
      segment_ids = shard(jnp.ones((1, len(tokens)), jnp.int32), 'batch', 'length')
      mask = attention_mask(segment_ids, segment_ids, causal=True)
      context = self._context(mask, None, segment_ids)
      _, kv = self.decoder(self.token_embedding(tokens[None]), context, keep_kv=True)
    return Prefix(tokens, kv['key'], kv['value'])

  def start_decoding(
    self,
    tokens: jax.Array,
    segment_ids: jax.Array,
    *,
    max_length: int,
    prefix: Prefix | None = None,
  ) -> KVCache:
    """Reads the prompts once.

    Args:
      tokens: int32 [batch, length], one prompt a row, padded at the end.
      segment_ids: int32 [batch, length], 1 for tokens and 0 for padding.
      max_length: most tokens of an answer.
      prefix: what all prompts begin with, of which `tokens` are then the rest, one or more each.

    Returns:
      A cache with room for `max_length` tokens.
    """
    if self.config.decoder_only:
      return self._read_prompts(tokens, segment_ids, max_length, prefix)
    features = {'encoder_input_tokens': tokens, 'encoder_segment_ids': segment_ids}
    encoded = self.encode(features)

    def project(layer):
      return jax.tree.map(to_cache, layer.cross_attention.project_kv(encoded))

    if self._reads_layers_apart():
      layers = self.decoder.unstacked().layers
      if on_one_cpu():  # keys and values come out as the cache has them, each slot beside the next
        layers = [for_steps(layer, self.config.dtype, turn=True) for layer in layers]
      cross_key, cross_value = zip(*map(project, layers), strict=True)
    else:
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

  def unstacked(self, cache: KVCache) -> tuple['Transformer', KVCache]:
    """The model and a cache as many steps read them fastest.

    A step that reads one layer after the other out of stacked arrays copies each: as much memory
    traffic again as decoding needs. So they are copied once, before the first step, in the dtype of
    products; but not on TPUs where `scan_layers` says that compiling one layer matters more. On one
    CPU kernels are turned around as well, for products with a few rows.
    """
    if not self._reads_layers_apart():
      return self, cache
    model, dtype = copy.copy(self), self.config.dtype
    model.turned = on_one_cpu()
    model.decoder = self.decoder.unstacked()
    model.decoder.layers = nnx.List(
      for_steps(layer, dtype, turn=model.turned) for layer in model.decoder.layers
    )
    if not self.config.tie_embeddings:
      kernel = self.logits_kernel[...].astype(dtype)
      model.logits_kernel = nnx.Param(kernel.T if model.turned else kernel)
    return model, cache.unstacked()

  def _reads_layers_apart(self) -> bool:
    return not self.config.scan_layers or platform() != 'tpu'

  def decode_step(self, tokens: jax.Array, cache: KVCache) -> tuple[jax.Array, KVCache]:
    """One more token of each row: `decode_block` of int32 [batch], logits [batch, vocab]."""
    logits, cache = self.decode_block(tokens[:, None], cache)
    return jnp.squeeze(logits, axis=1), cache

  def decode_block(self, tokens: jax.Array, cache: KVCache) -> tuple[jax.Array, KVCache]:
    """Some more tokens of each row at once.

    Args:
      tokens: int32 [batch, length], what was chosen last; the very first is 0, in place of which a
        decoder without encoder reads the last token of the prompt. Reading more than
        `cache.max_length` tokens in all overwrites the last position.
      cache: from `start_decoding` or the block before.

    Returns:
      Logits of the tokens that follow each, float32 [batch, length, padded_vocab_size], and the
      new cache.
    """
    hidden, cache = self.hidden_block(tokens, cache)
    with whole('length'):
      return self.head()(hidden), cache

  def hidden_block(self, tokens: jax.Array, cache: KVCache) -> tuple[jax.Array, KVCache]:
    """`decode_block`, but with what `head` makes logits of: [batch, length, embed]."""
    length = tokens.shape[1]
    with whole('length'):  # short, often 1
      if cache.first_tokens is not None:
        is_first = (cache.position == 0) & (jnp.arange(length) == 0)
        tokens = jnp.where(is_first, cache.first_tokens[:, None], tokens)
      context = self._block_context(cache, length)
      x = self.token_embedding(tokens)
      decoder = self.decoder.unstacked() if isinstance(cache.cross_key, tuple) else self.decoder
      x, updated = decoder(x, context, cache=cache.of_layers)
      hidden = self._scaled(x)
    return hidden, dataclasses.replace(cache, **updated, position=cache.position + length)

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
      context = dataclasses.replace(context, rotation=rotation(positions, config))
    if 'local' in config.window_pattern:
      near = within_window(positions, kv_positions, config.window or 0)
      context = dataclasses.replace(context, local_mask=context.mask & near)
      if config.position == 'rope':
        local = rotation(positions, config, local=True)
        context = dataclasses.replace(context, local_rotation=local)
    return context

  def _decoder_context(self, batch) -> Context:
    segment_ids = batch['decoder_segment_ids']
    prefix = batch['decoder_prefix'] > 0 if self.config.prefix_lm else None
    mask = attention_mask(segment_ids, segment_ids, causal=True, prefix=prefix)
    return self._context(mask, batch.get('decoder_positions'), segment_ids)

  def _block_context(self, cache, length) -> Context:
    """The context of `length` tokens of each row, from slot `position` of the answers on."""
    prompts, lengths = cache.prompt_slots, cache.prompt_lengths
    slots = jnp.arange(cache.slots)
    steps = cache.position + jnp.arange(length)
    seen = ((slots >= prompts) & (slots <= prompts + steps[:, None]))[None]
    context = Context(mask=seen, positions=(steps, slots), slot=prompts + cache.position)
    if cache.encoder_segment_ids is not None:
      cross_mask = (cache.encoder_segment_ids > 0)[:, None, :]
      context = dataclasses.replace(context, cross_mask=cross_mask)
      first = shard(jnp.zeros(cache.rows, jnp.int32), 'batch')
    else:
      # The last token of the prompt is read again, as the first of the answer's slots.
      first = jnp.maximum(lengths - 1, 0)
      context = dataclasses.replace(context, mask=seen | (slots < first[:, None])[:, None, :])
    positions = first[:, None] + steps
    kv_positions = jnp.where(slots < prompts, slots, first[:, None] + slots - prompts)
    return self._with_positions(context, positions, kv_positions)

  def _read_prompts(self, tokens, segment_ids, max_length, prefix) -> KVCache:
    """The cache of a decoder without encoder after the prompts but for their last token."""
    lengths = jnp.sum(segment_ids > 0, axis=1, dtype=jnp.int32)
    is_last = jnp.arange(tokens.shape[1]) == lengths[:, None] - 1
    x = self.token_embedding(tokens)
    if prefix is None:
      seen = segment_ids > 0 if self.config.prefix_lm else None
      mask = attention_mask(segment_ids, segment_ids, causal=True, prefix=seen)
      _, kv = self.decoder(x, self._context(mask, None, segment_ids), keep_kv=True)
    else:
      lengths = lengths + len(prefix.tokens)
      _, kv = self._read_after(prefix, x, segment_ids)
    empty = self._empty_slots(tokens.shape[0], max_length)
    return KVCache(
      key=jnp.concatenate([kv['key'], empty], axis=SLOT_AXIS),
      value=jnp.concatenate([kv['value'], empty], axis=SLOT_AXIS),
      position=jnp.zeros((), jnp.int32),
      prompt_lengths=shard(lengths, 'batch'),
      first_tokens=shard(jnp.sum(jnp.where(is_last, tokens, 0), axis=1), 'batch'),
      max_length=max_length,
    )

  def _read_after(self, prefix, x, segment_ids):
    """Takes embedded tokens [batch, length, embed] that follow the prefix through the decoder."""
    before, (rows, length) = len(prefix.tokens), segment_ids.shape
    slots, steps = jnp.arange(before + length), before + jnp.arange(length)
    empty = self._empty_slots(rows, length)

    def fill(kv):
      shape = (kv.shape[0], rows, *kv.shape[2:])
      repeated = jnp.broadcast_to(kv, shape, out_sharding=layout(empty))
      return jnp.concatenate([repeated, empty], axis=SLOT_AXIS)

    # Rows are padded at the end, where the causal order hides it from what comes before.
    mask = (slots <= steps[:, None])[None] & (segment_ids > 0)[:, :, None]
    context = Context(mask=mask, positions=(steps, slots), slot=before)
    positions = shard(jnp.broadcast_to(steps, (rows, length)), 'batch', 'length')
    kv_positions = shard(jnp.broadcast_to(slots, (rows, before + length)), 'batch', 'kv_length')
    context = self._with_positions(context, positions, kv_positions)
    cache = {'key': fill(prefix.key), 'value': fill(prefix.value)}
    return self.decoder(x, context, cache=cache)

  def _empty_slots(self, rows, slots):
    config = self.config
    shape = (config.num_decoder_layers, rows, slots, config.kv_heads, config.head_dim)
    return to_cache(jnp.zeros(shape, config.dtype, out_sharding=out('layers', *kv_axes(config))))

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

  def _scaled(self, x):
    """For a tied head, which is an embedding whose standard deviation is 1."""
    config = self.config
    scaled = config.tie_embeddings and config.scale_tied_logits
    return x * config.embed_dim**-0.5 if scaled else x


def abstract_model(config: TransformerConfig) -> Transformer:
  """Shapes, dtypes and layouts on the current mesh of a model's parameters, without making them."""
  return abstract(lambda key: Transformer(config, nnx.Rngs(params=key)), jax.random.key(0))
