"""Tasks with numbers, states and rules: arithmetic, tracking, logic.

Those of several steps carry a `rationale`, one short clause a step, each of which follows from
the clause before and one part of the question: what a small network cannot do at once it can
write down step by step.
"""

from collections.abc import Callable
from random import Random

from flan_jax.tasks.demo import words

DIRECTIONS = ('north', 'east', 'south', 'west')
TURNS = {'right': 1, 'back': 2, 'left': 3}  # in quarters of a circle
CUPS = ('A', 'B', 'C')

# What one person does to the state: (rng, state) -> (words for it, new state).
Step = Callable[[Random, str], tuple[str, str]]


def add_small(rng: Random) -> dict[str, str]:
  """A story of two amounts put together -> the sum, at most 9."""
  total = rng.randint(2, 9)
  first = rng.randint(1, total - 1)
  name, fruit = rng.choice(words.NAMES), rng.choice(words.FRUITS)
  return {
    'name': name, 'fruit': fruit, 'first': str(first), 'second': str(total - first),
    'answer': str(total),
  }  # fmt: skip


def subtract_small(rng: Random) -> dict[str, str]:
  """A story of an amount of which some goes -> what is left."""
  first = rng.randint(2, 9)
  second = rng.randint(1, first)
  name, fruit = rng.choice(words.NAMES), rng.choice(words.FRUITS)
  return {
    'name': name, 'fruit': fruit, 'first': str(first), 'second': str(second),
    'answer': str(first - second),
  }  # fmt: skip


def _walk(rng: Random, num_steps: int, state: str, step: Step) -> dict[str, str]:
  """Lets people, one after another, change a state.

  Every task of this kind has steps 'Ann does something.' and clauses 'Ann does something: new
  state.', so that what is learned of one helps the others. No name comes twice: each clause finds
  its step by copying, and its state from the clause before.
  """
  start, moves, clauses = state, [], []
  for name in rng.sample(words.NAMES, num_steps):
    deed, state = step(rng, state)
    moves.append(f'{name} {deed}.')
    clauses.append(f'{name} {deed}: {state}.')
  return {
    'start': start, 'moves': ' '.join(moves), 'rationale': ' '.join(clauses), 'answer': state,
  }  # fmt: skip


def running_total(rng: Random) -> dict[str, str]:
  """People who add to a number and take from it -> the number, always one digit."""

  def step(rng: Random, state: str) -> tuple[str, str]:
    number = int(state)
    change = rng.choice([c for c in (-3, -2, -1, 1, 2, 3) if 0 <= number + c <= 9])
    return f'{"adds" if change > 0 else "takes"} {abs(change)}', str(number + change)

  return _walk(rng, 3, str(rng.randint(0, 9)), step)


def coin_flip(rng: Random) -> dict[str, str]:
  """A coin that people flip or leave -> the side that shows at the end."""

  def step(rng: Random, state: str) -> tuple[str, str]:
    if rng.random() < 0.5:
      return 'waits', state
    return 'flips', 'tails' if state == 'heads' else 'heads'

  return _walk(rng, 5, rng.choice(('heads', 'tails')), step)


def cup_swaps(rng: Random) -> dict[str, str]:
  """A ball under one of three cups that people swap -> the cup at the end."""

  def step(rng: Random, state: str) -> tuple[str, str]:
    pair = ''.join(sorted(rng.sample(CUPS, 2)))
    return f'swaps {pair}', pair.replace(state, '') if state in pair else state

  return _walk(rng, 4, rng.choice(CUPS), step)


def turning(rng: Random) -> dict[str, str]:
  """Somebody who is told to turn -> the direction faced at the end."""

  def step(rng: Random, state: str) -> tuple[str, str]:
    turn = rng.choice(tuple(TURNS))
    return f'says {turn}', DIRECTIONS[(DIRECTIONS.index(state) + TURNS[turn]) % 4]

  return _walk(rng, 4, rng.choice(DIRECTIONS), step)


def message_chain(rng: Random) -> dict[str, str]:
  """Who calls whom in two chains, shuffled, and where a message starts -> where it ends."""
  names = rng.sample(words.NAMES, 8)
  chains = names[:4], names[4:]
  calls = [
    [f'{caller} calls {called}.' for caller, called in zip(chain, chain[1:], strict=False)]
    for chain in chains
  ]
  moves = [*calls[0], *calls[1]]
  rng.shuffle(moves)
  return {
    'start': chains[0][0], 'moves': ' '.join(moves), 'rationale': ' '.join(calls[0]),
    'answer': chains[0][-1],
  }  # fmt: skip


def rule_applies(rng: Random) -> dict[str, str]:
  """A rule about one colour and a thing of some colour -> yes or no."""
  rule, other = rng.sample(words.COLOURS, 2)
  thing, name = rng.choice(words.THINGS), rng.choice(words.NAMES)
  applies = rng.random() < 0.5
  return {
    'name': name, 'rule': rule, 'colour': rule if applies else other, 'thing': thing,
    'answer': 'yes' if applies else 'no',
  }  # fmt: skip


def tallest(rng: Random) -> dict[str, str]:
  """Three people of whom two pairs are compared -> the tallest."""
  names = rng.sample(words.NAMES, 3)
  facts = [f'{names[0]} is taller than {names[1]}.', f'{names[1]} is taller than {names[2]}.']
  rng.shuffle(facts)
  return {'passage': ' '.join(facts), 'answer': names[0]}
