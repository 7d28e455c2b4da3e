"""The architectures of Hugging Face that are ours by another name, and what their fields mean.

hf_config.py reads and writes by these tables.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from flan_jax.convert import hf_fields, names


@dataclasses.dataclass(frozen=True)
class Family:
  """An architecture of Hugging Face.

  Attributes:
    model_type: its name in config.json.
    architectures: classes that are its whole language model, the first the one we write.
    table: our parameters' places in its files.
    fields: config.json's name -> ours, where both mean the same.
    defaults: of those fields that a config.json may leave out.
    only: fields that our model has in one way; a config.json has, or leaves out, the first value.
    parts: what takes more than one field, in either direction.
    fixed: what our configuration is for all of the family.
  """

  model_type: str
  architectures: tuple[str, ...]
  table: names.Table
  fields: Mapping[str, str]
  defaults: Mapping[str, Any]
  only: Mapping[str, tuple]
  parts: tuple[hf_fields.Part, ...]
  fixed: Mapping[str, Any]


_T5_FIELDS = {
  'vocab_size': 'vocab_size',
  'd_model': 'embed_dim',
  'num_layers': 'num_encoder_layers',
  'num_decoder_layers': 'num_decoder_layers',
  'num_heads': 'num_heads',
  'd_kv': 'head_dim',
  'd_ff': 'mlp_dim',
  'relative_attention_num_buckets': 'relative_bias_buckets',
  'relative_attention_max_distance': 'relative_bias_max_distance',
  'layer_norm_epsilon': 'norm_epsilon',
}
_T5_DEFAULTS = {
  'num_decoder_layers': None,  # as many as the encoder's
  'relative_attention_num_buckets': 32,
  'relative_attention_max_distance': 128,
  'layer_norm_epsilon': 1e-6,
}
_T5_ONLY = {
  'is_encoder_decoder': (True,),
  'is_decoder': (False,),
  'decoder_start_token_id': (0,),  # what our decoding starts from
}
_DECODER_FIELDS = {
  'vocab_size': 'vocab_size',
  'hidden_size': 'embed_dim',
  'num_hidden_layers': 'num_decoder_layers',
  'num_attention_heads': 'num_heads',
  'num_key_value_heads': 'num_kv_heads',
  'head_dim': 'head_dim',
  'intermediate_size': 'mlp_dim',
  'rms_norm_eps': 'norm_epsilon',
  'tie_word_embeddings': 'tie_embeddings',
}
_DECODER_DEFAULTS = {
  'num_key_value_heads': None,  # as many as query heads
  'head_dim': None,  # hidden_size / num_attention_heads
  'rms_norm_eps': 1e-6,
  'tie_word_embeddings': False,
}
_DECODER_FIXED = {
  'num_encoder_layers': 0,
  'position': 'rope',
  'query_scale': None,
  'activation': 'gated_silu',
  'scale_tied_logits': False,
}
_GEMMA_FIELDS = _DECODER_FIELDS | {
  'attn_logit_softcapping': 'attention_softcap',
  'final_logit_softcapping': 'logits_softcap',
}
_GEMMA_DEFAULTS = {
  'num_attention_heads': 8,
  'num_key_value_heads': 4,
  'head_dim': 256,
  'rms_norm_eps': 1e-6,
  'tie_word_embeddings': True,
}
_GEMMA_ONLY = {
  'hidden_activation': ('gelu_pytorch_tanh',),
  'hidden_act': ('gelu_pytorch_tanh',),
  'attention_bias': (False,),
  'use_bidirectional_attention': (False, None),
}
_GEMMA_FIXED = _DECODER_FIXED | {
  'activation': 'gated_gelu',
  'post_norms': True,
  'norm_plus_one': True,
  'scale_embeddings': True,
}


def _t5(model_type: str, *architectures: str, per_layer: bool = False) -> Family:
  return Family(
    model_type,
    architectures,
    names.HF_T5,
    fields=_T5_FIELDS,
    defaults=_T5_DEFAULTS,
    only=_T5_ONLY,
    parts=(
      hf_fields.T5_ACTIVATION,
      hf_fields.MT5_TYING if model_type == 'mt5' else hf_fields.T5_TYING,
    ),
    fixed={'relative_bias_per_layer': per_layer},
  )


# In the order in which a model is offered to them for export.
FAMILIES = {
  family.model_type: family
  for family in (
    _t5('t5', 'T5ForConditionalGeneration', 'T5WithLMHeadModel'),
    _t5('mt5', 'MT5ForConditionalGeneration'),
    _t5('umt5', 'UMT5ForConditionalGeneration', per_layer=True),
    Family(
      'llama',
      ('LlamaForCausalLM',),
      names.HF_LLAMA,
      fields=_DECODER_FIELDS,
      defaults=_DECODER_DEFAULTS,
      only={
        'hidden_act': ('silu',),
        'attention_bias': (False,),
        'mlp_bias': (False,),
        'rope_interleaved': (False,),
      },
      parts=(hf_fields.ROPE, hf_fields.LLAMA_LENGTH),
      fixed=_DECODER_FIXED,
    ),
    Family(
      'qwen2',
      ('Qwen2ForCausalLM',),
      names.HF_QWEN2,
      fields=_DECODER_FIELDS,
      defaults=_DECODER_DEFAULTS,
      only={'hidden_act': ('silu',), 'use_sliding_window': (False,), 'use_mrope': (False,)},
      parts=(hf_fields.ROPE, hf_fields.NO_WINDOWS),
      fixed=_DECODER_FIXED | {'qkv_bias': True},
    ),
    Family(
      'qwen3',
      ('Qwen3ForCausalLM',),
      names.HF_QWEN3,
      fields=_DECODER_FIELDS,
      defaults=_DECODER_DEFAULTS | {'head_dim': 128},
      only={
        'hidden_act': ('silu',),
        'attention_bias': (False,),
        'use_sliding_window': (False,),
      },
      parts=(hf_fields.ROPE, hf_fields.NO_WINDOWS),
      fixed=_DECODER_FIXED | {'qk_norm': True},
    ),
    Family(
      'gemma2',
      ('Gemma2ForCausalLM',),
      names.HF_GEMMA2,
      fields=_GEMMA_FIELDS,
      defaults=_GEMMA_DEFAULTS
      | {'attn_logit_softcapping': 50.0, 'final_logit_softcapping': 30.0, 'vocab_size': 256_000},
      only=_GEMMA_ONLY,
      parts=(hf_fields.ROPE, hf_fields.GEMMA2_WINDOWS, hf_fields.QUERY_SCALE),
      fixed=_GEMMA_FIXED,
    ),
    Family(
      'gemma3_text',
      ('Gemma3ForCausalLM', 'Gemma3ForConditionalGeneration'),
      names.HF_GEMMA3,
      fields=_GEMMA_FIELDS,
      defaults=_GEMMA_DEFAULTS
      | {'attn_logit_softcapping': None, 'final_logit_softcapping': None, 'vocab_size': 262_208},
      only=_GEMMA_ONLY,
      parts=(hf_fields.GEMMA3_ROPE, hf_fields.GEMMA3_WINDOWS, hf_fields.QUERY_SCALE),
      fixed=_GEMMA_FIXED | {'qk_norm': True},
    ),
  )
}
