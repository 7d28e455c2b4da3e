"""The files of gin/models: what they build, and that it has the published number of parameters.

`python tests/models/test_gin_models.py` writes the sizes in docs/models.md again.
"""

import dataclasses
import functools
import re
from pathlib import Path

import jax
import pytest
from flax import nnx

from flan_jax import main
from flan_jax.models.config import parameter_count
from flan_jax.models.transformer import Transformer

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / 'gin' / 'models'
DOCUMENT = ROOT / 'docs' / 'models.md'

# What Gemma 3's files hold beside the text model: KerasHub's counts of the whole less its counts of
# the text model (keras_hub/src/models/gemma3/gemma3_presets.py).
IMAGES_4B = 4_299_915_632 - 3_880_099_328
IMAGES_12B = 12_187_079_280 - 11_765_788_416
IMAGES_27B = 27_432_062_576 - 27_009_002_240
# Whole numbers are those that Hugging Face lists for the safetensors of the model, or KerasHub
# among its presets; others are as the paper prints them.
PUBLISHED = {
  't5_1_0/small': 60_506_624,
  't5_1_0/base': 222_903_552,
  't5_1_0/large': 737_668_096,
  't5_1_0/3b': 2_851_598_336,
  't5_1_0/11b': 11_307_321_344,
  't5_1_1/small': 76_961_152,
  't5_1_1/base': 247_577_856,
  't5_1_1/large': 783_150_080,
  't5_1_1/xl': 2_849_757_184,
  't5_1_1/xxl': 11_135_332_352,
  # arXiv:2010.11934, section 3.2; the whole numbers by num_parameters() of transformers.
  'mt5/small': 300_176_768,
  'mt5/base': 582_401_280,
  'mt5/large': '1.2B',
  'mt5/xl': '3.7B',
  'mt5/xxl': '13B',
  # arXiv:2105.13626, table 1; the whole numbers by num_parameters() of transformers.
  'byt5/small': 299_637_760,
  'byt5/base': 581_653_248,
  'byt5/large': '1.23B',
  'byt5/xl': '3.74B',
  'byt5/xxl': '12.9B',
  # Of UMT5 only the small size's number is listed. The other shapes are those of config.json in
  # google/umt5-base, -xl and -xxl.
  'umt5/small': '307M',
  # arXiv:2204.02311, table 1.
  'palm/8b': '8.63B',
  'palm/62b': '62.50B',
  'palm/540b': '540.35B',
  'llama2/7b': 6_738_415_616,
  'llama2/13b': 13_015_864_320,
  'llama2/70b': 68_976_648_192,
  'llama3/8b': 8_030_261_248,
  'llama3/70b': 70_553_706_496,
  'llama3_1/8b': 8_030_261_248,
  'llama3_1/70b': 70_553_706_496,
  'llama3_1/405b': 405_853_388_800,
  'llama3_2/1b': 1_235_814_400,
  'llama3_2/3b': 3_212_749_824,
  'gemma2/2b': 2_614_341_888,
  'gemma2/9b': 9_241_705_984,
  'gemma2/27b': 27_227_128_320,
  'gemma3/270m': 268_098_176,
  'gemma3/1b': 999_885_952,
  'gemma3/4b': 4_300_079_472 - IMAGES_4B,
  'gemma3/12b': 12_187_325_040 - IMAGES_12B,
  'gemma3/27b': 27_432_406_640 - IMAGES_27B,
  'qwen2/0.5b': 494_032_768,
  'qwen2/1.5b': 1_543_714_304,
  'qwen2/3b': 3_085_938_688,
  'qwen2/7b': 7_615_616_512,
  'qwen2/14b': 14_770_033_664,
  'qwen2/32b': 32_763_876_352,
  'qwen2/72b': 72_706_203_648,
  # Hugging Face lists the tied ones with their embeddings twice, as their files hold them.
  'qwen3/0.6b': 596_049_920,
  'qwen3/1.7b': 1_720_574_976,
  'qwen3/4b': 4_022_468_096,
  'qwen3/8b': 8_190_735_360,
  'qwen3/14b': 14_768_307_200,
  'qwen3/32b': 32_762_123_264,
  'smollm2/135m': 134_515_008,
  'smollm2/360m': 361_821_120,
  'smollm2/1.7b': 1_711_376_384,
}
UNPUBLISHED = ('umt5/base', 'umt5/xl', 'umt5/xxl')
OURS = ('demo/tiny', 't5_1_1/tiny')  # for tests and demonstrations
MODELS = (*PUBLISHED, *UNPUBLISHED, *OURS)


