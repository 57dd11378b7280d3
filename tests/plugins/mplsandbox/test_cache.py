"""A result that is kept is the result of an equal request, and of nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from llmfw.core.cache.entries import entries
from llmfw.testing import plugin_module

module = plugin_module("mplsandbox", "cache")
Cached = plugin_module("mplsandbox", "cache").Cached
CacheError = plugin_module("mplsandbox", "cache").CacheError
cache_folder = plugin_module("mplsandbox", "cache").cache_folder
group = plugin_module("mplsandbox", "commands").group
RequestError = plugin_module("mplsandbox", "executor").RequestError
Sandbox = plugin_module("mplsandbox", "executor").Sandbox
Keep = plugin_module("mplsandbox", "keep").Keep
LanguageError = plugin_module("mplsandbox", "languages").LanguageError
languages = plugin_module("mplsandbox", "languages").languages
Case = plugin_module("mplsandbox", "records").Case
Checker = plugin_module("mplsandbox", "records").Checker
Isolation = plugin_module("mplsandbox", "records").Isolation
Limits = plugin_module("mplsandbox", "records").Limits
Request = plugin_module("mplsandbox", "records").Request
Result = plugin_module("mplsandbox", "records").Result
Stage = plugin_module("mplsandbox", "records").Stage
language_rows = plugin_module("mplsandbox", "toolchains").language_rows
toolchain_version = plugin_module("mplsandbox", "toolchains").toolchain_version

SUM = Request(code="print(int(input()) + 1)", lang="python", cases=[Case(stdin="1", expected="2")], id="a")


class Toy:
    """Answers every request with the same stages, and counts."""

    isolation = Isolation(level="strict", backend="toy")
    jobs = 2

    def __init__(self, *cases: Stage, compiled: Stage | None = None) -> None:
        self.cases, self.compiled, self.count = cases or (Stage(verdict="OK", code=0),), compiled, 0
        self.wait: Callable[[], Any] = lambda: None

    def run(self, request: Request, /) -> Result:
        self.count += 1
        self.wait()
        verdict = "CE" if self.compiled else self.cases[0].verdict
        return Result(
            lang="python", confidence=1.0, verdict=verdict, compile=self.compiled, cases=self.cases,
            isolation=self.isolation, version="1", id=request.id,
        )  # fmt: skip


@pytest.fixture(autouse=True)
def _versions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "sandbox" not in request.fixturenames:
        monkeypatch.setattr(module, "toolchain_version", lambda sandbox, lang: f"{lang} 1")


def test_the_second_time_it_comes_from_the_disk_with_its_own_id(sandbox: Sandbox, tmp_path: Path) -> None:
    first = Cached(sandbox, tmp_path)
    result = first.run(SUM)
    assert (result.verdict, result.id, first.hits, first.misses) == ("OK", "a", 0, 1)
    again = Cached(sandbox, tmp_path)
    assert again.run(replace(SUM, id="b")) == replace(result, id="b")
    assert (again.hits, again.misses) == (1, 0)
    assert again.isolation == sandbox.isolation


def test_many_requests_come_back_in_order_and_equal_ones_run_once(sandbox: Sandbox, tmp_path: Path) -> None:
    cached = Cached(sandbox, tmp_path)
    requests = [replace(SUM, cases=[Case(stdin=str(n % 3), expected="2")], id=str(n)) for n in range(12)]
    results = list(cached.run_many(requests))
    assert [one.id for one in results] == [str(n) for n in range(12)]
    assert [one.verdict for one in results] == ["WA", "OK", "WA"] * 4
    assert (cached.misses, cached.hits) == (3, 9)


@pytest.mark.parametrize(
    "change",
    [
        {"code": "print(2)"}, {"lang": "lua"}, {"mode": "call", "entry_point": "f"}, {"setup": "x"},
        {"cases": [Case(stdin="2", expected="2")]}, {"cases": [Case(stdin="1", expected="3")]},
        {"cases": [*SUM.cases, *SUM.cases]}, {"cases": [Case(stdin=b"1", expected="2")]},
        {"files": {"a": "b"}}, {"outputs": ["a"]}, {"checker": Checker(name="exact")},
        {"limits": Limits(seconds=9)}, {"compile_limits": Limits()}, {"tests": "t"},
        {"cases": [replace(SUM.cases[0], limits=Limits(memory=1))]},
        {"cases": [replace(SUM.cases[0], checker=Checker(name="float"))]},
        {"lang": "AUTO", "name": "a.py"},
    ],
    ids=lambda change: "-".join(change),
)  # fmt: skip
def test_whatever_may_change_a_result_makes_another_key(tmp_path: Path, change: dict[str, Any]) -> None:
    toy = Toy()
    cached = Cached(toy, tmp_path)
    for request in (SUM, replace(SUM, **change), replace(SUM, **change, id="c"), SUM):
        cached.run(request)
    assert toy.count == 2


def test_other_tools_another_executor_or_another_sandbox_make_another_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = Toy()
    Cached(toy, tmp_path).run(SUM)
    Cached(toy, tmp_path, also=["/data"]).run(SUM)
    toy.isolation = replace(toy.isolation, features=("seccomp",))  # type: ignore[misc]
    Cached(toy, tmp_path).run(SUM)
    monkeypatch.setattr(module, "VERSION", "next")
    Cached(toy, tmp_path).run(SUM)
    monkeypatch.setattr(module, "toolchain_version", lambda sandbox, lang: f"{lang} 2")
    Cached(toy, tmp_path).run(SUM)
    assert toy.count == 5


@pytest.mark.parametrize(
    ("toy", "kept"),
    [
        *((Toy(Stage(verdict=one, code=1)), True) for one in ("OK", "WA", "RE", "SV", "OLE")),
        *((Toy(Stage(verdict=one)), False) for one in ("IE", "TLE", "MLE")),
        (Toy(Stage(verdict="RE", code=1), Stage(verdict="TLE")), False),
        (Toy(Stage(verdict="RE", signal=11)), True),
        (Toy(Stage(verdict="RE", signal=9)), False),
        (Toy(Stage(verdict="CE"), compiled=Stage(verdict="CE", code=1)), True),
        (Toy(Stage(verdict="CE"), compiled=Stage(verdict="CE", detail="the compiler: wall time")), False),
    ],
    ids=lambda one: "-".join(stage.verdict for stage in one.cases) if isinstance(one, Toy) else "",
)
def test_only_what_comes_again_is_kept(tmp_path: Path, toy: Toy, kept: bool) -> None:
    toy.count = 0
    for _ in range(2):
        Cached(toy, tmp_path).run(SUM)
    assert toy.count == (1 if kept else 2)


def test_limits_are_kept_and_given_only_where_they_are_asked_for(tmp_path: Path) -> None:
    toy = Toy(Stage(verdict="TLE"))
    for keep_limits in (True, True, False, False):
        Cached(toy, tmp_path, keep_limits=keep_limits).run(SUM)
    assert toy.count == 3


@pytest.mark.parametrize("damage", ["", "half", "bit", "other", "folder"])
def test_a_damaged_entry_is_replaced(tmp_path: Path, damage: str) -> None:
    toy = Toy()
    Cached(toy, tmp_path).run(SUM)
    (file,) = [one for one in tmp_path.glob("results/*/*") if one.is_file()]
    data = file.read_bytes()
    match damage:
        case "half":
            file.write_bytes(data[: len(data) // 2])
        case "bit":
            file.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
        case "other":
            Keep(tmp_path / "results", 1 << 20).put(
                file.parent.name + file.name, json.dumps({"verdict": "OK"}).encode()
            )
        case "folder":
            file.unlink()
            file.mkdir()
        case _:
            file.write_bytes(b"")
    cached = Cached(toy, tmp_path)
    cached.run(SUM)
    cached.run(SUM)
    assert toy.count == (3 if damage == "folder" else 2)
    assert not list(tmp_path.glob("results/*/.half-*")) and not list(tmp_path.glob("results/*/*.lock"))


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    keep = Keep(tmp_path, most=10_000)
    for number in range(8):
        keep.put(f"{number:064}", b"x" * 1000)
        os.utime(tmp_path / "00" / f"{number:062}", (number, number))
    assert keep.get("0".zfill(64)) is not None  # used just now
    for number in range(8, 12):
        keep.put(f"{number:064}", b"x" * 1000)
    kept = [number for number in range(12) if keep.get(f"{number:064}") is not None]
    assert 0 in kept and 1 not in kept and {8, 9, 10, 11} <= set(kept)
    assert sum(one.stat().st_size for one in tmp_path.glob("*/*")) <= 10_000


def test_equal_requests_that_fly_at_once_run_once(tmp_path: Path) -> None:
    toy, may = Toy(Stage(verdict="TLE")), threading.Event()  # even what isn't kept
    toy.wait = lambda: may.wait(10)
    cached, found = Cached(toy, tmp_path), list[str]()
    threads = [
        threading.Thread(target=lambda n=n: found.append(cached.run(replace(SUM, id=str(n))).id))
        for n in range(5)
    ]
    for one in threads:
        one.start()
    threading.Timer(0.2, may.set).start()
    for one in threads:
        one.join(10)
    assert (toy.count, sorted(found)) == (1, list("01234"))


PROCESS = """
import sys
from PACKAGE.cache import Cached
from PACKAGE.executor import RequestError, Sandbox
from PACKAGE.records import Case
cached = Cached(Sandbox(), sys.argv[1])
cached.sandbox.run("print()", lang="python", cases=[Case()])
print("ready", flush=True); sys.stdin.readline()
code = "import time; time.sleep(1.5); print(1)"
print(cached.run(code, lang="python", cases=[Case()]).verdict, cached.misses)
""".replace("PACKAGE", Cached.__module__.rpartition(".")[0])


def test_two_processes_run_an_equal_request_once(sandbox: Sandbox, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROCESS, str(tmp_path)]
    pipe = subprocess.PIPE
    both = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
    for one in both:
        assert one.stdout and one.stdout.readline() == "ready\n"
    assert sorted(one.communicate("\n", timeout=60)[0] for one in both) == ["OK 0\n", "OK 1\n"]
    cached = Cached(sandbox, tmp_path)
    cached.run("import time; time.sleep(1.5); print(1)", lang="python", cases=[Case()])
    assert cached.hits == 1


def test_what_is_wrong_with_a_request_is_said_as_without_a_cache(sandbox: Sandbox, tmp_path: Path) -> None:
    cached = Cached(sandbox, tmp_path)
    with pytest.raises(LanguageError, match="klingon"):
        cached.run("", lang="klingon")
    with pytest.raises(RequestError, match="LANGUAGE-UNKNOWN"):
        cached.run("")
    with pytest.raises(RequestError, match="entry_point"):
        cached.run("x", lang="python", mode="call")


def test_the_folder_is_the_variables_or_in_llmfws_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LLMFW_SANDBOX_CACHE", "LLMFW_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cache_folder() == tmp_path / "x/llmfw/sandbox"
    monkeypatch.setenv("LLMFW_CACHE", str(tmp_path / "l"))
    assert cache_folder() == tmp_path / "l/sandbox"
    Cached(Toy()).run(SUM)
    assert [one.label for one in entries("sandbox")] == ["sandbox/results"]  # llmfw cache ls shows it
    monkeypatch.setenv("LLMFW_SANDBOX_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"


def test_a_folder_that_cannot_be_made_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match=r"CACHE.*LLMFW_SANDBOX_CACHE"):
        Cached(Toy(), tmp_path / "file")


# Versions of tools.


def test_tools_tell_their_versions_in_a_sandbox_once_a_process(sandbox: Sandbox) -> None:
    class Counted:
        isolation = replace(sandbox.isolation, features=("a test's own",))
        jobs = 1
        count = 0

        def run(self, request: Request, /) -> Result:
            self.count += 1
            return sandbox.run(request)

    counted = Counted()
    assert toolchain_version(counted, "py").startswith("Python 3.")
    assert toolchain_version(counted, "python") == toolchain_version(counted, "py")
    assert counted.count == 1


def test_a_language_that_runs_on_anothers_runtime_tells_both(sandbox: Sandbox) -> None:
    if not next(one for one in language_rows() if one["id"] == "typescript")["here"]:
        pytest.skip("no tsc here")
    assert toolchain_version(sandbox, "typescript").count("; v") == 1


def test_the_table_of_languages_shows_versions_where_they_are_asked_for(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {name: languages()[name] for name in ("python", "bash")}
    monkeypatch.setattr(plugin_module("mplsandbox", "toolchains"), "languages", lambda: few)
    shown = CliRunner().invoke(group, ["languages", "--versions"]).stdout.splitlines()
    assert [line.split()[0] for line in shown] == ["python", "bash"]
    assert "Python 3." in shown[0] and "GNU bash" in shown[1]
    rows = json.loads(CliRunner().invoke(group, ["languages", "--json"]).stdout)
    assert all("version" not in row and row["here"] for row in rows)
