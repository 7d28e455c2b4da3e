"""Folders whose place is told later: by a flag, by gin or by the environment.

A task registered on `folder('cot_dir') / 'gsm8k_train.tsv'` reads no disk until its rows are
asked for. The chosen place is kept in the environment, so that processes started later see it.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from flan_jax.tasks.paths import data_path, is_url

from flan_jax.naming import listing, nearest

_FOLDERS: dict[str, 'Folder'] = {}


class FolderError(ValueError):
  """A folder that nobody named, or that is not there."""


@dataclass(frozen=True)
class Folder:
  """A folder to be named later.

  environment: the variable that names it. has_flag: `flan-jax` has a flag --NAME for it, and the
  gin files a macro.
  """

  name: str
  environment: str
  holds: str
  has_flag: bool = False

  def __truediv__(self, relative: str) -> 'FileInFolder':
    return FileInFolder(self, relative)

  def path(self) -> Path:
    """Returns the folder, or raises an error that tells the ways to name it."""
    value = os.environ.get(self.environment)
    if not value:
      raise FolderError(f'The folder of {self.holds} is not set. {self.how()}')
    path = data_path(value)
    if not path.is_dir():
      kind = 'is not a folder' if path.exists() else 'does not exist'
      raise FolderError(f'The folder of {self.holds}, {path}, {kind}. {self.how()}')
    return path

  def how(self) -> str:
    """Says the ways to name the folder, the strongest first."""
    if not self.has_flag:
      return (
        f'Set the environment variable {self.environment}, or call '
        f'flan_jax.tasks.folders.set_folder({self.name!r}, FOLDER).'
      )
    return (
      f"Give --{self.name}=FOLDER, or bind {self.name.upper()} = 'FOLDER' in gin, "
      f'or set the environment variable {self.environment}.'
    )


@dataclass(frozen=True)
class FileInFolder:
  """A file of a folder that is named later."""

  folder: Folder
  relative: str

  def __str__(self) -> str:
    return f'{self.folder.name.upper()}/{self.relative}'

  def path(self) -> Path:
    """Returns the file's path; whether it exists is for the reader to find out."""
    return self.folder.path() / self.relative


def folder(name: str, *, holds: str, has_flag: bool = False) -> Folder:
  """Declares a folder, which the variable FLAN_JAX_<NAME> or set_folder names."""
  made = Folder(name, f'FLAN_JAX_{name.upper()}', holds, has_flag)
  if _FOLDERS.setdefault(name, made) != made:
    raise FolderError(f'Folder {name!r} is already declared as {_FOLDERS[name]}, not {made}.')
  return made


def folders() -> dict[str, Folder]:
  """Returns the declared folders by name."""
  return dict(_FOLDERS)


def set_folder(name: str, path: str | os.PathLike) -> None:
  """Names a folder, also one in a bucket, for this process and those it starts.

  It is stronger than what the environment said.
  """
  if name not in _FOLDERS:
    raise FolderError(
      f'No folder {name!r} is declared.{nearest(name, _FOLDERS)} Declared: {listing(_FOLDERS)}.'
    )
  absolute = str(path) if is_url(path) else str(Path(path).expanduser().absolute())
  os.environ[_FOLDERS[name].environment] = absolute
