"""The table of analysers: data/analysers/."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from ..languages import DATA, Language, which
from .records import Category

PLACE = "__analysis__"
"""Folder of our scripts, below the sandbox's working folder."""
Words = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Analyser:
    """One entry of the table; data/analysers/ says what each field means."""

    id: str
    tool: str
    languages: Words
    category: Category
    parser: str
    command: Words = ()
    setup: tuple[Words, ...] = ()
    keeps: Words = ()
    per_case: bool = False
    after: Words = ()
    report: str = ""
    exits: tuple[int, ...] = (0,)
    parse: Mapping[str, Any] = field(default_factory=dict)
    version: Words = ()
    pypi: str = ""
    npm: str = ""
    packages: Words = ()
    needs: Words = ()
    scripts: Words = ()
    beside: Words = ()
    env: Mapping[str, str] = field(default_factory=dict)
    instead_of: str = ""
    memory: int = 1024
    seconds: float = 20.0
    slow: float = 1.0

    @property
    def install(self) -> str:
        """What brings it; empty: what brings the language."""
        if self.pypi or self.npm:
            return "llmfw sandbox install-tools"
        return f"apt-get install {' '.join(self.packages)}" if self.packages else ""

    def environ(self, tools: str) -> dict[str, str]:
        """Its environment variables; Python tools import nothing from the folder of the program."""
        env = {name: value.replace("{tools}", tools) for name, value in self.env.items()}
        if self.pypi:
            env |= {"PYTHONPATH": tools}
        return env | {"PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"}

    def files(self) -> dict[str, tuple[bytes, int]]:
        """Our scripts that it needs, by their places in the sandbox; ``beside`` lies next to the program."""
        files = {f"{PLACE}/{name}": ((DATA / "analysis" / name).read_bytes(), 0o644) for name in self.scripts}
        return files | {name.rpartition("/")[2]: ((DATA / name).read_bytes(), 0o644) for name in self.beside}


@cache
def analysers() -> Mapping[str, Analyser]:
    """Every analyser, by its id."""
    return {
        name: Analyser(id=name, **{key: _frozen(one) for key, one in row.items()})
        for file in sorted((DATA / "analysers").glob("*.toml"))
        for name, row in tomllib.loads(file.read_text(encoding="utf-8")).items()
    }


def _frozen(value: Any) -> Any:
    return tuple(_frozen(one) for one in value) if isinstance(value, list) else value


def chosen(lang: str, categories: Sequence[Category]) -> list[Analyser]:
    """The analysers of a language in some categories, in the table's order."""
    return [
        one for one in analysers().values()
        if one.category in categories and (lang in one.languages or "*" in one.languages)
    ]  # fmt: skip


def filled(
    template: Sequence[str], lang: Language, code: str, tools: str, memory: int, program: Sequence[str] = ()
) -> list[str]:
    """A command of the table with its blanks filled in; ``{program}`` alone stands for several words."""
    words: list[str] = []
    for word in template:
        if word == "{program}":
            words += program or [lang.file_of(code)]
        else:
            words.append(word.replace("{tools}", tools).replace("{data}", PLACE).replace("{lang}", lang.id))
    first = words[0]
    words = lang.words(tuple(words), code, memory)
    return [first if "/" in first else (which(first) or first), *words[1:]]
