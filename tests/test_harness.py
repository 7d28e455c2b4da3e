"""The harness scores our checkpoints as it scores the same weights in PyTorch; needs both.

  python -m pip install -e '.[lm-eval,bench]'

Tasks and data are made here: nothing is downloaded.
"""

import json

import numpy as np
import pytest
import yaml

lm_eval = pytest.importorskip('lm_eval')
torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')

import tiny_tokenizers  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

from flan_jax import harness, main  # noqa: E402

WORDS = ' '.join(tiny_tokenizers.LINES[:3]).split()


def write_tasks(folder):
  """Two tasks over local files: choices of unequal length, and answers to write."""
  rng = np.random.default_rng(0)

  def some(low, high):
    return ' '.join(rng.choice(WORDS, rng.integers(low, high)))

  rows = [
    {'question': some(3, 30), 'choices': [some(1, 4) for _ in range(3)], 'label': n % 3}
    for n in range(24)
  ]
  data = folder / 'rows.jsonl'
  data.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  common = {
    'dataset_path': 'json',
    'dataset_kwargs': {'data_files': {'test': str(data)}},
    'test_split': 'test',
    'doc_to_text': 'Q: {{question}}\nA:',
  }
  choice = {
    **common,
    'task': 'made_choice',
    'output_type': 'multiple_choice',
    'doc_to_choice': '{{choices}}',
    'doc_to_target': '{{label}}',
    'metric_list': [{'metric': 'acc'}, {'metric': 'acc_norm'}],
  }
  writing = {
    **common,
    'task': 'made_writing',
    'output_type': 'generate_until',
    'doc_to_target': '{{choices[0]}}',
    'generation_kwargs': {'until': ['\n', ' sat'], 'max_gen_toks': 12, 'do_sample': False},
    'metric_list': [{'metric': 'exact_match'}],
  }
  text = {
    **common,
    'task': 'made_text',
    'output_type': 'loglikelihood_rolling',
    'doc_to_text': '',
    'doc_to_target': '{{question}}',
    'metric_list': [{'metric': 'word_perplexity'}],
  }
  for task in (choice, writing, text):
    (folder / f'{task["task"]}.yaml').write_text(yaml.safe_dump(task))
  return ['made_choice', 'made_writing', 'made_text']


def llama(folder):
  tiny_tokenizers.byte_pairs(folder, bos=True)
  config = transformers.LlamaConfig(
    vocab_size=320,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=256,
    initializer_range=0.4,
    bos_token_id=3,
    eos_token_id=0,
  )
  return transformers.LlamaForCausalLM(config)


def t5(folder):
  # transformers builds T5's own class anew, with another normalizer than the file's.
  tiny_tokenizers.unigram(folder, tokenizer_class='PreTrainedTokenizerFast')
  config = transformers.T5Config(
    vocab_size=128,
    d_model=32,
    d_kv=8,
    d_ff=64,
    num_layers=2,
    num_heads=4,
    initializer_factor=1.5,  # with 3 PyTorch's own float32 is 0.2 nats off its float64
    decoder_start_token_id=0,
  )
  return transformers.T5ForConditionalGeneration(config)


@pytest.fixture(scope='module', params=[llama, t5], ids=['llama', 't5'])
def checkpoints(request, tmp_path_factory):
  """A tiny model as a folder of Hugging Face, and imported."""
  folder = tmp_path_factory.mktemp('weights')
  theirs, ours = folder / 'theirs', folder / 'ours'
  theirs.mkdir()
  torch.manual_seed(0)
  request.param(theirs).eval().save_pretrained(theirs)
  assert (
    main.console(['import', f'--from=hf:{theirs}', f'--out={ours}', '--chat_template=none']) == 0
  )
  return theirs, ours


def test_every_example_gets_the_same_score(checkpoints, tmp_path):
  theirs, ours = checkpoints
  tasks = write_tasks(tmp_path)
  manager = TaskManager(include_path=str(tmp_path), include_defaults=False)

  def evaluate(model):
    found = lm_eval.simple_evaluate(
      model=model, tasks=tasks, task_manager=manager, log_samples=True, bootstrap_iters=0
    )
    return found['results'], found['samples']

  expected, their_samples = evaluate(HFLM(pretrained=str(theirs), device='cpu', batch_size=4))
  results, samples = evaluate(harness.FlanJax(str(ours), batch_size=5))
  for task in tasks:
    for name, value in expected[task].items():
      if isinstance(value, float):
        assert results[task][name] == pytest.approx(value, rel=1e-4), (task, name)
  for task in ('made_choice', 'made_writing'):
    for one, other in zip(samples[task], their_samples[task], strict=True):
      assert one['doc_id'] == other['doc_id']
      if task == 'made_writing':
        # The harness lets encoder-decoders in PyTorch write longer, by the length of the prompt.
        assert other['resps'][0][0].startswith(one['resps'][0][0])
        continue
      for (likelihood, greedy), (theirs_likelihood, theirs_greedy) in zip(
        [r[0] for r in one['resps']], [r[0] for r in other['resps']], strict=True
      ):
        assert float(likelihood) == pytest.approx(float(theirs_likelihood), rel=1e-4)
        assert greedy == theirs_greedy
