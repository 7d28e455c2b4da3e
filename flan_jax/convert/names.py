"""What other programs call our parameters and how they lay them out: one table for each family.

The tables are read in both directions. A `{}` in a name is the layer. A layout is written as
'theirs -> ours' with the letters of models/attention.py: n heads, k key/value heads, h head_dim,
d embed, f mlp, v vocabulary; r relative-position buckets; l layers, where one array holds them all;
c p the two halves of a head and the pairs that rope turns, c * p = h.
"""

import re
from typing import NamedTuple


class Place(NamedTuple):
  """Where a parameter lies in another program's checkpoint.

  Attributes:
    name: of the array.
    layout: 'theirs -> ours', axes in order; '(n h)' is one axis that runs over both.
    offset: what their numbers have more than ours.
  """

  name: str
  layout: str
  offset: float = 0.0


Table = dict[str, Place]


def _within(ours: str, theirs: str, table: Table) -> Table:
  """The table with both its sides one level further in."""
  return {
    f'{ours}.{path}': place._replace(name=f'{theirs}.{place.name}') for path, place in table.items()
  }


def _same(ours: str, theirs: str) -> Table:
  """A vector that both sides have in the same layout."""
  return {ours: Place(theirs, 'd -> d')}


_QUERY, _KV, _OUTPUT = '(n h) d -> d n h', '(k h) d -> d k h', 'd (n h) -> n h d'
_UP, _DOWN = 'f d -> d f', 'd f -> f d'
_EMBEDDING, _LOGITS = 'v d -> v d', 'v d -> d v'

# ---- Hugging Face: T5, mT5, ByT5, UMT5

_HF_T5_ATTENTION: Table = {
  'query': Place('q.weight', _QUERY),
  'key': Place('k.weight', _KV),
  'value': Place('v.weight', _KV),
  'output': Place('o.weight', _OUTPUT),
}
_HF_T5_MLP: Table = {
  'gate': Place('wi_0.weight', _UP),
  'up': Place('wi_1.weight', _UP),
  'down': Place('wo.weight', _DOWN),
}
_HF_T5_BIAS = '0.SelfAttention.relative_attention_bias.weight'


def _hf_t5_stack(stack: str, layer: Table) -> Table:
  bias = Place(_HF_T5_BIAS, 'r n -> n r')
  return {
    **_within(f'{stack}.layers', f'{stack}.block.{{}}.layer', layer),
    # The first layer holds the bias of all; UMT5's layers have one each.
    **_within(stack, f'{stack}.block.0.layer', {'relative_bias.table': bias}),
    **_within(f'{stack}.layers', f'{stack}.block.{{}}.layer', {'relative_bias.table': bias}),
    **_same(f'{stack}.norm.scale', f'{stack}.final_layer_norm.weight'),
  }


HF_T5: Table = {
  'token_embedding.table': Place('shared.weight', _EMBEDDING),
  **_hf_t5_stack(
    'encoder',
    {
      **_same('attention_norm.scale', '0.layer_norm.weight'),
      **_within('attention', '0.SelfAttention', _HF_T5_ATTENTION),
      **_same('mlp_norm.scale', '1.layer_norm.weight'),
      **_within('mlp', '1.DenseReluDense', _HF_T5_MLP),
    },
  ),
  **_hf_t5_stack(
    'decoder',
    {
      **_same('attention_norm.scale', '0.layer_norm.weight'),
      **_within('attention', '0.SelfAttention', _HF_T5_ATTENTION),
      **_same('cross_norm.scale', '1.layer_norm.weight'),
      **_within('cross_attention', '1.EncDecAttention', _HF_T5_ATTENTION),
      **_same('mlp_norm.scale', '2.layer_norm.weight'),
      **_within('mlp', '2.DenseReluDense', _HF_T5_MLP),
    },
  ),
  'logits_kernel': Place('lm_head.weight', _LOGITS),
}


def with_activation(table: Table, activation: str) -> Table:
  """The table of a model of T5's with this activation: without a gate, `wi` needs no number."""
  if activation.startswith('gated'):
    return table
  return {
    path: place._replace(name=place.name.replace('wi_1', 'wi')) for path, place in table.items()
  }


# ---- Hugging Face: decoders without an encoder


