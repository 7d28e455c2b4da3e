"""Reads the parts that option and dialog styles are put together from, out of tasks/data.

A file is {"group": [{"id": ..., a few fields of the style}, ...], ...}; which groups there are and
which fields a group sets is for options.py and dialog.py to say.
"""

import json
from collections.abc import Callable, Mapping, Set
from typing import TypeVar

from flan_jax.tasks import templates
from flan_jax.tasks.templates import TemplateError

from flan_jax.naming import listing

Style = TypeVar('Style')


def load_parts(
  file: str, make: Callable[..., Style], allowed: Mapping[str, Set[str]]
) -> dict[str, tuple[Style, ...]]:
  """Returns group -> styles that have only that group's fields set.

  Args:
    file: name of the file in tasks/data.
    make: the style's class.
    allowed: for each group that the file must have, the fields that its items may set.

  Raises:
    TemplateError: no such file, not JSON, another group or field, or a value the style refuses.
  """
  path = templates.DATA / file
  try:
    groups = json.loads(path.read_text(encoding='utf-8'))
    if set(groups) != set(allowed):
      raise ValueError(f'it holds {listing(groups)} instead of {listing(allowed)}')
    for group, known in allowed.items():
      for item in groups[group]:
        if unknown := sorted(set(item) - known):
          raise ValueError(
            f'{group} {item.get("id")!r} has {unknown[0]!r}; known: {listing(known)}'
          )
    return {group: tuple(make(**_tuples(item)) for item in groups[group]) for group in allowed}
  except (OSError, ValueError, TypeError) as e:
    raise TemplateError(f'Cannot use the styles of {path}: {e}.') from e


def _tuples(item: Mapping) -> dict:
  """Makes tuples of lists, so that styles can be hashed and compared."""
  return {key: tuple(value) if isinstance(value, list) else value for key, value in item.items()}
