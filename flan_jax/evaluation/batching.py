"""Examples of any length as few shapes of batches, placed on the mesh and read back.

Evaluation and inference share this. Every process makes the same plan and places only its own rows.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from flan_jax import partitioning
from flan_jax.data import features, layouts

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
  sizes = np.asarray(lengths)
  order = np.argsort(-sizes, kind='stable')
  which = np.minimum(np.searchsorted(buckets, sizes), len(buckets) - 1)
  for i in reversed(range(len(buckets))):
    members = order[which[order] == i]
    for start in range(0, len(members), batch_rows):
      yield buckets[i], members[start : start + batch_rows]


def cut(tokens: Sequence[int], length: int, eos_id: int) -> np.ndarray:
  """Return `tokens` unchanged if they fit, else their first length - 1 and EOS."""
  ids = np.asarray(tokens, np.int32)
  return ids if len(ids) <= length else np.append(ids[: length - 1], np.int32(eos_id))


def make_batch(
  inputs: Sequence[np.ndarray],
  targets: Sequence[np.ndarray] | None,
  *,
  batch_rows: int,
  layout: layouts.Layout,
) -> dict[str, np.ndarray]:
  """Return one example a row, unpacked; rows that are left over are empty.

  inputs [[7, 8, 1]], targets [[5, 1]], EncoderDecoder((4, 3)) ->
    encoder_input_tokens [[7, 8, 1, 0]], decoder_target_tokens [[5, 1, 0]],
    decoder_input_tokens [[0, 5, 0]], decoder_loss_weights [[1, 1, 0]], ...
  Without targets only what decoding.generate reads.
  """
  prompts = layout.prompts(inputs, batch_rows)
  if targets is None:
    return prompts
  rows = features.RowExamples(
    inputs=inputs,
    targets=targets,
    collections=np.ones(len(inputs), np.int32),
    row_starts=np.minimum(np.arange(batch_rows + 1), len(inputs)),
  )
  return {**layout.assemble(rows), **prompts}


def place(
  batch: Mapping[str, np.ndarray], axes: Sequence[str] = ('batch', 'length')
) -> dict[str, jax.Array]:
  """Return the batch as global arrays on the current mesh, or on one device without a mesh.

  `axes` are the logical axes of the first dimensions of each; others are not split.
  """
  if not partitioning.has_mesh():
    return {name: jnp.asarray(x) for name, x in batch.items()}
  sharding = NamedSharding(jax.sharding.get_mesh(), partitioning.spec(*axes))
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


def fitting_rows(batch_rows: int) -> int:
  """Return the smallest number of rows from `batch_rows` on that the current mesh can split."""
  if not partitioning.has_mesh():
    return batch_rows
  axes = partitioning.spec('batch')[0] or ()
  axes = (axes,) if isinstance(axes, str) else axes
  devices = math.prod(jax.sharding.get_mesh().shape[axis] for axis in axes)
  return -(-batch_rows // devices) * devices


def enough_rows(examples: int, batch_rows: int) -> int:
  """Return rows of a batch that few examples do not leave mostly empty, at most `batch_rows`.

  A power of two that the current mesh can split, so that tasks share what was compiled.
  """
  return min(batch_rows, fitting_rows(1 << (max(examples, 1) - 1).bit_length()))


def fetch(*arrays: jax.Array) -> tuple[np.ndarray, ...]:
  """Return whole arrays in the memory of every process."""
  return tuple(np.asarray(x) for x in _replicate(arrays))


@jax.jit
def _replicate(arrays):
  return jax.tree.map(lambda x: partitioning.shard(x, *[None] * x.ndim), arrays)
