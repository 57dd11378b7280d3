"""What guided self-improvement claims, and the experiment that decides it; the README describes it.

A Llama of 0.6 million parameters learns chains of arithmetic from their solutions, until it solves short ones
and seldom long ones; then it trains on its own right answers for some rounds, each from those same weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmfw import Arm, Claim, LlmfwError

if TYPE_CHECKING:  # it brings torch
    from llmfw import FitResult

SEEDS: Mapping[Any, tuple[int, ...]] = {
    "smoke": (1,), "small": (11, 12, 13, 14, 15), "full": tuple(range(11, 21))
}  # fmt: skip
PAPER = "a plot of shares by level on MATH: level 5 falls from .31 to .08 under plain self-improvement"


class SizeError(LlmfwError):
    """Training sets that should be equally large and aren't (exit code 3)."""

    exit_code = 3


@dataclass(frozen=True)
class Scale:
    """How much is drawn and trained."""

    levels: str
    longer: int
    """A level that no training problem has."""
    largest: int
    train: int
    held_out: int
    gold_epochs: int
    rounds: int


SCALES: Mapping[str, Scale] = {
    "smoke": Scale("1-2", 3, 5, train=16, held_out=4, gold_epochs=20, rounds=1),
    "small": Scale("2-5", 6, 10, train=400, held_out=400, gold_epochs=24, rounds=3),
    "full": Scale("2-5", 6, 10, train=400, held_out=800, gold_epochs=24, rounds=4),
}
SAMPLES = 4
BUDGET = 6
"""Samples a problem with which plain self-improvement generates as many tokens as state reset does (a pilot
with seed 7: 2,440 answers of 28.6 tokens to 400 problems; 6 for each are 2,400 of 31.9)."""
CAP = 4
"""Most further attempts at a problem with help."""
PATIENCE: Mapping[str, int] = {"smoke": 5, "small": 16, "full": 16}
"""Most further attempts at a problem without help."""
LIGHTER: Mapping[str, Mapping[str, Any]] = {
    "smoke": {"model.config.num_hidden_layers": 1, "trainer.epochs": 1, "generation.max_new_tokens": 40}
}
"""What a size changes in every arm, so that ten of them take seconds."""
SIZED: Mapping[str, int] = {"smoke": 4, "small": 400, "full": 400}
"""Answers that each round of each arm of gsi.5 trains: at the larger sizes one a problem in the mean, fewer
than plain self-improvement kept in any last round of size small. An arm that has fewer fails."""

CLAIMS = (
    Claim(
        id="gsi.1",
        statement="In the last round's training set problems of the highest level have a larger share under "
        "guidance by state reset than under plain self-improvement.",
        paper=PAPER,
        metric="hard_share",
        # a tenth of the share that such problems have in the data
        effect=0.025,
        unit="share",
        arms=("vanilla", "state-reset"),
        controls=("vanilla-budget", "brute-force"),
        seeds=SEEDS,
    ),
    Claim(
        id="gsi.2",
        statement="State reset needs fewer further answers for each problem that comes to enough right ones "
        "than asking again without help, with as many attempts at a problem at the most.",
        paper="a review quotes it: better than brute force with a third of the budget",
        metric="per_rescue",
        direction="lower",
        # one answer
        effect=1.0,
        unit="answers",
        arms=("brute-force-capped", "state-reset"),
        controls=("brute-force",),
        seeds=SEEDS,
    ),
    Claim(
        id="gsi.3",
        statement="With as many generated tokens, guidance by state reset solves more held-out problems than "
        "plain self-improvement.",
        paper="a plot for four models: 0.2 to 6 points above eight samples a problem",
        metric="solved",
        effect=0.02,
        unit="share",
        arms=("vanilla-budget", "state-reset"),
        controls=("vanilla", "brute-force", "state-reset-masked"),
        seeds=SEEDS,
    ),
    Claim(
        id="gsi.4",
        statement="The same for problems with one operation more than any that was trained.",
        paper="held-out sets (MathQA, SVAMP, TheoremQA); the figures weren't at hand",
        metric="solved_longer",
        effect=0.02,
        unit="share",
        arms=("vanilla-budget", "state-reset"),
        controls=("vanilla", "brute-force", "state-reset-masked"),
        seeds=SEEDS,
    ),
    Claim(
        id="gsi.5",
        statement="With as many training examples in each round (matched are these, not generated tokens), "
        "guidance by state reset solves more held-out problems than plain self-improvement.",
        paper="no such comparison is known: its guided sets are larger than the plain ones",
        metric="solved",
        effect=0.02,
        unit="share",
        arms=("vanilla-sized", "state-reset-sized"),
        controls=("answer-sized", "rationale-sized"),
        seeds=SEEDS,
    ),
)


