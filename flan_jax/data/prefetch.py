"""Makes items ahead of their use in one thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Generic, Self, TypeVar

T = TypeVar('T')

_POLL_SECONDS = 0.1


class Prefetcher(Generic[T]):
  """Endless iterator over make(0), make(1) ...; errors reach whoever iterates.

  A context manager: leaving it ends the thread.
  """

  def __init__(self, make: Callable[[int], T], *, depth: int):
    if depth < 1:
      raise ValueError(f'depth={depth} must be at least 1 item made ahead.')
    self._make = make
    self._items: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(depth)
    self._closed = threading.Event()
    self._thread = threading.Thread(target=self._run, name='prefetch', daemon=True)
    self._thread.start()

  def __iter__(self) -> Self:
    return self

  def __next__(self) -> T:
    while not self._closed.is_set():
      try:
        item, error = self._items.get(timeout=_POLL_SECONDS)
      except queue.Empty:
        continue
      if error is not None:
        self.close()
        raise error
      return item  # type: ignore[return-value]
    raise StopIteration

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *exception: object) -> None:
    self.close()

  def close(self) -> None:
    """Ends the thread and drops what was made ahead; harmless when repeated."""
    self._closed.set()
    if self._thread is not threading.current_thread():
      self._thread.join()

  def _run(self) -> None:
    number = 0
    while not self._closed.is_set():
      try:
        self._put(self._make(number), None)
      except BaseException as e:  # noqa: B036 - the consumer's thread raises it
        self._put(None, e)
        return
      number += 1

  def _put(self, item: T | None, error: BaseException | None) -> None:
    while not self._closed.is_set():
      try:
        return self._items.put((item, error), timeout=_POLL_SECONDS)
      except queue.Full:
        continue
