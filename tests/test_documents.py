"""What is written down stays true: links lead somewhere, no file names somebody's machine."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r'!?\[[^\]]*\]\(\s*<?([^)\s>]+)')
CODE = re.compile(r'^```.*?^```', re.MULTILINE | re.DOTALL)
# Absolute paths that exist on one machine only. A URL or a relative path holding them is fine.
PRIVATE_PATH = re.compile(r'(?<![\w.~/:$}-])/(?:home|Users|root|tmp|work)/\w')
README_LINES = 200


def repository_files() -> list[Path]:
  command = ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard']
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
  return sorted({ROOT / name for name in done.stdout.split('\0') if (ROOT / name).is_file()})


FILES = repository_files()
DOCUMENTS = [path for path in FILES if path.suffix == '.md']


def anchors(document: Path) -> set[str]:
  """The names that headings of a Markdown file can be linked by."""
  text = CODE.sub('', document.read_text(encoding='utf-8'))
  found = set()
  for heading in re.findall(r'^#+ +(.+?) *#*$', text, re.MULTILINE):
    words = re.sub(r'[^\w\- ]', '', heading.lower())
    found.add(words.replace(' ', '-'))
  return found


def broken_links(document: Path) -> list[str]:
  """The relative links of a Markdown file that lead nowhere."""
  broken = []
  for target in LINK.findall(CODE.sub('', document.read_text(encoding='utf-8'))):
    if re.match(r'[a-z]+:', target):
      continue
    name, _, anchor = target.partition('#')
    path = (document.parent / name).resolve() if name else document
    if not path.exists() or not path.is_relative_to(ROOT):
      broken.append(target)
    elif anchor and path.suffix == '.md' and anchor not in anchors(path):
      broken.append(target)
  return broken


@pytest.mark.parametrize('document', DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_somewhere(document):
  assert not broken_links(document)


def test_a_link_to_nowhere_is_found(tmp_path, monkeypatch):
  monkeypatch.setitem(globals(), 'ROOT', tmp_path)
  document = tmp_path / 'page.md'
  lines = ['# Two words', '[a](page.md#two-words) [b](gone.md) [c](#none)', '[d](https://x.org)']
  document.write_text('\n'.join([*lines, '```', '[e](in_code.md)', '```']), encoding='utf-8')
  assert broken_links(document) == ['gone.md', '#none']


def test_the_readme_is_short_enough_to_read():
  readme = (ROOT / 'README.md').read_text(encoding='utf-8')
  assert len(readme.splitlines()) <= README_LINES


def test_no_file_names_a_path_of_one_machine():
  found = []
  for path in FILES:
    try:
      text = path.read_text(encoding='utf-8')
    except UnicodeDecodeError:
      continue  # pictures and models
    for number, line in enumerate(text.splitlines(), start=1):
      if PRIVATE_PATH.search(line):
        found.append(f'{path.relative_to(ROOT)}:{number}')
  assert not found


@pytest.mark.parametrize('line', ["'/home/" + "ann/data'", '--out=/tmp/' + 'x', 'cd /Users/' + 'b'])
def test_a_path_of_one_machine_is_found(line):
  assert PRIVATE_PATH.search(line)


@pytest.mark.parametrize(
  'line', ['https://x.org/home/a', 'gs://bucket/tmp/a', 'runs/tmp/a', '$D/tmp/a']
)
def test_other_paths_are_left_alone(line):
  assert not PRIVATE_PATH.search(line)
