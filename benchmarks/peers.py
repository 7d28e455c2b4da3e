"""The models of the benchmarks, in flan_jax and in PyTorch.

Sizes stand here, beside gin/models, as benchmarks run where gin is not installed.
"""

import argparse
import importlib.util
import os
from collections.abc import Iterable
from typing import Any

from flan_jax.models.config import TransformerConfig, parameter_count

_T5 = {'vocab_size': 32128, 'head_dim': 64}
_LLAMA = {
  'activation': 'gated_silu',
  'position': 'rope',
  'query_scale': None,
  'norm_epsilon': 1e-5,
}
_LLAMA3 = {**_LLAMA, 'vocab_size': 128256, 'num_kv_heads': 8, 'rope_theta': 500_000.0}
_TIED = {'tie_embeddings': True, 'scale_tied_logits': False}


def _sizes(embed_dim: int, layers: int, num_heads: int, mlp_dim: int, *, encoder=True) -> dict:
  """Of a stack, or of two alike. Layers of large models are scanned, to compile one of them."""
  return {
    **{'embed_dim': embed_dim, 'num_heads': num_heads, 'mlp_dim': mlp_dim},
    **{'num_encoder_layers': layers if encoder else 0, 'num_decoder_layers': layers},
    'scan_layers': embed_dim > 768,
  }


MODELS = {
  'tiny': {**_T5, 'head_dim': 16, **_sizes(64, 2, 4, 192)},
  't5_1_1_small': {**_T5, **_sizes(512, 8, 6, 1024)},
  't5_1_1_base': {**_T5, **_sizes(768, 12, 12, 2048)},
  't5_1_1_large': {**_T5, **_sizes(1024, 24, 16, 2816)},
  't5_1_1_xl': {**_T5, **_sizes(2048, 24, 32, 5120)},
  't5_1_1_xxl': {**_T5, **_sizes(4096, 24, 64, 10240)},
  'smollm2_135m': {
    **{**_LLAMA, 'vocab_size': 49152, 'num_kv_heads': 3, 'rope_theta': 100_000.0, 'head_dim': 64},
    **{**_TIED, **_sizes(576, 30, 9, 1536, encoder=False)},
  },
  'llama_1b': {  # Llama 3.2, without what stretches its positions
    **{**_LLAMA3, 'head_dim': 64, **_TIED, **_sizes(2048, 16, 32, 8192, encoder=False)}
  },
  'llama_8b': {**_LLAMA3, 'head_dim': 128, **_sizes(4096, 32, 32, 14336, encoder=False)},
}


T5 = [name for name, model in MODELS.items() if model['num_encoder_layers']]


def add_flags(
  parser: argparse.ArgumentParser, models: Iterable[str], model: str, dtype: str = 'float32'
) -> None:
  """Adds --model, of `models`, and --dtype, of its products, with what they are if not given."""
  parser.add_argument('--model', choices=models, default=model)
  parser.add_argument('--dtype', choices=('float32', 'bfloat16'), default=dtype)


def our_config(name: str = 't5_1_1_small', **changes: Any) -> TransformerConfig:
  """The configuration of one of MODELS, in float32 if not said otherwise."""
  return TransformerConfig(**{**MODELS[name], **changes})


def hugging_face_model(name: str = 't5_1_1_small') -> Any:
  """The same in PyTorch, with random weights and without dropout."""
  import torch
  import transformers

  from flan_jax.convert import hf_config

  config = our_config(name)
  _, fields = hf_config.write_config(config)
  made = transformers.AutoConfig.for_model(**fields)
  made.dropout_rate = 0.0
  model = getattr(transformers, fields['architectures'][0])(made)
  if not config.tie_embeddings:
    # transformers ties the two whatever the configuration says; T5 1.1 has them apart.
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
  assert sum(p.numel() for p in model.parameters()) == parameter_count(config)
  return model


def installed() -> bool:
  """Whether PyTorch and transformers are there to compare with."""
  return all(importlib.util.find_spec(name) for name in ('torch', 'transformers'))


def torch_device() -> Any:
  """The GPU, or the CPU with all cores at work."""
  import torch

  torch.set_num_threads(os.cpu_count() or 1)
  return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
