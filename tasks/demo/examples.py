"""Which question the demo asks at each place: a pure function of (task, split, index).

A question belongs to the validation split or to train by a hash of its own text, so that no
question can be on both sides.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from flan_jax.tasks.demo import knowledge, lists, reasoning

# Part of the token cache's key; tests/tasks/test_demo.py tells when to raise it.
VERSION = '1'
# One question in eight belongs to validation.
VALIDATION_SHARE = 8
NUM_EXAMPLES = {'train': 1200, 'validation': 60}

Generator = Callable[[Random], dict[str, str]]


@dataclass(frozen=True)
class DemoTask:
  """A generated task. few_shot: how many solved examples its few-shot form shows; 0 for none."""

  name: str
  cluster: str
  generator: Generator
  few_shot: int = 0


TASKS = (
  DemoTask('first_word', 'pick', lists.first_word, few_shot=2),
  DemoTask('last_word', 'pick', lists.last_word, few_shot=2),
  DemoTask('first_number', 'pick', lists.first_number),
  DemoTask('last_number', 'pick', lists.last_number),
  DemoTask('copy_words', 'edit', lists.copy_words),
  DemoTask('reverse_words', 'edit', lists.reverse_words),
  DemoTask('remove_word', 'edit', lists.remove_word),
  DemoTask('animal_sounds', 'lookup', knowledge.animal_sounds, few_shot=2),
  DemoTask('animal_young', 'lookup', knowledge.animal_young, few_shot=2),
  DemoTask('opposites', 'lookup', knowledge.opposites, few_shot=2),
  DemoTask('find_member', 'classify', knowledge.find_member),
  DemoTask('sentiment', 'classify', knowledge.sentiment),
  DemoTask('topic', 'classify', knowledge.topic),
  DemoTask('count_words', 'count', lists.count_words),
  DemoTask('count_word', 'count', lists.count_word),
  DemoTask('larger_number', 'compare', lists.larger_number),
  DemoTask('smaller_number', 'compare', lists.smaller_number),
  DemoTask('same_words', 'compare', lists.same_words),
  DemoTask('who_has', 'reading', knowledge.who_has),
  DemoTask('what_has', 'reading', knowledge.what_has),
  DemoTask('where_is', 'reading', knowledge.where_is),
  DemoTask('add_small', 'arithmetic', reasoning.add_small),
  DemoTask('subtract_small', 'arithmetic', reasoning.subtract_small),
  DemoTask('running_total', 'arithmetic', reasoning.running_total),
  DemoTask('coin_flip', 'tracking', reasoning.coin_flip),
  DemoTask('cup_swaps', 'tracking', reasoning.cup_swaps),
  DemoTask('turning', 'tracking', reasoning.turning),
  DemoTask('message_chain', 'tracking', reasoning.message_chain),
  DemoTask('who_likes', 'preferences', knowledge.who_likes),
  DemoTask('what_likes', 'preferences', knowledge.what_likes),
  DemoTask('rule_applies', 'logic', reasoning.rule_applies),
  DemoTask('tallest', 'logic', reasoning.tallest),
)

# Never trained on. preferences is near to reading: other verbs and things, the same questions.
# logic is far from all.
HELD_OUT_CLUSTERS = ('preferences', 'logic')
TRAINED = tuple(task for task in TASKS if task.cluster not in HELD_OUT_CLUSTERS)
HELD_OUT = tuple(task for task in TASKS if task.cluster in HELD_OUT_CLUSTERS)

# Nested parts of TRAINED, for what more tasks are worth: each adds tasks to every cluster.
QUARTER = (
  'last_word', 'reverse_words', 'opposites', 'find_member', 'who_has', 'coin_flip', 'turning',
)  # fmt: skip
HALF = (
  *QUARTER, 'first_number', 'remove_word', 'animal_sounds', 'count_words', 'larger_number',
  'where_is', 'running_total',
)  # fmt: skip


def example(task: DemoTask, split: str, index: int) -> dict[str, str]:
  """Returns the fields of one question, with its id, such as 'coin_flip-validation-17'."""
  attempt = 0
  while True:
    rng = Random(f'{task.name} {split} {index} {attempt}')
    fields = task.generator(rng)
    if in_validation(fields) == (split == 'validation'):
      return {'id': f'{task.name}-{split}-{index}', **fields}
    attempt += 1


def in_validation(fields: dict[str, str]) -> bool:
  """Says to which side a question belongs; rationale and answer follow from the rest."""
  asked = [fields[name] for name in sorted(fields) if name not in ('id', 'answer', 'rationale')]
  digest = hashlib.blake2b('\n'.join(asked).encode('utf-8'), digest_size=8).digest()
  return int.from_bytes(digest) % VALIDATION_SHARE == 0


@dataclass(frozen=True)
class Examples:
  """Yields all questions of a split of one task, as a GeneratorSource asks for them."""

  task: DemoTask

  def __call__(self, split: str) -> Iterator[dict[str, str]]:
    return (example(self.task, split, index) for index in range(NUM_EXAMPLES[split]))
