"""Formatting and tokenising one task, beside the same task in SeqIO's TensorFlow preprocessors.

  python benchmarks/prepare.py                                          # the demo's vocabulary
  python benchmarks/prepare.py --vocabulary t5.model --memory 1000000   # and memory over so many

Both read the same rows (a premise, a question and an answer of a few dozen words), put each into
one of ten wordings, tokenise with SentencePiece, append EOS and write or yield the ids. SeqIO's
side is made as FLAN makes it: one tf.data map for each wording over batches of ten. Examples are
counted per second of CPU time, all threads together, so that a figure is that of one core. Each
program runs in a process of its own, in turns.
"""

import argparse
import importlib.util
import json
import os
import random
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import measure

VOCABULARY = Path(__file__).resolve().parent.parent / 'tasks/data/demo/vocabulary.model'
WORDINGS = [
  ('{premise}\n\nQuestion: {question}\nAnswer:', '{answer}'),
  ('Read this: {premise}\n{question}', '{answer}'),
  ('{question}\nThe text: {premise}', '{answer}'),
  ('Text: {premise}\nAsked: {question}\nSaid:', '{answer}'),
  ('A quiz. {premise} {question}', '{answer}'),
  ('Use what follows to answer "{question}".\n{premise}', '{answer}'),
  ('{premise}\nNow: {question}', '{answer}'),
  ('Tell me, {question}\n\n{premise}', '{answer}'),
  ('{premise}\n{question}\nReply in a word or two:', '{answer}'),
  ('Passage:\n{premise}\n\n{question}', '{answer}'),
]
WORDS = 'the river old house green seven stands near market while people walk slowly home'.split()


def rows(count: int) -> Any:
  """Rows that are the same on each call."""
  rng = random.Random(0)
  for _ in range(count):
    text = [' '.join(rng.choices(WORDS, k=k)) for k in (60, 10, 2)]
    yield dict(zip(('premise', 'question', 'answer'), text, strict=True))


def run_ours(args) -> dict[str, float]:
  """Examples and CPU seconds of the job that `flan-jax prepare` gives a worker."""
  os.environ['FLAN_JAX_SEQIO'] = 'off'
  from flan_jax.tasks.registry import instruction_task
  from flan_jax.tasks.sources import GeneratorSource

  from flan_jax.data import cache, catalogue
  from flan_jax.data.prepare_job import Job, run_job
  from flan_jax.data.vocabularies import get_vocabulary

  instruction_task(
    'benchmark',
    source=GeneratorSource(lambda split: rows(args.examples), splits=('train',)),
    templates=[
      {'id': str(i), 'inputs': inputs, 'targets': targets}
      for i, (inputs, targets) in enumerate(WORDINGS)
    ],
    cluster='benchmark',
    collection='benchmark',
  )
  with tempfile.TemporaryDirectory() as folder:
    cache.initialize_cache(folder, get_vocabulary(args.vocabulary))
    job = Job(
      task='benchmark',
      split='train',
      instruction=True,
      key={},
      info={},
      cache_dir=folder,
      modules=catalogue.DEFAULT_MODULES,
      seqio=False,
      seed=0,
      max_examples=None,
    )
    catalogue.import_task_modules(job.modules)
    seen: list[tuple[int, float]] = []

    def report(progress: tuple[int, int]) -> None:
      seen.append((progress[0], _peak_megabytes()))

    started = time.process_time()
    result = run_job(job, report)
    seconds = time.process_time() - started
  assert result.status == 'built' and result.num_examples == args.examples, result
  early = next((megabytes for count, megabytes in seen if count > args.examples / 10), 0.0)
  return {
    'examples': result.num_examples,
    'cpu_seconds': seconds,
    'megabytes_after_a_tenth': early,
    'megabytes': _peak_megabytes(),
  }


