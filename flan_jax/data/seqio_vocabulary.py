"""Our vocabularies as SeqIO's, for tasks that tokenise through SeqIO.

Importing this module imports SeqIO and TensorFlow; seqio_tasks.py does so only when a SeqIO task is
prepared. Bytes and SentencePiece are SeqIO's own, which gives the same ids and runs in TensorFlow.
"""

import functools

import numpy as np
import seqio
import tensorflow as tf

from flan_jax.data.vocabularies import Vocabulary, get_vocabulary


@functools.lru_cache(maxsize=2)
def seqio_vocabulary(spec: str) -> seqio.Vocabulary:
  """Returns SeqIO's form of a vocabulary.

  Args:
    spec: 'bytes', the path of a SentencePiece model, or what else `get_vocabulary` takes.
  """
  if spec == 'bytes':
    return seqio.ByteVocabulary()
  if spec.endswith('.model'):
    return seqio.SentencePieceVocabulary(spec)
  return _PythonVocabulary(get_vocabulary(spec).with_chat_template(None))


class _PythonVocabulary(seqio.Vocabulary):
  """Calls a vocabulary of ours from TensorFlow; for text alone, not for tensors of texts."""

  def __init__(self, vocabulary: Vocabulary):
    super().__init__()
    self._vocabulary = vocabulary

  @property
  def bos_id(self) -> int | None:
    return self._vocabulary.bos_id

  @property
  def eos_id(self) -> int:
    return self._vocabulary.eos_id

  @property
  def unk_id(self) -> None:
    return None

  @property
  def _base_vocab_size(self) -> int:
    return self._vocabulary.size

  def _encode(self, s: str) -> list[int]:
    return self._vocabulary.encode(s)

  def _decode(self, ids) -> str:
    return self._vocabulary.decode(ids)

  def _encode_tf(self, s: tf.Tensor) -> tf.Tensor:
    encode = lambda text: np.asarray(self._encode(text.decode('utf-8')), np.int32)  # noqa: E731
    ids = tf.numpy_function(encode, [s], tf.int32)
    ids.set_shape([None])
    return ids

  def _decode_tf(self, ids: tf.Tensor) -> tf.Tensor:
    decode = lambda numbers: self._decode(numbers).encode('utf-8')  # noqa: E731
    return tf.numpy_function(decode, [ids], tf.string)

  def __eq__(self, other: object) -> bool:
    if not isinstance(other, _PythonVocabulary):
      return False
    return self._vocabulary.fingerprint == other._vocabulary.fingerprint

  def __hash__(self) -> int:
    return hash(self._vocabulary.fingerprint)
