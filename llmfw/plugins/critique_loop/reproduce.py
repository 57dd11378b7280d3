"""What critique in the loop claims, and the experiment that decides it; the README describes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from llmfw import Arm, Claim

from . import experiment

Seeds = Mapping[Literal["smoke", "small", "full"], tuple[int, ...]]
SEEDS: Seeds = {"smoke": (1,), "small": (11, 12, 13), "full": (11, 12, 13, 14, 15)}

CLAIMS = (
    Claim(
        id="critique_loop.1",
        statement="On hard problems (chains of four and five operations) that weren't trained on, answers "
        "refined with the trained critic are right more often than the first answers.",
        paper="abstract and section 4: critique models consistently help on difficult queries at test time; "
        "its tables weren't at hand",
        metric="hard_accuracy",
        # one hard problem in fifty: a user who pays for two more calls would want as much
        effect=0.02,
        unit="share of problems",
        arms=("first", "refined"),
        controls=("loop", "silent", "random", "oracle"),
        seeds=SEEDS,
    ),
    Claim(
        id="critique_loop.2",
        statement="What K chains of answer, critique and refinement gain over as many tokens of plain "
        "answers, each by majority vote, is more at K = 8 than at K = 1.",
        paper="abstract: especially when scaling up inference-time computation; figures of Maj@K",
        metric="gain",
        effect=0.02,
        unit="share of problems",
        arms=("gain-1", "gain-k"),
        controls=(),
        seeds=SEEDS,
    ),
    Claim(
        id="critique_loop.3",
        statement="A model trained with critique in the loop solves more hard problems than one trained by "
        "rejection sampling; controls have as many training steps, or as many generations.",
        paper="abstract: a stronger reasoning model, especially on challenging queries; its tables weren't "
        "at hand",
        metric="hard_accuracy",
        effect=0.02,
        unit="share of problems",
        arms=("rft", "loop"),
        controls=("rft-size", "rft-compute"),
        seeds=SEEDS,
    ),
    Claim(
        id="critique_loop.4",
        statement="Of eight samples to a problem that wasn't trained on, a model trained with critique in "
        "the loop has more distinct right answers than one trained by rejection sampling.",
        paper="abstract: improves solution diversity",
        metric="distinct",
        # one problem in twenty with one right answer more
        effect=0.05,
        unit="answers per problem",
        arms=("rft", "loop"),
        controls=("rft-size", "rft-compute"),
        seeds=SEEDS,
    ),
)


def arms(claim: Claim, seed: int, size: str) -> Mapping[str, Arm]:
    """The arms of a claim's experiment, and those from whose weights they start."""
    names = {*claim.arms, *claim.controls, "loop"}
    return {name: arm for name, arm in experiment.arms(seed, size).items() if name in names}
