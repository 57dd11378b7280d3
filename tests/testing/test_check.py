"""The frame: what becomes of a law, exemptions that are strict, the pytest decorator, the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmfw.cli import run
from llmfw.core.errors import UsageError
from llmfw.testing import check
from llmfw.testing.check import check_law, check_plugin
from llmfw.testing.distributions import installed
from llmfw.testing.laws import KINDS, Law, NotApplicable, broken, laws
from llmfw.testing.subject import Subject
from tests.testing.base_toys import mutant

EXEMPT = ("[paper]", '[conformance.xfail]\ncard = "a toy needs no summary"\n\n[paper]')
NO_SUMMARY = ('summary = "Rates a text by its length."', 'summary = ""')
CHEAP = ("card", "doors", "mathematics-alone")


@pytest.fixture
def subject(tmp_path: Path) -> Iterator[Subject]:
    name = mutant(tmp_path / "site", "service")
    with installed(tmp_path / "site"):
        yield Subject(name, tmp_path / "work")


def of(act) -> Law:
    return Law(id="mine", statement="Mine.", kinds=(), check=act)


def test_every_law_has_an_id_a_statement_and_known_kinds():
    found = laws()
    assert len({law.id for law in found}) == len(found) > 30
    for law in found:
        assert law.id == law.id.lower() and " " not in law.id
        assert law.statement.endswith((".", "``.")) and set(law.kinds) <= set(KINDS)


def test_a_law_passes_fails_or_is_skipped_and_says_why(subject: Subject):
    def fails(subject: Subject) -> None:
        raise broken("it leaks", mend="close\n  the tap")

    def skips(subject: Subject) -> None:
        raise NotApplicable("there is no water")

    def crashes(subject: Subject) -> None:
        raise SystemExit(0)

    told = [check_law(subject, of(act)) for act in (lambda subject: None, fails, skips, crashes)]
    assert [(one.status, one.message) for one in told] == [
        ("passed", ""),
        ("failed", "it leaks; close the tap"),
        ("skipped", "there is no water"),
        ("failed", "SystemExit: 0"),
    ]
    assert [one.good for one in told] == [True, False, True, False]


def test_what_a_law_leaves_changed_is_put_back_and_noted(subject: Subject, tmp_path: Path):
    import torch

    before = (os.getcwd(), list(sys.path), torch.get_num_threads(), torch.get_default_dtype())

    def litters(subject: Subject) -> None:
        os.chdir(tmp_path)
        os.environ["TOY_LITTER"] = "1"
        sys.path.append("/nowhere")
        torch.set_num_threads(before[2] + 1)
        torch.set_default_dtype(torch.float64)

    assert check_law(subject, of(litters)).status == "passed"
    assert (os.getcwd(), list(sys.path), torch.get_num_threads(), torch.get_default_dtype()) == before
    assert "TOY_LITTER" not in os.environ
    assert [law for law, _ in subject.traces] == ["mine"] * 5
    (last,) = [law for law in laws() if law.id == "leaves-no-trace"]
    told = check_law(subject, last)
    assert told.status == "failed" and "(and 4 more)" in told.message


def test_an_exemption_holds_only_as_long_as_the_law_is_broken(tmp_path: Path):
    for place, changes, status, words in (
        ("a", [EXEMPT, NO_SUMMARY], "exempt", "a toy needs no summary"),
        ("b", [EXEMPT], "exempt-but-passed", "but it holds; remove it"),
    ):
        name = mutant(tmp_path / place, "service", card=changes)
        with installed(tmp_path / place):
            (told,) = check_plugin(name, only=["card"])
        assert (told.status, told.good) == (status, status == "exempt") and words in told.message


def test_an_exemption_covers_what_its_law_finds_and_no_crash_on_the_way(tmp_path: Path):
    name = mutant(tmp_path / "site", "service", card=EXEMPT)

    def crashes(subject: Subject) -> None:
        raise ValueError("no such column")

    def asserts(subject: Subject) -> None:
        raise AssertionError("the plugin's own")

    def finds(subject: Subject) -> None:
        raise broken("it leaks", mend="close the tap")

    with installed(tmp_path / "site"):
        subject = Subject(name, tmp_path / "work")
        told = [
            check_law(subject, Law(id="card", statement="Mine.", kinds=(), check=act))
            for act in (crashes, asserts, finds)
        ]
    assert [(one.status, one.good) for one in told] == [
        ("failed", False),
        ("failed", False),
        ("exempt", True),
    ]
    assert told[0].message.startswith(
        "ValueError: no such column; the card exempts it (a toy needs no summary)"
    )
    assert told[2].message == "a toy needs no summary"


@pytest.mark.parametrize(
    ("law", "words"),
    [
        ("crad", "there is no law 'crad'; did you mean card"),
        ("swap", "exempt from 'swap', a law of other kinds"),
    ],
)
def test_an_exemption_from_a_law_that_isnt_there_is_refused(tmp_path: Path, law: str, words: str):
    name = mutant(tmp_path, "service", card=("[paper]", f'[conformance.xfail]\n{law} = "why"\n\n[paper]'))
    with installed(tmp_path), pytest.raises(UsageError, match=words):
        check_plugin(name, only=["card"])


def test_a_law_that_isnt_there_cant_be_asked_for(subject: Subject):
    with pytest.raises(UsageError, match="did you mean card"):
        check_plugin(subject.name, only=["cards"])


def test_the_command_line_tells_every_law_and_ends_with_4_where_one_is_broken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    name = mutant(tmp_path, "service", card=NO_SUMMARY)
    words = ["plugins", "check", name, *(word for law in CHEAP for word in ("--law", law))]
    with installed(tmp_path):
        assert run(words) == 4
        told = capsys.readouterr()
        rows = {line.split()[0]: line.split()[1] for line in told.out.splitlines()[2:5]}
        assert rows == {"card": "failed", "mathematics-alone": "skipped", "doors": "passed"}
        assert "1 passed, 1 failed, 1 skipped in" in told.out
        (error,) = told.err.splitlines()
        assert error.startswith(f"error[LAWS-BROKEN] '{name}' broke 1 of 2 laws: card; ")
        assert run([*words, "--json"]) == 4
        found = json.loads(capsys.readouterr().out)
        assert [(one["law"], one["status"]) for one in found] == [
            ("card", "failed"), ("mathematics-alone", "skipped"), ("doors", "passed"),
        ]  # fmt: skip


def test_the_command_line_checks_several_plugins_and_all_of_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    names = [mutant(tmp_path, "service", card=NO_SUMMARY), mutant(tmp_path, "decoder")]
    with installed(tmp_path):
        assert run(["plugins", "check", *names, "--law", "card", "--law", "doors"]) == 4
        told = capsys.readouterr()
        assert "1 of 2 plugins broke 1 of 4 laws: base_service: card;" in told.err
        assert run(["plugins", "check", "--all", "--law", "doors"]) == 0
        out = capsys.readouterr().out
        assert all(f"\n{name} (" in f"\n{out}" for name in [*names, "dpo"])


def test_asking_for_laws_of_other_kinds_alone_is_an_error_not_a_pass(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    name = mutant(tmp_path, "service")
    with installed(tmp_path):
        assert run(["plugins", "check", name, "--law", "swap"]) == 2
        assert "error[LAW] swap: no law of these plugins' kinds" in capsys.readouterr().err
        with pytest.raises(UsageError, match="nothing was checked"):
            check.parametrize_with_checks([name], only=["swap"])


def test_the_command_line_wants_to_know_which_plugins(capsys: pytest.CaptureFixture[str]):
    assert run(["plugins", "check"]) == 2
    assert "name some, or give --all" in capsys.readouterr().err
    assert run(["plugins", "check", "dpo", "--all"]) == 2
    capsys.readouterr()
    assert run(["plugins", "check", "--list", "dpo"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert "card" in listed and "swap" in listed and "quiet-birth" in listed


CONFTEST = """
import sys
sys.path.insert(0, {site!r})
"""
TEST = """
from llmfw.testing import parametrize_with_checks

