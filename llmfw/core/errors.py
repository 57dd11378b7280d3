"""Every failure that llmfw reports: one line that says what is wrong and how to mend it, and an exit code."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar


class LlmfwError(Exception):
    """A failure with a place and a remedy; ``str(error)`` is the one line that the command line prints.

    Args:
        code: short upper-case name of the failure, e.g. ``"CONFIG-KEY"``; stable, documented in
            ``docs/errors.md``.
        what: what is wrong, without a final full stop.
        mend: how to mend it, as an imperative.
        file, line, key: the place, as far as it is known; ``line`` counts from 1.
    """

    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        code: str,
        what: str,
        *,
        mend: str,
        file: str | Path | None = None,
        line: int | None = None,
        key: str | None = None,
    ) -> None:
        self.code, self.what, self.mend = code, what, mend
        self.file, self.line, self.key = file, line, key
        place = ":".join(str(part) for part in (file, line, key) if part is not None)
        text = f"error[{code}] {place + ': ' if place else ''}{what}; {mend}"
        super().__init__(" ".join(text.split()))


class UsageError(LlmfwError):
    """A wrong command line or configuration value (exit code 2)."""

    exit_code = 2


class ConflictError(UsageError):
    """Two owners of one thing: plugins, records or settings that can't be together (exit code 2)."""


class DataError(LlmfwError):
    """A data file or row that can't be used (exit code 3)."""

    exit_code = 3


class PluginError(LlmfwError):
    """A plugin that broke a rule of the framework (exit code 4)."""

    exit_code = 4


class CanaryError(PluginError):
    """A verifier that takes a known answer for what it isn't (exit code 4)."""


class CheckpointError(LlmfwError):
    """A checkpoint that is missing, damaged or of another run (exit code 5)."""

    exit_code = 5


class ResourceError(LlmfwError):
    """Disk, memory or another resource ran out (exit code 6)."""

    exit_code = 6


class NumericsError(LlmfwError):
    """A loss or gradient that isn't finite (exit code 7)."""

    exit_code = 7


class SandboxError(LlmfwError):
    """The sandbox is unavailable or weaker than asked for (exit code 8)."""

    exit_code = 8


class BusyError(LlmfwError):
    """Another process owns the run folder (exit code 9)."""

    exit_code = 9


class RunFailed(LlmfwError):
    """A command that was launched to be looked at failed by itself; the exit code is the command's."""

    def __init__(
        self, code: str, what: str, *, returncode: int, mend: str, file: str | Path | None = None
    ) -> None:
        super().__init__(code, what, mend=mend, file=file)
        self.exit_code = returncode if returncode > 0 else 1  # type: ignore[misc]  # an instance's own code


class Interrupted(LlmfwError):
    """A signal ended the run after its state was saved (exit code 130 for SIGINT, 143 for SIGTERM)."""

    def __init__(self, signal_number: int, what: str, *, mend: str) -> None:
        super().__init__("INTERRUPTED", what, mend=mend)
        self.exit_code = 128 + signal_number  # type: ignore[misc]  # an instance's own code: it depends on the signal
