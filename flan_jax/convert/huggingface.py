"""Opens a Hugging Face folder: config.json, safetensors in one file or several, vocabulary.

The arrays stay in their files until they are asked for. Pickles are refused, and never read.
"""

import functools
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from flan_jax.convert import names
from flan_jax.convert.arrays import Stored
from flan_jax.convert.hf_config import read_config
from flan_jax.convert.source import ConvertError, Source
from flan_jax.data import vocabularies
from flan_jax.naming import some

CONFIG = 'config.json'
WEIGHTS = 'model.safetensors'
INDEX = f'{WEIGHTS}.index.json'

_PICKLES = ('*.bin', '*.pt', '*.pth', '*.ckpt', '*.pkl')
_VOCABULARIES = ('tokenizer.json', 'spiece.model', 'tokenizer.model')
_DTYPES = {'F64': 'float64', 'F32': 'float32', 'F16': 'float16', 'BF16': 'bfloat16'}
# Angles of rope, and in old files of T5 a bias of cross attention, which has none.
_UNUSED = r'\.rotary_emb\.inv_freq$|\.EncDecAttention\.relative_attention_bias\.weight$'
_VISION = re.compile(r'(model\.)?(vision_tower|multi_modal_projector)\.')


def open_folder(folder: str | os.PathLike) -> Source:
  """Opens a folder as `save_pretrained` writes it and the hub serves it.

  Raises:
    ConvertError: it is none, or holds pickles only, a damaged file or a model that is not ours.
  """
  folder = Path(folder)
  title = f'The Hugging Face folder {folder}'
  values = read_json(folder / CONFIG, title)
  stored = {}
  for path in _weight_files(folder, title):
    stored |= _open_file(path)
  vision = [name for name in stored if _VISION.match(name)]
  for name in vision:
    del stored[name]
  family, config = read_config(values, f'{title}: {CONFIG}', stored)
  table = names.with_activation(family.table, config.activation)
  embedding = table['token_embedding.table'].name
  copies = {f'{stack}.embed_tokens.weight': embedding for stack in ('encoder', 'decoder')}
  if config.tie_embeddings:
    copies[table['logits_kernel'].name] = embedding
  return Source(
    title,
    config,
    table,
    stored,
    copies=copies,
    unused=_UNUSED,
    note=f'{len(vision)} arrays of its vision tower are left out.' if vision else '',
    read_vocabulary=functools.partial(_vocabulary, folder),
  )


def read_json(path: Path, title: str) -> dict[str, Any]:
  """The object in a JSON file of a folder."""
  try:
    values = json.loads(path.read_text(encoding='utf-8'))
  except OSError as e:
    raise ConvertError(
      f'{title} is no checkpoint: its {path.name} cannot be read ({e.strerror}).'
    ) from e
  except ValueError as e:
    raise ConvertError(f'{title}: {path.name} is damaged: {e}; copy it again.') from e
  if not isinstance(values, dict):
    raise ConvertError(f'{title}: {path.name} holds no JSON object; copy it again.')
  return values


def _weight_files(folder: Path, title: str) -> list[Path]:
  """The safetensors files that are the model."""
  index = folder / INDEX
  if index.exists():
    listed = read_json(index, title).get('weight_map')
    if not isinstance(listed, dict) or not all(isinstance(x, str) for x in listed.values()):
      raise ConvertError(f'{title}: {INDEX} has no weight_map of names to files; copy it again.')
    files = sorted(set(listed.values()))
    gone = [name for name in files if Path(name).name != name or not (folder / name).is_file()]
    if gone:
      raise ConvertError(
        f'{title}: {INDEX} names files that are not there: {some(gone)}; copy them, too.'
      )
    return [folder / name for name in files]
  if (folder / WEIGHTS).is_file():
    return [folder / WEIGHTS]
  pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
  if pickles:
    raise ConvertError(
      f'{title} has its weights in pickles ({some(pickles)}), which can run any program when they '
      'are read, so flan_jax never does. If you trust them, load the folder with '
      'transformers and call save_pretrained on the model: that writes safetensors.'
    )
  raise ConvertError(f'{title} holds no weights: neither {WEIGHTS} nor {INDEX} is there.')


def _open_file(path: Path) -> dict[str, Stored]:
  """The arrays of a safetensors file by name."""
  try:
    with safetensors.safe_open(path, 'numpy') as file:
      stored = {}
      for name in file.keys():
        part = file.get_slice(name)
        dtype = str(part.get_dtype())
        stored[_text_name(name)] = Stored(
          tuple(part.get_shape()),
          _DTYPES.get(dtype, dtype),
          functools.partial(_read, path, name),
        )
      return stored
  except (OSError, safetensors.SafetensorError) as e:
    raise ConvertError(f'{path} is damaged or cut short: {e}. Copy it again.') from e


def _read(path: Path, name: str, index: tuple[slice, ...]) -> np.ndarray:
  # Opened each time: closing gives back the memory of the pages that were mapped.
  with safetensors.safe_open(path, 'numpy') as file:
    return file.get_slice(name)[index]


def _text_name(name: str) -> str:
  """What Gemma 3 with a vision tower calls the arrays of its language model, as without one."""
  for prefix in ('language_model.model.', 'model.language_model.'):
    if name.startswith(prefix):
      return 'model.' + name.removeprefix(prefix)
  return name.removeprefix('language_model.')


def _vocabulary(folder: Path) -> vocabularies.Vocabulary | None:
  if any((folder / name).exists() for name in _VOCABULARIES):
    return vocabularies.get_vocabulary(folder)
  settings = folder / 'tokenizer_config.json'
  if (
    settings.exists() and read_json(settings, str(folder)).get('tokenizer_class') == 'ByT5Tokenizer'
  ):
    return vocabularies.get_vocabulary('bytes')
  return None
