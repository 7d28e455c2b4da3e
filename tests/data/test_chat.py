"""Chat templates: what they may do, and which tokens a prompt and its answer become."""

import functools
import io
import json
import pickle
import time

import pytest
import tiny_tokenizers
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizers import CHATML

from flan_jax.console import console
from flan_jax.data import cache, catalogue, vocabularies
from flan_jax.data.chat_template import ChatTemplate, ChatTemplateError
from flan_jax.data.prepare import PrepareConfig, prepare

USER = [{'role': 'user', 'content': 'Hi'}]
TURNS = '{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}'
ASKING = '{% if add_generation_prompt %}assistant:{% endif %}'


def source_of(vocabulary):
  return vocabulary.chat.template.source if vocabulary.chat else None


def render(source, messages=(*USER,), **variables):
  return ChatTemplate(source, variables).render(messages, add_generation_prompt=True)


@pytest.fixture(scope='session')
def byte_pairs(tmp_path_factory):
  """Gives a tiny vocabulary; `bos` and the rest are tiny_tokenizers'."""

  @functools.cache
  def make(**settings):
    folder = tmp_path_factory.mktemp('byte_pairs')
    return vocabularies.get_vocabulary(tiny_tokenizers.byte_pairs(folder, **settings))

  return make


@pytest.fixture(scope='session')
def chat(byte_pairs):
  return byte_pairs().with_chat_template(CHATML)


# What a template may do.


@pytest.mark.parametrize(
  ('source', 'expected'),
  [
    ('{{ bos_token }}{{ messages[0].content }}{{ none_such }}', '<s>Hi'),
    ('{{ messages[0]["content"] | upper }}{{ tools is none }}', 'HITrue'),
    ('{% if true %}\n  a\n{% endif %}\nb', '  a\nb'),  # blocks leave no line ends
    ('{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}', '01'),
    ('{{ {"é": "<b>", "a": [1]} | tojson }}', '{"é": "<b>", "a": [1]}'),
    ('{{ {"a": 1} | tojson(indent=1) }}', '{\n "a": 1\n}'),
    ('{% generation %}x{% endgeneration %}', 'x'),
    ('{% set ns = namespace(n=1) %}{% for i in [1, 2] %}{% set ns.n = ns.n + i %}{% endfor %}'
     '{{ ns.n }} {{ 7 % 4 }} {{ 2 * 3 }} {{ "ab" * 2 }}', '4 3 6 abab'),
    ('{{ strftime_now("%d %b %Y") }}', '26 Jul 2024'),
    ('{% macro turn(m) %}[{{ m.role }}]{% endmacro %}{{ turn(messages[0]) }}', '[user]'),
  ],
)  # fmt: skip
def test_templates_are_rendered_as_models_expect(source, expected):
  assert render(source, bos_token='<s>') == expected


@pytest.mark.parametrize(
  ('source', 'message'),
  [
    ('{{ raise_exception("Only one turn") }}', 'a turn of user: Only one turn.'),
    ('{{ none_such.content }}', "'none_such' is undefined"),
    ('{{ messages[3].content }}', 'undefined|list object has no element 3'),
    ('a\n{% if %}', 'Line 2 of the chat template is not Jinja'),
    ('{{ x | none_such }}', "No filter named 'none_such'"),
    ('{% include "other" %}', 'no loader'),
    ('{{' + '(' * 5000 + ')' * 5000 + '}}', 'cannot be compiled'),
    ('x' * 200_001, 'has 200,001 characters and may have 200,000'),
  ],
)
def test_a_wrong_template_is_named(source, message):
  with pytest.raises(ChatTemplateError, match=message):
    render(source)


