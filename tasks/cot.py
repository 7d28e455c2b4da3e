"""The nine chain-of-thought sets of the Flan collection: direct, with rationale, and few-shot.

They are read as FLAN publishes them, FOLDER/gsm8k_train.tsv and so on (question TAB answer TAB
rationale, newlines as backslash-n), from the folder that --cot_dir, gin or FLAN_JAX_COT_DIR
names. A set that is not there fails alone, when it is prepared. Wordings: tasks/data/cot.json.
"""

import re
from dataclasses import dataclass
from typing import Any

from flan_jax.tasks.few_shot import FewShot
from flan_jax.tasks.folders import folder
from flan_jax.tasks.mixtures import instruction_mixture
from flan_jax.tasks.registry import instruction_task
from flan_jax.tasks.sources import TSV
from flan_jax.tasks.splits import HashSplit
from flan_jax.tasks.templates import load_templates

from flan_jax.data.mixture import ExamplesProportional

COT_DIR = folder('cot_dir', holds='the chain-of-thought sets', has_flag=True)

_OPTION = re.compile(r'^\s*(?:-\s+)?(?:\([A-Z]\))?\s*(.+?)\s*$', re.MULTILINE)


@dataclass(frozen=True)
class CotSet:
  """One of the nine sets. kind: which wordings suit it; letters: answers are like '(C)'."""

  name: str
  kind: str
  cluster: str
  licence: str
  letters: bool = False
  metric: str = 'exact_match'


SETS = (
  CotSet('gsm8k', 'arithmetic', 'arithmetic', 'MIT', metric='number_match'),
  CotSet('strategyqa', 'yes_no', 'multi_hop', 'MIT'),
  CotSet('creak', 'yes_no', 'fact_checking', 'MIT'),
  CotSet('qasc', 'multiple_choice', 'science', 'CC-BY-4.0', letters=True),
  CotSet('esnli', 'nli', 'inference', 'MIT; SNLI text CC-BY-SA-4.0'),
  CotSet('ecqa', 'multiple_choice', 'common_sense', 'CDLA-Sharing-1.0'),
  CotSet('sensemaking', 'multiple_choice', 'common_sense', 'CC-BY-SA-4.0'),
  CotSet('aqua', 'multiple_choice', 'arithmetic', 'Apache-2.0', letters=True),
  CotSet('qed', 'passage', 'reading', 'CC-BY-SA-3.0 and GFDL'),
)


# One question has two rationales in strategyqa: it must not be on both sides.
SPLIT = HashSplit(0.05, key='question')


def fields(row: dict[str, Any]) -> dict[str, Any]:
  r"""Strips the cells and lists the options that a question ends with.

  'Which?\nOptions:\n- (A) red\n- (B) blue' has the options red and blue.
  """
  question = row['question'].strip()
  out = {
    'question': question,
    'answer': row['answer'].strip(),
    'rationale': row['rationale'].strip(),
  }
  _, marker, options = question.rpartition('Options:\n')
  if marker:
    out['options'] = _OPTION.findall(options)
  return out


def source(cot_set: CotSet) -> TSV:
  """Returns where the rows of a set are read."""
  return TSV(
    COT_DIR / f'{cot_set.name}_train.tsv',
    columns=('question', 'answer', 'rationale'),
    unescape=True,
    licence=cot_set.licence,
    how_to_get=(
      f'Get flan/v2/cot_data/{cot_set.name}_train.tsv of github.com/google-research/FLAN. '
      f'{COT_DIR.how()}'
    ),
  )


def _register() -> None:
  for cot_set in SETS:
    instruction_task(
      cot_set.name,
      source=source(cot_set),
      fields=fields,
      templates=load_templates('cot.json', 'direct_any', f'direct_{cot_set.kind}'),
      cot_templates=load_templates('cot.json', 'cot_any', f'cot_{cot_set.kind}'),
      few_shot=FewShot(k=3),
      splits=SPLIT,
      metrics=(cot_set.metric,),
      postprocessor='option_letter' if cot_set.letters else 'identity',
      cluster=cot_set.cluster,
      collection='cot',
    )
  names = [cot_set.name for cot_set in SETS]
  rule = ExamplesProportional(maximum=100_000)  # FLAN's cap for its CoT sets
  instruction_mixture('cot', [f'{name}_cot' for name in names], rule=rule)
  instruction_mixture('cot_direct', names, rule=rule)
  instruction_mixture('cot_few_shot', [f'{name}_cot_fewshot' for name in names], rule=rule)
  instruction_mixture('cot_zero_and_few_shot', {'cot': 0.5, 'cot_few_shot': 0.5})


_register()
