"""Worker processes that die, raise and report."""

import os
import signal
import sys
import time

import pytest

from flan_jax.data.worker_pool import run_jobs


def square(number, report):
  report(number)
  return number * number


def trouble(what, report):
  if what == 'kill':
    os.kill(os.getpid(), signal.SIGKILL)
  if what == 'exit':
    print('the library gave up', file=sys.stderr, flush=True)
    os._exit(3)
  if what == 'raise':
    raise ValueError('row 3 is bad')
  return os.getpid()


def slow(seconds, report):
  report(os.getpid())
  time.sleep(seconds)


def test_every_job_is_done_once_and_reports_before_it_ends():
  events = list(run_jobs(square, {str(n): n for n in range(7)}, workers=2))
  assert {e.job: e.value for e in events if e.kind == 'done'} == {str(n): n * n for n in range(7)}
  for n in range(7):
    assert [e.kind for e in events if e.job == str(n)] == ['started', 'progress', 'done']


def test_a_worker_that_dies_fails_only_its_job_by_name():
  jobs = {'first': 'ok', 'killed': 'kill', 'gone': 'exit', 'bad': 'raise', 'last': 'ok'}
  ends = {e.job: e for e in run_jobs(trouble, jobs, workers=1) if e.kind != 'started'}
  assert {job: e.kind for job, e in ends.items()} == {
    'first': 'done',
    'killed': 'died',
    'gone': 'died',
    'bad': 'raised',
    'last': 'done',
  }
  assert 'SIGKILL' in ends['killed'].value and 'fewer workers' in ends['killed'].value
  assert 'status 3' in ends['gone'].value and 'the library gave up' in ends['gone'].value
  assert ends['bad'].error == 'ValueError: row 3 is bad'
  assert 'Traceback' in ends['bad'].value


def test_a_worker_takes_several_jobs_so_that_its_imports_are_paid_once():
  done = [e for e in run_jobs(trouble, dict.fromkeys('abcd', 'ok'), workers=1) if e.kind == 'done']
  assert len({e.value for e in done}) == 1


def test_closing_the_iterator_ends_the_workers():
  events = run_jobs(slow, {'a': 600}, workers=1)
  process = next(e.value for e in events if e.kind == 'progress')
  events.close()
  with pytest.raises(ProcessLookupError):
    os.kill(process, 0)


def test_no_workers_is_an_error():
  with pytest.raises(ValueError, match='workers=0 cannot run anything; use 1 or more.'):
    list(run_jobs(square, {'a': 1}, workers=0))
