"""Every second of a run has one cause, over crashes and restarts."""

import pytest

from flan_jax import goodput


class Clock:
  """Seconds that pass when told to."""

  now = 0.0

  def __call__(self):
    return self.now


@pytest.fixture
def clock():
  return Clock()


def run(workdir, clock, first_step, steps, *, compile_seconds=10.0):
  """A start that compiles, then takes `steps` of 2 s, each after waiting 1 s for data."""
  watch = goodput.Stopwatch(workdir, clock=clock)
  with watch.spend('compile'):
    clock.now += compile_seconds
  watch.begin_steps(first_step)
  for step in range(first_step, first_step + steps):
    with watch.spend('data'):
      clock.now += 1
    clock.now += 2
    watch.record(step + 1)
  return watch


def test_each_second_has_one_cause(tmp_path, clock):
  watch = run(tmp_path, clock, 0, 5)
  with watch.spend('evaluation'):
    clock.now += 3
    with watch.spend('save'):
      clock.now += 4
    clock.now += 5
  watch.record(5)
  seconds = goodput.by_cause(goodput.read(tmp_path))
  expected = {'step': 10, 'compile': 10, 'data': 5, 'evaluation': 8, 'save': 4}
  assert {c: s for c, s in seconds.items() if s > 0.1} == pytest.approx(expected, abs=0.01)
  assert sum(seconds.values()) == pytest.approx(clock.now, abs=0.1)
  assert list(seconds.values()) == sorted(seconds.values(), reverse=True)


def test_an_error_within_is_counted_and_the_cause_before_goes_on(tmp_path, clock):
  watch = run(tmp_path, clock, 0, 1)
  with pytest.raises(OSError), watch.spend('save'):
    clock.now += 7
    raise OSError
  clock.now += 2
  watch.record(1)
  seconds = goodput.by_cause(goodput.read(tmp_path))
  assert (seconds['save'], seconds['step']) == pytest.approx((7, 4), abs=0.01)


def test_steps_done_again_and_the_time_between_are_lost(tmp_path, clock, monkeypatch):
  times = iter([1000.0, 1100.0])
  monkeypatch.setattr(goodput.time, 'time', lambda: next(times))
  run(tmp_path, clock, 0, 10)  # 40 s from 1000 on; killed, the last checkpoint was at 6
  run(tmp_path, clock, 6, 4)  # from 1100 on
  starts = goodput.read(tmp_path)
  seconds = goodput.by_cause(starts)
  assert seconds == pytest.approx(
    {'step': 12 + 8, 'redone': 8, 'data': 14, 'compile': 20, 'down': 60, 'start': 0}, abs=0.01
  )
  assert goodput.productive_share(starts) == pytest.approx(20 / 122, abs=1e-3)
  assert goodput.sentence(starts).startswith('Goodput 16.4% of 122 s in 2 starts: down 49.2%, ')


@pytest.mark.parametrize('content', [b'', b'[', b'{}', b'[1]', b'[{"began": 1}]', b'\xff\xfe'])
def test_a_damaged_record_is_begun_anew(tmp_path, clock, content):
  (tmp_path / goodput.FILE).write_bytes(content)
  assert goodput.read(tmp_path) == []
  run(tmp_path, clock, 0, 1)
  assert len(goodput.read(tmp_path)) == 1


def test_processes_beside_the_first_write_nothing(tmp_path, clock, monkeypatch):
  monkeypatch.chdir(tmp_path)
  run(None, clock, 0, 2)
  assert list(tmp_path.iterdir()) == []
