"""Tables and data on terminals and pipes."""

import io

from rich.console import Console

from flan_jax.console import Column, console, print_table, visible

HARM = '[red]a[/red]\x1b[31m\u202eb\tc\nd\udc80'
COLUMNS = [Column('name'), Column('count', right=True)]


def test_what_would_act_on_a_screen_is_written_as_an_escape():
  assert visible(HARM) == '[red]a[/red]\\x1b[31m\\u202eb\\tc\\nd\\udc80'
  assert visible('a\nb\x00', newlines=True) == 'a\nb\\x00'
  assert visible('Größe 数 🙂') == 'Größe 数 🙂'
  assert visible(7) == '7'


def test_a_pipe_gets_aligned_lines_of_any_length():
  out = io.StringIO()
  print_table(console(out), COLUMNS, [('x' * 300, 5), (HARM, 12345)], title='[b]Title[/b]')
  title, header, first, second = out.getvalue().splitlines()
  assert title == '[b]Title[/b]'
  assert first == 'x' * 300 + '      5' and second.endswith('12345')
  assert len(header) == len(first) == len(second)
  assert '\x1b' not in out.getvalue()


def test_a_terminal_gets_a_table_that_folds_and_reads_no_markup():
  out = io.StringIO()
  terminal = Console(file=out, force_terminal=True, width=40, markup=False, color_system=None)
  print_table(terminal, COLUMNS, [('y' * 60, 5), (HARM, 1)])
  shown = out.getvalue()
  assert shown.count('y') == 60
  assert all(len(line) <= 40 + len('\x1b[1m\x1b[0m') * 2 for line in shown.splitlines())
  assert '[red]' in shown and '\x1b[31m' not in shown
