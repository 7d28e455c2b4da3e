"""The text of an optimised HLO module as computations of instructions, and how often each runs."""

import dataclasses
import functools
import math
import re

_INSTRUCTION = re.compile(r'^\s+(?:ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\((.*)$')
_SHAPE = re.compile(r'(pred|[a-z]+\d+\w*)\[([\d,]*)\](?:\{([^}]*)\})?')


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line: `name = shape op(rest`, where `rest` holds the operands and the attributes."""

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


Computations = dict[str, list[Instruction]]


def arrays_of(shape: str) -> list[tuple[tuple[int, ...], int, bool]]:
  """(dimensions, bytes, whether in main memory) of each array of an HLO shape."""
  arrays = []
  for dtype, dims, layout in _SHAPE.findall(shape):
    sizes = tuple(map(int, filter(None, dims.split(','))))
    bits = 8 if dtype == 'pred' else int(re.findall(r'\d+', dtype)[0])
    arrays.append((sizes, math.prod(sizes) * bits // 8, not re.search(r'S\([1-9]', layout)))
  return arrays


def bytes_of(shape: str, *, main_memory: bool = False) -> int:
  """Bytes of the arrays of an HLO shape; with `main_memory`, without those kept on the chip."""
  return sum(size for _, size, main in arrays_of(shape) if main or not main_memory)


def parse(text: str) -> tuple[Computations, str]:
  """Computations by name, their instructions in the order they run, and the entry's name."""
  computations, current, entry = {}, [], ''
  for line in text.splitlines():
    if line[:1] in ('%', 'E') and line.rstrip().endswith('{'):
      is_entry = line.startswith('ENTRY')
      name = line.removeprefix('ENTRY ').split(' ')[0].lstrip('%')
      computations[name] = current = []
      entry = name if is_entry else entry
    elif match := _INSTRUCTION.match(line):
      # Long tuples carry comments such as /*index=5*/.
      current.append(Instruction(*match.groups()))
  return computations, entry


def runs(computations: Computations, entry: str) -> tuple[dict[str, int], int]:
  """How often each computation runs that is no part of a fused or asynchronous instruction.

  And how many loops there are whose turns the text does not say; they count as one.
  """
  counts, unknown = {entry: 1}, 0
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
      elif instruction.op == 'call':
        called = [instruction.attribute('to_apply'), instruction.attribute('calls')]
      else:
        continue
      for callee in called:
        if callee in computations:
          counts[callee] = counts.get(callee, 0) + times
          waiting.append(callee)
  return counts, unknown


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
