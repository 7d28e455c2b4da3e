"""The Flan 2021 collection (Wei et al., arXiv:2109.01652) as extended for Flan 2022."""
