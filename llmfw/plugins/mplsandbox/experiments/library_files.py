"""How often the language of other people's programs is identified: files of the toolchains' own libraries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from random import Random

from llmfw import Workspace

from ..identify import identify, votes

PLACES: Mapping[str, tuple[str, ...]] = {
    "python": ("/usr/lib/python3.*/**/*.py",),
    "javascript": ("/usr/lib/node_modules/**/*.js", "/usr/share/nodejs/**/*.js"),
    "go": ("/usr/share/go-*/src/**/*.go", "/usr/lib/go-*/src/**/*.go"),
    "ruby": ("/usr/lib/ruby/3.*/**/*.rb",),
    "perl": ("/usr/share/perl/5.*/**/*.pm",),
    "php": ("/usr/share/php/**/*.php",),
    "lua": ("/usr/share/lua/**/*.lua",),
    "r": ("/usr/lib/R/**/*.R", "/usr/share/R/**/*.R"),
    "ocaml": ("/usr/lib/ocaml/*.ml",),
    "bash": ("/usr/share/bash-completion/completions/*",),
    "c": ("/usr/share/doc/**/*.c", "/usr/share/go-*/src/**/*.c"),
    "cpp": ("/usr/include/c++/*/**/*.tcc",),
}
"""Where Debian's packages put sources that are wholly of one language."""
LEAST = 3
"""Languages that must be there."""
_SIZES = range(200, 100_000)
"""Bytes of a file that is taken: shorter ones are often the same in several languages."""
EACH: Mapping[str, int] = {"smoke": 2, "small": 20, "full": 100}
"""Files of each language in a sample."""


@cache
def files() -> Mapping[str, tuple[Path, ...]]:
    """Language -> its files on this machine, in order of their names.

    Raises:
        RuntimeError: there are fewer than ``LEAST`` languages.
    """
    found: dict[str, tuple[Path, ...]] = {}
    for lang, patterns in PLACES.items():
        paths = {path for pattern in patterns for path in Path("/").glob(pattern[1:])}
        mine = sorted(path for path in paths if path.is_file() and not path.is_symlink() and _fits(path))
        if mine:
            found[lang] = tuple(mine)
    if len(found) < LEAST:
        raise RuntimeError(f"sources of {len(found)} languages are installed, {LEAST} are needed")
    return found


def by_vote(where: Workspace) -> Mapping[str, float]:
    """The share that our vote gets right; magika helps it where it is installed."""
    return _shares(where, lambda text: identify(text).lang)


def by_signs(where: Workspace) -> Mapping[str, float]:
    """Likewise without magika."""
    return _shares(where, lambda text: identify(text, model=False).lang)


def by_magika(where: Workspace) -> Mapping[str, float]:
    """Likewise by magika alone, whatever its certainty."""
    return _shares(where, votes.model_alone)


def _shares(where: Workspace, said: Callable[[str], str]) -> Mapping[str, float]:
    """The share of each language's files that is right, and their mean: every language counts alike."""
    told = {}
    for lang, paths in files().items():
        taken = Random(f"{where.seed} {lang}").sample(paths, min(EACH[where.size], len(paths)))
        told[lang] = sum(said(_text(path)) == lang for path in taken) / len(taken)
    return {"right": sum(told.values()) / len(told), **{f"right/{lang}": one for lang, one in told.items()}}


def _fits(path: Path) -> bool:
    return path.stat().st_size in _SIZES


def _text(path: Path) -> str:
    """A file's text without a first line that names its interpreter: that would tell."""
    text = path.read_text(encoding="utf-8", errors="replace")
    first, _, rest = text.partition("\n")
    return rest if first.startswith("#!") else text
