"""Where a generated text says what its answer is, in the languages of MGSM and TyDiQA.

Reads text only as far as an answer may stand in it: up to the next question, without markdown and
LaTeX around it. What is announced is read by extraction.py.
"""

import dataclasses
import functools
import re
import unicodedata

from flan_jax.evaluation.metrics import fold

_QUOTES = {'"': '"', "'": "'", '“': '”', '‘': '’', '«': '»', '「': '」', '`': '`'}

# Where a word of Latin or Cyrillic letters begins; those of Chinese may stand before it.
_WORD = r'(?<![A-Za-z\u00c0-\u04ff])'


@dataclasses.dataclass(frozen=True)
class Language:
  """How one language asks and answers, as regular expressions without regard to case.

  Attributes:
    question: Words that, with a colon behind them, begin another question.
    answer: Words after which the answer stands.
    heading: Words above a whole rationale that `answer` would take for an answer; '' if none.
    decimal_comma: Whether '1.234' is a thousand and more.
  """

  question: str
  answer: str
  heading: str = ''
  decimal_comma: bool = False


LANGUAGES = {
  'en': Language(
    r'Q|Question|Problem',
    _WORD
    + r'(?:answers?(?: to [^.:\n]{1,80})? (?:is|was|would be|should be|must be)\b|answer ?[:=]'
    r'|(?:correct|right|best) (?:option|choice|letter) (?:is|would be)\b) ?:?'
    r'|####(?! ?[^\W\d_]{2})',  # GSM8K's; before a word it is a heading
    r'step[- ]by[- ]step answer ?:',
  ),
  'ar': Language(
    r'سؤال|السؤال', r'(?:الإجابة|الاجابة|الجواب)(?: الصحيحة| النهائية)? ?(?:هي|هو|:) ?:?'
  ),
  # The word for an answer is also that for the north.
  'bn': Language(
    r'প্রশ্ন', r'উত্তর(?: ?(?:হলো|হল|হচ্ছে|হবে|:|—|=) ?:?|(?= ?[-−$৳]?\d))', r'ধাপে ধাপে উত্তর ?:'
  ),
  'de': Language(
    r'Frage|Aufgabe',
    _WORD + r'Antwort(?: (?:ist|lautet|wäre)\b(?: (?:also|daher|somit)\b)?| ?:) ?:?',
    r'Schritt-für-Schritt-Antwort ?:',
    decimal_comma=True,
  ),
  'es': Language(
    r'Pregunta|Problema',
    _WORD + r'respuesta(?: (?:final|correcta))?(?: (?:es|sería)\b| ?:) ?:?',
    decimal_comma=True,
  ),
  'fi': Language(
    r'Kysymys', _WORD + r'vastaus(?: (?:on|kysymykseen on)\b| ?:) ?:?', decimal_comma=True
  ),
  'fr': Language(
    r'Question|Problème',
    _WORD + r'réponse(?: (?:finale|correcte))?(?: (?:est|serait)\b| ?:) ?:?',
    decimal_comma=True,
  ),
  'id': Language(
    r'Pertanyaan|Soal',
    _WORD + r'jawaban(?:nya)?(?: (?:adalah|ialah)\b| ?:) ?:?',
    decimal_comma=True,
  ),
  'ja': Language(r'問題|質問', r'(?:答え?|解答|正解) ?(?:は|:) ?:?', r'ステップごとの答え ?:'),
  'ko': Language(r'문제|질문', r'(?:정답|답변|답) ?(?:은|:) ?:?'),
  'ru': Language(
    r'Задача|Вопрос',
    _WORD + r'ответ(?: (?:равен|будет|это)\b| ?[—–:=])? ?:?',
    decimal_comma=True,
  ),
  'sw': Language(
    r'Swali', _WORD + r'jibu(?: sahihi)?(?: ni\b| ?:) ?:?', r'jibu la hatua kwa hatua ?:'
  ),
  'te': Language(r'ప్రశ్న', r'సమాధానం ?[:=—]? ?:?', r'దశలవారీగా సమాధానం ?:'),
  'th': Language(r'โจทย์|คำถาม', r'คำตอบ(?:สุดท้าย)? ?(?:คือ|เป็น|:) ?:?'),
  'zh': Language(r'问题|問題|题目', r'(?:答案|答) ?(?:应该是|應該是|是|为|為|:) ?:?'),
}


def _compile(*patterns: str) -> re.Pattern[str]:
  # Texts are read in NFKC, which takes Thai's vowels apart and makes wide colons narrow ones.
  return re.compile(unicodedata.normalize('NFKC', '|'.join(patterns)), re.IGNORECASE | re.MULTILINE)


# The expressions of all languages, compiled when a text is read: 0.1 s of a start that reads none.


