"""Files that lose bytes or bits, and clocks that jump."""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

from bench import Bench, SkippedError, committed
from disks import stop_after_a_save

CLOCK = Path('/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1')


def checkpoint(bench: Bench, draws: int = 4) -> Iterator[tuple[str, str]]:
  """A file of the newest checkpoint, any of them, cut short or with one bit changed."""
  for number in range(draws):
    workdir = bench.new_workdir('damaged')
    stop_after_a_save(bench, workdir)
    newest = max(committed(workdir))
    _, fault = _damage(bench, workdir / 'checkpoints' / str(newest), number)
    running = bench.start(workdir)
    bench.finish(running)
    end = bench.compare(workdir)
    if 'It was set aside as' in running.said:
      end = f'the checkpoint before, {end}'
    yield f'checkpoint {fault}', end
  workdir = bench.new_workdir('damaged')
  stop_after_a_save(bench, workdir)
  for step in committed(workdir):
    _damage(bench, workdir / 'checkpoints' / str(step), 1)
  yield 'all checkpoints with a bit changed', bench.refusal(bench.start(workdir))


def token_cache(bench: Bench, draws: int = 4) -> Iterator[tuple[str, str]]:
  """A file of the token cache, any that training reads, cut short or with one bit changed."""
  for number in range(draws):
    workdir, cache_dir = bench.new_workdir('misled'), bench.new_workdir('cache')
    shutil.copytree(bench.cache_dir, cache_dir)
    folders = sorted(cache_dir.glob('tasks/*/train'))
    path, how = _damage(bench, folders[bench.rng.integers(len(folders))], number)
    fault = f'{path.name} {how}'
    running = bench.start(workdir, cache_dir=cache_dir)
    if running.finish():
      yield f'token cache {fault}', bench.refusal(running)
      yield f'token cache {fault}, then put back', bench.go_on(workdir)
    else:  # in what training does not read
      yield f'token cache {fault}', bench.compare(workdir)
    shutil.rmtree(cache_dir)


def compiled(bench: Bench) -> Iterator[tuple[str, str]]:
  """Each of the compiled programs that a run has kept, cut short, as a kill may leave it."""
  workdir = bench.new_workdir('compiled')
  folder = bench.folder / 'compiled-cut'
  shutil.copytree(bench.folder / 'compiled', folder)
  for path in folder.iterdir():
    _cut(bench, path)
  kept = {'FLAN_JAX_COMPILATION_CACHE_DIR': str(folder)}
  bench.finish(bench.start(workdir, environment=kept))
  yield 'compiled programs cut short', bench.compare(workdir)


def clock(bench: Bench) -> Iterator[tuple[str, str]]:
  """The time of day jumps during a run and between starts; so does the time since boot."""
  if not CLOCK.exists():
    raise SkippedError('libfaketime is not there (apt-get install libfaketime)')
  for fault, jumps in (('back a day', ('-1d', '-2d')), ('on a year', ('+1y', '+2y'))):
    workdir, now = bench.new_workdir('astray'), bench.folder / 'clock'
    told = {
      'LD_PRELOAD': str(CLOCK),
      'FAKETIME_TIMESTAMP_FILE': str(now),
      'FAKETIME_NO_CACHE': '1',
      'FAKETIME_DONT_FAKE_MONOTONIC': '1',
    }
    now.write_text('+0')
    running = bench.start(workdir, environment=told)
    running.wait_until(lambda r=running: '\nstep 5 ' in r.said)
    now.write_text(jumps[0])
    running.wait_until(lambda r=running: '\nstep 12 ' in r.said)
    running.signal(signal.SIGTERM)
    running.finish()
    now.write_text(jumps[1])
    bench.finish(bench.start(workdir, environment=told))
    yield f'clock jumps {fault}', bench.compare(workdir)
  workdir = bench.new_workdir('astray')
  stop_after_a_save(bench, workdir)
  by = ('unshare', '--time', '--monotonic', '100000000', '--boottime', '100000000')
  bench.finish(bench.start(workdir, by=by))
  yield 'time since boot jumps between starts', bench.compare(workdir)


def _damage(bench: Bench, folder: Path, number: int) -> tuple[Path, str]:
  """Damages one file below a folder, by turns in one way and the other; returns which, and how."""
  files = sorted(path for path in folder.rglob('*') if path.is_file() and path.stat().st_size)
  path = files[bench.rng.integers(len(files))]
  if number % 2:
    content = bytearray(path.read_bytes())
    content[bench.rng.integers(len(content))] ^= 1 << bench.rng.integers(8)
    path.write_bytes(content)
    return path, 'with a bit changed'
  _cut(bench, path)
  return path, 'cut short'


def _cut(bench: Bench, path: Path) -> None:
  content = path.read_bytes()
  path.write_bytes(content[: bench.rng.integers(len(content))])
