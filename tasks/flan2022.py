"""The Flan 2022 collection (Chung et al., arXiv:2210.11416): 1,836 tasks in all their cells.

Muffin has 80: the 70 data sets of Flan 2021's open code, of which wsc273 is for evaluation only,
lambada, UnifiedQA's science questions, three dialog sets and five of program synthesis. This is our
reading: the paper gives the number and no list. The others are T0-SF (193, p3.py), NIv2 (1,554,
niv2.py) and CoT (9, cot.py). Mixtures of them are in flan2022_mixtures.py.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import lru_cache

from flan_jax.tasks import cells, cot, dialog, niv2, p3, program_synthesis
from flan_jax.tasks.cells import Cell, CollectionSet, register_cells
from flan_jax.tasks.collection import table
from flan_jax.tasks.flan2021 import (
  common_sense,
  coreference,
  files,
  formatting,
  language,
  multiple_choice,
  nli,
  open_qa,
  paraphrase,
  reading,
  sentiment,
  structure_to_text,
  summarization,
  translation,
)
from flan_jax.tasks.flan2021.data_set import DataSet
from flan_jax.tasks.templates import load_templates
from flan_jax.tasks.wordings import Wording, Wordings, load_wordings

FLAN2021 = tuple(
  data_set
  for module in (
    *(reading, multiple_choice, open_qa, common_sense, coreference, nli, paraphrase, sentiment),
    *(summarization, structure_to_text, translation, formatting, language),
  )
  for data_set in module.DATA_SETS
)


@lru_cache(maxsize=1)
def stated_examples() -> Mapping[str, int]:
  """Returns how many examples of train are published of a data set, after what is held back."""
  return {row['name']: int(row['examples']) for row in table('sizes.tsv', ('name', 'examples'))}


def _register() -> None:
  for data_set in FLAN2021:
    wordings = load_wordings(f'flan2021/{data_set.templates_file}.json', data_set.templates)
    register_cells(_of_tfds(data_set, 'flan2021', wordings), cells.ALL)
  for data_set in (*dialog.DATA_SETS, *dialog.INVERTED_DATA_SETS):
    wordings = load_wordings('dialog.json', data_set.templates)
    made = replace(_of_tfds(data_set, 'dialog', wordings), dialog=True, of=_of(data_set.name))
    register_cells(made, cells.WITH_OPTIONS)
  for code_set in (*program_synthesis.DATA_SETS, *program_synthesis.INVERTED_DATA_SETS):
    register_cells(_of_code(code_set), cells.WITH_OPTIONS)
  for task in p3.T0_TASKS:
    register_cells(_of_p3(task), cells.ALL)
  for task in niv2.NIV2_TASKS:
    for made, served in _of_niv2(task):
      register_cells(made, served)
  for cot_set in cot.SETS:
    for made in _of_cot(cot_set):
      register_cells(made, cells.WITH_OPTIONS)


def _of(name: str) -> str:
  """Returns the name of the data set that an inverted one turns round."""
  return name.removesuffix('_inverted')


def _of_tfds(data_set: DataSet, collection: str, wordings: Wordings) -> CollectionSet:
  return CollectionSet(
    name=data_set.name,
    collection=collection,
    sources=files.sources(data_set),
    wordings=wordings,
    fields=data_set.fields,
    cluster=data_set.cluster,
    category=data_set.category,
    licence=data_set.licence,
    options=data_set.options,
    metrics=data_set.metrics,
    stated_examples=stated_examples().get(_of(data_set.name)),
  )


def _of_code(code_set: program_synthesis.CodeSet) -> CollectionSet:
  return CollectionSet(
    name=code_set.name,
    of=_of(code_set.name),
    collection='program_synthesis',
    sources={'train': code_set.source()},
    wordings=load_wordings('program_synthesis.json', code_set.templates),
    fields=code_set.fields,
    cluster=code_set.cluster,
    category=code_set.category,
    licence=code_set.licence,
    metrics=code_set.metrics,
  )


def _of_p3(task: p3.P3Task) -> CollectionSet:
  separate = task.options == 'separate'
  wordings = load_wordings('p3.json', 'p3')
  return CollectionSet(
    name=task.name,
    collection='t0',
    sources={'train': p3.source(task)},
    wordings=_with_options(wordings) if separate else wordings,
    fields=p3.fields_with_options if separate else p3.fields,
    cluster=task.dataset,
    category=task.category,
    licence=task.licence,
    options=separate,
    languages=task.languages,
    held_out=task.held_out,
  )


@lru_cache(maxsize=2)
def _with_options(wordings: Wordings) -> Wordings:
  """Shows the options below the prompt, for the prompts of P3 that do not list them."""

  def shown(given: tuple) -> tuple:
    return tuple(
      replace(w, inputs=w.inputs.replace('{prompt}', '{prompt}\n{options}')) for w in given
    )

  return Wordings(shown(wordings.zero_shot), wordings.zero_shot, shown(wordings.few_shot))


def _of_niv2(task: niv2.NaturalInstructionsTask) -> list[tuple[CollectionSet, tuple[Cell, ...]]]:
  made = CollectionSet(
    name=task.name,
    collection='niv2',
    sources={'train': niv2.source(task)},
    wordings=load_wordings('niv2.json', 'niv2'),
    fields=niv2.fields,
    cluster=task.category,
    category=task.category,
    licence=task.licence,
    metrics=('rouge',),
    languages=task.languages,
    held_out=task.held_out,
  )
  with_positive = replace(made, fields=niv2.fields_with_positive)
  return [(made, (cells.ZERO_SHOT, cells.TWO_SHOT)), (with_positive, (cells.ONE_POSITIVE,))]


def _of_cot(cot_set: cot.CotSet) -> list[CollectionSet]:
  """Returns a CoT set and its inversion: rationale, answer or both are given, the rest is asked."""
  zero_shot = load_templates('cot.json', 'cot_any', f'cot_{cot_set.kind}')
  forward = replace(
    load_wordings('cot_collection.json', 'cot'),
    zero_shot=tuple(Wording(**asdict(template)) for template in zero_shot),
  )
  made = CollectionSet(
    name=f'{cot_set.name}_cot',
    collection='cot',
    sources={'train': cot.source(cot_set)},
    wordings=forward,
    fields=cot.fields,
    cluster=cot_set.cluster,
    category='Chain of thought',
    licence=cot_set.licence,
    cot=True,
    options_in_rows=True,  # at the end of the question
    holdout=cot.SPLIT,
    metrics=(cot_set.metric,),
    postprocessor='option_letter' if cot_set.letters else 'cot_answer',
    stated_examples=stated_examples()[cot_set.name],
  )
  inverted = replace(
    made,
    name=f'{cot_set.name}_cot_inverted',
    of=made.name,
    wordings=load_wordings('cot_collection.json', 'cot_inversion'),
    category='Question Generation',
    metrics=('rouge',),
    postprocessor='identity',
  )
  return [made, inverted]


_register()
