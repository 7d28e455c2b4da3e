"""config.json of published models is the gin file of the same model, in both directions."""

import json
import re
from pathlib import Path

import pytest

from flan_jax import main
from flan_jax.convert import hf_config
from flan_jax.convert.source import ConvertError
from flan_jax.models import config as model_config

GIN_MODELS = Path(__file__).resolve().parents[2] / 'gin' / 'models'
T5 = {
  'architectures': ['T5ForConditionalGeneration'],
  'd_ff': 1024,
  'd_kv': 64,
  'd_model': 512,
  'decoder_start_token_id': 0,
  'dropout_rate': 0.1,
  'eos_token_id': 1,
  'feed_forward_proj': 'gated-gelu',
  'initializer_factor': 1.0,
  'is_encoder_decoder': True,
  'layer_norm_epsilon': 1e-06,
  'model_type': 't5',
  'n_positions': 512,
  'num_decoder_layers': 8,
  'num_heads': 6,
  'num_layers': 8,
  'output_past': True,
  'pad_token_id': 0,
  'relative_attention_max_distance': 128,
  'relative_attention_num_buckets': 32,
  'tie_word_embeddings': False,
  'transformers_version': '4.23.1',
  'use_cache': True,
  'vocab_size': 32128,
}
T5_1_0 = {k: v for k, v in T5.items() if k not in ('feed_forward_proj', 'tie_word_embeddings')} | {
  'architectures': ['T5WithLMHeadModel'],
  'd_ff': 2048,
  'num_decoder_layers': 6,
  'num_layers': 6,
  'num_heads': 8,
  'task_specific_params': {'summarization': {'num_beams': 4}},
}
LLAMA = {
  'architectures': ['LlamaForCausalLM'],
  'attention_bias': False,
  'attention_dropout': 0.0,
  'bos_token_id': 128000,
  'eos_token_id': 128001,
  'head_dim': 64,
  'hidden_act': 'silu',
  'hidden_size': 2048,
  'initializer_range': 0.02,
  'intermediate_size': 8192,
  'max_position_embeddings': 131072,
  'mlp_bias': False,
  'model_type': 'llama',
  'num_attention_heads': 32,
  'num_hidden_layers': 16,
  'num_key_value_heads': 8,
  'pretraining_tp': 1,
  'rms_norm_eps': 1e-05,
  'rope_scaling': {
    'factor': 32.0,
    'high_freq_factor': 4.0,
    'low_freq_factor': 1.0,
    'original_max_position_embeddings': 8192,
    'rope_type': 'llama3',
  },
  'rope_theta': 500000.0,
  'tie_word_embeddings': True,
  'torch_dtype': 'bfloat16',
  'transformers_version': '4.45.0.dev0',
  'use_cache': True,
  'vocab_size': 128256,
}
QWEN3 = {
  'architectures': ['Qwen3ForCausalLM'],
  'attention_bias': False,
  'head_dim': 128,
  'hidden_act': 'silu',
  'hidden_size': 1024,
  'intermediate_size': 3072,
  'max_position_embeddings': 40960,
  'max_window_layers': 28,
  'model_type': 'qwen3',
  'num_attention_heads': 16,
  'num_hidden_layers': 28,
  'num_key_value_heads': 8,
  'rms_norm_eps': 1e-06,
  'rope_scaling': None,
  'rope_theta': 1000000,
  'sliding_window': None,
  'tie_word_embeddings': True,
  'use_sliding_window': False,
  'vocab_size': 151936,
}
GEMMA3 = {
  'architectures': ['Gemma3ForCausalLM'],
  'attn_logit_softcapping': None,
  'cache_implementation': 'hybrid',
  'final_logit_softcapping': None,
  'head_dim': 256,
  'hidden_activation': 'gelu_pytorch_tanh',
  'hidden_size': 1152,
  'intermediate_size': 6912,
  'model_type': 'gemma3_text',
  'num_attention_heads': 4,
  'num_hidden_layers': 26,
  'num_key_value_heads': 1,
  'query_pre_attn_scalar': 256,
  'rms_norm_eps': 1e-06,
  'rope_local_base_freq': 10000,
  'rope_scaling': None,
  'rope_theta': 1000000,
  'sliding_window': 512,
  'sliding_window_pattern': 6,
  'vocab_size': 262144,
}
# As the hub serves it: what is missing are the defaults of its class.
GEMMA3_4B = {
  'architectures': ['Gemma3ForConditionalGeneration'],
  'boi_token_index': 255999,
  'model_type': 'gemma3',
  'text_config': {
    'hidden_size': 2560,
    'intermediate_size': 10240,
    'model_type': 'gemma3_text',
    'num_hidden_layers': 34,
    'rope_scaling': {'factor': 8.0, 'rope_type': 'linear'},
    'sliding_window': 1024,
  },
  'vision_config': {'hidden_size': 1152},
}
PUBLISHED = {
  't5_1_0/small': T5_1_0,
  't5_1_1/small': T5,
  'mt5/small': T5
  | {'model_type': 'mt5', 'architectures': ['MT5ForConditionalGeneration']}
  | {'vocab_size': 250112},
  'byt5/small': T5
  | {'d_model': 1472, 'd_ff': 3584, 'num_layers': 12, 'num_decoder_layers': 4, 'vocab_size': 384},
  'umt5/small': T5
  | {'model_type': 'umt5', 'architectures': ['UMT5ForConditionalGeneration']}
  | {'vocab_size': 256384, 'scalable_attention': True},
  'llama3_2/1b': LLAMA,
  'smollm2/135m': LLAMA
  | {'hidden_size': 576, 'intermediate_size': 1536, 'num_attention_heads': 9}
  | {'num_hidden_layers': 30, 'num_key_value_heads': 3, 'rope_scaling': None}
  | {'rope_theta': 100000, 'vocab_size': 49152, 'is_llama_config': True}
  | {'rope_interleaved': False, 'transformers.js_config': {}},
  'qwen3/0.6b': QWEN3,
  'gemma3/1b': GEMMA3,
}


