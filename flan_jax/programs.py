"""What each verb of the command line does, from parsed flags to exit status.

Imports are inside the functions, so that `--help`, `list` and wrong flags answer at once.
"""

import dataclasses
import importlib.metadata
import json
import os
import shutil
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import flan_jax
from flan_jax.command_line_data import FOLDERS

PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy', 'gin-config')
EXTRAS = {'seqio': 'preparing data', 'tensorflow': 'preparing data', 'pyarrow': 'Parquet files'}


def version() -> int:
  """Prints the versions in use."""
  print(f'flan_jax {flan_jax.__version__}, Python {sys.version.split()[0]}')
  for name in PACKAGES:
    print(f'{name} {importlib.metadata.version(name)}')
  return 0


def doctor(args: Namespace) -> int:
  """Says what is installed and seen, and the command that mends what is missing."""
  del args
  version()
  status = 0
  for name, use in EXTRAS.items():
    try:
      print(f'{name} {importlib.metadata.version(name)} (for {use})')
    except importlib.metadata.PackageNotFoundError:
      status = 1
      print(f"{name} is missing (for {use}): pip install 'flan_jax[seqio]'")
  import jax

  from flan_jax import metrics

  for device in jax.devices():
    print(f'device {device.id}: {device.device_kind} ({device.platform})')
  peak, source = metrics.peak_flops_per_second()
  print(f'peak {peak / 1e12:.2f} TFLOP/s ({source})')
  print(f'free disk here {shutil.disk_usage(".").free / 2**30:.0f} GiB')
  return status


def list_things(args: Namespace, gin_folder: Path, parameter_count: Callable) -> int:
  """Lists tasks, mixtures, models or recipes."""
  from flan_jax import listing

  listing.list_things(
    listing.ListConfig(
      args.kind,
      gin_folder,
      tasks_modules=_modules(args),
      folders=_folders(args),
      as_json=args.json,
    ),
    parameter_count=parameter_count,
  )
  return 0


def train(args: Namespace, resolved) -> int:
  """Trains with the configuration that main.py resolved; writes the report at the end."""
  from flan_jax import console, report
  from flan_jax import train as trainer
  from flan_jax.data import cache
  from flan_jax.evaluation import evaluator

  rows = [
    (name, value['value'], value['source'])
    for name, value in resolved.values.items()
    if args.dry_run or value['source'] != 'default'
  ]
  columns = [console.Column(title) for title in ('setting', 'value', 'from')]
  console.print_table(console.console(), columns, rows)
  if args.dry_run:
    return 0
  print(f'{len(resolved.values) - len(rows)} more settings at their defaults: config.json')
  run, workdir = resolved.run, Path(args.workdir)
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / 'config.gin').write_text(resolved.gin_text, encoding='utf-8')
  except OSError as e:
    raise OSError(
      f'The workdir {workdir} cannot be written ({e.strerror}); give another --workdir.'
    ) from e
  (workdir / 'config.json').write_text(json.dumps(resolved.values, indent=1) + '\n')
  vocabulary = cache.cache_vocabulary(run.train.data.cache_dir)
  vocabulary.save(workdir / 'vocabulary')

  def evaluate(model, step):
    result = evaluator.evaluate(
      model, run.evaluation, run.train.data.cache_dir, vocabulary, step=step, progress=False
    )
    result.write(workdir / 'evaluations' / f'{step}.json')
    return result.log_values()

  trainer.train(run.train, workdir, evaluate=evaluate if run.evaluation else None)
  _print_evaluations(workdir)
  print(f'Report: {report.write_report(workdir)}')
  return 0


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


def report(args: Namespace) -> int:
  """Writes the report of a run, or scores of checkpoints side by side."""
  if args.scores:
    from flan_jax import scores_report
    from flan_jax.evaluation.benchmark_results import BenchmarkResult, merged

    results = merged([BenchmarkResult.read(path) for path in args.scores])
    print(scores_report.write_scores_page(args.out or 'scores.html', results))
    return 0
  from flan_jax import report as writer

  print(writer.write_report(args.workdir))
  return 0


def prepare(args: Namespace) -> int:
  """Writes the token cache."""
  from flan_jax.data import prepare as preparer

  given = {
    'splits': tuple(args.splits.split(',')),
    'folders': _folders(args),
    'tasks_modules': _modules(args),
    'decontaminate_against': _paths(args.decontaminate_against),
  }
  fields = {f.name for f in dataclasses.fields(preparer.PrepareConfig)}
  as_they_are = {name: value for name, value in vars(args).items() if name in fields}
  result = preparer.prepare(preparer.PrepareConfig(**{**as_they_are, **given}))
  return 0 if result.ok else 1


def inspect(args: Namespace) -> int:
  """Shows a mixture in a cache, or without one what it asks for."""
  from flan_jax.data import inspection, inspection_plan

  if args.cache_dir is None:
    if args.html or args.steps:
      raise ValueError('--html and --steps need --cache_dir: they show what is in a cache.')
    inspection_plan.inspect_plan(
      args.mixture,
      tasks_modules=_modules(args),
      folders=_folders(args),
      tasks=tuple(args.task or ()),
      licence=args.licence,
    )
    return 0
  inspection.inspect(
    inspection.InspectConfig(
      mixture=args.mixture,
      cache_dir=args.cache_dir,
      html=args.html,
      examples=args.examples,
      lengths={'inputs': args.inputs_length, 'targets': args.targets_length},
      split=args.split,
      batch_rows=args.batch_size,
      steps=args.steps,
      tasks=tuple(args.task or ()),
      licence=args.licence,
    )
  )
  return 0


