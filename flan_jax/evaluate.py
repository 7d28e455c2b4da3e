"""The program `evaluate`: a checkpoint and names of suites -> scores as a table, JSON and a page.

A suite is a benchmark read from the user's files, a probe, or a mixture in a token cache.
"""

import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jax

import flan_jax
from flan_jax import console, decoding, naming, partitioning, scores_report
from flan_jax.data import cache
from flan_jax.evaluation import catalogue, evaluator, normalised, runner
from flan_jax.evaluation.benchmark import Suite, SuiteOptions
from flan_jax.evaluation.benchmark_results import BenchmarkResult, SuiteScore
from flan_jax.evaluation.from_cache import suite_scores
from flan_jax.evaluation.seen import seen_in_training
from flan_jax.loading import Loaded, load


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
  """What to evaluate and how.

  Attributes:
    checkpoint: a workdir, or one step of it.
    suites: names of suites; what is no benchmark is a mixture or task of the cache.
    decode: how answers are written; its length gives way to the task's.
    options: what to choose differently from a suite's own protocol.
    eval_dir: folder of the benchmarks' files.
    cache_dir: token cache, for mixtures.
    out: JSON file of the scores; the page and the answers go beside it. None keeps only answers,
      in the run's folder.
    label: what to call the checkpoint; None is its path.
    batch_rows: prompts asked together.
    input_length: most tokens of a prompt; None is the run's.
    max_tokens: of an answer; None is the task's own, for a mixture the run's.
    max_examples: of a task; None is all.
    calibrate: see runner.RunnerConfig.
    seed: of the choice of examples and of sampled answers.
  """

  checkpoint: str
  suites: tuple[str, ...]
  decode: decoding.DecodeConfig
  options: SuiteOptions = SuiteOptions()
  eval_dir: str | None = None
  cache_dir: str | None = None
  out: str | None = None
  label: str | None = None
  batch_rows: int = 16
  input_length: int | None = None
  max_tokens: int | None = None
  max_examples: int | None = None
  calibrate: bool = False
  seed: int = 0


def evaluate(config: EvaluateConfig) -> BenchmarkResult:
  """Evaluates a checkpoint, prints a table and writes the files.

  Raises:
    ValueError: unknown suite, nothing to ask, missing folders; each names its flag.
  """
  start = time.perf_counter()
  # Everything that can be wrong is looked for before the weights are read.
  mixtures = [name for name in config.suites if not catalogue.is_suite(name)]
  _check_mixtures(mixtures, config)
  benchmarks = [
    catalogue.load_suite(name, config.eval_dir, config.options, config.seed)
    for name in config.suites
    if catalogue.is_suite(name)
  ]
  for suite in benchmarks:
    for task, why in suite.missing.items():
      print(f'Warning: {suite.name}/{task} is not asked. {why}', file=sys.stderr)
  with partitioning.use_mesh(partitioning.MeshConfig()):
    loaded = load(config.checkpoint)
    scores = _ask(loaded, benchmarks, config) if benchmarks else {}
    if mixtures:
      scores |= _from_cache(loaded, mixtures, config)
  result = BenchmarkResult(
    checkpoint=config.label or config.checkpoint,
    fingerprint=loaded.fingerprint,
    model=_model_name(loaded),
    step=loaded.step,
    seed=config.seed,
    seconds=time.perf_counter() - start,
    suites={name: scores[name] for name in config.suites},
    settings=_settings(loaded, config),
  )
  _show(result)
  if config.out and jax.process_index() == 0:
    result.write(config.out)
    page = Path(config.out).with_suffix('.html')
    scores_report.write_scores_page(page, [result])
    print(f'Scores: {config.out}, {page}; answers: {_answers_folder(loaded, config)}')
  return result


def _check_mixtures(names: Sequence[str], config: EvaluateConfig) -> None:
  if not names:
    return
  if config.cache_dir is None:
    known = catalogue.names()
    raise ValueError(
      f'{naming.unknown("suite", names[0], known)} A mixture or task of a token cache needs '
      '--cache_dir.'
    )
  options = dataclasses.replace(config.options, split=None)
  if options != SuiteOptions():
    given = [f.name for f in dataclasses.fields(options) if getattr(options, f.name) is not None]
    raise ValueError(
      f'--{given[0]} is for benchmarks; {names[0]!r} is asked as its cache was prepared.'
    )


def _ask(loaded: Loaded, suites: Sequence[Suite], config: EvaluateConfig) -> dict[str, SuiteScore]:
  return runner.run(
    loaded.model,
    loaded.vocabulary,
    suites,
    runner.RunnerConfig(
      input_length=config.input_length or loaded.lengths['inputs'],
      batch_rows=config.batch_rows,
      decode=config.decode,
      max_tokens=config.max_tokens,
      max_examples=config.max_examples,
      calibrate=config.calibrate,
      seed=config.seed,
    ),
    fingerprint=loaded.fingerprint,
    folder=_answers_folder(loaded, config),
  )


