"""The programs of a run, traced and lowered for a mesh without data, weights or devices.

They are those that run later: `train.train_step` as train.py compiles it, and what decoding does
with a prompt (`prefill`) and for each token (`decode`).
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from flan_jax import partitioning, train_state
from flan_jax.data import layouts
from flan_jax.models.kv_cache import KVCache
from flan_jax.models.transformer import Transformer
from flan_jax.train import TrainConfig, train_step

STEPS = ('train', 'prefill', 'decode')
# Muffin, T0-SF, NIv2, CoT and dialog: how many changes a few sums for the log.
_COLLECTIONS = 5


def lower(step: str, config: TrainConfig, mesh: Mesh) -> jax.stages.Lowered:
  """Lowers one of STEPS for `mesh`.

  Raises:
    ValueError: rows or parameters do not divide over the mesh; says what would.
  """
  rows, rules = config.data.batch_rows, config.mesh.rules
  partitioning.check_batch_rows(rows // config.microbatches, mesh)
  with partitioning.use_mesh(mesh, rules):
    if step == 'train':
      step_fn = jax.jit(train_function(config), donate_argnums=0)
      return step_fn.lower(*train_arguments(config, mesh))
    if step == 'prefill':
      read, arguments = _prefill(config, mesh)
      return jax.jit(read).lower(*arguments)
    step_fn = jax.jit(Transformer.decode_step, donate_argnums=2)
    return step_fn.lower(*decode_arguments(config, mesh))


def train_function(config: TrainConfig) -> Callable:
  """`train.train_step` of a run: (state, batch) -> (state, sums)."""
  return functools.partial(train_step, config=config, collections=_COLLECTIONS)


def train_arguments(config: TrainConfig, mesh: Mesh) -> tuple[train_state.TrainState, dict]:
  """The abstract state and batch of the train step on the current mesh."""
  sharding = partitioning.batch_sharding(mesh, config.mesh.rules)
  batch = train_state.abstract_batch(_one_row(config), config.data.batch_rows, sharding)
  return train_state.abstract_state(config), batch


def decode_arguments(
  config: TrainConfig, mesh: Mesh
) -> tuple[Transformer, jax.ShapeDtypeStruct, KVCache]:
  """The abstract model, tokens and cache of a decoding step on the current mesh."""
  read, arguments = _prefill(config, mesh)
  cache = partitioning.abstract(read, *arguments)
  layout = jax.sharding.NamedSharding(mesh, partitioning.spec('batch'))
  tokens = jax.ShapeDtypeStruct((config.data.batch_rows,), np.int32, sharding=layout)
  return arguments[0], tokens, cache


def _prefill(config, mesh):
  """What reads the prompts, and its abstract arguments."""
  sharding = partitioning.batch_sharding(mesh, config.mesh.rules)
  shape = (config.data.batch_rows, config.data.lengths['inputs'])
  prompts = jax.ShapeDtypeStruct(shape, np.int32, sharding=sharding)
  read = functools.partial(Transformer.start_decoding, max_length=config.data.lengths['targets'])
  return read, (train_state.abstract_state(config).model, prompts, prompts)


def bytes_per_chip(tree: Any) -> int:
  """Bytes that one device holds of a pytree of abstract arrays with shardings."""
  return sum(
    math.prod(x.sharding.shard_shape(x.shape)) * _itemsize(x.dtype) for x in jax.tree.leaves(tree)
  )


def replicated(config: TrainConfig, mesh: Mesh, *, least_bytes: int = 2**20) -> list[str]:
  """Large parameters that every device holds whole, though the mesh splits others."""
  if mesh.size == 1 or config.mesh.rules == 'data_parallel':
    return []
  with partitioning.use_mesh(mesh, config.mesh.rules):
    table = partitioning.parameter_table(train_state.abstract_state(config).model)
  return [
    row.path
    for row in table
    if row.bytes >= least_bytes and all(entry is None for entry in row.spec)
  ]


def _one_row(config: TrainConfig) -> Mapping[str, np.ndarray]:
  """The features of a row, for their names, lengths and types."""
  limits = (config.data.lengths['inputs'], config.data.lengths['targets'])
  kind = layouts.DecoderOnly if config.model.decoder_only else layouts.EncoderDecoder
  return layouts.one_row(kind(limits))


def _itemsize(dtype) -> int:
  return np.dtype(dtype).itemsize if not jnp.issubdtype(dtype, jax.dtypes.extended) else 8
