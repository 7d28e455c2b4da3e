"""Hugging Face folders: their logits, all their layouts, and what is refused of them."""

import json
import re

import jax
import ml_dtypes
import numpy as np
import pytest
import tiny_tokenizers
from safetensors import numpy as safetensors_numpy

from flan_jax import parameter_names, partitioning
from flan_jax.convert import huggingface, importing
from flan_jax.convert.source import ConvertError

ORACLES = (
  'hf_t5_tiny',
  'hf_t5v10_tiny',
  'hf_llama_tiny',
  'hf_llama3rope_tiny',
  'hf_qwen3_tiny',
  'hf_gemma3_tiny',
)


def leaves(model):
  return {name: np.asarray(x) for name, x in parameter_names.by_path(model).items()}


def assert_same(one, other):
  one, other = leaves(one), leaves(other)
  assert one.keys() == other.keys()
  for name, x in one.items():
    np.testing.assert_array_equal(x, other[name], err_msg=name)


@pytest.mark.parametrize('name', ORACLES)
def test_logits_are_those_of_transformers(name, shared, logits):
  folder = shared(f'oracles/{name}')
  oracle = np.load(folder / 'oracle.npz')
  source = huggingface.open_folder(folder)
  tokens, mask = oracle['input_ids'].astype(np.int32), oracle['attention_mask'].astype(np.int32)
  if source.config.decoder_only:
    batch, seen = {'decoder_input_tokens': tokens, 'decoder_segment_ids': mask}, mask
  else:
    targets = oracle['decoder_input_ids'].astype(np.int32)
    seen = np.ones_like(targets)
    batch = {
      'encoder_input_tokens': tokens,
      'encoder_segment_ids': mask,
      'decoder_input_tokens': targets,
      'decoder_segment_ids': seen,
    }
  found = logits(source, batch)
  np.testing.assert_allclose(found[seen > 0], oracle['logits'][seen > 0], rtol=0, atol=1e-4)


def test_arrays_in_several_files_are_those_in_one(llama, llama_config, arrays, write_folder, load):
  names = sorted(arrays)
  halves = {
    f'model-0000{i + 1}-of-00002.safetensors': {name: arrays[name] for name in names[i::2]}
    for i in range(2)
  }
  several = write_folder(llama_config, halves, 'several')
  one, other = (load(huggingface.open_folder(folder)) for folder in (llama, several))
  assert_same(one, other)


@pytest.mark.parametrize('dtype', [np.float64, np.float16, ml_dtypes.bfloat16])
def test_every_float_becomes_float32(dtype, llama_config, arrays, write_folder, load):
  given = {name: x.astype(dtype) for name, x in arrays.items()}
  model = load(huggingface.open_folder(write_folder(llama_config, given)))
  up = leaves(model)['decoder.layers.mlp.up']
  assert up.dtype == np.float32
  for layer in range(2):
    expected = given[f'model.layers.{layer}.mlp.up_proj.weight'].astype(np.float32).T
    np.testing.assert_array_equal(up[layer], expected)


def test_any_mesh_gets_the_same_parameters(llama, load):
  source = huggingface.open_folder(llama)
  whole = load(source, partitioning.MeshConfig())
  for mesh in (
    partitioning.MeshConfig(data=2, fsdp=2, tensor=2),
    partitioning.MeshConfig(data=1, fsdp=4, tensor=2),
    partitioning.MeshConfig(data=1, fsdp=8),
  ):
    split = load(source, mesh)
    assert_same(whole, split)
    assert split.decoder.layers.mlp.up[...].sharding.mesh.shape['fsdp'] == mesh.fsdp


def test_what_pads_the_vocabulary_is_zero(llama, load):
  model = load(huggingface.open_folder(llama))
  assert model.token_embedding.table.shape == (128, 16)
  assert not np.asarray(model.token_embedding.table[...])[96:].any()
  assert not np.asarray(model.logits_kernel[...])[:, 96:].any()


def test_copies_of_the_embedding_are_known_and_compared(llama_config, arrays, write_folder, load):
  tied = llama_config | {'tie_word_embeddings': True}
  copy = arrays | {'lm_head.weight': arrays['model.embed_tokens.weight']}
  model = load(huggingface.open_folder(write_folder(tied, copy, 'copy')))
  assert 'logits_kernel' not in leaves(model)
  other = huggingface.open_folder(write_folder(tied, arrays, 'other'))
  message = 'lm_head.weight should repeat model.embed_tokens.weight, as its configuration ties'
  with pytest.raises(ConvertError, match=message):
    load(other)


