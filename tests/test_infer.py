"""Inference: one answer a line, in order, whatever happens; bad input refused before decoding."""

import dataclasses
import errno
import io
import json
import os
import resource
import signal
import subprocess
import sys
import textwrap

import jax
import pytest
from flax import nnx

from flan_jax import answer_files, decoding, infer, partitioning
from flan_jax.data.vocabularies import ByteVocabulary
from flan_jax.models.config import TransformerConfig
from flan_jax.models.transformer import Transformer

VOCABULARY = ByteVocabulary()
MODEL = TransformerConfig(
  vocab_size=259,
  embed_dim=8,
  num_encoder_layers=1,
  num_decoder_layers=1,
  num_heads=2,
  head_dim=4,
  mlp_dim=16,
  dtype='float32',
)
CONFIG = infer.InferConfig(
  input_length=32,
  batch_rows=8,
  decode=decoding.DecodeConfig(max_length=6),
  checkpoint='step 7',
  buckets=1,
)


def make_model():
  return Transformer(MODEL, nnx.Rngs(params=jax.random.key(3)))


@pytest.fixture(scope='module')
def model():
  return jax.jit(make_model)()


def write_input(path, lines=20):
  rows = [
    {'inputs' if i % 2 else 'prompt': 'é' * (i % 5) + f' number {i}', 'id': i, 'tags': ['a', None]}
    for i in range(lines)
  ]
  path.write_text(''.join(json.dumps(row, ensure_ascii=False) + '\n' for row in rows), 'utf-8')
  return rows


def read_rows(path):
  return [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines()]


@pytest.fixture
def files(tmp_path):
  write_input(tmp_path / 'in.jsonl')
  return tmp_path / 'in.jsonl', tmp_path / 'out.jsonl'


def test_every_line_is_answered_in_order_and_keeps_its_keys(model, tmp_path):
  rows = write_input(tmp_path / 'in.jsonl')
  summary = infer.infer(model, VOCABULARY, tmp_path / 'in.jsonl', tmp_path / 'out.jsonl', CONFIG)
  found = read_rows(tmp_path / 'out.jsonl')
  assert summary == infer.InferSummary(lines=20, answered=20, truncated=0)
  assert [row['index'] for row in found] == list(range(20))
  for row, answered in zip(rows, found, strict=True):
    assert {key: answered[key] for key in row} == row
    assert set(answered) - set(row) == {'index', 'prediction', 'score'}
    (alone,) = infer.answer(model, VOCABULARY, [answer_files.prompt_of(row)], CONFIG)
    assert (answered['prediction'], answered['score']) == (alone.text, alone.score)


def test_answers_on_a_mesh_are_those_of_one_device(model, files):
  prompts = [answer_files.prompt_of(row) for row in read_rows(files[0])[:8]]
  expected = infer.answer(model, VOCABULARY, prompts, CONFIG)
  with partitioning.use_mesh(partitioning.MeshConfig(data=2, fsdp=2, tensor=2)):
    found = infer.answer(jax.jit(make_model)(), VOCABULARY, prompts, CONFIG)
  assert [a.text for a in found] == [a.text for a in expected]
  assert [a.score for a in found] == pytest.approx([a.score for a in expected], abs=1e-4)


@pytest.mark.parametrize('kept', [0, 1, 150, -3])
def test_a_torn_output_is_repaired_and_finished_to_the_same_bytes(model, files, kept):
  """`kept` bytes of the output survive a kill; -3 tears the last line."""
  infer.infer(model, VOCABULARY, *files, CONFIG)
  whole = files[1].read_bytes()
  files[1].write_bytes(whole[:kept])
  summary = infer.infer(model, VOCABULARY, *files, dataclasses.replace(CONFIG, seed=5))
  assert files[1].read_bytes() == whole
  assert summary.answered == 20 - whole[:kept].count(b'\n')


