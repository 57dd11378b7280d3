"""``llmfw sandbox analyze`` and ``install-tools``: what the language's own tools say of a program."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from .analysis.records import CATEGORIES, Analysis, Category, Finding, ToolReport
from .records import Case, Level, Request

_SHOWN = 40
"""Findings of a category that the terminal shows."""


def analysis_commands(
    sandbox_options: Callable[[Callable[..., Any]], Callable[..., Any]],
    read: Callable[[str], tuple[str, str]],
    cases: Callable[[str], Sequence[Case]],
) -> list[click.Command]:
    """The commands.

    Args:
        sandbox_options: the options that say how programs are held.
        read: a program's text and name, from what was typed.
        cases: the tests of a file.
    """

    @click.command("analyze")
    @click.argument("file")
    @click.option("--lang", default="AUTO", show_default=True, help="Language, alias or AUTO.")
    @click.option("--tests", help="JSON lines of tests; coverage and efficiency are those of these cases.")
    @click.option(
        "--category", "categories", multiple=True, type=click.Choice(CATEGORIES),
        help="One of the five, may be repeated.  [default: all]",
    )  # fmt: skip
    @click.option(
        "--judge", metavar="MODEL",
        help="Ask a language model too: preset, hub id, folder or run, as for model=.  [default: none]",
    )  # fmt: skip
    @click.option("--json", "as_json", is_flag=True, help="Print the analysis as json.")
    @sandbox_options
    def analyze_(
        file: str, lang: str, tests: str | None, categories: tuple[Category, ...], judge: str | None,
        as_json: bool, level: Level, binds: tuple[str, ...], phrase: str,
    ) -> None:  # fmt: skip
        """Show what kept tools say of the program in FILE: basic facts, smells, bugs, coverage, efficiency.

        Tools run inside the sandbox; missing ones are named with what installs them. A language model is
        asked by --judge alone; its findings bear the tool's name judge, and are opinions.
        """
        from .analysis import analyze
        from .analysis.tools import tool_binds
        from .executor import Sandbox

        code, name = read(file)
        sandbox = Sandbox(level, binds=(*binds, *tool_binds()), phrase=phrase)
        request = Request(code=code, name=name, lang=lang, cases=cases(tests) if tests else [Case()])
        found = analyze(sandbox, request, categories or CATEGORIES)
        if judge:
            found = replace(found, reports=(*found.reports, *_judged(judge, code, found, categories)))
        if as_json:
            click.echo(json.dumps(found.to_dict(), indent=2))
        else:
            _show(found, categories or CATEGORIES)

    @click.command("install-tools")
    @click.option(
        "--folder", type=click.Path(path_type=Path, file_okay=False),
        help="Where to.  [default: $LLMFW_SANDBOX_TOOLS, or a folder of its own]",
    )  # fmt: skip
    def install(folder: Path | None) -> None:
        """Install the analysers that PyPI and npm bring, where sandboxes can read them."""
        from .analysis.tools import install_tools

        for line in install_tools(folder):
            click.echo(line)

    return [analyze_, install]


def _judged(model: str, code: str, found: Analysis, categories: Sequence[Category]) -> list[ToolReport]:
    """What a language model says, a report a category."""
    import llmfw

    from .analysis.judge import prompt, read

    asked = categories or CATEGORIES
    answers = llmfw.generate(
        [prompt(code, found.lang, one) for one in asked], f"model={model}", max_new_tokens=512
    ).completions
    lines = len(code.splitlines())
    return [
        ToolReport(
            tool="judge", version=model, category=one, status="ok",
            findings=tuple(read(answer.text, one, lines=lines)),
        )
        for one, answer in zip(asked, answers, strict=True)
    ]  # fmt: skip


def _show(found: Analysis, categories: Sequence[Category]) -> None:
    for category in categories:
        click.echo(f"== {category}")
        for report in found.of(category):
            said = f"{report.tool} {report.version}".strip()
            if report.status != "ok":
                click.echo(f"{said}: {report.status}: {report.detail}")
                continue
            numbers = ", ".join(f"{name} {value:g}" for name, value in report.metrics.items())
            click.echo(f"{said}: {numbers or f'{len(report.findings)} findings'}")
        shown = found.findings(category)
        for one in shown[:_SHOWN]:
            click.echo(f"  {_line(one)}")
        if len(shown) > _SHOWN:
            click.echo(f"  and {len(shown) - _SHOWN} more (--json has all)")


def _line(one: Finding) -> str:
    place = f"{one.line}:{one.column}" if one.line else "-"
    return f"{place:<8} {one.severity:<7} {one.tool} {one.rule}: {one.message}"
