"""docs/conformance.md: the tables of laws, fixtures and results inside the page that people write."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"


def conformance_page() -> str:
    """The page with what stands between its marks written anew."""
    text = PAGE.read_text(encoding="utf-8")
    for mark, table in (("laws", laws_table()), ("fixtures", fixtures_table()), ("results", results_table())):
        start, end = f"<!-- {mark} -->\n", f"<!-- /{mark} -->"
        head, rest = text.split(start)
        text = f"{head}{start}{table}\n{end}{rest.split(end)[1]}"
    return text


def laws_table() -> str:
    """Every law in the order in which they are checked."""
    from llmfw.testing.laws import laws

    rows = [(f"`{law.id}`", ", ".join(law.kinds) or "every kind", law.statement) for law in laws()]
    return table(("law", "of", "states"), rows)


def fixtures_table() -> str:
    """Every fixture with its docstring."""
    from llmfw.testing import fixtures

    rows = [(f"`{name}`", first_paragraph(unwrapped(fixtures, name))) for name in fixtures.__all__]
    return table(("fixture", "gives"), rows)


def results_table() -> str:
    """What ``CliResult`` has."""
    from llmfw.testing.runner import CliResult

    shown = ("exit_code", "output", "messages", "error", "run", "losses", "series", "plan", "artifacts")
    fields = {"exit_code": "The exit code.", "output": "Standard output.", "messages": "Standard error."}
    rows = [
        (f"`.{name}`", fields.get(name) or first_paragraph(inspect.getattr_static(CliResult, name)))
        for name in (*shown, "assert_ok", "assert_failed")
    ]
    return table(("", ""), rows)


def unwrapped(module: ModuleType, name: str) -> Any:
    """The function under a fixture."""
    fixture = getattr(module, name)
    return getattr(fixture, "_fixture_function", None) or getattr(fixture, "__wrapped__", fixture)


def first_paragraph(of: Any) -> str:
    """The first paragraph of a docstring, in one line."""
    return " ".join((inspect.getdoc(of) or "").split("\n\n")[0].split())


def table(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    lines = [titles, ("---",) * len(titles), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines)
