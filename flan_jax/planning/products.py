"""Floating-point operations of one matrix product as XLA writes it, 2 per multiply-add.

On a TPU every product is a convolution, batched ones with a window that slides over the batch, so
only the places where window and array meet are counted.
"""

import math
import re


def flops(op: str, shape: str, operands: list[str], attributes: str) -> int:
  """Operations of a `dot` or `convolution`; 0 for all else.

  Args:
    op: the HLO operation.
    shape: of its result, such as 'bf16[8,16]{1,0}'.
    operands: shapes of its operands.
    attributes: what follows them in the text.
  """
  if op == 'dot':
    contracted = re.search(r'lhs_contracting_dims=\{([\d,]*)\}', attributes)
    lhs = _dims(operands[0])
    dims = [lhs[int(i)] for i in contracted[1].split(',') if i] if contracted else []
    return 2 * math.prod(_dims(shape)) * math.prod(dims)
  if op != 'convolution':
    return 0
  labels = re.search(r'dim_labels=(\w+)_(\w+)->(\w+)', attributes)
  if labels is None:
    raise ValueError(f'This convolution does not say which dimension is which: {attributes[:200]}')
  lhs, kernel, result = (
    dict(zip(names, _dims(array), strict=True))
    for names, array in zip(labels.groups(), (*operands[:2], shape), strict=True)
  )
  window = _window(attributes)
  met = 1
  for number, name in enumerate(sorted(n for n in result if n.isdigit())):
    met *= _meetings(lhs[name], result[name], **{k: v[number] for k, v in window.items()})
  return 2 * result['b'] * result['f'] * kernel['i'] * met


def _meetings(lhs, out, *, size, stride=1, pad=0, lhs_dilate=1, rhs_dilate=1) -> int:
  """Pairs of an output position and a window position that fall on an element of the array."""
  span = (lhs - 1) * lhs_dilate + 1
  met = 0
  for position in range(out):
    begin = position * stride - pad
    if lhs_dilate == 1 and rhs_dilate == 1:
      met += max(0, min(begin + size, span) - max(begin, 0))
      continue
    places = range(begin, begin + size * rhs_dilate, rhs_dilate)
    met += sum(0 <= place < span and place % lhs_dilate == 0 for place in places)
  return met


def _window(attributes: str) -> dict[str, list[int]]:
  """The numbers of `window={size=2x3 stride=1x2 pad=0_0x1_1}` that say where it goes."""
  text = re.search(r'window=\{([^}]*)\}', attributes)
  numbers = {}
  for name, values in re.findall(r'(\w+)=([\dx_-]+)', text[1] if text else ''):
    if name in ('size', 'stride', 'pad', 'lhs_dilate', 'rhs_dilate'):
      numbers[name] = [int(value.split('_')[0]) for value in values.split('x')]
  return numbers


def _dims(shape: str) -> list[int]:
  found = re.search(r'\[([\d,]*)\]', shape)
  return [int(size) for size in found[1].split(',') if size] if found else []
