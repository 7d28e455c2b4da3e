"""One instruction task: from the rows of a source to the text that a model reads and writes.

Everything here is plain Python and a pure function of (task, example id, seed); TensorFlow and
SeqIO only wrap it (preprocessors.py). Names and forms of tasks are made in registry.py.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

from flan_jax.tasks.few_shot import FewShot, draw, fit
from flan_jax.tasks.naming import listing, nearest
from flan_jax.tasks.readers import DataError
from flan_jax.tasks.rows import Row, Source
from flan_jax.tasks.splits import HashSplit, TailSplit
from flan_jax.tasks.templates import Template, choose, templates_hash, text_of
from flan_jax.tasks.vocabulary import token_counter

# Raised when the same rows and templates would give other text than before: the caches that were
# made with another number are made anew.
FORMAT = 1

Fields = Mapping[str, str] | Callable[[dict[str, Any]], Mapping[str, Any] | None]

_LINE_END = re.compile('\r\n?')
# C0 without tab and newline, DEL, C1, and halves of surrogate pairs, which UTF-8 cannot write.
_CONTROL = re.compile('[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]')


@dataclass(frozen=True)
class InstructionTask:
  """A registered task, in one form.

  family: the name that all forms of the task share. form: zero_shot, cot, fewshot, cot_fewshot or
  unseen_wordings. fields: new name -> name in the source, or a function of the row's fields that
  returns the fields to use, or None to leave the row out.
  """

  name: str
  family: str
  form: str
  sources: Mapping[str, Source]
  templates: tuple[Template, ...]
  splits: tuple[str, ...]
  holdout: HashSplit | TailSplit | None = None
  fields: Fields | None = None
  few_shot: FewShot | None = None
  metrics: tuple[str, ...] = ('exact_match',)
  postprocessor: str = 'identity'
  cluster: str = ''
  collection: str = ''
  licence: str = ''
  seed: int = 0

  @property
  def cot(self) -> bool:
    """Whether targets hold a rationale before the answer."""
    return self.form.startswith('cot')

  @cached_property
  def templates_hash(self) -> str:
    """Names wordings and few-shot layouts by content."""
    layouts = self.few_shot.layouts() if self.few_shot else ()
    return templates_hash((*self.templates, *layouts))

  def rows(self, split: str, dropped: Counter | None = None) -> Iterator[Row]:
    """Yields the rows of a split with fields renamed and cleaned; ids begin with their origin."""
    if split not in self.splits:
      raise ValueError(
        f'Task {self.name!r} has no split {split!r}.{nearest(split, self.splits)} '
        f'Splits: {listing(self.splits)}.'
      )
    origin = split if split in self.sources else 'train'
    rows = self.sources[origin].rows()
    if self.holdout is not None and split in ('train', 'validation'):
      rows = self.holdout.select(rows, split)
    for row in rows:
      fields = self._select(row)
      if fields is None:
        if dropped is not None:
          dropped['left out by fields='] += 1
      else:
        fields = {name: clean(value) for name, value in fields.items()}
        yield Row(f'{origin}-{clean(row.id)}', fields, row.place)

  def _select(self, row: Row) -> Mapping[str, Any] | None:
    """Applies `fields` to one row."""
    if self.fields is None:
      return row.fields
    if isinstance(self.fields, Mapping):
      for source_name in self.fields.values():
        if source_name not in row.fields:
          raise DataError(
            f'{row.place} has no field {source_name!r}.{nearest(source_name, row.fields)} '
            f'Fields: {listing(row.fields)}.'
          )
      return {new: row.fields[source_name] for new, source_name in self.fields.items()}
    try:
      fields = self.fields(dict(row.fields))
    except Exception as e:
      raise DataError(
        f'{row.place}: fields= of task {self.family!r} failed with {type(e).__name__}: {e}.'
      ) from e
    if fields is not None and not isinstance(fields, Mapping):
      raise DataError(
        f'{row.place}: fields= of task {self.family!r} returned a {type(fields).__name__}; '
        'it must return a dict, or None to leave the row out.'
      )
    return fields


class TextExamples:
  """The examples of one split as text; may be iterated again, each time from the source.

  Yields dicts: id, template, inputs, targets, answer, and where the row has them options and
  references (lists). `dropped` counts the rows left out in the latest pass, by reason.
  """

  def __init__(self, task: InstructionTask, split: str):
    self.task = task
    self.split = split
    self.dropped: Counter = Counter()

  def __iter__(self) -> Iterator[dict[str, Any]]:
    self.dropped = Counter()
    task = self.task
    seen: set[int] = set()
    prompts = _Prompts(task, task.few_shot) if task.few_shot else None
    # Row numbers are unique as they are; named rows cost some 60 bytes each to check.
    named = any(source.id_field for source in task.sources.values())
    for row in task.rows(self.split, self.dropped):
      if named:
        _check_id(row, seen)
      template = choose(task.templates, task.name, row.id, task.seed)
      inputs, targets = template.render(row.fields, row.place)
      example = {
        'id': row.id,
        'template': template.id,
        'inputs': inputs,
        'targets': targets,
        'answer': answer_of(template, row, targets),
      }
      for name in ('options', 'references'):
        if isinstance(row.fields.get(name), list | tuple):
          example[name] = [text_of(item, name, row.place) for item in row.fields[name]]
      if prompts:
        prompts.add_exemplars(example, template)
      yield example


class _Prompts:
  """Draws exemplars for the examples of one pass; holds the pool of train rows."""

  def __init__(self, task: InstructionTask, few_shot: FewShot):
    self.task = task
    self.few_shot = few_shot
    self.pool = list(islice(task.rows('train'), few_shot.pool))
    self.layouts = few_shot.layouts()
    self.count = token_counter()

  def add_exemplars(self, example: dict[str, Any], template: Template) -> None:
    """Turns a zero-shot example into a few-shot one, in place.

    A question too long for even one exemplar keeps its zero-shot form, and says so in `shots`:
    leaving it out would bias the task towards short questions.
    """
    few_shot, key = self.few_shot, (self.task.name, example['id'], self.task.seed)

    def skip(index: int) -> bool:
      # The same question may stand in the data twice, so ids alone would let it through.
      row = self.pool[index]
      return (
        row.id == example['id'] or template.render(row.fields, row.place)[0] == example['inputs']
      )

    drawn = draw(len(self.pool), few_shot.k, 'exemplars', *key, skip=skip)
    exemplars = [template.render(self.pool[i].fields, self.pool[i].place) for i in drawn]
    layout = choose(self.layouts, 'layout', *key)
    made = fit(layout, exemplars, example['inputs'], few_shot.max_tokens, self.count)
    if made is None:
      example['shots'] = '0'
      return
    example['inputs'], kept = made
    example['shots'] = str(kept)
    example['template'] = f'{template.id}/{layout.id}'


def answer_of(template: Template, row: Row, targets: str) -> str:
  """Returns what a metric compares: the answer field, or the whole target of an inverted form."""
  if '{answer}' in template.targets and 'answer' in row.fields:
    return text_of(row.fields['answer'], 'answer', row.place)
  return targets


def clean(value: Any) -> Any:
  """Makes text safe for every vocabulary and terminal, inside lists and objects too.

  Line ends become newlines; NUL and all other control characters but tab and newline, and halves
  of surrogate pairs, become U+FFFD. Nothing else is changed.
  """
  if isinstance(value, str):
    if '\r' in value:
      value = _LINE_END.sub('\n', value)
    return _CONTROL.sub('\ufffd', value) if not value.isprintable() else value
  if isinstance(value, list | tuple):
    return [clean(item) for item in value]
  if isinstance(value, Mapping):
    return {key: clean(item) for key, item in value.items()}
  return value


def _check_id(row: Row, seen: set[int]) -> None:
  """Refuses an id that came before."""
  mark = hash(row.id)
  if mark in seen:
    raise DataError(
      f'{row.place}: the id {row.id!r} was given to an earlier row too; ids must be unique.'
    )
  seen.add(mark)
