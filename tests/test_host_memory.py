"""Memory that was freed is given out again."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, threading
import numpy as np
from flan_jax import host_memory

def touch():
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  np.ones(40_000_000)
  faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

faults = []
host_memory.keep_freed()
for _ in range(3):
  thread = threading.Thread(target=touch)
  thread.start()
  thread.join()
print(*faults)
"""


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='glibc is of Linux')
def test_arrays_of_any_thread_take_the_pages_of_those_before():
  done = subprocess.run([sys.executable, '-c', PROGRAM], capture_output=True, text=True, check=True)
  first, *later = map(int, done.stdout.split())
  assert max(later) < first / 100, done.stdout
