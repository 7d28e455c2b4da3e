"""Several processes as one program: how JAX learns of them, where they meet, what they agree on.

With one process everything here does nothing. The processes talk through JAX's coordination
service, and where all must decide at the same step, through a collective of their devices.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import clusters, distributed  # neither has a public door: see docs/multihost.md
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from flan_jax import preemption, roll_call
from flan_jax.naming import some

_POLL_SECONDS = 0.1
# `leave` brings all to the end together; who ends alone has failed, and the others are to follow.
_SHUTDOWN_SECONDS = 10
_PREEMPTED = 'flan_jax/preempted'
_HOSTS = 'flan_jax/hosts'
# Processes meet in the same order, so that a number names a meeting.
_meetings = itertools.count()


@dataclasses.dataclass(frozen=True)
class Cluster:
  """Which processes there are, and which is this one.

  Attributes:
    coordinator_address: 'host:port' of process 0.
    process_count: How many.
    process_id: This one's, from 0.
    local_device_ids: Of this machine's devices, those of this process; None for all.
  """

  coordinator_address: str
  process_count: int
  process_id: int
  local_device_ids: Sequence[int] | None = None


def find_cluster(
  coordinator_address: str | None = None,
  process_count: int | None = None,
  process_id: int | None = None,
  *,
  timeout: float = 300,
) -> Cluster | None:
  """The processes by flags, else as JAX finds them: TPU metadata, SLURM, Kubernetes, Open MPI.

  Returns:
    None for a process that is alone; nothing was contacted then, but on a TPU VM its metadata.

  Raises:
    ValueError: some flags are given and not all, or they make no sense.
  """
  flags = {
    '--coordinator_address': coordinator_address,
    '--process_count': process_count,
    '--process_id': process_id,
  }
  if missing := [name for name, value in flags.items() if value is None]:
    if len(missing) < len(flags):
      given = ' and '.join(name for name in flags if name not in missing)
      raise ValueError(f'{given} also needs {" and ".join(missing)}.')
    # A pod that belongs to no indexed job has no number, and is not to ask the API server for one.
    if 'KUBERNETES_SERVICE_HOST' in os.environ and 'JOB_COMPLETION_INDEX' not in os.environ:
      return None
    found = clusters.ClusterEnv.auto_detect_unset_distributed_params(
      None, None, None, None, None, int(timeout)
    )
    cluster = Cluster(*found) if found[0] is not None else None  # type: ignore[arg-type]
  else:
    cluster = Cluster(**{name[2:]: value for name, value in flags.items()})  # type: ignore[arg-type]
    if not 0 <= cluster.process_id < cluster.process_count:
      raise ValueError(
        f'--process_id {process_id} of --process_count {process_count}: ids go from 0 to the count '
        'less one.'
      )
  return None if cluster is None or cluster.process_count == 1 else cluster


def initialize(
  cluster: Cluster,
  workdir: Path,
  facts: Mapping[str, str],
  *,
  timeout: float = 300,
  notices: preemption.Notices | None = None,
) -> None:
  """Calls the roll and starts `jax.distributed`; to be called before a device is touched.

  Args:
    cluster: From `find_cluster`.
    workdir: The folder that all must share.
    facts: Name -> value of what must be the same in all.
    timeout: Seconds until all must have come.
    notices: Notices to one process are handed on to the others.

  Raises:
    roll_call.RollCallError: a process is missing, came twice, differs, or sees another workdir.
    preemption.Preempted: one of them has a notice to leave.
  """
  me = roll_call.Member(cluster.process_id, cluster.process_count, socket.gethostname(), facts)
  leaving = notices is not None and notices.leaving
  if notices is not None:
    notices.leaving = False  # the others are to hear of it
  hosts = roll_call.answer(me, cluster.coordinator_address, workdir, timeout, notices)
  # Ours serves signals of any kind, files and the phases before the first step; two are one too
  # many, as JAX's takes SIGTERM for itself.
  jax.config.update('jax_enable_preemption_service', False)
  jax.distributed.initialize(
    cluster.coordinator_address,
    cluster.process_count,
    cluster.process_id,
    cluster.local_device_ids,
    cluster_detection_method='deactivate',
    initialization_timeout=int(timeout),
    shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
  )
  if cluster.process_id == 0:
    service().key_value_set(_HOSTS, json.dumps(hosts))
  if notices is not None and leaving:
    _share_notices(notices)


def show_devices(expected_devices: int | None = None) -> None:
  """Prints hosts and devices in process 0.

  Raises:
    ValueError: there are not `expected_devices`.
  """
  devices = jax.devices()
  held = Counter(device.process_index for device in devices)
  hosts = host_names()
  each = some(f'{i} on {hosts[i]} has {held[i]}' for i in sorted(held))
  if expected_devices not in (None, len(devices)):
    raise ValueError(
      f'There are {len(devices)} devices and --expected_devices {expected_devices}: process {each}.'
    )
  if jax.process_count() > 1 and jax.process_index() == 0:
    kind = devices[0].device_kind
    print(f'{len(hosts)} processes, {len(devices)} x {kind}: process {each}.')


def barrier(name: str, timeout: float = 600) -> None:
  """Waits until every process has come.

  Raises:
    TimeoutError: names those that have not.
    preemption.Preempted: one has left before its first step.
  """
  if jax.process_count() == 1:
    return
  client, key, deadline = service(), f'flan_jax/meeting/{next(_meetings)}', _after(timeout)
  client.key_value_set(f'{key}/{jax.process_index()}', '')
  while not _open(client, key):
    if why := _get(_PREEMPTED):
      raise preemption.Preempted(f'Stopped by {why} before the first step.')
    if time.monotonic() > deadline:
      missing = sorted(set(range(jax.process_count())) - _came(client, key))
      hosts = host_names()
      raise TimeoutError(
        f'Waited {timeout:.0f} s before {name} for process '
        f'{some(f"{i} on {hosts[i]}" for i in missing)}; see its log.'
      )
    time.sleep(_POLL_SECONDS)


def from_first(make: Callable[[], Any], timeout: float = 3600) -> Any:
  """What `make()` returns in process 0, which alone calls it; JSON.

  Raises:
    ValueError: `make` raised in process 0; says what.
    TimeoutError: process 0 did not answer.
  """
  if jax.process_count() == 1:
    return make()
  client, key, deadline = service(), f'flan_jax/meeting/{next(_meetings)}', _after(timeout)
  if jax.process_index() == 0:
    try:
      value = make()
    except Exception as e:
      client.key_value_set(key, json.dumps({'error': str(e)}))
      raise
    client.key_value_set(key, json.dumps({'value': value}))
    return value
  while (answer := _get(key)) is None:
    if time.monotonic() > deadline:
      raise TimeoutError(f'Process 0 on {host_names()[0]} said nothing within {timeout:.0f} s.')
    time.sleep(_POLL_SECONDS)
  answer = json.loads(answer)
  if 'error' in answer:
    raise ValueError(f'Process 0 on {host_names()[0]}: {answer["error"]}')
  return answer['value']


def leave() -> None:
  """Ends the program together: none leaves while another still needs it."""
  if jax.process_count() > 1:
    barrier('the end')
    jax.distributed.shutdown()


class Requests:
  """What is asked of a run between steps, agreed on by all processes: to stop, to save.

  Args:
    notices: Asks to stop.
    workdir: A file `save_now` in it asks to save; it is removed when that is done.
    mesh: Of the run.
  """

  def __init__(self, notices: preemption.Notices, workdir: Path, mesh: Mesh):
    self.stop = self.save = False
    self._notices, self._file, self._mesh = notices, workdir / 'save_now', mesh
    self._pending = None
    self._any = jax.jit(lambda flags: jnp.max(flags, axis=0))
    if jax.process_count() > 1:
      notices.agree = lambda mine: bool(np.asarray(self._ask(mine))[0])

  def agree(self) -> None:
    """Sets `stop` and `save`; every process calls it after every step.

    The answer is that of the call before, as the one of this call would make the devices wait.
    """
    mine = self._notices.reason is not None, jax.process_index() == 0 and self._file.exists()
    if jax.process_count() == 1:
      self.stop, self.save = mine
      return
    answer, self._pending = self._pending, self._ask(*mine)
    if answer is not None:
      self.stop, self.save = (bool(flag) for flag in np.asarray(answer))

  def saved(self) -> None:
    """Forgets the request to save."""
    self.save = False
    self._pending = None
    if jax.process_index() == 0:
      self._file.unlink(missing_ok=True)

  @property
  def reason(self) -> str:
    """Why to stop."""
    return self._notices.reason or preemption.ELSEWHERE

  def _ask(self, *mine: bool) -> jax.Array:
    """[requests] int32, 1 where any process has it."""
    sharding = NamedSharding(self._mesh, PartitionSpec(self._mesh.axis_names))
    shape = (self._mesh.size, len(mine))
    row = np.asarray([mine], np.int32)
    return self._any(jax.make_array_from_callback(shape, sharding, lambda _: row))


def code_facts() -> dict[str, str]:
  """Digests and versions of the code that runs, for `initialize`."""
  import flax
  import orbax.checkpoint as ocp

  folder, digest = Path(__file__).parent, hashlib.sha256()
  for path in sorted(folder.rglob('*.py')):
    digest.update(f'{path.relative_to(folder)}\n'.encode() + path.read_bytes())
  versions = {module.__name__: module.__version__ for module in (jax, flax, ocp)}
  return {'the code of flan_jax': digest.hexdigest()[:12], **versions}


def _share_notices(notices: preemption.Notices) -> None:
  """Until the first step, a notice to one process ends all."""

  def farewell(reason):
    service().key_value_set(_PREEMPTED, reason, allow_overwrite=True)
    if jax.process_index() == 0:  # has the service, without which the others would die of an error
      time.sleep(20 * _POLL_SECONDS)

  def watch():
    while notices.leaving:
      if _get(_PREEMPTED):
        notices.notice(preemption.ELSEWHERE)
      time.sleep(5 * _POLL_SECONDS)

  notices.farewell, notices.leaving = farewell, True
  threading.Thread(target=watch, name='notices', daemon=True).start()
  if notices.reason:
    notices.notice(notices.reason)


def _open(client, key: str) -> bool:
  """Whether all have come to a meeting; process 0 counts, so that not all ask for all."""
  if jax.process_index() != 0:
    return _get(f'{key}-open') is not None
  if len(_came(client, key)) < jax.process_count():
    return False
  client.key_value_set(f'{key}-open', '')
  return True


def _came(client, key: str) -> set[int]:
  return {int(name.rpartition('/')[2]) for name, _ in client.key_value_dir_get(f'{key}/')}


def _after(seconds: float) -> float:
  return time.monotonic() + seconds


def host_names() -> list[str]:
  """The host of each process."""
  text = _get(_HOSTS) if jax.process_count() > 1 else None
  return json.loads(text) if text else [socket.gethostname()] * jax.process_count()


def _get(key: str) -> str | None:
  with contextlib.suppress(jax.errors.JaxRuntimeError):
    return service().key_value_try_get(key)
  return None


def service() -> Any:
  """Talks to JAX's coordination service."""
  return distributed.global_state.client