def from_gin(name):
  return main.load_model(GIN_MODELS / f'{name}.gin')


def differences(config, other):
  """What a run would be told that begins with the one and has the other as its MODEL."""
  found = model_config.differences(config, other)
  # Read where there are tied logits to scale.
  tied = config.tie_embeddings or other.tie_embeddings
  return [text for text in found if tied or not text.startswith('scale_tied_logits=')]


def written(config):
  """What `config` is as a configuration of Hugging Face's, and that read again."""
  family, values = hf_config.write_config(config)
  arrays = () if config.tie_embeddings else ('lm_head.weight',)
  return family.model_type, hf_config.read_config(values, 'config.json', arrays)[1]


@pytest.mark.parametrize('name', PUBLISHED)
def test_published_models_are_their_gin_files(name):
  values = PUBLISHED[name]
  arrays = () if values.get('tie_word_embeddings', True) else ('lm_head.weight',)
  _, config = hf_config.read_config(values, 'config.json', arrays)
  assert differences(config, from_gin(name)) == []


def test_gemma_3_with_eyes_is_read_for_its_text():
  family, config = hf_config.read_config(GEMMA3_4B, 'config.json', ())
  assert family.model_type == 'gemma3_text'
  assert config.vocab_size == 262_208  # more rows than the text model's 262,144
  expected = hf_config.meaning(from_gin('gemma3/4b')) | {'vocab_size': 262_208}
  assert hf_config.meaning(config) == expected


SIZES = sorted(
  str(path.relative_to(GIN_MODELS).with_suffix(''))
  for path in GIN_MODELS.rglob('*.gin')
  if path.stem != 'family'
)


@pytest.mark.parametrize('name', [name for name in SIZES if not name.startswith('palm')])
def test_every_gin_model_can_be_said_in_a_config_json(name):
  config = from_gin(name)
  model_type, back = written(config)
  assert differences(back, config) == []
  known = {'umt5': 'umt5', 'llama': 'llama', 'smollm2': 'llama', 'qwen2': 'qwen2'}
  known |= {'qwen3': 'qwen3', 'gemma2': 'gemma2', 'gemma3': 'gemma3_text'}
  expected = [theirs for start, theirs in known.items() if name.startswith(start)]
  assert [model_type] == (expected or ['t5'])


def test_palm_has_no_name_at_hugging_face():
  with pytest.raises(ConvertError, match='none of the architectures .* parallel_block=True'):
    hf_config.write_config(from_gin('palm/8b'))


def test_a_prefix_lm_is_not_passed_off_as_causal():
  config = model_config.TransformerConfig(**{**vars(from_gin('llama3_2/1b')), 'prefix_lm': True})
  with pytest.raises(ConvertError, match='the nearest, llama, has no prefix_lm=True'):
    hf_config.write_config(config)


@pytest.mark.parametrize(
  ('said', 'own_logits', 'tied', 'scaled'),
  [
    ({}, False, True, True),  # T5 1.0
    ({'tie_word_embeddings': True}, True, True, True),  # and with a copy in the file
    ({'tie_word_embeddings': False}, True, False, None),  # T5 1.1
    ({'tie_word_embeddings': False}, False, False, None),  # and its array is missing
    # Version 5 of transformers writes True for both, and whether it scales beside it.
    ({'tie_word_embeddings': True, 'scale_decoder_outputs': False}, True, False, None),
    ({'tie_word_embeddings': True, 'scale_decoder_outputs': True}, False, True, True),
    ({'tie_word_embeddings': True, 'scale_decoder_outputs': False}, False, True, False),
  ],
)
def test_t5_is_tied_as_either_version_of_transformers_says_it(said, own_logits, tied, scaled):
  values = T5_1_0 | said
  arrays = ['lm_head.weight'] if own_logits else []
  _, config = hf_config.read_config(values, 'config.json', arrays)
  assert config.tie_embeddings == tied
  if scaled is not None:
    assert config.scale_tied_logits == scaled