@functools.cache
def load(name):
  return main.load_model(FOLDER / f'{name}.gin')


def count(name):
  """Parameters without the rows that only pad the vocabulary."""
  return parameter_count(dataclasses.replace(load(name), vocab_multiple=1))


def header(name):
  text = (FOLDER / f'{name}.gin').read_text(encoding='utf-8')
  return ' '.join(re.match(r'(?:#.*\n)+', text)[0].replace('#', ' ').split())


def test_every_model_file_is_known_here():
  files = {path for path in FOLDER.rglob('*.gin') if path.name != 'family.gin'}
  assert {path.relative_to(FOLDER).with_suffix('').as_posix() for path in files} == set(MODELS)


@pytest.mark.parametrize('name', PUBLISHED)
def test_a_model_has_the_published_number_of_parameters(name):
  published = PUBLISHED[name]
  if isinstance(published, int):
    assert count(name) == published
    return
  digits, unit = published[:-1], {'M': 1e6, 'B': 1e9}[published[-1]]
  # Less than one of the last digit: some round and some cut, and PaLM 540B's norms are 2 million.
  last = 10.0 ** -len(digits.partition('.')[2])
  assert abs(count(name) / unit - float(digits)) < last


@pytest.mark.parametrize('name', MODELS)
def test_a_model_builds_with_as_many_parameters_as_its_configuration_and_header_say(name):
  config = load(name)
  model = jax.eval_shape(lambda: Transformer(config, nnx.Rngs(params=0)))
  assert sum(leaf.size for leaf in jax.tree.leaves(model)) == parameter_count(config)
  assert config.dropout_rate == 0.0
  if name != 'demo/tiny':
    assert f'{count(name):,} parameters' in header(name)


def test_only_gemma_3_has_rows_that_pad_its_vocabulary():
  padded = {name for name in MODELS if load(name).padded_vocab_size != load(name).vocab_size}
  assert padded == {'gemma3/4b', 'gemma3/12b', 'gemma3/27b'}


def test_longer_positions_are_all_that_llama_3_1_adds():
  for size in ('8b', '70b'):
    longer = load(f'llama3_1/{size}')
    assert longer.rope_scaling.factor == 8
    assert dataclasses.replace(longer, rope_scaling=None) == load(f'llama3/{size}')


def documented():
  """docs/models.md with the sizes of every family as the gin files have them."""

  def with_sizes(row):
    sizes = sorted((n for n in MODELS if n.startswith(row[1])), key=lambda name: count(name))
    cells = (f'`{name.removeprefix(row[1])}` {shortened(count(name))}' for name in sizes)
    return f'| `models/{row[1]}` | {", ".join(cells)} |'

  text = DOCUMENT.read_text(encoding='utf-8')
  return re.sub(r'^\| `models/(\w+/)` \|[^|]*\|', with_sizes, text, flags=re.MULTILINE)


def shortened(number):
  """Three digits: 494M, 1.54B."""
  return f'{number / 1e9:.3g}B' if number >= 999.5e6 else f'{number / 1e6:.3g}M'


def test_the_document_has_every_family_and_size():
  text = DOCUMENT.read_text(encoding='utf-8')
  assert text == documented(), 'python tests/models/test_gin_models.py writes the sizes again'
  folders = {path.name for path in FOLDER.iterdir() if path.is_dir()} - {'demo'}
  assert set(re.findall(r'^\| `models/(\w+)/`', text, re.MULTILINE)) == folders


if __name__ == '__main__':
  DOCUMENT.write_text(documented(), encoding='utf-8')