def contamination(args: Namespace) -> int:
  """Compares a mixture in a cache with evaluation sets."""
  from flan_jax.data import contamination as comparer

  comparer.contamination(
    comparer.ContaminationConfig(
      mixture=args.mixture,
      cache_dir=args.cache_dir,
      against=_paths(args.against),
      out=args.out,
      split=args.split,
    )
  )
  return 0


def export_text(args: Namespace) -> int:
  """Writes a mixture as text."""
  from flan_jax import export_text as exporter

  result = exporter.export_text(
    exporter.ExportConfig(
      mixture=args.mixture,
      out=args.out,
      split=args.split,
      max_examples=args.max_examples,
      draw=args.draw,
      seed=args.seed,
      vocabulary=args.vocabulary,
      tasks_modules=_modules(args),
      folders=_folders(args),
      skip_missing=args.skip_missing,
      licence=args.licence,
    )
  )
  return 0 if result.ok else 1


def evaluate(args: Namespace) -> int:
  """Scores a checkpoint on benchmarks, and on mixtures of a cache."""
  from flan_jax import evaluate as evaluation
  from flan_jax.evaluation.benchmark import SuiteOptions

  evaluation.evaluate(
    evaluation.EvaluateConfig(
      checkpoint=args.checkpoint,
      suites=tuple(name.strip() for name in args.suite.split(',') if name.strip()),
      decode=_decode(args),
      options=SuiteOptions(
        shots=args.shots,
        split=args.split,
        method=args.method,
        trigger=args.trigger,
        tasks=tuple(args.task) if args.task else None,
      ),
      eval_dir=args.eval_dir or os.environ.get('FLAN_JAX_EVAL_DIR'),
      cache_dir=args.cache_dir,
      out=args.out,
      label=args.label,
      batch_rows=args.batch_size,
      input_length=args.max_input_tokens,
      max_tokens=args.max_tokens,
      max_examples=args.max_examples,
      calibrate=args.calibrate,
      seed=args.seed,
    )
  )
  return 0


def infer(args: Namespace) -> int:
  """Answers a JSONL file."""
  from flan_jax import infer as inference
  from flan_jax import loading, partitioning

  with partitioning.use_mesh(partitioning.MeshConfig()):
    loaded = loading.load(args.checkpoint)
    config = _inference(loaded, args, args.batch_size)
    inference.infer(loaded.model, loaded.vocabulary, args.input, args.output, config)
  return 0


def generate(args: Namespace) -> int:
  """Answers one prompt, or a session of them."""
  from flan_jax import infer as inference
  from flan_jax import loading, partitioning

  with partitioning.use_mesh(partitioning.MeshConfig()):
    loaded = loading.load(args.checkpoint)
    config = _inference(loaded, args, 1)
    inference.generate_session(loaded.model, loaded.vocabulary, config, prompt=args.prompt)
  return 0


def import_(args: Namespace) -> int:
  """Reads another program's weights."""
  from flan_jax.convert import formats, importing

  source = formats.open_source(args.source)
  importing.import_checkpoint(source, args.out, args.vocabulary, args.chat_template)
  return 0


def export(args: Namespace) -> int:
  """Writes a checkpoint for other programs."""
  from flan_jax.convert import formats

  formats.export(args.checkpoint, args.to)
  return 0


def _inference(loaded, args: Namespace, batch_rows: int):
  """How infer.py is to answer."""
  from flan_jax import infer as inference

  return inference.InferConfig(
    input_length=args.max_input_tokens or loaded.lengths['inputs'],
    batch_rows=batch_rows,
    decode=_decode(args, loaded.lengths['targets']),
    checkpoint=f'step {loaded.step}, {loaded.fingerprint}',
    seed=args.seed,
  )


def _decode(args: Namespace, max_length: int = 1):
  """How answers are written; the length is the flag's, else `max_length`."""
  from flan_jax import decoding

  return decoding.DecodeConfig(
    max_length=args.max_tokens or max_length,
    strategy=args.strategy,
    temperature=args.temperature,
    top_k=args.top_k,
    top_p=args.top_p,
    num_beams=args.num_beams,
    num_samples=getattr(args, 'votes', 1),
  )


def _paths(text: str | None) -> tuple[str, ...]:
  """Splits what was given at commas; what is given must name something."""
  paths = tuple(path.strip() for path in (text or '').split(',') if path.strip())
  if text is not None and not paths:
    raise ValueError(f'{text!r} names no evaluation set; give files or folders, comma separated.')
  return paths


def _modules(args: Namespace) -> tuple[str, ...]:
  return tuple(args.tasks_module or ('flan_jax.tasks',))


def _folders(args: Namespace) -> dict[str, str]:
  """The folders that were named by flag or macro."""
  return {name: path for name in FOLDERS if (path := getattr(args, name))}
