"""Instruction tuning of Transformers in JAX: from SeqIO tasks to answers.

Importing this package imports nothing else; each program imports what it needs.
"""

__version__ = '0.1.0'
