"""Sandboxes for all tests of a process; where the machine can't give one, they say why they're skipped."""

from __future__ import annotations

import pytest

from llmfw.testing import plugin_module

tool_binds = plugin_module("mplsandbox", "analysis.tools").tool_binds
Sandbox = plugin_module("mplsandbox", "executor").Sandbox
SandboxUnavailable = plugin_module("mplsandbox", "isolation.backends").SandboxUnavailable


@pytest.fixture(scope="session")
def sandbox() -> Sandbox:
    """Of level strict."""
    try:
        return Sandbox()
    except SandboxUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def lab() -> Sandbox:
    """Of level strict, two programs at once; it sees the folder of tools."""
    try:
        return Sandbox(binds=tool_binds(), jobs=2)
    except SandboxUnavailable as error:
        pytest.skip(str(error))
