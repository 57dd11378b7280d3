"""What became of a program, as text for prompts: correction, refinement, tests, translation, vulnerabilities.

Pure functions. Texts of programs and tools are cleaned, fenced and cut to bounds; expected outputs are in
none of them, as results don't hold any.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from .analysis.records import Analysis, Category, Finding
from .analysis.untrusted import clean
from .languages import LanguageError, language
from .records import Result, Stage, Verdict

LIMIT = 6000
"""Characters of a prompt, where nobody says otherwise."""
_MEANINGS: dict[Verdict, str] = {
    "OK": "passed", "WA": "printed or returned a wrong answer", "CE": "doesn't compile", "RE": "crashed",
    "TLE": "took too long", "MLE": "took too much memory", "OLE": "printed too much",
    "SV": "did what the sandbox forbids", "IE": "couldn't be judged: the sandbox itself failed",
}  # fmt: skip
_SAID = 600
"""Characters of an output that are shown."""
_SHOWN = 12
"""Findings of a category that are shown."""


def feedback(result: Result, analysis: Analysis | None = None, *, limit: int = LIMIT) -> str:
    """What became of a program and what analysers say of it, in at most ``limit`` characters."""
    parts = [_outcome(result)]
    if analysis is not None:
        parts += [_findings(analysis, "bug"), _uncovered(analysis), _findings(analysis, "efficiency")]
        parts += [_findings(analysis, "smell")]
    return _cut("\n\n".join(filter(None, parts)), limit)


def correction_prompt(
    task: str, code: str, result: Result, analysis: Analysis | None = None, *, limit: int = LIMIT
) -> str:
    """Asks for a program that works, given one that doesn't."""
    return _prompt(
        f"A program in {_name(result.lang)} was written for the task below, was run, and failed.",
        [
            ("Task", task),
            ("Program", _fenced(code, result.lang)),
            ("What happened", "\n\n".join(filter(None, (_outcome(result), _findings(analysis, "bug"))))),
        ],
        "Find the cause and write the whole corrected program in one code block. Keep what already works.",
        limit,
    )


def refinement_prompt(
    task: str, code: str, result: Result, analysis: Analysis | None = None, *, limit: int = LIMIT
) -> str:
    """Asks for a better program of the same behaviour."""
    remarks = [_findings(analysis, "smell"), _findings(analysis, "efficiency"), _findings(analysis, "bug")]
    return _prompt(
        f"The program below, in {_name(result.lang)}, is to be made clearer and cheaper without a change "
        "of what it prints or returns.",
        [
            ("Task", task),
            ("Program", _fenced(code, result.lang)),
            ("Test runs", _outcome(result)),
            ("Remarks of analysers", "\n\n".join(filter(None, remarks)) or "They have nothing to say."),
        ],
        "Write the whole improved program in one code block.",
        limit,
    )


def unit_test_prompt(
    task: str, code: str, result: Result, analysis: Analysis | None = None, *, called: str = "",
    limit: int = LIMIT,
) -> str:  # fmt: skip
    """Asks for tests that run what no test has run yet.

    Args:
        called: the function that tests call; empty: they read and print.
    """
    form = '{"args": [...], "expected": ...}' if called else '{"stdin": "...", "expected": "..."}'
    about = f"the arguments of {called} and the value" if called else "an input and the output"
    return _prompt(
        f"Tests are wanted for the program below, in {_name(result.lang)}.",
        [
            ("Task", task),
            ("Program", _fenced(_numbered(code), result.lang)),
            ("Tests so far", f"{result.passed} of {result.total} passed."),
            ("Lines that they run", _uncovered(analysis) or "Nobody has measured them."),
        ],
        f"Write further tests, each {about} that the task asks for, as one JSON object a line in one code "
        f"block: {form}. Choose inputs that reach the lines named above, and the limits of what the task "
        "allows.",
        limit,
    )


def translation_prompt(
    code: str, source: str, target: str, analysis: Analysis | None = None, *, limit: int = LIMIT
) -> str:
    """Asks for the program in another language; with the control-flow graph, where one was made."""
    graph = analysis.artefact("cfg mermaid") if analysis is not None else ""
    return _prompt(
        f"Translate the program below from {_name(source)} to {_name(target)}.",
        [
            ("Program", _fenced(code, source)),
            ("How control flows in it", _fenced(graph, "mermaid") if graph else ""),
            ("Remarks of analysers", _findings(analysis, "bug")),
        ],
        f"Write a complete {_name(target)} program that reads the same input and prints "
        "the same output, byte for byte, in one code block. Mind the differences in integer sizes, "
        "division, rounding and text.",
        limit,
    )


def vulnerability_prompt(
    code: str, lang: str, analysis: Analysis | None = None, *, limit: int = LIMIT
) -> str:
    """Asks which lines of a program are vulnerable, and why."""
    return _prompt(
        f"The program below, in {_name(lang)}, may have vulnerabilities.",
        [
            ("Program", _fenced(_numbered(code), lang)),
            ("What analysers suspect", _findings(analysis, "bug") or "They suspect nothing."),
        ],
        "Write one line for each suspicion, and one for each vulnerability that the analysers missed: "
        "LINE: real, false or missed: how it can be exploited and how it is mended.",
        limit,
    )


