"""The launch files run what they say, start again what was preempted, and say what is missing."""

import json
import re
import shlex
import shutil
import subprocess

import pytest
import yaml
from launching import LAUNCH, ROOT, SETTING, launch, stand_in

from flan_jax import command_line, main

PAGE = 100  # lines
FILES = sorted(path.name for path in (*LAUNCH.glob('*.sh'), *LAUNCH.glob('*.sbatch')))
RUNNERS = sorted({*FILES} - {'common.sh', 'demo.sh'})
DOCUMENT = (ROOT / 'docs' / 'launch.md').read_text(encoding='utf-8')
# Words that some shell or manifest on the way could read as its own.
WORDS = ['--gin.A="it\'s"', "--gin.B=('x', 1)", '$HOME `id` $(id) \\ & * !', '${NAME}', '{"a": 1}']


def dry_run(name, words, setting=SETTING):
  """What a launch file prints that it would run; it ends without having done so."""
  arguments = words if name.endswith('.sbatch') else ['--', *words]
  verb = ['run'] if name in ('tpu_vm.sh', 'gke_xpk.sh', 'gke_jobset.sh') else []
  done = launch(name, *verb, '--dry_run', *arguments, setting=setting)
  assert done.returncode == 0, done.stderr
  return done.stdout


def arriving(name, printed, folder):
  """The words that reach flan-jax when a host carries out what a dry run printed (IMAGE=i)."""
  if name == 'gke_jobset.sh':
    job = yaml.safe_load(printed)['spec']['replicatedJobs'][0]['template']['spec']
    arguments = job['template']['spec']['containers'][0]['args']
    return [word.replace('$$', '$') for word in arguments]
  if name == 'local.sh':
    printed = printed.splitlines()[0].partition(' > ')[0]
  stand_in(folder, 'flan-jax', "import json; print(json.dumps(['flan-jax', *sys.argv[1:]]))")
  # The others hand on what follows their own options: as a line for bash, or as words.
  for client in ('gcloud', 'xpk'):
    stand_in(folder, client, "os.execvp('bash', ['bash', '-c', sys.argv[-1]])")
  run = "os.execvp('flan-jax', sys.argv[sys.argv.index('i') + 1 :])"
  stand_in(folder, 'sudo', f"if sys.argv[2] == 'run': {run}")
  stand_in(folder, 'srun', 'os.execvp(sys.argv[4], sys.argv[4:])')
  done = subprocess.run(
    ['bash', '-c', f'PATH={shlex.quote(str(folder))}:$PATH; {printed}'],
    capture_output=True,
    text=True,
  )
  return json.loads(done.stdout.splitlines()[0])


@pytest.mark.parametrize('name', RUNNERS)
def test_the_words_of_a_command_arrive_as_they_were_given(name, tmp_path):
  words = ['flan-jax', 'train', *WORDS]
  found = arriving(name, dry_run(name, words, {**SETTING, 'IMAGE': 'i'}), tmp_path / 'bin')
  assert found[: len(words)] == words


def documented():
  """Each command of docs/launch.md that starts a run: the launch file, settings and words."""
  for block in re.findall(r'^```bash\n(.*?)^```', DOCUMENT, re.MULTILINE | re.DOTALL):
    lines = [shlex.split(line) for line in block.replace('\\\n', ' ').splitlines()]
    exported = [word for line in lines if line[:1] == ['export'] for word in line[1:]]
    setting = dict(word.split('=', 1) for word in exported)
    for line in lines:
      files = [word for word in line if word.startswith('launch/') and 'Docker' not in word]
      if files and 'flan-jax' in line:
        yield files[0].removeprefix('launch/'), setting, line[line.index('flan-jax') :]


DOCUMENTED = list(documented())


@pytest.mark.parametrize('name, setting, words', DOCUMENTED, ids=[name for name, *_ in DOCUMENTED])
def test_a_documented_run_is_one_that_flan_jax_accepts(name, setting, words, tmp_path, capsys):
  setting = {**setting, 'IMAGE': 'i'}
  arrived = arriving(name, dry_run(name, words, setting), tmp_path / 'bin')
  assert arrived[: len(words)] == words
  assert main.console([*words[1:], '--dry_run']) == 0


