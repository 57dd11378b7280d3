"""``llmfw plugins new``: what it writes, and what it refuses. Nothing is built here."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from llmfw.cli import cli
from llmfw.core.discovery import cards
from llmfw.core.errors import UsageError
from llmfw.testing import render
from llmfw.testing.laws import KINDS
from llmfw.verbs import plugins_new

HEADINGS = [
    "Idea", "Equation", "Use", "Settings", "Neutral setting", "Measured here", "Deviations from the paper"
]  # fmt: skip


def new(*words: str) -> Result:
    return CliRunner().invoke(cli, ["plugins", "new", *words])


def test_the_verb_offers_the_kinds_that_there_are():
    assert plugins_new.KINDS == KINDS
    assert {path.name for path in render.TEMPLATE.iterdir()} == {*KINDS, "common"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_package_is_whole_and_no_trace_of_the_examples_name_is_left(kind: str, tmp_path: Path):
    files = render.rendered("quiet_one", kind, author="Ada Lovelace")
    home = Path("src/llmfw_quiet_one")
    wanted = ["__init__.py", "card.toml", "config.yaml", "plugin.py", "README.md", "reproduce.py", "py.typed"]
    names = [home / name for name in wanted]
    names += map(Path, ["pyproject.toml", "LICENSE", "CHANGELOG.md", "README.md", ".gitignore"])
    names += map(Path, [".github/workflows/test.yml", "tests/test_conformance.py", "tests/test_plugin.py"])
    assert not set(names) - set(files)
    for path, text in files.items():
        told = f"{path}\n{text}"
        assert not [word for word in ("my_method", "MyMethod", "Your Name", "One line about") if word in told]
        if path.suffix == ".py":
            ast.parse(text)
    project = tomllib.loads(files[Path("pyproject.toml")])["project"]
    assert project["entry-points"]["llmfw.plugins"] == {"quiet_one": "llmfw_quiet_one.plugin:QuietOne"}
    assert (project["name"], project["authors"]) == ("llmfw-quiet_one", [{"name": "Ada Lovelace"}])
    card = tomllib.loads(files[home / "card.toml"])
    assert (card["name"], card["kinds"], card["summary"]) == ("quiet_one", [kind], project["description"])
    headings = [line[3:] for line in files[home / "README.md"].splitlines() if line.startswith("## ")]
    assert headings == HEADINGS
    assert files[home / "__init__.py"] == ""


def test_common_files_and_those_of_a_kind_never_meet():
    for kind in KINDS:
        here, common = (
            {path.relative_to(render.TEMPLATE / part) for path in (render.TEMPLATE / part).rglob("*.*")}
            for part in (kind, "common")
        )
        assert not here & common


def test_the_command_says_what_it_wrote_and_what_comes_next(tmp_path: Path):
    told = new("quiet_one", "--kind", "loss", "--into", str(tmp_path / "new"), "--author", "Ada")
    assert told.exit_code == 0, told.output
    folder = tmp_path / "new" / "llmfw-quiet_one"
    listed = [line.strip() for line in told.output.splitlines()]
    for path in folder.rglob("*"):
        assert path.is_dir() or str(path.relative_to(folder)) in listed
    for command in ("pip install -e '.[test]'", "pytest", "llmfw plugins check quiet_one"):
        assert command in listed
    assert "llmfw fit --plugin quiet_one" in listed
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["llmfw-quiet_one"]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Quiet", "can't name a package"),
        ("quiet-one", "can't name a package"),
        ("_quiet", "can't name a package"),
        ("quiet__one", "can't name a package"),
        ("1quiet", "can't name a package"),
        ("../quiet", "can't name a package"),
        ("lambda", "can't name a package"),
        ("", "can't name a package"),
        ("true", "is no text but a value in YAML"),
        ("false", "is no text but a value in YAML"),
        ("null", "is no text but a value in YAML"),
        ("q" * 33, "longer than 32"),
        ("trainer", "a word of llmfw"),
        ("fit", "a word of llmfw"),
        ("kv_cache", "a word of llmfw"),
        ("dpo", "taken by llmfw"),
        ("tensor", "a class Tensor"),
        ("any", "a class Any"),
    ],
)
def test_a_name_that_would_not_work_is_refused(name: str, why: str):
    with pytest.raises(UsageError, match=why) as caught:
        render.rendered(name, "loss")
    assert caught.value.code == "PLUGIN-NAME" and "\n" not in str(caught.value)


@pytest.mark.parametrize("author", ['Ada "the first"', "Ada\nLovelace", "back\\slash", " "])
def test_an_author_that_would_break_the_toml_is_refused(author: str):
    with pytest.raises(UsageError, match="is no name"):
        render.rendered("quiet_one", "loss", author=author)


def test_nothing_that_is_there_is_overwritten_and_an_empty_folder_is_filled(tmp_path: Path):
    folder = tmp_path / "llmfw-quiet_one"
    folder.mkdir()
    render.write_package("quiet_one", "service", tmp_path)
    mine = folder / "pyproject.toml"
    mine.write_text("mine")
    with pytest.raises(UsageError, match="there and not empty"):
        render.write_package("quiet_one", "service", tmp_path)
    assert mine.read_text() == "mine"


def test_a_folder_that_can_not_be_made_is_one_line(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="can't be written"):
        render.write_package("quiet_one", "service", tmp_path / "file")


def test_on_the_command_line_a_refusal_is_one_line_and_exit_code_2(tmp_path: Path):
    told = subprocess.run(
        [sys.executable, "-m", "llmfw.cli", "plugins", "new", "dpo", "--kind", "loss"],
        cwd=tmp_path,
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 2
    (line,) = told.stderr.splitlines()
    assert line.startswith("error[PLUGIN-NAME]") and not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_rendered_passes_the_linter(kind: str, tmp_path: Path):
    folder = render.write_package("quiet_one", kind, tmp_path)
    rules = ["--isolated", "--no-cache", "--select=E,W,F,UP", "--line-length=110", "--target-version=py311"]
    told = subprocess.run(
        [sys.executable, "-m", "ruff", "check", *rules, "--output-format=json", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert json.loads(told.stdout) == []


def test_the_template_names_baselines_that_exist():
    """A card's baseline is a plugin that llmfw brings, or words."""
    words = {"none", "plain SFT", "default", "base", "full cache", "greedy"}
    for kind in KINDS:
        card = tomllib.loads(render.rendered("quiet_one", kind)[Path("src/llmfw_quiet_one/card.toml")])
        assert card["neutral"].get("baseline", "none") in words | set(cards())
