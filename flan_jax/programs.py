"""What each verb of the command line does, from parsed flags to exit status.

Imports are inside the functions, so that `--help`, `list` and wrong flags answer at once.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import shutil
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flan_jax

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
    (workdir / 'evaluations').mkdir(exist_ok=True)
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
  """Writes the report of a run."""
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
  """Scores a checkpoint on mixtures of a cache."""
  from flan_jax import console, naming, partitioning
  from flan_jax.evaluation import evaluator
  from flan_jax.evaluation.seen import seen_in_training

  loaded = _load(args)
  config = evaluator.EvaluationConfig(
    mixtures=tuple(args.suite.split(',')),
    lengths=loaded.lengths,
    batch_rows=args.batch_size,
    decode=loaded.decode,
    split=args.split,
    max_examples_per_task=args.max_examples or None,
    seed=args.seed,
  )
  seen = seen_in_training(loaded.path.parent.parent, args.cache_dir, config.mixtures, args.split)
  if seen:
    print(
      f'Warning: the checkpoint was trained on what it is tested on: {naming.listing(seen)}.',
      file=sys.stderr,
    )
  with partitioning.use_mesh(partitioning.MeshConfig()):
    result = evaluator.evaluate(
      loaded.model, config, args.cache_dir, loaded.vocabulary, step=loaded.step
    )
  rows = [
    (task.task, task.cluster, str(task.examples), task.headline, f'{task.score.value:.1f}')
    for task in result.tasks.values()
  ]
  columns = [
    console.Column(title, right=title in ('examples', 'score'))
    for title in ('task', 'cluster', 'examples', 'metric', 'score')
  ]
  console.print_table(console.console(), columns, rows)
  for name, group in result.mixtures.items():
    print(f'{name}: {group.score.value:.1f}')
  if args.out:
    result.write(args.out)
    print(f'Scores and samples: {args.out}')
  return 0


def infer(args: Namespace) -> int:
  """Answers a JSONL file."""
  from flan_jax import infer as inference
  from flan_jax import partitioning

  loaded = _load(args)
  with partitioning.use_mesh(partitioning.MeshConfig()):
    inference.infer(
      loaded.model, loaded.vocabulary, args.input, args.output, loaded.inference(args.batch_size)
    )
  return 0


def generate(args: Namespace) -> int:
  """Answers one prompt, or a session of them."""
  from flan_jax import infer as inference
  from flan_jax import partitioning

  loaded = _load(args)
  with partitioning.use_mesh(partitioning.MeshConfig()):
    inference.generate_session(
      loaded.model, loaded.vocabulary, loaded.inference(1), prompt=args.prompt
    )
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


@dataclasses.dataclass(frozen=True)
class _Loaded:
  """A checkpoint ready to answer."""

  model: Any
  vocabulary: Any
  step: int
  path: Path
  lengths: dict[str, int]
  decode: Any
  seed: int

  def inference(self, batch_rows: int):
    """How infer.py is to answer; the checksums tell one checkpoint from another."""
    from flan_jax import checkpoint_files
    from flan_jax import infer as inference

    checksums = self.path / checkpoint_files.CHECKSUMS
    content = checksums.read_bytes() if checksums.exists() else b''
    return inference.InferConfig(
      input_length=self.lengths['inputs'],
      batch_rows=batch_rows,
      decode=self.decode,
      checkpoint=f'step {self.step}, {hashlib.blake2b(content, digest_size=8).hexdigest()}',
      seed=self.seed,
    )


def _load(args: Namespace) -> _Loaded:
  """Model, vocabulary and lengths of `--checkpoint`, on the default mesh."""
  import jax
  from flax import nnx

  from flan_jax import checkpoint_files, checkpoints, decoding, partitioning
  from flan_jax.data import vocabularies
  from flan_jax.models import transformer
  from flan_jax.models.config import TransformerConfig

  folder, step = checkpoint_files.locate(args.checkpoint)
  checkpoint_files.verify(folder / str(step))
  vocabulary = vocabularies.load_vocabulary(folder.parent / 'vocabulary')
  with (
    partitioning.use_mesh(partitioning.MeshConfig()),
    checkpoints.Checkpoints(folder) as saved,
  ):
    meta = saved.meta(step)
    config = TransformerConfig(**meta['model'])
    create = lambda key: transformer.Transformer(config, nnx.Rngs(params=key))  # noqa: E731
    model, _ = saved.restore(step, partitioning.abstract(create, jax.random.key(0)))
  lengths = {
    'inputs': args.max_input_tokens or meta['lengths']['inputs'],
    'targets': args.max_tokens or meta['lengths']['targets'],
  }
  decode = decoding.DecodeConfig(
    max_length=lengths['targets'],
    strategy=args.strategy,
    temperature=args.temperature,
    top_k=args.top_k,
    top_p=args.top_p,
    num_beams=args.num_beams,
  )
  return _Loaded(model, vocabulary, step, folder / str(step), lengths, decode, args.seed)


def _paths(text: str | None) -> tuple[str, ...]:
  """Splits what was given at commas; what is given must name something."""
  paths = tuple(path.strip() for path in (text or '').split(',') if path.strip())
  if text is not None and not paths:
    raise ValueError(f'{text!r} names no evaluation set; give files or folders, comma separated.')
  return paths


def _modules(args: Namespace) -> tuple[str, ...]:
  return tuple(args.tasks_module or ('flan_jax.tasks',))


def _folders(args: Namespace) -> dict[str, str]:
  return {'cot_dir': args.cot_dir} if args.cot_dir else {}
