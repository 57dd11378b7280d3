"""The table of analysers, the folder of tools, and tools that aren't here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llmfw.testing import plugin_module

analyze = plugin_module("mplsandbox", "analysis").analyze
folder = plugin_module("mplsandbox", "analysis.tools")
TRACERS = plugin_module("mplsandbox", "analysis.lines").TRACERS
PARSERS = plugin_module("mplsandbox", "analysis.parse").PARSERS
Analyser = plugin_module("mplsandbox", "analysis.table").Analyser
analysers = plugin_module("mplsandbox", "analysis.table").analysers
Sandbox = plugin_module("mplsandbox", "executor").Sandbox
filesystem = plugin_module("mplsandbox", "isolation.filesystem")
languages = plugin_module("mplsandbox", "languages").languages
Case = plugin_module("mplsandbox", "records").Case
Request = plugin_module("mplsandbox", "records").Request


@pytest.mark.parametrize("one", analysers().values(), ids=lambda one: one.id)
def test_an_entry_of_the_table_is_whole(one: Analyser) -> None:
    assert one.category in ("basic", "smell", "bug", "coverage", "efficiency")
    assert set(one.languages) <= {"*", *languages()}
    assert one.parser in (TRACERS if one.per_case else PARSERS) or one.parser == "usage"
    assert one.install or one.parser == "usage"
    assert one.files() is not None
    assert one.instead_of in ("", *analysers())
    assert re.compile(one.parse.get("pattern", "")) and re.compile(one.parse.get("skip", ""))
    assert one.parser not in ("json", "jsonl") or "message" in one.parse["fields"] | one.parse


def test_a_tool_that_is_not_here_is_named_with_what_installs_it(
    lab: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(folder.VARIABLE, str(tmp_path))
    analysis = analyze(lab, Request(code="print(1)", lang="python"), ["smell", "bug"])
    told = {one.tool: (one.status, one.detail) for one in analysis.reports}
    assert told["ruff"] == ("absent", "not here: ruff; llmfw sandbox install-tools")
    assert told["pylint"][0] == told["bandit"][0] == told["mypy"][0] == "absent"
    assert told["llmfw-sizes"] == ("ok", "")


def test_a_category_without_analysers_says_so(lab: Sandbox) -> None:
    (report,) = analyze(lab, Request(code="1", lang="r", cases=[Case()]), ["bug"]).reports
    assert (report.status, report.detail) == ("absent", "no analyser of this category is known for R")


def test_functions_of_a_language_without_a_driver_fail_in_words(lab: Sandbox) -> None:
    request = Request(code="x=1", lang="bash", mode="call", entry_point="f", cases=[Case(args=[1])])
    (report,) = analyze(lab, request, ["coverage"]).reports
    assert (report.status, report.detail) == ("failed", "functions of Bash can't be called")


def test_the_variable_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(folder.VARIABLE, str(tmp_path / "here"))
    assert folder.tools_folder() == tmp_path / "here"
    assert folder.tool_binds() == ()


def test_root_and_others_have_different_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(folder.VARIABLE, raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(folder.os, "geteuid", lambda: 0)
    assert folder.tools_folder() == Path("/var/lib/llmfw-sandbox-tools")
    monkeypatch.setattr(folder.os, "geteuid", lambda: 1000)
    assert folder.tools_folder() == tmp_path / ".cache/llmfw/sandbox-tools"


def test_a_folder_that_a_sandbox_has_of_its_own_is_refused() -> None:
    with pytest.raises(folder.ToolsError) as caught:
        folder.check_readable(Path("/tmp/tools"))
    assert "it has a /tmp of its own" in str(caught.value)


def test_a_folder_that_a_sandbox_cannot_reach_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only where we are root do sandboxes run as somebody else."""
    monkeypatch.setattr(filesystem, "_OWN", ())
    if folder.os.geteuid() != 0:
        pytest.skip("sandboxes run as us")
    closed = tmp_path / "closed"
    inner = closed / "tools"
    inner.mkdir(parents=True)
    closed.chmod(0o700)
    with pytest.raises(folder.ToolsError) as caught:
        folder.tool_binds(inner)
    assert "closed to other users" in str(caught.value)


def test_what_is_wanted_comes_from_the_table() -> None:
    pypi, npm = folder.wanted()
    assert {"ruff", "pylint", "bandit", "coverage", "vulture", "mypy"} <= set(pypi)
    assert [one.partition("@")[0] for one in npm] == ["eslint"]
