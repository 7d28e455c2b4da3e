"""A checkpoint of another program, opened: its arrays by name, and the model that they make.

Each format has a module that opens it; what is missing, left over or of another shape is found
here, for all of them alike, before any of it is read.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from flan_jax.convert.arrays import PIECE_BYTES, Layout, Stored, num_layers, sizes
from flan_jax.convert.names import Place, Table
from flan_jax.data.vocabularies import Vocabulary
from flan_jax.models.config import TransformerConfig
from flan_jax.naming import some

FLOATS = ('float64', 'float32', 'float16', 'bfloat16')


class ConvertError(ValueError):
  """Weights that cannot be read or written; the message says what to change."""


@dataclasses.dataclass(frozen=True)
class Source:
  """An opened checkpoint.

  Attributes:
    title: names it in messages: 'the Hugging Face folder x'.
    config: of the model that it holds.
    table: our parameters' places in it.
    stored: its arrays by name.
    copies: arrays that only repeat another, name -> the other's name.
    unused: regular expression of arrays that follow from the configuration.
    note: what a user should know of it.
    read_vocabulary: reads what came with it; None if nothing did.
  """

  title: str
  config: TransformerConfig
  table: Table
  stored: Mapping[str, Stored]
  copies: Mapping[str, str] = dataclasses.field(default_factory=dict)
  unused: str = '$^'
  note: str = ''
  read_vocabulary: Callable[[], Vocabulary | None] = lambda: None

  def check(self, paths: Iterable[str]) -> None:
    """Refuses a checkpoint that is not exactly the parameters `paths` of the model.

    Raises:
      ConvertError: names the arrays that are missing, left over, of another shape or no floats,
        or the copy that is none.
    """
    wanted = {}
    for path in paths:
      place = self.table[path]
      shape = Layout(place.layout, sizes(self.config, path)).their_shape()
      wanted |= dict.fromkeys(place_names(place, self.config, path), shape)
    copies = {name: wanted[other] for name, other in self.copies.items() if name in self.stored}
    found = {name: x for name, x in self.stored.items() if not re.search(self.unused, name)}
    wrong_shape = [
      f'{name} {list(found[name].shape)} for {list(shape)}'
      for name, shape in (wanted | copies).items()
      if name in found and found[name].shape != shape
    ]
    no_floats = [f'{name} {x.dtype}' for name, x in found.items() if x.dtype not in FLOATS]
    problems = {
      'missing': [name for name in wanted if name not in found],
      'unknown': [name for name in found if name not in wanted and name not in copies],
      'of another shape than the configuration gives': wrong_shape,
      f'of a dtype that is none of {", ".join(FLOATS)}': no_floats,
    }
    told = [f'{what}: {some(names)}' for what, names in problems.items() if names]
    if told:
      raise ConvertError(
        f'{self.title} is not the model that its configuration describes. Arrays {"; ".join(told)}.'
      )
    for name in copies:
      if not _equal(self.stored[name], self.stored[self.copies[name]]):
        raise ConvertError(
          f'{self.title}: {name} should repeat {self.copies[name]}, as its configuration ties the '
          'two, and does not; correct tie_word_embeddings, or copy both from one model.'
        )


def place_names(place: Place, config: TransformerConfig, path: str) -> list[str]:
  """The names of the arrays that hold the parameter `path`, one a layer or one in all."""
  if '{}' not in place.name:
    return [place.name]
  return [place.name.format(layer) for layer in range(num_layers(config, path))]


def _equal(one: Stored, other: Stored) -> bool:
  """Whether two arrays of one shape hold the same numbers; read in parts."""
  rows = max(1, PIECE_BYTES // (4 * math.prod(one.shape[1:])))
  rest = (slice(None),) * (len(one.shape) - 1)
  for start in range(0, one.shape[0], rows):
    part = slice(start, min(start + rows, one.shape[0])), *rest
    if not np.array_equal(one.read(part), other.read(part)):
      return False
  return True
