"""One sandbox for all tests of a process; where the machine can't give one, they say why they're skipped."""

from __future__ import annotations

import pytest

from llmfw.testing import plugin_module

Sandbox = plugin_module("mplsandbox", "executor").Sandbox
SandboxUnavailable = plugin_module("mplsandbox", "isolation.backends").SandboxUnavailable


@pytest.fixture(scope="session")
def sandbox() -> Sandbox:
    """Of level strict."""
    try:
        return Sandbox()
    except SandboxUnavailable as error:
        pytest.skip(str(error))
