"""Reads a compiled program: which collectives it runs, how often, and what it moves through memory.

XLA's own cost analysis counts the body of a loop once; here every instruction counts as often as
the loops around it turn. Nothing here knows a model, a chip or a mesh.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

from flan_jax.planning import products
from flan_jax.planning.replica_groups import first_group

KINDS = ('all-gather', 'all-reduce', 'reduce-scatter', 'all-to-all', 'collective-permute')
_COLLECTIVE = re.compile(rf'^({"|".join(KINDS)})(-start)?$')
_INSTRUCTION = re.compile(r'^\s+(?:ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\((.*)$')
_SHAPE = re.compile(r'(pred|[a-z]+\d+\w*)\[([\d,]*)\](?:\{([^}]*)\})?')
# They name or forward what is there already.
_FREE = {
  *('parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'while', 'conditional'),
  *('call', 'after-all', 'partition-id', 'replica-id', 'iota', 'copy-done', 'optimization-barrier'),
}
_IN_PLACE = ('dynamic-slice', 'dynamic-update-slice')


@dataclasses.dataclass(frozen=True)
class Collective:
  """One exchange among chips, as often as a step does it.

  Attributes:
    kind: one of KINDS.
    shape: of what one chip has afterwards; of several arrays, the first's.
    bytes: of all that one chip has afterwards (of a reduce-scatter: before), once.
    count: times a step.
    group: the devices of the first group, as positions in the mesh.
    overlapped: whether XLA runs it beside products; otherwise the chip waits for it.
    source: the operation in the traced program.
  """

  kind: str
  shape: tuple[int, ...]
  bytes: int
  count: int
  group: tuple[int, ...]
  overlapped: bool
  source: str


@dataclasses.dataclass(frozen=True)
class Work:
  """One instruction: operations of its matrix products, bytes of main memory, times a step."""

  flops: int
  bytes: int
  count: int


@dataclasses.dataclass(frozen=True)
class Program:
  """What one chip does in a step.

  Attributes:
    collectives: in the order of the text; each channel once.
    work: of every other instruction.
    unknown_loops: loops whose number of turns the text does not say; counted once.
  """

  collectives: tuple[Collective, ...]
  work: tuple[Work, ...]
  unknown_loops: int

  @property
  def flops(self) -> int:
    """Operations of all matrix products of a step."""
    return sum(w.flops * w.count for w in self.work)

  @property
  def memory_bytes(self) -> int:
    """Bytes read from and written to the chip's main memory in a step."""
    return sum(w.bytes * w.count for w in self.work)


@dataclasses.dataclass(frozen=True)
class _Instruction:
  name: str
  shape: str
  op: str
  rest: str

  @functools.cached_property
  def operands(self) -> list[str]:
    """Names of the operands; attributes begin after the parenthesis that closes the call."""
    return re.findall(r'%([\w.-]+)', self.rest.split('), ', 1)[0])

  def attribute(self, name: str) -> str | None:
    """The computation that attribute `name` refers to, or None."""
    found = re.search(rf'\b{name}=%?([\w.-]+)', self.rest)
    return found[1] if found else None


def read(text: str) -> Program:
  """Reads the text of an optimised HLO module, `jax.stages.Compiled.as_text()`."""
  computations, entry = _computations(text)
  counts, fused, unknown = _counts(computations, entry)
  collectives = tuple(_collectives(computations, counts))
  work = tuple(
    work
    for name, instructions in computations.items()
    if counts.get(name) and name not in fused
    for work in _work(instructions, counts[name], computations)
  )
  return Program(collectives, work, unknown)


def bytes_of(shape: str, *, main_memory: bool = False) -> int:
  """Bytes of the arrays of an HLO shape; with `main_memory`, without those kept on the chip."""
  total = 0
  for dtype, dims, layout in _SHAPE.findall(shape):
    if main_memory and re.search(r'S\([1-9]', layout):
      continue
    bits = 8 if dtype == 'pred' else int(re.findall(r'\d+', dtype)[0])
    total += math.prod(map(int, filter(None, dims.split(',')))) * bits // 8
  return total


def _computations(text: str) -> tuple[dict[str, list[_Instruction]], str]:
  computations, current, entry = {}, [], ''
  for line in text.splitlines():
    if line[:1] in ('%', 'E') and line.rstrip().endswith('{'):
      is_entry = line.startswith('ENTRY')
      name = line.removeprefix('ENTRY ').split(' ')[0].lstrip('%')
      computations[name] = current = []
      entry = name if is_entry else entry
    elif match := _INSTRUCTION.match(line):
      # Long tuples carry comments such as /*index=5*/.
      current.append(_Instruction(*match.groups()))
  return computations, entry


