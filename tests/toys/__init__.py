"""Toy plugins, one per hook: real packages with entry points, put on sys.path for the length of a test."""

from llmfw.testing.distributions import installed as installed
from llmfw.testing.distributions import write_plugin as write_toy

__all__ = ["installed", "write_toy"]
