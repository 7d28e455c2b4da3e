"""The command line and gin: what is wrong is one sentence with the nearest name."""

import collections
import json
import re
from pathlib import Path

import pytest
import tiny

from flan_jax import main

GOLDEN = Path(__file__).parent / 'golden'
REQUIRED = ['--gin.MODEL=@model_config.TransformerConfig()', '--mixture=m', '--cache_dir=c']
RUN = ['train', '--gin_file=runs/train.gin', '--gin_file=models/t5_1_1/tiny.gin', '--workdir=w']


def fails(capsys, *argv):
  """The exit status and what was said."""
  status = main.console(argv)
  said = capsys.readouterr().err
  assert said.startswith('flan-jax: ') and len(said.strip().splitlines()) == 1, said
  return status, said


@pytest.mark.parametrize(
  ('argv', 'sentence'),
  [
    ((), 'Which verb? One of: list, prepare'),
    (('trian',), "No verb 'trian'. Did you mean 'train'?"),
    (('list', 'task'), "No kind 'task'. Did you mean 'tasks'?"),
    (('list', '--jsn'), "takes no '--jsn'. Did you mean '--json'?"),
    (('export-text', '--mixture', 'm'), 'the following arguments are required: --out'),
    (
      ('report', '--workdir', 'w', '--gin.SEED=1'),
      'belong to `flan-jax train`, `plan` and `prepare`',
    ),
    (('train', '--workdir', 'w', '--gin_file', 'runs/trian.gin'), "Did you mean 'runs/train.gin'?"),
    (('prepare', '--gin.COT_DIRS=x'), "no macro COT_DIRS. Did you mean 'COT_DIR'?"),
    (('prepare', '--mixture', 'demo'), 'needs --cache_dir, or CACHE_DIR in a gin file'),
  ],
)
def test_wrong_words_are_one_sentence_with_the_nearest(capsys, argv, sentence):
  status, said = fails(capsys, *argv)
  assert status == 2
  assert sentence in said


@pytest.mark.parametrize(
  ('bindings', 'sentence'),
  [
    (['--gin.TRAIN_STEP=3'], 'Did you mean TRAIN_STEPS by TRAIN_STEP?'),
    (['--steps=3', '--gin.LEARNING_RAT=1'], "LEARNING_RAT (command line). Did you mean 'LEARN"),
    (['--steps=3', '--gin.train.TrainConfig.step=3'], "no parameter 'step'. Did you mean 'steps'?"),
    (['--steps=3', '--gin.train.TrainConfi.steps=3'], "Did you mean 'TrainConfig'?"),
    (
      ['--steps=3', '--gin.trian.TrainConfig.steps=3'],
      "no module of the gin files. Did you mean 't",
    ),
    (['--steps=3', '--gin.SEED=%SED'], "No macro %SED is defined. Did you mean 'SEED'?"),
    (['--steps=3', '--gin.SEED=@nothing()'], "'nothing' is no module of the gin files"),
    (['--steps=3', '--gin.SEED="0'], 'Unable to parse value'),
    (['--steps=3', '--gin.BATCH_SIZE=6', '--gin.MICROBATCHES=4'], 'MICROBATCHES=4; use one of'),
    (['--steps=3', '--gin.ACTIVATION_DTYPE="float16"'], 'ends at 65,504'),
  ],
)
def test_wrong_bindings_are_one_sentence_with_the_nearest(capsys, bindings, sentence):
  status, said = fails(capsys, *RUN, '--mixture=m', '--cache_dir=c', *bindings)
  assert status == 2
  assert sentence in said


def test_what_must_be_given_is_named(capsys):
  status, said = fails(capsys, 'train', '--gin_file=runs/train.gin', '--workdir=w')
  assert status == 2
  assert 'MODEL, MIXTURE_OR_TASK_NAME, CACHE_DIR, TRAIN_STEPS must be given' in said


def test_a_gin_file_that_is_no_text_or_no_gin_is_named(capsys, tmp_path):
  binary, broken = tmp_path / 'binary.gin', tmp_path / 'broken.gin'
  binary.write_bytes(b'\xff\xfe\x00')
  broken.write_text('SEED = = 3\n')
  for path, sentence in ((binary, 'is not a text file'), (broken, 'broken.gin')):
    status, said = fails(capsys, 'train', f'--gin_file={path}', '--workdir=w')
    assert status == 2 and sentence in said


