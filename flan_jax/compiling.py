"""What XLA is asked for where a training step is compiled, for a run and for a plan alike."""

import os

from jax.sharding import Mesh

# Without them XLA for TPU v4 and v5p lets the chip wait for every collective; with them a product
# carries the parts of a gather or a reduce-scatter along. docs/plan.md says what that saves.
_TPU_OPTIONS = {
  'xla_enable_async_all_gather': True,
  'xla_enable_async_reduce_scatter_fusion': True,
  'xla_tpu_enable_async_collective_fusion': True,
  'xla_tpu_enable_async_collective_fusion_fuse_all_gather': True,
  'xla_tpu_enable_async_collective_fusion_fuse_reduce_scatter': True,
  'xla_tpu_enable_async_collective_fusion_multiple_steps': True,
  'xla_tpu_overlap_compute_collective_tc': True,
}


def compiler_options(mesh: Mesh) -> dict[str, str | bool]:
  """Options of `jax.stages.Lowered.compile` for a step on `mesh`; none but on TPUs.

  An option that the environment variable LIBTPU_INIT_ARGS names is left to it.
  """
  if mesh.devices.flat[0].platform != 'tpu':
    return {}
  given = {
    flag.split('=')[0].lstrip('-') for flag in os.environ.get('LIBTPU_INIT_ARGS', '').split()
  }
  return {name: value for name, value in _TPU_OPTIONS.items() if name not in given}