def test_what_local_processes_are_told_is_what_flan_jax_takes(tmp_path):
  words = ['flan-jax', 'train', '--gin_file', 'runs/demo.gin', '--workdir', 'W']
  arrived = arriving('local.sh', dry_run('local.sh', words), tmp_path / 'bin')
  args, _ = command_line.parse(arrived[1:])
  assert (args.process_count, args.process_id) == (2, 0)


def test_every_launch_file_is_documented():
  assert {name for name, *_ in DOCUMENTED} == set(RUNNERS)


def test_the_documents_other_commands_are_accepted():
  commands = re.findall(r'^launch/(\w+\.sh) (create|delete)$', DOCUMENT, re.MULTILINE)
  assert len(commands) == 4
  for name, verb in commands:
    assert launch(name, verb, '--dry_run').returncode == 0


@pytest.mark.parametrize('name', FILES)
def test_a_launch_file_is_at_most_a_page(name):
  assert len((LAUNCH / name).read_text().splitlines()) <= PAGE


@pytest.mark.parametrize('name', RUNNERS)
def test_help_shows_an_example_and_every_verb(name):
  done = launch(name, '--help', setting={})
  assert done.returncode == 0 and f'launch/{name}' in done.stdout
  allowed = re.search(r"^parse_verb '([a-z ]+)'", (LAUNCH / name).read_text(), re.MULTILINE)
  for verb in allowed[1].split() if allowed else ():
    assert re.search(rf'^  {verb}  ', done.stdout, re.MULTILINE)


NEEDS = {
  'tpu_vm.sh': ['PROJECT', 'ZONE', 'NAME', 'TYPE', 'IMAGE', 'NFS'],
  'gke_xpk.sh': ['PROJECT', 'ZONE', 'CLUSTER', 'NAME', 'TYPE', 'IMAGE', 'STORAGE'],
  'gke_jobset.sh': ['NAME', 'ACCELERATOR', 'TOPOLOGY', 'IMAGE', 'CLAIM'],
}


@pytest.mark.parametrize('name, missing', [(n, key) for n in NEEDS for key in NEEDS[n]])
def test_a_setting_that_is_missing_is_named(name, missing):
  setting = {key: value for key, value in SETTING.items() if key != missing}
  done = launch(name, 'run', '--dry_run', '--', 'flan-jax', setting=setting)
  assert done.returncode == 2 and done.stdout == ''
  assert done.stderr.startswith(f'launch/{name}: {missing} is not set. It is ')


@pytest.mark.parametrize(
  'name, words, message',
  [
    ('tpu_vm.sh', [], 'which verb? One of: create run logs stop delete.'),
    ('tpu_vm.sh', ['start'], "there is no verb 'start'. There are: create run logs stop delete."),
    ('tpu_vm.sh', ['logs', 'stop'], 'one verb at a time: logs or stop?'),
    ('gke_xpk.sh', ['run', '--spot'], 'there is no option --spot.'),
    ('gke_xpk.sh', ['run'], 'run what? For instance: launch/gke_xpk.sh run -- flan-jax train'),
    ('local.sh', ['--'], 'run what? The command follows --.'),
    ('local.sh', ['flan-jax'], 'there is no option flan-jax. The command to run follows --.'),
    ('local.sh', ['--processes', '0'], "--processes takes a whole number from 1 on, not '0'."),
    ('local.sh', ['--devices'], "--devices takes a whole number from 1 on, not ''."),
    ('local.sh', ['--', 'no-such-program'], 'there is no no-such-program on the PATH.'),
    ('slurm.sbatch', [], 'Run what? sbatch launch/slurm.sbatch flan-jax train'),
    ('slurm.sbatch', ['flan-jax'], 'This is no SLURM job. Submit it: sbatch'),
  ],
)
def test_wrong_use_is_answered_by_what_is_right(name, words, message):
  done = launch(name, *words)
  assert done.returncode == 2 and message in done.stderr


