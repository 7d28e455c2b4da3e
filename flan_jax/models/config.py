"""What a Transformer is made of: one frozen dataclass that gin fills, and what follows from it.

Published sizes are gin files below gin/models; this module knows no model by name.
"""

import dataclasses

# Activation of the feed-forward layer. T5 1.1 multiplies gelu(gate) by a second projection
# (arXiv:2002.05202); T5 1.0 has one projection and relu.
ACTIVATIONS = ('gated_gelu', 'relu')
DTYPES = ('float32', 'bfloat16')
REMAT_POLICIES = ('none', 'minimal', 'full')


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerConfig:
  """Sizes and choices of an encoder-decoder Transformer of the T5 family.

  Attributes:
    vocab_size: tokens of the vocabulary; see `padded_vocab_size` for the rows in memory.
    embed_dim: width of the residual stream.
    num_encoder_layers, num_decoder_layers: layers of each stack.
    num_heads: query heads.
    num_kv_heads: key and value heads, each shared by num_heads / num_kv_heads query heads;
      None means num_heads.
    head_dim: width of one head; num_heads * head_dim need not be embed_dim.
    mlp_dim: width of the feed-forward layer.
    activation: one of ACTIVATIONS.
    relative_bias_buckets, relative_bias_max_distance: T5's relative positions: how many buckets,
      and the distance in tokens from which on all share the last one.
    dropout_rate: share of activations dropped when a dropout key is given.
    tie_embeddings: whether logits come from the input embedding, scaled by embed_dim ** -0.5
      (T5 1.0), instead of a matrix of their own (T5 1.1).
    dtype: what matrix products compute in. Parameters, softmax, norms and logits are float32.
    remat: what the backward pass computes again: 'none' of it, 'minimal' all but the products
      with weights, 'full' each layer from its input.
    scan_layers: compile one layer and loop over it; False unrolls the loop, for speed of few
      layers. Parameters are stacked either way.
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
  relative_bias_buckets: int = 32
  relative_bias_max_distance: int = 128
  dropout_rate: float = 0.0
  tie_embeddings: bool = False
  dtype: str = 'float32'
  remat: str = 'none'
  scan_layers: bool = True
  vocab_multiple: int = 128

  def __post_init__(self):
    _check_sizes(self)
    _check_choice('activation', self.activation, ACTIVATIONS)
    _check_choice('remat', self.remat, REMAT_POLICIES)
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
  def padded_vocab_size(self) -> int:
    """vocab_size rounded up to vocab_multiple: the rows in memory, of which the rest are unused."""
    return -(-self.vocab_size // self.vocab_multiple) * self.vocab_multiple


def parameter_count(config: TransformerConfig) -> int:
  """How many numbers the parameters of `config` hold, padded vocabulary included."""
  query = config.embed_dim * config.num_heads * config.head_dim
  kv = config.embed_dim * config.kv_heads * config.head_dim
  attention = 2 * query + 2 * kv
  mlp = (3 if config.activation.startswith('gated') else 2) * config.embed_dim * config.mlp_dim
  norm = config.embed_dim
  encoder_layer = attention + mlp + 2 * norm
  decoder_layer = 2 * attention + mlp + 3 * norm
  stack = config.relative_bias_buckets * config.num_heads + norm
  embeddings = (1 if config.tie_embeddings else 2) * config.padded_vocab_size * config.embed_dim
  return (
    embeddings
    + 2 * stack
    + config.num_encoder_layers * encoder_layer
    + config.num_decoder_layers * decoder_layer
  )


def train_step_flops(
  config: TransformerConfig, batch_rows: int, encoder_length: int, decoder_length: int
) -> float:
  """Floating-point operations of one training step: matrix products, 2 per multiply-add.

  Attention counts in full, without leaving out what the causal mask hides; the backward pass
  is twice the forward; recomputation, softmax, norms and the optimizer are not counted.
  """
  heads = config.num_heads * config.head_dim
  kv_heads = config.kv_heads * config.head_dim
  query_and_output, key_and_value = 2 * config.embed_dim * heads, 2 * config.embed_dim * kv_heads
  products = 3 if config.activation.startswith('gated') else 2
  mlp = products * config.embed_dim * config.mlp_dim
  # Multiply-adds of one token: projections, then scores and weighted sums over each key.
  encoder_token = query_and_output + key_and_value + mlp + 2 * heads * encoder_length
  decoder_token = 2 * query_and_output + key_and_value + mlp
  decoder_token += 2 * heads * (decoder_length + encoder_length)
  encoder = config.num_encoder_layers * encoder_token * encoder_length
  cross_key_and_value = config.num_decoder_layers * key_and_value * encoder_length
  decoder = config.num_decoder_layers * decoder_token * decoder_length
  logits = config.padded_vocab_size * config.embed_dim * decoder_length
  forward = 2 * batch_rows * (encoder + cross_key_and_value + decoder + logits)
  return 3.0 * forward


def _check_sizes(config: TransformerConfig) -> None:
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    optional = field.type == int | None and value is None
    if field.type in (int, int | None) and not optional and (type(value) is not int or value < 1):
      raise ValueError(f'{field.name}={value!r} must be a whole number of 1 or more.')


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
  if value not in allowed:
    raise ValueError(f'{name}={value!r} is unknown; choose one of: {", ".join(allowed)}.')