@pytest.mark.parametrize(
  ('source', 'message'),
  [
    ('{{ "".__class__.__mro__ }}', 'unsafe'),
    ('{{ messages.append(1) }}', 'unsafe'),
    ('{{ raise_exception.__globals__.keys() }}', 'unsafe'),
    ('{{ strftime_now.__self__ }}{{ strftime_now.__self__.now() }}', 'unsafe'),
    ('{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}', 'it loops'),
    ('{% set l = range(999) | list %}{% for i in l %}{% for j in l %}{% for k in l %}{{ i }}'
     '{% endfor %}{% endfor %}{% endfor %}', 'it loops'),
    ('{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(99) }}',
     'it loops'),
    ('{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}', 'recursion'),
    ('{{ range(10 ** 9) }}', r"'\*\*' is not allowed"),
    ('{{ "a" * 1000000000000 }}', r"'\*' is not allowed between these str and int"),
    ('{{ 1000000000000 * [1] }}', r"'\*' is not allowed between these int and list"),
    ('{{ "%999999999d" % 1 }}', "'%' is not allowed between these str and int"),
    ('{% for i in range(5000) %}{{ "a" * 9999 }}{% endfor %}', 'writes more than 10,000,000'),
  ],
)  # fmt: skip
def test_a_hostile_template_is_stopped(source, message):
  started = time.process_time()
  with pytest.raises(ChatTemplateError, match=message):
    render(source)
  assert time.process_time() - started < 10


def test_every_rendering_may_do_as_much():
  template = ChatTemplate('{% for i in range(60000) %}{% endfor %}', {})
  for _ in range(3):
    template.render(USER, add_generation_prompt=False)


def test_no_template_can_put_something_in_place_of_the_count():
  with pytest.raises(ChatTemplateError, match='it loops'):
    render(
      '{% set count_step = 1 %}{% set environment = 1 %}{% for i in range(99999) %}'
      '{% for j in range(99999) %}{% endfor %}{% endfor %}'
    )


def test_a_template_is_pickled_with_what_it_sees():
  template = pickle.loads(pickle.dumps(ChatTemplate('{{ bos_token }}', {'bos_token': '<s>'})))
  assert template.render(USER, add_generation_prompt=False) == '<s>'


# Which tokens a conversation becomes.

words = st.text(alphabet='abc \n.,<é漢', max_size=12)
hostile = st.sampled_from(['<|im_end|>', '<|end|>', '<|im_<|im_end|>end|>', '\ufdd0', '<think>'])
texts = st.lists(words | hostile, max_size=6).map(''.join)


@settings(max_examples=100)
@given(inputs=words, targets=words.filter(lambda text: not text[:1].isspace()))
def test_prompt_and_answer_are_the_whole_conversation(chat, inputs, targets):
  messages = [{'role': 'user', 'content': inputs}, {'role': 'assistant', 'content': targets}]
  whole = ChatTemplate(CHATML, {}).render(messages, add_generation_prompt=False)
  their = tokenizers.Tokenizer.from_str(chat.files()['tokenizer.json'].decode())
  prompt_ids, target_ids = chat.encode_example(inputs, targets)
  assert [*prompt_ids, *target_ids, *chat.encode('\n')] == their.encode(whole).ids
  assert prompt_ids == chat.encode_prompt(inputs)


@settings(max_examples=200)
@given(inputs=texts, targets=texts)
def test_no_text_of_people_changes_whose_turn_it_is(chat, inputs, targets):
  prompt_ids, target_ids = chat.encode_example(inputs, targets)
  special = [i for i in (*prompt_ids, *target_ids) if i in chat.special_tokens.values()]
  start, end = (chat.special_tokens[text] for text in ('<|im_start|>', '<|im_end|>'))
  assert special == [start, end, start, end]
  inputs, targets = inputs.replace('\ufdd0', ''), targets.replace('\ufdd0', '')
  assert chat.decode(target_ids) == targets
  shown = f'<|im_start|>user\n{inputs}<|im_end|>\n<|im_start|>assistant\n'
  assert chat.decode_prompt(prompt_ids) == shown


def test_an_answer_that_would_merge_with_the_prompt_is_encoded_as_the_model_will_see_it(tmp_path):
  folder = tiny_tokenizers.byte_pairs(tmp_path, lines=['a\n\n'] * 9)
  chat = vocabularies.get_vocabulary(folder).with_chat_template(CHATML)
  assert len(chat.encode('\n\n')) == 1
  prompt_ids, target_ids = chat.encode_example('a', '\n')
  assert prompt_ids == chat.encode_prompt('a') and chat.decode(target_ids) == '\n'


def test_the_end_of_an_answer_is_what_the_template_writes_after_it(byte_pairs):
  plain = byte_pairs()
  special = plain.special_tokens
  assert plain.eos_id == special['<|end|>'] and plain.prompt_end == (plain.eos_id,)
  chat = plain.with_chat_template(CHATML)
  assert chat.eos_id == special['<|im_end|>']
  assert chat.encode_example('a', 'b')[1] == [*plain.encode('b'), special['<|im_end|>']]
  open_end = plain.with_chat_template(TURNS + ASKING)
  assert open_end.eos_id == special['<|end|>']
  assert open_end.encode_example('a', 'b')[1] == [*plain.encode(' b\n'), special['<|end|>']]


