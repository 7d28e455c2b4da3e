import collections

import pytest
from flan_jax.tasks import templates
from flan_jax.tasks.options import (
  KINDS,
  LETTERED,
  MAX_OPTIONS,
  PLAIN,
  OptionStyle,
  answer_label,
  choose_style,
  option_parts,
  render_options,
)
from flan_jax.tasks.readers import DataError
from flan_jax.tasks.templates import TemplateError, templates_hash
from hypothesis import given
from hypothesis import strategies as st

WORDS = ['red', 'dark blue', 'green']
option_lists = st.lists(
  st.from_regex(r'\A[a-z]+( [a-z]+)?\Z'), min_size=2, max_size=26, unique=True
)


def shown(style, count):
  """What tells the styles apart once blanks and line ends are folded, as T5 folds them."""
  return tuple(' '.join(style.label(i).split()) for i in range(count))


def test_the_plain_and_the_lettered_block_are_as_everybody_prints_them():
  assert render_options(PLAIN, ['a', 'b']) == ('OPTIONS:\n- a\n- b', None)
  assert render_options(LETTERED, ['a', 'b']) == ('OPTIONS:\n(A) a\n(B) b', ['(A)', '(B)'])
  assert answer_label(PLAIN, ['a', 'b'], 'b') == 'b'
  assert answer_label(LETTERED, ['a', 'b'], 'b') == '(B)'


def test_a_label_is_given_as_it_is_printed():
  style = OptionStyle('s', kind='letter_lower', before='(', after=').', between=' ', ending=';')
  assert render_options(style, WORDS)[0] == '(a). red; (b). dark blue; (c). green;'
  assert answer_label(style, WORDS, 'dark blue') == '(b).'


@pytest.mark.parametrize(
  'kind, labels',
  [
    ('letter_lower', 'a b c d z'),
    ('letter_upper', 'A B C D Z'),
    ('digit', '1 2 3 4 26'),
    ('roman_lower', 'i ii iii iv xxvi'),
    ('roman_upper', 'I II III IV XXVI'),
  ],
)
def test_items_are_counted_in_each_kind(kind, labels):
  style = OptionStyle('s', kind=kind, before='')
  assert [style.label(i) for i in (0, 1, 2, 3, 25)] == labels.split()
  assert len({style.label(i) for i in range(MAX_OPTIONS)}) == MAX_OPTIONS


def test_romans_count_over_the_tens():
  style = OptionStyle('s', kind='roman_lower', before='')
  assert [style.label(i) for i in (8, 9, 10, 18, 19, 23)] == ['ix', 'x', 'xi', 'xix', 'xx', 'xxiv']


def test_an_ending_is_not_put_behind_a_finished_sentence():
  style = OptionStyle('s', ending='.')
  assert render_options(style, ['It rained.', 'no', 'Why?'])[0] == '- It rained.\n- no.\n- Why?'


def test_a_label_that_is_also_an_option_cannot_answer():
  style = OptionStyle('s', kind='digit', before='', after='.')
  assert render_options(style, ['2.', '1.']) == ('1. 2.\n2. 1.', None)
  assert answer_label(style, ['2.', '1.'], '2.') == '2.'
  assert answer_label(style, ['7.', '8.'], '7.') == '1.'


@given(st.integers(), option_lists, st.data())
def test_a_style_is_a_function_of_its_key_and_the_target_points_at_the_answer(key, words, data):
  style = choose_style('task', key)
  assert style == choose_style('task', key)
  block, labels = render_options(style, words)
  answer = data.draw(st.sampled_from(words))
  target = answer_label(style, words, answer)
  assert block.startswith(style.heading)
  if style.kind == 'bullet':
    assert labels is None and target == answer
  elif labels is not None:
    assert len(set(labels)) == len(words)
    assert f'{target} {answer}' in block and target == labels[words.index(answer)]
  for word in words:
    assert word in block


def test_there_are_enough_styles_and_all_look_different_even_to_t5():
  parts = option_parts()
  assert len(parts.headings) >= 12 and '' in [h.heading for h in parts.headings]
  folded = {' '.join(h.heading.split()).casefold() for h in parts.headings}
  assert len(folded) == len(parts.headings)
  assert len(parts.items) >= 60
  assert len({shown(item, MAX_OPTIONS) for item in parts.items}) == len(parts.items)
  assert {item.kind for item in parts.items} == set(KINDS)
  assert [ending.ending for ending in parts.endings] == ['', ';', '.']
  for group in (parts.headings, parts.items, parts.endings):
    assert len({part.id for part in group}) == len(group)


