"""What XLA is asked for where a training step is compiled, for a run and for a plan alike."""

import os

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
# Leaves out passes that take a sixth of the time of compiling and make no step faster.
_CPU_OPTIONS = {'xla_cpu_opt_preset': 'CPU_OPT_PRESET_FAST_COMPILE'}
_OPTIONS = {'tpu': _TPU_OPTIONS, 'cpu': _CPU_OPTIONS}
_VARIABLES = {'tpu': 'LIBTPU_INIT_ARGS'}  # where flags for XLA are, if not in XLA_FLAGS


def compiler_options(platform: str) -> dict[str, str | bool]:
  """Options of `jax.stages.Lowered.compile` for devices of a platform; none for GPUs.

  An option that the environment variable XLA_FLAGS names, or LIBTPU_INIT_ARGS for TPUs, is left to
  it.
  """
  flags = os.environ.get(_VARIABLES.get(platform, 'XLA_FLAGS'), '').split()
  given = {flag.split('=')[0].lstrip('-') for flag in flags}
  options = _OPTIONS.get(platform, {})
  return {name: value for name, value in options.items() if name not in given}