def _counts(computations, entry) -> tuple[dict[str, int], set[str], int]:
  """How often each computation runs, which are fused into one instruction, and unknown loops."""
  counts, fused, unknown = {entry: 1}, set(), 0
  waiting = [entry]
  while waiting:
    name = waiting.pop()
    for instruction in computations[name]:
      times = counts[name]
      if instruction.op == 'while':
        turns = _turns(instruction, computations)
        unknown += turns is None
        times *= turns or 1
        called = [instruction.attribute('body')]
      elif instruction.op == 'conditional':
        called = _branches(instruction)
      else:
        # What a reduction applies to each element is no program of its own.
        called = [instruction.attribute('calls')]
        if instruction.op == 'call':
          called.append(instruction.attribute('to_apply'))
        if instruction.op == 'fusion':
          fused.update(filter(None, called))
      for callee in called:
        if callee in computations:
          counts[callee] = counts.get(callee, 0) + times
          waiting.append(callee)
          if name in fused:
            fused.add(callee)
  return counts, fused, unknown


def _branches(instruction) -> list[str]:
  listed = re.search(r'branch_computations=\{([^}]*)\}', instruction.rest)
  if listed:
    return [name.strip().lstrip('%') for name in listed[1].split(',')]
  return [instruction.attribute(f'{which}_computation') for which in ('true', 'false')]


def _turns(instruction, computations) -> int | None:
  """Turns of a loop: XLA's word, or the bound that a counter from 0 is compared with."""
  known = re.search(r'known_trip_count\D*(\d+)', instruction.rest)
  if known:
    return int(known[1])
  condition = computations.get(instruction.attribute('condition'), [])
  bounds = {
    i.name: int(i.rest.split(')')[0])
    for i in condition
    if i.op == 'constant' and i.rest.split(')')[0].isdigit()
  }
  for i in condition:
    if i.op == 'compare' and 'direction=LT' in i.rest:
      return bounds.get(i.operands[-1])
  return next(iter(bounds.values())) if len(bounds) == 1 else None


def _collectives(computations, counts) -> Iterator[Collective]:
  # A collective that products hide is cut into a start, parts and an end, each a copy with the
  # channel of the whole.
  channels: dict[str, list[tuple[str, _Instruction]]] = {}
  for name, instructions in computations.items():
    for instruction in instructions:
      if counts.get(name) and _COLLECTIVE.match(instruction.op):
        channel = re.search(r'channel_id=(\d+)', instruction.rest)
        key = channel[1] if channel else f'{name}/{instruction.name}'
        channels.setdefault(key, []).append((name, instruction))
  for copies in channels.values():
    name, instruction = copies[0]
    kind, start = _COLLECTIVE.match(instruction.op).groups()  # type: ignore
    group = first_group(instruction.rest)
    arrays = _SHAPE.findall(instruction.shape)
    size = bytes_of(instruction.shape)
    if start and len(arrays) > 1:  # operands and results, of a permute also two counters
      size = bytes_of(instruction.shape) - sum(
        bytes_of(i.shape) for i in computations[name] if i.name in instruction.operands
      )
    if kind == 'reduce-scatter':
      size *= len(group)
    if kind == 'all-reduce' and name.startswith('all-reduce-scatter'):
      kind = 'reduce-scatter'  # as XLA for TPU writes it, fused with the slice that a chip keeps
    source = re.search(r'op_name="([^"]*)"', instruction.rest)
    yield Collective(
      kind=kind,
      shape=tuple(map(int, filter(None, arrays[0][1].split(',')))),
      bytes=size,
      count=counts[name],
      group=group,
      overlapped=bool(start) or len({name for name, _ in copies}) > 1,
      source=source[1] if source else '',
    )


def _work(instructions: list[_Instruction], count: int, computations) -> Iterator[Work]:
  """What the instructions of one computation do, each of their arrays moved once."""
  shapes = {i.name: i.shape for i in instructions}
  for i in instructions:
    if i.op in _FREE or _COLLECTIVE.match(i.op):
      continue
    operands = [shapes.get(name, '') for name in i.operands]
    if i.op in _IN_PLACE:
      part = i.shape if i.op == 'dynamic-slice' else operands[1]
      yield Work(0, 2 * bytes_of(part, main_memory=True), count)
      continue
    body = computations.get(i.attribute('calls'), []) if i.op == 'fusion' else []
    reads, updates = _slices(body)
    moved = 0 if updates else bytes_of(i.shape, main_memory=True)
    for number, operand in enumerate(operands):
      whole = bytes_of(operand, main_memory=True)
      moved += min(whole, reads.get(number, whole))
    yield Work(_flops(i, operands, computations), moved, count)


def _flops(instruction: _Instruction, operands: list[str], computations) -> int:
  """Operations of an instruction's product, or of those of the computation that it fuses."""
  if instruction.op != 'fusion':
    return products.flops(instruction.op, instruction.shape, operands, instruction.rest)
  body = computations.get(instruction.attribute('calls'), [])
  shapes = {i.name: i.shape for i in body}
  return sum(_flops(i, [shapes.get(n, '') for n in i.operands], computations) for i in body)


def _slices(body: list[_Instruction]) -> tuple[dict[int, int], bool]:
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
    parts += [i.shape for i in users if i.op == 'dynamic-slice']
    reads[number] = sum(map(bytes_of, parts))
    updated |= bool(updates)
  return reads, updated
