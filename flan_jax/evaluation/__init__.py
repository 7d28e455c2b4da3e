"""Metrics, answer extraction and the evaluator that runs in the training loop or alone."""
