"""What the pages of report.py have in common: escaping, symbols for control characters, writing.

Jinja2 escapes every value; what a browser or a reader would still trip over is replaced by `shown`.
The layout is in templates/.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any

import jinja2
import markupsafe

import flan_jax
from flan_jax import whole_file

_MAX_TEXT = 1500  # characters of a prompt or an answer


@dataclasses.dataclass(frozen=True)
class Chart:
  """A chart of the page: title, legend of (label, colour number) and SVG."""

  title: str
  legend: tuple[tuple[str, int], ...]
  svg: markupsafe.Markup


def shown(text: Any, limit: int = _MAX_TEXT) -> str:
  """Return text that is safe to look at: control characters as symbols, cut at `limit`.

  Escape becomes '␛', a right-to-left override '⟨U+202E⟩'; newlines stay, as do the joiners and
  blanks that many scripts and emoji need.
  """
  text = str(text)
  rest = len(text) - limit
  text = ''.join(map(_symbol, text[:limit]))
  return f'{text} … ({rest:,} more characters)' if rest > 0 else text


def breakable(name: Any) -> markupsafe.Markup:
  """Return a name, escaped, that may wrap after its underscores."""
  return markupsafe.escape(shown(name)).replace('_', markupsafe.Markup('_<wbr>'))


def _symbol(character: str) -> str:
  if character.isprintable() or character in '\n\u200c\u200d\u00a0\u3000\u202f':
    return character
  code = ord(character)
  if code < 0x20:
    return chr(0x2400 + code)
  return '␡' if code == 0x7F else f'⟨U+{code:04X}⟩'


def render(template: str, **values: Any) -> str:
  """Return the page that `template` makes of `values`, all escaped."""
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / 'templates'),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    # The last word on every value: what is not ours to mark as safe is shown as text.
    finalize=lambda value: value if isinstance(value, markupsafe.Markup) else shown(value),
  )
  environment.filters['shown'] = lambda text, limit: markupsafe.escape(shown(text, limit))
  environment.filters['breakable'] = breakable
  style = (Path(__file__).parent / 'templates' / 'style.css').read_text(encoding='utf-8')
  made = f'flan_jax {flan_jax.__version__}, {time.strftime("%Y-%m-%d %H:%M")}'
  return environment.get_template(template).render(
    style=markupsafe.Markup(style), made=made, **values
  )


def write(path: Path, page: str) -> Path:
  """Write the page whole or not at all."""
  try:
    whole_file.write(path, page)
  except OSError as e:
    raise ValueError(f"The report '{path}' cannot be written: {e.strerror}.") from e
  return path
