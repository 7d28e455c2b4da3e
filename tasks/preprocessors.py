"""The SeqIO side: a source, preprocessors and vocabulary that wrap the plain-Python tasks.

Importing this module imports SeqIO and TensorFlow (10 to 20 seconds); registry.py does so only
when a task is registered with SeqIO.
"""

import json
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import seqio
import tensorflow as tf
from flan_jax.tasks.denoisers import Denoiser, Objective
from flan_jax.tasks.examples import TextExamples
from flan_jax.tasks.instruction import InstructionTask
from flan_jax.tasks.templates import text_of
from flan_jax.tasks.vocabulary import chosen_vocabulary, vocabulary_spec

from flan_jax.data.seqio_vocabulary import seqio_vocabulary
from flan_jax.evaluation.metrics import get_metric
from flan_jax.evaluation.postprocessors import get_postprocessor

# Every example has all of them, so that tasks of any kind can be mixed.
METADATA = ('id', 'template', 'shots', 'answer', 'options', 'references')


class ChosenVocabulary(seqio.Vocabulary):
  """The vocabulary chosen by set_vocabulary or FLAN_JAX_VOCABULARY, looked up at each use.

  Tasks are registered when their module is imported, which is before anyone could choose.
  """

  @property
  def chosen(self) -> seqio.Vocabulary:
    """Returns SeqIO's form of the chosen vocabulary."""
    return seqio_vocabulary(vocabulary_spec())

  @property
  def bos_id(self):
    return self.chosen.bos_id

  @property
  def eos_id(self):
    return self.chosen.eos_id

  @property
  def unk_id(self):
    return self.chosen.unk_id

  @property
  def extra_ids(self):
    return self.chosen.extra_ids

  @property
  def _base_vocab_size(self):
    return self.chosen._base_vocab_size

  def _encode(self, s):
    return self.chosen._encode(s)

  def _decode(self, ids):
    return self.chosen._decode(ids)

  def _encode_tf(self, s):
    return self.chosen._encode_tf(s)

  def _decode_tf(self, ids):
    return self.chosen._decode_tf(ids)

  def __eq__(self, other):
    if isinstance(other, ChosenVocabulary):
      return True
    return self.chosen == other

  def __hash__(self):
    return hash(ChosenVocabulary)


def default_vocabulary() -> ChosenVocabulary:
  """Returns the vocabulary of all instruction tasks: bytes unless another is chosen."""
  return ChosenVocabulary()


def output_features() -> dict[str, Any]:
  """Returns the features of all instruction tasks: int32 inputs and targets that end in EOS."""
  vocabulary = default_vocabulary()
  return {
    name: seqio.Feature(vocabulary=vocabulary, add_eos=True, dtype=tf.int32)
    for name in ('inputs', 'targets')
  }


class InstructionDataSource(seqio.FunctionDataSource):
  """A SeqIO source of an instruction task; counts its examples when first asked."""

  def __init__(self, task: InstructionTask):
    self._task = task
    self._counts: dict[str, int] = {}
    dataset_fn = partial(plain_texts if task.objective else text_dataset, task)
    super().__init__(dataset_fn=dataset_fn, splits=task.splits)

  def num_input_examples(self, split: str) -> int:
    if split not in self._counts:
      self._counts[split] = sum(1 for _ in self._task.rows(split))
    return self._counts[split]

  def __repr__(self) -> str:
    return f'InstructionDataSource({self._task.name!r})'


def text_dataset(
  task: InstructionTask, split: str, shuffle_files: bool = False, seed: int | None = None
) -> tf.data.Dataset:
  """Returns the text examples as string features; the order is always the source's."""
  del shuffle_files, seed
  signature = {name: tf.TensorSpec([], tf.string) for name in ('inputs', 'targets', *METADATA)}
  return tf.data.Dataset.from_generator(
    lambda: map(as_features, TextExamples(task, split)), output_signature=signature
  )