def test_a_finished_output_is_left_alone(model, files):
  infer.infer(model, VOCABULARY, *files, CONFIG)
  before = files[1].read_bytes()
  assert infer.infer(model, VOCABULARY, *files, CONFIG).answered == 0
  assert files[1].read_bytes() == before


def test_a_run_killed_while_answering_goes_on_to_the_same_bytes(model, tmp_path):
  write_input(tmp_path / 'in.jsonl', 600)
  config = dataclasses.replace(CONFIG, batch_rows=8)
  infer.infer(model, VOCABULARY, tmp_path / 'in.jsonl', tmp_path / 'whole.jsonl', config)
  program = f"""
    import sys
    sys.path.insert(0, {os.path.dirname(__file__)!r})
    import test_infer as t
    t.infer.infer(t.jax.jit(t.make_model)(), t.VOCABULARY,
                  {str(tmp_path / 'in.jsonl')!r}, {str(tmp_path / 'out.jsonl')!r}, t.CONFIG)
  """
  process = subprocess.Popen([sys.executable, '-c', textwrap.dedent(program)])
  try:
    while process.poll() is None:
      path = tmp_path / 'out.jsonl'
      if path.exists() and path.stat().st_size:
        process.send_signal(signal.SIGKILL)
        break
  finally:
    process.kill()
    process.wait()
  infer.infer(model, VOCABULARY, tmp_path / 'in.jsonl', tmp_path / 'out.jsonl', config)
  assert (tmp_path / 'out.jsonl').read_bytes() == (tmp_path / 'whole.jsonl').read_bytes()


def test_sampled_answers_do_not_depend_on_batching(model, files, tmp_path):
  decode = decoding.DecodeConfig(max_length=6, strategy='sample', num_samples=2)
  config = dataclasses.replace(CONFIG, decode=decode)
  infer.infer(model, VOCABULARY, *files, config)
  rows = read_rows(files[1])
  assert all(len(row['candidates']) == 2 for row in rows)
  assert all(row['prediction'] == row['candidates'][0]['prediction'] for row in rows)
  assert all(row['candidates'][0]['score'] >= row['candidates'][1]['score'] for row in rows)
  other = dataclasses.replace(config, batch_rows=4)
  infer.infer(model, VOCABULARY, files[0], tmp_path / 'other.jsonl', other)
  assert [r['prediction'] for r in read_rows(tmp_path / 'other.jsonl')] == [
    r['prediction'] for r in rows
  ]
  with pytest.raises(ValueError, match='seed is 9, there 0'):
    infer.infer(model, VOCABULARY, *files, dataclasses.replace(config, seed=9))


def test_a_prompt_that_is_too_long_is_cut_marked_and_counted(model, tmp_path, capsys):
  path = tmp_path / 'in.jsonl'
  path.write_text('{"prompt": "' + 'a' * 50 + '"}\n{"prompt": "' + 'a' * 31 + '"}\n{"prompt": ""}')
  summary = infer.infer(model, VOCABULARY, path, tmp_path / 'out.jsonl', CONFIG)
  first, second, third = read_rows(tmp_path / 'out.jsonl')
  assert summary.truncated == 1
  assert first['truncated_input_tokens'] == 19
  assert 'truncated_input_tokens' not in second | third
  assert first['prediction'] == second['prediction']  # 31 letters and EOS remain of both
  assert '1 prompts were cut' in capsys.readouterr().out


