"""What goes wrong with corrected solutions, each as one line."""

from __future__ import annotations

from typing import ClassVar

from llmfw import LlmfwError


class SettingsError(LlmfwError):
    """Settings ``s3c_math.*`` that don't go together, or not with the problems (exit code 2)."""

    exit_code: ClassVar[int] = 2


class SolutionError(LlmfwError):
    """Solutions that can't be corrected, or of which nothing corrected came (exit code 3)."""

    exit_code: ClassVar[int] = 3