def commands():
  """The gin files of every `flan-jax train` that a document, a gin file or --help shows."""
  root = Path(main.gin_folder()).parent
  shown = [root / 'README.md', root / 'flan_jax/command_line.py', *root.glob('docs/*.md')]
  for path in [*shown, *root.glob('gin/**/*.gin')]:
    text = path.read_text(encoding='utf-8').replace('\\\\n', ' ').replace('\\\n', ' ')
    for command in re.findall(r'flan-jax train [^`\n]*(?:\n[#\s\']+--[^`\n]*)*', text):
      files = re.findall(r'--gin_file[ =]([\w/.]+\.gin)', command)
      if files:
        yield pytest.param(files, id=f'{path.name}: {" ".join(files)}')


@pytest.mark.parametrize('files', list(commands()))
def test_the_gin_files_of_every_command_shown_make_a_run(files):
  given = ["CACHE_DIR = 'c'", 'TRAIN_STEPS = 300']
  for name in files:
    here = Path(main.gin_folder(), name)
    if not here.is_file():
      pytest.skip(f'{name} is a file of the reader')
  text = ' '.join(Path(main.gin_folder(), name).read_text() for name in files)
  mixture = [] if 'mixtures/' in ' '.join(files) or 'recipes/' in ' '.join(files) else ['m']
  given += [f"MIXTURE_OR_TASK_NAME = '{name}'" for name in mixture if 'demo.gin' not in text]
  assert main.load_run(files, given).run


@pytest.mark.skipif(not Path('/dev/full').exists(), reason='no /dev/full here')
def test_a_full_disk_is_named_with_what_to_do(capsys, monkeypatch):
  def write(args):
    with open('/dev/full', 'w') as file:
      file.write('too much')

  monkeypatch.setattr(main.programs, 'report', write)
  status, said = fails(capsys, 'report', '--workdir', 'w')
  assert status == 1
  assert 'No space is left for a file (No space left on device); make some and go on.' in said


def test_a_workdir_that_cannot_be_written_is_named(capsys, tmp_path):
  (tmp_path / 'file').write_text('')
  made = ['--gin_file=runs/demo.gin', '--cache_dir=c', f'--workdir={tmp_path}/file/run']
  status, said = fails(capsys, 'train', *made)
  assert status == 1
  assert f'The workdir {tmp_path}/file/run cannot be written (Not a directory); give an' in said


@pytest.mark.parametrize(
  'binding',
  [
    'evaluator.EvaluationConfig.include_cot=True',
    'train.TrainConfig.seed=3',
    'train.DataConfig.skip_missing=True',
    'decoding.DecodeConfig.max_length=7',
    'checkpoints.CheckpointConfig.keep_last=2',
  ],
)
def test_a_parameter_of_what_a_macro_makes_may_be_bound(binding):
  name, _, value = binding.partition('=')
  values = main.load_run(['runs/demo.gin'], ["CACHE_DIR = 'c'", binding]).values
  assert values[name] == {'value': value, 'source': 'command line'}


def test_a_folder_of_work_directories_is_no_package_of_gin_files(monkeypatch, tmp_path):
  (tmp_path / 'runs').mkdir()
  monkeypatch.chdir(tmp_path)
  monkeypatch.syspath_prepend(tmp_path)  # as `python -m flan_jax.main` has it
  assert main.load_run(['runs/demo.gin'], ["CACHE_DIR = 'c'"]).run


def test_an_idle_binding_of_a_users_file_is_refused_and_of_the_packages_is_not(capsys, tmp_path):
  mine = tmp_path / 'mine.gin'
  mine.write_text("include 'runs/demo.gin'\nWARMUP_STEP = 5\n")
  status, said = fails(capsys, 'train', f'--gin_file={mine}', '--workdir=w', '--cache_dir=c')
  assert status == 2
  assert f"WARMUP_STEP ({mine}:2). Did you mean 'WARMUP_STEPS'?" in said
  main.load_run(['runs/demo.gin', 'optimizers/adamw.gin'], ["CACHE_DIR = 'c'"])