@pytest.mark.parametrize(
  'content, message',
  [
    (b'', "in.jsonl' is empty; give one JSON object a line"),
    (b'{"prompt": "a"}\nnope\n', 'line 2 is not JSON: Expecting value at character 1'),
    (b'{"prompt": "a"}\n\n{"prompt": "b"}\n', 'line 2 is blank; remove it'),
    (b'{"prompt": "\xff"}\n', r'line 1 is not UTF-8 \(byte 13\); convert the file'),
    (b'["a"]\n', 'line 1 is a JSON array; give an object such as'),
    (b'{"promt": "a"}\n', 'has neither "inputs" nor "prompt" but "promt". Rename "promt" to "pro'),
    (b'{"Input": "a"}\n', 'has neither .* Rename "Input" to "inputs"'),
    (b'{}\n', 'has neither "inputs" nor "prompt" but no key at all'),
    (b'{"prompt": "a", "inputs": "b"}\n', 'line 1 has both "inputs" and "prompt"'),
    (b'{"prompt": 3}\n', 'line 1: "prompt" is a JSON number; give a string'),
    (b'{"prompt": null}\n', 'line 1: "prompt" is a JSON null; give a string'),
    (b'{"prompt": "a", "score": 1}\n', 'has the key "score", which the answer would need'),
    (b'{"prompt": "\\ud800"}\n', 'line 1 has half of a surrogate pair'),
    (b'[' * 100_000 + b'\n', 'line 1 is JSON that cannot be read'),
    (b'{"prompt": "a"}\n{"prom', 'line 2 is not JSON'),
  ],
)
def test_a_bad_line_stops_everything_before_the_first_answer(model, tmp_path, content, message):
  (tmp_path / 'in.jsonl').write_bytes(content)
  with pytest.raises(ValueError, match=message):
    infer.infer(model, VOCABULARY, tmp_path / 'in.jsonl', tmp_path / 'out.jsonl', CONFIG)
  assert sorted(os.listdir(tmp_path)) == ['in.jsonl']


def test_an_input_that_is_not_there_is_named(model, tmp_path):
  with pytest.raises(ValueError, match=r"The input '.*in.jsonl' does not exist"):
    infer.infer(model, VOCABULARY, tmp_path / 'in.jsonl', tmp_path / 'out.jsonl', CONFIG)
  with pytest.raises(ValueError, match='is not a regular file; give a file of JSON lines'):
    infer.infer(model, VOCABULARY, tmp_path, tmp_path / 'out.jsonl', CONFIG)


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'checkpoint': 'step 8'}, 'made from something else: checkpoint is "step 8", there "step 7"'),
    ({'input_length': 16}, 'input_length is 16, there 32'),
    ({'decode': decoding.DecodeConfig(max_length=5)}, 'decode.max_length is 5, there 6'),
  ],
)
def test_an_output_of_other_settings_is_refused(model, files, changes, message):
  infer.infer(model, VOCABULARY, *files, CONFIG)
  before = files[1].read_bytes()
  with pytest.raises(ValueError, match=message):
    infer.infer(model, VOCABULARY, *files, dataclasses.replace(CONFIG, **changes))
  assert files[1].read_bytes() == before


def test_an_output_of_another_input_is_refused(model, files):
  infer.infer(model, VOCABULARY, *files, CONFIG)
  files[0].write_text('{"prompt": "another"}\n')
  with pytest.raises(ValueError, match='input.blake2b is .*; input.lines is 1, there 20'):
    infer.infer(model, VOCABULARY, *files, CONFIG)


def test_an_output_that_is_not_ours_is_refused_and_kept(model, files):
  files[1].write_text('precious\n')
  with pytest.raises(ValueError, match='nothing says what it was made from'):
    infer.infer(model, VOCABULARY, *files, CONFIG)
  assert files[1].read_text() == 'precious\n'
  with pytest.raises(ValueError, match='Input and output are one file'):
    infer.infer(model, VOCABULARY, files[0], files[0], CONFIG)