def _hf_decoder(norms: Table) -> Table:
  """Llama's names, which the others share but for those of the norms."""
  layer = {
    'attention.query': Place('self_attn.q_proj.weight', _QUERY),
    'attention.key': Place('self_attn.k_proj.weight', _KV),
    'attention.value': Place('self_attn.v_proj.weight', _KV),
    'attention.output': Place('self_attn.o_proj.weight', _OUTPUT),
    'mlp.gate': Place('mlp.gate_proj.weight', _UP),
    'mlp.up': Place('mlp.up_proj.weight', _UP),
    'mlp.down': Place('mlp.down_proj.weight', _DOWN),
  }
  return {
    'token_embedding.table': Place('model.embed_tokens.weight', _EMBEDDING),
    **_within('decoder.layers', 'model.layers.{}', layer | norms),
    **_same('decoder.norm.scale', 'model.norm.weight'),
    'logits_kernel': Place('lm_head.weight', _LOGITS),
  }


_HF_LLAMA_NORMS: Table = {
  **_same('attention_norm.scale', 'input_layernorm.weight'),
  **_same('mlp_norm.scale', 'post_attention_layernorm.weight'),
}
_HF_GEMMA_NORMS: Table = {
  **_same('attention_norm.scale', 'input_layernorm.weight'),
  **_same('post_attention_norm.scale', 'post_attention_layernorm.weight'),
  **_same('mlp_norm.scale', 'pre_feedforward_layernorm.weight'),
  **_same('post_mlp_norm.scale', 'post_feedforward_layernorm.weight'),
}
_HF_QK_NORMS: Table = {
  'attention.query_norm.scale': Place('self_attn.q_norm.weight', 'h -> h'),
  'attention.key_norm.scale': Place('self_attn.k_norm.weight', 'h -> h'),
}
_HF_QKV_BIASES: Table = {
  'attention.query_bias': Place('self_attn.q_proj.bias', '(n h) -> n h'),
  'attention.key_bias': Place('self_attn.k_proj.bias', '(k h) -> k h'),
  'attention.value_bias': Place('self_attn.v_proj.bias', '(k h) -> k h'),
}

HF_LLAMA = _hf_decoder(_HF_LLAMA_NORMS)
HF_QWEN2 = _hf_decoder(_HF_LLAMA_NORMS | _HF_QKV_BIASES)
HF_QWEN3 = _hf_decoder(_HF_LLAMA_NORMS | _HF_QK_NORMS)
HF_GEMMA2 = _hf_decoder(_HF_GEMMA_NORMS)
HF_GEMMA3 = _hf_decoder(_HF_GEMMA_NORMS | _HF_QK_NORMS)

# ---- T5X: layers one by one, or stacked by its scanned networks

_T5X_ATTENTION: Table = {
  'query': Place('query.kernel', 'd (n h) -> d n h'),
  'key': Place('key.kernel', 'd (k h) -> d k h'),
  'value': Place('value.kernel', 'd (k h) -> d k h'),
  'output': Place('out.kernel', '(n h) d -> n h d'),
}
_T5X_MLP: Table = {
  **_same('mlp_norm.scale', 'pre_mlp_layer_norm.scale'),
  'mlp.gate': Place('mlp.wi_0.kernel', 'd f -> d f'),
  'mlp.up': Place('mlp.wi_1.kernel', 'd f -> d f'),
  'mlp.down': Place('mlp.wo.kernel', 'f d -> f d'),
}
_T5X_ENCODER_LAYER: Table = {
  **_same('attention_norm.scale', 'pre_attention_layer_norm.scale'),
  **_within('attention', 'attention', _T5X_ATTENTION),
  **_T5X_MLP,
}
_T5X_DECODER_LAYER: Table = {
  **_same('attention_norm.scale', 'pre_self_attention_layer_norm.scale'),
  **_within('attention', 'self_attention', _T5X_ATTENTION),
  **_same('cross_norm.scale', 'pre_cross_attention_layer_norm.scale'),
  **_within('cross_attention', 'encoder_decoder_attention', _T5X_ATTENTION),
  **_T5X_MLP,
}
_T5X_BIAS: Table = {'relative_bias.table': Place('relpos_bias.rel_embedding', 'n r -> n r')}
_T5X_WHOLE: Table = {
  'token_embedding.table': Place('token_embedder.embedding', _EMBEDDING),
  **_same('encoder.norm.scale', 'encoder.encoder_norm.scale'),
  **_same('decoder.norm.scale', 'decoder.decoder_norm.scale'),
  'logits_kernel': Place('decoder.logits_dense.kernel', 'd v -> d v'),
}


def _scanned(table: Table) -> Table:
  """Layers are the second axis of what is stacked, and heads and head_dim have one each."""

  def stack(place):
    theirs, ours = place.layout.split(' -> ')
    first, *others = re.findall(r'\w', theirs)
    return place._replace(layout=f'{" ".join([first, "l", *others])} -> l {ours}')

  return {path: stack(place) for path, place in table.items()}


