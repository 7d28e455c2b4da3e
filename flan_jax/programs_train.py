"""What `flan-jax train` does, alone or as one of several processes."""

import contextlib
import gc
import json
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

from flan_jax import host_memory, whole_file


def train(args: Namespace, resolve: Callable, notices) -> int:
  """Trains with the configuration that `resolve` reads; writes the report at the end.

  Args:
    args: Of the command line.
    resolve: Imports what gin files name and returns a main.Resolved.
    notices: preemption.Notices, from before anything was imported.
  """
  if args.dry_run:
    _print_settings(resolve(), defaults=True)
    return 0
  host_memory.keep_freed()
  workdir = Path(args.workdir)
  with _uncollected():
    from flan_jax import multihost

    cluster = multihost.find_cluster(
      args.coordinator_address,
      args.process_count,
      args.process_id,
      timeout=args.initialization_timeout,
    )
    programs = _keep_compilations(workdir)
    if programs and not cluster:
      programs.load_ahead()
    resolved = resolve()
    from flan_jax import goodput
    from flan_jax import train as trainer
    from flan_jax.data import cache

  run = resolved.run
  first = _join_processes(args, cluster, resolved, notices)
  if first:
    _print_settings(resolved)
    _write_settings(resolved, workdir)
  vocabulary = cache.cache_vocabulary(run.train.data.cache_dir)
  if first:
    vocabulary.save(workdir / 'vocabulary')

  def evaluate(model, step):
    from flan_jax.evaluation import evaluator

    result = evaluator.evaluate(
      model,
      run.evaluation,
      run.train.data.cache_dir,
      vocabulary,
      step=step,
      progress=False,
      between=notices.check,
    )
    if first:
      result.write(workdir / 'evaluations' / f'{step}.json')
    return result.log_values()

  try:
    trainer.train(
      run.train,
      workdir,
      evaluate=evaluate if run.evaluation else None,
      notices=notices,
      programs=programs,
    )
  except KeyboardInterrupt:
    multihost.leave()
    raise
  if first:
    from flan_jax import report  # and what makes pages, which the first step need not wait for

    _print_evaluations(workdir)
    print(f'{goodput.sentence(goodput.read(workdir))}.')
    print(f'Report: {report.write_report(workdir)}')
  multihost.leave()
  return 0


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
  """Leaves the collector of garbage out while a fresh process imports what trains.

  That makes a quarter of a million objects that stay, and it would look through them 260 times.
  """
  if 'jax' in sys.modules:  # the process is not fresh: some of its objects may be garbage by now
    yield
    return
  gc.disable()
  try:
    yield
  finally:
    gc.freeze()
    gc.enable()


def _join_processes(args: Namespace, cluster, resolved, notices) -> bool:
  """Makes one program of all processes; returns whether this is the first of them."""
  import jax

  from flan_jax import multihost, preemption
  from flan_jax import train as trainer

  if args.gce_notices:
    preemption.watch_metadata_server(notices)
  if cluster:
    # Where the cache lies may differ between hosts; what is in it may not.
    settings = {
      name: value['value']
      for name, value in resolved.values.items()
      if not name.endswith('.cache_dir')
    }
    data = trainer.make_loader(resolved.run.train).position(0)
    facts = {**multihost.code_facts(), **settings, **{k: str(v) for k, v in data.items()}}
    multihost.initialize(
      cluster,
      Path(args.workdir).absolute(),
      facts,
      timeout=args.initialization_timeout,
      notices=notices,
    )
  multihost.show_devices(args.expected_devices)
  return jax.process_index() == 0


def _keep_compilations(workdir: Path):
  """Keeps what JAX compiles, however small or fast, so that the run starts again at once.

  Returns:
    kept_step.KeptSteps in FLAN_JAX_COMPILATION_CACHE_DIR, or in the workdir; None where
    JAX_COMPILATION_CACHE_DIR is set, which is left alone.
  """
  import jax

  from flan_jax import kept_step

  if getattr(jax.config, 'jax_compilation_cache_dir', None) is not None:
    return None
  folder = Path(os.environ.get('FLAN_JAX_COMPILATION_CACHE_DIR') or workdir / 'compilation_cache')
  jax.config.update('jax_compilation_cache_dir', str(folder))
  # By default only what took a second to compile is kept, and a start compiles many small programs.
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
  jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)
  return kept_step.KeptSteps(folder)


def _print_settings(resolved, *, defaults: bool = False) -> None:
  from flan_jax import console

  rows = [
    (name, value['value'], value['source'])
    for name, value in resolved.values.items()
    if defaults or value['source'] != 'default'
  ]
  columns = [console.Column(title) for title in ('setting', 'value', 'from')]
  console.print_table(console.console(), columns, rows)
  if not defaults:
    print(f'{len(resolved.values) - len(rows)} more settings at their defaults: config.json')


def _write_settings(resolved, workdir: Path) -> None:
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    whole_file.write(workdir / 'config.gin', resolved.gin_text)
    whole_file.write(workdir / 'config.json', json.dumps(resolved.values, indent=1) + '\n')
  except OSError as e:
    raise OSError(
      f'The workdir {workdir} cannot be written ({e.strerror}); give another --workdir.'
    ) from e


def _print_evaluations(workdir: Path) -> None:
  """The scores of the first and the last evaluation side by side."""
  from flan_jax import console
  from flan_jax.evaluation import results

  paths = sorted((workdir / 'evaluations').glob('*.json'), key=lambda path: int(path.stem))
  if len(paths) < 2:
    return
  first, last = (results.EvaluationResult.read(path) for path in (paths[0], paths[-1]))
  titles = ('evaluated on', 'tasks', f'score at step {first.step}', f'at step {last.step}')
  columns = [console.Column(title, right=title != titles[0]) for title in titles]
  rows = [
    (name, len(group.tasks), f'{first.mixtures[name].score.value:.1f}', f'{group.score.value:.1f}')
    for name, group in last.mixtures.items()
    if name in first.mixtures
  ]
  console.print_table(console.console(), columns, rows)
