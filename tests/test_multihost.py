"""What makes several processes one: the roll call, who they are, the mesh between slices."""

import concurrent.futures
import dataclasses
import os
import socket
import threading
import time

import jax
import pytest
from processes import free_port

from flan_jax import multihost, partitioning, preemption, roll_call

FACTS = {'train.TrainConfig.seed': '0', 'jax': '0.10.2'}


def member(id_, count=2, **facts):
  return roll_call.Member(id_, count, f'host{id_}', {**FACTS, **facts})


def call(*members, workdirs=None, timeout=20, notices=None, port=None):
  """Each member's answer, or what it raised."""
  address = f'localhost:{port or free_port()}'

  def one(number):
    workdir = workdirs[number] if workdirs else None
    given = notices[number] if notices else None
    try:
      return roll_call.answer(members[number], address, workdir, timeout, given)
    except (roll_call.RollCallError, preemption.Preempted) as e:
      return f'{type(e).__name__}: {e}'

  with concurrent.futures.ThreadPoolExecutor(len(members)) as pool:
    return list(pool.map(one, range(len(members))))


def test_all_who_come_learn_where_the_others_are(tmp_path):
  hosts = ('host0', 'host1', 'host2')
  said = call(*(member(i, 3) for i in range(3)), workdirs=[tmp_path / 'run'] * 3)
  assert said == [hosts] * 3
  assert list((tmp_path / 'run').iterdir()) == []


def test_the_port_is_free_for_the_service_afterwards(tmp_path):
  port = free_port()
  call(member(0), member(1), workdirs=[tmp_path] * 2, port=port)
  with socket.create_server(('', port), family=socket.AF_INET6, dualstack_ipv6=True):
    pass


WRONG = {
  'missing': (
    [member(0, 4), member(2, 4)],
    'Processes 1, 3 of 4 did not come within 1 s; here are 0 on host0, 2 on host2.',
  ),
  'twice': (
    [member(0, 3), member(1, 3), dataclasses.replace(member(1, 3), host='other')],
    'Two processes have the id 1, on ',
  ),
  'another count': (
    [member(0), member(1, 3)],
    'Process 1 on host1 was told of 3 processes and process 0 on host0 of 2;',
  ),
  'another seed': (
    [member(0), member(1, **{'train.TrainConfig.seed': '1'})],
    'Process 1 on host1 differs from process 0 on host0 in train.TrainConfig.seed (1 there, 0 here)'
    '. Give every',
  ),
  'a setting more': ([member(0), member(1, lora='8')], 'in lora (8 there, none here)'),
}


@pytest.mark.parametrize('case', WRONG)
def test_what_is_wrong_is_one_sentence_for_all(case, tmp_path):
  members, sentence = WRONG[case]
  said = call(*members, workdirs=[tmp_path] * 4, timeout=1 if case == 'missing' else 20)
  assert said[0].startswith('RollCallError: ') and sentence in said[0]
  assert said == [said[0]] * len(members)


def test_a_workdir_that_hosts_do_not_share_is_refused(tmp_path):
  folders = [tmp_path / 'a', tmp_path / 'b']
  said = call(member(0), member(1), workdirs=folders, timeout=0.5)
  assert said[0] == said[1]
  assert f'The workdir {folders[0]} of process 0 on host0 is not that of process 1 on h' in said[0]


def test_nobody_at_the_address_is_said(tmp_path):
  (said,) = call(member(1), workdirs=[tmp_path], timeout=0.3)
  assert 'Process 1 on host1 did not find process 0 at localhost:' in said
  assert 'within 0 s (Connection refused)' in said


def test_a_second_process_0_on_a_machine_is_refused(tmp_path):
  with socket.create_server(('', 0), family=socket.AF_INET6, dualstack_ipv6=True) as taken:
    (said,) = call(member(0), workdirs=[tmp_path], port=taken.getsockname()[1])
  assert 'is taken: a second process 0, or another program' in said


@pytest.mark.parametrize('who', [0, 1])
def test_a_notice_to_one_ends_the_roll_call_of_all(who, tmp_path):
  notices = [preemption.Notices() for _ in range(2)]
  threading.Timer(0.5, notices[who].notice, ['SIGTERM']).start()
  said = call(member(0, 3), member(1, 3), workdirs=[tmp_path] * 2, notices=notices)
  assert all(text.startswith('Preempted: Stopped by ') for text in said)


def test_strangers_and_processes_that_start_again_do_not_disturb(tmp_path):
  port = free_port()

  def disturb():
    for words in (b'GET / HTTP/1.0\r\n\r\n', b'', b'{"id": 1}\n'):
      while True:
        try:
          with socket.create_connection(('localhost', port)) as stranger:
            stranger.sendall(words)
          break
        except ConnectionRefusedError:
          time.sleep(0.01)
    # A process 1 that comes and dies.
    with socket.create_connection(('localhost', port)) as dying:
      line = roll_call._Line(dying)
      line.send(dataclasses.asdict(member(1, 3)))
      time.sleep(0.3)
    return call(member(1, 3), member(2, 3), workdirs=[tmp_path] * 2, port=port)

  with concurrent.futures.ThreadPoolExecutor() as pool:
    first = pool.submit(call, member(0, 3), workdirs=[tmp_path], port=port)
    assert [*disturb(), *first.result()] == [('host0', 'host1', 'host2')] * 3


