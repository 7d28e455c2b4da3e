"""Trains the demo's SentencePiece vocabulary on the demo's own text.

  python -m flan_jax.tasks.demo.vocabulary --output tasks/data/demo/vocabulary.model

The same text gives the same file. With it a word is one token, against five or six bytes, so that
three times as many questions are read in the two minutes of the demo.
"""

import argparse
import io
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from flan_jax.tasks.demo.examples import TASKS
from flan_jax.tasks.registry import text_examples
from flan_jax.tasks.templates import DATA, load_groups

PATH = DATA / 'demo' / 'vocabulary.model'
SIZE = 768  # six times 128; 256 of them are single bytes, so that any text can be written
EXAMPLES = 150  # of each form of a task


def texts() -> Iterator[str]:
  """Yields inputs and targets of every task, the held-out ones included.

  Their words are known to the vocabulary but nothing about them to the model.
  """
  for task in TASKS:
    forms = [task.name, f'{task.name}_unseen_wordings']
    if f'{task.name}_cot' in load_groups(f'demo/{task.cluster}.json'):
      forms += [f'{task.name}_cot', f'{task.name}_cot_unseen_wordings']
    for form in forms:
      split = 'validation' if form.endswith('_unseen_wordings') else 'train'
      for example in islice(text_examples(form, split), EXAMPLES):
        yield example['inputs']
        yield example['targets']


def train_vocabulary() -> bytes:
  """Returns the SentencePiece model file."""
  import sentencepiece

  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=texts(),
    model_writer=model,
    model_type='unigram',
    vocab_size=SIZE,
    pad_id=0,
    eos_id=1,
    unk_id=2,
    bos_id=-1,
    byte_fallback=True,
    split_digits=True,
    normalization_rule_name='identity',  # what is written is what is read, newlines too
    remove_extra_whitespaces=False,
    num_threads=1,  # with more, sums of floats come out in another order
    minloglevel=1,
  )
  return model.getvalue()


def main() -> None:
  """Writes the vocabulary to --output."""
  parser = argparse.ArgumentParser(description='Trains the vocabulary of the demo collection.')
  parser.add_argument('--output', type=Path, default=PATH, help='file to write')
  output = parser.parse_args().output
  output.write_bytes(train_vocabulary())
  print(f'{output}: {SIZE} tokens, {output.stat().st_size:,} bytes')


if __name__ == '__main__':
  main()
