"""Weights in and out: other programs' checkpoints to ours, and ours to a Hugging Face folder."""
