"""Turns prompts and answers into the tokens of a conversation, as a chat template lays them out.

What the template writes is read with its special tokens; what people wrote never is, so that a
text with '<|im_end|>' in it cannot end its own turn. Rendering is chat_template.py's.
"""

from __future__ import annotations

import os
import re

from flan_jax.data.chat_template import ChatTemplate, ChatTemplateError
from flan_jax.data.vocabulary import Vocabulary

# A code point that Unicode keeps free for such use: it breaks special tokens in people's text.
_BREAK = '\ufdd0'
_QUESTIONS = ('How many cats are there?', 'Two and 2', 'Name one.\n(a) b')
_ANSWER = 'Three'


class ChatFormat:
  """A chat template with the vocabulary that reads it.

  Attributes:
    template: the template.
    vocabulary: the vocabulary, as it is without a template.
    bos_id: id before every prompt, or None: only if the template writes it and the vocabulary's
      sequences begin with it.
    eos_id: id that ends an answer, the first special token that the template writes after it.
    prompt_end: ids that end every prompt, whatever was asked.
  """

  def __init__(self, vocabulary: Vocabulary, source: str):
    """Compiles the template and tries it on a short conversation.

    Args:
      vocabulary: has no template of its own.
      source: the template.

    Raises:
      ChatTemplateError: it is no template, or a model could not be trained with it.
    """
    self.vocabulary = vocabulary
    self.template = ChatTemplate(source, vocabulary.template_variables)
    texts = sorted(vocabulary.special_tokens, key=len, reverse=True)
    # Looks ahead, so that special tokens that overlap are all found; `(?!)` is never.
    self._special = re.compile(f'(?=({"|".join(map(re.escape, texts)) or "(?!)"})).', re.DOTALL)
    self.bos_id, self.eos_id = None, vocabulary.eos_id
    self._try()
    prompts = [self.prompt(question) for question in _QUESTIONS]
    backwards = [tuple(reversed(ids)) for ids in prompts]
    self.prompt_end = tuple(reversed(os.path.commonprefix(backwards)))

  def prompt(self, text: str) -> list[int]:
    """Returns the ids of what the model reads before it answers `text`, without `bos_id`."""
    return self._without_bos(self._encode(self._render(text)))

  def example(self, inputs: str, targets: str) -> tuple[list[int], list[int]]:
    r"""Returns the ids of a prompt and of its answer, the latter ending in `eos_id`.

    'Hi', 'Hello' -> ids of '<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n' and of
    'Hello<|im_end|>'. Together they are the ids of the whole conversation, up to what the
    template writes after the answer's end. Only if the answer's beginning would merge with the
    prompt's end into one token are both encoded alone, as the model will see them.

    Raises:
      ChatTemplateError: the conversation does not begin with the prompt.
    """
    prompt, whole = self._render(inputs), self._render(inputs, targets)
    if not whole.startswith(prompt):
      same = len(os.path.commonprefix([prompt, whole]))
      raise ChatTemplateError(
        'The chat template does not write an answer after its prompt: the prompt goes on with '
        f'{_shown(prompt[same:])} where the conversation has {_shown(whole[same:])}. Give a '
        'template that keeps earlier turns as they are.'
      )
    prompt_ids, whole_ids = self._encode(prompt), self._encode(whole)
    if whole_ids[: len(prompt_ids)] == prompt_ids:
      target_ids = whole_ids[len(prompt_ids) :]
    else:
      target_ids = self._encode(whole[len(prompt) :])
    if self.eos_id in target_ids:
      target_ids = target_ids[: target_ids.index(self.eos_id)]
    return self._without_bos(prompt_ids), [*target_ids, self.eos_id]

  def _try(self) -> None:
    """Finds how prompts begin and answers end; refuses what never could be trained."""
    begins = self.vocabulary.bos_id
    prompt = self._encode(self._render(_QUESTIONS[0]))
    if begins is not None and prompt[:1] == [begins]:
      self.bos_id = begins
    whole = self._render(_QUESTIONS[0], _ANSWER)
    before, found, after = whole.rpartition(_ANSWER)
    if not found:
      raise ChatTemplateError(
        "The chat template leaves out what the assistant says; write message['content'] in it."
      )
    end = self._special.search(after)
    if end:
      self.eos_id = self.vocabulary.special_tokens[end[1]]
    prompt_ids, target_ids = self.example(_QUESTIONS[0], _ANSWER)
    whole_ids = self._without_bos(self._encode(whole))
    together = [*prompt_ids, *(target_ids if end else target_ids[:-1])]
    if whole_ids[: len(together)] != together:
      raise ChatTemplateError(
        f'The chat template ends its prompt with {_shown(before[-8:])}, which merges with the '
        'first word of an answer into one token, so that an answer would begin unlike in '
        'training; end the prompt with a special token or a line end.'
      )

  def _render(self, inputs: str, targets: str | None = None) -> str:
    messages = [{'role': 'user', 'content': self._broken(inputs)}]
    if targets is not None:
      messages.append({'role': 'assistant', 'content': self._broken(targets)})
    return self.template.render(messages, add_generation_prompt=targets is None)

  def _broken(self, text: str) -> str:
    """Breaks special tokens after their first character; drops what marks the breaks."""
    return self._special.sub(rf'\g<0>{_BREAK}', text.replace(_BREAK, ''))

  def _encode(self, rendered: str) -> list[int]:
    """Ids of rendered text; the parts of a broken special token cannot find together."""
    ids: list[int] = []
    for part in rendered.split(_BREAK):
      ids.extend(self.vocabulary.encode_special(part))
    return ids

  def _without_bos(self, ids: list[int]) -> list[int]:
    return ids[1:] if self.bos_id is not None and ids[:1] == [self.bos_id] else ids


def _shown(text: str) -> str:
  return repr(text if len(text) <= 40 else text[:40] + '...')
