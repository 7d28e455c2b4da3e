"""A checkpoint's folder as files: where it is, whether it is whole, and what it was tuned from.

What is in them is checkpoints.py's.
"""

import concurrent.futures
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import jax

from flan_jax import whole_file

CHECKSUMS = 'checksums.json'
# Processors have instructions for SHA-256, which is 2.5 times as fast there.
_NEW, _OLD = 'sha256', 'blake2b'


class DamagedCheckpointError(ValueError):
  """A checkpoint whose files are not what was written; the message names the file."""


def verify(folder: Path) -> bool:
  """Raises DamagedCheckpointError unless every file of a checkpoint is as it was written.

  Returns:
    False where nobody can say, because its run was killed after the files were written and before
    their checksums were.
  """
  if not (folder / 'commit_success.txt').exists():
    raise DamagedCheckpointError(f'Checkpoint {folder} was never finished.')
  try:
    expected = json.loads((folder / CHECKSUMS).read_text())
  except FileNotFoundError:
    return False
  except ValueError as e:
    raise DamagedCheckpointError(f'{folder / CHECKSUMS} is damaged: {e}.') from e
  for name in expected:
    if not (folder / name).exists():
      raise DamagedCheckpointError(f'Checkpoint {folder} has lost its file {name}.')
  # Of old checkpoints they have no name of an algorithm before them.
  digests = [x if str(x).startswith(f'{_NEW}:') else f'{_OLD}:{x}' for x in expected.values()]
  algorithms = [digest.split(':')[0] for digest in digests]
  found = _digests([folder / name for name in expected], algorithms)
  for name, digest, of_file in zip(expected, digests, found, strict=True):
    if of_file != digest:
      raise DamagedCheckpointError(
        f'Checkpoint {folder} is damaged: {name} is not what was written.'
      )
  return True


def locate(checkpoint: str | os.PathLike) -> tuple[Path, int]:
  """Resolves a workdir, its `checkpoints` folder or one step's folder to (folder, step).

  Raises:
    FileNotFoundError: Nothing there is a checkpoint; says what is.
  """
  path = Path(checkpoint).expanduser().resolve()
  if path.name.isdigit() and (path / 'commit_success.txt').exists():
    return path.parent, int(path.name)
  for folder in (path, path / 'checkpoints'):
    steps = [
      int(p.name)
      for p in (folder.iterdir() if folder.is_dir() else ())
      if p.name.isdigit() and (p / 'commit_success.txt').exists()
    ]
    if steps:
      return folder, max(steps)
  siblings = sorted(p.name for p in path.parent.iterdir()) if path.parent.is_dir() else []
  raise FileNotFoundError(
    f'{path} holds no finished checkpoint. Give a --workdir of a run, its checkpoints folder, or '
    f'checkpoints/STEP.'
    + (f' Beside it lie: {", ".join(siblings[:10])}.' if siblings and not path.exists() else '')
  )


def identity(checkpoint: str | os.PathLike) -> dict[str, str]:
  """Names a checkpoint and what it holds, for one that is to be read together with it."""
  folder, step = locate(checkpoint)
  return {'path': str(folder / str(step)), 'content': _content(folder / str(step))}


def _content(folder: Path) -> str:
  path = folder / CHECKSUMS
  return _digest(path, _OLD).removeprefix(f'{_OLD}:') if path.exists() else ''


def base_folder(base: dict[str, str], of: Path) -> Path:
  """The folder of the checkpoint that another was tuned from.

  Args:
    base: what `identity` said of it.
    of: the other, which holds only what training changed.

  Raises:
    ValueError: It is not there.
    DamagedCheckpointError: It is not what it was.
  """
  path = Path(base['path'])
  if not (path / 'commit_success.txt').exists():
    raise ValueError(
      f'Checkpoint {of} holds what training changed in {path}, which is not there; put it back.'
    )
  if _content(path) != base['content']:
    raise DamagedCheckpointError(
      f'Checkpoint {of} holds what training changed in {path}, which is another checkpoint now; '
      'put back the one it was.'
    )
  verify(path)
  return path


def write_checksums(folder: Path) -> None:
  """Writes what `verify` compares with; process 0 does."""
  if jax.process_index() != 0:
    return
  try:
    paths = [p for p in sorted(folder.rglob('*')) if p.is_file() and CHECKSUMS not in p.name]
    names = [str(path.relative_to(folder)) for path in paths]
    digests = dict(zip(names, _digests(paths, [_NEW] * len(paths)), strict=True))
    whole_file.write(folder / CHECKSUMS, json.dumps(digests, indent=1))
  except FileNotFoundError:
    # Retention has deleted this step meanwhile; there is nothing left to protect.
    return


def _digests(paths: Sequence[Path], algorithms: Sequence[str]) -> list[str]:
  """Of all files, on all cores."""
  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    return list(pool.map(_digest, paths, algorithms))


def _digest(path: Path, algorithm: str) -> str:
  with path.open('rb') as f:
    return f'{algorithm}:{hashlib.file_digest(f, algorithm).hexdigest()[:32]}'


def free_name(path: Path) -> Path:
  """Returns the path, or one numbered after it where nothing lies yet."""
  candidate, n = path, 1
  while candidate.exists():
    candidate, n = path.with_name(f'{path.name}-{n}'), n + 1
  return candidate
