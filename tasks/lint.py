"""Finds what is wrong with a set of templates: before any data is read, and on the shipped ones.

`check_templates` refuses at registration what can never work; `lint_templates` also finds what
is only bad: the same wording twice, a target that stands in its own input.
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from flan_jax.tasks.instruction import Fields
from flan_jax.tasks.templates import Template, TemplateError, slots
from flan_jax.tasks.wordings import KINDS, FewShotWording, Wording, Wordings

from flan_jax.naming import listing, nearest

_OPTION_WORDS = re.compile(
  r'\b(options?|choices?|choose|pick|select)\b|\b(following|listed|above|below) answers\b',
  re.IGNORECASE,
)


def lint_templates(templates: Sequence[Template], fields: Iterable[str]) -> list[str]:
  """Returns a sentence for each fault of the templates of a task with these fields."""
  fields = set(fields)
  faults = []
  ids: set[str] = set()
  wordings: dict[tuple[str, ...], str] = {}
  for template in templates:
    name = f'Template {template.id!r}'
    if not template.id.strip():
      faults.append(f'A template has an empty id; its input is {template.inputs!r}.')
    if template.id in ids:
      faults.append(f'{name} stands twice; ids must be unique.')
    ids.add(template.id)
    try:
      faults += _slot_faults(template, fields)
    except TemplateError as e:
      faults.append(f'{name}: {e}')
      continue
    same = _said(template)
    if same in wordings:
      faults.append(f'{name} has the wording of {wordings[same]!r}.')
    wordings.setdefault(same, template.id)
  return faults


def _said(template: Template) -> tuple[str, ...]:
  """Returns all that a wording says, blanks folded; few-shot ones also say what is around them."""
  said = [template.inputs, template.targets]
  if isinstance(template, FewShotWording):
    said += [template.prompt_prefix, template.inputs_prefix, template.targets_prefix]
    said += [f'({template.between})', f'({template.separator})']
    return tuple(said)
  return tuple(' '.join(text.split()) for text in said)


@lru_cache(maxsize=512)
def lint_wordings(
  wordings: Wordings, options: bool, options_in_rows: bool = False
) -> tuple[str, ...]:
  """Returns a sentence for each fault of the wordings of a collection's data set.

  Beside the faults of templates: a wording that does not show the options exactly once where there
  are some, or shows or speaks of them where there are none (nor in the rows' own text), and one
  that is inverted and does not say so.
  """
  faults = []
  for kind in KINDS:
    items: Sequence[Wording] = getattr(wordings, kind)
    faults += [f'{kind}: {fault}' for fault in lint_templates(items, _slots_of(items))]
    for item in items:
      name = f'{kind}: Template {item.id!r}'
      shown = item.inputs.count('{options}')
      wanted = int(options and kind != 'no_options')
      if shown > wanted or (shown < wanted and not item.inverted):
        faults.append(f'{name} shows {{options}} {shown} times; it must be {wanted}.')
      words = _OPTION_WORDS.search(item.inputs.replace('{options}', ''))
      if words and not wanted and not options_in_rows:
        faults.append(f'{name} speaks of {words[0]!r} where no options are shown.')
      if not item.inverted and 'answer' not in slots(item.targets):
        faults.append(f'{name} asks for {item.targets!r}; mark it inverted or let it hold answer.')
  return tuple(faults)


def _slot_faults(template: Template, fields: set[str]) -> list[str]:
  """Finds empty sides, slots without a field, and targets that their own input gives away."""
  faults = []
  name = f'Template {template.id!r}'
  for side in ('inputs', 'targets'):
    if not getattr(template, side).strip():
      faults.append(f'{name} has empty {side}.')
  asked, wanted = slots(template.inputs), slots(template.targets)
  for slot in sorted((asked | wanted) - fields):
    faults.append(
      f'{name} has a slot {{{slot}}} but there is no such field.{nearest(slot, fields)} '
      f'Fields: {listing(fields)}.'
    )
  if template.inputs.strip() and not asked:
    faults.append(f'{name} has no slot in its input, so every example would ask the same.')
  if template.targets.strip() and not wanted:
    faults.append(f'{name} has no slot in its target, so every answer would be the same.')
  if wanted and wanted <= asked:
    faults.append(f'{name} gives its whole target, {listing(wanted)}, away in its input.')
  elif 'answer' in wanted & asked:
    faults.append(f'{name} gives the answer away in its input.')
  return faults


def check_templates(
  task: str,
  templates: Sequence[Template],
  cot_templates: Sequence[Template],
  fields: Fields | None,
) -> None:
  """Refuses templates that cannot work, when a task is registered.

  Raises:
    TemplateError: none to train on, an empty side, an id twice, a malformed wording, a CoT
      wording without its rationale, or (when `fields` names them) a slot without a field.
  """
  _check_some(task, templates, 'templates')
  if cot_templates:
    _check_some(task, cot_templates, 'cot_templates')
  named = set(fields) if fields is not None and not callable(fields) else None
  for group in (templates, cot_templates):
    known = named if named is not None else _slots_of(group)
    if faults := lint_templates(group, known):
      raise TemplateError(f'Task {task!r}: {faults[0]}')
  for template in cot_templates:
    if not {'rationale', 'answer'} <= slots(template.targets):
      raise TemplateError(
        f'Task {task!r}: CoT template {template.id!r} has the target {template.targets!r}; '
        'it must hold {rationale} and {answer}.'
      )


def _check_some(task: str, templates: Sequence[Template], argument: str) -> None:
  if not any(not t.held_out for t in templates):
    what = 'only held-out templates' if templates else 'no templates'
    raise TemplateError(f'Task {task!r} has {what}; {argument} needs one that is trained on.')


def _slots_of(templates: Sequence[Template]) -> set[str]:
  """Returns every slot of well-formed wordings; lint_templates tells the others."""
  found: set[str] = set()
  for template in templates:
    try:
      found |= template.slots()
    except TemplateError:
      continue
  return found
