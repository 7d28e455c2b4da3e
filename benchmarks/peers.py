"""The models of the benchmarks, in flan_jax and in PyTorch.

Sizes stand here, beside gin/models, as benchmarks run where gin is not installed.
"""

import importlib.util
import os
from typing import Any

from flan_jax.models.config import TransformerConfig, parameter_count

_T5 = {'vocab_size': 32128, 'head_dim': 64, 'scan_layers': False}
MODELS = {
  'tiny': {
    **{**_T5, 'vocab_size': 512, 'head_dim': 16},
    **{'embed_dim': 64, 'num_encoder_layers': 2, 'num_decoder_layers': 2},
    **{'num_heads': 4, 'mlp_dim': 192},
  },
  't5_1_1_small': {
    **{**_T5, 'embed_dim': 512, 'num_encoder_layers': 8, 'num_decoder_layers': 8},
    **{'num_heads': 6, 'mlp_dim': 1024},
  },
  't5_1_1_base': {
    **{**_T5, 'embed_dim': 768, 'num_encoder_layers': 12, 'num_decoder_layers': 12},
    **{'num_heads': 12, 'mlp_dim': 2048},
  },
  'smollm2_135m': {  # the layers of Llama
    **{'vocab_size': 49152, 'embed_dim': 576, 'num_encoder_layers': 0, 'num_decoder_layers': 30},
    **{'num_heads': 9, 'num_kv_heads': 3, 'head_dim': 64, 'mlp_dim': 1536},
    **{'activation': 'gated_silu', 'position': 'rope', 'rope_theta': 100_000.0},
    **{'query_scale': None, 'norm_epsilon': 1e-5, 'tie_embeddings': True},
    **{'scale_tied_logits': False, 'scan_layers': False},
  },
}


def our_config(name: str = 't5_1_1_small', dtype: str = 'float32') -> TransformerConfig:
  """The configuration of one of MODELS."""
  return TransformerConfig(**MODELS[name], dtype=dtype)


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
