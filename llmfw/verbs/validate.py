"""``llmfw validate``; see ``llmfw.verbs.evaluate``."""

from __future__ import annotations

from llmfw.verbs.evaluate import validate_command as command

__all__ = ["command"]
