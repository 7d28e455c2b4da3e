"""What a model answered to one task of a suite, kept in a file so that a killed run goes on.

A file is JSON lines: first what made it, then one line for each question. It is written whole or
not at all, and used again only if everything that decides an answer is the same.
"""

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flan_jax import whole_file


@dataclasses.dataclass(frozen=True)
class Prediction:
  """What a model made of one question.

  Attributes:
    id: of the question.
    generated: what it wrote, one text for each sample; () where choices were ranked.
    log_likelihoods: of the choices, in nats; () where an answer was written.
    neutral: the choices' log-likelihoods after the neutral prompt, if asked for.
    dropped: exemplars that were left out as the prompt was too long.
    cut: whether even the query alone was too long and lost its beginning.
  """

  id: str
  generated: tuple[str, ...] = ()
  log_likelihoods: tuple[float, ...] = ()
  neutral: tuple[float, ...] = ()
  dropped: int = 0
  cut: bool = False


def write(
  path: str | os.PathLike,
  made_from: str,
  predictions: Sequence[Prediction],
  scored: Sequence[dict[str, Any]],
) -> None:
  """Writes predictions, each with what was made of it (`scored`: answer, scores, targets)."""
  rows: list[dict[str, Any]] = [{'made_from': made_from, 'questions': len(predictions)}]
  for prediction, extra in zip(predictions, scored, strict=True):
    rows.append({**dataclasses.asdict(prediction), **extra})
  Path(path).parent.mkdir(parents=True, exist_ok=True)
  whole_file.write(path, ''.join(json.dumps(row, ensure_ascii=False) + '\n' for row in rows))


def read(path: str | os.PathLike, made_from: str) -> list[Prediction] | None:
  """The predictions of a file that was made from the same; None if there is no such file."""
  try:
    lines = Path(path).read_text(encoding='utf-8').splitlines()
    if not lines or json.loads(lines[0])['made_from'] != made_from:
      return None
    return [_prediction(json.loads(line)) for line in lines[1:]]
  except FileNotFoundError:
    return None
  except (ValueError, KeyError, TypeError):  # something else lies there: it is made again
    return None


def _prediction(row) -> Prediction:
  fields = {field.name: row[field.name] for field in dataclasses.fields(Prediction)}
  lists = ('generated', 'log_likelihoods', 'neutral')
  return Prediction(**{**fields, **{name: tuple(fields[name]) for name in lists}})