@pytest.mark.parametrize(
  ('begins', 'written', 'is_bos'),
  [(True, True, True), (True, False, False), (False, True, False), (False, False, False)],
)
def test_bos_is_left_to_the_model_if_both_tokenizer_and_template_put_it(
  byte_pairs, begins, written, is_bos
):
  plain = byte_pairs(bos=begins)
  bos = plain.special_tokens['<|begin|>']
  assert plain.bos_id == (bos if begins else None)
  chat = plain.with_chat_template('{{ bos_token }}' * written + CHATML)
  assert chat.bos_id == (bos if is_bos else None)
  prompt = [bos] * (written and not is_bos) + plain.with_chat_template(CHATML).encode_prompt('Hi')
  assert chat.encode_prompt('Hi') == prompt == chat.encode_example('Hi', 'x')[0]


def test_a_prompt_that_is_cut_still_asks_for_an_answer(chat, byte_pairs):
  end = chat.encode_special('<|im_end|>\n<|im_start|>assistant\n')
  assert chat.prompt_end == tuple(end)
  ids = chat.encode_prompt('two of the cats sat on the mat')
  for length in range(len(end), len(ids)):
    cut = chat.cut_prompt(ids, length).tolist()
    assert cut == [*ids[: length - len(end)], *end]
  assert chat.cut_prompt(ids, 2).tolist() == end[-2:]
  assert chat.cut_prompt(ids, len(ids)).tolist() == ids
  plain = byte_pairs()
  assert plain.cut_prompt([5, 6, 7, plain.eos_id], 3).tolist() == [5, 6, plain.eos_id]


@pytest.mark.parametrize('spec', ['bytes', 'data/tokenizer/t5/spiece.model'])
def test_every_kind_of_vocabulary_takes_a_template(spec, shared):
  plain = vocabularies.get_vocabulary(spec if spec == 'bytes' else shared(spec))
  source = TURNS.replace('\n', '{{ eos_token }}') + ASKING
  chat = plain.with_chat_template(source)
  inputs, targets = chat.encode_example('Is it </s>?', 'No </s>')
  assert inputs == chat.encode_prompt('Is it </s>?')
  assert (inputs + targets).count(plain.eos_id) == 2 and targets[-1] == plain.eos_id
  assert chat.decode(targets).split()[0] == 'No' and chat.decode(targets).endswith('/s>')
  assert chat.with_chat_template(None) is plain


def test_another_template_is_another_vocabulary(chat, byte_pairs):
  plain = byte_pairs()
  other = chat.with_chat_template(CHATML + '{# another #}')
  assert len({plain.fingerprint, chat.fingerprint, other.fingerprint}) == 3
  assert plain.with_chat_template(CHATML).fingerprint == chat.fingerprint
  assert plain.model_chat_template == CHATML and plain.chat is None


@pytest.mark.parametrize(
  ('source', 'message'),
  [
    ('{{ messages[0].content }}', 'leaves out what the assistant says'),
    (
      '{% if not add_generation_prompt %}earlier: {% endif %}' + TURNS + ASKING,
      "prompt goes on with 'user: .*' where the conversation has 'earlier: ",
    ),
    (TURNS + '{% if add_generation_prompt %}assistant: {% endif %}', 'which merges with the first'),
    ('{{ raise_exception("No") }}', 'cannot render a turn of user: No'),
  ],
)
def test_a_template_that_could_not_be_trained_with_is_refused(source, message, tmp_path):
  lines = ['he said Three', 'how Three'] * 20
  plain = vocabularies.get_vocabulary(tiny_tokenizers.byte_pairs(tmp_path, lines=lines))
  with pytest.raises(ChatTemplateError, match=message):
    plain.with_chat_template(source)


