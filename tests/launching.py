"""Runs the launch files, with stand-ins for programs of clouds and clusters where need be."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LAUNCH = ROOT / 'launch'

# Enough of a setting for every launch file.
SETTING = {
  'PROJECT': 'p',
  'ZONE': 'us-central2-b',
  'CLUSTER': 'c',
  'NAME': 'flan',
  'TYPE': 'v4-64',
  'ACCELERATOR': 'tpu-v5p-slice',
  'TOPOLOGY': '4x4x4',
  'IMAGE': 'us-docker.pkg.dev/p/flan/tpu:1',
  'NFS': '10.0.0.2:/share',
  'STORAGE': 'data',
  'CLAIM': 'data',
}


def launch(name, *words, setting=SETTING, programs=None):
  """Runs launch/NAME with these words; `programs` is a folder that is searched first."""
  path = os.environ['PATH'] if programs is None else f'{programs}{os.pathsep}{os.environ["PATH"]}'
  return subprocess.run(
    ['bash', str(LAUNCH / name), *words],
    env={'PATH': path, **setting},
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=60,
  )


def stand_in(folder, name, body):
  """Makes the Python program `name` in a folder for `launch(programs=...)`."""
  folder.mkdir(exist_ok=True)
  path = folder / name
  path.write_text(f'#!{sys.executable} -IS\nimport os, sys\n{body}\n')
  path.chmod(0o755)
  return folder
