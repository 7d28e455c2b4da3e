"""Paths of data: files and folders on disk, or in a bucket where they are a URL.

gs://, s3://, az:// and hf:// are opened through etils.epath and fsspec, which need the package of
their kind of bucket (gcsfs, s3fs, adlfs, huggingface_hub) but not TensorFlow.
"""

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from flan_jax.tasks.readers import DataError

# Else epath, which asks once, would import TensorFlow where it is installed, only to open a file.
os.environ.setdefault('EPATH_USE_TF', 'false')

_SCHEMES = ('gs', 's3', 'az', 'hf')


def is_url(path: str | os.PathLike) -> bool:
  """Says whether a path lies in a bucket."""
  return '://' in os.fspath(path)


def data_path(path: str | os.PathLike) -> Path:
  """Returns a path that can be asked and opened as pathlib's can, also in a bucket.

  Raises:
    DataError: a bucket of an unknown kind, or one that cannot be reached.
  """
  text = os.fspath(path)
  if not is_url(text):
    return Path(text).expanduser()
  scheme = text.partition('://')[0]
  if scheme not in _SCHEMES:
    kinds = ', '.join(f'{known}://' for known in _SCHEMES)
    raise DataError(f'{text} cannot be opened: a path begins with {kinds} or lies on this disk.')
  fault = _fault(text)
  if fault:
    raise DataError(f'Cannot reach {text}: {fault}.')
  return _in_bucket(text)


def _in_bucket(url: str) -> Any:
  from etils import epath

  return epath.Path(url)


@lru_cache(maxsize=4096)
def _fault(url: str) -> str:
  """Says why a URL cannot be asked, or ''; once, since a thousand tasks may share a folder."""
  try:
    _in_bucket(url).exists()
  except Exception as e:  # each kind of bucket has exceptions of its own
    return f'{type(e).__name__}: {str(e).rstrip(".")}'
  return ''
