"""Hugging Face's config.json to a TransformerConfig and back, every field accounted for.

A field is either read, or must have the value that our model has, or is known to change no logits;
any other is refused by name. Which architecture has which fields is in hf_families.py.
"""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from flan_jax.convert.hf_families import FAMILIES, Family
from flan_jax.convert.hf_fields import NEVER, Fields
from flan_jax.convert.source import ConvertError
from flan_jax.models.config import TransformerConfig
from flan_jax.naming import some, unknown


def read_config(
  values: Mapping[str, Any], where: str, arrays: Collection[str]
) -> tuple[Family, TransformerConfig]:
  """The architecture and configuration of a Hugging Face folder.

  Args:
    values: of its config.json.
    where: names the file in errors.
    arrays: names of the arrays in its files: T5's fields do not say whether logits are tied.

  Raises:
    ConvertError: an architecture that is none of ours, or a field or value that we do not have.
  """
  model_type = str(values.get('model_type'))
  try:
    if model_type == 'gemma3':
      # With its vision tower; the fields of the language model are a part of their own.
      model_type = 'gemma3_text'
      values = {'architectures': values.get('architectures'), **values['text_config']}
    if model_type not in FAMILIES:
      raise ConvertError(f'{where}: {unknown("model_type", model_type, FAMILIES)}')
    family = FAMILIES[model_type]
    fields = Fields(values, where, arrays)
    architectures = values.get('architectures') or family.architectures
    if not set(architectures) & set(family.architectures):
      raise fields.unsupported('architectures', architectures, family.architectures)
    ours = _read(family, fields)
    optional = {f.name for f in dataclasses.fields(TransformerConfig) if 'None' in str(f.type)}
    missing = [name for name, value in ours.items() if value is None and name not in optional]
    if missing:
      raise ConvertError(f'{where} says nothing of what is {some(missing)} here.')
    return family, TransformerConfig(**ours)
  except ConvertError:
    raise
  except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as e:
    raise ConvertError(f'{where} describes no model: {e!r}') from e


def _read(family: Family, fields: Fields) -> dict[str, Any]:
  """Our fields, all of theirs being taken."""
  ours = dict(family.fixed)
  for theirs, name in family.fields.items():
    default = [family.defaults[theirs]] if theirs in family.defaults else []
    ours[name] = fields.take(theirs, *default)
  for name, allowed in {**family.only, **NEVER}.items():
    fields.only(name, allowed)
  for part in family.parts:
    ours |= part.read(fields, ours)
  fields.finish()
  if ours['head_dim'] is None:
    ours['head_dim'] = ours['embed_dim'] // ours['num_heads']
  if not ours['tie_embeddings']:
    del ours['scale_tied_logits']  # it has none
  if ours['num_decoder_layers'] is None:
    ours['num_decoder_layers'] = ours['num_encoder_layers']
  return ours


def write_config(config: TransformerConfig) -> tuple[Family, dict[str, Any]]:
  """The architecture that `config` is, and the fields of config.json that say so.

  Raises:
    ConvertError: it is none of them; says in what it differs from the nearest.
  """
  differences: dict[str, list[str]] = {}
  for family in FAMILIES.values():
    values: dict[str, Any] = {'architectures': [family.architectures[0]]}
    values['model_type'] = family.model_type
    values |= {theirs: getattr(config, ours) for theirs, ours in family.fields.items()}
    values |= {name: allowed[0] for name, allowed in family.only.items()}
    for part in family.parts:
      values |= part.write(config)
    # What is written says all that the model is, if it is read back as the same.
    arrays = () if config.tie_embeddings else ('lm_head.weight',)
    try:
      read = meaning(read_config(values, family.model_type, arrays)[1])
    except ConvertError:
      continue  # it has no word for a value
    differs = [name for name, value in meaning(config).items() if value != read[name]]
    if not differs:
      return family, values
    differences[family.model_type] = differs
  nearest = min(differences, key=lambda name: len(differences[name]))
  said = (f'{name}={getattr(config, name)!r}' for name in differences[nearest])
  raise ConvertError(
    'The model is none of the architectures of Hugging Face that flan_jax writes; the nearest, '
    f'{nearest}, has no {some(said)}.'
  )


def meaning(config: TransformerConfig) -> dict[str, Any]:
  """What the network computes: a field that changes nothing in it is None."""
  values = dataclasses.asdict(config)
  local = config.local_layers(config.num_decoder_layers)
  values |= {
    'num_kv_heads': config.kv_heads,
    'query_scale': float(f'{config.score_scale:.6g}'),  # a square root written out, in a gin file
    'window_pattern': local,
  }
  unread = {'dropout_rate', 'dtype', 'remat', 'attention_kernels', 'scan_layers', 'vocab_multiple'}
  if not config.tie_embeddings:
    unread.add('scale_tied_logits')
  if not any(local):
    unread |= {'window', 'rope_local_theta'}
  if config.position == 'rope':
    unread |= {name for name in values if name.startswith('relative_bias')}
  else:
    unread |= {name for name in values if name.startswith('rope')}
  return values | dict.fromkeys(unread)
