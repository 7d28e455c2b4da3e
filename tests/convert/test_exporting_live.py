"""transformers as installed loads what we export: no array too few, and our logits.

`pip install -r requirements/bench.txt && pytest -m slow tests/convert/test_exporting_live.py` runs
it. What is read from it is tests/models/test_live_parity.py's.
"""

import dataclasses

import jax
import numpy as np
import pytest
import tiny_tokenizers
from flax import nnx

from flan_jax import checkpoints, parameter_names
from flan_jax.convert import exporting
from flan_jax.data import vocabularies
from flan_jax.models.config import RopeScaling, TransformerConfig
from flan_jax.models.transformer import Transformer

pytestmark = pytest.mark.slow

SIZES = {'vocab_size': 300, 'embed_dim': 32, 'num_heads': 4, 'mlp_dim': 48, 'head_dim': 16}
T5 = TransformerConfig(**SIZES, num_encoder_layers=2, num_decoder_layers=3)
LLAMA = TransformerConfig(
  **SIZES,
  num_encoder_layers=0,
  num_decoder_layers=4,
  num_kv_heads=2,
  position='rope',
  query_scale=None,
  activation='gated_silu',
  scale_tied_logits=False,
)
LLAMA3 = RopeScaling(kind='llama3', factor=8.0, original_length=16)
GEMMA = {
  'activation': 'gated_gelu',
  'norm_plus_one': True,
  'post_norms': True,
  'scale_embeddings': True,
  'tie_embeddings': True,
  'query_scale': 24**-0.5,
  'window': 4,
}
MODELS = {
  't5_1_0': (T5, {'activation': 'relu', 'tie_embeddings': True}),
  't5_1_1': (T5, {}),
  'umt5': (T5, {'relative_bias_per_layer': True}),
  'llama2': (LLAMA, {'norm_epsilon': 1e-5}),
  'llama3_2': (LLAMA, {'tie_embeddings': True, 'rope_theta': 5e5, 'rope_scaling': LLAMA3}),
  'qwen2': (LLAMA, {'qkv_bias': True}),
  'qwen3': (LLAMA, {'qk_norm': True, 'tie_embeddings': True}),
  'gemma2': (
    LLAMA,
    GEMMA
    | {'window_pattern': ('local', 'global'), 'attention_softcap': 2.0, 'logits_softcap': 3.0},
  ),
  'gemma3': (
    LLAMA,
    GEMMA
    | {
      'qk_norm': True,
      'window_pattern': ('local', 'local', 'global'),
      'rope_theta': 1e6,
      'rope_local_theta': 1e4,
      'rope_scaling': RopeScaling(kind='linear', factor=8.0),
    },
  ),
}


@pytest.fixture(scope='module')
def transformers():
  """Imported here and not above, as it takes seconds also where these tests are left out."""
  pytest.importorskip('torch')
  return pytest.importorskip('transformers')


def perturbed(config):
  """Random parameters in which no norm is 1 and no bias 0."""

  def perturb(path, x):
    noise = jax.random.normal(jax.random.key(len(path)), x.shape)
    return x + 0.3 * noise if path.endswith(('scale', '_bias')) else x

  model = Transformer(config, nnx.Rngs(params=0))
  named = parameter_names.by_path(model)
  changed = [perturb(path, x) for path, x in named.items()]
  return jax.tree.unflatten(jax.tree.structure(model), changed)


def export(model, folder, vocabulary):
  config = checkpoints.CheckpointConfig(asynchronous=False)
  with checkpoints.Checkpoints(folder / 'run' / 'checkpoints', config) as saved:
    saved.save(1, model, None, {'model': dataclasses.asdict(model.config)})
  vocabulary.save(folder / 'run' / 'vocabulary')
  return exporting.export_checkpoint(folder / 'run', folder / 'out', max_file_bytes=50_000)


