"""The progress of a comparison on a terminal; elsewhere it shows nothing."""

import time

from rich import progress
from rich.console import Console

from flan_jax.console import visible

_EVERY = 50  # examples between two moves of the bar


class Bar:
  """A bar on a terminal; `with Bar(total, out) as advance` gives the function that moves it."""

  def __init__(self, total: int, out: Console):
    self._bar = progress.Progress(
      progress.TextColumn('{task.description}', markup=False),
      progress.BarColumn(bar_width=30),
      progress.MofNCompleteColumn(),
      progress.TextColumn('{task.fields[note]}', markup=False),
      progress.TimeRemainingColumn(),
      console=out,
      transient=True,
      disable=not out.is_terminal,
    )
    self._total, self._done, self._started = total, 0, time.monotonic()

  def __enter__(self):
    self._bar.start()
    self._row = self._bar.add_task('compare', total=self._total, note='')
    return self._advance

  def __exit__(self, *exception: object) -> None:
    self._bar.stop()

  def _advance(self, task: str) -> None:
    self._done += 1
    if self._done % _EVERY == 0 or self._done == self._total:
      rate = self._done / max(time.monotonic() - self._started, 1e-3)
      note = f'{rate:,.0f} examples/s  {visible(task)}'
      self._bar.update(self._row, completed=self._done, note=note)
