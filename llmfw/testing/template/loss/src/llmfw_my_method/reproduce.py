"""The method's claims, and the runs that decide them: ``llmfw reproduce my_method``."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmfw import Arm, Claim

STEPS = {"smoke": 8, "small": 60, "full": 200}

CLAIMS = (
    Claim(
        id="my_method.1",
        statement="After equal steps over the same pairs the margin of the rewards is smaller than DPO's.",
        paper="no figure; it follows from the loss, whose minimum lies at a finite margin",
        metric="rewards/margins",
        direction="lower",
        effect=0.01,
        unit="nats",
        arms=("dpo", "method"),
        controls=("neutral",),
        seeds={"smoke": (1, 2), "small": (1, 2, 3), "full": (1, 2, 3, 4, 5)},
    ),
)


def pairs(folder: Path) -> Mapping[str, Any]:
    """Write the pairs that every arm of a seed trains on: sums, right against wrong."""
    draw = random.Random(0)
    rows = []
    for number in range(64):
        left, right = draw.randint(0, 99), draw.randint(0, 99)
        rows.append(
            {
                "id": f"sum-{number}",
                "prompt": f"{left} + {right} =",
                "chosen": f" {left + right}",
                "rejected": f" {left + right + draw.randint(1, 9)}",
            }
        )
    file = folder / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return {"data.name": str(file)}


def arms(claim: Claim, seed: int, size: str) -> dict[str, Arm]:
    """DPO, the method, and the method at its neutral setting, over the same pairs."""
    settings = {
        "model.name": "tiny-llama",
        "adapter.kind": "none",
        "optimizer.lr": 0.002,
        "trainer.max_steps": STEPS[size],
        "trainer.micro_batch": 8,
        "data.options": {},
    }
    own = {"my_method.flipped": 0.3, "my_method.beta": 0.1}
    return {
        "dpo": Arm(
            about="plain DPO",
            plugins=("dpo",),
            settings={**settings, "dpo.beta": 0.1, "dpo.answers": 0},
            prepare=pairs,
        ),
        "method": Arm(
            about="flipped=0.3", plugins=("my_method",), settings={**settings, **own}, prepare=pairs
        ),
        "neutral": Arm(
            about="flipped=0",
            plugins=("my_method",),
            settings={**settings, **own, "my_method.flipped": 0.0},
            prepare=pairs,
        ),
    }