def _from_cache(
  loaded: Loaded, mixtures: Sequence[str], config: EvaluateConfig
) -> dict[str, SuiteScore]:
  """Scores on mixtures of the cache, with a warning for what the checkpoint was trained on."""
  assert config.cache_dir is not None
  split = config.options.split or 'validation'
  seen = seen_in_training(loaded.workdir, config.cache_dir, tuple(mixtures), split)
  if seen:
    print(
      f'Warning: the checkpoint was trained on what it is tested on: {naming.listing(seen)}.',
      file=sys.stderr,
    )
  lengths = {
    'inputs': config.input_length or loaded.lengths['inputs'],
    'targets': config.max_tokens or loaded.lengths['targets'],
  }
  result = evaluator.evaluate(
    loaded.model,
    evaluator.EvaluationConfig(
      mixtures=tuple(mixtures),
      lengths=lengths,
      batch_rows=config.batch_rows,
      decode=dataclasses.replace(config.decode, max_length=lengths['targets']),
      split=split,
      max_examples_per_task=config.max_examples,
      seed=config.seed,
    ),
    config.cache_dir,
    loaded.vocabulary,
    step=loaded.step,
  )
  return suite_scores(result, cache.read_cache_info(config.cache_dir).fingerprint)


def _answers_folder(loaded: Loaded, config: EvaluateConfig) -> Path:
  """Where answers are kept: beside the scores, or in the run's folder."""
  if config.out:
    return Path(config.out).with_suffix('.answers')
  return loaded.workdir / 'answers' / str(loaded.step)


def _model_name(loaded: Loaded) -> str:
  model = loaded.model.config
  kind = 'decoder' if model.decoder_only else 'encoder-decoder'
  parameters = sum(x.size for x in jax.tree.leaves(loaded.model))
  return f'{kind}, {parameters / 1e6:,.1f}M parameters'


def _settings(loaded: Loaded, config: EvaluateConfig) -> dict:
  decode = dataclasses.asdict(config.decode)
  del decode['max_length'], decode['eos_id']
  return {
    'input_length': config.input_length or loaded.lengths['inputs'],
    'max_tokens': config.max_tokens,
    'max_examples': config.max_examples,
    'decode': decode,
    'batch_rows': config.batch_rows,
    'dtype': loaded.model.config.dtype,
    'vocabulary': loaded.vocabulary.fingerprint,
    'chat': loaded.vocabulary.chat is not None,
    'devices': f'{jax.device_count()} {jax.devices()[0].device_kind}',
    'flan_jax': flan_jax.__version__,
    'jax': jax.__version__,
  }


def _show(result: BenchmarkResult) -> None:
  columns = [
    console.Column(title, right=title not in ('suite', 'task', 'metric'))
    for title in ('suite', 'task', 'asked', 'of', 'metric', 'score', '95%')
  ]
  rows = []
  for name, suite in result.suites.items():
    for task, score in suite.tasks.items():
      interval = _interval(score.score)
      counts = (str(score.examples), str(score.available))
      rows.append((name, task, *counts, score.metric, f'{score.score.value:.1f}', interval))
  console.print_table(console.console(), columns, rows)
  for name, suite in result.suites.items():
    lacks = f' without {naming.listing(sorted(suite.missing))}' if suite.missing else ''
    print(f'{name}: {suite.score.value:.1f} ({_interval(suite.score)}){lacks}')
    for probe, value in suite.scores.items():
      print(f'  {probe}: {value.value:.1f} ({_interval(value)})')
    _warn(name, suite, result.settings['input_length'])
  average = normalised.normalised_average(result)
  if average.partial is not None:
    print(f'{average.label}: {average.partial:.1f}')
    for departure in average.departures:
      print(f'  {departure}')


def _warn(name: str, suite: SuiteScore, input_length: int) -> None:
  """Says what the scores suffer from."""
  counts = {
    kind: sum(getattr(task, kind) for task in suite.tasks.values())
    for kind in ('examples', 'shortened', 'truncated', 'unanswered')
  }
  for kind, what in (
    ('shortened', f'lost exemplars, as they are longer than {input_length} tokens'),
    ('truncated', f'lost their beginning, as they are longer than {input_length} tokens'),
    ('unanswered', 'got no answer that could be read'),
  ):
    if counts[kind]:
      flag = ' (--max_input_tokens)' if kind != 'unanswered' else ''
      share = f'{counts[kind]:,} of {counts["examples"]:,}'
      print(f'Warning: {name}: {share} questions {what}{flag}.', file=sys.stderr)


def _interval(score) -> str:
  return '' if score.low is None else f'{score.low:.1f} to {score.high:.1f}'
