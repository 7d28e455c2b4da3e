"""SeqIO registrations: instruction tasks, their templates and their mixtures.

Installed as `flan_jax.tasks`; importing it registers every shipped task, without reading data.
The core of flan_jax never imports this package: `prepare` imports the module that the user names.
"""

from flan_jax.tasks import cot, demo, flan2022, flan2022_mixtures

__all__ = ['cot', 'demo', 'flan2022', 'flan2022_mixtures']
