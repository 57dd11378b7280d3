"""A row, and an executor of programs that the tests themselves wrote."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from llmfw.core.errors import SandboxError
from llmfw.core.records import Execution, ExecutionLimits


class Local:
    """Runs Python programs in processes that nothing holds: for programs of ours. ``down`` makes it fail
    as a sandbox does that can't start.
    """

    def __init__(self) -> None:
        self.down = False
        self.ran: list[tuple[str, str]] = []

    def run(
        self, code: str, *, language: str = "python", stdin: str = "", limits: ExecutionLimits | None = None
    ) -> Execution:
        """One program to its end."""
        self.ran.append((code, stdin))
        if self.down:
            raise SandboxError("SANDBOX-FAILED", "no sandbox", mend="wait")
        try:
            compile(code, "main.py", "exec")
        except SyntaxError as error:
            return Execution(status="compile_error", stderr=str(error))
        told = subprocess.run(
            [sys.executable, "-I", "-S", "-c", code], input=stdin, capture_output=True, text=True, check=False
        )
        status: Any = "runtime_error" if told.returncode else "ok"
        return Execution(status=status, stdout=told.stdout, stderr=told.stderr, exit_code=told.returncode)


@pytest.fixture
def local() -> Local:
    return Local()
