"""Plans of a tiny run: on eight CPU devices, and compiled for a TPU where libtpu is installed."""

import dataclasses
import functools
import re

import jax
import pytest
import tiny

from flan_jax import main, partitioning
from flan_jax.models.tiled_attention import ATTENTION, GRADIENTS
from flan_jax.planning import executable, hlo, report, search, steps, topologies
from flan_jax.planning import plan as planner

LAYERS = 3


@functools.cache
def run(rules='fsdp_tensor', **mesh):
  sizes = mesh or {'data': 1, 'fsdp': 4, 'tensor': 2}
  model = {'num_encoder_layers': LAYERS, 'num_decoder_layers': LAYERS, 'remat': 'full'}
  config = tiny.make_config('', model=model)
  return dataclasses.replace(config, mesh=partitioning.MeshConfig(**sizes, rules=rules))


@functools.cache
def compiled(step='train'):
  config = run()
  mesh = partitioning.make_mesh(config.mesh)
  return steps.lower(step, config, mesh).compile(), mesh


def test_no_parameter_of_all_layers_is_gathered_outside_the_scan():
  program = hlo.read(compiled()[0].as_text())
  assert planner.gathered_outside_scan(program, run()) == []
  in_scan = [c for c in program.collectives if c.kind == 'all-gather' and c.count == LAYERS]
  assert len(in_scan) >= 2 * 7, 'every kernel of both stacks is gathered layer by layer'


def test_a_gather_of_all_layers_is_found():
  kernel = hlo.Collective('all-gather', (LAYERS, 16, 32), 6144, 1, (0, 1), 'reshard')
  program = hlo.Program((kernel, dataclasses.replace(kernel, shape=(16, 32))))
  assert planner.gathered_outside_scan(program, run()) == [kernel]


def test_classes_of_memory_add_up_to_what_xla_says():
  step, mesh = compiled()
  memory = planner.read_memory('train', step, run(), mesh)
  stats = step.memory_analysis()
  assert memory.parameters + memory.optimizer + memory.inputs == stats.argument_size_in_bytes
  assert memory.gradients + memory.temporaries == stats.temp_size_in_bytes
  with partitioning.use_mesh(mesh):
    model = tiny.random_model(run().model)
  on_a_device = sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(model))
  assert memory.parameters == on_a_device


def test_what_a_chip_computes_is_its_share_of_the_model_and_of_recomputation():
  from flan_jax.models.config import train_step_flops

  config, lengths = run(), run().data.lengths
  model = train_step_flops(config.model, 8, lengths['inputs'], lengths['targets'])
  counted = hlo.read(compiled()[0].as_text()).flops * 8
  assert model < counted < 2 * model


@pytest.mark.parametrize('step', ['prefill', 'decode'])
def test_steps_of_decoding_compile_from_shapes_alone(step):
  program = hlo.read(compiled(step)[0].as_text())
  assert program.flops > 0
  assert program.unknown_loops == 0


def test_a_parameter_that_no_chip_shares_is_named():
  config = run()
  mesh = partitioning.make_mesh(config.mesh)
  whole = steps.replicated(config, mesh, least_bytes=1)
  assert 'encoder.norm.scale' in whole
  assert not any('attention.query' in path for path in whole)
  assert steps.replicated(config, mesh) == []


def plan_of(memory, *, missing=0, config=None, step='train'):
  topology = topologies.parse('v5e-8')
  program = hlo.Program()
  made = planner.StepPlan(step, memory, missing, 1e12, program, None, 1.0)
  return planner.Plan(config or run(), topology, {'data': 2, 'fsdp': 4}, (made,), ())


def test_a_plan_fits_when_a_quarter_of_the_memory_is_free():
  chip = topologies.CHIPS['v5e'].hbm_bytes
  sizes = dict.fromkeys([f.name for f in dataclasses.fields(planner.Memory)], 0)
  for share, fits in ((0.74, True), (0.76, False)):
    memory = planner.Memory(**{**sizes, 'temporaries': int(share * chip)})
    assert plan_of(memory).fits is fits


def test_what_does_not_fit_says_by_how_much_and_what_would(capsys):
  from flan_jax import console

  model = dataclasses.replace(run().model, remat='none')
  data = dataclasses.replace(run().data, batch_rows=32)
  config = dataclasses.replace(run(), model=model, data=data)
  found = plan_of(None, missing=20 * 2**30, config=config)
  report.print_plan(console.console(), found)
  text = capsys.readouterr().out
  assert 'lacks 20.0 GiB of 16' in text
  for way in ("REMAT='full'", 'MICROBATCHES=4', 'fsdp=-1', '32 chips with the same BATCH_SIZE'):
    assert way in text
  # 36 GiB in three quarters of 16 are 3 times the chips, and slices double.
  assert report.as_json(found)['steps'][0]['missing_bytes'] == 20 * 2**30
  few_rows = dataclasses.replace(config, data=dataclasses.replace(data, batch_rows=8))
  found = plan_of(None, missing=20 * 2**30, config=few_rows)
  assert '32 chips with BATCH_SIZE=32' in search.advice(found, found.steps[0])


