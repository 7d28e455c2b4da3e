"""The formats by the names that the command line has for them: `hf:DIR`, `t5x:DIR`, `gguf:FILE`."""

import os
from collections.abc import Callable

from flan_jax.convert import exporting, gguf_file, huggingface, llama2c, peft, t5x
from flan_jax.convert.source import ConvertError, Source
from flan_jax.naming import unknown

READERS: dict[str, Callable[[str], Source]] = {
  'hf': huggingface.open_folder,
  't5x': t5x.open_checkpoint,
  'gguf': gguf_file.open_file,
  'llama2c': llama2c.open_folder,
}
WRITERS: dict[str, Callable[[str, str], object]] = {
  'hf': exporting.export_checkpoint,
  'peft': peft.export_adapters,
}


def open_source(text: str) -> Source:
  """Opens what `--from` names, such as 'hf:~/flan-t5-small'."""
  kind, path = _split(text, '--from', READERS)
  return READERS[kind](path)


def export(checkpoint: str, text: str) -> None:
  """Writes a checkpoint as `--to` says, such as 'hf:out'."""
  kind, path = _split(text, '--to', WRITERS)
  WRITERS[kind](checkpoint, path)


def _split(text, flag, kinds) -> tuple[str, str]:
  kind, colon, path = text.partition(':')
  if not colon or not path:
    raise ConvertError(
      f'{flag} {text!r} does not say what it is; write {", ".join(f"{k}:PATH" for k in kinds)}.'
    )
  if kind not in kinds:
    raise ConvertError(f'{flag} {text!r}: {unknown("format", kind, kinds)}')
  return kind, os.path.expanduser(path)
