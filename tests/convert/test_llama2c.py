"""A trained model of llama2.c tells the story that its own program tells."""

import re
import shutil
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax import decoding
from flan_jax.convert import llama2c
from flan_jax.convert.source import ConvertError
from flan_jax.models.config import parameter_count

# What `run stories260K.bin -z tok512.bin -t 0.0` prints, by its notes.
STORY = """\
Once upon a time, there was a little girl named Lily. She loved to play outside in the park. \
One day, she saw a big, red ball. She wanted to play with it, but it was too high.
Lily's mom said, "Lily, let's go to the park." Lily was sad and didn't know what to do. She said, \
"I want to play with your ball, but I can't find it."
Lily was sad and didn't know what to do. She said, "I'm sorry, Lily. I didn't know what to do."
Lily didn't want to help her mom, so she said, "I'm sorry, mom. I didn't know what to do." Her \
mom said, "Don't worry, Lily. We can help you."""


def test_the_story_is_told_word_for_word(shared, load):
  source = llama2c.open_folder(shared('models/stories260K'))
  assert parameter_count(source.config) == 260_032
  vocabulary = source.read_vocabulary()
  model = jax.tree.map(jnp.asarray, jax.device_get(load(source)))
  batch = {'prompt_tokens': np.array([[vocabulary.bos_id]], np.int32)}
  config = decoding.DecodeConfig(256, eos_id=vocabulary.eos_id)  # run.c's own limit
  answer = decoding.generate(model, batch, config)
  assert vocabulary.decode(answer.tokens[0, 0]) == STORY


def numbers(shapes):
  random = np.random.default_rng(0)
  return [random.standard_normal(shape).astype(np.float32) for shape in shapes]


def write(path, *, own_logits):
  """A model of one layer: 2 heads of 4, 1 of keys, mlp 6, 10 tokens, 16 positions."""
  shapes = [(10, 8), (1, 8), (1, 8, 8), (1, 4, 8), (1, 4, 8), (1, 8, 8), (1, 8)]
  shapes += [(1, 6, 8), (1, 8, 6), (1, 6, 8), (8,), (16, 2), (16, 2)]
  arrays = numbers(shapes + [(10, 8)] * own_logits)
  header = struct.pack('<7i', 8, 6, 1, 2, 1, -10 if own_logits else 10, 16)
  path.write_bytes(header + b''.join(x.tobytes() for x in arrays))
  return arrays


@pytest.mark.parametrize('own_logits', [False, True])
def test_arrays_lie_one_after_the_other(own_logits, tmp_path, load):
  arrays = write(tmp_path / 'model.bin', own_logits=own_logits)
  model = jax.device_get(load(llama2c.open_folder(tmp_path)))
  np.testing.assert_array_equal(model.token_embedding.table[...][:10], arrays[0])
  layer = model.decoder.layers
  np.testing.assert_array_equal(layer.mlp.gate[...][0], arrays[7][0].T)
  np.testing.assert_array_equal(layer.mlp.down[...][0], arrays[8][0].T)
  np.testing.assert_array_equal(layer.mlp.up[...][0], arrays[9][0].T)
  np.testing.assert_array_equal(model.decoder.norm.scale[...], arrays[10])
  if own_logits:
    np.testing.assert_array_equal(model.logits_kernel[...][:, :10], arrays[-1].T)
  # Rope turns neighbours there and halves here.
  query = np.asarray(layer.attention.query[...])[0]
  np.testing.assert_array_equal(query[:, 1], arrays[2][0][4:][[0, 2, 1, 3]].T)


def refused(folder, message):
  with pytest.raises(ConvertError, match=re.escape(message)):
    llama2c.open_folder(folder)


def test_other_files_are_refused(tmp_path):
  refused(tmp_path, 'it holds these .bin files: none.')
  path = tmp_path / 'model.bin'
  write(path, own_logits=False)
  shutil.copy(path, tmp_path / 'other.bin')
  refused(tmp_path, 'it holds these .bin files: model.bin, other.bin.')
  (tmp_path / 'other.bin').unlink()
  whole = path.read_bytes()
  path.write_bytes(whole[:-4])
  refused(tmp_path, f'has {len(whole) - 4:,} bytes and its header asks for {len(whole):,}; it is')
  path.write_bytes(struct.pack('<Ii', 0x616B3432, 2) + whole)
  refused(tmp_path, 'has the layout of version 2; export it again as float32 of version 0.')
  for content in (b'', whole[:20], struct.pack('<7i', 8, 6, 1, 3, 1, 10, 16), b'\xff' * 40):
    path.write_bytes(content)
    refused(tmp_path, 'has no header of llama2.c')
