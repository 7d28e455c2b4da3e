"""Natural language inference: rows -> slots, and what is stated of the data sets.

Two-way sets ask whether the premise supports the hypothesis, three-way ones whether the hypothesis
is true: 'no' to the latter means a contradiction. Wordings: tasks/data/flan2021/nli.json.
"""

from typing import Any

from flan_jax.tasks.flan2021.answers import NO_YES, YES_NO, chosen
from flan_jax.tasks.flan2021.data_set import DataSet, FieldsOf

# In the order of each data set's labels.
E_N_C = ('yes', 'it is not possible to tell', 'no')
ANLI = ('Yes', "It's impossible to say", 'No')
CB = ('Yes', 'No', "It's impossible to say")


def rte(row: dict[str, Any]):
  """Labels: entailment, not_entailment."""
  return chosen(YES_NO, row['label'], premise=row['premise'], hypothesis=row['hypothesis'])


def anli(row: dict[str, Any]):
  """Labels: e, n, c."""
  return chosen(ANLI, row['label'], context=row['context'], hypothesis=row['hypothesis'])


def cb(row: dict[str, Any]):
  """Labels: entailment, contradiction, neutral."""
  return chosen(CB, row['label'], premise=row['premise'], hypothesis=row['hypothesis'])


def three_way(row: dict[str, Any]):
  """Takes a row of MNLI or SNLI; labels: entailment, neutral, contradiction, -1 for no majority."""
  return chosen(E_N_C, row['label'], premise=row['premise'], hypothesis=row['hypothesis'])


def qnli(row: dict[str, Any]):
  """Labels: entailment (the sentence answers the question), not_entailment."""
  return chosen(YES_NO, row['label'], question=row['question'], sentence=row['sentence'])


def wnli(row: dict[str, Any]):
  """Labels: not_entailment, entailment; the other way round than in RTE and QNLI."""
  return chosen(NO_YES, row['label'], sentence1=row['sentence1'], sentence2=row['sentence2'])


def _set(
  name: str,
  tfds: str,
  licence: str,
  fields: FieldsOf,
  *,
  templates: str = '',
  validation: str = 'validation',
) -> DataSet:
  return DataSet(
    name=name,
    tfds=tfds,
    cluster='natural_language_inference',
    category='Natural Language Inference',
    licence=licence,
    fields=fields,
    options=True,
    validation=validation,
    templates=templates or name,
    templates_file='nli',
  )


_MNLI = 'by genre: OANC, CC-BY-3.0, CC-BY-SA-3.0'

DATA_SETS = (
  _set('rte', 'super_glue/rte:1.0.2', 'unknown; built from the PASCAL RTE challenges', rte),
  _set('anli_r1', 'anli/r1:0.1.0', 'CC-BY-NC-4.0', anli, templates='anli'),
  _set('anli_r2', 'anli/r2:0.1.0', 'CC-BY-NC-4.0', anli, templates='anli'),
  _set('anli_r3', 'anli/r3:0.1.0', 'CC-BY-NC-4.0', anli, templates='anli'),
  _set('cb', 'super_glue/cb:1.0.2', 'unknown; CommitmentBank, for research', cb),
  _set(
    'mnli_matched',
    'glue/mnli:2.0.0',
    _MNLI,
    three_way,
    templates='mnli',
    validation='validation_matched',
  ),
  _set(
    'mnli_mismatched',
    'glue/mnli:2.0.0',
    _MNLI,
    three_way,
    templates='mnli',
    validation='validation_mismatched',
  ),
  _set('qnli', 'glue/qnli:2.0.0', 'CC-BY-SA-4.0', qnli),
  _set('wnli', 'glue/wnli:2.0.0', 'CC-BY-4.0', wnli),
  _set('snli', 'snli:1.1.0', 'CC-BY-SA-4.0', three_way),
)
