"""Renders a conversation through a model's chat template: Jinja source, as Hugging Face keeps it.

A template comes with downloaded weights, so it is a stranger's program. It runs in Jinja's sandbox,
sees plain text only, and ends in an error when it loops, repeats or writes without measure; the
memory of what it builds in between is not limited. What its text becomes in tokens is chat.py's.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
from jinja2 import exceptions, ext, nodes, parser, sandbox

Message = Mapping[str, str]

MAX_SOURCE_CHARACTERS = 200_000  # the longest published templates have 30,000
MAX_STEPS = 100_000  # turns of all loops and calls of macros; less than a second of work
MAX_CHARACTERS = 10_000_000  # of what is rendered, and of a text that is repeated

# Templates that print the date print this one, Llama 3.1's own default: a prompt that changes from
# day to day would make a cache irreproducible, and answering unlike training.
TODAY = datetime.datetime(2024, 7, 26)


class ChatTemplateError(ValueError):
  """A chat template that cannot be read, that refuses a conversation, or that does harm."""


class ChatTemplate:
  """A compiled template."""

  def __init__(self, source: str, variables: Mapping[str, str]):
    """Compiles the template.

    Args:
      source: Jinja.
      variables: what the template sees beside the conversation: 'bos_token' and the like.

    Raises:
      ChatTemplateError: too long, or no Jinja; says the line.
    """
    if len(source) > MAX_SOURCE_CHARACTERS:
      raise ChatTemplateError(
        f'The chat template has {len(source):,} characters and may have '
        f'{MAX_SOURCE_CHARACTERS:,}; give a real one.'
      )
    self.source = source
    self._variables = dict(variables)
    self._environment = _Environment()
    try:
      self._template = self._environment.from_string(self._environment.parse_counting(source))
    except jinja2.TemplateSyntaxError as e:
      raise ChatTemplateError(
        f'Line {e.lineno} of the chat template is not Jinja: {e.message}; correct the template.'
      ) from e
    except Exception as e:  # nested too deeply, a number too long, ...
      raise ChatTemplateError(
        f'The chat template cannot be compiled: {_reason(e)}; give a real one.'
      ) from e

  def __reduce__(self) -> tuple[Any, ...]:
    return (ChatTemplate, (self.source, self._variables))

  def render(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
    r"""Returns the text of a conversation.

    [{'role': 'user', 'content': 'Hi'}] -> '<|im_start|>user\nHi<|im_end|>\n', and with the
    generation prompt '<|im_start|>assistant\n' after it.

    Raises:
      ChatTemplateError: the template refuses the conversation, fails, or does too much.
    """
    self._environment.steps = 0
    pieces, length = [], 0
    try:
      for piece in self._template.generate(
        **self._variables,
        messages=[dict(message) for message in messages],
        tools=None,
        documents=None,
        add_generation_prompt=add_generation_prompt,
      ):
        pieces.append(piece)
        length += len(piece)
        if length > MAX_CHARACTERS:
          raise exceptions.SecurityError(f'it writes more than {MAX_CHARACTERS:,} characters')
    except Exception as e:  # a stranger's program may fail in any way
      raise ChatTemplateError(
        f'The chat template cannot render a turn of {" and ".join(m["role"] for m in messages)}: '
        f'{_reason(e)}. Correct it, or give another.'
      ) from e
    return ''.join(pieces)


class _GenerationTag(ext.Extension):
  """{% generation %} marks what the assistant writes, for those who look for it; we do not."""

  tags = {'generation'}

  def parse(self, parser: parser.Parser) -> nodes.Node:
    line = next(parser.stream).lineno
    body = parser.parse_statements(('name:endgeneration',), drop_needle=True)
    return nodes.Scope(body, lineno=line)


class _Environment(sandbox.ImmutableSandboxedEnvironment):
  """Jinja as Hugging Face sets it up, counting what a template does."""

  intercepted_binops = frozenset(('*', '**', '%'))

  def __init__(self):
    super().__init__(
      trim_blocks=True, lstrip_blocks=True, extensions=[ext.loopcontrols, _GenerationTag]
    )
    self.steps = 0
    self.filters['tojson'] = _to_json
    self.globals['raise_exception'] = _raise_exception
    self.globals['strftime_now'] = TODAY.strftime

  def parse_counting(self, source: str) -> nodes.Template:
    """Parses a template and makes it call `count_step` in each turn of a loop and each macro."""
    tree = self.parse(source)
    for block in tree.find_all((nodes.For, nodes.Macro, nodes.CallBlock)):
      # An attribute of the environment is not a name, so no template can replace it.
      call = nodes.Call(nodes.EnvironmentAttribute('count_step'), [], [], None, None)
      block.body.insert(0, nodes.ExprStmt(call).set_lineno(block.lineno))
    return tree

  def count_step(self) -> None:
    self.steps += 1
    if self.steps > MAX_STEPS:
      raise exceptions.SecurityError(f'it loops more than {MAX_STEPS:,} times')

  def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
    """Refuses what makes much of little in one operation: powers, padding, long repetitions."""
    texts = [value for value in (left, right) if not isinstance(value, (int, float))]
    numbers = [value for value in (left, right) if isinstance(value, (int, float))]
    repeats = operator == '*' and texts and numbers
    if (
      operator == '**'
      or (operator == '%' and texts)
      or (repeats and len(texts[0]) * numbers[0] > MAX_CHARACTERS)
    ):
      kinds = f'{type(left).__name__} and {type(right).__name__}'
      raise exceptions.SecurityError(f"'{operator}' is not allowed between these {kinds}")
    return super().call_binop(context, operator, left, right)


def _to_json(
  value: Any,
  ensure_ascii: bool = False,
  indent: int | None = None,
  separators: tuple[str, str] | None = None,
  sort_keys: bool = False,
) -> str:
  """Plain JSON: Jinja's own filter would write it for HTML."""
  return json.dumps(
    value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
  )


def _reason(error: Exception) -> str:
  return ' '.join(str(error).split()).rstrip('.') or type(error).__name__


def _raise_exception(message: str) -> None:
  raise jinja2.TemplateError(message)
