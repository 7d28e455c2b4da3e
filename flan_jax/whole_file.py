"""Files that are there whole or not at all, whatever ends the program that writes them."""

import errno
import os
from pathlib import Path

# Of an OSError that says that the disk, or what one may write to it, is full.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write(path: str | os.PathLike, content: str | bytes) -> None:
  """Writes beside `path`, syncs and renames, so that nobody ever reads half; text is UTF-8.

  Raises:
    OSError: its folder is missing, or the disk refuses; what lay there before is untouched.
  """
  path = Path(path)
  data = content.encode() if isinstance(content, str) else content
  # Several processes may write the same file: the last one wins.
  partial = path.with_name(f'.{path.name}.{os.getpid()}.part')
  try:
    with partial.open('wb') as file:
      file.write(data)
      file.flush()
      os.fsync(file.fileno())
    partial.replace(path)
  except OSError as e:
    # Of a write, in contrast to an open, the kernel does not say which file.
    raise OSError(e.errno, e.strerror, str(path)) from e
  finally:
    if path.parent.is_dir():
      partial.unlink(missing_ok=True)
