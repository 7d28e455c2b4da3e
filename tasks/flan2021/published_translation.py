"""How translations are published: tables of ParaCrawl, files of statmt.org that go line by line."""

import re
from collections.abc import Iterator
from typing import Any

from flan_jax.tasks.flan2021.layouts import Layout, Row, table, text_lines
from flan_jax.tasks.flan2021.published_parts import Published, aligned, same

_SEGMENT = re.compile(r'<seg\b[^>]*>(.*)</seg>')


def _para_crawl(other: str) -> tuple[Layout, ...]:
  name = f'en-{other}.bicleaner07.txt'
  columns = table('en', other)
  return (Layout(files={'train': (name,)}, read=columns, row=same('en', other)),)


def _wmt(other: str) -> tuple[Layout, ...]:
  """Returns the layouts of the pair of a language and English, as statmt.org has its files."""
  both = {other: 'line', 'en': 'companion'}
  pair = f'{other}-en'
  return (
    aligned({'train': (f'*.{pair}.{other}',)}, (f'.{pair}.{other}', f'.{pair}.en'), same(**both)),
    aligned({'validation': (f'newstest2013.{other}',)}, (f'.{other}', '.en'), same(**both)),
    Layout(
      files={
        'validation': tuple(
          f'{test}-{other}en-src.{other}.sgm' for test in ('newsdev2016', 'newstest2015')
        )
      },
      read=text_lines,
      companion=(f'-src.{other}.', '-ref.en.'),
      row=_segments(other),
    ),
  )


def _segments(other: str) -> Any:
  """Returns the function for two SGML files, of which each line holds a sentence or only marks."""

  def row(raw: Row) -> Iterator[Row]:
    found = [_SEGMENT.search(raw[name]) for name in ('line', 'companion')]
    if (found[0] is None) != (found[1] is None):
      raise ValueError('it holds a sentence where the other file has none')
    if found[0] and found[1]:
      yield {other: found[0][1].strip(), 'en': found[1][1].strip()}

  return row


TRANSLATION: Published = {
  'para_crawl/enes': (('para_crawl',), _para_crawl('es')),
  'para_crawl/enda': (('para_crawl',), _para_crawl('da')),
  'wmt14_translate/fr-en': (('wmt14',), _wmt('fr')),
  **{
    f'wmt16_translate/{other}-en': (('wmt16',), _wmt(other))
    for other in ('de', 'tr', 'cs', 'fi', 'ro', 'ru')
  },
}