def plain_texts(
  task: InstructionTask, split: str, shuffle_files: bool = False, seed: int | None = None
) -> tf.data.Dataset:
  """Returns the rows of a task of texts, {id, text}; the order is always the source's."""
  del shuffle_files, seed
  return tf.data.Dataset.from_generator(
    lambda: (
      {'id': row.id, 'text': text_of(row.fields['text'], 'text', row.place)}
      for row in task.rows(split)
    ),
    output_signature={name: tf.TensorSpec([], tf.string) for name in ('id', 'text')},
  )


def denoise(
  dataset: tf.data.Dataset, *, objective: Objective, name: str, seed: int = 0
) -> tf.data.Dataset:
  """SeqIO preprocessor: texts {id, text} -> pieces with inputs and targets as ids, without EOS.

  The ids are those of the chosen vocabulary. name, seed: with the id they decide what is restored.
  """

  def examples():
    rows = dataset.as_numpy_iterator()
    texts = ((_text(row['id']), _text(row['text'])) for row in rows)
    denoiser = Denoiser(objective, chosen_vocabulary(), name, seed)
    for example in denoiser.examples(texts, Counter()):
      features = as_features(example)
      for side, ids in (('inputs', 'input_ids'), ('targets', 'target_ids')):
        features[f'{side}_pretokenized'] = features[side]
        features[side] = example[ids]
      yield features

  sides = ('inputs', 'targets')
  texts = (*METADATA, *(f'{side}_pretokenized' for side in sides))
  signature = {
    **{side: tf.TensorSpec([None], tf.int32) for side in sides},
    **{name: tf.TensorSpec([], tf.string) for name in texts},
  }
  return tf.data.Dataset.from_generator(examples, output_signature=signature)


def as_features(example: dict[str, Any]) -> dict[str, str]:
  """Writes an example as strings: lists as JSON, what is absent as an empty string.

  {'id': 'train-1', 'options': ['a', 'b']} -> {'id': 'train-1', 'options': '["a", "b"]', ...}
  """
  features = {name: example.get(name, '') for name in ('inputs', 'targets', *METADATA)}
  for name in ('options', 'references'):
    if features[name] != '':
      features[name] = json.dumps(features[name], ensure_ascii=False)
  return features


def postprocess(output: str, *, postprocessor: str, example=None, is_target: bool = False):
  """SeqIO's postprocess_fn: the answer in a model's output, or the answer(s) of a target."""
  function = get_postprocessor(postprocessor)
  if example is None:
    return function(output, is_target=is_target)
  options = json.loads(_text(example['options']) or '[]')
  if not is_target:
    return function(output, options=options)
  answers = json.loads(_text(example['references']) or '[]') or [_text(example['answer'])]
  return [function(answer, options=options, is_target=True) for answer in answers]


def metric_fn(name: str) -> Callable[..., dict[str, float]]:
  """Returns a metric of flan_jax.evaluation in the form SeqIO asks for."""

  def metric(targets, predictions):
    return get_metric(name)(targets, predictions)

  metric.__name__ = name
  return metric


def register(task: InstructionTask) -> None:
  """Adds the task to SeqIO's registry."""
  tokenize: Callable = seqio.preprocessors.tokenize
  if task.objective:
    tokenize = partial(denoise, objective=task.objective, name=task.name, seed=task.seed)
  seqio.TaskRegistry.add(
    task.name,
    source=InstructionDataSource(task),
    preprocessors=[tokenize, seqio.preprocessors.append_eos_after_trim],
    output_features=output_features(),
    metric_fns=[metric_fn(name) for name in task.metrics],
    postprocess_fn=partial(postprocess, postprocessor=task.postprocessor),
  )


def _text(value) -> str:
  value = value.numpy() if hasattr(value, 'numpy') else value
  return value.decode('utf-8') if isinstance(value, bytes) else str(value)
