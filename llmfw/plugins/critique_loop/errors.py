"""What goes wrong with critiques, each as one line."""

from __future__ import annotations

from typing import ClassVar

from llmfw import LlmfwError


class CritiqueError(LlmfwError):
    """Critiques, or the data for them, that can't be used (exit code 3)."""

    exit_code: ClassVar[int] = 3


class CritiqueSettingsError(LlmfwError):
    """Settings ``critique_loop.*`` that can't be together (exit code 2)."""

    exit_code: ClassVar[int] = 2
