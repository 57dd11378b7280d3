"""Measurements against peers: one file per question, each with its result in ``results/``."""
