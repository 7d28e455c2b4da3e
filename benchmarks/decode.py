"""Greedy decoding of T5 1.1 small on the CPU, beside Hugging Face's `generate` in PyTorch.

  python benchmarks/decode.py                      # 512 -> 64, batches of 8 and 32, float32
  python benchmarks/decode.py --json decode.json

Both read the same weights and the same prompts and write exactly 64 tokens. Each program runs in a
process of its own, one after the other and in turns. Apart from the whole, the encoder (with the
keys and values of cross attention), the first token and each token after it are measured.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import t5_small

INPUTS, TOKENS = 512, 64


def prompts(rows: int, number: int) -> np.ndarray:
  """Token ids [rows, INPUTS] of the `number`th batch."""
  rng = np.random.default_rng((rows, number))
  return rng.integers(2, 32000, (rows, INPUTS)).astype(np.int32)


def measure(phases, rows: int, repeats: int) -> dict:
  """Median seconds of each phase after one run that compiles, and the tokens of the last batch."""
  seconds = {name: [] for name in phases}
  compiled = {}
  tokens = None
  for number in range(repeats + 1):
    for name, run in phases.items():
      start = time.perf_counter()
      found = run(prompts(rows, number))
      took = time.perf_counter() - start
      if number:
        seconds[name].append(took)
      else:
        compiled[name] = took
      if name == 'whole':
        tokens = np.asarray(found).tolist()
  return {
    'seconds': {name: statistics.median(each) for name, each in seconds.items()},
    'first_seconds': compiled['whole'],
    'tokens': tokens,
  }


def run_ours(args) -> dict:
  import jax
  import jax.numpy as jnp

  from flan_jax import decoding, partitioning
  from flan_jax.convert import formats, importing
  from flan_jax.models.config import TransformerConfig
  from flan_jax.models.transformer import Transformer

  with partitioning.use_mesh(partitioning.MeshConfig()):
    source = formats.open_source(f'hf:{args.folder}')
    assert isinstance(source.config, TransformerConfig)
    model: Transformer = importing.load(source)
    # A token that does not exist ends nothing.
    decode = decoding.DecodeConfig(max_length=TOKENS, eos_id=-1)
    one = decoding.DecodeConfig(max_length=1, eos_id=-1)

    @jax.jit
    def encode(model, tokens):
      cache = model.start_decoding(tokens, jnp.ones_like(tokens), max_length=TOKENS)
      return cache.cross_key

    def encoder(tokens):
      return jax.block_until_ready(encode(model, tokens))

    def generate(config):
      return lambda tokens: np.asarray(
        decoding.generate(model, {'encoder_input_tokens': tokens}, config).tokens[:, 0]
      )

    phases = {'encoder': encoder, 'first_token': generate(one), 'whole': generate(decode)}
    return {rows: measure(phases, rows, args.steps) for rows in args.rows}


def run_hugging_face(args) -> dict:
  import torch

  torch.set_num_threads(os.cpu_count() or 1)
  model = t5_small.hugging_face_model()
  model.load_state_dict(torch.load(Path(args.folder, 'weights.pt')))
  model.eval()
  model.generation_config.eos_token_id = None
  model.generation_config.pad_token_id = 0

  def generate(count):
    def run(tokens):
      ids = torch.from_numpy(tokens.astype(np.int64))
      found = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False
      )
      return found[:, 1:].numpy()

    return run

  def encoder(tokens):
    return model.encoder(torch.from_numpy(tokens.astype(np.int64))).last_hidden_state

  phases = {'encoder': encoder, 'first_token': generate(1), 'whole': generate(TOKENS)}
  with torch.inference_mode():
    return {rows: measure(phases, rows, args.steps) for rows in args.rows}


def write_weights(folder: Path) -> None:
  """The same random weights as PyTorch has them and as a folder of Hugging Face."""
  import torch
  from safetensors.torch import save_file

  torch.manual_seed(0)
  model = t5_small.hugging_face_model()
  state = {name: x.detach().clone() for name, x in model.state_dict().items()}
  torch.save(state, folder / 'weights.pt')
  copies = ('encoder.embed_tokens.weight', 'decoder.embed_tokens.weight')
  tensors = {name: x.contiguous() for name, x in state.items() if name not in copies}
  save_file(tensors, folder / 'model.safetensors', metadata={'format': 'pt'})
  config = {**model.config.to_dict(), 'architectures': ['T5ForConditionalGeneration']}
  (folder / 'config.json').write_text(json.dumps(config))


def figures_of(found: list[dict], rows: int) -> dict:
  """Rates of one program at one batch size, the median of its processes."""
  seconds = {
    name: statistics.median(run['seconds'][name] for run in found)
    for name in ('encoder', 'first_token', 'whole')
  }
  steady = (seconds['whole'] - seconds['first_token']) / (TOKENS - 1)
  return {
    'tokens_per_second': round(rows * TOKENS / seconds['whole'], 1),
    'encoder_ms': round(1e3 * seconds['encoder'], 1),
    'first_token_ms': round(1e3 * seconds['first_token'], 1),
    'each_token_after_ms': round(1e3 * steady, 2),
    'first_call_seconds': round(found[0]['first_seconds'], 1),
  }


def main() -> None:
  parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
  parser.add_argument('--rows', type=int, nargs='+', default=[8, 32], help='batches to decode')
  parser.add_argument('--steps', type=int, default=2, help='measured batches a process')
  parser.add_argument('--repeats', type=int, default=1, help='processes of each program, in turns')
  parser.add_argument('--json', help='also write the figures there')
  parser.add_argument('--folder', help=argparse.SUPPRESS)
  parser.add_argument('--run', choices=('ours', 'hugging_face'), help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.run:
    run = run_ours if args.run == 'ours' else run_hugging_face
    print(json.dumps(run(args)))
    return
  found = {'ours': [], 'hugging_face': []}
  with tempfile.TemporaryDirectory() as folder:
    write_weights(Path(folder))
    for _ in range(args.repeats):
      for program, runs in found.items():
        runs.append(t5_small.in_own_process(program, f'--folder={folder}'))
  figures: dict = {
    'work': f'T5 1.1 small, greedy, {INPUTS} -> {TOKENS}, float32',
    'cores': os.cpu_count(),
  }
  for rows in args.rows:
    both: dict = {
      program: figures_of([run[str(rows)] for run in runs], rows) for program, runs in found.items()
    }
    ours, theirs = (np.array(found[p][0][str(rows)]['tokens']) for p in found)
    both['share_of_equal_tokens'] = round(float(np.mean(ours == theirs)), 4)
    rates = [both[program]['tokens_per_second'] for program in found]
    both['ours_over_hugging_face'] = round(rates[0] / rates[1], 3)
    figures[f'batch_{rows}'] = both
  print(json.dumps(figures, indent=1))
  if args.json:
    Path(args.json).write_text(json.dumps(figures, indent=1), encoding='utf-8')


if __name__ == '__main__':
  main()
