"""Tiny Hugging Face folders for tests: tokenizers trained on a few lines, with chat templates."""

import json
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

CHATML = (
  "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] "
  "+ '<|im_end|>\\n' }}{% endfor %}"
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LINES = [
  'how many cats sat on the mat?',
  'two of the 12 cats, he said.\n',
  'name one: a, b or c',
] * 9


def byte_pairs(folder: Path, *, lines=LINES, bos: bool = False, **config) -> Path:
  """A byte-level BPE tokenizer as Qwen's and Llama's; `bos` puts <|begin|> before a text."""
  made = tokenizers.Tokenizer(models.BPE())
  made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  made.decoder = decoders.ByteLevel()
  special = ['<|end|>', '<|im_start|>', '<|im_end|>', '<|begin|>']
  alphabet = pre_tokenizers.ByteLevel.alphabet()
  made.train_from_iterator(
    lines,
    trainers.BpeTrainer(
      vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    ),
  )
  made.add_tokens(['<think>'])  # an added token that is not special
  if bos:
    made.post_processor = processors.TemplateProcessing(
      single='<|begin|> $A', special_tokens=[('<|begin|>', 3)]
    )
  settings = {'bos_token': '<|begin|>', 'eos_token': '<|end|>', 'chat_template': CHATML}
  return write(folder, made, settings | config)


def unigram(folder: Path, **config) -> Path:
  """A Unigram tokenizer as T5's: its special tokens are pieces, and it knows few characters."""
  made = tokenizers.Tokenizer(models.Unigram())
  made.normalizer = normalizers.NFKC()
  made.pre_tokenizer = pre_tokenizers.Metaspace()
  made.decoder = decoders.Metaspace()
  special = ['<pad>', '</s>', '<unk>']
  made.train_from_iterator(
    LINES,
    trainers.UnigramTrainer(
      vocab_size=80, special_tokens=special, unk_token='<unk>', show_progress=False
    ),
  )
  made.post_processor = processors.TemplateProcessing(
    single='$A </s>', special_tokens=[('</s>', 1)]
  )
  named = {'pad_token': '<pad>', 'eos_token': '</s>', 'unk_token': '<unk>'}
  return write(folder, made, named | config)


def write(folder: Path, tokenizer: tokenizers.Tokenizer, config: dict) -> Path:
  """Writes the two files of a tokenizer as a model's folder has them."""
  folder.mkdir(parents=True, exist_ok=True)
  tokenizer.save(str(folder / 'tokenizer.json'))
  (folder / 'tokenizer_config.json').write_text(json.dumps(config), encoding='utf-8')
  return folder