NAMES = ["base_service", "base_decoder", "base_datamodule"]

@parametrize_with_checks(NAMES, only=["card", "mathematics-alone"])
def test_it(check):
    check()
"""


def test_the_decorator_makes_a_test_a_law_and_exemptions_strict(tmp_path: Path):
    """The first toy breaks the card's law, the second is exempt and breaks it, the third is exempt and keeps
    it.
    """
    site = tmp_path / "site"
    mutant(site, "service", card=NO_SUMMARY)
    no_summary = ('summary = "', 'summary = "" # ')
    mutant(site, "decoder", card=[EXEMPT, no_summary])
    mutant(site, "datamodule", card=EXEMPT)
    (tmp_path / "conftest.py").write_text(CONFTEST.format(site=str(site)))
    (tmp_path / "test_it.py").write_text(TEST)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "--rootdir", ".", "test_it.py"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    for test, status in {
        "base_service-card": "FAILED",
        "base_service-mathematics-alone": "SKIPPED",
        "base_decoder-card": "XFAIL",
        "base_decoder-mathematics-alone": "PASSED",
        "base_datamodule-card": "FAILED",
    }.items():
        assert f"test_it[{test}] {status}" in done.stdout, done.stdout
    assert done.returncode == 1
    assert "set summary in card.toml" in done.stdout and "The law card:" in done.stdout
    assert "but it holds; remove it from [conformance.xfail]" in done.stdout
    assert "in check_law" not in done.stdout  # the message alone, no traceback through the kit


def test_a_plugin_that_cant_be_imported_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    name = mutant(
        tmp_path, "service", plugin=("class Toy(Plugin):", "import nothing_here\n\n\nclass Toy(Plugin):")
    )
    with installed(tmp_path):
        assert run(["plugins", "check", name]) == 4
    assert "error[PLUGIN-IMPORT]" in capsys.readouterr().err


def test_the_subjects_of_tests_share_their_runs():
    assert check._kept("dpo") is check._kept("dpo")
