"""Reads a compiled program: its collectives, its work, and what of both runs at the same time.

XLA's own cost analysis counts the body of a loop once; here every instruction counts as often as
the loops around it turn. Nothing here knows a model, a chip or a mesh.
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator

from flan_jax.planning import products
from flan_jax.planning.instructions import (
  Computations,
  Instruction,
  arrays_of,
  bytes_of,
  parse,
  runs,
)
from flan_jax.planning.replica_groups import first_group

KINDS = ('all-gather', 'all-reduce', 'reduce-scatter', 'all-to-all', 'collective-permute')
_KIND = re.compile(rf'^({"|".join(KINDS)})(-start|-done)?$')
# They name or forward what is there already, or call what is read on its own.
_FREE = {
  *('parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'while', 'conditional'),
  *('call', 'after-all', 'partition-id', 'replica-id', 'iota', 'optimization-barrier'),
}
_CUTS = ('slice', 'dynamic-slice')
_IN_PLACE = (*_CUTS, 'dynamic-update-slice')
# What calls a computation and still is one instruction.
_WHOLE = ('fusion', 'async-start', 'async-update', 'async-done')


@dataclasses.dataclass(frozen=True)
class Collective:
  """One exchange among chips, as often as a step does it.

  Attributes:
    kind: one of KINDS.
    shape: of what one chip has afterwards; of several arrays, the first's.
    bytes: of all that one chip has afterwards (of a reduce-scatter: before), once.
    count: times a step.
    group: the devices of the first group, as positions in the mesh.
    source: the operation in the traced program.
    beside: what XLA has scheduled between its start and its end, as positions in `Program.work`.
      Where the collective is cut into parts that fused products carry along, these alone; without
      a start and an end of its own, nothing.
  """

  kind: str
  shape: tuple[int, ...]
  bytes: int
  count: int
  group: tuple[int, ...]
  source: str = ''
  beside: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Copy:
  """An asynchronous copy between memories: bytes of main memory, and as in Collective."""

  bytes: int
  count: int
  beside: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Work:
  """One instruction.

  Attributes:
    flops: operations of its matrix products.
    bytes: of main memory.
    count: times a step.
    cycles: of the chip's clock, by XLA's own cost model; 0 where it says nothing.
    kernel: name of a Pallas kernel, or ''.
    exponentials: of a Pallas kernel, by what it says of itself.
  """

  flops: int
  bytes: int
  count: int
  cycles: int = 0
  kernel: str = ''
  exponentials: int = 0


@dataclasses.dataclass(frozen=True)
class Program:
  """What one chip does in a step.

  Attributes:
    collectives: in the order in which they begin.
    work: of all instructions but collectives and asynchronous copies, in their order.
    copies: asynchronous ones, in the order in which they begin.
    unknown_loops: loops whose number of turns the text does not say; counted once.
  """

  collectives: tuple[Collective, ...] = ()
  work: tuple[Work, ...] = ()
  copies: tuple[Copy, ...] = ()
  unknown_loops: int = 0

  @property
  def flops(self) -> int:
    """Operations of all matrix products of a step."""
    return sum(w.flops * w.count for w in self.work)

  @property
  def memory_bytes(self) -> int:
    """Bytes read from and written to the chip's main memory in a step."""
    return sum(x.bytes * x.count for x in (*self.work, *self.copies))


def read(text: str) -> Program:
  """Reads the text of an optimised HLO module, `jax.stages.Compiled.as_text()`."""
  computations, entry = parse(text)
  counts, unknown = runs(computations, entry)
  collectives, work, copies = [], [], []
  for name, count in counts.items():
    own, places = _work(computations, name, count, first=len(work))
    work += own
    collectives += _collectives(computations, name, count, places)
    copies += _copies(computations[name], count, places)
  return Program(tuple(collectives), tuple(work), tuple(copies), unknown)


# Instruction -> positions in Program.work of itself, if it is there, and of what follows it.
_Places = dict[str, tuple[range, int]]


def _work(computations, name, count, first) -> tuple[list[Work], _Places]:
  """What the instructions of one computation do, each of their arrays moved once."""
  work, places = [], {}
  shapes = {i.name: i.shape for i in computations[name]}
  for i in computations[name]:
    begin = first + len(work)
    if not (i.op in _FREE or i.op.endswith(('-start', '-update', '-done')) or _KIND.match(i.op)):
      work += _work_of(i, [shapes.get(name, '') for name in i.operands], count, computations)
    places[i.name] = range(begin, first + len(work)), first + len(work)
  return work, places


def _work_of(i: Instruction, operands: list[str], count: int, computations) -> list[Work]:
  """What one instruction does; nothing where it only begins or ends a collective."""
  if i.op in _IN_PLACE:
    part = i.shape if i.op in _CUTS else operands[1]
    return [Work(0, 2 * bytes_of(part, main_memory=True), count)]
  body = computations.get(i.attribute('calls'), []) if i.op == 'fusion' else []
  results = arrays_of(i.shape)
  reads, updates = _slices(body)
  numbers: Iterable[int] = range(len(operands))
  if any(_KIND.match(each.op) for each in body):
    # Besides its own operands and results it has those of the collective that it carries along.
    own = dict(re.findall(r'"(\w+_original_\w+)":"(\d+)"', i.rest))
    if not own:
      return []
    numbers = range(int(own['operand_original_start']), int(own['operand_original_end']) + 1)
    results = results[
      int(own['output_tuple_original_start']) : int(own['output_tuple_original_end']) + 1
    ]
  moved = 0 if updates else sum(size for _, size, main in results if main)
  for number in numbers:
    whole = bytes_of(operands[number], main_memory=True)
    moved += min(whole, reads.get(number, whole))
  if i.op != 'custom-call':
    return [Work(_flops(i, operands, computations), moved, count, _cycles(i))]
  name = re.search(r'(\w+)\)*/pallas_call"', i.rest)  # inside 'jvp(' and the like
  flops, exponentials = _said('flops', i), _said('transcendentals', i)
  return [Work(flops, moved, count, _cycles(i), name[1] if name else '', exponentials)]


