"""Tasks over short lists of words and numbers: picking, editing, counting, comparing.

Each generator takes a random.Random and returns the named fields of one question, all text;
`answer` is the right answer.
"""

from random import Random

from flan_jax.tasks.demo import words

_LISTED = (*words.ANIMALS, *words.COLOURS, *words.FRUITS, *words.THINGS)


def _distinct_words(rng: Random, fewest: int, most: int) -> list[str]:
  return rng.sample(_LISTED, rng.randint(fewest, most))


def _distinct_numbers(rng: Random, fewest: int, most: int) -> list[str]:
  return [str(number) for number in rng.sample(range(10), rng.randint(fewest, most))]


def first_word(rng: Random) -> dict[str, str]:
  """A list of words -> the first of them."""
  items = _distinct_words(rng, 3, 5)
  return {'items': ' '.join(items), 'answer': items[0]}


def last_word(rng: Random) -> dict[str, str]:
  """A list of words -> the last of them."""
  items = _distinct_words(rng, 3, 5)
  return {'items': ' '.join(items), 'answer': items[-1]}


def first_number(rng: Random) -> dict[str, str]:
  """A list of digits -> the first of them."""
  items = _distinct_numbers(rng, 3, 5)
  return {'items': ' '.join(items), 'answer': items[0]}


def last_number(rng: Random) -> dict[str, str]:
  """A list of digits -> the last of them."""
  items = _distinct_numbers(rng, 3, 5)
  return {'items': ' '.join(items), 'answer': items[-1]}


def copy_words(rng: Random) -> dict[str, str]:
  """A list of words -> the same list."""
  items = ' '.join(_distinct_words(rng, 2, 4))
  return {'items': items, 'answer': items}


def reverse_words(rng: Random) -> dict[str, str]:
  """A list of words -> the list backwards."""
  items = _distinct_words(rng, 2, 4)
  return {'items': ' '.join(items), 'answer': ' '.join(reversed(items))}


def remove_word(rng: Random) -> dict[str, str]:
  """A list of words and one of them -> the list without it."""
  items = _distinct_words(rng, 3, 4)
  word = rng.choice(items)
  rest = [item for item in items if item != word]
  return {'items': ' '.join(items), 'word': word, 'answer': ' '.join(rest)}


def count_words(rng: Random) -> dict[str, str]:
  """A list of words -> how many there are."""
  items = _distinct_words(rng, 1, 6)
  return {'items': ' '.join(items), 'answer': str(len(items))}


def count_word(rng: Random) -> dict[str, str]:
  """A list with repeats and a word -> how often the word is there."""
  word, other, third = rng.sample(_LISTED, 3)
  times = rng.randint(0, 4)
  items = [word] * times + [rng.choice((other, third)) for _ in range(rng.randint(1, 3))]
  rng.shuffle(items)
  return {'items': ' '.join(items), 'word': word, 'answer': str(times)}


def larger_number(rng: Random) -> dict[str, str]:
  """Two numbers of two digits -> the larger."""
  first, second = rng.sample(range(10, 100), 2)
  return {'first': str(first), 'second': str(second), 'answer': str(max(first, second))}


def smaller_number(rng: Random) -> dict[str, str]:
  """Two numbers of two digits -> the smaller."""
  first, second = rng.sample(range(10, 100), 2)
  return {'first': str(first), 'second': str(second), 'answer': str(min(first, second))}


def same_words(rng: Random) -> dict[str, str]:
  """Two pairs of words -> whether they are the same."""
  first = rng.sample(_LISTED, 2)
  second = list(first)
  if rng.random() < 0.5:
    place = rng.randrange(2)
    second[place] = rng.choice([word for word in _LISTED if word not in first])
  answer = 'yes' if first == second else 'no'
  return {'first': ' '.join(first), 'second': ' '.join(second), 'answer': answer}
