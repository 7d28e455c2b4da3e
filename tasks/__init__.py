"""SeqIO registrations: instruction tasks, their templates and their mixtures.

Installed as `flan_jax.tasks`. The core of flan_jax never imports this package: `prepare`
imports the module that the user names.
"""