def run_seqio(args) -> dict[str, float]:
  """Examples and CPU seconds of a seqio.Task with the same wordings."""
  import seqio
  import tensorflow as tf

  names = ('premise', 'question', 'answer')

  def dataset(split, shuffle_files=False, seed=None):
    del split, shuffle_files, seed
    signature = {name: tf.TensorSpec([], tf.string) for name in names}
    return tf.data.Dataset.from_generator(lambda: rows(args.examples), output_signature=signature)

  def fill(pattern: str, row) -> Any:
    for name in names:
      pattern = pattern.replace('{' + name + '}', f'\0{name}\0')
    parts = [row[part] if part in names else part for part in pattern.split('\0')]
    return tf.strings.join(parts)

  def wordings(ds):
    def apply(batch):
      made = [
        {
          'inputs': fill(inputs, {name: batch[name][i] for name in names}),
          'targets': fill(targets, {name: batch[name][i] for name in names}),
        }
        for i, (inputs, targets) in enumerate(WORDINGS)
      ]
      return {name: tf.stack([one[name] for one in made]) for name in ('inputs', 'targets')}

    batched = ds.batch(len(WORDINGS), drop_remainder=True)
    return batched.map(apply, num_parallel_calls=tf.data.AUTOTUNE).unbatch()

  vocabulary = seqio.SentencePieceVocabulary(args.vocabulary)
  seqio.TaskRegistry.add(
    'benchmark',
    source=seqio.FunctionDataSource(  # pyright: ignore[reportArgumentType]
      dataset, splits=['train']
    ),
    preprocessors=[
      wordings,
      seqio.preprocessors.tokenize,
      seqio.preprocessors.append_eos_after_trim,
    ],
    output_features={
      side: seqio.Feature(vocabulary, add_eos=True, dtype=tf.int32)
      for side in ('inputs', 'targets')
    },
  )
  started = time.process_time()
  made = seqio.get_mixture_or_task('benchmark').get_dataset(None, 'train', shuffle=False)
  count = sum(1 for _ in made.as_numpy_iterator())
  assert count == args.examples
  seconds = time.process_time() - started
  return {'examples': count, 'cpu_seconds': seconds, 'megabytes': _peak_megabytes()}


def _peak_megabytes() -> float:
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
  parser = measure.parser(__doc__)
  parser.add_argument('--vocabulary', default=str(VOCABULARY), help='a SentencePiece model')
  parser.add_argument('--examples', type=int, default=20_000, help='a multiple of ten')
  parser.add_argument('--memory', type=int, help='also run ours over so many examples')
  parser.add_argument('--run', choices=('flan_jax', 'seqio'), help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.quick:
    args.examples, args.repeats = 100, 1
  if args.run:
    print(json.dumps(run_ours(args) if args.run == 'flan_jax' else run_seqio(args)))
    return
  runs = {'flan_jax': [], 'seqio': []}
  if args.quick or not importlib.util.find_spec('seqio'):
    del runs['seqio']
  for _ in range(args.repeats):
    for program, found in runs.items():
      found.append(measure.in_own_process(program))
  figures: dict[str, Any] = {
    'work': f'{args.examples:,} examples of some 75 words in ten wordings, of one core',
    'programs': {program: figures_of(found) for program, found in runs.items()},
  }
  if args.memory:
    large = measure.in_own_process('flan_jax', f'--examples={args.memory}')
    figures['memory'] = {
      'examples': args.memory,
      'megabytes_after_a_tenth': round(large['megabytes_after_a_tenth']),
      'megabytes_at_the_end': round(large['megabytes']),
    }
  measure.finish('prepare', measure.with_ratios(figures, 'examples_per_second'), args)


def figures_of(runs: list[dict[str, float]]) -> dict[str, Any]:
  """One program's figures over all its processes; seconds are of CPU time."""
  seconds = measure.spread([run['cpu_seconds'] for run in runs])
  return {
    'seconds': seconds,
    'examples_per_second': round(runs[0]['examples'] / seconds['median']),
    'peak_mb': round(max(run['megabytes'] for run in runs)),
  }


if __name__ == '__main__':
  main()