def test_rope_is_read_as_either_version_of_transformers_says_it():
  new = {k: v for k, v in LLAMA.items() if k not in ('rope_theta', 'rope_scaling')}
  new['rope_parameters'] = {**LLAMA['rope_scaling'], 'rope_theta': 500000.0}
  assert hf_config.read_config(new, '', ()) == hf_config.read_config(LLAMA, '', ())


@pytest.mark.parametrize(
  ('values', 'message'),
  [
    (LLAMA | {'model_type': 'lama'}, "No model_type 'lama'. Did you mean 'llama'? Known: gemma2,"),
    ({}, "No model_type 'None'"),
    ({'model_type': ['llama']}, 'No model_type "[\'llama\']"'),
    ({'model_type': 'gemma3'}, "describes no model: KeyError('text_config')"),
    ({'model_type': 'gemma3', 'text_config': 3}, 'describes no model: TypeError('),
    (LLAMA | {'architectures': 3}, 'describes no model: TypeError('),
    (LLAMA | {'rms_norm_eps': None}, 'x says nothing of what is norm_epsilon here.'),
    (LLAMA | {'rope_theta': None}, 'x says nothing of what is rope_theta here.'),
    (LLAMA | {'rope_scaling': 3}, 'describes no model: TypeError('),
    (
      LLAMA | {'architectures': ['LlamaForSequenceClassification']},
      "architectures=['LlamaForSequenceClassification'], which flan_jax does not support; it knows "
      "'LlamaForCausalLM'.",
    ),
    (LLAMA | {'attention_bias': True}, 'attention_bias=True, which flan_jax does not support; it'),
    (LLAMA | {'hidden_act': 'gelu'}, "hidden_act='gelu', which flan_jax does not support"),
    (LLAMA | {'num_experts': 8}, 'fields that flan_jax does not know: num_experts. Take them out'),
    (LLAMA | {'quantization_config': {'bits': 4}}, "quantization_config={'bits': 4}, which"),
    (
      LLAMA | {'rope_scaling': {'rope_type': 'yarn', 'factor': 4.0}},
      "rope_parameters.rope_type='yarn', which flan_jax does not support; it knows 'default', ",
    ),
    (
      LLAMA | {'rope_scaling': {'rope_type': 'linear', 'factor': 4.0, 'slope': 2}},
      'rope_parameters.slope=2, which',
    ),
    (LLAMA | {'rope_scaling': {'rope_type': 'llama3'}}, "describes no model: KeyError('factor')"),
    ({k: v for k, v in LLAMA.items() if k != 'hidden_size'}, 'x has no hidden_size, which'),
    (LLAMA | {'num_key_value_heads': 5}, 'num_heads=32 is not divisible by num_kv_heads=5'),
    (LLAMA | {'hidden_size': '2048'}, "embed_dim='2048' must be a whole number"),
    (QWEN3 | {'use_sliding_window': True}, 'use_sliding_window=True, which'),
    (QWEN3 | {'layer_types': ['sliding_attention'] * 28}, "layer_types='sliding_attention', which"),
    (GEMMA3 | {'layer_types': ['full_attention'] * 3}, "layer_types='3 layers', which"),
    (GEMMA3 | {'layer_types': ['chunked'] * 26}, "layer_types='chunked', which"),
    (GEMMA3 | {'use_bidirectional_attention': True}, 'use_bidirectional_attention=True, which'),
    (T5 | {'feed_forward_proj': 'gelu'}, "feed_forward_proj='gelu', which flan_jax does not"),
    (T5 | {'dense_act_fn': 'gelu'}, "dense_act_fn='gelu', which flan_jax does not support"),
    (T5 | {'scale_decoder_outputs': True}, 'scale_decoder_outputs=True, which'),
    (T5 | {'decoder_start_token_id': 2}, 'decoder_start_token_id=2, which'),
  ],
)
def test_what_is_not_ours_is_refused_by_name(values, message):
  with pytest.raises(ConvertError, match=re.escape(message)):
    hf_config.read_config(values, 'x', ())


def test_nothing_is_taken_for_an_unknown_field(shared):
  for path in sorted(shared('oracles').glob('hf_*/config.json')):
    values = json.loads(path.read_text())
    arrays = () if values['tie_word_embeddings'] else ('lm_head.weight',)
    _, config = hf_config.read_config(values, str(path), arrays)
    assert hf_config.meaning(written(config)[1]) == hf_config.meaning(config), path
