"""The forms of one task: zero-shot, with rationale, few-shot, and with wordings never trained on.

Which forms there are follows from what the task was given; registry.py registers them.
"""

from dataclasses import replace

from flan_jax.tasks.few_shot import FewShot
from flan_jax.tasks.instruction import InstructionTask
from flan_jax.tasks.templates import Template


def forms_of(
  base: InstructionTask, cot: tuple[Template, ...], few_shot: FewShot | None
) -> list[InstructionTask]:
  """Returns the task in each form that its templates and splits allow."""
  unseen = _held_out(base.templates)
  base = replace(base, templates=_trained_on(base.templates))
  forms = [base]
  if cot:
    after = base.postprocessor if base.postprocessor != 'identity' else 'cot_answer'
    forms.append(
      replace(
        base, name=f'{base.name}_cot', form='cot', templates=_trained_on(cot), postprocessor=after
      )
    )
  if few_shot:
    forms += [
      replace(
        form,
        name=f'{form.name}_fewshot',
        form='cot_fewshot' if form.cot else 'fewshot',
        few_shot=few_shot,
      )
      for form in tuple(forms)
    ]
  if 'validation' in base.splits:
    for form, held_out in ((forms[0], unseen), (forms[1] if cot else None, _held_out(cot))):
      if form and held_out:
        forms.append(
          replace(
            form,
            name=f'{form.name}_unseen_wordings',
            form='cot_unseen_wordings' if form.cot else 'unseen_wordings',
            templates=held_out,
            splits=('validation',),
          )
        )
  return forms


def _trained_on(templates: tuple[Template, ...]) -> tuple[Template, ...]:
  return tuple(t for t in templates if not t.held_out)


def _held_out(templates: tuple[Template, ...]) -> tuple[Template, ...]:
  return tuple(t for t in templates if t.held_out)
