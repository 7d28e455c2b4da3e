"""Outside checkers pass the launch files: ShellCheck, Kubernetes' schema, hadolint."""

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from launching import LAUNCH, ROOT, SETTING, launch

DOCKERFILE = LAUNCH / 'Dockerfile'
SHELL = sorted([*LAUNCH.glob('*.sh'), *LAUNCH.glob('*.sbatch')])
# Of JobSet's own fields those that we use, written after jobset.x-k8s.io/v1alpha2: no schema of it
# is to be had from a package index. What is inside a Job is checked with Kubernetes' own.
JOBSET = json.loads((Path(__file__).parent / 'jobset.schema.json').read_text())
SLICE = ('spec', 'replicatedJobs', 0)


def checker(name):
  """The path of a program that pip installs beside Python, or skips the test."""
  path = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
  if path is None:
    pytest.skip(f'{name} is not installed; pip install the extra dev.')
  return path


def shellcheck(*paths):
  command = [checker('shellcheck'), '--external-sources', '--source-path=SCRIPTDIR', *paths]
  return subprocess.run(command, capture_output=True, text=True)


def test_shellcheck_finds_nothing():
  done = shellcheck(*SHELL)
  assert done.returncode == 0, done.stdout


def test_a_fault_in_a_shell_file_is_found(tmp_path):
  (tmp_path / 'faulty.sh').write_text('#!/usr/bin/env bash\ncp $1 $2\n')
  assert 'SC2086' in shellcheck(tmp_path / 'faulty.sh').stdout


def manifest():
  done = launch('gke_jobset.sh', 'run', '--dry_run', '--', 'flan-jax', 'train')
  return yaml.safe_load(done.stdout)


def check(jobset):
  """Raises what is wrong with a JobSet: its own fields, then those of the Job inside."""
  kubernetes = pytest.importorskip('kubernetes_validate', reason='pip install the extra dev')
  jsonschema = pytest.importorskip('jsonschema', reason='comes with kubernetes-validate')
  jsonschema.validate(jobset, JOBSET)
  template = jobset['spec']['replicatedJobs'][0]['template']
  job = {'apiVersion': 'batch/v1', 'kind': 'Job', 'metadata': {'name': 'slice'}, **template}
  kubernetes.validate(job, '1.31', strict=True)


def test_the_manifest_is_a_jobset():
  check(manifest())


@pytest.mark.parametrize(
  'path, value, message',
  [
    (('spec', 'failurePolicy', 'maxRestart'), 3, 'maxRestart'),
    (('spec', 'failurePolicy', 'restartStrategy'), 'Blocking', 'Blocking'),
    (('spec', 'failurePolicy', 'rules', 0, 'action'), 'Restart', 'Restart'),
    ((*SLICE, 'replicas'), 'two', 'two'),
    ((*SLICE, 'template', 'spec', 'backoffLimits'), 0, 'backoffLimits'),
    ((*SLICE, 'template', 'spec', 'podFailurePolicy', 'rules', 0), {'action': 1}, 'string'),
  ],
)
def test_a_fault_in_the_manifest_is_found(path, value, message):
  jobset = manifest()
  inner = jobset
  for key in path[:-1]:
    inner = inner[key]
  inner[path[-1]] = value
  with pytest.raises(Exception, match=message):
    check(jobset)


def test_the_manifest_holds_the_slices_that_were_asked_for():
  setting = {**SETTING, 'TOPOLOGY': '8x16', 'SLICES': '3', 'MAX_RESTARTS': '9'}
  done = launch('gke_jobset.sh', 'run', '--dry_run', '--', 'flan-jax', setting=setting)
  spec = yaml.safe_load(done.stdout)['spec']
  (job,) = spec['replicatedJobs']
  hosts = job['template']['spec']
  assert job['replicas'] == 3 and hosts['parallelism'] == hosts['completions'] == 8 * 16 // 4
  assert spec['failurePolicy']['maxRestarts'] == 9
  assert '${' not in done.stdout.split('apiVersion', 1)[1]


def test_hadolint_finds_nothing():
  done = subprocess.run([checker('hadolint'), DOCKERFILE], capture_output=True, text=True)
  assert done.returncode == 0, done.stdout


def test_the_images_install_extras_that_exist_from_files_that_exist():
  text = DOCKERFILE.read_text()
  assert re.findall(r'^FROM base AS (\w+)$', text, re.MULTILINE) == ['cpu', 'cuda', 'tpu']
  tree = ast.parse((ROOT / 'setup.py').read_text())
  extras = next(
    {key.value for key in node.value.keys}
    for node in tree.body
    if isinstance(node, ast.Assign) and node.targets[0].id == 'EXTRAS'
  )
  assert set(re.findall(r"'\.\[(\w+)\]'", text)) <= extras
  copied = re.findall(r'^COPY (.+) \S+$', text, re.MULTILINE)
  assert all((ROOT / source).exists() for line in copied for source in line.split())
