"""Layers of one shape, stacked on a leading axis and scanned: the encoder and every decoder."""

import copy
import dataclasses
import functools
import operator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from flan_jax.models.attention import Attention, RelativeBias
from flan_jax.models.config import TransformerConfig
from flan_jax.models.keys import Rngs
from flan_jax.models.kv_cache import from_cache, to_cache
from flan_jax.models.layers import Norm, drop, dropout_scales
from flan_jax.models.mlp import Mlp
from flan_jax.models.one_by_one import layers_of
from flan_jax.models.rope import Rotation
from flan_jax.models.tiled_attention import KEPT, tile_for
from flan_jax.partitioning import on_one_cpu, shard

_policies = jax.checkpoint_policies
_REMAT = {
  'minimal': _policies.save_from_both_policies(
    _policies.dots_with_no_batch_dims_saveable, _policies.save_only_these_names(KEPT)
  ),
  'full': _policies.nothing_saveable,
}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Context:
  """What every layer of a stack reads beside its input.

  Attributes:
    mask: bool [batch, length, kv_length] of self-attention in global layers.
    local_mask: the same in local layers; None where the stack has none.
    positions: of queries [length] and keys [kv_length] along the row, for a relative bias.
    bias: what is added to scores where the stack shares it, see dot_product.attend; or None.
    rotation, local_rotation: of the queries' positions in global and in local layers, or None.
    encoded: [batch, encoder_length, embed] for cross attention; None in the encoder and where
      the cache has its keys already.
    cross_mask: bool [batch, length, encoder_length], or None without cross attention.
    slot: where a decoding step writes into the cache, or None.
  """

  mask: jax.Array
  local_mask: Any = None
  positions: Any = None
  bias: jax.Array | None = None
  rotation: Rotation | None = None
  local_rotation: Rotation | None = None
  encoded: Any = None
  cross_mask: Any = None
  slot: Any = None

  def of_layer(self, is_local: jax.Array | None) -> 'Context':
    """The context in which `mask` and `rotation` are one layer's own; `is_local` is a bool."""
    if is_local is None:
      return self
    choose = functools.partial(jnp.where, is_local)
    rotation = jax.tree.map(choose, self.local_rotation, self.rotation)
    return dataclasses.replace(
      self, mask=choose(self.local_mask, self.mask), rotation=rotation, local_rotation=None
    )


def _tile(config, cache, x: jax.Array, keys: jax.Array) -> int | None:
  """Of `tile_for`; None beside a cache, of whose slots a query may see some that lie apart."""
  return None if cache is not None else tile_for(config, x.shape[1], keys.shape[1])


def _bias(relative_bias: RelativeBias, context: Context, tile: int | None) -> jax.Array:
  return relative_bias.tiles(tile) if tile else relative_bias(*context.positions)


