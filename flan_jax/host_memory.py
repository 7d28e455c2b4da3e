"""Freed memory stays with the process, for the kernel gives it out dearly."""

import ctypes
import sys

# Parameters of mallopt, from glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_freed() -> None:
  """Lets malloc give freed memory out again in place of returning it to the kernel.

  On a CPU, XLA allocates what a program works in anew for each call: gigabytes for a training step.
  glibc maps so much for itself and unmaps it when it is freed, and the kernel clears each page when
  it is touched next. From here on the process keeps the most that it has held. To be called before
  JAX starts its threads; without glibc it does nothing.
  """
  if not sys.platform.startswith('linux'):
    return
  mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
  if mallopt is None:
    return
  mallopt(_TRIM_THRESHOLD, -1)  # never
  mallopt(_MMAP_MAX, 0)
  mallopt(_ARENA_MAX, 1)  # the other arenas map what is larger than 64 MB all the same
