"""``llmfw sandbox``: programs from files or standard input, in a sandbox, with a report or JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmfw import LlmfwError

from .analysis_commands import analysis_commands
from .records import Case, Checker, Level, Limits, Request, Result, Stage
from .service_commands import service_commands
from .wire import case_of, parse, told

if TYPE_CHECKING:
    from .executor import Sandbox

EXIT = {"OK": 0, "WA": 21, "CE": 23, "RE": 24, "TLE": 25, "MLE": 26, "OLE": 27, "SV": 28, "IE": 29}
"""The exit code of ``run`` and ``check`` for each verdict; no error has one of these."""

_LEVELS = click.Choice(["strict", "paranoid", "unsafe"])


def _options(*options: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return add


_sandbox_options = _options(
    click.option("--level", type=_LEVELS, default="strict", show_default=True, help="Isolation required."),
    click.option(
        "--bind", "binds", multiple=True, type=click.Path(exists=True, file_okay=False),
        help="A folder of this machine that programs may read, besides /usr.",
    ),
    click.option(
        "--unsafe-phrase", "phrase", default="", help="For --level unsafe: the phrase its error asks for."
    ),
)  # fmt: skip
_LIMIT_HELP = {
    "seconds": "CPU time, s.",
    "memory": "MiB of all processes together.",
    "processes": "Processes and threads at once.",
    "output": "Bytes of stdout and of stderr.",
    "disk": "MiB that it may write.",
}
_limit_options = _options(
    *(
        click.option(
            f"--{name}", type=type(getattr(Limits(), name)), default=getattr(Limits(), name),
            show_default=True, help=text,
        )
        for name, text in _LIMIT_HELP.items()
    ),
    click.option("--wall", type=float, help="Wall time, s.  [default: 5 times --seconds, and 1]"),
)  # fmt: skip


def _open(level: Level, binds: tuple[str, ...], phrase: str) -> Sandbox:
    from .executor import Sandbox

    return Sandbox(level, binds=binds, phrase=phrase)


def _limits(given: dict[str, Any]) -> Limits:
    return Limits(**{name: given[name] for name in (*_LIMIT_HELP, "wall")})


def _read(file: str) -> tuple[str, str]:
    """A program's text and the name that may tell its language."""
    if file == "-":
        return sys.stdin.read(), ""
    place = Path(file)
    try:
        return place.read_text(encoding="utf-8"), place.name
    except (OSError, UnicodeDecodeError) as error:
        raise _FileError("FILE", f"can't be read: {error}", mend="name a text file", file=place) from error


class _FileError(LlmfwError):
    exit_code = 2


@click.group("sandbox")
def group() -> None:
    """Run programs that nobody trusts, and say what became of them.

    Exit codes of run and check: 0 OK, 21 wrong answer, 23 compile error, 24 runtime error, 25 time limit,
    26 memory limit, 27 output limit, 28 sandbox violation, 29 the sandbox failed; 8 where this machine can't
    hold programs as asked.
    """


@group.command("run")
@click.argument("file")
@click.option("--lang", default="AUTO", show_default=True, help="Language, alias or AUTO.")
@click.option(
    "--stdin", "given", type=click.File("rb"), help="A file that the program reads. [default: nothing]"
)
@_limit_options
@_sandbox_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as json.")
def run(file: str, lang: str, given: Any, as_json: bool, **more: Any) -> None:
    """Run the program in FILE (-: standard input) once and show what it printed."""
    code, name = _read(file)
    sandbox = _open(more["level"], more["binds"], more["phrase"])
    stdin = given.read() if given is not None else b""
    result = sandbox.run(
        Request(code=code, name=name, lang=lang, cases=[Case(stdin=stdin)], limits=_limits(more))
    )
    if as_json:
        click.echo(json.dumps(told(result), indent=2))
    else:
        stage = result.cases[0] if result.cases and result.verdict != "CE" else result.compile
        if stage is not None:
            click.echo(stage.stdout, nl=False)
            click.echo(stage.stderr, nl=False, err=True)
        click.echo(_line(result), err=True)
    raise click.exceptions.Exit(EXIT[result.verdict])


