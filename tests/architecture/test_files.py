"""Files that people can read and move: none too long, none that knows this machine."""

from __future__ import annotations

import re
from pathlib import Path

from tests.architecture.conftest import ROOT, tracked

LONGEST = 500
GENERATED = (".lock", ".json", ".jsonl", ".svg", ".png")
MACHINE = re.compile(
    r"(?<![\w.])/(?:home|root|Users|work|opt|mnt|srv)/[\w.-]+"  # a folder of somebody's machine
    r"|(?:pypi|pythonhosted|npmjs|debian|ubuntu)\.(?:org|com)|(?<!\w)index\.python\b",  # a registry's host
)
ALLOWED = {"tests/architecture/test_files.py"}


def text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def test_no_source_file_is_longer_than_five_hundred_lines():
    long = {
        str(path.relative_to(ROOT)): lines
        for path in tracked()
        if path.suffix in (".py", ".sh", ".toml", ".yaml") and (lines := text_of(path).count("\n")) > LONGEST
    }
    assert not long


def test_no_file_names_a_folder_of_a_machine_or_a_registrys_host():
    found = {}
    for path in tracked():
        name = str(path.relative_to(ROOT))
        if name in ALLOWED:
            continue
        for number, line in enumerate(text_of(path).splitlines(), 1):
            if match := MACHINE.search(line):
                found[f"{name}:{number}"] = match[0]
    assert not found


def test_the_search_for_machine_folders_finds_them_and_leaves_the_rest():
    home = "/".join(["", "home", "somebody", "model"])
    assert MACHINE.search(f"cd {home}") and MACHINE.search(f'Path("{home}")')
    assert not MACHINE.search("runs/home/x, https://example.org/home/x, /usr/bin/env, /tmp/x, ./root")


def test_what_is_installed_is_what_the_repository_promises():
    """Files that the package must carry, as setuptools is told to."""
    assert (ROOT / "llmfw" / "py.typed").exists()
    for plugin in (ROOT / "llmfw" / "plugins").iterdir():
        if (plugin / "card.toml").exists():
            assert (plugin / "config.yaml").exists() and (plugin / "README.md").exists(), plugin.name
