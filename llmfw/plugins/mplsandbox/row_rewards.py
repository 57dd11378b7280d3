"""Rewards of answers to rows that carry their tests: the service ``Reward`` of this plugin."""

from __future__ import annotations

from collections.abc import Sequence

from llmfw import Row

from .executor import Sandbox
from .records import Case, Request
from .reward_function import Shape, compute_rewards, program_in
from .verdicts import REWARDS
from .wire import case_of


class RowRewards:
    """The paper's levels for responses to ``problems`` rows; None where the sandbox failed.

    ``tests`` are cases as the sandbox's own files have them (``stdin`` and ``expected``; with
    ``meta.entry_point`` also ``args`` and ``kwargs``); without any, the program is to print the row's answer.
    ``meta.language`` names the language, Python without it. A response without a program counts as one that
    doesn't compile: else saying nothing would be worth more than trying.

    Args:
        shape: as of ``verdicts.reward``.
    """

    def __init__(self, sandbox: Sandbox, shape: Shape = "levels") -> None:
        self.sandbox = sandbox
        self.shape = shape

    def rewards(self, rows: Sequence[Row], responses: Sequence[str]) -> list[float | None]:
        """One reward a response; response i answers row i.

        Raises:
            RequestError: a row's test isn't one.
            ValueError: rows and responses aren't as many.
        """
        requests = [request_for(row) for row in rows]
        found = compute_rewards(self.sandbox, responses, requests, shape=self.shape)
        nothing = 0.0 if self.shape == "binary" else REWARDS["CE"]
        return [
            value if program_in(text).strip() else nothing
            for value, text in zip(found, responses, strict=True)
        ]


def request_for(row: Row) -> Request:
    """A row's tests, with no code yet.

    Raises:
        RequestError: a test isn't one; it names the key.
    """
    meta = row.get("meta") or {}
    entry_point = str(meta.get("entry_point", ""))
    cases = [case_of(test) for test in row.get("tests") or []]
    return Request(
        code="",
        lang=str(meta.get("language", "python")),
        mode="call" if entry_point else "stdin",
        entry_point=entry_point,
        cases=cases or [Case(expected=str(row["answer"]))],
    )
