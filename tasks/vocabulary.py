"""Which vocabulary the tasks count and cut with; the SeqIO object for it is in preprocessors.py.

The choice is a spec of flan_jax.data.vocabularies ('bytes' or the path of a SentencePiece model or
of another vocabulary), kept in the environment so that processes started later agree.
"""

import os
from collections.abc import Callable
from functools import lru_cache

ENVIRONMENT = 'FLAN_JAX_VOCABULARY'


def vocabulary_spec() -> str:
  """Returns the chosen spec: set_vocabulary's, else the environment's, else 'bytes'."""
  return os.environ.get(ENVIRONMENT) or 'bytes'


def set_vocabulary(spec: str | os.PathLike) -> None:
  """Chooses the vocabulary of this process and of those it starts."""
  spec = str(spec)
  os.environ[ENVIRONMENT] = spec if spec == 'bytes' else os.path.abspath(spec)


def token_counter() -> Callable[[str], int]:
  """Returns text -> number of tokens without EOS, in the chosen vocabulary."""
  spec = vocabulary_spec()
  if spec == 'bytes':
    return lambda text: len(text.encode('utf-8'))
  vocabulary = chosen_vocabulary()
  return lambda text: len(vocabulary.encode(text))


def chosen_vocabulary():
  """Returns the chosen vocabulary, of flan_jax.data.vocabularies."""
  return _vocabulary(vocabulary_spec())


@lru_cache(maxsize=4)
def _vocabulary(spec: str):
  from flan_jax.data.vocabularies import get_vocabulary

  return get_vocabulary(spec)
