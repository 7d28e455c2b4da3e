"""Taking a config.json of Hugging Face apart so that no field is passed over.

Here are the fields that are not one of ours by another name: activation, tying, rope, windows.
"""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, NamedTuple

from flan_jax.convert.source import ConvertError
from flan_jax.models.config import RopeScaling, TransformerConfig
from flan_jax.naming import some

# Change no logits: bookkeeping, training, generation, and limits that the network does not have.
_IRRELEVANT = frozenset(
  """
  _attn_implementation_autoset _name_or_path architectures attention_dropout attn_implementation
  bad_words_ids begin_suppress_tokens bos_token_id cache_implementation chunk_size_feed_forward
  classifier_dropout diversity_penalty do_sample dropout_rate dtype early_stopping
  encoder_no_repeat_ngram_size eos_token_id exponential_decay_length_penalty finetuning_task
  forced_bos_token_id forced_eos_token_id gradient_checkpointing id2label initializer_factor
  initializer_range is_llama_config label2id length_penalty max_length max_position_embeddings
  max_window_layers min_length model_type n_positions no_repeat_ngram_size num_beam_groups num_beams
  num_return_sequences output_attentions output_hidden_states output_past output_scores pad_token_id
  prefix pretraining_tp problem_type remove_invalid_values repetition_penalty return_dict
  return_dict_in_generate scalable_attention sep_token_id suppress_tokens task_specific_params
  temperature tf_legacy_loss tokenizer_class top_k top_p torch_dtype torchscript
  transformers.js_config transformers_version typical_p use_bfloat16 use_cache
  """.split()
)
# What a Transformer of ours never has, whatever its family.
NEVER = {
  'add_cross_attention': (False,),
  'pruned_heads': ({},),
  'quantization_config': (None,),
  'tie_encoder_decoder': (False,),
}


class Fields:
  """The fields of one config.json, each taken once, so that none is passed over."""

  def __init__(self, values: Mapping[str, Any], where: str, arrays: Collection[str]):
    self._left = dict(values)
    self._where = where
    self.arrays = arrays

  def take(self, name: str, *default: Any) -> Any:
    """The value of a field, or the default if one is given."""
    if name not in self._left and not default:
      raise ConvertError(f'{self._where} has no {name}, which a model of its kind needs.')
    return self._left.pop(name, *default)

  def only(self, name: str, allowed: tuple) -> None:
    """Takes a field that may have one of these values, or be left out."""
    value = self.take(name, None)
    if value is not None and value not in allowed:
      raise self.unsupported(name, value, allowed)

  def unsupported(self, name: str, value: Any, allowed: Collection[Any]) -> ConvertError:
    return ConvertError(
      f'{self._where} has {name}={value!r}, which flan_jax does not support; it knows '
      f'{some(repr(choice) for choice in allowed)}.'
    )

  def finish(self) -> None:
    """Refuses what nothing took."""
    # null turns nothing on.
    left = [name for name, value in self._left.items() if value is not None]
    left = sorted(set(left) - _IRRELEVANT)
    if left:
      raise ConvertError(
        f'{self._where} has fields that flan_jax does not know: {some(left)}. '
        'Take them out if they leave the logits as they are.'
      )


class Part(NamedTuple):
  """What several fields say together, or one says in another unit."""

  read: Callable[[Fields, dict[str, Any]], dict[str, Any]]
  write: Callable[[TransformerConfig], dict[str, Any]]


_T5_ACTIVATIONS = {
  'relu': ('relu', 'relu'),
  'gated-gelu': ('gated_gelu', 'gelu_new'),
  'gated-silu': ('gated_silu', 'silu'),
}


def _read_t5_activation(fields, ours):
  projection = fields.take('feed_forward_proj', 'relu')
  if projection not in _T5_ACTIVATIONS:
    raise fields.unsupported('feed_forward_proj', projection, _T5_ACTIVATIONS)
  activation, function = _T5_ACTIVATIONS[projection]
  fields.only('dense_act_fn', (function,))
  fields.only('is_gated_act', (projection.startswith('gated'),))
  return {'activation': activation}


