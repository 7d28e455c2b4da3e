"""Makes tasks/data/collection/niv2.tsv anew, for maintainers.

  python -m flan_jax.tasks.niv2_table --info flan_collection_info.csv --niv2_dir CLONE

reads the public list (flan/v2/ of github.com/google-research/FLAN) and a clone of
natural-instructions: its test list, the true names of its files and the licences they state. Of
a file that the clone lacks the present table keeps name and licence.
"""

import argparse
import ast
import re
from collections.abc import Mapping
from pathlib import Path

from flan_jax.tasks.collection import derived_from, table
from flan_jax.tasks.niv2 import COLUMNS, load_file
from flan_jax.tasks.readers import csv_rows, lines
from flan_jax.tasks.templates import DATA

# Why the list is 1,554 long; to put one back, take it out here and run this.
LEFT_OUT = {
  'task062_bigbench_repeat_copy_logic': 'its instances are a task of BIG-bench, as BBH is',
  'task1507_boolean_temporal_reasoning': 'asks as boolean_expressions and temporal_sequences of '
  'BBH do: whether a combination of statements about times is true',
}
# Data sets whose name is misspelt or missing in the public list.
_DATASETS = {
  'adverserial_qa': 'adversarial_qa',
  'librispeech_asr,': 'librispeech_asr',
  'missing': 'lhoestq',
  'pasinlu': 'parsinlu',
  'scitailv1.1': 'scitail',
}


def public_name(file: str) -> str:
  """Returns how the public list writes a file: cut at the first point, '_' for '-'."""
  return file.split('.')[0].replace('-', '_')


def rows_of(
  info: Path, test_files: set[str], files: Mapping[str, str], licences: Mapping[str, str]
) -> list[dict[str, str]]:
  """Returns the rows of the table, in the order of their numbers.

  Args:
    info: the public list.
    test_files: NIv2's official test list.
    files: public name -> file, where they differ.
    licences: file -> licence, where one is known.
  """
  out = []
  for _, row in csv_rows(info, None, delimiter=','):
    listed = row['Specific Task Category']
    if row['Source'] != 'NIv2' or listed in LEFT_OUT:
      continue
    file = files.get(listed, listed)
    name = file.replace('-', '_')  # '-' may not stand in a task's name
    held_out = (['niv2_test'] if file in test_files else []) + [*derived_from(name)]
    languages = ', '.join(ast.literal_eval(row['Languages']))
    dataset = 'roc_stories' if listed.startswith('task105_') else row['Dataset']
    out.append(
      {
        'name': name,
        'file': file if file != name else '',
        'dataset': _DATASETS.get(dataset, dataset),
        'category': row['Generic Task Category'],
        'languages': languages if languages != 'English' else '',
        'licence': licences.get(file, ''),
        'held_out': ', '.join(held_out),
      }
    )
  return sorted(out, key=lambda row: (int(re.findall(r'\d+', row['name'])[0]), row['name']))


def stated_licence(path: Path) -> str:
  """Returns the licence of a task file's instances; empty where it is not stated or unknown."""
  stated = load_file(path).get('Instance License') or []
  stated = [stated] if isinstance(stated, str) else stated
  return '; '.join(' '.join(str(s).split()) for s in stated if str(s).lower() != 'unknown')


def main(argv: list[str] | None = None) -> None:
  """Writes the table."""
  parser = argparse.ArgumentParser(prog='python -m flan_jax.tasks.niv2_table')
  parser.add_argument('--info', type=Path, required=True, help='flan_collection_info.csv')
  parser.add_argument('--niv2_dir', type=Path, required=True, help='clone of natural-instructions')
  parser.add_argument('--output', type=Path, default=DATA / 'collection/niv2.tsv')
  args = parser.parse_args(argv)
  present = table('niv2.tsv', COLUMNS)
  files = {public_name(row['file'] or row['name']): row['file'] or row['name'] for row in present}
  licences = {row['file'] or row['name']: row['licence'] for row in present}
  for path in sorted(args.niv2_dir.glob('tasks/task*.json')):
    files[public_name(path.stem)] = path.stem
    licences[path.stem] = stated_licence(path)
  test = {text.strip() for _, text in lines(args.niv2_dir / 'splits/default/test_tasks.txt')}
  rows = rows_of(args.info, test, files, licences)
  text = '\n'.join('\t'.join(row[c] for c in COLUMNS) for row in rows)
  args.output.write_text('\t'.join(COLUMNS) + '\n' + text + '\n', encoding='utf-8')
  print(f'{args.output}: {len(rows):,} tasks, {sum(bool(r["licence"]) for r in rows)} licences.')


if __name__ == '__main__':
  main()