class Layer(nnx.Module):
  """Self-attention, with an encoder cross attention, and the feed-forward layer, each residual."""

  def __init__(self, config: TransformerConfig, rngs: Rngs, *, cross: bool, causal: bool):
    self.attention_norm = Norm(config, rngs)
    self.attention = Attention(config, rngs)
    if config.position == 'relative_bias' and config.relative_bias_per_layer:
      self.relative_bias = RelativeBias(config, rngs, bidirectional=not causal)
    if cross:
      self.cross_norm = Norm(config, rngs)
      self.cross_attention = Attention(config, rngs)
    if not config.parallel_block:
      self.mlp_norm = Norm(config, rngs)
    self.mlp = Mlp(config, rngs)
    if config.post_norms:
      self.post_attention_norm = Norm(config, rngs)
      self.post_mlp_norm = Norm(config, rngs)
    self.config = config
    self.cross = cross
    self.causal = causal

  def __call__(self, x, context: Context, cache=None, dropout_key=None):
    """[batch, length, embed] -> the same, and the keys and values that a cache is to hold."""
    config = self.config
    scales = self._dropout_scales(dropout_key, x, context)
    normed = self.attention_norm(x)
    key, value = self.attention.project_kv(normed, context.rotation)
    kv = {'key': to_cache(key), 'value': to_cache(value)}
    if cache is not None:
      at = (0, 0, 0, context.slot)
      kv = {name: jax.lax.dynamic_update_slice(cache[name], kv[name], at) for name in kv}
      key, value = from_cache(kv['key']), from_cache(kv['value'])
    tile = _tile(config, cache, x, x)
    bias = context.bias
    if config.position == 'relative_bias' and config.relative_bias_per_layer:
      bias = _bias(self.relative_bias, context, tile)
    y = self.attention(
      normed,
      key,
      value,
      context.mask,
      bias,
      scales['attention'],
      context.rotation,
      causal=self.causal and cache is None and not config.prefix_lm,
      tile=tile,
    )
    if config.post_norms:
      y = self.post_attention_norm(y)
    x = x + drop(y, scales['attention_output'])
    if self.cross:
      x = x + drop(self._attend_across(x, context, cache, scales), scales['cross_output'])
    y = self.mlp(normed if config.parallel_block else self.mlp_norm(x), scales['mlp'])
    if config.post_norms:
      y = self.post_mlp_norm(y)
    return x + drop(y, scales['mlp_output']), kv

  def _attend_across(self, x, context, cache, scales):
    if cache is None:
      key, value = self.cross_attention.project_kv(context.encoded)
    else:
      key, value = from_cache(cache['cross_key']), from_cache(cache['cross_value'])
    tile = _tile(self.config, cache, x, key)
    y, mask = self.cross_norm(x), context.cross_mask
    return self.cross_attention(y, key, value, mask, scale=scales['cross'], tile=tile)

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
  """Layers, their parameters stacked on a leading `layers` axis, and a final norm.

  `layers` is one Layer of stacked parameters; of what `unstacked` returns, a list of each.
  """

  def __init__(self, config, rngs: Rngs, *, num_layers: int, cross: bool, causal: bool):
    make_layers = jax.vmap(functools.partial(Layer, config, cross=cross, causal=causal))
    self.layers: Any = make_layers(rngs.split(num_layers))
    if config.position == 'relative_bias' and not config.relative_bias_per_layer:
      self.relative_bias = RelativeBias(config, rngs, bidirectional=not causal)
    self.norm = Norm(config, rngs)
    self.num_layers = num_layers
    self.config = config

  def __call__(self, x, context: Context, *, cache=None, layer_keys=None, keep_kv=False) -> Any:
    """Takes [batch, length, embed] through the layers and the norm.

    Returns:
      The same shape, and {'key', 'value'} [layers, batch, kv_heads, head_dim, slots] for a cache,
      if there is one or `keep_kv`; else None. Where layers are unstacked, so are the arrays of the
      cache, those returned too: a tuple of one for each layer.
    """
    config = self.config
    if config.position == 'relative_bias' and not config.relative_bias_per_layer:
      tile = _tile(config, cache, x, x)
      bias = _bias(self.relative_bias, context, tile)
      context = dataclasses.replace(context, bias=bias)
    keep_kv = keep_kv or cache is not None

    def body(x, inputs):
      layer, is_local, layer_cache, layer_key = inputs
      x = shard(x, 'batch', 'length', 'act_embed')
      x, kv = layer(x, context.of_layer(is_local), layer_cache, layer_key)
      # What the backward pass keeps of each layer: no two chips hold the same.
      return shard(x, 'batch', 'length', 'act_carry'), kv if keep_kv else None

    if config.remat != 'none' and cache is None:
      body = jax.checkpoint(body, policy=_REMAT[config.remat])
    is_local = None
    if context.local_mask is not None:
      is_local = jnp.asarray(config.local_layers(self.num_layers))
    if isinstance(self.layers, nnx.List):
      x, kv = _each(body, x, self.layers, [is_local, cache, layer_keys])
      kv = jax.tree.map(lambda *layers: layers, *kv)
    else:
      x = shard(x, 'batch', 'length', 'act_carry')
      if cache is None and not config.scan_layers and on_one_cpu():
        layers = layers_of(self.layers, self.num_layers)
        x, kv = _each(body, x, layers, [is_local, cache, layer_keys])
        kv = jax.tree.map(lambda *layers: jnp.stack(layers), *kv)
      else:
        unroll = 1 if config.scan_layers else self.num_layers
        inputs = (self.layers, is_local, cache, layer_keys)
        x, kv = jax.lax.scan(body, x, inputs, unroll=unroll)
    return self.norm(shard(x, 'batch', 'length', 'act_embed')), kv

  def unstacked(self) -> 'Stack':
    """The same stack with a copy of each layer's parameters, for a loop that reads them often."""
    if isinstance(self.layers, nnx.List):
      return self
    stack = copy.copy(self)
    stack.layers = nnx.List(layers_of(self.layers, self.num_layers))
    return stack


def _each(body, x, layers, others):
  """What a scan of layers that lie apart would do; a list of the second result of each."""
  body, results = jax.jit(body), []  # so that it is traced once
  for i, layer in enumerate(layers):
    take = operator.itemgetter(i)  # of arrays, and of tuples with an array for each layer
    of_layer = jax.tree.map(take, others, is_leaf=lambda x: isinstance(x, tuple))
    x, result = body(x, (layer, *of_layer))
    results.append(result)
  return x, results