def _write_t5_activation(config):
  written = {ours: (theirs, function) for theirs, (ours, function) in _T5_ACTIVATIONS.items()}
  projection, function = written[config.activation]
  gated = projection.startswith('gated')
  return {'feed_forward_proj': projection, 'dense_act_fn': function, 'is_gated_act': gated}


def _read_t5_tying(fields, ours):
  # Until version 4 of transformers tie_word_embeddings=False meant logits of their own, not
  # scaled. Version 5 writes True always, and what it was as scale_decoder_outputs.
  tied = fields.take('tie_word_embeddings', True)
  scaled = fields.take('scale_decoder_outputs', tied)
  own = not tied or ('lm_head.weight' in fields.arrays and not scaled)
  if own and scaled:
    raise fields.unsupported('scale_decoder_outputs', scaled, (False,))
  return {'tie_embeddings': not own, 'scale_tied_logits': scaled}


def _write_t5_tying(config):
  tied = config.tie_embeddings
  return {'tie_word_embeddings': tied, 'scale_decoder_outputs': tied and config.scale_tied_logits}


def _read_mt5_tying(fields, ours):
  # Never scaled; version 5 of transformers writes True for logits of their own, too.
  own = not fields.take('tie_word_embeddings', True) or 'lm_head.weight' in fields.arrays
  return {'tie_embeddings': not own, 'scale_tied_logits': False}


def _write_mt5_tying(config):
  return {'tie_word_embeddings': config.tie_embeddings}


def _read_scaling(fields, name, values) -> RopeScaling | None:
  """A rope_scaling of version 4, or what version 5 has beside rope_theta."""
  values = dict(values or {})
  kind = values.pop('rope_type', values.pop('type', 'default'))
  scaling = None
  if kind == 'linear':
    scaling = RopeScaling(kind=kind, factor=values.pop('factor'))
  elif kind == 'llama3':
    scaling = RopeScaling(
      kind=kind,
      factor=values.pop('factor'),
      low_freq_factor=values.pop('low_freq_factor'),
      high_freq_factor=values.pop('high_freq_factor'),
      original_length=values.pop('original_max_position_embeddings'),
    )
  elif kind != 'default':
    raise fields.unsupported(f'{name}.rope_type', kind, ('default', 'linear', 'llama3'))
  for key, value in values.items():
    if (key, value) != ('partial_rotary_factor', 1.0):
      raise fields.unsupported(f'{name}.{key}', value, (None,))
  return scaling


def _write_scaling(scaling: RopeScaling | None) -> dict[str, Any] | None:
  if scaling is None:
    return None
  values = {'rope_type': scaling.kind, 'factor': scaling.factor}
  if scaling.kind == 'llama3':
    values['low_freq_factor'] = scaling.low_freq_factor
    values['high_freq_factor'] = scaling.high_freq_factor
    values['original_max_position_embeddings'] = scaling.original_length
  return values


def _read_rope(fields, ours):
  old = {
    'rope_theta': fields.take('rope_theta', 10_000.0),
    **(fields.take('rope_scaling', None) or {}),
  }
  values = dict(fields.take('rope_parameters', None) or old)
  theta = values.pop('rope_theta', 10_000.0)
  return {'rope_theta': theta, 'rope_scaling': _read_scaling(fields, 'rope_parameters', values)}


def _write_rope(config):
  # As version 4 of transformers wrote it, which version 5 reads and version 4 would miss.
  return {'rope_theta': config.rope_theta, 'rope_scaling': _write_scaling(config.rope_scaling)}


def _write_llama_length(config):
  # Rope has no last position; servers ask for one. What a config.json says of it is not read.
  scaling = config.rope_scaling
  length = scaling.factor * scaling.original_length if scaling else 8192
  return {'max_position_embeddings': int(length)}


