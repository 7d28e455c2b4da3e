"""Reads another program's checkpoint straight onto the mesh, and saves it as one of ours.

Every process reads only the parts of the arrays that its own devices hold.
"""

import dataclasses
import functools
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flan_jax import checkpoints, metrics, parameter_names, partitioning
from flan_jax.convert import arrays
from flan_jax.convert.source import ConvertError, Source
from flan_jax.data import vocabularies
from flan_jax.models.config import parameter_count
from flan_jax.models.transformer import Transformer, abstract_model

# Tokens that `generate`, `infer` and `evaluate` take and give unless told otherwise; Flan-T5's.
LENGTHS = {'inputs': 512, 'targets': 128}


def load(source: Source) -> Transformer:
  """The model of an opened checkpoint, float32 and laid out on the current mesh.

  Raises:
    ConvertError: the checkpoint is not the model that its configuration describes.
  """
  abstract = abstract_model(source.config)
  wanted = parameter_names.by_path(abstract)
  source.check(wanted)
  loaded = []
  with metrics.Progress('Reading', total=len(wanted)) as progress:
    if source.note:
      progress.say(f'{source.title}: {source.note}')
    for path, x in wanted.items():
      read: Any = functools.partial(_read, source, path, x.shape)
      loaded.append(jax.make_array_from_callback(x.shape, x.sharding, read))
      progress.advance(len(loaded))
  return jax.tree.unflatten(jax.tree.structure(abstract), loaded)


def import_checkpoint(
  source: Source,
  out: str | os.PathLike,
  vocabulary: str | None = None,
  chat_template: str | None = None,
) -> Path:
  """Writes an opened checkpoint to the folder `out` as `train`, `infer` and `evaluate` read one.

  Args:
    source: the checkpoint.
    out: folder to write; made if missing.
    vocabulary: as vocabularies.get_vocabulary takes it, in place of the one that came with it.
    chat_template: as vocabularies.choose_chat_template takes it; None is the model's own, if it
      has one.

  Returns:
    The folder of its one step, 0.

  Raises:
    ConvertError: the checkpoint is no whole model, the vocabulary is another's, or `out` holds
      checkpoints already.
  """
  folder = Path(out) / 'checkpoints'
  if folder.is_dir() and any(path.name.isdigit() for path in folder.iterdir()):
    raise ConvertError(f'{folder} holds checkpoints already; give another --out.')
  read = _vocabulary(source, vocabulary, chat_template)
  with partitioning.use_mesh(_mesh(source.config.embed_dim)):
    model = load(source)
    if read is not None:
      read.save(Path(out) / 'vocabulary')
    meta = {
      'model': dataclasses.asdict(source.config),
      'lengths': LENGTHS,
      'data': {'step': 0},  # of no mixture, so that no run goes on from here without an optimizer
    }
    config = checkpoints.CheckpointConfig(asynchronous=False)
    largest = max(x.nbytes for x in jax.tree.leaves(model))
    with checkpoints.Checkpoints(folder, config, memory_bytes=largest) as saved:
      saved.save(0, model, None, meta)
  print(f'{parameter_count(source.config):,} parameters in {folder / "0"}.')
  if read is None:
    print('No vocabulary came with them: to answer or export, import with --vocabulary.')
  return folder / '0'


def _vocabulary(
  source: Source, given: str | None, chat_template: str | None
) -> vocabularies.Vocabulary | None:
  """The vocabulary that was given or came with the weights, with its chat template."""
  vocabulary = vocabularies.get_vocabulary(given) if given else source.read_vocabulary()
  if vocabulary is None:
    return None
  if vocabulary.size > source.config.vocab_size:
    raise ConvertError(
      f'{source.title}: the vocabulary has {vocabulary.size:,} ids and the model embeddings for '
      f'{source.config.vocab_size:,}; give the one that it was trained with.'
    )
  if chat_template is None and vocabulary.model_chat_template:
    chat_template = 'model'
  return vocabularies.choose_chat_template(vocabulary, chat_template)


def _read(source: Source, path: str, shape: tuple[int, ...], index: Sequence[slice]) -> np.ndarray:
  """The part `index` of our parameter, float32; its layers stacked, its vocabulary padded by 0."""
  place = source.table[path]
  layout = arrays.Layout(place.layout, arrays.sizes(source.config, path))
  ranges = [range(*part.indices(length)) for part, length in zip(index, shape, strict=True)]
  out = np.zeros([len(part) for part in ranges], np.float32)
  if '{}' in place.name:
    for i, layer in enumerate(ranges[0]):
      layout.fill(out[i], source.stored[place.name.format(layer)], index[1:])
  else:
    layout.fill(out, source.stored[place.name], index)
  if place.offset:
    out -= np.float32(place.offset)
  if out.size and not np.isfinite([out.min(), out.max()]).all():
    raise ConvertError(
      f'{source.title}: {place.name} has numbers that are infinite or none. The file is damaged, '
      'or the model was saved in a dtype too narrow for it.'
    )
  return out


def _mesh(embed_dim: int) -> partitioning.MeshConfig:
  """All devices share every parameter, as far as its width can be split."""
  return partitioning.MeshConfig(data=-1, fsdp=math.gcd(jax.device_count(), embed_dim))
