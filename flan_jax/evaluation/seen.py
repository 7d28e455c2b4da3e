"""Whether a checkpoint was trained on what it is to be tested on, by what its run wrote down."""

import json
import os
from pathlib import Path

from flan_jax.data.mixture import resolve


def seen_in_training(
  workdir: str | os.PathLike[str],
  cache_dir: str | os.PathLike[str],
  mixtures: tuple[str, ...],
  split: str,
) -> tuple[str, ...]:
  """Names the tasks of `mixtures` that were trained on and should not have been.

  Those are all of a data set that was trained on, in any form, when the split is train; on another
  split only the ones that their registration says are to be held out, such as NIv2's test tasks.

  Args:
    workdir: of the run; without a mixture.json in it, as for imported weights, nothing is known.
    cache_dir: the cache with the mixtures to be tested on.
    mixtures: their names.
    split: split to be tested on.
  """
  try:
    told = json.loads((Path(workdir) / 'mixture.json').read_text(encoding='utf-8'))
  except FileNotFoundError:
    return ()
  trained = {row.get('family') or row['task'] for row in told['tasks']}
  seen = set()
  for name in mixtures:
    resolved = resolve(name, cache_dir, split=split, rule='uniform', skip_missing=True)
    for task, manifest in zip(resolved.tasks, resolved.manifests, strict=True):
      family = manifest.get('family') or task
      if family in trained and (split == 'train' or manifest.get('held_out')):
        seen.add(task)
  return tuple(sorted(seen))
