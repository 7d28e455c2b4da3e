"""Asks a model: answers written, or choices ranked, for rows of prompts in batches of few shapes.

What a row gets does not depend on the rows beside it, nor on the order in which rows are asked.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import numpy as np

from flan_jax import decoding
from flan_jax.evaluation import batching
from flan_jax.evaluation.prompting import Rows
from flan_jax.models.kv_cache import Prefix
from flan_jax.models.transformer import Transformer


@dataclasses.dataclass(frozen=True)
class Asker:
  """A model and how it is asked.

  Attributes:
    model: a Transformer.
    input_length: most tokens of a prompt.
    batch_rows: most prompts asked together.
    buckets: how many lengths of prompts are compiled for; see batching.bucket_lengths.
  """

  model: Transformer
  input_length: int
  batch_rows: int
  buckets: int

  def write(
    self,
    rows: Rows,
    decode: decoding.DecodeConfig,
    *,
    key: jax.Array,
    advance: Callable[[int], None],
  ) -> list[np.ndarray]:
    """Answers of each row, int32 [samples, decode.max_length]; `advance` hears of rows done."""
    decode = dataclasses.replace(decode, eos_id=rows.vocabulary.eos_ids)

    def ask(batch, prefix, _):
      return decoding.generate(self.model, batch, decode, key=key, prefix=prefix).tokens

    return [found[0] for found in self._ask(rows, decode.max_length, ask, advance)]

  def rank(
    self,
    rows: Rows,
    choices: Sequence[Sequence[Sequence[int]]],
    *,
    advance: Callable[[int], None],
  ) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each row, of each of its choices: the log-likelihood, and whether greedy writes it.

    Args:
      rows: the prompts.
      choices: ids of the choices of each row; none may be empty.
      advance: hears of rows done.
    """
    most = max(len(of_row) for of_row in choices)
    # Powers of two, so that tasks share what was compiled.
    length = 1 << (max(len(ids) for of_row in choices for ids in of_row) - 1).bit_length()

    def ask(batch, prefix, indices):
      batch_rows = len(next(iter(batch.values())))
      shape = (batch_rows, most, length)
      tokens, lengths = np.zeros(shape, np.int32), np.zeros(shape[:2], np.int32)
      for row, index in enumerate(indices):
        for number, ids in enumerate(choices[index]):
          tokens[row, number, : len(ids)] = ids
          lengths[row, number] = len(ids)
      placed = batching.place({'tokens': tokens, 'lengths': lengths}, axes=('batch',))
      return decoding.score_choices(
        self.model, batch, placed['tokens'], placed['lengths'], prefix=prefix
      )

    found = self._ask(rows, length, ask, advance)
    return [
      (likelihood[: len(of_row)], greedy[: len(of_row)])
      for (likelihood, greedy), of_row in zip(found, choices, strict=True)
    ]

  def _ask(self, rows: Rows, answer_length, ask, advance) -> list:
    prefix = self._read(rows.prefix)
    # A shared beginning leaves less to read, and only that is padded.
    longest = max(self.input_length - len(rows.prefix), max(map(len, rows.rests)))
    buckets = batching.bucket_lengths(longest, self.buckets)
    found: list = [None] * len(rows.rests)
    done = 0
    batch_rows = batching.enough_rows(len(rows.rests), self.batch_rows)
    plan = batching.plan([len(ids) for ids in rows.rests], batch_rows=batch_rows, buckets=buckets)
    for length, indices in plan:
      batch = batching.make_batch(
        [rows.rests[i] for i in indices],
        None,
        batch_rows=batch_rows,
        layout=rows.layout(length, answer_length),
      )
      answers = ask(batching.place(batch), prefix, indices)
      answers = batching.fetch(*(answers if isinstance(answers, tuple) else (answers,)))
      for row, index in enumerate(indices):
        found[index] = tuple(array[row] for array in answers)
      done += len(indices)
      advance(done)
    return found

  def _read(self, prefix: np.ndarray) -> Prefix | None:
    return decoding.read_prefix(self.model, prefix) if len(prefix) else None
