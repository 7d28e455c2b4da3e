"""The roll call before a run: every process is there once, has the same code, sees one workdir.

JAX's coordination service ends a process without a name when another does not come or comes twice,
so process 0 calls the roll first, on the port that the service will have: a few lines of JSON from
each process. Whatever is wrong is one sentence, the same in all of them, before any device is
touched.
"""

import contextlib
import dataclasses
import errno
import json
import secrets
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from flan_jax import preemption
from flan_jax.naming import some

# An NFS client may believe for so long that a file is not there.
_SHARED_SECONDS = 60.0
_POLL_SECONDS = 0.1
_LINE_SECONDS = 5.0
_LONGEST_LINE = 1 << 24


class RollCallError(RuntimeError):
  """The processes cannot run as one program; says which of them and why."""


@dataclasses.dataclass(frozen=True)
class Member:
  """One process: its id, how many it was told there are, its host, and what must be the same."""

  id: int
  count: int
  host: str
  facts: Mapping[str, str]


def answer(
  me: Member,
  address: str,
  workdir: Path,
  timeout: float,
  notices: preemption.Notices | None = None,
) -> tuple[str, ...]:
  """Takes part in the roll call; returns the host of each process.

  Args:
    me: This process.
    address: 'host:port' of process 0.
    workdir: The folder that all must see; process 0 makes it.
    timeout: Seconds until all must have come.
    notices: A notice to any of the processes ends the roll call.

  Raises:
    RollCallError: a process is missing, came twice, differs, or sees another workdir.
    preemption.Preempted: one of them has a notice to leave.
  """
  host, _, port = address.rpartition(':')
  if not host or not port.isdigit():
    raise RollCallError(f"The coordinator's address {address!r} is not HOST:PORT.")
  notices = notices or preemption.Notices()
  deadline = time.monotonic() + timeout
  if me.id == 0:
    return _Caller(me, workdir, deadline, timeout, notices).call(int(port))
  with contextlib.closing(_connect(me, (host, int(port)), deadline, timeout, notices)) as line:
    line.send(dataclasses.asdict(me))
    token = line.wait(deadline + _LINE_SECONDS, notices)['token']
    line.send({'sees': _sees(workdir / token, min(_SHARED_SECONDS, timeout))})
    return tuple(line.wait(time.monotonic() + 2 * _SHARED_SECONDS, notices)['hosts'])


class _Line:
  """JSON objects over a socket, one a line."""

  def __init__(self, connection: socket.socket):
    self._connection = connection
    self._received = b''

  def close(self) -> None:
    self._connection.close()

  def send(self, message: dict) -> None:
    with contextlib.suppress(OSError):  # who has gone is found out by reading
      self._connection.settimeout(_LINE_SECONDS)
      self._connection.sendall(json.dumps(message).encode() + b'\n')

  def receive(self, seconds: float) -> dict | None:
    """The next message, None if none came in time; raises EOFError where the other has gone."""
    end = time.monotonic() + seconds
    while b'\n' not in self._received and len(self._received) < _LONGEST_LINE:
      self._connection.settimeout(max(end - time.monotonic(), 0))
      try:
        data = self._connection.recv(1 << 16)
      except (TimeoutError, BlockingIOError):
        return None
      except OSError as e:
        raise EOFError from e
      if not data:
        raise EOFError
      self._received += data
    text, _, self._received = self._received.partition(b'\n')
    return json.loads(text)

  def wait(self, deadline: float, notices: preemption.Notices) -> dict:
    """Process 0's next message; raises what it says is wrong."""
    while time.monotonic() < deadline:
      if notices.reason:
        self.send({'preempted': notices.reason})
        raise preemption.Preempted(f'Stopped by {notices.reason} before the first step.')
      try:
        message = self.receive(_POLL_SECONDS)
      except EOFError:
        break
      if message is None:
        continue
      if 'wrong' in message:
        raise RollCallError(message['wrong'])
      if 'preempted' in message:
        raise preemption.Preempted(f'Stopped by {message["preempted"]} before the first step.')
      return message
    raise RollCallError('Process 0 has left while it called the roll; its log says why.')


def _connect(me, address, deadline, timeout, notices) -> _Line:
  while True:
    try:
      return _Line(socket.create_connection(address, timeout=_LINE_SECONDS))
    except OSError as e:
      why = e.strerror or str(e)
    if notices.reason:
      raise preemption.Preempted(f'Stopped by {notices.reason} before the first step.')
    if time.monotonic() > deadline:
      raise RollCallError(
        f'Process {me.id} on {me.host} did not find process 0 at {address[0]}:{address[1]} within '
        f'{timeout:.0f} s ({why}). See whether it runs there and the port is open.'
      )
    time.sleep(_POLL_SECONDS)