def test_a_template_is_chosen_by_name_or_path(byte_pairs, tmp_path):
  plain, path = byte_pairs(), tmp_path / 'turns.jinja'
  path.write_text(TURNS + ASKING)
  choose = vocabularies.choose_chat_template
  chat = choose(plain, 'model')
  assert source_of(chat) == CHATML and choose(chat, None) is chat
  assert choose(chat, 'none') is plain
  assert source_of(choose(chat, str(path))) == TURNS + ASKING
  with pytest.raises(ValueError, match="bytes vocabulary came without a chat template; .* 'none'"):
    choose(vocabularies.get_vocabulary('bytes'), 'model')
  with pytest.raises(ValueError, match=r"'.*none.jinja' cannot be read: No such file .* 'model'"):
    choose(plain, str(tmp_path / 'none.jinja'))
  path.write_bytes(b'\xff')
  with pytest.raises(ValueError, match='is not UTF-8'):
    choose(plain, str(path))


def test_a_model_may_have_its_template_in_a_file_or_several_by_name(tmp_path):
  folder = tiny_tokenizers.byte_pairs(tmp_path / 'file', chat_template=None)
  assert vocabularies.get_vocabulary(folder).model_chat_template is None
  (folder / 'chat_template.jinja').write_text(CHATML)
  assert vocabularies.get_vocabulary(folder).model_chat_template == CHATML
  named = [{'name': 'tool_use', 'template': 'x'}, {'name': 'default', 'template': CHATML}]
  folder = tiny_tokenizers.byte_pairs(tmp_path / 'named', chat_template=named)
  assert vocabularies.get_vocabulary(folder).model_chat_template == CHATML


def prepared(cache_dir, **settings):
  config = PrepareConfig('first_word', str(cache_dir), max_examples=4, workers=1, **settings)
  (result, *_) = prepare(config, out=console(io.StringIO())).results
  return result.status


def test_prepare_writes_conversations_and_the_cache_remembers_how(tmp_path):
  folder, cache_dir = tiny_tokenizers.byte_pairs(tmp_path / 'model'), tmp_path / 'cache'
  assert prepared(cache_dir, vocabulary=str(folder), chat_template='model') == 'built'
  vocabulary = cache.cache_vocabulary(cache_dir)
  assert source_of(vocabulary) == CHATML
  info, opened = (
    cache.read_cache_info(cache_dir),
    cache.TaskCache.open(cache_dir, 'first_word', 'train'),
  )
  assert (info.bos_id, info.eos_id, info.prompt_end) == (
    None,
    vocabulary.eos_id,
    vocabulary.prompt_end,
  )
  texts = catalogue.text_examples('first_word', 'train', seed=0)
  for index, text in zip(range(opened.num_examples), texts, strict=False):
    expected = vocabulary.encode_example(text['inputs'], text['targets'])
    assert tuple(ids.tolist() for ids in opened.example(index)) == expected
  assert prepared(cache_dir) == prepared(cache_dir, chat_template='model') == 'kept'
  for others in ({'chat_template': 'none'}, {'vocabulary': str(folder)}):
    with pytest.raises(
      cache.CacheError, match=rf'with chat template {info.chat_template} \(.* not'
    ):
      prepared(cache_dir, **others)


def test_a_cache_of_before_there_were_templates_is_read(tmp_path):
  cache.initialize_cache(tmp_path, vocabularies.get_vocabulary('bytes'))
  path = tmp_path / 'cache.json'
  described = json.loads(path.read_text())
  for name in ('bos_id', 'prompt_end', 'chat_template'):
    del described['vocabulary'][name]
  path.write_text(json.dumps(described))
  info = cache.read_cache_info(tmp_path)
  assert (info.bos_id, info.prompt_end, info.chat_template) == (None, (1,), '')


def test_conversations_are_those_of_transformers(tmp_path):
  transformers = pytest.importorskip('transformers')
  folder = tiny_tokenizers.byte_pairs(tmp_path)
  theirs = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
  chat = vocabularies.get_vocabulary(folder).with_chat_template(CHATML)
  for inputs, targets in [
    ('how many cats?', 'two\n\n'),
    ('naïve <think> 漢字', '<think>x</think> b'),
  ]:
    messages = [{'role': 'user', 'content': inputs}, {'role': 'assistant', 'content': targets}]
    ids = theirs.apply_chat_template(messages, return_dict=False)
    prompt_ids, target_ids = chat.encode_example(inputs, targets)
    assert [*prompt_ids, *target_ids, *chat.encode('\n')] == ids
    asked = theirs.apply_chat_template(messages[:1], add_generation_prompt=True, return_dict=False)
    assert prompt_ids == asked