def _collectives(computations, name, count, places: _Places) -> Iterator[Collective]:
  """The collectives of one computation, whole or in parts."""
  found: dict[tuple[str, str], list[tuple[Instruction, Instruction, str]]] = {}
  for i in computations[name]:
    if match := _KIND.match(i.op):
      key = i.operands[0] if match[2] == '-done' else i.name
      found.setdefault(('', key), []).append((i, i, name))
    callee = (i.attribute('calls') or '') if i.op in _WHOLE else ''
    for each in computations.get(callee, []):
      if _KIND.match(each.op):
        # Each part has a copy of the whole with its channel.
        channel = re.search(r'channel_id=(\d+)', each.rest)
        key = each.op, channel[1] if channel else each.name
        found.setdefault(key, []).append((i, each, callee))
  for parts in found.values():
    holders = [holder for holder, _, _ in parts]
    beside: Iterable[int] = range(places[holders[0].name][1], places[holders[-1].name][0].start)
    if holders[0].op == 'fusion':
      beside = [place for holder in holders[1:-1] for place in places[holder.name][0]]
    _, instruction, inside = parts[0]
    shapes = {each.name: each.shape for each in computations[inside]}
    yield _collective(instruction, shapes, inside, count, tuple(beside))


def _collective(i: Instruction, shapes, inside, count, beside) -> Collective:
  kind, start = _KIND.match(i.op).groups()  # type: ignore
  group = first_group(i.rest)
  arrays, size = arrays_of(i.shape), bytes_of(i.shape)
  if start and len(arrays) > 1:  # operands and results, of a permute also two counters
    size -= sum(bytes_of(shapes.get(name, '')) for name in i.operands)
  if kind == 'reduce-scatter':
    size *= len(group)
  if kind == 'all-reduce' and inside.startswith('all-reduce-scatter'):
    kind = 'reduce-scatter'  # as XLA for TPU writes it, fused with the slice that a chip keeps
  source = re.search(r'op_name="([^"]*)"', i.rest)
  return Collective(kind, arrays[0][0], size, count, group, source[1] if source else '', beside)


def _copies(instructions: list[Instruction], count, places: _Places) -> Iterator[Copy]:
  """Asynchronous copies and slices between main memory and that on the chip."""
  starts = {i.name: i for i in instructions if re.match(r'(copy|\w*slice)-start$', i.op)}
  for done in instructions:
    if not (done.op.endswith('-done') and done.operands[0] in starts):
      continue
    start = starts[done.operands[0]]
    # Source and destination in either order, and counters.
    (_, one, one_main), (_, other, other_main) = arrays_of(start.shape)[:2]
    moved = min(one, other) * (one_main + other_main)
    yield Copy(moved, count, tuple(range(places[start.name][1], places[done.name][0].start)))


def _flops(instruction: Instruction, operands: list[str], computations: Computations) -> int:
  """Operations of an instruction's product, or of those of the computation that it fuses."""
  if instruction.op != 'fusion':
    return products.flops(instruction.op, instruction.shape, operands, instruction.rest)
  body = computations.get(instruction.attribute('calls') or '', [])
  shapes = {i.name: i.shape for i in body}
  return sum(_flops(i, [shapes.get(n, '') for n in i.operands], computations) for i in body)


def _cycles(i: Instruction) -> int:
  found = re.search(r'"estimated_cycles":"(\d{1,15})"', i.rest)  # more digits stand for unknown
  return int(found[1]) if found else 0


def _said(what: str, i: Instruction) -> int:
  """What a Pallas kernel's `cost_estimate` says; 0 of any other call."""
  found = re.search(rf'"cost_estimate":\{{[^}}]*"{what}":"(\d+)"', i.rest)
  return int(found[1]) if found else 0


def _slices(body: list[Instruction]) -> tuple[dict[int, int], bool]:
  """Of a fused computation: parameter -> bytes, where only slices of it are read or written.

  And whether any is written, so that the result is the parameter itself.
  """
  numbers = {i.name: int(i.rest.split(')')[0]) for i in body if i.op == 'parameter'}
  shapes = {i.name: i.shape for i in body}
  reads, updated = {}, False
  for name, number in numbers.items():
    users = [i for i in body if name in i.operands]
    if not users or any(i.op not in _IN_PLACE or i.operands[0] != name for i in users):
      continue
    updates = [i for i in users if i.op == 'dynamic-update-slice']
    parts = [shapes.get(i.operands[1], '') for i in updates]
    parts += [i.shape for i in users if i.op in _CUTS]
    reads[number] = sum(map(bytes_of, parts))
    updated |= bool(updates)
  return reads, updated
