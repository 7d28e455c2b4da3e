"""Vocabularies: round trips, what they lose, how they are kept, and every error."""

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flan_jax.data import vocabularies

T5_MODEL = 'data/tokenizer/t5/spiece.model'


@given(st.text())
def test_bytes_give_back_any_text(text):
  vocabulary = vocabularies.get_vocabulary('bytes')
  ids = vocabulary.encode(text.encode('utf-8', 'ignore').decode())
  assert vocabulary.decode(ids) == text.encode('utf-8', 'ignore').decode()
  assert all(3 <= i < vocabulary.size for i in ids)


def test_bytes_are_offset_by_three_as_in_byt5():
  vocabulary = vocabularies.get_vocabulary('bytes')
  assert vocabulary.encode('hé') == [3 + 104, 3 + 195, 3 + 169]
  assert (vocabulary.pad_id, vocabulary.eos_id, vocabulary.size) == (0, 1, 259)
  assert vocabulary.lossy_characters == ''


def test_bytes_that_are_not_utf8_are_shown_and_ids_beyond_the_size_are_not():
  vocabulary = vocabularies.get_vocabulary('bytes')
  assert vocabulary.decode([3 + 255, 107, 300]) == '\ufffdh'


@pytest.mark.parametrize('spec', ['bytes', T5_MODEL])
def test_decoding_skips_padding_and_ends_at_eos(spec, shared):
  vocabulary = vocabularies.get_vocabulary(spec if spec == 'bytes' else shared(spec))
  ids = vocabulary.encode('a cat sat')
  tail = [vocabulary.eos_id, *vocabulary.encode('dog'), vocabulary.pad_id]
  assert vocabulary.decode([vocabulary.pad_id, *ids, *tail]) == 'a cat sat'


def test_t5_has_32000_pieces_and_loses_newline_tab_and_braces(shared):
  vocabulary = vocabularies.get_vocabulary(shared(T5_MODEL))
  assert (vocabulary.size, vocabulary.pad_id, vocabulary.eos_id) == (32_000, 0, 1)
  assert set('\n\t{}') <= set(vocabulary.lossy_characters)
  assert not set('.,?!()') & set(vocabulary.lossy_characters)


def test_a_lossy_character_is_one_that_does_not_come_back(shared):
  vocabulary = vocabularies.get_vocabulary(shared(T5_MODEL))
  for character in vocabulary.lossy_characters:
    assert character not in vocabulary.decode(vocabulary.encode(f'a{character}b'))


def test_sentinel_ids_above_the_pieces_decode_as_unknown(shared):
  vocabulary = vocabularies.get_vocabulary(shared(T5_MODEL))
  assert vocabulary.decode([32_099, 3, 9]).endswith('a')


@pytest.mark.parametrize('spec', ['bytes', T5_MODEL])
def test_a_saved_vocabulary_loads_as_the_same(spec, shared, tmp_path):
  vocabulary = vocabularies.get_vocabulary(spec if spec == 'bytes' else shared(spec))
  vocabulary.save(tmp_path / 'vocabulary')
  for loaded in (
    vocabularies.load_vocabulary(tmp_path / 'vocabulary'),
    vocabularies.get_vocabulary(tmp_path / 'vocabulary'),
    pickle.loads(pickle.dumps(vocabulary)),
  ):
    assert loaded.fingerprint == vocabulary.fingerprint
    assert loaded.encode('a cat') == vocabulary.encode('a cat')
  assert not list((tmp_path / 'vocabulary').glob('.*'))


def test_a_missing_model_is_named(tmp_path):
  with pytest.raises(ValueError, match=r"no vocabulary at '.*none.model'; give 'bytes' or"):
    vocabularies.get_vocabulary(tmp_path / 'none.model')


def test_a_file_that_is_no_model_is_named_with_its_size(tmp_path):
  (tmp_path / 'x.model').write_bytes(b'not a model')
  with pytest.raises(ValueError, match=r'x.model. \(11 bytes\) is not a SentencePiece model'):
    vocabularies.get_vocabulary(tmp_path / 'x.model')


def test_an_empty_file_is_no_model(tmp_path):
  (tmp_path / 'x.model').write_bytes(b'')
  with pytest.raises(ValueError, match='is not a SentencePiece model'):
    vocabularies.get_vocabulary(tmp_path / 'x.model')


def test_a_model_without_eos_is_refused(tmp_path):
  import sentencepiece

  (tmp_path / 'text').write_text('one two three four five six seven eight nine ten\n' * 20)
  sentencepiece.SentencePieceTrainer.Train(
    f'--input={tmp_path}/text --model_prefix={tmp_path}/m --vocab_size=30 --eos_id=-1 '
    '--minloglevel=2 --hard_vocab_limit=false'
  )
  with pytest.raises(ValueError, match='has no end-of-sequence piece'):
    vocabularies.get_vocabulary(tmp_path / 'm.model')


def test_a_path_that_cannot_be_read_says_why(tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(ValueError, match='cannot be read: Not a directory'):
    vocabularies.get_vocabulary(tmp_path / 'file' / 'x.model')


def test_a_directory_without_a_vocabulary_is_named(tmp_path):
  with pytest.raises(ValueError, match='holds no vocabulary: vocabulary.json is missing'):
    vocabularies.load_vocabulary(tmp_path)


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    ('not json', "must be JSON with 'kind' and 'fingerprint'"),
    ('[]', "must be JSON with 'kind' and 'fingerprint'"),
    ('{"kind": "words", "fingerprint": "x"}', "kind 'words'; known kinds are"),
    ('{"kind": "bytes", "fingerprint": "x"}', 'has fingerprint utf8-offset-3 but was saved as x'),
  ],
)
def test_a_damaged_description_is_refused(content, message, tmp_path):
  (tmp_path / 'vocabulary.json').write_text(content)
  with pytest.raises(ValueError, match=message):
    vocabularies.load_vocabulary(tmp_path)


def test_a_replaced_model_is_refused(shared, tmp_path):
  vocabularies.get_vocabulary(shared(T5_MODEL)).save(tmp_path)
  description = json.loads((tmp_path / 'vocabulary.json').read_text())
  description['fingerprint'] = '0' * 32
  (tmp_path / 'vocabulary.json').write_text(json.dumps(description))
  with pytest.raises(ValueError, match='it was damaged or replaced'):
    vocabularies.load_vocabulary(tmp_path)