class _Caller:
  """Process 0's part."""

  def __init__(self, me, workdir, deadline, timeout, notices):
    self._me, self._workdir = me, workdir
    self._deadline, self._timeout, self._notices = deadline, timeout, notices
    self._members: dict[int, Member] = {0: me}
    self._lines: dict[int, _Line] = {}

  def call(self, port: int) -> tuple[str, ...]:
    try:
      with _listen(port) as server:
        self._gather(server)
      self._compare()
      self._share_workdir()
    except RollCallError as e:
      self._tell({'wrong': str(e)})
      raise
    except preemption.Preempted:
      self._tell({'preempted': self._notices.reason or preemption.ELSEWHERE})
      raise
    hosts = [self._members[i].host for i in range(self._me.count)]
    self._tell({'hosts': hosts})
    self._end()
    return tuple(hosts)

  def _tell(self, message: dict) -> None:
    for line in self._lines.values():
      line.send(message)

  def _end(self) -> None:
    # The port is free for JAX's service only when the others have hung up first.
    for line in self._lines.values():
      with contextlib.suppress(EOFError, ValueError):
        line.receive(_LINE_SECONDS)
      line.close()

  def _gather(self, server: socket.socket) -> None:
    server.settimeout(_POLL_SECONDS)
    while len(self._members) < self._me.count:
      self._look_after_those_here()
      if time.monotonic() > self._deadline:
        raise RollCallError(self._missing())
      try:
        connection, _ = server.accept()
      except TimeoutError:
        continue
      line = _Line(connection)
      try:
        member = Member(**(line.receive(_LINE_SECONDS) or {}))
      except (EOFError, ValueError, TypeError):
        line.close()  # no process of ours
        continue
      self._admit(member, line)

  def _admit(self, member: Member, line: _Line) -> None:
    self._look_after_those_here()
    here = self._members.get(member.id)
    self._lines.setdefault(member.id if here is None else -1, line)
    if member.count != self._me.count:
      raise RollCallError(
        f'Process {member.id} on {member.host} was told of {member.count} processes and process 0 '
        f'on {self._me.host} of {self._me.count}; give all the same --process_count.'
      )
    if here is not None:
      raise RollCallError(
        f'Two processes have the id {member.id}, on {here.host} and on {member.host}; give each '
        f'its own --process_id from 0 to {self._me.count - 1}.'
      )
    if not 0 < member.id < self._me.count:
      raise RollCallError(
        f'Process {member.id} on {member.host}: ids go from 0 to {self._me.count - 1}.'
      )
    self._members[member.id] = member

  def _look_after_those_here(self) -> None:
    if self._notices.reason:
      raise preemption.Preempted(f'Stopped by {self._notices.reason} before the first step.')
    for id_, line in list(self._lines.items()):
      try:
        message = line.receive(0)
      except EOFError:  # it may be started again
        del self._lines[id_], self._members[id_]
        line.close()
        continue
      if message and 'preempted' in message:
        raise preemption.Preempted(f'Stopped by {preemption.ELSEWHERE} before the first step.')

  def _missing(self) -> str:
    missing = [i for i in range(self._me.count) if i not in self._members]
    came = some(f'{i} on {member.host}' for i, member in sorted(self._members.items()))
    name = 'Process' if len(missing) == 1 else 'Processes'
    return (
      f'{name} {some(map(str, missing), 20)} of {self._me.count} did not come within '
      f'{self._timeout:.0f} s; here are {came}. See the logs of those that are missing.'
    )

  def _compare(self) -> None:
    mine = self._me.facts
    for member in self._members.values():
      theirs = member.facts
      names = [n for n in {**mine, **theirs} if mine.get(n) != theirs.get(n)]
      if names:
        shown = [f'{n} ({theirs.get(n, "none")} there, {mine.get(n, "none")} here)' for n in names]
        raise RollCallError(
          f'Process {member.id} on {member.host} differs from process 0 on {self._me.host} in '
          f'{some(shown, 3)}. Give every process the same code, configuration and cache.'
        )

  def _share_workdir(self) -> None:
    token = self._workdir / f'.roll-call-{secrets.token_hex(8)}'
    try:
      self._workdir.mkdir(parents=True, exist_ok=True)
      token.touch()
    except OSError as e:
      raise RollCallError(
        f'The workdir {self._workdir} cannot be written on {self._me.host} ({e.strerror}); give '
        'another --workdir.'
      ) from e
    try:
      self._tell({'token': token.name})
      blind = [i for i, line in self._lines.items() if not self._sees_it(i, line)]
    finally:
      token.unlink(missing_ok=True)
    if blind:
      there = some(f'{i} on {self._members[i].host}' for i in sorted(blind))
      raise RollCallError(
        f'The workdir {self._workdir} of process 0 on {self._me.host} is not that of process '
        f'{there}: what the one writes, the other does not see. Give a folder that all hosts share.'
      )

  def _sees_it(self, id_: int, line: _Line) -> bool:
    try:
      message = line.receive(2 * _SHARED_SECONDS) or {}
    except EOFError as e:
      host = self._members[id_].host
      raise RollCallError(f'Process {id_} on {host} left the roll call; its log says why.') from e
    if 'preempted' in message:
      raise preemption.Preempted(f'Stopped by {preemption.ELSEWHERE} before the first step.')
    return message.get('sees', False)


def _listen(port: int) -> socket.socket:
  try:
    if socket.has_dualstack_ipv6():
      server = socket.create_server(('', port), family=socket.AF_INET6, dualstack_ipv6=True)
    else:
      server = socket.create_server(('', port))
  except OSError as e:
    if e.errno != errno.EADDRINUSE:
      raise
    raise RollCallError(
      f'Port {port} of {socket.gethostname()} is taken: a second process 0, or another program. '
      'End it, or give another --coordinator_address.'
    ) from e
  server.listen(1024)
  return server


def _sees(path: Path, seconds: float) -> bool:
  """Whether a file turns up; listing its folder makes a network file system look again."""
  end = time.monotonic() + seconds
  while True:
    with contextlib.suppress(OSError):
      if path.name in {p.name for p in path.parent.iterdir()}:
        return True
    if time.monotonic() > end:
      return False
    time.sleep(_POLL_SECONDS)
