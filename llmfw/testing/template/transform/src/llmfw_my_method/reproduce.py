"""The method's claims, and the runs that decide them: ``llmfw reproduce my_method``."""

from __future__ import annotations

import random
from functools import partial

from llmfw import Arm, Claim, Workspace

TEXTS = {"smoke": 60, "small": 600, "full": 3000}
WORDS = "river stone letter window garden number answer winter circle market paper signal".split()

CLAIMS = (
    Claim(
        id="my_method.1",
        statement="Of texts that are copies with one word changed, more are found than by equality.",
        paper="Table 2: 3.04 % of C4's texts are near-duplicates",
        metric="found",
        effect=0.5,
        unit="share",
        arms=("equal", "similar"),
        controls=("neutral",),
        seeds={"smoke": (1, 2), "small": (1, 2, 3), "full": (1, 2, 3, 4, 5)},
    ),
)


def planted(count: int, seed: int) -> tuple[list[str], set[int]]:
    """Random texts of 40 words, a fifth of them copies of an earlier one with one word changed; their
    indices.
    """
    draw = random.Random(seed)
    texts: list[str] = []
    copies: set[int] = set()
    for index in range(count):
        words = [f"{draw.choice(WORDS)}{draw.randrange(1000)}" for _ in range(40)]
        if index and draw.random() < 0.2:
            words = draw.choice(texts).split()
            words[draw.randrange(len(words))] = "changed"
            copies.add(index)
        texts.append(" ".join(words))
    return texts, copies


def share_found(workspace: Workspace, *, above: float | None) -> dict[str, float]:
    """Share of the planted copies that are found; ``above`` None: by equality."""
    from .functional import duplicates

    texts, copies = planted(TEXTS[workspace.size], workspace.seed)
    if above is None:
        found = {index for index, text in enumerate(texts) if text in texts[:index]}
    else:
        found = {duplicate.index for duplicate in duplicates(texts, above=above)}
    return {"found": len(found & copies) / max(1, len(copies)), "wrongly": len(found - copies) / len(texts)}


def arms(claim: Claim, seed: int, size: str) -> dict[str, Arm]:
    """Equality, the method, and the method at its neutral setting."""
    return {
        "equal": Arm(about="equal texts", run=partial(share_found, above=None)),
        "similar": Arm(about="similarity above 0.7", run=partial(share_found, above=0.7)),
        "neutral": Arm(about="similarity above 1", run=partial(share_found, above=1.0)),
    }