@group.command("check")
@click.argument("file")
@click.option(
    "--tests", required=True, help="JSON lines: stdin and expected, or args and expected with --call."
)
@click.option("--call", "entry_point", default="", help="Call this function instead of running the program.")
@click.option(
    "--checker", type=click.Choice(["exact", "tokens", "float", "unordered"]), default="tokens",
    show_default=True, help="How output is compared.",
)  # fmt: skip
@click.option("--tolerance", type=float, default=1e-6, show_default=True, help="Of checker float.")
@click.option("--lang", default="AUTO", show_default=True, help="Language, alias or AUTO.")
@_limit_options
@_sandbox_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as json.")
def check(
    file: str,
    tests: str,
    entry_point: str,
    checker: Any,
    tolerance: float,
    lang: str,
    as_json: bool,
    **more: Any,
) -> None:
    """Run the program in FILE against tests and show each verdict."""
    code, name = _read(file)
    request = Request(
        code=code, name=name, lang=lang, mode="call" if entry_point else "stdin", entry_point=entry_point,
        cases=_cases(tests), checker=Checker(name=checker, tolerance=tolerance), limits=_limits(more),
    )  # fmt: skip
    result = _open(more["level"], more["binds"], more["phrase"]).run(request)
    if as_json:
        click.echo(json.dumps(told(result), indent=2))
    else:
        _table(result)
    raise click.exceptions.Exit(EXIT[result.verdict])


def _cases(file: str) -> list[Case]:
    text, _ = _read(file)
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        found.append(case_of(parse(line, file=file, line=number), file=file, line=number))
    return found


@group.command("languages")
@click.option("--versions", is_flag=True, help="Ask their tools, in a sandbox, which version they are.")
@click.option("--json", "as_json", is_flag=True, help="Print the table as json.")
def languages_(versions: bool, as_json: bool) -> None:
    """List the languages: what each runs with here, or which package brings it."""
    from .toolchains import language_rows

    rows = language_rows(_open("strict", (), "") if versions else None)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        wanted = f"no {', '.join(row['missing'])}: apt-get install {' '.join(row['packages'])}"
        state = row.get("version", "yes") if row["here"] else wanted
        click.echo(f"{row['id']:<12} {row['name']:<12} {state}")


@group.command("doctor")
@_sandbox_options
@click.option("--json", "as_json", is_flag=True, help="Print the findings as json.")
def doctor(level: Level, binds: tuple[str, ...], phrase: str, as_json: bool) -> None:
    """Run thirty attacks on this machine's sandbox and show which were held."""
    from .attacks import carry_out

    sandbox = _open(level, binds, phrase)
    isolation = sandbox.isolation
    rows: list[dict[str, Any]] = []
    if not as_json:
        features = ", ".join(isolation.features) or "nothing"
        click.echo(f"level {isolation.level}, by {isolation.backend}: {features}")
        for one in isolation.missing:
            click.echo(f"missing: {one}")
    for held in carry_out(sandbox):
        rows.append(
            {"number": held.attack.number, "name": held.attack.name, "verdict": held.verdict,
             "detail": held.detail, "held": not held.wrong, "wrong": held.wrong}
        )  # fmt: skip
        if not as_json:
            state = "held" if not held.wrong else f"NOT HELD: {held.wrong}"
            click.echo(f"{held.attack.number:>2} {held.attack.name:<44} {held.verdict:<3} {state}")
    count = sum(row["held"] for row in rows)
    if as_json:
        told_ = {"level": isolation.level, "backend": isolation.backend, "features": isolation.features}
        click.echo(json.dumps({**told_, "missing": isolation.missing, "attacks": rows}, indent=2))
    else:
        click.echo(f"{count} of {len(rows)} held")
    if count < len(rows):
        raise click.exceptions.Exit(8)


def _line(result: Result) -> str:
    stage = result.cases[0] if result.cases else result.compile
    detail = f" ({stage.detail})" if stage is not None and stage.detail else ""
    used = f", {_usage(stage)}" if stage is not None else ""
    return f"{result.lang}: {result.verdict}{detail}{used}; held by {_held(result)}"


def _usage(stage: Stage) -> str:
    use = stage.usage
    return f"{use.cpu:.2f} s CPU, {use.wall:.2f} s wall, {max(use.memory, use.largest):.0f} MiB"


def _held(result: Result) -> str:
    return result.isolation.backend if result.isolation.sandboxed else "NOTHING (level unsafe)"


def _table(result: Result) -> None:
    if result.compile is not None:
        text = (result.compile.stdout + result.compile.stderr).strip()
        click.echo(f"compile  {result.compile.verdict}" + (f"\n{text}" if text else ""))
    for number, stage in enumerate(result.cases, start=1):
        click.echo(f"{number:>4}  {stage.verdict:<3}  {_usage(stage)}  {stage.detail}")
    passed = f"{result.passed} of {result.total} passed"
    click.echo(f"{result.lang}: {result.verdict}, {passed}; held by {_held(result)}")


for _command in (*service_commands(_sandbox_options), *analysis_commands(_sandbox_options, _read, _cases)):
    group.add_command(_command)
