"""The contract with plugins: small, documented, and changed only where everyone sees it."""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path

import pytest

from llmfw.core import hookspecs
from llmfw.core.hookspecs import CARDINALITY
from llmfw.core.plan import RECORD_OF
from tests.architecture.conftest import ROOT


def lock_script():
    path = ROOT / "scripts" / "hooks_lock.py"
    spec = importlib.util.spec_from_file_location("hooks_lock", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_hooks_lock_is_what_the_code_says():
    script = lock_script()
    message = f"the contract with plugins changed; if that is meant, run: {script.COMMAND}"
    assert script.LOCK.read_text(encoding="utf-8") == script.text(), message


def test_the_lock_notices_a_changed_argument(monkeypatch: pytest.MonkeyPatch):
    script = lock_script()

    def llmfw_sampler(run, seed):
        """A sampler."""

    monkeypatch.setattr(hookspecs, "llmfw_sampler", llmfw_sampler)
    assert script.text() != script.LOCK.read_text(encoding="utf-8")


def test_there_are_at_most_fourteen_hooks():
    assert 0 < len(CARDINALITY) <= 14


@pytest.mark.parametrize("hook", CARDINALITY)
def test_the_name_tells_the_cardinality(hook: str):
    assert hook.startswith("llmfw_")
    plural = hook.endswith("s") and not hook.endswith("ss")
    assert CARDINALITY[hook] == ("many" if plural else "one")


@pytest.mark.parametrize("hook", CARDINALITY)
def test_every_hook_says_what_it_is_and_is_documented(hook: str):
    assert len(inspect.getdoc(getattr(hookspecs, hook)) or "") > 20
    assert f"## `{hook}" in Path(ROOT / "docs" / "hooks.md").read_text(encoding="utf-8")


def test_the_plan_asks_every_hook_but_commands_in_the_contracts_order():
    assert list(RECORD_OF) == [hook for hook in CARDINALITY if hook != "llmfw_commands"]