def test_headings_end_where_the_first_item_can_begin():
  for heading in option_parts().headings:
    assert not heading.heading or heading.heading[-1] in ' \n', heading
  for item in option_parts().items:
    assert item.between.isspace(), item


def test_every_bullet_and_label_is_in_the_vocabulary_of_t5(shared):
  from flan_jax.data.vocabularies import get_vocabulary

  path = shared('data/tokenizer/t5/spiece.model')
  vocabulary = get_vocabulary(str(path))
  for item in option_parts().items:
    text = ' '.join(shown(item, MAX_OPTIONS))
    assert vocabulary.decode(vocabulary.encode(text)).replace(' ', '') == text.replace(' ', '')


def test_every_part_is_drawn_about_as_often_as_another():
  drawn = [choose_style('task', i, 0).id.split('/') for i in range(9000)]
  parts = option_parts()
  for place, group in enumerate((parts.headings, parts.items, parts.endings)):
    counts = collections.Counter(style[place] for style in drawn)
    expected = len(drawn) / len(group)
    assert set(counts) == {part.id for part in group}
    assert max(abs(n - expected) for n in counts.values()) < 5 * expected**0.5


def test_the_style_of_an_example_stays_what_it_is():
  # Golden: another id here means that every prepared example with options changes its text.
  assert choose_style('rte', '17', 0).id == 'may-answer/plus-box/point'
  assert choose_style('rte', '18', 0).id == 'options/roman-lower-colon/semicolon'
  assert len(templates_hash([option_parts()])) == 32


@pytest.mark.parametrize(
  'options, message',
  [
    ([], 'f line 3: there are 0 options; a choice has 2 to 26'),
    (['yes'], "there is 1 option, 'yes'; a choice has 2 to 26. Leave the row out with fields="),
    ([str(i) for i in range(27)], 'there are 27 options; a choice has 2 to 26'),
    (['yes', 'no', 'yes '], "options 1 and 3 are both 'yes'"),
    (['yes', ' '], 'option 2 of 2 is empty'),
    ('yes', "the options are the one text 'yes'; give a list"),
  ],
)
@pytest.mark.parametrize('style', [PLAIN, LETTERED])
def test_a_list_that_is_no_choice_is_refused(options, message, style):
  with pytest.raises(DataError, match=message):
    render_options(style, options, 'f line 3')
  with pytest.raises(DataError, match=message):
    answer_label(style, options, 'yes', 'f line 3')


@pytest.mark.parametrize('style', [PLAIN, LETTERED])
def test_an_answer_outside_the_options_is_named_with_the_nearest(style):
  message = "f row 2: the answer 'dark blu' is not among the options. Did you mean 'dark blue'"
  with pytest.raises(DataError, match=message) as e:
    answer_label(style, WORDS, 'dark blu', 'f row 2')
  assert "Options: 'dark blue', 'green', 'red'." in str(e.value)


def test_a_style_that_cannot_be_is_refused():
  with pytest.raises(TemplateError, match="'letter_uper'. Did you mean 'letter_upper'"):
    OptionStyle('s', kind='letter_uper')
  with pytest.raises(TemplateError, match="'s' has no bullet; give one, such as before='-'"):
    OptionStyle('s', before=' ')


@pytest.mark.parametrize(
  'text, message',
  [
    ('{', 'option_styles.json: Expecting property name'),
    ('{"headings": []}', 'it holds headings instead of endings, headings, items'),
    (
      '{"headings": [{"id": "x", "text": "y"}], "items": [], "endings": []}',
      "headings 'x' has 'text'; known: heading, id",
    ),
    ('{"headings": [{}], "items": [], "endings": []}', "required positional argument: 'id'"),
  ],
)
def test_a_damaged_file_of_styles_is_told(text, message, tmp_path, monkeypatch):
  (tmp_path / 'option_styles.json').write_text(text)
  monkeypatch.setattr(templates, 'DATA', tmp_path)
  option_parts.cache_clear()
  try:
    with pytest.raises(TemplateError, match=message):
      option_parts()
  finally:
    option_parts.cache_clear()