@functools.cache
def _answer() -> re.Pattern[str]:
  named = (f'(?P<{name}>{lang.answer})' for name, lang in LANGUAGES.items())
  return _compile(r'(?P<boxed>\\boxed ?\{)', *named)


@functools.cache
def _question() -> re.Pattern[str]:
  words = '|'.join(lang.question for lang in LANGUAGES.values())
  return _compile(rf'^[ \t#]{{0,9}}(?:{words})(?: ?\d{{1,3}})? ?:')


@functools.cache
def _heading() -> re.Pattern[str]:
  return _compile(*(lang.heading for lang in LANGUAGES.values() if lang.heading))


# An echo of the 'A:' that ended the prompt, unless an option follows: 'A: Paris' picks one.
_ECHO = re.compile(r'(?:\s{0,9}A:(?=\s{0,9}(?:[Ll]et\b|\(?[A-Z]\b)))+')
_BOLD = re.compile(r'(?<!\d)\*\*|\*\*(?!\d)|(?<!\w)__|__(?!\w)')  # 2**3 is a power
_LATEX = (
  (re.compile(r'\\(?:text|textbf|textit|mathrm|mathbf) ?\{([^{}\n]{0,200})\}'), r'\1'),
  (re.compile(r'\\[dt]?frac ?\{([^{}\n]{1,99})\} ?\{([^{}\n]{1,99})\}'), r'\1/\2'),
  (re.compile(r'\{,\}'), ','),  # a thousands separator
  (re.compile(r'\\[,;!]'), ''),  # narrow blanks
  (re.compile(r'\\([$%#&_])'), r'\1'),
  (re.compile(r'\\[()\[\]]'), ' '),
)
_SENTENCE_END = re.compile(r'(?<=[.!?])[\'")\]]{0,3}\s|[。।\n]')


@dataclasses.dataclass(frozen=True)
class Announcement:
  """What stands between one announcement of an answer and the next, or the end.

  Attributes:
    text: Without blanks at its ends.
    start: Where it begins in the body.
    language: Key of LANGUAGES.
    colon: Announced by a colon, after which a whole rationale may come before the answer.
  """

  text: str
  start: int
  language: str
  colon: bool


def clean(text: str) -> str:
  """Fold whitespace; drop final periods and the quotes around the whole answer."""
  text = fold(text)
  start, end = 0, len(text)
  while start < end:
    if text[start] == ' ':
      start += 1
    elif text[end - 1] in ' .。।':
      end -= 1
    elif end - start > 1 and _QUOTES.get(text[start]) == text[end - 1]:
      start, end = start + 1, end - 1
    else:
      break
  return text[start:end]


def body(text: str) -> str:
  """Return the part of `text` that may hold its answer, as plain text in NFKC.

  Without the headings of rationales, bold face and LaTeX, and ended before another question.
  """
  text = _BOLD.sub('', unicodedata.normalize('NFKC', text))
  if '\\' in text or '{,}' in text:
    for pattern, plain in _LATEX:
      text = pattern.sub(plain, text)
  text = _after_echo(_heading().sub('', text))
  for match in _question().finditer(text):
    if match.start():  # the question that is answered may be repeated before its answer
      return text[: match.start()].rstrip()
  return text


def announcements(text: str) -> list[Announcement]:
  """Return what is announced as an answer in a `body`, in its order, where anything follows."""
  found = []
  matches = list(_answer().finditer(text))
  ends = [*(match.start() for match in matches), len(text)][1:]
  for match, end in zip(matches, ends, strict=True):
    if match['boxed']:
      end = _closing(text, match.end(), end)
    answer = _after_echo(text[match.end() : end])
    if answer:
      language = match.lastgroup if match.lastgroup in LANGUAGES else 'en'
      colon = match[0].rstrip().endswith(':')
      found.append(Announcement(answer, match.end(), language, colon))
  return found


def first_line(text: str) -> str:
  """Return the first line that is not blank, without blanks at its ends."""
  return text.strip().partition('\n')[0].rstrip()


def first_sentence(text: str) -> str:
  """Return `text` to the end of its first sentence or line."""
  text = text.strip()
  end = _SENTENCE_END.search(text)
  return text[: end.start()] if end else text


def last_sentence(text: str) -> str:
  """Return the last sentence of the last line."""
  sentences = _SENTENCE_END.split(text.rstrip('。। \n'))
  return sentences[-1].strip()


def _after_echo(text: str) -> str:
  echo = _ECHO.match(text)
  return (text[echo.end() :] if echo else text).strip()


def _closing(text: str, start: int, end: int) -> int:
  """Return where the brace that is open at `start` closes, or `end` if it stays open."""
  depth = 1
  for i in range(start, end):
    depth += {'{': 1, '}': -1}.get(text[i], 0)
    if depth == 0:
      return i
  return end
