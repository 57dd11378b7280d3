"""Sampled answers to problems, judged: what samplers of self-generated data have in common.

An attempt is numbered within its problem and round. Its random numbers are a function of the run's seed, the
round, the problem and that number, so that two methods that ask for the same have the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from llmfw.core.data import Encoder, canonical
from llmfw.core.generation.prompts import Prompt, prompt_of
from llmfw.core.records import Completion, Policy, Row, Verdict, Verifier


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One sampled answer to a problem. ``prefix`` is how it was made to begin."""

    row: Row
    number: int
    completion: Completion
    verdict: Verdict
    prefix: str = ""

    @property
    def text(self) -> str:
        """The whole answer, its given beginning included."""
        return self.prefix + self.completion.text

    @property
    def finished(self) -> bool:
        """Whether the model ended it itself; one that was cut is never right."""
        return self.completion.finish == "stop"

    @property
    def right(self) -> bool:
        """Whether it's finished and its verifier says so."""
        return self.finished and self.verdict.right


@dataclass(frozen=True, kw_only=True)
class Rollouts:
    """Asks a policy for attempts through the round's ledger. ``index``: of the round."""

    policy: Policy
    ledger: Any
    verifier: Verifier
    index: int
    seed: int
    temperature: float
    logps: bool = False
    """Whether the attempts carry their tokens' log-probs."""

    def attempt(
        self,
        rows: Sequence[Row],
        *,
        purpose: str,
        samples: int = 1,
        first: int = 0,
        prompts: Sequence[Prompt] | None = None,
        prefixes: Sequence[str] | None = None,
    ) -> list[list[Attempt]]:
        """For each row its attempts number ``first`` to ``first + samples - 1``, judged.

        Args:
            purpose: the ledger's line.
            prompts: what is asked in place of the rows' own prompts.
            prefixes: how each answer is made to begin.
        """
        asked = [prompt_of(row) for row in rows] if prompts is None else list(prompts)
        openings = [""] * len(rows) if prefixes is None else list(prefixes)
        answers = self.ledger.generate(
            self.policy,
            asked,
            purpose=purpose,
            samples=samples,
            first=first,
            temperature=self.temperature,
            seed=self.seed,
            ids=[f"{self.index}/{row['id']}" for row in rows],
            prefix=openings,
            logps=self.logps,
        )
        begun = [opening for opening in openings for _ in range(samples)]
        owners = [row for row in rows for _ in range(samples)]
        texts = [opening + answer.text for opening, answer in zip(begun, answers, strict=True)]
        verdicts = self._judged(owners, texts)
        found = [
            Attempt(
                row=row, number=first + place % samples, completion=answer, verdict=verdict, prefix=opening
            )
            for place, (row, answer, verdict, opening) in enumerate(
                zip(owners, answers, verdicts, begun, strict=True)
            )
        ]
        return [found[start : start + samples] for start in range(0, len(found), samples)]

    def _judged(self, rows: Sequence[Row], texts: Sequence[str]) -> list[Verdict]:
        """The verdicts, given once in a round whatever happens to the process meanwhile."""
        if not rows:
            return []
        said = json.dumps([[str(row["id"]), text] for row, text in zip(rows, texts, strict=True)])
        key = "verdicts/" + hashlib.sha256(said.encode()).hexdigest()[:16]
        told = self.ledger.once(key, lambda: [asdict(one) for one in self.verifier.verify(rows, texts)])
        return [Verdict(**one) for one in told]


def trained_row(attempt: Attempt, index: int, *, mask_prefix: bool = False) -> Row:
    """The record that teaches an attempt as the answer to the problem's own prompt; ``index`` is the round's.

    ``mask_prefix``: the beginning that was given is read and not trained.
    """
    row: Row = {
        "id": f"{attempt.row['id']}.{index}.{attempt.number}",
        "prompt": attempt.row["prompt"],
        "completion": attempt.text,
        "problem": attempt.row["id"],
    }
    if mask_prefix and attempt.prefix:
        row["spans"] = [[len(attempt.prefix), len(attempt.text) + 1]]
    return row


def scored_row(
    attempt: Attempt, index: int, encoder: Encoder, *, reward: float, advantage: float
) -> Row | None:
    """The record that teaches an attempt by its advantage, with the log-probs under which it was sampled.

    None where the training would read its text as other tokens than were sampled, whose log-probs nobody
    knows. An answer that was cut has no end to train.
    """
    logps = attempt.completion.logps
    if logps is None or not attempt.text.strip():
        return None
    row = trained_row(attempt, index)
    if not attempt.finished:
        row["spans"] = [[0, len(attempt.text)]]
    form, checked = canonical({**row, "reward": reward})
    example = encoder.encode(form, checked)
    if example is None or example.sequences[0].trained_ids != attempt.completion.ids:
        return None
    return {**row, "reward": reward, "old_logps": list(logps), "extra": {"advantage": advantage}}


def distinct(attempts: Sequence[Attempt]) -> list[Attempt]:
    """The attempts without those whose text an earlier one of the same problem has, white space apart."""
    first: dict[tuple[str, str], Attempt] = {}
    for attempt in attempts:
        first.setdefault((str(attempt.row["id"]), " ".join(attempt.text.split())), attempt)
    return list(first.values())