@pytest.mark.parametrize('name', MODELS)
def test_transformers_gives_our_logits(name, transformers, tmp_path):
  import torch

  config, changes = MODELS[name]
  model = perturbed(dataclasses.replace(config, **changes))
  out = export(model, tmp_path, vocabularies.get_vocabulary('bytes'))
  auto = transformers.AutoModelForCausalLM
  if not model.config.decoder_only:
    auto = transformers.AutoModelForSeq2SeqLM
  theirs, loading = auto.from_pretrained(out, attn_implementation='eager', output_loading_info=True)
  assert not any(loading.values()), loading
  random = np.random.default_rng(0)
  tokens, targets = (random.integers(2, 300, (2, length)) for length in (40, 19))
  given, batch = {'input_ids': tokens}, {'decoder_input_tokens': tokens}
  if not model.config.decoder_only:
    given['decoder_input_ids'] = targets
    batch = {'encoder_input_tokens': tokens, 'decoder_input_tokens': targets}
  batch |= {n.replace('input_tokens', 'segment_ids'): np.ones_like(x) for n, x in batch.items()}
  with torch.no_grad():
    found = theirs(**{n: torch.tensor(x) for n, x in given.items()}).logits.numpy()
  expected = np.asarray(jax.jit(Transformer.__call__)(model, batch))[..., :300]
  assert np.abs(expected).max() > 0.9, 'no logit is large enough to be wrong'
  if name == 'umt5':
    # transformers 5 scales the logits of every UMT5 as if it were tied; 4 and T5X do not.
    expected = expected * model.config.embed_dim**-0.5
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def tokenizer_of(transformers, config, vocabulary, folder):
  model = Transformer(dataclasses.replace(config, vocab_size=vocabulary.size), nnx.Rngs(params=0))
  return transformers.AutoTokenizer.from_pretrained(export(model, folder, vocabulary))


TEXTS = ('Once upon a time,  there  was', "it's 1234 cats.", 'naïve 日本')


def test_t5s_vocabulary_gives_our_ids(transformers, shared, tmp_path):
  vocabulary = vocabularies.get_vocabulary(shared('data/tokenizer/t5/spiece.model'))
  theirs = tokenizer_of(transformers, T5, vocabulary, tmp_path)
  for text in TEXTS:
    assert theirs(text).input_ids == [*vocabulary.encode(text), vocabulary.eos_id]


def test_llamas_sentencepiece_gives_our_ids(transformers, shared, tmp_path):
  vocabulary = vocabularies.get_vocabulary(shared('models/stories260K/tok512.bin'))
  theirs = tokenizer_of(transformers, LLAMA, vocabulary, tmp_path)
  for text in TEXTS:
    assert theirs(text).input_ids == [vocabulary.bos_id, *vocabulary.encode(text)]


def test_byt5s_bytes_give_our_ids(transformers, tmp_path):
  vocabulary = vocabularies.get_vocabulary('bytes')
  theirs = tokenizer_of(transformers, T5, vocabulary, tmp_path)
  for text in TEXTS:
    assert theirs(text).input_ids == [*vocabulary.encode(text), vocabulary.eos_id]


def test_a_tokenizer_json_gives_our_ids_and_conversations(transformers, tmp_path):
  folder = tiny_tokenizers.byte_pairs(tmp_path / 'tokenizer', bos=True)
  vocabulary = vocabularies.get_vocabulary(folder)
  vocabulary = vocabularies.choose_chat_template(vocabulary, 'model')
  theirs = tokenizer_of(transformers, LLAMA, vocabulary, tmp_path)
  for text in TEXTS:
    assert theirs(text, add_special_tokens=False).input_ids == vocabulary.encode(text)
  said = [{'role': 'user', 'content': TEXTS[0]}]
  expected = theirs.apply_chat_template(said, add_generation_prompt=True)
  expected = getattr(expected, 'input_ids', expected)
  assert vocabulary.encode_prompt(TEXTS[0]) == expected
