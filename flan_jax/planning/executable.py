"""The compiled training step in a file: written where it was planned, run where the chips are."""

import pickle
from pathlib import Path

import jax
from jax.experimental import serialize_executable
from jax.sharding import Mesh

from flan_jax import partitioning, whole_file
from flan_jax.planning import steps
from flan_jax.train import TrainConfig


def write(path: Path, compiled: jax.stages.Compiled) -> None:
  """Writes a compiled step for `read`, on hardware of the same topology."""
  payload, _, _ = serialize_executable.serialize(compiled)
  whole_file.write(path, pickle.dumps({'jax': jax.__version__, 'executable': payload}))


def read(path: Path, config: TrainConfig, mesh: Mesh) -> jax.stages.Compiled:
  """Loads a train step that `flan-jax plan --save` wrote, on the chips it was compiled for.

  Only files of one's own: loading one can run any code.

  Args:
    path: what was written.
    config: the configuration that was planned.
    mesh: its mesh over those chips.
  """
  saved = pickle.loads(path.read_bytes())
  if saved['jax'] != jax.__version__:
    raise ValueError(
      f'{path} was compiled with JAX {saved["jax"]} and this is {jax.__version__}; plan again.'
    )
  with partitioning.use_mesh(mesh, config.mesh.rules):
    arguments = steps.train_arguments(config, mesh)
    results = jax.eval_shape(steps.train_function(config), *arguments)
  in_tree, out_tree = jax.tree.structure((arguments, {})), jax.tree.structure(results)
  return serialize_executable.deserialize_and_load(saved['executable'], in_tree, out_tree)
