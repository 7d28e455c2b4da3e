"""The words of the command line: verbs, flags and their help, and errors with the nearest name.

What a verb does is in main.py. gin bindings (`--gin.NAME=VALUE`) are collected as text.
"""

import argparse
import re
from collections.abc import Sequence
from typing import NoReturn

from flan_jax.command_line_data import add_data_verbs, gin_flags
from flan_jax.naming import nearest

_DESCRIPTION = """\
Instruction-tune language models in JAX.

  flan-jax list                                    what there is
  flan-jax prepare --mixture demo --cache_dir C    tokenise it once
  flan-jax inspect --mixture demo --cache_dir C    look at what will be trained on
  flan-jax export-text --mixture demo --out F      the same as text, with provenance
  flan-jax train --gin_file runs/demo.gin --cache_dir C --workdir W
  flan-jax plan --gin_file F --topology v5p-128    will it fit there, and how fast
  flan-jax report --workdir W                      one HTML page of the run
  flan-jax generate --checkpoint W "A question"
  flan-jax import --from hf:DIR --out C            other programs' weights in
  flan-jax export --checkpoint W --to hf:DIR       and ours out

`flan-jax VERB --help` teaches each verb."""


class UsageError(Exception):
  """Wrong use of the command line; exit status 2."""


class _Parser(argparse.ArgumentParser):
  """Raises UsageError with the nearest verb or flag instead of printing the usage."""

  def error(self, message: str) -> NoReturn:
    match = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
    if match:
      choices = re.findall(r'[\w-]+', match[2])
      message = f'No {_kind(message)} {match[1]!r}.{nearest(match[1], choices)} '
      message += f'There are: {", ".join(choices)}.'
    raise UsageError(f'{message.rstrip(".")}. See `{self.prog} --help`.')

  def flags(self) -> list[str]:
    return [flag for action in self._actions for flag in action.option_strings]


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
  """Parses a command line; returns the flags and the gin bindings as `NAME = VALUE` lines.

  Raises:
    UsageError: A verb, flag or value that does not exist, with the nearest that does.
    SystemExit: After --help or --version.
  """
  parser, verbs = _build()
  argv, bindings = _take_bindings(list(argv))
  args, unknown = parser.parse_known_args(argv)
  if args.version:
    return args, []
  if args.verb is None:
    raise UsageError(f'Which verb? One of: {", ".join(verbs)}. See `flan-jax --help`.')
  if unknown:
    flag = unknown[0].split('=')[0]
    known = verbs[args.verb].flags()
    raise UsageError(
      f'`flan-jax {args.verb}` takes no {flag!r}.{nearest(flag, known)} '
      f'See `flan-jax {args.verb} --help`.'
    )
  if bindings and args.verb not in ('train', 'plan', 'prepare'):
    raise UsageError('--gin bindings belong to `flan-jax train`, `plan` and `prepare`.')
  return args, bindings


def _take_bindings(argv: list[str]) -> tuple[list[str], list[str]]:
  """Splits `--gin.NAME=VALUE` (or `--gin.NAME VALUE`) off the other arguments."""
  rest, bindings = [], []
  while argv:
    argument = argv.pop(0)
    if not argument.startswith('--gin.'):
      rest.append(argument)
      continue
    name, equals, value = argument[len('--gin.') :].partition('=')
    if not equals:
      if not argv:
        raise UsageError(f'{argument} needs a value: {argument}=VALUE.')
      value = argv.pop(0)
    bindings.append(f'{name.strip()} = {value.strip()}')
  return rest, bindings


