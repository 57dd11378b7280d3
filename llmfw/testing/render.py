"""Render the template of a plugin: the common files and those of one kind, with the example's names replaced.

The template is a working package called ``my_method``; rendering replaces four words and nothing else.
"""

from __future__ import annotations

import keyword
import os
import re
import tempfile
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from llmfw.core.errors import UsageError
from llmfw.core.settings.strict_yaml import plain
from llmfw.testing.laws import KINDS

TEMPLATE = Path(__file__).parent / "template"
_NAME, _CLASS, _AUTHOR, _SUMMARY = "my_method", "MyMethod", "Your Name", "One line about the method."
_DOT = "dot-"
"""Beginning of a hidden file's or folder's name in the template: wheels leave hidden files out."""
_LONGEST = 32


def class_name(name: str) -> str:
    """``ld_dpo`` -> ``LdDpo``."""
    return "".join(part.capitalize() for part in name.split("_"))


def check_name(name: str, kind: str) -> None:
    """Raise UsageError unless a new plugin of this kind may be called so."""

    def refuse(why: str, mend: str = "choose another name") -> UsageError:
        return UsageError("PLUGIN-NAME", f"{name!r} {why}", mend=mend)

    if re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) is None or keyword.iskeyword(name):
        raise refuse("can't name a package", "use lower-case letters, digits and single underscores")
    if plain(name) != name:
        raise refuse("is no text but a value in YAML, where settings name plugins")
    if len(name) > _LONGEST:
        raise refuse(f"is longer than {_LONGEST} characters", "choose a shorter name")
    if name in _core_words():
        raise refuse("is a word of llmfw itself")
    if owner := _owner(name):
        raise refuse(f"is taken by {owner}", "choose another name, or uninstall it")
    if name != _NAME and any(re.search(rf"\b{class_name(name)}\b", text) for text in _texts(kind).values()):
        raise refuse(f"would make a class {class_name(name)}, a name that the template uses")


def _core_words() -> set[str]:
    """Keys of the configuration's root (a plugin's settings stand beside them), verbs and kinds."""
    from dataclasses import fields

    from llmfw.core.schema import Root
    from llmfw.verbs import ALIASES, CORE

    return {field.name for field in fields(Root)} | {*CORE, *ALIASES, *KINDS, "llmfw"}


def _owner(name: str) -> str:
    """Who has the name already; empty: nobody."""
    from llmfw.core.discovery import broken_cards, cards

    if name in cards():
        return cards()[name].origin
    if name in broken_cards():
        return "an installed plugin with a broken card"
    try:
        return f"{distribution(f'llmfw-{name}').name}, which is installed"
    except PackageNotFoundError:
        return ""


def _texts(kind: str) -> dict[Path, str]:
    """The template's files for a kind: path in the package -> text."""
    found: dict[Path, str] = {}
    for part in ("common", kind):
        for file in sorted((TEMPLATE / part).rglob("*")):
            names = file.relative_to(TEMPLATE / part).parts
            if file.is_file() and not any(name.startswith((".", "__pycache__")) for name in names):
                path = Path(*(re.sub(f"^{_DOT}", ".", name) for name in names))
                found[path] = file.read_text(encoding="utf-8")
    return found


def rendered(name: str, kind: str, *, author: str = _AUTHOR) -> dict[Path, str]:
    """The files of a new plugin: path below its folder -> text.

    Raises:
        UsageError: a name that can't be used or is taken; an author that would break a TOML string.
    """
    check_name(name, kind)
    if not author.isprintable() or not author.strip() or set(author) & {'"', "\\"}:
        raise UsageError("PLUGIN-AUTHOR", f"{author!r} is no name", mend="leave quotes and backslashes out")
    texts = _texts(kind)
    card = tomllib.loads(texts[Path("src") / f"llmfw_{_NAME}" / "card.toml"])
    words = {_NAME: name, _CLASS: class_name(name), _AUTHOR: author.strip(), _SUMMARY: card["summary"]}
    pattern = re.compile("|".join(map(re.escape, words)))

    def replaced(text: str) -> str:
        return pattern.sub(lambda found: words[found[0]], text)

    return {Path(replaced(str(path))): replaced(text) for path, text in texts.items()}


def write_package(name: str, kind: str, into: Path, *, author: str = _AUTHOR) -> Path:
    """Write the package ``llmfw-NAME`` into a folder, whole or not at all; returns its folder.

    Raises:
        UsageError: as ``rendered``; the folder can't be made, or holds something.
    """
    files = rendered(name, kind, author=author)
    folder = into / f"llmfw-{name}"
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            "PLUGIN-FOLDER", f"{folder} is there and not empty", mend="choose another name or --into"
        )
    try:
        into.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".llmfw-{name}-", dir=into) as place:
            half = Path(place) / "whole"
            for path, text in files.items():
                (half / path).parent.mkdir(parents=True, exist_ok=True)
                (half / path).write_text(text, encoding="utf-8")
            os.replace(half, folder)
    except OSError as error:
        raise UsageError(
            "PLUGIN-FOLDER",
            f"{folder} can't be written: {error.strerror or error}",
            mend="choose another --into",
        ) from error
    return folder
