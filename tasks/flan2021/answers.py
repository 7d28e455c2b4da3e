"""From a label, or a list of answers and the right one's place, to the slots answer and options.

A row that cannot be asked with its options is left out: no label (-1), a label beyond the options,
an option twice, a blank one, a single one.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from flan_jax.tasks.flan2021.text import filled, text

NO_YES = ('no', 'yes')
YES_NO = ('yes', 'no')


def chosen(options: Iterable[Any], right: int, **slots: Any) -> Mapping[str, Any] | None:
  """Returns the slots with `answer`, the option at place `right`, and `options` in their order."""
  found = [text(option) for option in options]
  if not 0 <= right < len(found) or len(found) < 2:
    return None
  if not all(found) or len(set(found)) < len(found):
    return None
  texts = {name: text(value) for name, value in slots.items()}
  return filled(**texts, answer=found[right], options=found)