def _read_gemma3_rope(fields, ours):
  old = {
    'full_attention': {
      'rope_theta': fields.take('rope_theta', 1_000_000.0),
      **(fields.take('rope_scaling', None) or {}),
    },
    'sliding_attention': {'rope_theta': fields.take('rope_local_base_freq', 10_000.0)},
  }
  values = fields.take('rope_parameters', None) or old
  full, local = dict(values['full_attention']), dict(values['sliding_attention'])
  theta, local_theta = full.pop('rope_theta'), local.pop('rope_theta')
  if _read_scaling(fields, 'rope_parameters.sliding_attention', local) is not None:
    raise fields.unsupported('rope_parameters.sliding_attention', local, ('no scaling',))
  scaling = _read_scaling(fields, 'rope_parameters.full_attention', full)
  return {'rope_theta': theta, 'rope_local_theta': local_theta, 'rope_scaling': scaling}


def _write_gemma3_rope(config):
  return {**_write_rope(config), 'rope_local_base_freq': config.rope_local_theta}


_LAYER_TYPES = {'local': 'sliding_attention', 'global': 'full_attention'}


def _read_windows(fields, ours, every: int):
  """Each layer's kind is listed, or `every` says which are global: 6 for the sixth, twelfth..."""
  every = fields.take('sliding_window_pattern', fields.take('_sliding_window_pattern', every))
  window = fields.take('sliding_window', 4096)
  layers = ours['num_decoder_layers']
  kinds = fields.take('layer_types', None)
  if kinds is None:
    kinds = [_LAYER_TYPES['local' if (i + 1) % every else 'global'] for i in range(layers)]
  pattern = tuple(_kind(fields, kind) for kind in kinds)
  if len(pattern) != layers:
    raise fields.unsupported('layer_types', f'{len(pattern)} layers', (f'{layers} layers',))
  repeats = (n for n in range(1, layers + 1) if pattern == (pattern[:n] * layers)[:layers])
  return {'window_pattern': pattern[: next(repeats)], 'window': window}


def _kind(fields, layer_type):
  for kind, name in _LAYER_TYPES.items():
    if name == layer_type:
      return kind
  raise fields.unsupported('layer_types', layer_type, _LAYER_TYPES.values())


def _write_windows(config):
  local = config.local_layers(config.num_decoder_layers)
  kinds = [_LAYER_TYPES['local' if is_local else 'global'] for is_local in local]
  return {'layer_types': kinds, 'sliding_window': config.window}


def _read_no_windows(fields, ours):
  fields.take('sliding_window', None)  # off, as use_sliding_window is False
  for kind in fields.take('layer_types', None) or ():
    if kind != _LAYER_TYPES['global']:
      raise fields.unsupported('layer_types', kind, (_LAYER_TYPES['global'],))
  return {}


def _read_query_scale(fields, ours):
  scalar = fields.take('query_pre_attn_scalar', 256)
  return {'query_scale': None if scalar == ours['head_dim'] else scalar**-0.5}


def _write_query_scale(config):
  scalar = config.score_scale**-2
  whole = round(scalar)
  return {'query_pre_attn_scalar': whole if abs(scalar - whole) < 1e-3 else scalar}


T5_ACTIVATION = Part(_read_t5_activation, _write_t5_activation)
T5_TYING = Part(_read_t5_tying, _write_t5_tying)
MT5_TYING = Part(_read_mt5_tying, _write_mt5_tying)
LLAMA_LENGTH = Part(lambda fields, ours: {}, _write_llama_length)
ROPE = Part(_read_rope, _write_rope)
GEMMA3_ROPE = Part(_read_gemma3_rope, _write_gemma3_rope)
GEMMA2_WINDOWS = Part(partial(_read_windows, every=2), _write_windows)
GEMMA3_WINDOWS = Part(partial(_read_windows, every=6), _write_windows)
NO_WINDOWS = Part(_read_no_windows, lambda config: {})
QUERY_SCALE = Part(_read_query_scale, _write_query_scale)
