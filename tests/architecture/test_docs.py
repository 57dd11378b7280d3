"""The pages that people read: generated where they can be, no dead link, no command that does not exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from llmfw.cli import cli
from llmfw.core.discovery import card, load_class
from llmfw.core.settings.keys import find, root_section
from tests.architecture.conftest import ROOT

PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "llmfw" / "plugins").glob("*/README.md")]
)


def commands(page: Path) -> list[list[str]]:
    """The words of every llmfw command line in a page's code blocks."""
    text = re.sub(
        r" *\\\n\s*", " ", page.read_text(encoding="utf-8")
    )  # a line that goes on behind a backslash
    lines = re.findall(r"^(?: {4}|\$ )?(llmfw .*?)(?:\s{2,}#.*)?$", text, re.MULTILINE)
    return [shlex.split(line.partition("  #")[0]) for line in lines]


def test_the_generated_pages_are_what_the_code_says():
    told = subprocess.run(
        [sys.executable, "scripts/write_docs.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file(page: Path):
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text(encoding="utf-8"))
    assert not [link for link in links if not (page.parent / link).exists()]


RUN_ELSEWHERE = {"write-a-plugin.md"}
"""Pages whose commands are run, over plugins that they make: tests/thirdparty."""


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if commands(page) and page.name not in RUN_ELSEWHERE],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_every_command_has_a_verb_options_and_keys_that_exist(page: Path):
    context = click.Context(cli)
    for words in commands(page):
        command = cli.get_command(context, words[1])
        assert command is not None, words
        rest = words[2:]
        if isinstance(command, click.Group) and rest and rest[0] in command.commands:
            command, rest = command.commands[rest[0]], rest[1:]
        options = {name for parameter in command.params for name in parameter.opts} | {"--help"}
        plugins = [rest[at + 1] for at, word in enumerate(rest) if word == "--plugin"]
        root = root_section({name: load_class(card(name)).Config for name in plugins})
        for word in rest:
            if word.startswith("-"):
                assert word.split("=")[0] in options, words
            elif re.match(r"[a-z_.]+=", word):
                assert find(root, word.split("=")[0].split(".")) is not None, words


def test_the_pages_show_commands_of_most_verbs():
    """The search for commands finds them."""
    shown = {words[1] for page in PAGES for words in commands(page)}
    assert {"fit", "plan", "compare", "generate", "init", "data", "config", "plugins", "doctor"} <= shown
