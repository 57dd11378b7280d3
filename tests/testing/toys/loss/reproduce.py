"""What the toy claims."""

from __future__ import annotations

from collections.abc import Mapping

from llmfw import Arm, Claim

CLAIMS = (
    Claim(
        id="base_loss.1",
        statement="Early weights lower the held-out loss below DPO's.",
        paper="none: a toy",
        metric="validation/loss",
        direction="lower",
        effect=0.01,
        unit="nats",
        arms=("dpo", "early"),
        seeds={"smoke": (0, 1)},
    ),
    Claim(
        id="base_loss.2",
        statement="It holds for models of 7 billion parameters.",
        paper="none: a toy",
        metric="validation/loss",
        not_tested="no machine here holds such a model",
    ),
)


def arms(claim: Claim, seed: int, size: str) -> Mapping[str, Arm]:
    """DPO and the toy, on the same pairs."""
    return {
        "dpo": Arm(about="plain DPO", plugins=("dpo",)),
        "early": Arm(about="early weights", plugins=("base_loss",)),
    }
