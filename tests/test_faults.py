"""The fault campaign itself: a few of its faults, made and survived for real."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
def test_kills_and_damage_end_bitwise_equal_or_in_a_sentence(tmp_path):
  command = [sys.executable, 'benchmarks/faults', '--kills', '2', '--json', tmp_path / 'rows.json']
  for case in ('kills', 'token_cache'):
    command += ['--only', case]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stdout + done.stderr
  rows = json.loads((tmp_path / 'rows.json').read_text())
  assert {row['case'] for row in rows} == {'kills', 'token_cache'}
  for row in rows:
    assert row['end'].startswith(('continued, bitwise equal', 'refused: ', 'skipped: '))
  assert sum(row['fault'].startswith('SIGKILL') for row in rows) == 2
  assert '| case | fault | times | end |' in done.stdout