def test_arrays_that_follow_from_the_configuration_are_left_out(
  llama_config, arrays, write_folder, llama, load
):
  angles = {'model.layers.0.self_attn.rotary_emb.inv_freq': np.ones(4, np.float32)}
  old = write_folder(llama_config, arrays | angles, 'old')
  assert_same(load(huggingface.open_folder(old)), load(huggingface.open_folder(llama)))


def test_gemma_3_with_eyes_is_read_for_its_text(shared, write_folder, load, capsys):
  text = shared('oracles/hf_gemma3_tiny')
  config = json.loads((text / 'config.json').read_text())
  given = safetensors_numpy.load_file(text / 'model.safetensors')
  eyes = {'vision_tower.patches.weight': np.ones((3, 4), np.float32)}
  given = {name.replace('model.', 'language_model.model.', 1): x for name, x in given.items()}
  whole = {
    'architectures': ['Gemma3ForConditionalGeneration'],
    'model_type': 'gemma3',
    'text_config': config,
  }
  folder = write_folder(whole, given | eyes)
  assert_same(load(huggingface.open_folder(folder)), load(huggingface.open_folder(text)))
  assert f'{folder}: 1 arrays of its vision tower are left out.' in capsys.readouterr().out


# ---- vocabularies


def test_the_vocabulary_of_a_folder_comes_with_it(llama_config, arrays, write_folder, tmp_path):
  folder = write_folder(llama_config | {'vocab_size': 295}, arrays)
  tiny_tokenizers.byte_pairs(folder)
  vocabulary = huggingface.open_folder(folder).read_vocabulary()
  assert vocabulary.kind == 'huggingface'
  assert vocabulary.model_chat_template is not None
  assert vocabulary.size == 295


def test_byt5_says_so_in_its_settings(llama, llama_config, arrays):
  assert huggingface.open_folder(llama).read_vocabulary() is None
  (llama / 'tokenizer_config.json').write_text('{"tokenizer_class": "ByT5Tokenizer"}')
  assert huggingface.open_folder(llama).read_vocabulary().kind == 'bytes'


def test_a_vocabulary_larger_than_the_model_is_refused(llama, tmp_path):
  tiny_tokenizers.byte_pairs(llama)
  message = 'the vocabulary has 295 ids and the model embeddings for 96; give the one that'
  with pytest.raises(ConvertError, match=message):
    importing.import_checkpoint(huggingface.open_folder(llama), tmp_path / 'out')
  assert not (tmp_path / 'out').exists()


# ---- refused


def refused(folder, message, load=None):
  with pytest.raises(ConvertError, match=re.escape(message)):
    source = huggingface.open_folder(folder)
    if load:
      load(source)


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path):
  refused(tmp_path, 'is no checkpoint: its config.json cannot be read (No such file')
  refused(tmp_path / 'none', 'is no checkpoint: its config.json cannot be read')
  (tmp_path / 'config.json').write_text('{"model_type": "llama", ')
  refused(tmp_path, 'config.json is damaged: Expecting property name')
  (tmp_path / 'config.json').write_text('[]')
  refused(tmp_path, 'config.json holds no JSON object')
  (tmp_path / 'config.json').write_text('{}')
  refused(tmp_path, 'holds no weights: neither model.safetensors nor model.safetensors.index.json')


def test_pickles_are_never_opened(llama):
  (llama / 'model.safetensors').unlink()
  for name in ('pytorch_model-00001-of-00002.bin', 'pytorch_model-00002-of-00002.bin'):
    (llama / name).write_bytes(b'cos\nsystem\n(S"touch owned"\ntR.')
  refused(
    llama,
    'has its weights in pickles (pytorch_model-00001-of-00002.bin, pytorch_model-00002-of-'
    '00002.bin), which can run any program when they are read, so flan_jax never does.',
  )


@pytest.mark.parametrize('length', [0, 5, 100, -100])
def test_a_file_cut_short_is_refused(length, llama):
  path = llama / 'model.safetensors'
  path.write_bytes(path.read_bytes()[:length])
  refused(llama, f'{path} is damaged or cut short')


