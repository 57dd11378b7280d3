"""Oracle 1: each language through every verdict; what they try leaves no trace outside."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmfw.testing import plugin_module

pytestmark = pytest.mark.slow

Sandbox = plugin_module("mplsandbox", "executor").Sandbox
language = plugin_module("mplsandbox", "languages").language
Case = plugin_module("mplsandbox", "records").Case
Limits = plugin_module("mplsandbox", "records").Limits
Request = plugin_module("mplsandbox", "records").Request

PROGRAMS = tomllib.loads((Path(__file__).parent / "programs.toml").read_text())
LIMITS = Limits(seconds=2, wall=20, memory=192, processes=64, output=65536)
QUICK = Limits(seconds=0.5, wall=20, memory=192, processes=64)
WANTED = {
    "broken": ("CE", ""),
    "uncaught": ("RE", ""),
    "exit3": ("RE", "exit code 3"),
    "loop": ("TLE", "CPU time"),
    "hog": ("MLE", "memory"),
    "flood": ("OLE", "output"),
    "write": ("OK", ""),
    "connect": ("OK", ""),
    "secret": ("OK", ""),
}


def cells() -> Iterator[tuple[str, str]]:
    for lang, programs in PROGRAMS.items():
        yield from ((lang, row) for row in ("right", "wrong", *programs) if row != "echo")


@pytest.mark.parametrize(("lang", "row"), list(cells()))
def test_each_language_gives_the_verdict_of_what_happened(sandbox: Sandbox, lang: str, row: str) -> None:
    if absent := language(lang).missing():
        pytest.skip(f"no {', '.join(absent)} here: apt-get install {' '.join(language(lang).packages)}")
    if row in ("right", "wrong"):
        case = Case(stdin="olleh\n", expected="hello" if row == "right" else "hell")
        result = sandbox.run(Request(code=PROGRAMS[lang]["echo"], lang=lang, cases=[case], limits=LIMITS))
        assert result.verdict == ("OK" if row == "right" else "WA"), result
        return
    verdict, detail = WANTED[row]
    says = "refused" if row in ("write", "connect", "secret") else None
    result = sandbox.run(
        Request(
            code=PROGRAMS[lang][row],
            lang=lang,
            cases=[Case(expected=says)],
            limits=QUICK if row == "loop" else LIMITS,
        )
    )
    assert result.verdict == verdict, result
    assert detail in result.cases[0].detail
    assert not Path("/usr/evil").exists()
