"""What is read of a compiled program equals what can be counted by hand."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax import partitioning
from flan_jax.planning import hlo, products
from flan_jax.planning.instructions import bytes_of
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


def test_memory_counts_what_is_cut_at_a_fixed_place_alone_and_fused():
  text = """HloModule cut

%fused (whole: f32[8,4,4]) -> f32[1,4,4] {
  %whole = f32[8,4,4]{2,1,0} parameter(0)
  ROOT %part = f32[1,4,4]{2,1,0} slice(%whole), slice={[3:4], [0:4], [0:4]}
}

ENTRY %main (kernels: f32[8,4,4]) -> (f32[1,4,4], f32[1,4,4]) {
  %kernels = f32[8,4,4]{2,1,0} parameter(0)
  %alone = f32[1,4,4]{2,1,0} slice(%kernels), slice={[2:3], [0:4], [0:4]}
  %other = f32[1,4,4]{2,1,0} fusion(%kernels), kind=kLoop, calls=%fused
  ROOT %both = (f32[1,4,4]{2,1,0}, f32[1,4,4]{2,1,0}) tuple(%alone, %other)
}
"""
  read_and_written = 2 * (4 * 16)
  assert hlo.read(text).memory_bytes == 2 * read_and_written


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
  assert bytes_of(shape) == 12 + 16 + 1
  assert bytes_of(shape, main_memory=True) == 12 + 1


# As libtpu writes it: a gather with a start, a product that carries a part of it along and an end,
# each a fusion with a copy of the whole; a permute with an operation between its start and end; a
# reduce-scatter as a fused sum and slice, which nothing hides; a copy to memory on the chip. The
# permute has the gather's channel, as happens.
TPU = (Path(__file__).parent / 'overlapped.hlo').read_text()
CARRYING = 2 * 16 * 32 * 64, 2 * (16 * 64 + 16 * 32 + 32 * 64)
TANH = 0, 2 * 2 * 16 * 32


def beside(program, transfer):
  work = [program.work[place] for place in transfer.beside]
  return [(w.flops, w.bytes) for w in work]


def test_a_collective_in_parts_is_beside_the_products_that_carry_it():
  program = hlo.read(TPU)
  gather = program.collectives[0]
  assert (gather.kind, gather.count, gather.bytes) == ('all-gather', 24, 2 * 32 * 64)
  assert beside(program, gather) == [CARRYING]


def test_a_collective_with_a_start_is_beside_all_until_its_end():
  program = hlo.read(TPU)
  permute = program.collectives[1]
  assert (permute.kind, permute.count, permute.group) == ('collective-permute', 24, (0, 1))
  assert beside(program, permute) == [TANH]
  (copy,) = program.copies
  assert (copy.count, copy.bytes) == (24, 2 * 32 * 64)
  assert beside(program, copy) == [TANH]


def test_a_pallas_kernel_says_itself_what_it_computes():
  cost = '{"flops":"4096","transcendentals":"512","bytes_accessed":"64"}'
  call = f"""
ENTRY %main (x: bf16[2,8]) -> bf16[2,8] {{
  %x = bf16[2,8]{{1,0}} parameter(0)
  %other = bf16[2,8]{{1,0}} custom-call(%x), custom_call_target="Other"
  ROOT %k = bf16[2,8]{{1,0}} custom-call(%other), \
metadata={{op_name="jit(f)/transpose(jvp(attention))/pallas_call"}}, \
backend_config={{"a":"b","cost_estimate":{cost}}}
}}
"""
  other, kernel = hlo.read(call).work
  assert (other.flops, other.exponentials, other.bytes) == (0, 0, 64)
  assert (kernel.flops, kernel.exponentials, kernel.bytes) == (4096, 512, 64)
  assert (other.kernel, kernel.kernel) == ('', 'attention')


def test_a_fused_sum_and_slice_is_a_reduce_scatter_that_nothing_hides():
  scatter = hlo.read(TPU).collectives[2]
  assert (scatter.kind, scatter.bytes) == ('reduce-scatter', 2 * 32 * 64)
  assert (scatter.count, scatter.beside) == (24, ())


def test_what_only_begins_or_ends_a_collective_is_no_work():
  work = hlo.read(TPU).work
  assert [(w.flops, w.bytes) for w in work if w.flops or w.bytes] == [CARRYING, TANH]


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
