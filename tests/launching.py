"""Runs the launch files, with stand-ins for programs of clouds and clusters where need be."""

import os
import shutil
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
# What a person may have set, and a launch file reads.
READ = {*SETTING, 'SPOT', 'SLICES', 'RUNTIME', 'PRIORITY', 'MAX_RESTARTS', 'CHIPS_PER_HOST'}
READ |= {'SLURM_JOB_ID', 'XLA_FLAGS'}


def launch(name, *words, setting=SETTING, programs=None):
  """Runs launch/NAME with these words; `programs` is a folder that is searched first."""
  environment = {key: value for key, value in os.environ.items() if key not in READ}
  environment['PATH'] = os.pathsep.join([str(programs or ''), environment['PATH']]).lstrip(':')
  return subprocess.run(
    ['bash', str(LAUNCH / name), *words],
    env={**environment, **setting},
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=60,
  )


def tool(name):
  """The path of a program that every machine with these tests has."""
  path = shutil.which(name)
  assert path, f'there is no {name} on the PATH'
  return path


def stand_in(folder, name, body):
  """Makes the Python program `name` in a folder for `launch(programs=...)`."""
  folder.mkdir(exist_ok=True)
  path = folder / name
  path.write_text(f'#!{sys.executable} -IS\nimport os, sys\n{body}\n')
  path.chmod(0o755)
  return folder
