"""Sentences for a name that is not known: every error offers the nearest ones."""

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
  """Returns ' Did you mean ...?' for up to three names about equally like `name`, or ''."""
  name = str(name)
  close = difflib.get_close_matches(name, {str(k) for k in known}, n=3, cutoff=0.55)
  likeness = [difflib.SequenceMatcher(None, other, name).ratio() for other in close]
  shown = [repr(c) for c, ratio in zip(close, likeness, strict=True) if ratio > likeness[0] - 0.1]
  return f' Did you mean {" or ".join(shown)}?' if shown else ''


def some(names: Iterable[str], limit: int = 8) -> str:
  """Returns the names as given, 'none' or 'a, b and 1,834 more' where they are over `limit`."""
  names = list(names)
  more = f' and {len(names) - limit:,} more' if len(names) > limit else ''
  return (', '.join(names[:limit]) or 'none') + more


def listing(known: Iterable[str], limit: int = 20) -> str:
  """Returns the names sorted and each once, cut after `limit` with the number left out."""
  return some(sorted({str(k) for k in known}), limit)


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
  """Returns the sentences for a `kind` that is not there: the nearest names, and what there is."""
  known = list(known)
  return f'No {kind} {name!r}.{nearest(name, known)} Known: {listing(known)}.'
