"""One sandbox for all tests of a process; where the machine can't give one, they say why they're skipped."""

from __future__ import annotations

import pytest

from llmfw.plugins.mplsandbox.executor import Sandbox
from llmfw.plugins.mplsandbox.isolation.backends import SandboxUnavailable


@pytest.fixture(scope="session")
def sandbox() -> Sandbox:
    """Of level strict."""
    try:
        return Sandbox()
    except SandboxUnavailable as error:
        pytest.skip(str(error))
