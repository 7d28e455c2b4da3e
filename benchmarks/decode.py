"""Greedy decoding of T5, beside Hugging Face's `generate` in PyTorch.

  python benchmarks/decode.py                      # T5 1.1 small, 8 rows, 512 -> 64, float32
  python benchmarks/decode.py --rows 32 --out decode.json
  python benchmarks/decode.py --model t5_1_1_xl --dtype bfloat16 --rows 128 --tokens 128

Both read the same weights and fresh random prompts, and write exactly as many tokens. Each program
runs in a process of its own, one after the other and in turns. Apart from the whole, the encoder,
the first token (which with ours includes the keys and values of cross attention) and each token
after it are measured.
"""

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from pathlib import Path

import measure
import numpy as np
import peers

INPUTS = 512


def prompts(args, number: int) -> np.ndarray:
  """Token ids [rows, inputs] of the `number`th batch."""
  rng = np.random.default_rng((args.rows, number))
  vocabulary = peers.our_config(args.model).vocab_size
  return rng.integers(2, vocabulary, (args.rows, args.inputs)).astype(np.int32)


def seconds_of(phases, args) -> dict:
  """Seconds of each phase after one run that compiles, and the tokens of the last batch."""
  seconds = {name: [] for name in phases}
  tokens = None
  for number in range(args.steps + 1):
    for name, run in phases.items():
      start = time.perf_counter()
      found = run(prompts(args, number))
      seconds[name].append(time.perf_counter() - start)
      if name == 'whole':
        tokens = np.asarray(found).tolist()
  return {
    'seconds': {name: each[1:] for name, each in seconds.items()},
    'first_call_seconds': seconds['whole'][0],
    'peak_mb': measure.peak_mb(),
    'tokens': tokens,
  }


def run_ours(args) -> dict:
  import jax
  import jax.numpy as jnp

  from flan_jax import decoding, host_memory, partitioning
  from flan_jax.convert import formats, importing
  from flan_jax.models.config import TransformerConfig
  from flan_jax.models.transformer import Transformer

  host_memory.keep_freed()
  with partitioning.use_mesh(partitioning.MeshConfig()):
    source = formats.open_source(f'hf:{args.folder}')
    assert isinstance(source.config, TransformerConfig)
    config = dataclasses.replace(source.config, dtype=args.dtype, scan_layers=False)
    model: Transformer = importing.load(dataclasses.replace(source, config=config))

    @jax.jit
    def encode(model, tokens):
      features = {'encoder_input_tokens': tokens, 'encoder_segment_ids': jnp.ones_like(tokens)}
      return model.encode(features)

    def encoder(tokens):
      return jax.block_until_ready(encode(model, tokens))

    def generate(length):
      # A token that does not exist ends nothing.
      config = decoding.DecodeConfig(max_length=length, eos_id=-1)
      return lambda tokens: np.asarray(
        decoding.generate(model, {'encoder_input_tokens': tokens}, config).tokens[:, 0]
      )

    phases = {'encoder': encoder, 'first_token': generate(1), 'whole': generate(args.tokens)}
    return seconds_of(phases, args)


def run_hugging_face(args) -> dict:
  import torch
  from safetensors.torch import load_file

  device = peers.torch_device()
  model = peers.hugging_face_model(args.model)
  # Not strict, as embeddings that are copies are written once.
  model.load_state_dict(load_file(Path(args.folder, 'model.safetensors')), strict=False)
  model.eval().to(device, getattr(torch, args.dtype))
  model.generation_config.eos_token_id = None
  model.generation_config.pad_token_id = 0
  model.generation_config.decoder_start_token_id = 0

  def ids_of(tokens):
    return torch.from_numpy(tokens.astype(np.int64)).to(device)

  def generate(count):
    def run(tokens):
      ids = ids_of(tokens)
      found = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False
      )
      return found[:, 1:].cpu().numpy()

    return run

  def encoder(tokens):
    return model.encoder(ids_of(tokens)).last_hidden_state.cpu()

  phases = {'encoder': encoder, 'first_token': generate(1), 'whole': generate(args.tokens)}
  with torch.inference_mode():
    return seconds_of(phases, args)


