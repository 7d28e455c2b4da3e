"""A bucket for tests: s3:// as fsspec and epath see it, with its objects in a folder of this disk.

Only the wire is left out: what opens, lists and reads is what opens, lists and reads a bucket.
"""

from pathlib import Path

import fsspec
from etils import epath
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem


def serve(folder: Path) -> None:
  """Makes s3://NAME in this process the folder NAME in `folder`."""

  class Bucket(DirFileSystem):
    protocol = 's3'

    def __init__(self, **options):
      super().__init__(path=str(folder), fs=LocalFileSystem(), **options)

  fsspec.register_implementation('s3', Bucket, clobber=True)
  epath.backend.fsspec_backend._get_filesystem.cache_clear()
  epath.gpath._is_tf_installed.cache_clear()  # an earlier test may have asked before paths.py said
