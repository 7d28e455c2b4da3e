"""Tasks that need a known word or a place in a sentence: lookup, classify, reading, preferences.

Facts such as a duck's sound cannot be kept from training, so those questions join several of
them: what is unseen in validation is the combination.
"""

from random import Random

from flan_jax.tasks.demo import words


def _animal_pair(rng: Random, column: int) -> dict[str, str]:
  pair = rng.sample(tuple(words.ANIMALS), 2)
  answer = ' '.join(words.ANIMALS[animal][column] for animal in pair)
  return {'name': rng.choice(words.NAMES), 'first': pair[0], 'second': pair[1], 'answer': answer}


def animal_sounds(rng: Random) -> dict[str, str]:
  """Two animals -> the sound of each."""
  return _animal_pair(rng, 0)


def animal_young(rng: Random) -> dict[str, str]:
  """Two animals -> the name of each one's young."""
  return _animal_pair(rng, 1)


def opposites(rng: Random) -> dict[str, str]:
  """Two adjectives -> the opposite of each."""
  asked, answers = [], []
  for row in rng.sample(words.OPPOSITES, 2):
    word, opposite = rng.sample(row, 2)
    asked.append(word)
    answers.append(opposite)
  name = rng.choice(words.NAMES)
  return {'name': name, 'first': asked[0], 'second': asked[1], 'answer': ' '.join(answers)}


def find_member(rng: Random) -> dict[str, str]:
  """Three words of three categories and one category -> the word that belongs to it."""
  categories = rng.sample(tuple(words.CATEGORIES), 3)
  items = [rng.choice(words.CATEGORIES[category]) for category in categories]
  category, answer = categories[0], items[0]
  rng.shuffle(items)
  return {'items': ' '.join(items), 'category': category, 'answer': answer}


def sentiment(rng: Random) -> dict[str, str]:
  """A review of two sentences that agree -> positive or negative."""
  first, second = rng.sample(words.REVIEWED, 2)
  praised = rng.random() < 0.5
  how = rng.sample(words.PRAISE if praised else words.BLAME, 2)
  review = f'The {first} was {how[0]}. The {second} was {how[1]}.'
  return {'review': review, 'answer': 'positive' if praised else 'negative'}


def topic(rng: Random) -> dict[str, str]:
  """A sentence about one of four topics -> the topic."""
  name = rng.choice(tuple(words.TOPICS))
  actors, objects = words.TOPICS[name]
  who = rng.choice(words.NAMES)
  sentence = f'{who} saw the {rng.choice(actors)} and the {rng.choice(objects)}.'
  return {'sentence': sentence, 'answer': name}


def _owners(rng: Random) -> tuple[list[str], list[str], str]:
  """Two people, a thing of each, and the sentence that says so."""
  names, things = rng.sample(words.NAMES, 2), rng.sample(words.THINGS, 2)
  passage = ' '.join(f'{name} has the {thing}.' for name, thing in zip(names, things, strict=True))
  return names, things, passage


def who_has(rng: Random) -> dict[str, str]:
  """Who owns what, and a thing -> its owner."""
  names, things, passage = _owners(rng)
  asked = rng.randrange(2)
  return {'passage': passage, 'thing': things[asked], 'answer': names[asked]}


def what_has(rng: Random) -> dict[str, str]:
  """Who owns what, and a person -> the thing owned."""
  names, things, passage = _owners(rng)
  asked = rng.randrange(2)
  return {'passage': passage, 'name': names[asked], 'answer': things[asked]}


def where_is(rng: Random) -> dict[str, str]:
  """Where two things are, and one of them -> its place."""
  things, places = rng.sample(words.THINGS, 2), rng.sample(words.PLACES, 2)
  passage = ' '.join(
    f'The {thing} is in the {place}.' for thing, place in zip(things, places, strict=True)
  )
  asked = rng.randrange(2)
  return {'passage': passage, 'thing': things[asked], 'answer': places[asked]}


def _tastes(rng: Random) -> tuple[list[str], list[str], str]:
  """Two people, a fruit that each likes, and the sentence that says so."""
  names, fruits = rng.sample(words.NAMES, 2), rng.sample(words.FRUITS, 2)
  passage = ' '.join(
    f'{name} likes the {fruit}.' for name, fruit in zip(names, fruits, strict=True)
  )
  return names, fruits, passage


def who_likes(rng: Random) -> dict[str, str]:
  """Who likes what, and a fruit -> the person."""
  names, fruits, passage = _tastes(rng)
  asked = rng.randrange(2)
  return {'passage': passage, 'fruit': fruits[asked], 'answer': names[asked]}


def what_likes(rng: Random) -> dict[str, str]:
  """Who likes what, and a person -> the fruit."""
  names, fruits, passage = _tastes(rng)
  asked = rng.randrange(2)
  return {'passage': passage, 'name': names[asked], 'answer': fruits[asked]}