def test_one_file_may_serve_prepare_and_train(capsys, tmp_path):
  mine = tmp_path / 'mine.gin'
  mine.write_text("include 'runs/demo.gin'\nVOCABULARY = 'bytes'\nNIV2_DIR = 'clone'\n")
  assert main.load_run([str(mine)], ["CACHE_DIR = 'c'"]).run
  flags = ('train', f'--gin_file={mine}', '--workdir=w', '--cache_dir=c')
  assert (
    'Nothing uses the binding P3_DIR (command line)' in fails(capsys, *flags, '--gin.P3_DIR="p"')[1]
  )
  mine.write_text("include 'runs/demo.gin'\nNIV2_DRI = 'clone'\n")
  assert f"NIV2_DRI ({mine}:2). Did you mean 'NIV2_DIR'?" in fails(capsys, *flags)[1]


def test_each_value_tells_where_it_came_from(tmp_path):
  mine = tmp_path / 'mine.gin'
  mine.write_text("include 'runs/demo.gin'\n\nBATCH_SIZE = 4\n")
  resolved = main.load_run([str(mine)], ["CACHE_DIR = 'c'", 'SEED = 9'])
  assert resolved.values['train.TrainConfig.seed'] == {'value': '9', 'source': 'SEED, command line'}
  assert resolved.values['train.DataConfig.batch_rows']['source'] == f'BATCH_SIZE, {mine}:3'
  steps = resolved.values['train.TrainConfig.steps']
  assert steps['source'].startswith('TRAIN_STEPS, runs/demo.gin:')
  assert resolved.run.train.steps == int(steps['value'])
  assert resolved.run.train.data.batch_rows == 4 and resolved.run.train.seed == 9


@pytest.mark.parametrize('optimizer', ['adamw', 'linear', 'cosine', 'rsqrt'])
def test_every_optimizer_file_builds(optimizer):
  resolved = main.load_run(['runs/demo.gin', f'optimizers/{optimizer}.gin'], ["CACHE_DIR = 'c'"])
  assert float(resolved.run.train.optimizer.schedule(200)) > 0


@pytest.mark.parametrize('mesh', ['data_parallel', 'fsdp', 'fsdp_tensor'])
def test_every_mesh_file_builds(mesh):
  resolved = main.load_run(['runs/demo.gin', f'meshes/{mesh}.gin'], ["CACHE_DIR = 'c'"])
  assert resolved.run.train.mesh.rules == mesh
  assert resolved.run.train.mesh.sizes(8)


def test_the_demos_configuration_changes_only_on_purpose():
  """Golden: `python tests/test_main.py` writes it again."""
  assert resolved('runs/demo.gin') == json.loads((GOLDEN / 'demo.json').read_text())


def test_the_recipes_configurations_change_only_on_purpose():
  """Golden: `python tests/test_main.py` writes it again."""
  golden = json.loads((GOLDEN / 'recipes.json').read_text())
  found = resolved_recipes()
  assert found['most recipes'] == golden['most recipes']
  assert found == golden


def resolved(name):
  values = main.load_run([name], ["CACHE_DIR = 'c'"]).values
  return {name: value['value'] for name, value in sorted(values.items())}


def resolved_recipes():
  """What most recipes have, and in what each of them differs; null is a value that one has not."""
  folder = Path(main.gin_folder())
  names = sorted(path.relative_to(folder).as_posix() for path in folder.glob('recipes/*.gin'))
  found = {name: resolved(name) for name in names}
  keys = sorted({key for values in found.values() for key in values})
  usual = {
    key: collections.Counter(values.get(key) for values in found.values()).most_common(1)[0][0]
    for key in keys
  }
  own = {
    name: {key: values.get(key) for key in keys if values.get(key) != usual[key]}
    for name, values in found.items()
  }
  return {'most recipes': usual, **own}


