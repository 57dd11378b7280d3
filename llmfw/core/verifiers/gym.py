"""Verifier ``reasoning_gym``: the package's own scorers, on the tasks that rows were made of."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from llmfw.core.errors import DataError, LlmfwError, ResourceError
from llmfw.core.records import Row, Verdict
from llmfw.core.verifiers.extract import boxed, marked, plain, stated
from llmfw.core.verifiers.gym_guard import VERSION, may_be_asked, may_score
from llmfw.core.verifiers.value import opposite_of

_TAGGED = re.compile(r"<answer>\s?(.*?)\s?</answer>", re.DOTALL)
_NOTHING = "~"
"""An answer to no task of any kind."""
_RIGHT = 1.0 - 1e-9


def build(service: object = None) -> ReasoningGym:
    """The verifier ``reasoning_gym``.

    Raises:
        ResourceError: REASONING-GYM, the package isn't installed, or in another version: what its scorers do
            with an answer was read, and is guarded, for one.
    """
    found = importlib.util.find_spec("reasoning_gym") is not None
    version = importlib.metadata.version("reasoning-gym") if found else None
    if version != VERSION:
        raise ResourceError(
            "REASONING-GYM",
            f"the verifier 'reasoning_gym' needs reasoning-gym {VERSION}"
            + (f", {version} is installed" if version else ""),
            mend=f"run: python -m pip install reasoning-gym=={VERSION}",
        )
    return ReasoningGym()


class ReasoningGym:
    """Scores answers by ``score_answer`` of the row's task: right from a score of 1.

    A row's ``meta`` has ``task`` (the data set's name), ``entry`` (what the data set gave: question, answer,
    metadata), and ``config`` where it wasn't made with the default settings. The answer is what the last
    ``<answer>`` holds, else what stands behind the last ``Answer:``, else in a box or behind "the answer is",
    else a response of no more lines than the entry's answer. A scorer that fails on an answer though it
    accepts the entry's says ``wrong``; one that fails on both says ``failed``.
    """

    def __init__(self) -> None:
        self._sets: dict[tuple[str, str], Any] = {}

    def verify(self, rows: Sequence[Row], responses: Sequence[str]) -> list[Verdict]:
        """One verdict a response."""
        return [self._verdict(row, response) for row, response in zip(rows, responses, strict=True)]

    def canaries(self, row: Row) -> list[tuple[str, bool]]:
        """The entry's answer where it has one (some tasks have many right answers), none at all, and the
        other of yes and no.
        """
        gold = _entry(row)[1].get("answer")
        known = [(f"<answer>{gold}</answer>", True)] if isinstance(gold, str) else []
        opposite = opposite_of(gold) if isinstance(gold, str) else None
        wrong = [_NOTHING] if opposite is None else [_NOTHING, opposite]
        return [*known, *((f"<answer>{one}</answer>", False) for one in wrong)]

    def _verdict(self, row: Row, response: str) -> Verdict:
        gold = _entry(row)[1].get("answer")
        spellings = answers_in(response, str(gold or ""))
        if not spellings:
            return Verdict(status="unparsed")
        try:
            score, answer = max(
                ((self._score(row, answer), answer) for answer in spellings), key=lambda one: one[0]
            )
        except LlmfwError:
            raise
        except Exception:
            known = isinstance(gold, str) and self._accepts(row, gold)
            return Verdict(status="wrong" if known or gold is None else "failed", answer=spellings[0])
        right = score >= _RIGHT
        score = 1.0 if right else min(1.0, max(0.0, score))
        return Verdict(status="right" if right else "wrong", score=score, answer=answer)

    def _accepts(self, row: Row, answer: str) -> bool:
        try:
            return self._score(row, answer) >= _RIGHT
        except Exception:
            return False

    def _score(self, row: Row, answer: str) -> float:
        task, entry = _entry(row)
        if not may_score(task, answer):
            return float(answer == entry.get("answer"))
        return float(self._set(row, task).score_answer(answer, dict(entry)))

    def _set(self, row: Row, task: str) -> Any:
        """The task's data set, made once with each of its settings.

        Raises:
            DataError: GYM-TASK, there's no such task, or it refuses its settings.
        """
        config = row["meta"].get("config") or {}
        key = task, json.dumps(config, sort_keys=True, default=str)
        if key not in self._sets:
            state = random.getstate()  # the package draws random numbers when it's imported
            try:
                from reasoning_gym.factory import DATASETS, create_dataset

                if task not in DATASETS or task == "composite":
                    raise _unfit(row, f"reasoning-gym has no task {task!r} to score", "meta.task")
                self._sets[key] = create_dataset(task, **config)
            except (TypeError, AssertionError, ValueError) as error:
                raise _unfit(row, f"{task} refuses its settings: {error}", "meta.config") from error
            finally:
                random.setstate(state)
        return self._sets[key]


def answers_in(response: str, gold: str) -> list[str]:
    """The answer that a response gives: as it stands, with its lines where the task's answers have several,
    and without what is put around it (a full stop may be part of a sentence, or none of a number).
    """
    text = response.rpartition("</think>")[2].strip()
    lines = len(gold.strip().splitlines())
    tagged = _TAGGED.findall(text)
    if tagged:
        found = str(tagged[-1])
    elif (said := marked(text, whole=lines > 1)) is not None:
        found = said
    else:
        found = text if len(text.splitlines()) <= lines else ""
        if lines <= 1:
            found = boxed(text) or stated(text) or found
    spellings = [found.strip()] if lines > 1 else [found.strip(), plain(found)]
    return [one for one in dict.fromkeys(spellings) if one]


def _entry(row: Row) -> tuple[str, Mapping[str, Any]]:
    """(task, entry) of a row.

    Raises:
        DataError: GYM-TASK, it has none, or one that a scorer can't be given.
    """
    meta = row.get("meta") or {}
    task, entry = meta.get("task"), meta.get("entry")
    if not isinstance(task, str) or not isinstance(entry, Mapping):
        raise _unfit(row, "it doesn't name the task that it's of", "meta.task")
    if not may_be_asked(task, entry):
        raise _unfit(
            row, f"{task} would evaluate what the row says as Python, and it's no formula", "meta.entry"
        )
    return task, entry


def _unfit(row: Row, what: str, key: str) -> DataError:
    return DataError(
        "GYM-TASK",
        f"row {row.get('id', '?')}: {what}",
        mend="make rows of reasoning-gym's: meta.task is the data set's name, meta.entry what it gave",
        key=key,
    )
