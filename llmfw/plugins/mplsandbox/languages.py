"""The table of languages: how each is known, compiled, run and limited, and what of it this machine has."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from llmfw import LlmfwError

from .records import Limits

DATA = Path(__file__).parent / "data"
PATHS = ("/usr/local/bin", "/usr/bin", "/bin")
"""Where sandboxes look for programs; the host's own folders, read-only."""
PYTHON_SYNTAX = "python-syntax"
"""A check that the sandbox's own Python does."""


class LanguageError(LlmfwError):
    """A language isn't known, or its tools aren't here (exit code 2)."""

    exit_code = 2


@dataclass(frozen=True, kw_only=True)
class Language:
    """One row of the table; data/languages.toml says what each field means."""

    id: str
    name: str
    file: str
    run: tuple[str, ...]
    version: tuple[str, ...]
    packages: tuple[str, ...]
    aliases: tuple[str, ...] = ()
    extensions: tuple[str, ...] = ()
    interpreters: tuple[str, ...] = ()
    magika: tuple[str, ...] = ()
    check: tuple[str, ...] = ()
    compile: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    beside: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    main: str = ""
    memory: int = 0
    processes: int = 0
    compile_memory: int = 512
    compile_seconds: float = 30.0
    compile_disk: int = 64

    @property
    def programs(self) -> tuple[str, ...]:
        """Programs that must be on the machine."""
        first = [words[0] for words in (self.compile, self.check, self.run) if words]
        wanted = [name for name in (*first, *self.needs) if name != PYTHON_SYNTAX and "/" not in name]
        return tuple(dict.fromkeys(wanted))

    def missing(self) -> tuple[str, ...]:
        """Programs of these that aren't there."""
        return tuple(name for name in self.programs if which(name) is None)

    def insist(self) -> Language:
        """Itself, where its tools are here.

        Raises:
            LanguageError: LANGUAGE-ABSENT, with the packages that bring them.
        """
        if absent := self.missing():
            raise LanguageError(
                "LANGUAGE-ABSENT", f"{self.name} can't run here: no {', '.join(absent)} in {':'.join(PATHS)}",
                mend=f"apt-get install {' '.join(self.packages)}", key=self.id,
            )  # fmt: skip
        return self

    def main_of(self, code: str) -> str:
        """The name of the class or object where the program begins."""
        found = re.search(self.main, code) if self.main else None
        return next((name for name in found.groups() if name), "Main") if found else "Main"

    def words(self, template: tuple[str, ...], code: str, memory: int) -> list[str]:
        """A command of the table with its blanks filled in; its program by its full path."""
        values = {"{main}": self.main_of(code), "{memory}": str(memory), "{jobs}": "1"}
        values["{roomy}"] = str(memory * 5 // 4)
        values["{file}"] = self.file_of(code)
        words = [_filled(word, values) for word in template]
        return [words[0] if "/" in words[0] else (which(words[0]) or words[0]), *words[1:]]

    def file_of(self, code: str) -> str:
        """The name under which the program is stored."""
        return self.file.replace("{main}", self.main_of(code))

    def environ(self) -> dict[str, str]:
        """Its own environment variables."""
        return {key: _filled(value, {"{jobs}": "1"}) for key, value in self.environment.items()}

    def at_least(self, limits: Limits) -> Limits:
        """Limits under which its runtime can start: more memory and threads where it needs them."""
        return replace(
            limits,
            memory=limits.memory + self.memory,
            processes=limits.processes + self.processes,
        )

    def compile_limits(self) -> Limits:
        """What its compiler may use where nobody says otherwise."""
        return Limits(
            seconds=self.compile_seconds,
            memory=self.compile_memory,
            processes=64,
            disk=self.compile_disk,
            files=1024,
        )


def _filled(word: str, values: Mapping[str, str]) -> str:
    for blank, value in values.items():
        word = word.replace(blank, value)
    return word


def which(program: str) -> str | None:
    """Where a sandbox finds a program; None: nowhere."""
    return next((str(place) for one in PATHS if (place := Path(one) / program).exists()), None)


@cache
def languages() -> Mapping[str, Language]:
    """Every language of the table, by its id."""
    with (DATA / "languages.toml").open("rb") as file:
        table = tomllib.load(file)
    return {
        name: Language(id=name, **{key: _frozen(value) for key, value in row.items()})
        for name, row in table.items()
    }


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@cache
def _names() -> Mapping[str, str]:
    return {
        word.lower(): one.id
        for one in languages().values()
        for word in (
            *one.aliases,
            *one.extensions,
            *(end.lstrip(".") for end in one.extensions),
            one.name,
            one.id,
        )
    }


def language(name: str) -> Language:
    """The language of a name, alias or file extension.

    Raises:
        LanguageError: LANGUAGE, nobody knows it.
    """
    known = _names().get(name.strip().lower())
    if known is None:
        raise LanguageError(
            "LANGUAGE", f"no language is called {name!r}",
            mend=f"use one of {', '.join(languages())}, or AUTO", key="lang",
        )  # fmt: skip
    return languages()[known]
