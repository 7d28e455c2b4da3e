"""Choices ranked and beginnings shared give what reading everything for each choice gives."""

import dataclasses

import jax
import numpy as np
import pytest
from tiny import random_model

from flan_jax import decoding, partitioning
from flan_jax.data import layouts
from flan_jax.data.features import RowExamples
from flan_jax.models.config import TransformerConfig

VOCAB, EOS = 40, 1
ENCODER_DECODER = TransformerConfig(
  vocab_size=VOCAB,
  embed_dim=16,
  num_encoder_layers=1,
  num_decoder_layers=2,
  num_heads=4,
  head_dim=4,
  mlp_dim=16,
)
DECODER = dataclasses.replace(
  ENCODER_DECODER,
  num_encoder_layers=0,
  position='rope',
  query_scale=None,
  num_kv_heads=2,
  window=6,
  window_pattern=('local', 'global'),
)
CONFIGS = {'encoder_decoder': ENCODER_DECODER, 'decoder': DECODER}
MESH = partitioning.MeshConfig(data=2, fsdp=2, tensor=2)


def some_ids(rng, low, high):
  return rng.integers(2, VOCAB, rng.integers(low, high + 1)).astype(np.int32)


def layout_of(config, limits=(24, 8)):
  return (
    layouts.DecoderOnly(limits, inputs_end=False)
    if config.decoder_only
    else layouts.EncoderDecoder(limits)
  )


def pad_choices(choices):
  length = max(len(ids) for row in choices for ids in row)
  tokens = np.zeros((len(choices), len(choices[0]), length), np.int32)
  lengths = np.zeros(tokens.shape[:2], np.int32)
  for i, row in enumerate(choices):
    for j, ids in enumerate(row):
      tokens[i, j, : len(ids)], lengths[i, j] = ids, len(ids)
  return tokens, lengths


@pytest.fixture(scope='module')
def questions():
  """Eight prompts of unequal length with three choices each, of unequal length too."""
  rng = np.random.default_rng(0)
  prompts = [some_ids(rng, 3, 20) for _ in range(8)]
  return prompts, [[some_ids(rng, 1, 5) for _ in range(3)] for _ in prompts]


@pytest.mark.parametrize('mesh', [None, MESH], ids=['one_device', 'mesh'])
@pytest.mark.parametrize('name', CONFIGS)
def test_a_choice_is_as_likely_as_when_it_is_read_with_its_prompt(name, mesh, questions):
  config, (prompts, choices) = CONFIGS[name], questions
  layout = layout_of(config)

  def rank():
    model = random_model(config)
    tokens, lengths = pad_choices(choices)
    found = decoding.score_choices(model, layout.prompts(prompts, 8), tokens, lengths)
    return model, [np.asarray(x) for x in found]

  if mesh is None:
    model, (likelihoods, _) = rank()
  else:
    with partitioning.use_mesh(mesh):
      _, (likelihoods, _) = rank()
    model = random_model(config)
  for number in range(3):
    rows = RowExamples(
      inputs=prompts,
      targets=[row[number] for row in choices],
      collections=np.ones(8, np.int32),
      row_starts=np.arange(9),
    )
    batch = layout.assemble(rows)
    np.testing.assert_allclose(likelihoods[:, number], decoding.score(model, batch), atol=2e-4)
  assert likelihoods.std() > 1


def test_what_greedy_decoding_writes_is_said_to_be_greedy(questions):
  prompts, _ = questions
  layout = layout_of(DECODER)
  model = random_model(DECODER)
  decode = decoding.DecodeConfig(max_length=4, eos_id=VOCAB + 1)
  batch = layout.prompts(prompts, 8)
  decoded = decoding.generate(model, batch, decode)
  written = np.asarray(decoded.tokens)
  other = written.copy()
  other[:, :, -1] = 2 + other[:, :, -1] % (VOCAB - 2)  # another last token
  tokens = np.concatenate([written, other], axis=1)
  likelihoods, greedy = decoding.score_choices(model, batch, tokens, np.full((8, 2), 4, np.int32))
  np.testing.assert_array_equal(greedy, [[True, False]] * 8)
  np.testing.assert_allclose(likelihoods[:, 0], np.asarray(decoded.scores)[:, 0], atol=2e-4)


STRATEGIES = {
  'greedy': {},
  'sample': {'strategy': 'sample', 'num_samples': 2, 'temperature': 2.0},
  'beam': {'strategy': 'beam', 'num_beams': 3},
}


@pytest.mark.parametrize(
  'mesh', [pytest.param(None, marks=pytest.mark.slow), MESH], ids=['one_device', 'mesh']
)
@pytest.mark.parametrize(
  'strategy',
  ['greedy', *(pytest.param(name, marks=pytest.mark.slow) for name in ('sample', 'beam'))],
)
def test_a_beginning_that_is_read_once_changes_no_answer(strategy, mesh, questions):
  prompts, choices = questions
  shared = some_ids(np.random.default_rng(1), 16, 16)
  decode = decoding.DecodeConfig(max_length=6, eos_id=EOS, **STRATEGIES[strategy])
  whole = layout_of(DECODER, (40, 8)).prompts([np.append(shared, ids) for ids in prompts], 8)
  rest = layout_of(DECODER).prompts(prompts, 8)
  tokens, lengths = pad_choices(choices)
  key = jax.random.key(5)

  def both():
    model = random_model(DECODER)
    prefix = decoding.read_prefix(model, shared)
    return jax.device_get(
      [
        (
          decoding.generate(model, batch, decode, key=key, prefix=prefix),
          decoding.score_choices(model, batch, tokens, lengths, prefix=prefix),
        )
        for batch, prefix in ((whole, None), (rest, prefix))
      ]
    )

  if mesh is None:
    (alone, ranked_alone), (after, ranked_after) = both()
  else:
    with partitioning.use_mesh(mesh):
      (alone, ranked_alone), (after, ranked_after) = both()
  np.testing.assert_array_equal(after.tokens, alone.tokens)
  np.testing.assert_allclose(after.scores, alone.scores, atol=2e-4)
  np.testing.assert_allclose(ranked_after[0], ranked_alone[0], atol=2e-4)


@pytest.mark.parametrize('config', [ENCODER_DECODER, dataclasses.replace(DECODER, prefix_lm=True)])
def test_a_model_that_looks_ahead_reads_no_prefix(config):
  with pytest.raises(ValueError, match='reads its prompts whole'):
    decoding.read_prefix(random_model(config), np.array([3, 4], np.int32))
