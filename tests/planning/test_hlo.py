"""What is read of a compiled program equals what can be counted by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax import partitioning
from flan_jax.planning import hlo, products
from flan_jax.planning.replica_groups import first_group

LAYERS, ROWS, WIDTH = 5, 16, 64


def looped(weights, x):
  """One gather of each layer's kernel over `fsdp`, and one sum over it at the end."""

  def body(x, kernel):
    kernel = partitioning.shard(kernel, 'act_embed', None)
    return jnp.tanh(jnp.einsum('be,ef->bf', x, kernel)), None

  x, _ = jax.lax.scan(body, x, weights)
  return jnp.sum(x)


@functools.cache
def compiled() -> str:
  with partitioning.use_mesh(partitioning.MeshConfig(data=2, fsdp=4)) as mesh:
    sharding = functools.partial(jax.sharding.NamedSharding, mesh)
    weights = jax.ShapeDtypeStruct(
      (LAYERS, WIDTH, WIDTH),
      jnp.float32,
      sharding=sharding(partitioning.spec('layers', 'embed', None)),
    )
    x = jax.ShapeDtypeStruct(
      (ROWS, WIDTH), jnp.float32, sharding=sharding(partitioning.spec('batch', None))
    )
    return jax.jit(looped).lower(weights, x).compile().as_text()


def test_a_collective_in_a_loop_counts_as_often_as_the_loop_turns():
  program = hlo.read(compiled())
  (gather,) = [c for c in program.collectives if c.kind == 'all-gather']
  assert gather.count == LAYERS
  assert gather.bytes == WIDTH * WIDTH * 4
  assert gather.group == (0, 1, 2, 3)  # fsdp, the minor axis of data x fsdp
  (total,) = [c for c in program.collectives if c.kind == 'all-reduce']
  assert (total.count, total.bytes, len(total.group)) == (1, 4, 8)
  assert program.unknown_loops == 0


def test_products_of_a_loop_count_as_often_as_the_loop_turns():
  rows_of_a_device = ROWS // 8
  assert hlo.read(compiled()).flops == LAYERS * 2 * rows_of_a_device * WIDTH * WIDTH


def test_memory_counts_a_slice_and_not_the_array_it_is_cut_from():
  moved = hlo.read(compiled()).memory_bytes
  kernels = LAYERS * WIDTH * WIDTH * 4
  assert kernels < moved < 6 * kernels  # all kernels at every turn would be LAYERS times as much


@pytest.mark.parametrize(
  'text, group',
  [
    ('replica_groups={{0,2},{1,3}}, dimensions={0}', (0, 2)),
    ('replica_groups=[2,4]<=[8], x', (0, 1, 2, 3)),
    ('replica_groups=[4,2]<=[2,4]T(1,0), x', (0, 4)),
    ("replica_groups=mesh['a'=2,'b'=4] {'b'}, x", (0, 1, 2, 3)),
    ("replica_groups=mesh['a'=2,'b'=4] {'a'}, x", (0, 4)),
    ("replica_groups=mesh['a'=2,'b'=4] {'b':(1)2}, x", (0, 2)),
    ("replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'b'}, x", (0, 4)),
    ('source_target_pairs={{0,3},{3,0}}', (0, 3)),
  ],
)
def test_groups_are_read_in_every_form(text, group):
  assert first_group(text) == group


def test_groups_of_an_unknown_form_are_refused():
  with pytest.raises(ValueError, match='in no form that is known'):
    first_group('replica_groups=@elsewhere')


def test_bytes_of_a_tuple_and_of_what_stays_on_the_chip():
  shape = '(bf16[2,3]{1,0:T(8,128)(2,1)}, f32[4]{0:T(128)S(1)}, pred[])'
  assert hlo.bytes_of(shape) == 12 + 16 + 1
  assert hlo.bytes_of(shape, main_memory=True) == 12 + 1