def arms(claim: Claim, seed: int, size: str) -> Mapping[str, Arm]:
    """The arms of all claims; each is trained once for a seed."""
    scale = SCALES[size]
    plain = {"rft.samples": SAMPLES}
    helped = {"gsi.samples": SAMPLES, "gsi.min_correct": 2, "gsi.max_resample": CAP}
    records = SIZED[size]
    every = {
        "vanilla": _arm(f"{SAMPLES} answers a problem", "rft", plain, scale, seed),
        "vanilla-budget": _arm(
            f"{BUDGET} answers a problem: as many tokens, and as many kept answers or more, as state-reset",
            "rft", {"rft.samples": BUDGET}, scale, seed,
        ),
        "state-reset": _arm("with too few right answers, begun by the solution", "gsi", helped, scale, seed),
        "state-reset-masked": _arm(
            "the same, what was given isn't trained", "gsi", {**helped, "gsi.mask_prefix": True}, scale, seed
        ),
        "brute-force": _arm(
            f"with too few right answers, asked again up to {PATIENCE[size]} times", "gsi",
            {**helped, "gsi.strategy": "none", "gsi.max_resample": PATIENCE[size]}, scale, seed,
        ),
        "brute-force-capped": _arm(
            f"with too few right answers, asked again up to {CAP} times, as often as state-reset at the most",
            "gsi", {**helped, "gsi.strategy": "none"}, scale, seed,
        ),
        "vanilla-sized": _sized(
            f"{SAMPLES} answers a problem", {**helped, "gsi.min_correct": 0}, records, scale, seed
        ),
        "state-reset-sized": _sized("guided by state reset", helped, records, scale, seed),
        "answer-sized": _sized(
            "guided by the answer", {**helped, "gsi.strategy": "answer"}, records, scale, seed
        ),
        "rationale-sized": _sized(
            "guided by the solution", {**helped, "gsi.strategy": "rationale"}, records, scale, seed
        ),
    }  # fmt: skip
    return {
        name: replace(every[name], settings={**every[name].settings, **LIGHTER.get(size, {})})
        for name in (*claim.arms, *claim.controls)
    }


def _arm(about: str, plugin: str, settings: Mapping[str, Any], scale: Scale, seed: int) -> Arm:
    """A training of the overlay that both plugins have, each round from the weights after the solutions."""
    return Arm(
        about=about,
        plugins=(plugin,),
        settings={
            "trainer.threads": 1,  # so small a model is no faster with more
            "checkpoint.every": 0,
            "data.options.levels": scale.levels,
            "data.options.largest": scale.largest,
            "data.options.train": scale.train,
            "data.options.validation": scale.held_out,
            "data.options.seed": seed,
            f"{plugin}.problems": scale.held_out,
            f"{plugin}.gold_epochs": scale.gold_epochs,
            f"{plugin}.keep_gold": False,
            f"{plugin}.rounds": scale.rounds,
            **settings,
        },
        values=partial(_values, plugin, scale),
        own_data=True,
    )


def _sized(about: str, settings: Mapping[str, Any], records: int, scale: Scale, seed: int) -> Arm:
    """The same with ``records`` of the right answers in each round, by lot."""
    arm = _arm(
        f"{about}; {records} of the right ones a round, by lot", "gsi",
        {**settings, "gsi.keep_at_most": records}, scale, seed,
    )  # fmt: skip
    return replace(arm, values=partial(_values_of_size, scale, records))


def _values_of_size(scale: Scale, records: int, result: FitResult) -> Mapping[str, float]:
    """What the rounds were made of and cost."""
    expect_size(result.by_round, records)
    return of_rounds(result.by_round, scale)


def expect_size(rounds: Sequence[Mapping[str, float | str]], records: int) -> None:
    """Refuse rounds, the one on solutions aside, that don't train just so many records.

    Raises:
        SizeError: GSI-SIZE.
    """
    for row in rounds:
        if row["start"] != "base" and row["records"] != records:
            raise SizeError(
                "GSI-SIZE",
                f"round {row['round']:g} trains {row['records']:g} answers where {records} are compared",
                mend="lower SIZED in reproduce.py to what every arm reaches",
            )


def _values(plugin: str, scale: Scale, result: FitResult) -> Mapping[str, float]:
    """What the rounds were made of and cost, and the share of longer problems that's solved."""
    return {
        **of_rounds(result.by_round, scale),
        "solved_longer": _longer(plugin, scale, result.final),
    }


def of_rounds(rounds: Sequence[Mapping[str, float | str]], scale: Scale) -> dict[str, float]:
    """The last round's tail, and what all of them but the one on solutions cost."""
    sampled = [row for row in rounds if row["start"] != "base"]
    hardest = max(int(name) for name in scale.levels.split("-"))

    def total(key: str) -> float:
        return sum(float(row.get(key, 0.0)) for row in sampled)

    return {
        "hard_share": float(sampled[-1][f"level/{hardest}/share"]),
        "hard_coverage": float(sampled[-1][f"level/{hardest}/coverage"]),
        "answers": total("sampled/samples"),
        "sampled_tokens": total("sampled/tokens"),
        "kept": total("records"),
        # where nothing was rescued: all of them, as if the next one would
        "per_rescue": total("guided/generations") / max(1.0, total("guided/rescued")),
    }


def _longer(plugin: str, scale: Scale, weights: Path) -> float:
    """The share of problems of level ``scale.longer`` that these weights solve greedily."""
    from llmfw import evaluate

    found = evaluate(
        f"model={weights}",
        f"data.options.levels={scale.longer}",
        f"data.options.largest={scale.largest}",
        "data.options.train=1",
        f"data.options.validation={scale.held_out}",
        f"{plugin}.problems={scale.held_out}",
        plugins=(plugin,),
    )
    solved = found.metrics["solved"]
    return solved if isinstance(solved, float) else solved.value
