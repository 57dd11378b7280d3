"""A sampler asked directly, round after round, without any training between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmfw.core.records import Completion, Policy, Round
    from llmfw.testing.subject import Subject

MOST = 16
"""Rounds after which a sampler is taken for one without an end."""


class Counted:
    """A policy that counts what it generates."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.samples = self.tokens = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._policy, name)

    def generate(self, *given: Any, **sampling: Any) -> list[Completion]:
        """The policy's answers, counted."""
        answers = self._policy.generate(*given, **sampling)
        self.samples += len(answers)
        self.tokens += sum(answer.tokens for answer in answers)
        return answers


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a sampler gave. ``told``: the ledger's counts; ``samples`` and ``tokens``: what was generated."""

    rounds: list[Round]
    ended: bool
    told: Mapping[str, float]
    samples: int
    tokens: int


def asked(subject: Subject) -> Asked:
    """The sampler's rounds from the base model; at most ``MOST``."""
    return subject.once("rounds", lambda: _ask(subject))


def _ask(subject: Subject) -> Asked:
    from llmfw.core.determinism import pinned
    from llmfw.core.policies import open_policy_of
    from llmfw.core.rounds import Ledger
    from llmfw.testing.data_path import prepared_of, ready

    assembled = ready(subject.assembled(), subject.folder / "rounds")
    prepared = prepared_of(assembled)
    assembled.run._provide(rows=prepared.rows, held_out=prepared.validation)
    policy, ledger = Counted(open_policy_of(assembled, None)), Ledger(subject.folder / "rounds")
    sampler, found = assembled.plan.one("llmfw_sampler"), list[Any]()
    with pinned(assembled.run.config.trainer):
        while len(found) < MOST:
            with ledger.sampling(len(found)):
                given = sampler.next(
                    len(found), prepared.rows["train"], policy, assembled.run.service, ledger
                )
            if given is None:
                break
            found.append(given)
            if given.keep_as:
                assembled.run._keep(given.keep_as, policy, "the base model")
    return Asked(
        rounds=found, ended=len(found) < MOST, told=ledger.total(), samples=policy.samples,
        tokens=policy.tokens,
    )  # fmt: skip
