"""The demo collection: small generated tasks in clusters, two of them held out, and mixtures.

Importing this registers everything. The questions are made in examples.py, the wordings are data
(tasks/data/demo), and so is the vocabulary, which vocabulary.py trains.
"""

from flan_jax.tasks.demo.examples import (
  HALF,
  HELD_OUT,
  QUARTER,
  TASKS,
  TRAINED,
  VERSION,
  DemoTask,
  Examples,
)
from flan_jax.tasks.few_shot import FewShot, FewShotPattern
from flan_jax.tasks.mixtures import instruction_mixture
from flan_jax.tasks.registry import instruction_task
from flan_jax.tasks.sources import GeneratorSource
from flan_jax.tasks.templates import load_groups

# On one line, without 'Answer:' or 'Q:', which many of the wordings themselves have.
FEW_SHOT_PATTERNS = (
  FewShotPattern('arrow-semicolon', between=' => ', separator='; '),
  FewShotPattern('arrow-slash', between=' => ', separator=' / '),
)
# Tokens of a prompt, so that it fits the demo's rows of 64.
FEW_SHOT_TOKENS = 64


def _register_task(task: DemoTask) -> tuple[str, ...]:
  wordings = load_groups(f'demo/{task.cluster}.json')
  few_shot = None
  if task.few_shot:
    few_shot = FewShot(
      k=task.few_shot, max_tokens=FEW_SHOT_TOKENS, pool=200, patterns=FEW_SHOT_PATTERNS
    )
  return instruction_task(
    task.name,
    source=GeneratorSource(Examples(task), version=VERSION, id_field='id', licence='Apache-2.0'),
    templates=wordings[task.name],
    cot_templates=wordings.get(f'{task.name}_cot'),
    few_shot=few_shot,
    cluster=task.cluster,
    collection='demo',
  )


def _register() -> None:
  forms = {task.name: _register_task(task) for task in TASKS}
  trained = [task.name for task in TRAINED]
  held_out = [task.name for task in HELD_OUT]
  multistep = [name for name in trained if f'{name}_cot' in forms[name]]

  def training(names) -> dict[str, float]:
    """Each task asked directly, with rationale where it has one, and with exemplars.

    Rationales weigh most: they hold the most to learn. A few-shot prompt is as long as three
    others.
    """
    rates = {}
    for name in names:
      rates[name] = 0.5 if name in multistep else 1.0
      if name in multistep:
        rates[f'{name}_cot'] = 2.0
      if f'{name}_fewshot' in forms[name]:
        rates[f'{name}_fewshot'] = 0.2
    return rates

  def unseen_wordings(names) -> list[str]:
    return [f'{name}_unseen_wordings' for name in names]

  # To train on.
  instruction_mixture('demo', training(trained))
  instruction_mixture('demo_half', training(HALF))
  instruction_mixture('demo_quarter', training(QUARTER))
  # To evaluate on.
  instruction_mixture('demo_unseen_examples', trained, rule='uniform')
  instruction_mixture('demo_unseen_wordings', unseen_wordings(trained), rule='uniform')
  instruction_mixture('demo_held_out', held_out, rule='uniform')
  instruction_mixture('demo_multistep', multistep, rule='uniform')
  instruction_mixture('demo_cot_eval', [f'{name}_cot' for name in multistep], rule='uniform')
  # New wordings of the tasks that demo_quarter, demo_half and demo all train on.
  instruction_mixture('demo_shared_unseen_wordings', unseen_wordings(QUARTER), rule='uniform')


_register()