# As libtpu writes it: a collective that products hide has a start, a part and an end, and a
# reduce-scatter is a fused sum and slice.
TPU = """HloModule m

%fused.1 (p: bf16[8]) -> bf16[32] {
  %p = bf16[8]{0} parameter(0)
  ROOT %ag.1 = bf16[32]{0} all-gather(%p), channel_id=7, replica_groups=[1,4]<=[4], dimensions={0}
}

%fused.2 (p: bf16[8]) -> bf16[32] {
  %p = bf16[8]{0} parameter(0)
  ROOT %ag.2 = bf16[32]{0} all-gather(%p), channel_id=7, replica_groups=[1,4]<=[4], dimensions={0}
}

%all-reduce-scatter.1 (input: bf16[32]) -> bf16[8] {
  %input = bf16[32]{0} parameter(0)
  %all-reduce.1 = bf16[32]{0} all-reduce(%input), channel_id=9, replica_groups={{0,1,2,3}}
  %zero = u32[] constant(0)
  ROOT %slice = bf16[8]{0} dynamic-slice(%all-reduce.1, %zero), dynamic_slice_sizes={8}
}

%body (t: (s32[], bf16[8])) -> (s32[], bf16[8]) {
  %t = (s32[], bf16[8]{0}) parameter(0)
  %x = bf16[8]{0} get-tuple-element(%t), index=1
  %f1 = bf16[32]{0} fusion(%x), kind=kCustom, calls=%fused.1
  %f2 = bf16[32]{0} fusion(%x), kind=kCustom, calls=%fused.2
  %rs = bf16[8]{0} fusion(%f2), kind=kCustom, calls=%all-reduce-scatter.1
  ROOT %out = (s32[], bf16[8]{0}) tuple(%x, %rs)
}

%condition (t: (s32[], bf16[8])) -> pred[] {
  %t = (s32[], bf16[8]{0}) parameter(0)
  %limit = s32[] constant(24)
  %i = s32[] get-tuple-element(%t), index=0
  ROOT %less = pred[] compare(%i, %limit), direction=LT
}

ENTRY %main (t: (s32[], bf16[8])) -> (s32[], bf16[8]) {
  %t = (s32[], bf16[8]{0}) parameter(0)
  ROOT %loop = (s32[], bf16[8]{0}) while(%t), condition=%condition, body=%body
}
"""


def test_a_hidden_collective_is_one_and_a_fused_sum_and_slice_a_reduce_scatter():
  gather, scatter = hlo.read(TPU).collectives
  assert (gather.kind, gather.count, gather.bytes, gather.overlapped) == (
    'all-gather',
    24,
    64,
    True,
  )
  assert (scatter.kind, scatter.count, scatter.bytes, scatter.overlapped) == (
    'reduce-scatter',
    24,
    64,
    False,
  )


def direct_meetings(lhs, out, size, stride, pad, dilate):
  dilated = np.zeros((lhs - 1) * dilate + 1)
  dilated[::dilate] = 1
  padded = np.pad(dilated, (pad, size + stride * out))
  return int(sum(padded[o * stride : o * stride + size].sum() for o in range(out)))


@pytest.mark.parametrize(
  'lhs, out, size, stride, pad, dilate',
  [(64, 64, 64, 63, 0, 64), (1, 64, 64, 1, 63, 1), (6, 6, 1, 1, 0, 1), (7, 4, 3, 2, 1, 1)],
)
def test_a_windows_meetings_are_those_counted_one_by_one(lhs, out, size, stride, pad, dilate):
  window = f'window={{size={size} stride={stride} pad={pad}_{pad} lhs_dilate={dilate}}}'
  shapes = [f'bf16[3,{lhs},5]', f'bf16[{size},5,7]']
  counted = products.flops(
    'convolution', f'bf16[3,{out},7]', shapes, f'{window}, dim_labels=b0f_0io->b0f'
  )
  met = direct_meetings(lhs, out, size, stride, pad, dilate)
  assert counted == 2 * 3 * 7 * 5 * met
