"""Mixtures of tasks: registered with SeqIO, and exported for the token cache.

`instruction_mixture` keeps the rules by which rates are made, so the export has the same rates as
SeqIO. The arithmetic itself is in flan_jax.data.mixture; mixtures that others registered with
SeqIO are exported too.
"""

import dataclasses
import functools
import importlib.util
import numbers
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from flan_jax.tasks.registry import (
  is_instruction_task,
  register_tasks_with_seqio,
  seqio_wanted,
  task_names,
)

from flan_jax.data.mixture import ExamplesProportional, Member, Mixture, Rate
from flan_jax.naming import listing, nearest

RULES: dict[str, Rate] = {'uniform': 1.0, 'proportional': ExamplesProportional()}

_MIXTURES: dict[str, Mixture] = {}


class MixtureExportError(ValueError):
  """A SeqIO mixture whose rates cannot be written down."""


def instruction_mixture(
  name: str,
  members: Iterable[str] | Mapping[str, Rate | str],
  *,
  rule: Rate | str = 'proportional',
) -> Mixture:
  """Registers a mixture of tasks and mixtures.

  Args:
    name: its name, that no task or mixture has.
    members: names, or name -> rate. A rate is a number, 'uniform' (1), 'proportional' (to the
      number of examples) or ExamplesProportional(maximum=..., temperature=...). A mixture among
      the members needs a number: the share it gets, to be divided by its own rates.
    rule: the rate of members without one.

  Raises:
    ValueError: a name taken or unknown, or a rate that is none.
  """
  if name in _MIXTURES or is_instruction_task(name):
    kind = 'mixture' if name in _MIXTURES else 'task'
    raise ValueError(f'{name!r} is already registered as a {kind}; choose another name.')
  if isinstance(members, str):
    raise ValueError(f'The members of {name!r} are the text {members!r}; give a list of names.')
  given = dict(members) if isinstance(members, Mapping) else {member: rule for member in members}
  mixture = Mixture(name, tuple(_member(name, m, _rate(name, m, r)) for m, r in given.items()))
  if seqio_wanted():
    _register(mixture)
  _MIXTURES[name] = mixture
  return mixture


def export_mixture(name: str) -> Mixture:
  """Returns a task, or a mixture registered here or with SeqIO, as the cache stores it.

  Raises:
    ValueError: no such name; the message has the nearest ones.
    MixtureExportError: a rate is a function other than seqio.mixing_rate_num_examples.
  """
  if name in _MIXTURES:
    return _MIXTURES[name]
  if is_instruction_task(name):
    return Mixture.of(name, {name: 1.0})
  found = _from_seqio(name)
  if found is None:
    known = (*_MIXTURES, *task_names())
    raise ValueError(
      f'No mixture or task {name!r}.{nearest(name, known)} Mixtures: {listing(_MIXTURES)}.'
    )
  return found


def register_with_seqio() -> None:
  """Adds to SeqIO what was registered while FLAN_JAX_SEQIO was off; does nothing twice."""
  import seqio

  register_tasks_with_seqio()
  for name, mixture in _MIXTURES.items():
    if name not in seqio.MixtureRegistry.names():
      _register(mixture)


def mixture_names() -> tuple[str, ...]:
  """Returns the mixtures registered here, in the order of registration."""
  return tuple(_MIXTURES)


def unregister_mixture(name: str) -> None:
  """Forgets a mixture, for tests and notebooks that register it again."""
  del _MIXTURES[name]
  if seqio_wanted():
    import seqio

    seqio.MixtureRegistry.remove(name)


def _rate(mixture: str, member: str, rate: Any) -> Rate:
  if isinstance(rate, str):
    if rate not in RULES:
      raise ValueError(
        f'The rate of {member!r} in mixture {mixture!r} is {rate!r}.{nearest(rate, RULES)} Give a '
        f'number, ExamplesProportional(...) or one of: {listing(RULES)}.'
      )
    return RULES[rate]
  return rate


def _member(mixture: str, member: str, rate: Rate) -> Member:
  """Finds what a member's name means; Mixture checks the rate."""
  if not isinstance(member, str):
    raise ValueError(f'A member of mixture {mixture!r} is {member!r}; members are names.')
  if is_instruction_task(member):
    return Member(member, rate)
  if member in _MIXTURES:
    return Member(member, rate, _MIXTURES[member])
  found = _from_seqio(member)
  if found is None:
    known = (*_MIXTURES, *task_names())
    raise ValueError(
      f'Mixture {mixture!r} has a member {member!r} that is not registered.'
      f'{nearest(member, known)} Register it first.'
    )
  is_task = [m.name for m in found.members] == [member]
  return Member(member, rate) if is_task else Member(member, rate, found)


def _register(mixture: Mixture) -> None:
  """Adds the mixture to SeqIO's registry."""
  import seqio

  def rate_of(rate: Rate):
    if not isinstance(rate, ExamplesProportional):
      return float(rate)
    return functools.partial(seqio.mixing_rate_num_examples, **dataclasses.asdict(rate))

  seqio.MixtureRegistry.add(
    mixture.name, [(member.name, rate_of(member.rate)) for member in mixture.members]
  )


def _from_seqio(name: str) -> Mixture | None:
  """Reads a mixture (or task, as a mixture of one) out of SeqIO's registries; None if unknown.

  SeqIO is imported only if it can hold something that others registered.
  """
  if 'seqio' not in sys.modules and not (seqio_wanted() and importlib.util.find_spec('seqio')):
    return None
  import seqio

  if name in seqio.TaskRegistry.names():
    return Mixture.of(name, {name: 1.0})
  if name in seqio.MixtureRegistry.names():
    return _export(seqio.MixtureRegistry.get(name))
  return None


def _export(mixture) -> Mixture:
  """Writes down a seqio.Mixture with all that is nested in it."""
  # SeqIO has no public way to ask which members are mixtures and which are tasks.
  nested = {sub.name: _export(sub) for sub in mixture._sub_mixtures}
  return Mixture(
    mixture.name,
    tuple(
      Member(name, _exported_rate(mixture.name, name, rate), nested.get(name))
      for name, rate in mixture.rate_per_task_name.items()
    ),
  )


def _exported_rate(mixture: str, member: str, rate: Any) -> Rate:
  import seqio

  if isinstance(rate, numbers.Real):
    return float(rate)
  arguments: dict[str, Any] = {}
  function = rate
  while isinstance(function, functools.partial) and not function.args:
    arguments = {**function.keywords, **arguments}
    function = function.func
  if function is seqio.mixing_rate_num_examples and arguments.pop('split', 'train') == 'train':
    arguments.pop('fallback_to_num_input_examples', None)
    if set(arguments) <= {'maximum', 'temperature', 'scale'}:
      return ExamplesProportional(**arguments)
  raise MixtureExportError(
    f'The rate of {member!r} in the SeqIO mixture {mixture!r} is the function {rate!r}, which '
    'cannot be written into a cache; use a number or '
    'functools.partial(seqio.mixing_rate_num_examples, maximum=..., temperature=..., scale=...), '
    'or mix it with instruction_mixture.'
  )
