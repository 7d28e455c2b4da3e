"""Tasks with numbers, states and rules: arithmetic, tracking, logic.

Those of several steps carry a `rationale`, one short clause a step, each of which follows from
the clause before and one part of the question: what a small network cannot do at once it can
write down step by step.
"""

from random import Random

from flan_jax.tasks.demo import words

DIRECTIONS = ('north', 'east', 'south', 'west')
CUPS = ('A', 'B', 'C')


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


def running_total(rng: Random) -> dict[str, str]:
  """Passengers who get on and off a bus -> how many are on it, always 0 to 9."""
  on_board = rng.randint(2, 8)
  start, moves, steps = on_board, [], []
  for _ in range(3):
    change = rng.choice([c for c in (-3, -2, -1, 1, 2, 3) if 0 <= on_board + c <= 9])
    sign, word = ('+', 'on') if change > 0 else ('-', 'off')
    moves.append(f'{abs(change)} {word}.')
    steps.append(f'{on_board}{sign}{abs(change)}={on_board + change}.')
    on_board += change
  return {
    'start': str(start), 'moves': ' '.join(moves), 'rationale': ' '.join(steps),
    'answer': str(on_board),
  }  # fmt: skip


def coin_flip(rng: Random) -> dict[str, str]:
  """A coin that people flip or leave -> the side that shows at the end."""
  side = start = rng.choice(('heads', 'tails'))
  moves, steps = [], []
  for name in rng.sample(words.NAMES, 5):
    flips = rng.random() < 0.5
    if flips:
      side = 'tails' if side == 'heads' else 'heads'
    moves.append(f'{name} {"flips" if flips else "waits"}.')
    steps.append(f'{name} {"flips" if flips else "waits"}: {side}.')
  return {
    'start': start, 'moves': ' '.join(moves), 'rationale': ' '.join(steps), 'answer': side,
  }  # fmt: skip


def cup_swaps(rng: Random) -> dict[str, str]:
  """A ball under one of three cups that are swapped -> the cup at the end."""
  cup = start = rng.choice(CUPS)
  moves, steps = [], []
  for _ in range(4):
    pair = sorted(rng.sample(CUPS, 2))
    if cup in pair:
      cup = pair[1] if cup == pair[0] else pair[0]
    moves.append(f'{pair[0]} and {pair[1]}.')
    steps.append(f'{pair[0]} and {pair[1]}: {cup}.')
  return {
    'start': start, 'moves': ' '.join(moves), 'rationale': ' '.join(steps), 'answer': cup,
  }  # fmt: skip


def turning(rng: Random) -> dict[str, str]:
  """A walker who turns left and right -> the direction faced at the end."""
  facing = rng.randrange(4)
  start, moves, steps = DIRECTIONS[facing], [], []
  for _ in range(4):
    turn = rng.choice(('left', 'right', 'back'))
    facing = (facing + {'left': 3, 'right': 1, 'back': 2}[turn]) % 4
    moves.append(f'{turn}.')
    steps.append(f'{turn}: {DIRECTIONS[facing]}.')
  return {
    'start': start, 'moves': ' '.join(moves), 'rationale': ' '.join(steps),
    'answer': DIRECTIONS[facing],
  }  # fmt: skip


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
