"""Sentences for a name that is not known, so that every error of tasks/ offers the nearest ones."""

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
  """Returns ' Did you mean ...?' for the names like `name`, or an empty string."""
  close = difflib.get_close_matches(name, [str(k) for k in known], n=3, cutoff=0.6)
  return f' Did you mean {" or ".join(repr(c) for c in close)}?' if close else ''


def listing(known: Iterable[str], limit: int = 20) -> str:
  """Returns the names in order, cut after `limit` with the number left out."""
  names = sorted(str(k) for k in known)
  more = f' and {len(names) - limit} more' if len(names) > limit else ''
  return (', '.join(names[:limit]) or 'none') + more
