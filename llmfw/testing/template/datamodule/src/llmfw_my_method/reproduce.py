"""The plugin's claims, and the runs that decide them: ``llmfw reproduce my_method``."""

from __future__ import annotations

from llmfw import Arm, Claim

STEPS = {"smoke": 20, "small": 150, "full": 600}

CLAIMS = (
    Claim(
        id="my_method.1",
        statement="After equal steps a model that saw many different sums has a lower held-out loss than one "
        "that saw 16 sums over and over.",
        paper="none: the claim is this plugin's own",
        metric="validation/loss",
        direction="lower",
        effect=0.05,
        unit="nats",
        arms=("few", "many"),
        seeds={"smoke": (1, 2), "small": (1, 2, 3), "full": (1, 2, 3, 4, 5)},
    ),
)


def arms(claim: Claim, seed: int, size: str) -> dict[str, Arm]:
    """Sixteen sums, and two thousand; the data are what is compared."""
    settings = {
        "model.name": "tiny-llama",
        "trainer.max_steps": STEPS[size],
        "trainer.micro_batch": 16,
        "trainer.validation_limit": 64,
        "my_method.held_out": 0.1,
    }
    return {
        name: Arm(
            about=f"{count} different sums",
            plugins=("my_method",),
            settings={**settings, "my_method.count": count},
            own_data=True,
        )
        for name, count in {"few": 16, "many": 2000}.items()
    }
