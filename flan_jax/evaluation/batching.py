"""Examples of any length as few shapes of batches, placed on the mesh and read back.

Evaluation and inference share this. Every process makes the same plan and places only its own rows.
"""

from collections.abc import Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from flan_jax import partitioning

_MULTIPLE = 32  # of bucket lengths, so that a sequence axis of up to 32 devices divides them


def bucket_lengths(longest: int, buckets: int) -> tuple[int, ...]:
  """Return up to `buckets` lengths, shortest first: `longest` and its halves, rounded up to 32s.

  bucket_lengths(512, 3) is (128, 256, 512); each length is compiled once.
  """
  if longest < 1 or buckets < 1:
    raise ValueError(
      f'Length {longest} and {buckets} buckets make no batches; both must be at least 1.'
    )
  halves = (-(-longest // 2**i) for i in range(buckets))
  return tuple(sorted({min(longest, -(-half // _MULTIPLE) * _MULTIPLE) for half in halves}))


def plan(
  lengths: Sequence[int], *, batch_rows: int, buckets: Sequence[int]
) -> Iterator[tuple[int, np.ndarray]]:
  """Yield (bucket, indices of up to `batch_rows` examples), every example exactly once.

  Longest first, so that a batch that does not fit the memory fails at the start. An example longer
  than the last bucket goes there, to be cut.
  """
  lengths = np.asarray(lengths)
  order = np.argsort(-lengths, kind='stable')
  which = np.minimum(np.searchsorted(buckets, lengths), len(buckets) - 1)
  for i in reversed(range(len(buckets))):
    members = order[which[order] == i]
    for start in range(0, len(members), batch_rows):
      yield buckets[i], members[start : start + batch_rows]


def cut(tokens: Sequence[int], length: int, eos_id: int) -> np.ndarray:
  """Return `tokens` unchanged if they fit, else their first length - 1 and EOS."""
  tokens = np.asarray(tokens, np.int32)
  return tokens if len(tokens) <= length else np.append(tokens[: length - 1], np.int32(eos_id))


def make_batch(
  inputs: Sequence[np.ndarray],
  targets: Sequence[np.ndarray] | None,
  *,
  batch_rows: int,
  input_length: int,
  target_length: int = 0,
) -> dict[str, np.ndarray]:
  """Return one example a row; rows that are left over repeat the last example.

  inputs [[7, 8, 1]], targets [[5, 1]], lengths 4 and 3 ->
    encoder_input_tokens [[7, 8, 1, 0]], decoder_target_tokens [[5, 1, 0]],
    decoder_input_tokens [[0, 5, 0]], decoder_loss_weights [[1, 1, 0]]
  A repeated example, unlike an empty row, ends its answer when the last one does, so decoding can
  stop early; the caller drops its results.
  """
  rows = list(range(len(inputs))) + [len(inputs) - 1] * (batch_rows - len(inputs))
  batch = _side('encoder', [inputs[i] for i in rows], input_length)
  batch['encoder_input_tokens'] = batch.pop('encoder_tokens')
  if targets is None:
    return batch
  decoder = _side('decoder', [targets[i] for i in rows], target_length)
  tokens = decoder.pop('decoder_tokens')
  shifted = np.pad(tokens, ((0, 0), (1, 0)))[:, :-1] * (decoder['decoder_segment_ids'] > 0)
  return {
    **batch,
    **decoder,
    'decoder_target_tokens': tokens,
    'decoder_input_tokens': shifted.astype(np.int32),
    'decoder_loss_weights': (decoder['decoder_segment_ids'] > 0).astype(np.float32),
    'decoder_collection_ids': decoder['decoder_segment_ids'],
  }


def place(batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
  """Return the batch as global arrays on the current mesh, or on one device without a mesh."""
  if not partitioning.has_mesh():
    return {name: jnp.asarray(x) for name, x in batch.items()}
  sharding = NamedSharding(jax.sharding.get_mesh(), partitioning.spec('batch', 'length'))
  placed = {}
  for name, x in batch.items():
    rows = partitioning.local_rows(sharding, len(x))
    placed[name] = jax.make_array_from_process_local_data(sharding, x[rows], x.shape)
  return placed


def check_batch_rows(batch_rows: int) -> None:
  """Refuse a number of rows that the current mesh cannot split.

  Raises:
    ValueError: says which numbers it can.
  """
  if batch_rows < 1:
    raise ValueError(f'batch_rows={batch_rows} must be at least 1.')
  if partitioning.has_mesh():
    partitioning.check_batch_rows(batch_rows, jax.sharding.get_mesh())


def fetch(*arrays: jax.Array) -> tuple[np.ndarray, ...]:
  """Return whole arrays in the memory of every process."""
  return tuple(np.asarray(x) for x in _replicate(arrays))


@jax.jit
def _replicate(arrays):
  return jax.tree.map(lambda x: partitioning.shard(x, *[None] * x.ndim), arrays)


def _side(name: str, rows: Sequence[np.ndarray], length: int) -> dict[str, np.ndarray]:
  tokens = np.zeros((len(rows), length), np.int32)
  segment_ids = np.zeros((len(rows), length), np.int32)
  positions = np.zeros((len(rows), length), np.int32)
  for i, row in enumerate(rows):
    tokens[i, : len(row)] = row
    segment_ids[i, : len(row)] = 1
    positions[i, : len(row)] = np.arange(len(row))
  return {
    f'{name}_tokens': tokens,
    f'{name}_segment_ids': segment_ids,
    f'{name}_positions': positions,
  }