# Parts.


def _name(lang: str) -> str:
    try:
        return language(lang).name
    except LanguageError:
        return lang


def _outcome(result: Result) -> str:
    if result.verdict == "CE" and result.compile is not None:
        return f"It {_MEANINGS['CE']} ({result.compile.detail}).\n{_said(result.compile)}".rstrip()
    if not result.cases:
        return "It compiles; there were no tests."
    lines = [f"It passed {result.passed} of {result.total} tests."]
    bad = next(((index, one) for index, one in enumerate(result.cases) if one.verdict != "OK"), None)
    if bad is not None:
        index, stage = bad
        detail = f" ({clean(stage.detail, 200)})" if stage.detail else ""
        lines += [f"On test {index + 1} it {_MEANINGS[stage.verdict]}{detail}.", _said(stage)]
    return "\n".join(filter(None, lines))


def _said(stage: Stage) -> str:
    """What a program printed: the beginning of its output, the end of its complaints."""
    parts = []
    if stage.stdout.strip():
        parts.append("It printed:\n" + _fenced(_cut(clean(stage.stdout, 20 * _SAID), _SAID), ""))
    if stage.stderr.strip():
        parts.append("It complained:\n" + _fenced(clean(stage.stderr[-_SAID:]), ""))
    return "\n".join(parts)


def _findings(analysis: Analysis | None, category: Category) -> str:
    if analysis is None:
        return ""
    order = {"error": 0, "warning": 1, "info": 2}
    found = sorted(analysis.findings(category), key=lambda one: (order[one.severity], one.line))
    seen: dict[tuple[int, str], Finding] = {}
    for one in found:
        seen.setdefault((one.line, one.message), one)
    lines = [_line(one) for one in list(seen.values())[:_SHOWN]]
    left = len(seen) - len(lines)
    lines += [f"- and {left} more" if left else ""]
    absent = {
        report.tool for report in analysis.of(category) if report.status == "absent" and report.tool != "none"
    }
    lines += [
        f"(not asked, as they aren't here: {', '.join(sorted(absent))})" if absent and not found else ""
    ]
    return "\n".join(filter(None, lines))


def _line(one: Finding) -> str:
    place = f"line {one.line}: " if one.line else ""
    return f"- {place}{one.severity}: {one.message} ({one.tool}: {one.rule})"


def _uncovered(analysis: Analysis | None) -> str:
    told = _coverage(analysis)
    if not told:
        return ""
    missing = told.get("missing", [])
    covered, executable = len(told.get("covered", [])), len(told.get("executable", []))
    lines = f"The tests run {covered} of {executable} lines that can run."
    return lines + (f" They never run {_ranges(missing)}." if missing else "")


def _coverage(analysis: Analysis | None) -> dict[str, Any]:
    text = analysis.artefact("coverage") if analysis is not None else ""
    told = json.loads(text) if text else {}
    return told if isinstance(told, dict) else {}


def _ranges(numbers: Sequence[int]) -> str:
    """1, 2, 3, 5 as ``lines 1-3, 5``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    shown = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs[:40])
    return f"line{'s' if len(numbers) > 1 else ''} {shown}" + (" and more" if len(runs) > 40 else "")


def _numbered(code: str) -> str:
    return "\n".join(f"{number:3} {line}" for number, line in enumerate(code.splitlines(), 1))


def _fenced(text: str, lang: str) -> str:
    """In a fence that nothing in the text closes."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{lang}\n{text.rstrip()}\n{fence}"


def _cut(text: str, limit: int) -> str:
    """At most ``limit`` characters: beginning and end, and in between how much is left out."""
    if len(text) <= limit:
        return text
    mark = f"\n[{len(text) - limit} or more characters left out]\n"
    room = limit - len(mark)
    if room <= 0:
        return text[: max(0, limit)]
    return text[: room - room // 3] + mark + text[len(text) - room // 3 :]


def _prompt(opening: str, sections: Iterable[tuple[str, str]], ending: str, limit: int) -> str:
    """A prompt of at most ``limit`` characters: what is short stays whole, what is long shares the rest."""
    kept = [(f"## {title}", body.strip()) for title, body in sections if body.strip()]
    fixed = len(opening) + len(ending) + 4 + sum(len(title) + 3 for title, _ in kept)
    rooms = _shares([len(body) for _, body in kept], max(0, limit - fixed))
    parts = [f"{title}\n{_cut(body, room)}" for (title, body), room in zip(kept, rooms)]
    return _cut("\n\n".join((opening, *parts, ending)), limit)


def _shares(wanted: Sequence[int], room: int) -> list[int]:
    """``room`` shared out so that nobody gets more than wanted and the long ones get equally much."""
    given = [0] * len(wanted)
    left = sorted(range(len(wanted)), key=lambda index: wanted[index])
    while left:
        index = left.pop(0)
        given[index] = min(wanted[index], room // (len(left) + 1))
        room -= given[index]
    return given
