"""Starts the processes of one training run, each with CPU devices of its own."""

import json
import os
import shutil
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

# At a higher one, 50 steps make 1e-5 of a difference of 1e-7 between two orders of summation.
LEARNING_RATE = 1e-3

_PROGRAM = """
  import json, sys
  from pathlib import Path

  import jax
  import numpy as np
  import tiny
  from flan_jax import checkpoints, multihost, optimizers, partitioning, preemption, train

  given = json.loads(sys.argv[1])
  workdir, status = Path(given['workdir']), 0
  with preemption.Notices(leave=True) as notices:
    if cluster := multihost.find_cluster(given['address'], given['count'], given['id']):
      multihost.initialize(cluster, workdir, given['facts'], timeout=60, notices=notices)
    multihost.show_devices(given['devices'])
    config = tiny.make_config(
      given['cache_dir'],
      steps=given['steps'],
      mesh=partitioning.MeshConfig(**given['mesh']),
      checkpoint=checkpoints.CheckpointConfig(save_every_steps=given['save_every_steps']),
      log_every_steps=1,
      optimizer=optimizers.adafactor(given['learning_rate']),
    )
    with partitioning.use_mesh(config.mesh) as mesh:
      rows = partitioning.local_rows(partitioning.batch_sharding(mesh), config.data.batch_rows)
    batch = train.make_loader(config).batch(7, rows)
    np.savez(workdir / f'rows-{given["id"]}.npz', first=rows.start, **batch)
    try:
      train.train(config, workdir, notices=notices)
    except preemption.Preempted as e:
      print(e)
      status = preemption.EXIT_STATUS
    multihost.leave()
  sys.exit(status)
"""


def free_port():
  with socket.socket() as free:
    free.bind(('localhost', 0))
    return free.getsockname()[1]


def start(
  count, cache_dir, workdir, *, devices=8, steps=4, mesh=None, save_every_steps=1000, by=None
):
  """One process for each of `count`; `by(id)` gives words to begin a command with."""
  given = {
    'address': f'localhost:{free_port()}',
    'count': count,
    'devices': devices,
    'cache_dir': str(cache_dir),
    'workdir': str(workdir),
    'steps': steps,
    'mesh': mesh or {'data': 2, 'fsdp': -1},
    'save_every_steps': save_every_steps,
    'facts': {},
    'learning_rate': LEARNING_RATE,
  }
  flags = [flag for flag in os.environ['XLA_FLAGS'].split() if 'device_count' not in flag] + [
    f'--xla_force_host_platform_device_count={devices // count}'
  ]
  return [
    subprocess.Popen(
      [
        *(by(i) if by else ()),
        *(sys.executable, '-c', textwrap.dedent(_PROGRAM)),
        json.dumps({**given, 'id': i, **({'address': by.address} if by else {})}),
      ],
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      env={
        **os.environ,
        'XLA_FLAGS': ' '.join(flags),
        'PYTHONPATH': os.pathsep.join(
          [os.path.dirname(__file__), os.environ.get('PYTHONPATH', '')]
        ),
      },
    )
    for i in range(count)
  ]


def finish(processes, status=0, timeout=240):
  """Waits for all; returns what each said."""
  try:
    said = [process.communicate(timeout=timeout)[0] for process in processes]
  finally:
    for process in processes:
      process.kill()
  for process, text in zip(processes, said, strict=True):
    assert process.returncode == status, text[-3000:]
  return said


class Namespaces:
  """Two hosts: network namespaces with one cable between them, and names of their own."""

  address = '10.123.45.1:12355'

  @staticmethod
  def refused():
    """Why this machine has none, or None."""
    unshared = shutil.which('ip') and subprocess.run(['unshare', '-n', 'true'], check=False)
    if os.geteuid() or not unshared or unshared.returncode:
      return 'This machine does not permit network namespaces.'
    return None

  def __init__(self, name):
    self.names = [f'{name}{i}' for i in range(2)]

  def __call__(self, i):
    rename = f'hostname {self.names[i]}; exec "$@"'
    return ('ip', 'netns', 'exec', self.names[i], 'unshare', '--uts', 'sh', '-c', rename, 'sh')

  def __enter__(self):
    for i, name in enumerate(self.names):  # ip shows it as /etc/hosts
      hosts = Path('/etc/netns', name, 'hosts')
      hosts.parent.mkdir(parents=True)
      hosts.write_text(f'127.0.0.1 localhost\n10.123.45.{i + 1} {name}\n')
    for command in (
      *(f'netns add {name}' for name in self.names),
      f'link add {self.names[0]} type veth peer name {self.names[1]}',
      *(f'link set {name} netns {name}' for name in self.names),
      *(f'-n {n} addr add 10.123.45.{i + 1}/24 dev {n}' for i, n in enumerate(self.names)),
      *(f'-n {name} link set {device} up' for name in self.names for device in (name, 'lo')),
    ):
      subprocess.run(['ip', *command.split()], check=True, capture_output=True)
    return self

  def __exit__(self, *_):
    for name in self.names:
      subprocess.run(['ip', 'netns', 'del', name], check=False)
      shutil.rmtree(Path('/etc/netns', name))

  def cut(self):
    """Takes the cable out."""
    subprocess.run(['ip', '-n', self.names[0], 'link', 'set', self.names[0], 'down'], check=True)