@pytest.fixture
def bare(monkeypatch):
  """An environment of no cluster."""
  for name in list(os.environ):
    if name.startswith(('SLURM_', 'OMPI_', 'KUBERNETES_', 'TPU_', 'MEGASCALE_', 'JOB_', 'JAX_C')):
      monkeypatch.delenv(name)
  return monkeypatch


def test_flags_say_which_process_this_is(bare):
  cluster = multihost.find_cluster('a:1', 4, 2)
  assert cluster == multihost.Cluster('a:1', 4, 2)
  assert multihost.find_cluster('a:1', 1, 0) is None


@pytest.mark.parametrize(
  'flags, sentence',
  [
    (('a:1', None, None), '--coordinator_address also needs --process_count and --process_id.'),
    (('a:1', None, 0), '--coordinator_address and --process_id also needs --process_count.'),
    (('a:1', 2, 2), '--process_id 2 of --process_count 2: ids go from 0 to the count less one.'),
  ],
)
def test_flags_that_make_no_sense_are_refused(flags, sentence, bare):
  with pytest.raises(ValueError) as error:
    multihost.find_cluster(*flags)
  assert str(error.value) == sentence


def test_a_process_alone_contacts_nobody(bare):
  def refuse(*_, **__):
    raise AssertionError('a socket was opened')

  bare.setattr(socket, 'socket', refuse)
  assert multihost.find_cluster() is None
  bare.setenv('KUBERNETES_SERVICE_HOST', '10.0.0.1')  # a pod of no indexed job
  assert multihost.find_cluster() is None


def test_slurm_says_which_process_this_is(bare):
  slurm = {'JOB_ID': '4097', 'STEP_NODELIST': 'n[003-004]', 'NTASKS': '4', 'PROCID': '3'}
  for name, value in {**slurm, 'LOCALID': '1'}.items():
    bare.setenv(f'SLURM_{name}', value)
  assert multihost.find_cluster() == multihost.Cluster('n003:61441', 4, 3, [1])
  bare.setenv('SLURM_NTASKS', '1')
  assert multihost.find_cluster() is None


def test_open_mpi_says_which_process_this_is(bare):
  bare.setenv('OMPI_MCA_orte_hnp_uri', '4096.0;tcp://10.96.0.1,10.148.0.1:34911')
  for name, value in {'SIZE': '2', 'RANK': '1', 'LOCAL_RANK': '0'}.items():
    bare.setenv(f'OMPI_COMM_WORLD_{name}', value)
  assert multihost.find_cluster() == multihost.Cluster('10.96.0.1:61441', 2, 1, [0])


def test_tpu_slices_of_kubernetes_say_which_process_this_is(bare):
  for module in ('cluster', 'cloud_tpu_cluster'):
    bare.setattr(f'jax._src.clusters.{module}.running_in_cloud_tpu_vm', True)
  names = {'MEGASCALE_NUM_SLICES': '2', 'MEGASCALE_SLICE_ID': '1', 'TPU_SKIP_MDS_QUERY': '1'}
  names |= {'MEGASCALE_COORDINATOR_ADDRESS': 'localhost:8080', 'TPU_WORKER_ID': '0'}
  names |= {'TPU_WORKER_HOSTNAMES': 'flan-slice-1-0,flan-slice-1-1', 'JOB_COMPLETION_INDEX': '0'}
  for name, value in names.items():
    bare.setenv(name, value)
  assert multihost.find_cluster() == multihost.Cluster('localhost:8482', 4, 2)


def test_a_wrong_number_of_devices_is_refused():
  multihost.show_devices(8)
  with pytest.raises(ValueError, match='There are 8 devices and --expected_devices 16: process 0'):
    multihost.show_devices(16)


def test_alone_nobody_waits():
  multihost.barrier('nothing', timeout=0)
  assert multihost.from_first(lambda: 3) == 3
  multihost.leave()


@dataclasses.dataclass(frozen=True)
class FakeDevice:
  """A TPU as a mesh sees it."""

  id: int
  slice_index: int
  process_index: int
  platform: str = 'cpu'
  device_kind: str = 'fake'


def fake_devices(slices, each):
  return [FakeDevice(i, i // each, i // 2) for i in range(slices * each)]


def test_only_data_crosses_from_slice_to_slice():
  config = partitioning.MeshConfig(data=-1, fsdp=4, tensor=2)
  mesh = partitioning.make_mesh(config, fake_devices(3, 16))
  assert dict(mesh.shape) == {'data': 6, 'fsdp': 4, 'tensor': 2, 'sequence': 1}
  for row, block in enumerate(mesh.devices):
    assert {device.slice_index for device in block.flat} == {row // 2}
  assert len({device.id for device in mesh.devices.flat}) == 48


def test_a_mesh_whose_data_do_not_cover_the_slices_is_refused():
  with pytest.raises(ValueError, match='data=1 in MESH is no multiple of the 2 slices.*data=2'):
    partitioning.make_mesh(partitioning.MeshConfig(data=1, fsdp=8), fake_devices(2, 4))


def test_without_slices_the_mesh_is_that_of_jax():
  mesh = partitioning.make_mesh(partitioning.MeshConfig(data=2, fsdp=4))
  made = jax.make_mesh((2, 4), ('data', 'fsdp'))
  assert [d.id for d in mesh.devices.flat] == [d.id for d in made.devices.flat]
