"""What goes wrong with critiques, each as one line."""

from __future__ import annotations

from typing import ClassVar

from llmfw import LlmfwError


class CritiqueError(LlmfwError):
    """Critiques, or the data for them, that can't be used (exit code 3)."""

    exit_code: ClassVar[int] = 3