PROGRAMS = {
  'flan_jax': run_ours,
  'hugging_face': run_hugging_face,
  'gemm': lambda args: measure.gemm_peak(args.dtype, quick=args.quick),
}


def write_weights(args, folder: Path) -> None:
  """Random weights as a folder of Hugging Face."""
  import torch
  from safetensors.torch import save_file

  torch.manual_seed(0)
  model = peers.hugging_face_model(args.model)
  copies = ('encoder.embed_tokens.weight', 'decoder.embed_tokens.weight')
  tensors = {name: x.contiguous() for name, x in model.state_dict().items() if name not in copies}
  save_file(tensors, folder / 'model.safetensors', metadata={'format': 'pt'})
  config = {**model.config.to_dict(), 'architectures': ['T5ForConditionalGeneration']}
  (folder / 'config.json').write_text(json.dumps(config))


def figures_of(runs: list[dict], args, flops: float, peak: dict) -> dict:
  """One program's figures over all its processes."""
  seconds = {
    name: [second for run in runs for second in run['seconds'][name]] for name in runs[0]['seconds']
  }
  median = {name: statistics.median(each) for name, each in seconds.items()}
  after = (median['whole'] - median['first_token']) / (args.tokens - 1)
  return {
    'seconds': measure.spread(seconds['whole']),
    'tokens_per_second': round(args.rows * args.tokens / median['whole'], 1),
    'encoder_ms': round(1e3 * median['encoder'], 1),
    'first_token_ms': round(1e3 * median['first_token'], 1),
    'each_token_after_ms': round(1e3 * after, 2),
    'first_call_seconds': round(statistics.median(r['first_call_seconds'] for r in runs), 1),
    'peak_mb': max(run['peak_mb'] for run in runs),
    **measure.shares(flops / median['whole'], peak),
  }


def main() -> None:
  parser = measure.parser(__doc__)
  peers.add_flags(parser, peers.T5, 't5_1_1_small')
  parser.add_argument('--rows', type=int, default=8, help='rows of a batch')
  parser.add_argument('--tokens', type=int, default=64, help='tokens of an answer')
  parser.add_argument('--steps', type=int, default=2, help='measured batches of a process')
  parser.add_argument('--folder', help=argparse.SUPPRESS)
  parser.add_argument('--run', choices=PROGRAMS, help=argparse.SUPPRESS)
  args = parser.parse_args()
  args.inputs = INPUTS
  if args.quick:
    args.model, args.inputs, args.tokens, args.steps, args.repeats = 'tiny', 16, 4, 1, 1
  if args.run:
    print(json.dumps(PROGRAMS[args.run](args)))
    return
  from flan_jax.models.config import train_step_flops

  # A third of a training step, which goes forward once and backward for twice as much.
  flops = train_step_flops(peers.our_config(args.model), args.rows, args.inputs, args.tokens) / 3
  with tempfile.TemporaryDirectory() as folder:
    write_weights(args, Path(folder))
    flags = f'--folder={folder}'
    runs = measure.in_turns(['gemm', 'flan_jax'], ['hugging_face'], args.repeats, flags)
  peak = measure.median_peak(runs.pop('gemm'))
  tokens = {name: np.array(found[0]['tokens']) for name, found in runs.items()}
  ours = tokens.pop('flan_jax')
  figures: dict = {
    'work': f'{args.model}, greedy, {args.rows} rows of {args.inputs} -> {args.tokens}',
    'dtype': args.dtype,
    'gflop': round(flops / 1e9, 1),
    'flops': measure.FLOPS,
    'gemm': peak,
    'share_of_equal_tokens': {
      name: round(float(np.mean(ours == theirs)), 4) for name, theirs in tokens.items()
    },
    'programs': {name: figures_of(found, args, flops, peak) for name, found in runs.items()},
  }
  measure.finish('decode', measure.with_ratios(figures, 'tokens_per_second'), args)


if __name__ == '__main__':
  main()
