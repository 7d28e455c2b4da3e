"""Tasks for tests: names of their own, forgotten afterwards, with SeqIO only where marked."""

import os

import pytest

# Importing SeqIO takes 10 to 20 seconds; only tests marked seqio need it.
_before = os.environ.get('FLAN_JAX_SEQIO')
os.environ['FLAN_JAX_SEQIO'] = 'off'
from flan_jax.tasks import mixtures, registry  # noqa: E402

if _before is None:
  del os.environ['FLAN_JAX_SEQIO']
else:
  os.environ['FLAN_JAX_SEQIO'] = _before


@pytest.fixture(autouse=True)
def _own_names(request, monkeypatch):
  """Forgets the tasks and mixtures that a test registers; SeqIO is off unless it is marked."""
  monkeypatch.delenv('FLAN_JAX_VOCABULARY', raising=False)
  if request.node.get_closest_marker('seqio'):
    monkeypatch.setenv('FLAN_JAX_SEQIO', 'on')
    mixtures.register_with_seqio()
  else:
    monkeypatch.setenv('FLAN_JAX_SEQIO', 'off')
  tasks, mixed = set(registry.task_names()), set(mixtures.mixture_names())
  yield
  for name in set(mixtures.mixture_names()) - mixed:
    mixtures.unregister_mixture(name)
  for name in set(registry.task_names()) - tasks:
    registry.unregister(name)


@pytest.fixture
def sums():
  """Returns a function that registers a small task of sums, with what the caller adds."""
  from flan_jax.tasks.sources import GeneratorSource

  def rows(split):
    for i in range(40 if split == 'train' else 12):
      a, b = i, (i * 7 + (split == 'validation')) % 11
      yield {'a': a, 'b': b, 'answer': str(a + b), 'rationale': f'{a} and {b} make {a + b}.'}

  def register(name='sums', **changes):
    arguments = {
      'source': GeneratorSource(rows),
      'templates': [
        {'id': 'ask', 'inputs': 'What is {a} + {b}?', 'targets': '{answer}'},
        {'id': 'add', 'inputs': 'Add {a} to {b}.', 'targets': '{answer}'},
        {'id': 'new', 'inputs': 'Sum of {a} and {b}:', 'targets': '{answer}', 'held_out': True},
      ],
      'cot_templates': [
        {
          'id': 'think',
          'inputs': '{a} + {b}? Reason first.',
          'targets': '{rationale} So the answer is {answer}.',
        }
      ],
      'cluster': 'arithmetic',
      'collection': 'test',
    }
    return registry.instruction_task(name, **{**arguments, **changes})

  return register
