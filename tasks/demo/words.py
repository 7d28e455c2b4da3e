"""The small vocabulary of the demo collection: words, what they go with, and names.

The lists are short on purpose: in a training run of two minutes every word must be met often
enough to be learned. Which tasks use them is in lists.py, knowledge.py and reasoning.py.
"""

NAMES = ('Ann', 'Bob', 'Cal', 'Dan', 'Eve', 'Fay', 'Gus', 'Hal')
COLOURS = ('red', 'blue', 'green', 'black', 'white', 'brown', 'pink', 'gold')
FRUITS = ('apple', 'pear', 'plum', 'fig', 'lemon', 'grape', 'melon', 'mango')
THINGS = ('hat', 'cup', 'key', 'lamp', 'book', 'coin', 'ring', 'bell')
PLACES = ('box', 'bag', 'car', 'barn', 'desk', 'hall', 'yard', 'shop')

# Animal -> (sound, young).
ANIMALS = {
  'cow': ('moo', 'calf'),
  'duck': ('quack', 'duckling'),
  'dog': ('bark', 'puppy'),
  'cat': ('meow', 'kitten'),
  'sheep': ('baa', 'lamb'),
  'horse': ('neigh', 'foal'),
  'pig': ('oink', 'piglet'),
  'hen': ('cluck', 'chick'),
}

CATEGORIES = {
  'animal': tuple(ANIMALS),
  'colour': COLOURS,
  'fruit': FRUITS,
  'thing': THINGS,
}

# Each word is the opposite of the other one in its row.
OPPOSITES = (
  ('hot', 'cold'),
  ('big', 'small'),
  ('fast', 'slow'),
  ('old', 'new'),
  ('wet', 'dry'),
  ('soft', 'hard'),
  ('loud', 'quiet'),
  ('rich', 'poor'),
)

# What a review may praise or blame, and in which words.
REVIEWED = ('food', 'film', 'room', 'music', 'view', 'soup', 'song', 'show')
PRAISE = ('great', 'lovely', 'superb', 'nice', 'fun', 'perfect')
BLAME = ('awful', 'dull', 'nasty', 'bad', 'sad', 'terrible')

# Topic -> (who or what does something, what it is done to).
TOPICS = {
  'sport': (('coach', 'team', 'runner', 'skier'), ('race', 'goal', 'match', 'medal')),
  'cooking': (('cook', 'baker', 'waiter', 'butcher'), ('bread', 'cake', 'pie', 'oven')),
  'weather': (('storm', 'rain', 'wind', 'sun'), ('cloud', 'snow', 'sky', 'fog')),
  'school': (('pupil', 'teacher', 'class', 'tutor'), ('test', 'lesson', 'exam', 'essay')),
}