T5X: Table = {
  **_T5X_WHOLE,
  **_within('encoder.layers', 'encoder.layers_{}', _T5X_ENCODER_LAYER),
  **_within('decoder.layers', 'decoder.layers_{}', _T5X_DECODER_LAYER),
  **_within('encoder', 'encoder', _T5X_BIAS),
  **_within('decoder', 'decoder', _T5X_BIAS),
}
T5X_SCANNED: Table = {
  **_T5X_WHOLE,
  **_within('encoder.layers', 'encoder.encoder', _scanned(_T5X_ENCODER_LAYER | _T5X_BIAS)),
  **_within('decoder.layers', 'decoder.decoder', _scanned(_T5X_DECODER_LAYER | _T5X_BIAS)),
}

# ---- GGUF, and llama2.c

# Rope turns (i, i + head_dim / 2) here, and (2 i, 2 i + 1) in the layout of Meta's own files.
_META_QUERY, _META_KEY = '(n p c) d -> d n (c p)', '(k p c) d -> d k (c p)'


def _gguf(layer: Table, offset: float = 0.0) -> Table:
  """GGUF's names, which all its architectures share; `offset` is that of every norm."""
  layer = {
    **_same('attention_norm.scale', 'attn_norm.weight'),
    'attention.query': Place('attn_q.weight', _QUERY),
    'attention.key': Place('attn_k.weight', _KV),
    'attention.value': Place('attn_v.weight', _KV),
    'attention.output': Place('attn_output.weight', _OUTPUT),
    **_same('mlp_norm.scale', 'ffn_norm.weight'),
    'mlp.gate': Place('ffn_gate.weight', _UP),
    'mlp.up': Place('ffn_up.weight', _UP),
    'mlp.down': Place('ffn_down.weight', _DOWN),
    **layer,
  }
  table = {
    'token_embedding.table': Place('token_embd.weight', _EMBEDDING),
    **_within('decoder.layers', 'blk.{}', layer),
    **_same('decoder.norm.scale', 'output_norm.weight'),
    'logits_kernel': Place('output.weight', _LOGITS),
  }
  return {
    path: place._replace(offset=offset) if path.endswith('norm.scale') else place
    for path, place in table.items()
  }


_GGUF_QK_NORMS: Table = {
  'attention.query_norm.scale': Place('attn_q_norm.weight', 'h -> h'),
  'attention.key_norm.scale': Place('attn_k_norm.weight', 'h -> h'),
}
_GGUF_POST_NORMS: Table = {
  **_same('post_attention_norm.scale', 'post_attention_norm.weight'),
  **_same('post_mlp_norm.scale', 'post_ffw_norm.weight'),
}
_GGUF_QKV_BIASES: Table = {
  'attention.query_bias': Place('attn_q.bias', '(n h) -> n h'),
  'attention.key_bias': Place('attn_k.bias', '(k h) -> k h'),
  'attention.value_bias': Place('attn_v.bias', '(k h) -> k h'),
}

# By `general.architecture`. Gemma's norms are stored as the 1 + scale that they multiply by.
GGUF: dict[str, Table] = {
  'llama': _gguf(
    {
      'attention.query': Place('attn_q.weight', _META_QUERY),
      'attention.key': Place('attn_k.weight', _META_KEY),
    }
  ),
  'qwen2': _gguf(_GGUF_QKV_BIASES),
  'qwen3': _gguf(_GGUF_QK_NORMS),
  'gemma2': _gguf(_GGUF_POST_NORMS, offset=1.0),
  'gemma3': _gguf(_GGUF_POST_NORMS | _GGUF_QK_NORMS, offset=1.0),
}

# The arrays of a file of floats, named as llama2.c's program names them.
LLAMA2C: Table = {
  'token_embedding.table': Place('token_embedding_table', _EMBEDDING),
  'decoder.layers.attention_norm.scale': Place('rms_att_weight', 'l d -> l d'),
  'decoder.layers.attention.query': Place('wq', 'l (n p c) d -> l d n (c p)'),
  'decoder.layers.attention.key': Place('wk', 'l (k p c) d -> l d k (c p)'),
  'decoder.layers.attention.value': Place('wv', 'l (k h) d -> l d k h'),
  'decoder.layers.attention.output': Place('wo', 'l d (n h) -> l n h d'),
  'decoder.layers.mlp_norm.scale': Place('rms_ffn_weight', 'l d -> l d'),
  'decoder.layers.mlp.gate': Place('w1', 'l f d -> l d f'),
  'decoder.layers.mlp.down': Place('w2', 'l d f -> l f d'),
  'decoder.layers.mlp.up': Place('w3', 'l f d -> l d f'),
  **_same('decoder.norm.scale', 'rms_final_weight'),
  'logits_kernel': Place('wcls', _LOGITS),
}
