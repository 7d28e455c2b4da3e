"""A plan as tables for people, and as JSON."""

import dataclasses
from collections.abc import Callable
from typing import Any

from rich.console import Console

from flan_jax.console import Column, print_table
from flan_jax.planning import estimate, search
from flan_jax.planning.plan import ROOM, Plan, StepPlan, gathered_outside_scan
from flan_jax.planning.topologies import GIB

# Collectives shown one by one, those waited for longest.
_SHOWN = 12


def print_plan(out: Console, found: Plan) -> None:
  """Prints every step of a plan."""
  config, topology = found.config, found.topology
  lengths = config.data.lengths
  out.print(
    f'{topology.name}: {topology.num_chips:,} chips, {_mesh(found)}; {config.data.batch_rows} rows '
    f'of {lengths["inputs"]} + {lengths["targets"]} tokens in {config.microbatches} part'
    f'{"s" * (config.microbatches > 1)}, remat {config.model.remat!r}'
  )
  for name in found.replicated:
    out.print(
      f'Every chip holds all of {name}, which the rules {config.mesh.rules!r} do not split.'
    )
  for step in found.steps:
    _print_step(out, found, step)


def teller(out: Console) -> Callable[[Plan], None]:
  """Prints one line for each plan of a search as it is made."""
  return lambda found: out.print('  '.join(ranking_row(found)))


def print_ranking(out: Console, plans: list[Plan]) -> None:
  """Prints the plans of a search, the best first."""
  titles = ('mesh', 'remat', 'microbatches', 'GiB', 'of memory', 's/step', 'MFU', 'limit')
  rows = [ranking_row(found) for found in plans]
  columns = [Column(title, right=title not in ('mesh', 'remat', 'limit')) for title in titles]
  print_table(out, columns, rows)


def ranking_row(found: Plan) -> tuple[str, ...]:
  """Mesh, remat, microbatches, memory, its share, seconds, MFU and limit of a training step."""
  step, config = found.steps[0], found.config
  settings = (_mesh(found), config.model.remat, str(config.microbatches))
  if step.memory is None or step.estimate is None:
    more = f'{step.missing / GIB:.1f} too much'
    return (*settings, more, '', '', '', 'does not fit')
  return (
    *settings,
    f'{step.memory.total / GIB:.1f}',
    f'{100 * found.share(step.memory.total):.0f}%',
    f'{step.estimate.step:.3f}',
    f'{100 * found.mfu(step):.1f}%',
    step.estimate.limit if found.fits else f'{step.estimate.limit}; over {100 * ROOM:.0f}%',
  )


def as_json(found: Plan) -> dict[str, Any]:
  """A plan as JSON has it; bytes, seconds and operations without rounding."""
  return {
    'topology': found.topology.name,
    'chips': found.topology.num_chips,
    'chip': dataclasses.asdict(found.topology.chip),
    'mesh': found.mesh,
    'remat': found.config.model.remat,
    'microbatches': found.config.microbatches,
    'batch_rows': found.config.data.batch_rows,
    'lengths': dict(found.config.data.lengths),
    'fits': found.fits,
    'replicated': list(found.replicated),
    'assumptions': _assumptions(),
    'steps': [_step_json(found, step) for step in found.steps],
  }


def _step_json(found: Plan, step: StepPlan) -> dict[str, Any]:
  result = {
    'step': step.step,
    'missing_bytes': step.missing,
    'compile_seconds': step.compile_seconds,
  }
  if step.memory is None or step.estimate is None:
    return result
  seconds = dataclasses.asdict(step.estimate)
  del seconds['exchanges']
  return result | {
    'memory': {**dataclasses.asdict(step.memory), 'total': step.memory.total},
    'model_flops': step.model_flops,
    'flops_per_chip': step.program.flops,
    'memory_traffic_per_chip': step.program.memory_bytes,
    'seconds': {**seconds, 'step': step.estimate.step},
    'limit': step.estimate.limit,
    'mfu': found.mfu(step),
    'unknown_loops': step.program.unknown_loops,
    'gathered_outside_scan': [
      gather.source for gather in gathered_outside_scan(step.program, found.config)
    ],
    'collectives': [
      {
        **{name: getattr(e.collective, name) for name in ('kind', 'shape', 'bytes', 'count')},
        'source': e.collective.source,
        'group': len(e.collective.group),
        'axes': e.axes,
        'seconds': e.seconds,
        'hidden': e.hidden,
      }
      for e in step.estimate.exchanges
    ],
  }


