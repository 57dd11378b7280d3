"""Known answers among the unknown: a verifier that judges them otherwise than they are judges nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from llmfw.core.errors import CanaryError, PluginError
from llmfw.core.records import Row, Verdict
from llmfw.core.verifiers.by_answer import gold_of

_OTHER = ("I can't tell.", "Nobody knows.")
"""Responses that answer nothing: the first that isn't in a row's answer is known to be wrong."""


class Checked:
    """A verifier whose every batch is judged together with canaries of one of its rows.

    The row is chosen by a hash of the batch. Equal responses to one row are judged once. Other attributes are
    the verifier's own.

    Args:
        verifier: what judges; a method ``canaries(row)`` of its own says what is known of a row.
        name: what errors call it.
    """

    def __init__(self, verifier: Any, name: str) -> None:
        self.verifier = verifier
        self.name = name

    def __getattr__(self, name: str) -> Any:
        if name == "verifier":  # not there yet: it's being copied
            raise AttributeError(name)
        return getattr(self.verifier, name)

    def verify(self, rows: Sequence[Row], responses: Sequence[str]) -> list[Verdict]:
        """One verdict a response; response i answers row i.

        Raises:
            ValueError: rows and responses aren't as many.
            CanaryError: CANARY, a known answer was judged otherwise, or nothing at all could be judged.
            PluginError: VERDICTS, the verifier gave something else than a verdict for each.
        """
        if len(rows) != len(responses):
            raise ValueError(f"{len(rows)} rows and {len(responses)} responses")
        if not rows:
            return []
        places: dict[tuple[int, str], int] = {}
        asked: list[tuple[Row, str]] = []
        for row, said in zip(rows, responses):
            if places.setdefault((id(row), said), len(asked)) == len(asked):
                asked.append((row, said))
        probe = rows[_chosen(rows, responses)]
        known = self.canaries(probe)
        verdicts = self._judged([*asked, *((probe, said) for said, _ in known)])
        told = verdicts[len(asked) :]
        for (said, right), verdict in zip(known, told, strict=True):
            self._check(probe, said, right, verdict)
        if told and all(verdict.status == "failed" for verdict in verdicts):
            raise self._error(probe, "failed on every response, on the row's own answer too")
        return [verdicts[places[id(row), said]] for row, said in zip(rows, responses)]

    def canaries(self, row: Row) -> list[tuple[str, bool]]:
        """(response, whether it's right) of what is known: by the verifier's own word, else the row's answer,
        an empty response, and words that aren't the answer.
        """
        own = getattr(self.verifier, "canaries", None)
        if callable(own):
            return list(own(row))
        gold = gold_of(row)
        other = next((words for words in _OTHER if words.casefold() not in gold.casefold()), "")
        return [(f"Answer: {gold}", True), ("", False), (other, False)]

    def _judged(self, asked: list[tuple[Row, str]]) -> list[Verdict]:
        verdicts = self.verifier.verify([row for row, _ in asked], [said for _, said in asked])
        if len(verdicts) != len(asked) or not all(isinstance(one, Verdict) for one in verdicts):
            raise PluginError(
                "VERDICTS",
                f"verifier {self.name!r} gave {len(verdicts)} answers to {len(asked)} responses, or answers "
                "that are no verdicts",
                mend="return one llmfw.Verdict a response, in their order",
            )
        return list(verdicts)

    def _check(self, row: Row, said: str, right: bool, verdict: Verdict) -> None:
        """A canary that the judge failed on proves nothing: only a verdict can be false."""
        if verdict.right == right or verdict.status == "failed":
            return
        kind = "right" if right else "wrong"
        raise self._error(row, f"judged {said[:200]!r}, which is {kind}, to be {verdict.status}")

    def _error(self, row: Row, what: str) -> CanaryError:
        return CanaryError(
            "CANARY",
            f"verifier {self.name!r} {what} (row {_name(row)})",
            mend="mend the verifier, or the row's answer, or take another verifier for these rows",
        )


def checked(protocol: str, name: str, built: Any) -> Any:
    """A service as others get it: a verifier with canaries, any other as it is.

    Raises:
        PluginError: VERDICTS, it calls itself a verifier and can't verify.
    """
    if protocol != "Verifier" or isinstance(built, Checked):
        return built
    if not callable(getattr(built, "verify", None)):
        raise PluginError(
            "VERDICTS",
            f"{type(built).__name__}, offered as the Verifier {name!r}, has no method verify",
            mend="give it verify(rows, responses) -> list of llmfw.Verdict",
        )
    return Checked(built, name)


def _chosen(rows: Sequence[Row], responses: Sequence[str]) -> int:
    """An index that depends on all of the batch and on nothing else."""
    text = json.dumps([[_name(row), said] for row, said in zip(rows, responses)], default=str)
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big") % len(
        rows
    )


def _name(row: Row) -> str:
    """A row's id, else how its prompt begins."""
    return str(row.get("id") or repr(row.get("prompt", ""))[:60])