def test_from_gin_to_answers_and_a_report(capsys, tmp_path):
  cache_dir = str(tiny.make_cache(tmp_path / 'cache', examples=12))
  workdir = str(tmp_path / 'run')
  arguments = [
    'train',
    '--gin_file=runs/train.gin',
    '--gin_file=models/t5_1_1/tiny.gin',
    f'--workdir={workdir}',
    f'--cache_dir={cache_dir}',
    '--mixture=tiny',
    '--steps=2',
    '--batch_size=8',
    '--gin.VOCAB_SIZE=259',
    "--gin.TASK_FEATURE_LENGTHS={'inputs': 64, 'targets': 32}",
    '--gin.DECODE_LENGTH=4',
    '--gin.EVALUATION_EXAMPLES=2',
    '--gin.INCLUDE_COT=False',
  ]
  assert main.console(arguments) == 0
  said = capsys.readouterr().out
  assert 'Report:' in said and 'score at step 0' in said
  evaluation = json.loads((tmp_path / 'run/evaluations/2.json').read_text())
  assert set(evaluation['tasks']) == {'copy', 'last'}, 'rationales were left out'
  config = json.loads((tmp_path / 'run/config.json').read_text())
  assert config['train.TrainConfig.steps'] == {'value': '2', 'source': 'TRAIN_STEPS, command line'}
  assert 'tiny' in (tmp_path / 'run/report.html').read_text()

  questions, answers = tmp_path / 'questions.jsonl', tmp_path / 'answers.jsonl'
  questions.write_text('{"inputs": "say: ab", "id": 7}\n')
  use = [f'--checkpoint={workdir}', '--max_tokens=4', '--batch_size=8']
  infer = ['infer', *use, f'--input={questions}', f'--output={answers}']
  assert main.console(infer) == 0
  answer = json.loads(answers.read_text().splitlines()[-1])
  assert answer['id'] == 7 and isinstance(answer['prediction'], str)
  capsys.readouterr()
  assert main.console(['generate', *use, 'say: ab']) == 0
  assert capsys.readouterr().out.rstrip('\n').splitlines()[-1] == answer['prediction']
  scores = tmp_path / 'scores.json'
  suite = ['evaluate', *use, '--suite=tiny', f'--cache_dir={cache_dir}', '--max_examples=2']
  assert main.console([*suite, f'--out={scores}']) == 0
  tasks = json.loads(scores.read_text())['suites']['tiny']['tasks']
  assert set(tasks) == {'copy', 'last', 'count_cot'}
  own = tmp_path / 'own.jsonl'
  own.write_text('{"inputs": "say: ab", "answer": "b", "choices": ["a", "b"]}\n')
  arguments_of_own = ['evaluate', *use, f'--suite=jsonl:{own},tiny', f'--cache_dir={cache_dir}']
  assert main.console([*arguments_of_own, '--max_examples=2', f'--out={scores}']) == 0
  assert list(json.loads(scores.read_text())['suites']) == [f'jsonl:{own}', 'tiny']
  assert 'say: ab' in (tmp_path / 'scores.html').read_text()
  assert any((tmp_path / 'scores.answers').rglob('own.jsonl'))
  for wrong, message in (
    (['--suite=mmlo'], "No suite 'mmlo'. Did you mean 'mmlu'"),
    (['--suite=mmlu'], '--eval_dir'),
    (['--suite=tiny', f'--cache_dir={cache_dir}', '--shots=1'], '--shots is for benchmarks'),
    ([f'--suite=jsonl:{own}', '--votes=3'], 'would repeat one answer'),
  ):
    status, said = fails(capsys, 'evaluate', *use, *wrong)
    assert status == 1 and message in said

  status, said = fails(capsys, *arguments, '--gin.VOCAB_SIZE=100')
  assert status == 1 and 'has 259 ids and the model room for 100; set VOCAB_SIZE' in said
  status, said = fails(capsys, 'generate', f'--checkpoint={tmp_path}/ran', 'x')
  assert status == 1 and 'holds no finished checkpoint' in said


def test_versions_and_doctor_tell_what_is_installed(capsys):
  assert main.console(['--version']) == 0
  assert 'flan_jax 0.1.0' in capsys.readouterr().out
  assert main.console(['doctor']) in (0, 1)
  said = capsys.readouterr().out
  assert 'device 0' in said and 'TFLOP/s' in said


if __name__ == '__main__':
  for golden, value in (('demo', resolved('runs/demo.gin')), ('recipes', resolved_recipes())):
    (GOLDEN / f'{golden}.json').write_text(json.dumps(value, indent=1) + '\n')
