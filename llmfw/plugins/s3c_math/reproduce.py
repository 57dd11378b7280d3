"""What S3c-Math claims, and the experiment that decides it; the README describes it.

Chains of arithmetic, whose every step is known: a tiny model from scratch learns from plain solutions, or
from a mix with corrected ones, in five ways that see equally many tokens. Wrong steps are made on purpose, by
``source=perturbed``; those that the evaluations force are drawn apart from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from llmfw import Arm, Claim


@dataclass(frozen=True)
class Scale:
    """How much is drawn, trained and measured."""

    train: int
    validation: int
    tokens: int
    """Tokens that each arm sees, prompts included."""
    problems: int
    """Held-out problems that are measured."""
    model: str


SCALES: Mapping[str, Scale] = {
    "smoke": Scale(train=24, validation=8, tokens=3_000, problems=8, model="tiny-llama"),
    "small": Scale(train=600, validation=200, tokens=500_000, problems=200, model="tiny-math"),
    "full": Scale(train=2000, validation=400, tokens=2_000_000, problems=400, model="tiny-math"),
}
SEEDS: Mapping[Literal["smoke", "small", "full"], tuple[int, ...]] = {
    "smoke": (1,),
    "small": (11, 12, 13, 14, 15),
    "full": tuple(range(11, 21)),
}
PLAIN, MASKED, UNMASKED, BARE, RETRY = "plain", "masked", "unmasked", "no-reflection", "retry"
ARMS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    PLAIN: ("plain solutions alone", {"s3c_math.share_corrected": 0.0}),
    MASKED: ("corrected steps, the wrong ones masked", {}),
    UNMASKED: ("the same records, everything trained", {"s3c_math.mask_wrong": False}),
    BARE: ("improvements without a reflection", {"s3c_math.reflections": False}),
    RETRY: ("a whole wrong solution, then the whole right one", {"s3c_math.level": "solution"}),
}


def claim(number: int, statement: str, **told: Any) -> Claim:
    """A claim over this experiment; further arms are controls."""
    arms: tuple[str, ...] = told.pop("arms", (PLAIN, MASKED))
    return Claim(
        id=f"s3c_math.{number}",
        statement=statement,
        arms=arms,
        controls=tuple(name for name in ARMS if name not in arms),
        seeds=SEEDS,
        **told,
    )


CLAIMS = (
    claim(
        1,
        "After a wrong step that it's made to begin with, a model trained on corrected steps, the wrong ones "
        "masked, reaches the right answer more often than one trained on as many tokens of plain solutions.",
        paper="none: the paper forces no errors; its ablations say that step-level correction helps",
        metric="forced/recovered",
        # one forced error in ten: a skill that is there, not a side effect
        effect=0.1,
        unit="share",
    ),
    claim(
        2,
        "After a right step it begins a reflection at most once in twenty times.",
        paper="none: the paper gives no trigger rate; 57% of its training samples show a correction",
        metric="right/reflects",
        kind="level",
        direction="lower",
        effect=0.05,
        unit="share",
        arms=(MASKED,),
    ),
    claim(
        3,
        "At equal tokens seen it solves more held-out problems by greedy decoding.",
        paper="GSM8K: Llama3-8B 82.9 against 79.2 of a MetaMath baseline with 43% of the data (both as "
        "arXiv 2503.17439 has them); MATH 33.1 against 34.1",
        metric="solved",
        # 2 problems in a hundred: the least that 200 problems and five seeds can show
        effect=0.02,
        unit="share",
    ),
    claim(
        4,
        "It reaches the right answer after a forced wrong step more often than one that was trained on the "
        "wrong steps too.",
        paper="the training masks erroneous steps; its ablation's figures aren't known to us",
        metric="forced/recovered",
        effect=0.02,
        unit="share",
        arms=(UNMASKED, MASKED),
    ),
    claim(
        5,
        "It finds wrong steps less likely, in nats a token, than one that was trained on them too.",
        paper="none: the reason given for the mask",
        metric="forced/wrong_nll",
        # a tenth of a nat a token is a step of seven tokens half as likely
        effect=0.1,
        unit="nats",
        arms=(UNMASKED, MASKED),
    ),
    Claim(
        id="s3c_math.6",
        statement="On GSM8K, SVAMP and MATH, models of 7 to 8 billion weights answer better after S3c-Math "
        "than after MetaMath.",
        paper="as for s3c_math.3; best row 84.7 GSM8K, 51.7 MATH, 87.4 SVAMP",
        metric="accuracy",
        not_tested="two cores can't train such models, and neither the 532 thousand corrected solutions nor "
        "the teacher that wrote them is published",
    ),
)


def arms(claim: Claim, seed: int, size: str) -> Mapping[str, Arm]:
    """The arms of the experiment: they differ by their records alone, and by how much of them is trained."""
    scale = SCALES[size]
    return {
        name: Arm(
            about=about, plugins=("s3c_math",), settings={**_common(seed, scale), **settings}, own_data=True
        )
        for name, (about, settings) in ARMS.items()
    }


def _common(seed: int, scale: Scale) -> dict[str, Any]:
    return {
        "model": scale.model,
        "data": "chain-arithmetic",
        "data.options.levels": "2-4",
        "data.options.largest": 9,
        "data.options.operations": "+-",
        "data.options.train": scale.train,
        "data.options.validation": scale.validation,
        "data.options.seed": seed,  # each seed draws its own problems
        "optimizer.lr": 4e-3,
        "optimizer.schedule": "cosine",
        "optimizer.warmup": 0.05,
        "trainer.micro_batch": 16,
        "trainer.threads": 1,  # so small a model is hardly faster with more
        "checkpoint.every": 0,
        "generation.max_new_tokens": 120,
        "generation.batch_size": 100,
        "s3c_math.source": "perturbed",
        "s3c_math.tokens": scale.tokens,
        "s3c_math.problems": scale.problems,
    }
