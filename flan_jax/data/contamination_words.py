"""Words of a text as `contamination` compares them: without case, punctuation and layout.

The same text must give the same words however it was typed, and after a vocabulary that loses line
ends or quotation marks. Comparing is contamination_index.py's concern.
"""

import re
import unicodedata

_APOSTROPHES = dict.fromkeys(map(ord, "'\u2019\u2018\u02bc`"), '')
_THOUSANDS = re.compile(r'(?<=\d),(?=\d{3})')
# Thai and Lao, Burmese, Khmer, kana, Han: written without blanks between words.
_UNSPACED = (
  *((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF), (0x31F0, 0x31FF)),
  *((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF)),
)


class _Folding(dict):
  """A table for str.translate that is filled with the characters that come."""

  def __missing__(self, code: int) -> str:
    character = chr(code)
    category = unicodedata.category(character)
    if category == 'Cf':  # joiners and marks of direction: nobody sees them
      folded = ''
    elif category[0] in 'PSZC':
      folded = ' '
    elif any(first <= code <= last for first, last in _UNSPACED):
      folded = f' {character} '
    else:
      folded = character
    self[code] = folded
    return folded


_FOLDING = _Folding(_APOSTROPHES)


def words_of(text: str) -> list[str]:
  """Splits text into normalised words: "Don't pay 1,000 €!" -> ['dont', 'pay', '1000'].

  NFKC and lower case; apostrophes and the commas of thousands go, every other sign is a blank. In
  scripts without blanks between words each character is a word: '3个苹果' -> 3, 个, 苹, 果.
  """
  text = text.lower() if text.isascii() else unicodedata.normalize('NFKC', text).casefold()
  return _THOUSANDS.sub('', text).translate(_FOLDING).split()
