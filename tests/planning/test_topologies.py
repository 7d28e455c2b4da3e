"""Slices by name, and the arithmetic of links."""

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest

from flan_jax.models.tiled_attention import ATTENTION, GRADIENTS
from flan_jax.planning import estimate, hlo, topologies


@pytest.mark.parametrize(
  'name, shape, chips',
  [
    ('v4-512', (4, 8, 8), 256),
    ('v4-64', (2, 4, 4), 32),
    ('v5e-256', (16, 16), 256),
    ('v5p-128', (4, 4, 4), 64),
    ('v6e-64', (8, 8), 64),
    ('v5p:8x8x16', (8, 8, 16), 1024),
    ('v4:12x12x24', (12, 12, 24), 3456),
    ('2xv5e-256', (16, 16), 512),
  ],
)
def test_names_say_how_many_chips_and_how_they_lie(name, shape, chips):
  found = topologies.parse(name)
  assert (found.shape, found.num_chips) == (shape, chips)
  assert topologies.parse(found.name) == found


@pytest.mark.parametrize(
  'name, words',
  [
    ('v5p-100', "Did you mean 'v5p-1"),
    ('v5e-512', "'v5e-"),
    ('v9-8', 'No TPU topology'),
    ('v5p:8x8x9', '8x8x8'),
    ('v5e:32x32', '16x16'),
    ('', 'No TPU topology'),
    ('a100', 'No TPU topology'),
  ],
)
def test_a_topology_that_does_not_exist_is_refused_with_the_nearest(name, words):
  with pytest.raises(ValueError, match=words):
    topologies.parse(name)


def mesh_over(topology, **sizes):
  """A mesh whose devices lie in the order of their coordinates."""
  chips = np.empty(topology.num_chips, dtype=object)
  for index, coords in enumerate(np.ndindex(*topology.shape)):
    chips[index] = SimpleNamespace(coords=coords)
  return SimpleNamespace(shape=sizes, devices=chips.reshape(tuple(sizes.values())))


def collective(kind, group, size=2**30):
  return hlo.Collective(kind, (size,), size, 1, tuple(group))


def test_an_all_gather_uses_both_directions_of_every_ring_it_spans():
  topology = topologies.parse('v5p-128')
  mesh = mesh_over(topology, fsdp=16, tensor=4)
  rate = topology.chip.link_bytes_per_second * estimate.LINKS
  along_one = estimate.exchange(collective('all-gather', range(4)), topology, mesh)
  along_two = estimate.exchange(collective('all-gather', range(0, 64, 4)), topology, mesh)
  assert along_one.axes == 'tensor'
  assert along_two.axes == 'fsdp'
  hops = 2 * estimate.HOP_SECONDS
  assert along_one.seconds == pytest.approx(3 / 4 * 2**30 / (2 * rate) + hops)
  assert along_two.seconds == pytest.approx(15 / 16 * 2**30 / (4 * rate) + 2 * hops)


def test_an_all_reduce_takes_twice_an_all_gather_and_a_line_twice_a_ring():
  ring, line = topologies.parse('v5e-256'), topologies.parse('v5e-64')
  meshes = mesh_over(ring, fsdp=16, tensor=16), mesh_over(line, fsdp=8, tensor=8)
  gather, reduce = (
    estimate.exchange(collective(kind, range(16)), ring, meshes[0]).seconds
    for kind in ('all-gather', 'all-reduce')
  )
  assert reduce == pytest.approx(2 * gather, rel=1e-3)
  on_line = estimate.exchange(collective('all-gather', range(8)), line, meshes[1]).seconds
  assert on_line / (7 / 8) == pytest.approx(2 * gather / (15 / 16), rel=1e-3)


def test_slices_are_joined_by_the_network_alone():
  topology = dataclasses.replace(topologies.parse('v5e-4'), slices=2)
  mesh = mesh_over(topologies.parse('v5e-4'), fsdp=4)
  chips = [SimpleNamespace(coords=c.coords, slice_index=s) for s in (0, 1) for c in mesh.devices]
  mesh = SimpleNamespace(shape={'data': 2, 'fsdp': 4}, devices=np.array(chips).reshape(2, 4))
  found = estimate.exchange(collective('all-reduce', (0, 4)), topology, mesh)
  network = topology.chip.network_bytes_per_second * estimate.LINKS
  assert found.axes == 'data'
  assert found.seconds == pytest.approx(2**30 / network, rel=1e-3)


def test_operations_take_the_longer_of_products_and_memory_and_wait_for_what_is_not_hidden():
  topology = topologies.parse('v5p-8')
  mesh = mesh_over(topology, fsdp=4)
  chip = topology.chip
  second_of_products = round(chip.flops_per_second * estimate.PRODUCTS)
  second_of_memory = round(chip.hbm_bytes_per_second * estimate.MEMORY)
  work = (
    hlo.Work(second_of_products, second_of_memory // 2, 3),
    hlo.Work(0, second_of_memory, 2),
  )
  waiting = collective('all-gather', range(4))
  hidden = dataclasses.replace(waiting, bytes=2**20, beside=(1,))
  found = estimate.estimate(hlo.Program((waiting, hidden), work), topology, mesh)
  assert found.operations == pytest.approx(5)
  assert found.products == pytest.approx(3)
  assert found.step == pytest.approx(5 + found.waiting)
  assert found.limit == 'products'
  longest, other = found.exchanges
  assert math.isclose(longest.seconds, found.waiting)
  assert math.isclose(other.seconds, found.hidden)


@pytest.mark.parametrize('kernel', [ATTENTION, GRADIENTS])
def test_a_kernel_of_attention_takes_no_less_than_its_cycles(kernel):
  topology = topologies.parse('v5p-8')
  chip, mesh = topology.chip, mesh_over(topology, fsdp=4)
  second = round(chip.cores * chip.cycles_per_second / chip.cycles_per_score[kernel])
  work = (hlo.Work(flops=1000, bytes=1000, count=3, kernel=kernel, exponentials=second),)
  found = estimate.estimate(hlo.Program(work=work), topology, mesh)
  assert found.operations == pytest.approx(3)


def test_an_operation_hides_no_more_seconds_of_collectives_than_it_takes():
  topology = topologies.parse('v5p-8')
  mesh = mesh_over(topology, fsdp=4)
  work = (hlo.Work(0, round(0.005 * topology.chip.hbm_bytes_per_second * estimate.MEMORY), 1),)
  beside = dataclasses.replace(collective('all-gather', range(4)), beside=(0,))
  found = estimate.estimate(hlo.Program((beside, beside), work), topology, mesh)
  assert found.hidden == pytest.approx(0.005)
  assert found.hidden + found.waiting == pytest.approx(2 * found.exchanges[0].seconds)


def test_a_copy_is_hidden_by_what_operations_leave_of_the_memory():
  topology = topologies.parse('v5p-8')
  mesh = mesh_over(topology, fsdp=4)
  second_of_products = round(topology.chip.flops_per_second * estimate.PRODUCTS)
  second_of_memory = round(topology.chip.hbm_bytes_per_second * estimate.MEMORY)
  work = (hlo.Work(second_of_products, second_of_memory // 4, 1),)
  for beside, seconds in (((0,), 1.25), ((), 2.0)):
    program = hlo.Program(work=work, copies=(hlo.Copy(second_of_memory, 1, beside),))
    assert estimate.estimate(program, topology, mesh).operations == pytest.approx(seconds)