def _print_step(out: Console, found: Plan, step: StepPlan) -> None:
  out.print()
  if step.memory is None or step.estimate is None:
    out.print(
      f'{step.step}: does not fit; a chip lacks {step.missing / GIB:.1f} GiB of '
      f'{found.topology.chip.hbm_bytes / GIB:.0f}. Try {search.advice(found, step)}.'
    )
    return
  rows = [
    (field.name, f'{getattr(step.memory, field.name) / GIB:.2f}')
    for field in dataclasses.fields(step.memory)
  ]
  rows.append(('all', f'{step.memory.total / GIB:.2f}'))
  title = f'{step.step}, compiled in {step.compile_seconds:.0f} s'
  print_table(out, [Column('memory of a chip'), Column('GiB', right=True)], rows, title=title)
  share = found.share(step.memory.total)
  out.print(
    f'{100 * share:.0f}% of {found.topology.chip.hbm_bytes / GIB:.0f} GiB: '
    + ('fits.' if share <= ROOM else f'over {100 * ROOM:.0f}%. Try {search.advice(found, step)}.')
  )
  _print_collectives(out, step.estimate)
  for gather in gathered_outside_scan(step.program, found.config):
    out.print(f'All layers at once are gathered, {gather.shape}, by {gather.source}.')
  _print_seconds(out, found, step, step.estimate)


def _print_collectives(out: Console, timing: estimate.Estimate) -> None:
  titles = ('collective', 'shape', 'axis', 'chips', 'MiB', 'times', 's', 'hidden', 'in')
  columns = [Column(t, right=t in ('chips', 'MiB', 'times', 's', 'hidden')) for t in titles]
  rows = [
    (
      e.collective.kind,
      'x'.join(map(str, e.collective.shape)),
      e.axes,
      len(e.collective.group),
      f'{e.collective.bytes / 2**20:.1f}',
      e.collective.count,
      f'{e.seconds:.4f}',
      f'{100 * e.hidden / e.seconds:.0f}%' if e.seconds else '',
      e.collective.source[-48:],
    )
    for e in timing.exchanges[:_SHOWN]
  ]
  print_table(out, columns, rows)
  rest = timing.exchanges[_SHOWN:]
  if rest:
    out.print(f'and {len(rest)} more, {sum(e.seconds for e in rest):.4f} s together')


def _print_seconds(out: Console, found: Plan, step: StepPlan, timing: estimate.Estimate) -> None:
  out.print(
    f'A step takes {timing.step:.4f} s: operations {timing.operations:.4f} s (products alone '
    f'{timing.products:.4f} s, memory alone {timing.memory:.4f} s, by the cost model of XLA '
    f'{timing.cycles:.4f} s) and collectives that it waits for {timing.waiting:.4f} s, with '
    f'{timing.hidden:.4f} s more behind operations; most goes to {timing.limit}.'
  )
  if step.program.unknown_loops:
    out.print(f'{step.program.unknown_loops} loops of unknown length are counted once.')
  if step.model_flops:
    out.print(
      f'{step.model_flops:.3e} operations by the model, {step.program.flops:.3e} a chip by XLA, '
      f'recomputation included: predicted MFU {100 * found.mfu(step):.1f}%.'
    )
  out.print(f'Assumed: {_assumptions()}.')


def _assumptions() -> str:
  return (
    f'{100 * estimate.PRODUCTS:.0f}% of the peak, {100 * estimate.MEMORY:.0f}% of the memory and '
    f'{100 * estimate.LINKS:.0f}% of the links of the data sheet; left out are {estimate.OMITTED}'
  )


def _mesh(found: Plan) -> str:
  sizes = ' x '.join(f'{name}={size}' for name, size in found.mesh.items() if size > 1)
  return sizes or 'one chip'
