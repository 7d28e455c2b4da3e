"""What every test stands on: eight CPU devices, quiet logs, and the shared folder."""

import gc
import importlib.metadata
import os
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

# Both are read once, when JAX is first imported, so they are set before any test is collected.
os.environ['JAX_PLATFORMS'] = 'cpu'
# Compiling is most of what these tests do: LLVM without optimisation compiles them 3 times as fast,
# and XLA's older emitters of fused loops, which newer versions no longer have, half as fast again.
OLDER_EMITTERS = ['--xla_cpu_use_fusion_emitters=false']
os.environ['XLA_FLAGS'] = ' '.join(
  [
    os.environ.get('XLA_FLAGS', ''),
    '--xla_force_host_platform_device_count=8',
    '--xla_backend_optimization_level=0',
    *(OLDER_EMITTERS if importlib.metadata.version('jaxlib').startswith('0.10.') else ()),
  ]
).strip()
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

# A busy machine is not a failure, and what fails once fails again.
hypothesis.settings.register_profile('suite', deadline=None, derandomize=True)
hypothesis.settings.load_profile('suite')

REPOSITORY = Path(__file__).resolve().parent.parent

# Tests train the same few tiny programs again and again, some in processes of their own.
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(REPOSITORY / '.pytest_cache' / 'xla'))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.2')
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES', '-1')


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
  """Whole programs first: the longest tests must not be what one core ends with."""
  items.sort(key=lambda item: item.path.parent != Path(__file__).parent)


def pytest_collection_finish():
  """Lets the collector of garbage look seldom through what stays: imports, and what JAX traced."""
  gc.freeze()
  gc.set_threshold(50_000, 20, 50)


@pytest.fixture(scope='session')
def shared() -> Callable[[str], Path]:
  """Gives the path of a file of the shared folder, or skips the test if it is not there."""
  root = Path(os.environ.get('FLAN_JAX_SHARED', REPOSITORY.parent / 'shared'))

  def find(relative_path: str) -> Path:
    path = root / relative_path
    if not path.exists():
      pytest.skip(f'{path} is not there; set FLAN_JAX_SHARED to the folder that holds it.')
    return path

  return find
