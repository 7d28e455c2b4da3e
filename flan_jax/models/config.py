"""What a Transformer is made of: one frozen dataclass that gin fills, and what follows from it.

Published sizes are gin files below gin/models; this module knows no model by name.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

# Activation of the feed-forward layer. The gated ones multiply activation(gate) by a second
# projection (arXiv:2002.05202); T5 1.0 has one projection and relu.
ACTIVATIONS = ('gated_gelu', 'gated_silu', 'relu')
DTYPES = ('float32', 'bfloat16')
KERNELS = ('query', 'key', 'value', 'output', 'gate', 'up', 'down')
NORMS = ('rms', 'layer_norm')
POSITIONS = ('relative_bias', 'rope')
REMAT_POLICIES = ('none', 'minimal', 'full')
ROPE_SCALINGS = ('linear', 'llama3')
WINDOWS = ('local', 'global')


@dataclasses.dataclass(frozen=True, kw_only=True)
class RopeScaling:
  """How rotary positions are stretched to lengths beyond those of pre-training.

  Attributes:
    kind: 'linear' turns every pair `factor` times as slowly (arXiv:2306.15595); 'llama3' only
      those whose wave is long, and blends in between (Llama 3.1's release).
    factor: how many times as slowly.
    low_freq_factor, high_freq_factor, original_length: of 'llama3': waves longer than
      original_length / low_freq_factor tokens are stretched, shorter than
      original_length / high_freq_factor are not.
  """

  kind: str
  factor: float
  low_freq_factor: float = 1.0
  high_freq_factor: float = 4.0
  original_length: int = 8192

  def __post_init__(self):
    _check_choice('RopeScaling.kind', self.kind, ROPE_SCALINGS)
    if not self.factor >= 1:
      raise ValueError(f'RopeScaling.factor={self.factor} must be at least 1.')
    if not 0 < self.low_freq_factor < self.high_freq_factor:
      raise ValueError(
        f'RopeScaling.low_freq_factor={self.low_freq_factor} must lie between 0 and '
        f'high_freq_factor={self.high_freq_factor}.'
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lora:
  """Low-rank adapters beside the kernels of every layer (arXiv:2106.09685).

  Attributes:
    rank: columns of the narrow matrices.
    alpha: what an adapter adds is multiplied by alpha / rank.
    targets: kernels that have one, of those in KERNELS.
  """

  rank: int
  alpha: float
  targets: tuple[str, ...] = KERNELS

  def __post_init__(self):
    if isinstance(self.targets, list):
      object.__setattr__(self, 'targets', tuple(self.targets))
    for target in self.targets:
      _check_choice('Lora.targets', target, KERNELS)
    if type(self.rank) is not int or self.rank < 1 or not self.alpha > 0 or not self.targets:
      raise ValueError(
        f'Lora(rank={self.rank}, alpha={self.alpha}, targets={self.targets}) adds nothing; give a '
        'rank of 1 or more, an alpha above 0 and at least one target.'
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerConfig:
  """Sizes and choices of an encoder-decoder or a decoder-only Transformer.

  Attributes:
    vocab_size: tokens of the vocabulary; see `padded_vocab_size` for the rows in memory.
    embed_dim: width of the residual stream.
    num_encoder_layers, num_decoder_layers: layers of each stack; without encoder layers the
      decoder reads the inputs itself, before the targets.
    num_heads: query heads.
    num_kv_heads: key and value heads, each shared by num_heads / num_kv_heads query heads;
      None means num_heads.
    head_dim: width of one head; num_heads * head_dim need not be embed_dim.
    mlp_dim: width of the feed-forward layer.
    activation: one of ACTIVATIONS.
    position: 'relative_bias' is T5's bias on scores, 'rope' turns queries and keys
      (arXiv:2104.09864).
    relative_bias_buckets, relative_bias_max_distance: T5's relative positions: how many buckets,
      and the distance in tokens from which on all share the last one.
    relative_bias_per_layer: each layer has a bias of its own (UMT5) instead of one for a stack.
    rope_theta, rope_local_theta: slowest wave of 'rope' in global and, unless None, local layers.
    rope_scaling: of global layers, or None.
    window: keys that a local layer sees, the query's own included.
    window_pattern: 'local' or 'global' for each layer, repeated from the first one on.
    query_scale: factor of the scores; T5's 1.0, usually head_dim ** -0.5, which None stands for.
    attention_softcap, logits_softcap: c of c * tanh(x / c) on scores and logits, or None (Gemma 2).
    qkv_bias: add biases to queries, keys and values (Qwen 2).
    qk_norm: normalise queries and keys of each head (Qwen 3, Gemma 3).
    parallel_block: attention and feed-forward read the same norm and are added together (PaLM).
    post_norms: normalise what attention and feed-forward return, too (Gemma 2 and 3).
    norm: 'rms', or 'layer_norm' without bias (PaLM).
    norm_epsilon: added to the mean square or variance.
    norm_plus_one: multiply by 1 + scale instead of scale (Gemma).
    lora: adapters beside the kernels, or None.
    dropout_rate: share of activations dropped when a dropout key is given.
    tie_embeddings: whether logits come from the input embedding instead of a matrix of their own.
    scale_tied_logits: multiply what meets a tied embedding by embed_dim ** -0.5 (T5 1.0, PaLM).
    scale_embeddings: multiply embeddings by embed_dim ** 0.5 (Gemma).
    prefix_lm: of a model without encoder: inputs see each other in both directions.
    dtype: what matrix products compute in. Parameters, softmax, norms and logits are float32.
    remat: what the backward pass computes again: 'none' of it, 'minimal' all but the products
      with weights, 'full' each layer from its input.
    attention_kernels: attend by kernels of Pallas on TPUs and GPUs, where they serve; False leaves
      it to XLA. They have not run on either yet.
    scan_layers: compile one layer and loop over it; False unrolls the loop, for speed of few
      layers. Parameters are stacked either way. Decoding reads layers apart but on TPUs.
    vocab_multiple: rows of the vocabulary in memory are a multiple of this; give
      128 x the tensor axis of the mesh.
  """

  vocab_size: int
  embed_dim: int
  num_encoder_layers: int
  num_decoder_layers: int
  num_heads: int
  num_kv_heads: int | None = None
  head_dim: int
  mlp_dim: int
  activation: str = 'gated_gelu'
  position: str = 'relative_bias'
  relative_bias_buckets: int = 32
  relative_bias_max_distance: int = 128
  relative_bias_per_layer: bool = False
  rope_theta: float = 10_000.0
  rope_local_theta: float | None = None
  rope_scaling: RopeScaling | None = None
  window: int | None = None
  window_pattern: tuple[str, ...] = ('global',)
  query_scale: float | None = 1.0
  attention_softcap: float | None = None
  logits_softcap: float | None = None
  qkv_bias: bool = False
  qk_norm: bool = False
  parallel_block: bool = False
  post_norms: bool = False
  norm: str = 'rms'
  norm_epsilon: float = 1e-6
  norm_plus_one: bool = False
  lora: Lora | None = None
  dropout_rate: float = 0.0
  tie_embeddings: bool = False
  scale_tied_logits: bool = True
  scale_embeddings: bool = False
  prefix_lm: bool = False
  dtype: str = 'float32'
  remat: str = 'none'
  attention_kernels: bool = True
  scan_layers: bool = True
  vocab_multiple: int = 128

  def __post_init__(self):
    _from_json(self)
    _check_sizes(self)
    _check_choice('activation', self.activation, ACTIVATIONS)
    _check_choice('position', self.position, POSITIONS)
    _check_choice('norm', self.norm, NORMS)
    _check_choice('remat', self.remat, REMAT_POLICIES)
    _check_windows(self)
    _check_combinations(self)
    if self.dtype == 'float16':
      raise ValueError(
        "dtype='float16' ends at 65,504, which the feed-forward layers of T5 exceed; "
        "use 'bfloat16', which has the range of float32, or 'float32'."
      )
    _check_choice('dtype', self.dtype, DTYPES)
    if self.num_heads % self.kv_heads:
      allowed = [n for n in range(1, self.num_heads + 1) if self.num_heads % n == 0]
      raise ValueError(
        f'num_heads={self.num_heads} is not divisible by num_kv_heads={self.kv_heads}; '
        f'choose {" or ".join(", ".join(map(str, allowed)).rsplit(", ", 1))}.'
      )
    if not 0 <= self.dropout_rate < 1:
      raise ValueError(
        f'dropout_rate={self.dropout_rate} is not a share of activations; '
        'choose one from 0.0 up to, not including, 1.0.'
      )

  @property
  def kv_heads(self) -> int:
    """Key and value heads of one layer."""
    return self.num_heads if self.num_kv_heads is None else self.num_kv_heads

  @property
  def decoder_only(self) -> bool:
    """Whether inputs and targets share one sequence, as there is no encoder."""
    return self.num_encoder_layers == 0

  @property
  def score_scale(self) -> float:
    """The factor of the scores: query_scale, or head_dim ** -0.5 for None."""
    return self.head_dim**-0.5 if self.query_scale is None else self.query_scale

  def local_layers(self, num_layers: int) -> tuple[bool, ...]:
    """Which layers of a stack see only `window` keys."""
    pattern = self.window_pattern
    return tuple(pattern[i % len(pattern)] == 'local' for i in range(num_layers))

  @property
  def padded_vocab_size(self) -> int:
    """vocab_size rounded up to vocab_multiple: the rows in memory, of which the rest are unused."""
    return -(-self.vocab_size // self.vocab_multiple) * self.vocab_multiple


# What may change between a checkpoint and a run that begins with it.
_OF_A_RUN = ('dropout_rate', 'dtype', 'remat', 'attention_kernels', 'scan_layers', 'vocab_multiple')
_OF_A_RUN += ('lora', 'prefix_lm')


def differences(config: TransformerConfig, other: TransformerConfig) -> list[str]:
  """Says 'name=value, not value' of each field in which two models compute something else."""
  pairs = {
    field.name: (getattr(config, field.name), getattr(other, field.name))
    for field in dataclasses.fields(TransformerConfig)
    if field.name not in _OF_A_RUN
  }
  if not config.tie_embeddings and not other.tie_embeddings:
    del pairs['scale_tied_logits']
  return [f'{name}={a!r}, not {b!r}' for name, (a, b) in pairs.items() if a != b]


def parameter_count(config: TransformerConfig) -> int:
  """How many numbers the parameters of `config` hold, padded vocabulary included, no adapters."""
  heads, kv_heads = config.num_heads * config.head_dim, config.kv_heads * config.head_dim
  attention = 2 * config.embed_dim * (heads + kv_heads)
  attention += config.qkv_bias * (heads + 2 * kv_heads) + config.qk_norm * 2 * config.head_dim
  mlp = (3 if config.activation.startswith('gated') else 2) * config.embed_dim * config.mlp_dim
  norm = config.embed_dim
  norms = (1 if config.parallel_block else 2) * (2 if config.post_norms else 1) * norm
  bias = config.relative_bias_buckets * config.num_heads
  bias *= config.position == 'relative_bias'
  layer = attention + mlp + norms + bias * config.relative_bias_per_layer
  stack = norm + bias * (not config.relative_bias_per_layer)
  cross = attention + norm
  decoder = config.num_decoder_layers * layer + stack
  if not config.decoder_only:
    decoder += config.num_decoder_layers * cross + config.num_encoder_layers * layer + stack
  embeddings = (1 if config.tie_embeddings else 2) * config.padded_vocab_size * config.embed_dim
  return embeddings + decoder


def train_step_flops(
  config: TransformerConfig, batch_rows: int, inputs_length: int, targets_length: int
) -> float:
  """Floating-point operations of one training step: matrix products, 2 per multiply-add.

  Attention counts in full, without leaving out what masks hide; the backward pass is twice the
  forward, and as much as the forward with adapters, beside which kernels have no gradient;
  adapters, recomputation, softmax, norms and the optimizer are not counted.

  Args:
    config: the model; without encoder its rows hold both lengths one after the other.
    batch_rows: rows of a step.
    inputs_length, targets_length: tokens of a row.
  """
  heads = config.num_heads * config.head_dim
  kv_heads = config.kv_heads * config.head_dim
  query_and_output, key_and_value = 2 * config.embed_dim * heads, 2 * config.embed_dim * kv_heads
  products = 3 if config.activation.startswith('gated') else 2
  mlp = products * config.embed_dim * config.mlp_dim
  length = inputs_length + targets_length if config.decoder_only else targets_length
  # Multiply-adds of one token: projections, then scores and weighted sums over each key.
  decoder_token = query_and_output + key_and_value + mlp + 2 * heads * length
  encoder = cross_key_and_value = 0
  if not config.decoder_only:
    encoder_token = query_and_output + key_and_value + mlp + 2 * heads * inputs_length
    encoder = config.num_encoder_layers * encoder_token * inputs_length
    decoder_token += query_and_output + 2 * heads * inputs_length
    cross_key_and_value = config.num_decoder_layers * key_and_value * inputs_length
  decoder = config.num_decoder_layers * decoder_token * length
  logits = config.padded_vocab_size * config.embed_dim * length
  forward = 2 * batch_rows * (encoder + cross_key_and_value + decoder + logits)
  return (2.0 if config.lora else 3.0) * forward


def _from_json(config: TransformerConfig) -> None:
  """Takes what a checkpoint's JSON and gin give for tuples and dataclasses: lists and objects."""
  if isinstance(config.window_pattern, list):
    object.__setattr__(config, 'window_pattern', tuple(config.window_pattern))
  scaling: Any = config.rope_scaling
  if isinstance(scaling, Mapping):
    object.__setattr__(config, 'rope_scaling', RopeScaling(**scaling))
  lora: Any = config.lora
  if isinstance(lora, Mapping):
    object.__setattr__(config, 'lora', Lora(**lora))


def _check_windows(config: TransformerConfig) -> None:
  if isinstance(config.window_pattern, str) or not config.window_pattern:
    raise ValueError(
      f"window_pattern={config.window_pattern!r} must be a tuple such as ('local', 'global')."
    )
  for kind in config.window_pattern:
    _check_choice('window_pattern', kind, WINDOWS)
  if 'local' in config.window_pattern and config.window is None:
    raise ValueError("window_pattern has 'local' layers; say with window how many keys they see.")


def _check_combinations(config: TransformerConfig) -> None:
  if config.position == 'rope' and config.head_dim % 2:
    raise ValueError(f"head_dim={config.head_dim} must be even for position='rope', which pairs.")
  if config.decoder_only and config.position == 'relative_bias':
    # The bias is shared by the rows, whose answers begin at different distances from their prompts.
    raise ValueError(
      "position='relative_bias' needs an encoder; choose position='rope' with num_encoder_layers=0."
    )
  if config.prefix_lm and not config.decoder_only:
    raise ValueError(
      'prefix_lm=True is for models without encoder; this one has num_encoder_layers='
      f'{config.num_encoder_layers}, which read the inputs in both directions already.'
    )
  if config.parallel_block and (config.post_norms or not config.decoder_only):
    raise ValueError(
      'parallel_block=True has one norm a layer and no cross attention; it needs '
      'num_encoder_layers=0 and post_norms=False.'
    )


def _check_sizes(config: TransformerConfig) -> None:
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    optional = field.type == int | None and value is None
    least = 0 if field.name == 'num_encoder_layers' else 1
    if field.type in (int, int | None) and not optional:
      if type(value) is not int or value < least:
        raise ValueError(f'{field.name}={value!r} must be a whole number of {least} or more.')
    if field.type in (float, float | None) and value is not None and field.name != 'dropout_rate':
      if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ValueError(f'{field.name}={value!r} must be a number above 0.')


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
  if value not in allowed:
    raise ValueError(f'{name}={value!r} is unknown; choose one of: {", ".join(allowed)}.')