def test_a_flipped_bit_in_the_header_is_found(llama, load):
  path = llama / 'model.safetensors'
  whole = path.read_bytes()
  header = 8 + int.from_bytes(whole[:8], 'little')
  original = leaves(load(huggingface.open_folder(llama)))
  random = np.random.default_rng(0)
  silent = []
  for place in [0, 1, 7, *random.integers(8, header, 60)]:
    spoilt = bytearray(whole)
    spoilt[place] ^= 1 << int(random.integers(0, 8))
    path.write_bytes(spoilt)
    try:
      found = leaves(load(huggingface.open_folder(llama)))
    except ConvertError:
      continue
    if any(not np.array_equal(x, original[name]) for name, x in found.items()):
      silent.append(place)
  # Only space that pads the header, and numbers that still fit together, can change unseen.
  assert not silent


@pytest.mark.parametrize('value', [np.inf, np.nan])
def test_numbers_that_are_none_are_refused(value, llama_config, arrays, write_folder, load):
  arrays['model.layers.1.mlp.down_proj.weight'][3, 4] = value
  folder = write_folder(llama_config, arrays)
  refused(folder, 'model.layers.{}.mlp.down_proj.weight has numbers that are infinite', load)


def test_an_index_must_name_files_that_are_there(llama_config, arrays, write_folder):
  files = {'a.safetensors': arrays, 'b.safetensors': {'model.x': np.ones(2, np.float32)}}
  folder = write_folder(llama_config, files)
  (folder / 'b.safetensors').unlink()
  refused(folder, 'index.json names files that are not there: b.safetensors; copy them, too.')
  path = folder / 'model.safetensors.index.json'
  path.write_text(json.dumps({'weight_map': {'x': '../a.safetensors'}}))
  refused(folder, 'names files that are not there: ../a.safetensors')
  path.write_text(json.dumps({'weight_map': ['a.safetensors']}))
  refused(folder, 'has no weight_map of names to files')


def test_all_that_is_wrong_with_the_arrays_is_told_at_once(
  llama_config, arrays, write_folder, load
):
  del arrays['model.norm.weight'], arrays['model.layers.1.mlp.up_proj.weight']
  arrays['model.layers.0.self_attn.q_proj.weight'] = np.ones((16, 32), np.float32)
  arrays['model.layers.2.mlp.up_proj.weight'] = np.ones((24, 16), np.float32)
  arrays['lm_head.weight'] = np.ones((96, 16), np.int32)
  folder = write_folder(llama_config, arrays)
  refused(
    folder,
    'is not the model that its configuration describes. Arrays missing: '
    'model.layers.1.mlp.up_proj.weight, model.norm.weight; unknown: '
    'model.layers.2.mlp.up_proj.weight; of another shape than the configuration gives: '
    'model.layers.0.self_attn.q_proj.weight [16, 32] for [32, 16]; of a dtype that is none of '
    'float64, float32, float16, bfloat16: lm_head.weight I32.',
    load,
  )


def test_a_model_with_another_vocabulary_size_is_refused(llama_config, arrays, write_folder, load):
  folder = write_folder(llama_config | {'vocab_size': 97}, arrays)
  refused(folder, 'model.embed_tokens.weight [96, 16] for [97, 16]', load)


def test_other_architectures_and_fields_are_refused(llama_config, arrays, write_folder):
  folder = write_folder(llama_config | {'model_type': 'mamba'}, arrays, 'mamba')
  refused(
    folder, f"{folder}: config.json: No model_type 'mamba'. Did you mean 'llama'? Known: gemma2,"
  )
  folder = write_folder(llama_config | {'num_local_experts': 8}, arrays, 'experts')
  refused(folder, 'config.json has fields that flan_jax does not know: num_local_experts.')


def test_reading_needs_no_device_copy_of_the_whole(llama, load):
  """Each device's shard is asked for by itself, and no other part of an array."""
  source = huggingface.open_folder(llama)
  asked = []
  name = 'model.layers.0.mlp.down_proj.weight'
  stored = source.stored[name]

  def read(index):
    asked.append(index)
    return stored.read(index)

  counted = {**source.stored, name: type(stored)(stored.shape, stored.dtype, read)}
  load(
    type(source)(source.title, source.config, source.table, counted),
    partitioning.MeshConfig(data=1, fsdp=4, tensor=2),
  )
  parts = {tuple((s.start, s.stop) for s in index) for index in asked}
  assert len(parts) == jax.device_count() == len(asked)
  assert all(b - a == 4 and d - c == 12 for (a, b), (c, d) in parts)
