"""Pairs of sentences or questions and whether they mean the same: rows -> slots.

STS-B's real numbers become whole ones, 0 to 5. Wordings: tasks/data/flan2021/paraphrase.json.
"""

from typing import Any

from flan_jax.tasks.flan2021.answers import NO_YES, chosen
from flan_jax.tasks.flan2021.data_set import DataSet, FieldsOf

SCORES = ('0', '1', '2', '3', '4', '5')


def sentence_pair(row: dict[str, Any]):
  """Takes a row of PAWS or MRPC; labels: different, the same."""
  return chosen(NO_YES, row['label'], sentence1=row['sentence1'], sentence2=row['sentence2'])


def glue_qqp(row: dict[str, Any]):
  """Labels: not_duplicate, duplicate; a few questions are empty."""
  return chosen(NO_YES, row['label'], question1=row['question1'], question2=row['question2'])


def stsb(row: dict[str, Any]):
  """Rounds the mean of the annotators' scores to the nearest whole number, halves to even."""
  return chosen(SCORES, round(row['label']), sentence1=row['sentence1'], sentence2=row['sentence2'])


def _set(name: str, tfds: str, licence: str, fields: FieldsOf) -> DataSet:
  return DataSet(
    name=name,
    tfds=tfds,
    cluster='paraphrase',
    category='Semantic Textual Similarity' if name == 'stsb' else 'Paraphrasing Identification',
    licence=licence,
    fields=fields,
    options=True,
    templates=name,
    templates_file='paraphrase',
  )


DATA_SETS = (
  _set(
    'paws_wiki',
    'paws_wiki/labeled_final_tokenized:1.1.0',
    'custom: free for any purpose, credit to Google',
    sentence_pair,
  ),
  _set('glue_mrpc', 'glue/mrpc:2.0.0', 'custom: Microsoft Research', sentence_pair),
  _set('glue_qqp', 'glue/qqp:2.0.0', 'custom: Quora, non-commercial', glue_qqp),
  _set('stsb', 'glue/stsb:2.0.0', 'CC-BY-SA-4.0', stsb),
)
