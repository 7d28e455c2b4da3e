"""The cells of a collection: each data set zero-shot and few-shot, with and without options.

A data set becomes one task a cell, NAME_zs_opt and so on, and the mixtures of a collection give
each cell a share (Longpre et al., arXiv:2301.13688, section 3).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from flan_jax.tasks.few_shot import FewShot
from flan_jax.tasks.instruction import Fields, InstructionTask
from flan_jax.tasks.lint import lint_wordings
from flan_jax.tasks.registry import register_forms
from flan_jax.tasks.rows import Source
from flan_jax.tasks.splits import HashSplit, TailSplit
from flan_jax.tasks.templates import Template, TemplateError
from flan_jax.tasks.wordings import Wordings

from flan_jax.naming import listing

# Of the whole prompt, separators and EOS included: the Flan collection trains on 2,048 tokens.
MAX_TOKENS = 2048
POOL = 2000  # rows of train that exemplars are drawn from


@dataclass(frozen=True)
class Cell:
  """One way to ask.

  shots: exemplars, at most. mixed: each in a wording of its own. positive: one solved example that
  comes with the task and its explanation, as Natural Instructions has them.
  """

  name: str
  options: bool
  shots: int = 0
  mixed: bool = False
  positive: bool = False

  def templates(self, wordings: Wordings) -> tuple[Template, ...]:
    """Returns the wordings that serve this cell."""
    if self.positive:
      return wordings.one_positive
    if not self.shots:
      return wordings.zero_shot if self.options else wordings.no_options or wordings.zero_shot
    if self.mixed:
      return wordings.mixed_few_shot()
    return wordings.few_shot if self.options else wordings.few_shot_without_options()

  def few_shot(self) -> FewShot | None:
    """Returns how exemplars are drawn, or None for a zero-shot cell."""
    if not self.shots:
      return None
    return FewShot(k=self.shots, max_tokens=MAX_TOKENS, pool=POOL, mixed=self.mixed)


ZERO_SHOT = Cell('zs_opt', options=True)
ZERO_SHOT_NO_OPTIONS = Cell('zs_noopt', options=False)
# Five exemplars of any wording, or three in the question's: the means of the open collection.
FEW_SHOT_MIXED = Cell('fs_opt_mix', options=True, shots=5, mixed=True)
FEW_SHOT = Cell('fs_opt', options=True, shots=3)
ONE_POSITIVE = Cell('fs_opt_positive', options=True, positive=True)
TWO_SHOT = Cell('fs_opt', options=True, shots=2)
FEW_SHOT_NO_OPTIONS = Cell('fs_noopt', options=False, shots=3)

WITH_OPTIONS = (ZERO_SHOT, FEW_SHOT_MIXED, FEW_SHOT)
ALL = (*WITH_OPTIONS, ZERO_SHOT_NO_OPTIONS, FEW_SHOT_NO_OPTIONS)


@dataclass(frozen=True, kw_only=True)
class CollectionSet:
  """A data set of a collection, ready to be registered in its cells.

  sources: split -> source. options: fields yields them for {options}. options_in_rows: the text of
  the rows lists them, so that wordings may speak of them. of: the data set that this one is the
  inversion of. The other fields are InstructionTask's and instruction_task's.
  """

  name: str
  collection: str
  sources: Mapping[str, Source]
  wordings: Wordings
  fields: Fields
  cluster: str
  category: str
  licence: str
  of: str = ''
  cot: bool = False
  options: bool = False
  options_in_rows: bool = False
  dialog: bool = False
  holdout: HashSplit | TailSplit | None = None
  metrics: tuple[str, ...] = ('exact_match',)
  postprocessor: str = 'identity'
  languages: tuple[str, ...] = ('English',)
  held_out: tuple[str, ...] = ()
  stated_examples: int | None = None


def register_cells(made: CollectionSet, cells: Iterable[Cell]) -> tuple[str, ...]:
  """Registers a data set in each of the cells; returns the names, NAME_CELL.

  Few-shot cells are left out where there is no train split to draw exemplars from.

  Raises:
    ValueError: a name that is taken, a cell that no wording serves, or a wording with a fault.
  """
  if faults := lint_wordings(made.wordings, made.options, made.options_in_rows):
    raise TemplateError(f'{made.name!r}: {faults[0]}')
  return register_forms(
    [_form(made, cell) for cell in cells if not cell.shots or 'train' in made.sources]
  )


def _form(made: CollectionSet, cell: Cell) -> InstructionTask:
  templates = tuple(t for t in cell.templates(made.wordings) if not t.held_out)
  if not templates:
    raise TemplateError(
      f'{made.name!r} has no wording for the cell {cell.name!r}; its file of wordings needs some, '
      f'or leave the cell out. Sources: {listing(made.sources)}.'
    )
  splits = tuple(made.sources)
  return InstructionTask(
    name=f'{made.name}_{cell.name}',
    family=made.of or made.name,
    form=f'cot_{cell.name}' if made.cot else cell.name,
    sources=made.sources,
    templates=templates,
    splits=splits if made.holdout is None else (*splits, 'validation'),
    holdout=made.holdout,
    fields=made.fields,
    few_shot=cell.few_shot(),
    metrics=made.metrics,
    postprocessor=made.postprocessor,
    cluster=made.cluster,
    collection=made.collection,
    licence=made.licence,
    option_styles=made.options and cell.options,
    dialog_styles=made.dialog,
    category=made.category,
    languages=made.languages,
    held_out=made.held_out,
    stated_examples=made.stated_examples,
  )
