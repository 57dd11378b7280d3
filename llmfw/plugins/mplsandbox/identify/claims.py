"""What a text says of its language itself: a fence's label, the first line."""

from __future__ import annotations

import re
from pathlib import PurePath

from .votes import python_says

_FENCE = re.compile(r"( {0,3})(`{3,}|~{3,})([^\n`]*)")
_SHEBANG = re.compile(r"\ufeff?#![ \t]*(/[^\s]{1,200}|[a-z]\S{0,40})((?:[ \t]+[^\s]{1,200}){0,8})")


def unfenced(text: str) -> tuple[str, str]:
    """The content of the only fence and its label; without a fence, or with several, the text itself.

    A fence that isn't closed goes on to the end, as in an answer that was cut off. Fences in a Python
    docstring or in a script with a first line of its own are content.
    """
    if text.startswith(("#!", "\ufeff#!")) or not ("```" in text or "~~~" in text):
        return text, ""
    lines = text.splitlines(keepends=True)
    blocks: list[tuple[int, int, int, str]] = []
    begun: tuple[int, int, str, str] | None = None
    for number, line in enumerate(lines):
        found = _FENCE.fullmatch(line.rstrip("\r\n"))
        if found is None:
            continue
        indent, mark, info = len(found.group(1)), found.group(2), found.group(3).strip()
        if begun is None:
            begun = number, indent, mark, info
        elif not info and mark.startswith(begun[2]):
            blocks.append((begun[0], number, begun[1], begun[3]))
            begun = None
    if begun is not None:
        blocks.append((begun[0], len(lines), begun[1], begun[3]))
    if len(blocks) != 1 or python_says(text) in ("parsed", "bland"):
        return text, ""
    first, last, indent, info = blocks[0]
    inside = [re.sub(rf"^ {{0,{indent}}}", "", line) for line in lines[first + 1 : last]]
    return "".join(inside), info.split()[0].strip("{}.").lower() if info else ""


def interpreter(code: str) -> str:
    """The program that the first line names."""
    found = _SHEBANG.match(code)
    if found is None:
        return ""
    program, rest = PurePath(found.group(1)).name, found.group(2).split()
    if program != "env":
        return program
    words = [word for word in rest if not word.startswith("-") and "=" not in word]
    return PurePath(words[0]).name if words else ""
