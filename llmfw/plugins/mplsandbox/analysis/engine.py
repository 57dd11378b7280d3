"""``analyze``: every analyser of a language in the asked categories, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from llmfw import LlmfwError

from ..executor import Sandbox, made_out
from ..records import Request
from . import efficiency, lines
from .inside import Failed, Subject, each, missing, once, version
from .parse import PARSERS, Parsed
from .records import CATEGORIES, Analysis, Category, ToolReport
from .table import Analyser, analysers, chosen
from .tools import tools_folder
from .untrusted import Unreadable, words

CASES = 50
"""Cases of a request that are traced; reports say where there are more."""


def analyze(
    sandbox: Sandbox,
    request: Request,
    categories: Sequence[Category] = CATEGORIES,
    *,
    seconds: float = 20.0,
) -> Analysis:
    """Analyse a program with every tool of its language that is here; the others are named.

    Tools run in the sandbox, never beside it. Those of the tools folder are found where the sandbox was made
    with ``binds=tool_binds()``. No verdict comes from these runs: tracers change exit codes and times.

    Args:
        seconds: CPU time that one command of a tool may take; runs of the program have the request's limits,
            times what tracing costs.

    Raises:
        RequestError: the language can't be made out.
        LanguageError: nobody knows it.
    """
    lang, _, code = made_out(request)
    subject = Subject(
        sandbox=sandbox, request=replace(request, code=code), lang=lang, tools=str(tools_folder()),
        seconds=seconds,
    )  # fmt: skip
    entries = [one for one in chosen(subject.lang.id, categories) if not _replaced(subject, one)]
    with ThreadPoolExecutor(sandbox.jobs, thread_name_prefix="analysis") as pool:
        reports = list(pool.map(lambda one: _report(subject, one), entries))
    for category in categories:
        if not any(report.category == category for report in reports):
            detail = f"no analyser of this category is known for {subject.lang.name}"
            reports.append(
                ToolReport(tool="none", version="", category=category, status="absent", detail=detail)
            )
    return Analysis(lang=subject.lang.id, reports=tuple(reports))


def _replaced(subject: Subject, analyser: Analyser) -> bool:
    """Whether a better tool for the same is here."""
    return bool(analyser.instead_of) and version(subject, analysers()[analyser.instead_of]) is not None


def _report(subject: Subject, analyser: Analyser) -> ToolReport:
    found = version(subject, analyser)
    if found is None:
        lacks = ", ".join(missing(subject, analyser)) or analyser.tool
        install = analyser.install or f"apt-get install {' '.join(subject.lang.packages)}"
        detail = f"not here: {lacks}; {install}"
        if (analyser.pypi or analyser.npm) and Path(subject.tools, "bin").is_dir():
            detail += f", or make the sandbox with binds=tool_binds(): it may not see {subject.tools}"
        return ToolReport(
            tool=analyser.tool, version="", category=analyser.category, status="absent", detail=detail
        )
    try:
        parsed, detail = _parsed(subject, analyser)
    except (Failed, Unreadable, LlmfwError) as failed:
        return ToolReport(
            tool=analyser.tool, version=found, category=analyser.category, status="failed",
            detail=words(failed),
        )  # fmt: skip
    return ToolReport(
        tool=analyser.tool, version=found, category=analyser.category, status="ok", detail=detail,
        findings=parsed.findings, metrics=parsed.metrics, artefacts=parsed.artefacts,
    )  # fmt: skip


def _parsed(subject: Subject, analyser: Analyser) -> tuple[Parsed, str]:
    """-> What it found, and what must be said about how."""
    if analyser.parser == "usage":
        return efficiency.usage(subject.sandbox, subject.request, analyser), ""
    if not analyser.per_case:
        return PARSERS[analyser.parser](once(subject, analyser), analyser), ""
    cases: list[lines.Traced | None] = []
    broken: list[str] = []
    for index, told in enumerate(each(subject, analyser, CASES)):
        try:
            if isinstance(told, Failed):
                raise told
            cases.append(lines.TRACERS[analyser.parser](told, subject.request.code))
        except (Failed, Unreadable) as failed:
            cases.append(None)
            broken.append(f"case {index}: {failed}")
    if not any(cases):
        raise Failed("; ".join(broken[:3]))
    if len(subject.cases) > CASES:
        broken.append(f"the first {CASES} of {len(subject.cases)} cases")
    merge = lines.coverage if analyser.category == "coverage" else lines.costs
    return merge(cases, analyser), words("; ".join(broken))
