"""A run that makes no progress is ended by name; one that does is left alone."""

import threading
import time

import pytest
from test_goodput import Clock

from flan_jax import goodput, guard, watchdog


def watched(tmp_path, spend, seconds=0.5):
  """What the watchdog says while `spend(watch)` runs and ten seconds of the clock pass."""
  said, heard, clock = [], threading.Event(), Clock()
  watch = goodput.Stopwatch(tmp_path, clock=clock)
  watch.begin_steps(6)

  def end(sentence):
    said.append(sentence)
    heard.set()

  with watchdog.Watchdog(watch, seconds, lambda: 7, end):
    spend(watch, clock, heard)
  return said


@pytest.mark.parametrize(
  ('cause', 'what'), [('step', 'Step 7'), ('data', 'The data of step 7'), ('save', 'The save of')]
)
def test_what_lasts_too_long_is_named_with_the_setting(cause, what, tmp_path):
  def hang(watch, clock, heard):
    with watch.spend(cause):
      clock.now += 10
      assert heard.wait(10)

  (said,) = watched(tmp_path, hang)
  assert said.startswith(what) and 'within 0.5 s (GuardConfig.hang_seconds)' in said


@pytest.mark.parametrize('cause', ['evaluation', 'compile', 'restore'])
def test_what_may_take_any_time_is_left_alone(cause, tmp_path):
  def work(watch, clock, heard):
    with watch.spend(cause):
      clock.now += 10
      assert not heard.wait(0.3)

  assert not watched(tmp_path, work)


def test_steps_that_go_on_are_left_alone(tmp_path):
  def work(watch, clock, heard):
    for _ in range(30):
      clock.now += 0.4
      with watch.spend('data'):
        time.sleep(0.01)

  assert not watched(tmp_path, work)


def test_an_impossible_limit_is_refused():
  with pytest.raises(ValueError, match='GuardConfig.hang_seconds=0 must be above 0'):
    guard.GuardConfig(hang_seconds=0)