@pytest.mark.parametrize(
  'changed, message',
  [
    ({'TOPOLOGY': '4,4'}, "TOPOLOGY is '4,4'; write it as 4x4x4"),
    ({'TOPOLOGY': '3x3'}, 'TOPOLOGY 3x3 is 9 chips, no multiple of CHIPS_PER_HOST=4.'),
    ({'SLICES': 'two'}, "SLICES is 'two', which is no whole number."),
  ],
)
def test_a_slice_that_cannot_be_is_refused(changed, message):
  words = ['run', '--dry_run', '--', 'flan-jax']
  done = launch('gke_jobset.sh', *words, setting={**SETTING, **changed})
  assert done.returncode == 2 and message in done.stderr


@pytest.mark.parametrize(
  'name, program, help_',
  [
    ('tpu_vm.sh', 'gcloud', 'cloud.google.com/sdk'),
    ('gke_xpk.sh', 'xpk', 'pip install xpk'),
    ('gke_jobset.sh', 'kubectl', 'gcloud components install kubectl'),
  ],
)
def test_a_program_that_is_missing_is_named_with_its_installation(
  name, program, help_, tmp_path, monkeypatch
):
  for tool in ('bash', 'basename', 'dirname', 'sed'):
    (tmp_path / tool).symlink_to(shutil.which(tool))
  monkeypatch.setenv('PATH', str(tmp_path))
  done = launch(name, 'run', '--', 'flan-jax')
  assert done.returncode == 2
  assert f'there is no {program} on the PATH.' in done.stderr and help_ in done.stderr


# Says what gcloud would: the next state and the next exit status of a file, and notes the call.
GCLOUD = """
folder = os.path.dirname(sys.argv[0])
def next_of(name):
  lines = open(f'{folder}/{name}').read().split()
  open(f'{folder}/{name}', 'w').write(' '.join(lines[1:]))
  return lines[0]
open(f'{folder}/calls', 'a').write(sys.argv[4] + ' ')
if sys.argv[4] == 'describe':
  print(next_of('states'))
sys.exit(int(next_of('statuses')) if sys.argv[4] == 'ssh' else 0)
"""


@pytest.mark.parametrize(
  'statuses, states, calls, status',
  [
    ('0', '', 'ssh', 0),
    ('1', '', 'ssh', 1),
    ('75 0', 'ACTIVE', 'ssh describe ssh', 0),
    ('255 2', 'ACTIVE', 'ssh describe ssh', 2),
    (
      '75 0',
      'SUSPENDED WAITING_FOR_RESOURCES ACTIVE',
      'ssh describe delete create describe describe ssh',
      0,
    ),
    ('75', 'FAILED FAILED', 'ssh describe delete create describe', 2),
  ],
)
def test_a_preempted_tpu_run_starts_again(statuses, states, calls, status, tmp_path):
  stand_in(stand_in(tmp_path, 'gcloud', GCLOUD), 'sleep', '')
  (tmp_path / 'statuses').write_text(statuses)
  (tmp_path / 'states').write_text(states)
  done = launch('tpu_vm.sh', 'run', '--', 'flan-jax', programs=tmp_path)
  assert done.returncode == status
  assert (tmp_path / 'calls').read_text().split() == calls.split()


@pytest.mark.parametrize('status, requeued', [(0, False), (1, False), (75, True), (137, False)])
def test_a_preempted_slurm_job_goes_back_into_the_queue(status, requeued, tmp_path):
  stand_in(tmp_path, 'srun', f'sys.exit({status})')
  stand_in(tmp_path, 'scontrol', "print('scontrol', *sys.argv[1:])")
  done = launch('slurm.sbatch', 'flan-jax', setting={'SLURM_JOB_ID': '7'}, programs=tmp_path)
  assert done.returncode == status
  assert ('scontrol requeue 7' in done.stdout) == requeued
