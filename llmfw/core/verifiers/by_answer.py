"""Verifiers that take the final answer out of a response and compare it with the row's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llmfw.core.errors import DataError
from llmfw.core.records import Row, Verdict
from llmfw.core.verifiers.extract import boxed, final, marked, plain


def gold_of(row: Row) -> str:
    """The row's answer.

    Raises:
        DataError: NO-ANSWER.
    """
    answer = row.get("answer")
    if not isinstance(answer, str) or not answer.strip():
        raise DataError(
            "NO-ANSWER",
            f"row {row.get('id', '?')} has no answer to compare with",
            mend="give rows of the form problems: prompt and answer (docs/data-formats.md)",
            key="answer",
        )
    return answer


def reference(row: Row) -> str:
    """The row's answer, read as a response's is: ``The answer is 5.`` is 5.

    Raises:
        DataError: NO-ANSWER.
    """
    gold = gold_of(row).strip()
    if "\n" in gold:
        said = marked(gold, whole=True)
        return plain(said if said is not None else gold) or gold
    return final(gold) or gold


def found_in(row: Row, response: str) -> str | None:
    """The final answer in a response; several lines of it where the row's answer has several."""
    if "\n" in reference(row):
        said = marked(response, whole=True)
        return plain(said if said is not None else response) or None
    return final(response)


@dataclass(frozen=True, kw_only=True)
class ByAnswer:
    """A verifier made of three functions.

    Args:
        same: ``(row, answer) -> True``, ``False``, or None where it can't be told: the verdict is ``failed``.
        other: a row's answer, changed so that it's surely another one.
        found: ``(row, response)`` -> the answer that the response gives, None: ``unparsed``.
    """

    same: Callable[[Row, str], bool | None]
    other: Callable[[Row], str]
    found: Callable[[Row, str], str | None] = found_in

    def verify(self, rows: Sequence[Row], responses: Sequence[str]) -> list[Verdict]:
        """One verdict a response."""
        return [self._verdict(row, response) for row, response in zip(rows, responses, strict=True)]

    def _verdict(self, row: Row, response: str) -> Verdict:
        answer = self.found(row, response)
        if answer is None:
            return Verdict(status="unparsed")
        same = self.same(row, answer)
        if same is None:
            return Verdict(status="failed", answer=answer)
        return Verdict(status="right" if same else "wrong", score=float(same), answer=answer)

    def canaries(self, row: Row) -> list[tuple[str, bool]]:
        """The row's answer, also in a box; another one, also where the row's stands before it."""
        gold, other = reference(row), self.other(row)
        box = f"So it's \\boxed{{{gold}}}."
        boxable = "\n" not in gold and boxed(box) == gold and marked(box) is None
        return [
            (f"Answer: {gold}", True),
            *([(box, True)] if boxable else []),
            (f"Answer: {other}", False),
            (f"Answer: {gold}\nThat was wrong.\nAnswer: {other}", False),
        ]