def test_an_output_that_something_else_wrote_to_is_refused(model, files):
  infer.infer(model, VOCABULARY, *files, CONFIG)
  lines = files[1].read_bytes().splitlines(keepends=True)
  files[1].write_bytes(b''.join([*lines[:3], b'{"index": 9, "prediction": "x"}\n', *lines[4:]]))
  with pytest.raises(ValueError, match="out.jsonl' line 4 is not the answer to line 4"):
    infer.infer(model, VOCABULARY, *files, CONFIG)
  files[1].write_bytes(b''.join([*lines, lines[-1]]))
  with pytest.raises(ValueError, match='line 21 is not the answer to line 21'):
    infer.infer(model, VOCABULARY, *files, CONFIG)
  header = files[1].with_name('out.jsonl.header.json')
  header.write_text('{')
  with pytest.raises(ValueError, match="header.json' cannot be read"):
    infer.infer(model, VOCABULARY, *files, CONFIG)


def test_an_output_that_cannot_be_made_is_refused_before_decoding(model, files, tmp_path):
  with pytest.raises(ValueError, match="out.jsonl' cannot be written: No such file"):
    infer.infer(model, VOCABULARY, files[0], tmp_path / 'no' / 'out.jsonl', CONFIG)


def test_a_full_disk_keeps_whole_windows_and_the_next_run_goes_on(tmp_path):
  """The limit on the size of a file stands for the disk: writing past it fails in the same way."""
  write_input(tmp_path / 'in.jsonl', 6)
  source = answer_files.check_input(tmp_path / 'in.jsonl')
  rows = [{'index': i, 'prediction': 'x' * 300, 'score': 0.0} for i in range(6)]
  path = tmp_path / 'out.jsonl'
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  with answer_files.AnswerFile(path, source, {}) as output:
    assert output.open() == 0
    output.append(rows[:2])
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
      with pytest.raises(ValueError, match=f'{os.strerror(errno.EFBIG)}. The answers before are'):
        output.append(rows[2:4])
    finally:
      resource.setrlimit(resource.RLIMIT_FSIZE, before)
  assert [row['index'] for row in read_rows(path)] == [0, 1]
  with answer_files.AnswerFile(path, source, {}) as output:
    assert output.open() == 2
    output.append(rows[2:])
  assert [row['index'] for row in read_rows(path)] == list(range(6))


class Terminal(io.StringIO):
  def isatty(self):
    return True


@pytest.mark.slow
def test_a_session_answers_each_line_and_escapes_what_moves_the_cursor(model, monkeypatch):
  out = io.StringIO()
  infer.generate_session(model, VOCABULARY, CONFIG, stdin=Terminal('one\n\ntwo'), stdout=out)
  assert out.getvalue().count('> ') >= 4  # two prompts, a blank line, the end
  assert all(c.isprintable() or c == '\n' for c in out.getvalue())
  answers = infer.answer(model, VOCABULARY, ['one', 'two'], CONFIG)
  shown = [infer.console.visible(a.text, newlines=True) for a in answers]
  assert all(text in out.getvalue() for text in shown)


def test_one_prompt_is_answered_alone_also_on_a_mesh_of_eight(model):
  one, eight = io.StringIO(), io.StringIO()
  config = dataclasses.replace(CONFIG, batch_rows=1)
  infer.generate_session(model, VOCABULARY, config, prompt='a' * 40, stdout=one)
  with partitioning.use_mesh(partitioning.MeshConfig()):
    model = jax.jit(make_model)()
    infer.generate_session(model, VOCABULARY, config, prompt='a' * 40, stdout=eight)
  assert one.getvalue() == eight.getvalue()
  assert one.getvalue().startswith('(The last 9 tokens of the prompt were cut.)\n')


def test_text_that_is_not_utf8_is_refused_in_a_session(model):
  stdin = io.TextIOWrapper(io.BytesIO(b'\xff\xfe\n'), encoding='utf-8')
  with pytest.raises(ValueError, match=r'The prompt is not UTF-8 \(byte 1\)'):
    infer.generate_session(model, VOCABULARY, CONFIG, stdin=stdin, stdout=io.StringIO())
  with pytest.raises(ValueError, match='The prompt is not UTF-8; type or pass valid text'):
    infer.generate_session(model, VOCABULARY, CONFIG, prompt='\udcff', stdout=io.StringIO())
