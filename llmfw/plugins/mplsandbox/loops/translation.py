"""Translation: the same program in another language, judged by what the first one prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..analysis import analyze
from ..executor import RequestError, Sandbox
from ..feedback import translation_prompt
from ..languages import language
from ..records import Case, Request
from .self_correction import Attempt, self_correct


def translate(
    policy: Any,
    sandbox: Sandbox,
    request: Request,
    target: str,
    *,
    rounds: int = 2,
    sampling: Mapping[str, Any] | None = None,
) -> list[Attempt]:
    """Let a policy translate a program, and correct what behaves otherwise, at most ``rounds`` times.

    The prompt shows the program's control-flow graph, where an analyser here draws one.

    Args:
        policy: of ``llmfw``: local, scripted or an endpoint.
        request: the program with inputs; a case without an expected output expects what the program prints.
        target: the language to translate to.
        sampling: settings of its ``generate``.

    Returns:
        The attempts, in order; the last one is the translation.

    Raises:
        LanguageError: ``target`` isn't known.
        RequestError: TRANSLATION, there is no input on which the program itself works.
    """
    goal = language(target)
    given = sandbox.run(request)
    cases: list[Case] = []
    for case, stage in zip(request.cases, given.cases, strict=True):
        if stage.verdict == "OK":
            printed = stage.stdout if request.mode == "stdin" else stage.value
            cases.append(case if case.expected is not None else replace(case, expected=printed))
    if not cases:
        what = f"the program works on none of its {len(request.cases)} inputs ({given.verdict})"
        raise RequestError("TRANSLATION", what, mend="give it inputs on which it works", key="cases")
    graph = analyze(sandbox, replace(request, lang=given.lang), ("basic", "bug"))
    prompt = translation_prompt(request.code, given.lang, goal.id, graph)
    wanted = replace(request, code="", name="", lang=goal.id, cases=cases)
    [attempts] = self_correct(policy, sandbox, [prompt], [wanted], rounds=rounds, sampling=sampling)
    return attempts
