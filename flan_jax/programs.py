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
from flan_jax import host_memory
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


def plan(args: Namespace, resolved) -> int:
  """Compiles for a topology; status 1 where a step does not fit."""
  from flan_jax import console, whole_file
  from flan_jax.planning import plan as planner
  from flan_jax.planning import report as planning_report
  from flan_jax.planning import search, topologies

  if args.search and (args.save or args.step != 'train'):
    raise ValueError('--search compares training steps only; leave --step and --save out.')
  if args.save and args.step == 'all':
    raise ValueError('--save writes one executable; say which with --step train.')
  topology, out = topologies.parse(args.topology), console.console()
  topologies.use_cpu()
  config = resolved.run.train
  if note := planner.slow_to_compile(config):
    out.print(note)
  if args.search:
    plans = search.search(config, topology, args.search, planning_report.teller(out))
    planning_report.print_ranking(out, plans)
  else:
    names = planner.steps.STEPS if args.step == 'all' else (args.step,)
    save = Path(args.save) if args.save else None
    plans = [planner.plan(config, topology, names, save=save)]
    planning_report.print_plan(out, plans[0])
  if args.json:
    found = [planning_report.as_json(each) for each in plans]
    whole_file.write(args.json, json.dumps(found if args.search else found[0], indent=1) + '\n')
  return 0 if plans and plans[0].fits else 1


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

  host_memory.keep_freed()
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

  host_memory.keep_freed()
  with partitioning.use_mesh(partitioning.MeshConfig()):
    loaded = loading.load(args.checkpoint)
    config = _inference(loaded, args, args.batch_size)
    inference.infer(loaded.model, loaded.vocabulary, args.input, args.output, config)
  return 0


def generate(args: Namespace) -> int:
  """Answers one prompt, or a session of them."""
  from flan_jax import infer as inference
  from flan_jax import loading, partitioning

  host_memory.keep_freed()
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