def test_xlas_refusal_is_read_and_other_errors_are_raised():
  refusal = RuntimeError('Ran out of memory in memory space hbm. Exceeded hbm capacity by 14.25G.')
  assert planner.missing_bytes(refusal, 2**30) == int(14.25 * 2**30)
  early = RuntimeError(
    'RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries '
    '(31.50G) exceeds available HBM (15.75G).'
  )
  assert planner.missing_bytes(early, 2**30) == int(16.75 * 2**30)
  with pytest.raises(RuntimeError, match='else'):
    planner.missing_bytes(RuntimeError('something else'), 0)


@pytest.mark.slow
def test_a_search_tries_meshes_that_divide_before_it_keeps_more_in_memory(monkeypatch):
  tried = []

  def record(config, topology):
    del topology
    tried.append((config.mesh.tensor, config.model.remat, config.microbatches))
    return plan_of(None, config=config)

  monkeypatch.setattr(search, 'plan', record)
  plans = search.search(run(), topologies.parse('v5e-8'), 4, lambda plan: None)
  assert len(plans) == 4
  assert tried[0] == (2, 'full', 1)
  assert len({tensor for tensor, remat, _ in tried if remat == 'full'}) > 1


def test_an_executable_is_loaded_with_the_trees_of_the_step_it_was(tmp_path):
  step, mesh = compiled()
  executable.write(tmp_path / 'step.exe', step)
  loaded = executable.read(tmp_path / 'step.exe', run(), mesh)
  assert loaded.in_tree == step.in_tree
  assert loaded.out_tree == step.out_tree


def test_unrolled_layers_are_told_to_take_long():
  unrolled = dataclasses.replace(run(), model=dataclasses.replace(run().model, scan_layers=False))
  assert planner.slow_to_compile(run()) == ''
  assert f'each of the {2 * LAYERS} layers' in planner.slow_to_compile(unrolled)


@pytest.mark.parametrize(
  'flags, words',
  [
    (['--topology', 'v5p-100'], "No TPU topology 'v5p-100'. Did you mean"),
    (['--topology', 'v5e-4', '--search', '2', '--save', 'x'], '--search compares training steps'),
    (['--topology', 'v5e-4', '--step', 'all', '--save', 'x'], 'say which with --step'),
  ],
)
def test_bad_flags_are_refused_in_a_sentence(flags, words, capsys):
  files = ['--gin_file', 'runs/train.gin', '--gin_file', 'models/t5_1_1/small.gin']
  assert main.console(['plan', *files, '--steps', '10', *flags]) == 1
  assert words in capsys.readouterr().err


@pytest.fixture(scope='module')
def tpu_plan(tmp_path_factory):
  pytest.importorskip('libtpu', reason="compiling for a TPU needs pip install 'flan_jax[plan]'")
  topologies.use_cpu()
  path = tmp_path_factory.mktemp('plan') / 'step.exe'
  config = run(data=1, fsdp=2, tensor=2)
  yield planner.plan(config, topologies.parse('v5e-4'), save=path), path
  jax.config.update('jax_enable_compilation_cache', True)  # for the tests that follow


def test_a_tiny_run_compiles_for_a_tpu(tpu_plan):
  found, path = tpu_plan
  (step,) = found.steps
  assert found.fits
  assert step.estimate.step > 0
  assert planner.gathered_outside_scan(step.program, found.config) == []
  assert {e.axes for e in step.estimate.exchanges} & {'fsdp', 'tensor'}
  assert path.stat().st_size > 10_000


@pytest.mark.parametrize('remat, forward', [('minimal', 1), ('full', 2)])
def test_on_a_tpu_no_array_holds_scores_forward_or_backward(tpu_plan, remat, forward):
  del tpu_plan
  lengths = {'inputs': 640, 'targets': 384}  # in tiles of 128
  config = run(data=1, fsdp=2, tensor=2)
  data = dataclasses.replace(config.data, lengths=lengths)
  config = dataclasses.replace(
    config, data=data, model=dataclasses.replace(config.model, remat=remat)
  )
  mesh = planner.make_mesh(config, topologies.parse('v5e-4'))
  text = steps.lower('train', config, mesh).compile().as_text()
  scores = [(a, b) for a in lengths.values() for b in lengths.values()]
  shapes = {
    tuple(map(int, dims.split(','))) for dims in re.findall(r'(?:f32|bf16)\[([\d,]+)\]', text)
  }
  assert not [shape for shape in shapes if shape[-2:] in scores and len(shape) > 2]
  kernels = [work for work in hlo.read(text).work if work.exponentials]
  assert {work.kernel for work in kernels} == {ATTENTION, GRADIENTS}
  # Self-attention of both stacks, and across.
  assert sum(work.count for work in kernels) == (forward + 1) * 3 * LAYERS


def test_an_executable_of_another_jax_is_refused(tpu_plan, monkeypatch):
  _, path = tpu_plan
  monkeypatch.setattr(jax, '__version__', '0.0.1')
  with pytest.raises(ValueError, match='plan again'):
    executable.read(path, run(), partitioning.make_mesh(run().mesh))


def test_a_mesh_axis_may_share_a_dimension_of_the_torus_and_must_multiply_out(tpu_plan):
  del tpu_plan
  mesh = planner.make_mesh(run(data=1, fsdp=2, tensor=32), topologies.parse('v5p-128'))
  assert len({tuple(chip.coords) for chip in mesh.devices[0, 0, :, 0]}) == 32
  with pytest.raises(ValueError, match='there are 64; use'):
    planner.make_mesh(run(data=1, fsdp=8, tensor=2), topologies.parse('v5p-128'))