def _build() -> tuple[_Parser, dict[str, _Parser]]:
  parser = _Parser(
    prog='flan-jax',
    description=_DESCRIPTION,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument('--version', action='store_true', help='print the versions in use and stop')
  subparsers = parser.add_subparsers(dest='verb', metavar='VERB')
  verbs = {}

  def verb(name: str, summary: str, example: str) -> _Parser:
    verbs[name] = subparsers.add_parser(
      name,
      help=summary,
      description=f'{summary}\n\n  {example}',
      formatter_class=argparse.RawDescriptionHelpFormatter,
      allow_abbrev=False,
    )
    verbs[name].add_argument(
      '--traceback', action='store_true', help='show where in the code an error arose'
    )
    return verbs[name]

  add_data_verbs(verb)
  _add_run_verbs(verb)
  _add_use_verbs(verb)
  return parser, verbs


def _add_run_verbs(verb) -> None:
  p = verb(
    'train',
    'Trains, or goes on where the last checkpoint in the workdir stands.',
    'flan-jax train --gin_file runs/train.gin --gin_file models/t5_1_1/small.gin \\\n'
    '      --mixture cot --cache_dir ~/cache --workdir ~/run --steps 1000 --gin.BATCH_SIZE=16',
  )
  gin_flags(p, required=True)
  p.add_argument('--workdir', required=True, help='folder of the run: checkpoints, metrics, report')
  p.add_argument('--mixture', help='MIXTURE_OR_TASK_NAME without inner quotes')
  p.add_argument('--cache_dir', help='CACHE_DIR without inner quotes')
  p.add_argument('--steps', type=int, help='TRAIN_STEPS')
  p.add_argument('--batch_size', type=int, help='BATCH_SIZE, rows')
  p.add_argument('--seed', type=int, help='SEED')
  p.add_argument('--dry_run', action='store_true', help='print the resolved configuration and stop')
  _process_flags(p)

  p = verb(
    'plan',
    'Compiles the steps of a run for TPUs that are not there: do they fit, and how fast are they?',
    'flan-jax plan --gin_file recipes/flan2022_t5_xxl.gin --topology v5p-128 \\\n'
    '      --batch_size 128',
  )
  gin_flags(p, required=True)
  p.add_argument(
    '--topology',
    required=True,
    help='v4-512, v5e-256, v5p-128, v6e-64; v5p:8x8x16 by its chips; 2xv5e-256 for two slices',
  )
  p.add_argument('--steps', type=int, help='TRAIN_STEPS')
  p.add_argument('--batch_size', type=int, help='BATCH_SIZE, rows')
  # A plan reads no data, so that neither a mixture nor a cache has to be there.
  p.set_defaults(mixture='', cache_dir='', seed=None)
  p.add_argument(
    '--step',
    default='train',
    choices=('train', 'prefill', 'decode', 'all'),
    help='what to compile (default: train)',
  )
  p.add_argument(
    '--search',
    type=int,
    metavar='N',
    help='compile N variants of mesh, remat and microbatches, and rank them',
  )
  p.add_argument('--json', metavar='F', help='also write the plan, or the plans, as JSON')
  p.add_argument(
    '--save', metavar='F', help="write the step's executable, to be loaded on such a slice"
  )

  p = verb(
    'report',
    'Writes report.html of a run, also while it trains, or a page of scores side by side.',
    'flan-jax report --workdir W\n'
    '  flan-jax report --scores base.json tuned.json --out scores.html',
  )
  what = p.add_mutually_exclusive_group(required=True)
  what.add_argument('--workdir', help="the run's folder")
  what.add_argument(
    '--scores', nargs='+', metavar='F.json', help='what `evaluate --out` wrote of each checkpoint'
  )
  p.add_argument('--out', help='page of the scores, .html or .json (default: scores.html)')


def _process_flags(p: argparse.ArgumentParser) -> None:
  p.add_argument(
    '--coordinator_address',
    metavar='HOST:PORT',
    help='of process 0 (default: what TPU metadata, SLURM, Kubernetes or Open MPI say, if any)',
  )
  p.add_argument('--process_count', type=int, help='processes in all')
  p.add_argument('--process_id', type=int, help='which of them this is, from 0')
  p.add_argument(
    '--expected_devices', type=int, help='refuse to run on any other number of devices'
  )
  p.add_argument(
    '--initialization_timeout',
    type=float,
    default=300,
    help='seconds in which all processes must come (default: 300)',
  )
  p.add_argument(
    '--gce_notices',
    action='store_true',
    help='listen to the metadata server of Google Cloud for preemption and maintenance',
  )


def _add_use_verbs(verb) -> None:
  p = verb(
    'evaluate',
    'Scores a checkpoint on benchmarks, or on mixtures and tasks of a cache.',
    'flan-jax evaluate --checkpoint W --suite mmlu,bbh_cot --eval_dir D --out scores.json\n'
    '  flan-jax evaluate --checkpoint W --suite demo_held_out --cache_dir C',
  )
  _checkpoint_flags(p)
  p.add_argument(
    '--suite',
    required=True,
    help='comma separated: mmlu, mmlu_cot, bbh, bbh_cot, tydiqa, mgsm, gsm8k, ifeval, adherence, '
    'probe_NAME, jsonl:PATH (docs/suites.md says what each asks), or mixtures and tasks of a cache',
  )
  p.add_argument(
    '--eval_dir', help='folder of the benchmarks, one in each (default: FLAN_JAX_EVAL_DIR)'
  )
  p.add_argument('--cache_dir', help='what prepare wrote, for mixtures and tasks')
  p.add_argument(
    '--out', help='JSON file for the scores; a page and a folder of all answers go beside it'
  )
  p.add_argument('--label', help='what to call the checkpoint in the scores (default: its path)')
  p.add_argument(
    '--split', help="split of the files (default: the suite's own; of a cache validation)"
  )
  p.add_argument('--max_examples', type=int, help='a task, a fixed random choice (default: all)')
  p.add_argument('--task', action='append', help='only this task of a benchmark; may be repeated')
  p.add_argument('--shots', type=int, help="exemplars before a question (default: the suite's own)")
  p.add_argument(
    '--trigger',
    help='with --shots 0, words that an answer begins with: "Let\'s think step by step."',
  )
  p.add_argument(
    '--method',
    choices=('rank', 'generate'),
    help="of questions with choices: take the likeliest, or write one (default: the suite's own)",
  )
  p.add_argument(
    '--calibrate',
    action='store_true',
    help='also rank choices by what the question adds to their likelihood',
  )
  p.add_argument(
    '--votes',
    type=int,
    default=1,
    help='answers to each question, the most frequent of which counts; needs --strategy sample',
  )

  p = verb(
    'infer',
    'Answers every line of a JSONL file; goes on where a killed run stopped.',
    'flan-jax infer --checkpoint W --input questions.jsonl --output answers.jsonl',
  )
  _checkpoint_flags(p)
  p.add_argument('--input', required=True, help='JSONL with a string "inputs" on each line')
  p.add_argument('--output', required=True, help='JSONL: each line again, with its prediction')

  p = verb(
    'generate',
    'Answers one prompt, or one prompt a line until the end of input.',
    'flan-jax generate --checkpoint W "Is 7 more than 5?"',
  )
  _checkpoint_flags(p)
  p.add_argument('prompt', nargs='?', help='the prompt (default: read lines from standard input)')

  p = verb(
    'import',
    "Reads another program's weights, for training to start from or to answer with.",
    'flan-jax import --from hf:flan-t5-small --out flan_t5_small\n'
    '  flan-jax train ... --gin.INITIAL_CHECKPOINT_PATH=\'"flan_t5_small"\'\n'
    '  flan-jax generate --checkpoint flan_t5_small "Is 7 more than 5?"',
  )
  p.add_argument(
    '--from',
    dest='source',
    metavar='FORMAT:PATH',
    required=True,
    help='hf:DIR, a Hugging Face folder with safetensors; t5x:DIR, a checkpoint of T5X; gguf:FILE, '
    "llama.cpp's; llama2c:DIR, a model and vocabulary of llama2.c",
  )
  p.add_argument('--out', required=True, help='folder to write, as a workdir with one checkpoint')
  p.add_argument(
    '--vocabulary',
    help="in place of the one that comes with the weights: 'bytes', a SentencePiece model, a "
    'tokenizer.json or a folder with one (T5X has none of its own)',
  )
  p.add_argument(
    '--chat_template',
    help="lay prompts out as a conversation: 'model' for the Jinja template that comes with the "
    "weights, the path of one, or 'none' (default: 'model', if there is one)",
  )

  p = verb(
    'export',
    'Writes a checkpoint as a folder that transformers loads: weights, configuration, vocabulary.',
    'flan-jax export --checkpoint W --to hf:my_model',
  )
  p.add_argument('--checkpoint', required=True, help='a workdir, or W/checkpoints/STEP')
  p.add_argument(
    '--to',
    metavar='FORMAT:PATH',
    required=True,
    help='hf:DIR, a Hugging Face folder, adapters merged; peft:DIR, the adapters alone',
  )

  verb(
    'doctor', 'Says what is installed, which devices are seen, what is missing.', 'flan-jax doctor'
  )


def _checkpoint_flags(p: argparse.ArgumentParser) -> None:
  p.add_argument('--checkpoint', required=True, help='a workdir, or W/checkpoints/STEP')
  p.add_argument('--batch_size', type=int, default=16, help='rows at a time (default: 16)')
  p.add_argument('--max_input_tokens', type=int, help="default: the run's own inputs length")
  p.add_argument('--max_tokens', type=int, help="tokens to decode (default: the run's targets)")
  p.add_argument(
    '--strategy', default='greedy', choices=('greedy', 'sample', 'beam'), help='default: greedy'
  )
  p.add_argument('--temperature', type=float, default=1.0, help='of sampling (default: 1.0)')
  p.add_argument('--top_k', type=int, default=0, help='sample among so many (default: all)')
  p.add_argument('--top_p', type=float, default=1.0, help='sample within this mass (default: all)')
  p.add_argument('--num_beams', type=int, default=4, help='of beam search (default: 4)')
  p.add_argument('--seed', type=int, default=0, help='of sampling (default: 0)')


def _kind(message: str) -> str:
  name = re.match(r'argument (\S+):', message)
  return 'verb' if name is None or name[1] == 'VERB' else name[1].rstrip(':')
