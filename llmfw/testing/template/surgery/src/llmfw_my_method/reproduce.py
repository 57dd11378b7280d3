"""The method's claims, and the runs that decide them: ``llmfw reproduce my_method``."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmfw import Arm, Claim

STEPS = {"smoke": 10, "small": 100, "full": 400}

CLAIMS = (
    Claim(
        id="my_method.1",
        statement="Training with gates brings the loss at least as low as training without them.",
        paper="no figure: the paper gates new layers, and finds training stabler with gates than without",
        metric="loss",
        kind="not_worse",
        direction="lower",
        effect=0.05,
        unit="nats",
        arms=("without", "gates"),
        controls=("neutral",),
        seeds={"smoke": (1, 2), "small": (1, 2, 3), "full": (1, 2, 3, 4, 5)},
    ),
)


def sums(folder: Path) -> Mapping[str, Any]:
    """Write the rows that every arm of a seed trains on."""
    draw = random.Random(0)
    rows = []
    for number in range(256):
        left, right = draw.randint(0, 99), draw.randint(0, 99)
        rows.append(
            {"id": f"sum-{number}", "prompt": f"{left} + {right} =", "completion": f" {left + right}"}
        )
    file = folder / "sums.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return {"data.name": str(file)}


def arms(claim: Claim, seed: int, size: str) -> dict[str, Arm]:
    """The model as it is, with gates, and with gates at the neutral setting."""
    settings = {
        "model.name": "tiny-llama",
        "adapter.kind": "none",
        "optimizer.lr": 0.003,
        "trainer.max_steps": STEPS[size],
        "trainer.micro_batch": 16,
    }
    return {
        "without": Arm(about="the model as it is", settings=settings, prepare=sums),
        "gates": Arm(
            about="a gate a layer",
            plugins=("my_method",),
            settings={**settings, "my_method.scale": 1.0},
            prepare=sums,
        ),
        "neutral": Arm(
            about="scale=0",
            plugins=("my_method",),
            settings={**settings, "my_method.scale": 0.0},
            prepare=sums,
        ),
    }
