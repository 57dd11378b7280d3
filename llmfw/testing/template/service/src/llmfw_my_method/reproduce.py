"""The plugin's claims, and the runs that decide them: ``llmfw reproduce my_method``."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

from llmfw import Arm, Claim, Workspace

ANSWERS = {"smoke": 50, "small": 500, "full": 5000}

CLAIMS = (
    Claim(
        id="my_method.1",
        statement="Of answers in mixed notation more are judged rightly than by comparing texts.",
        paper="none: the claim is this plugin's own",
        metric="right",
        effect=0.2,
        unit="share",
        arms=("equal", "verifier"),
        seeds={"smoke": (1, 2), "small": (1, 2, 3), "full": (1, 2, 3, 4, 5)},
    ),
)


def judged(count: int, seed: int) -> list[tuple[str, str, bool]]:
    """(answer, expected, whether it's right) in many notations, half of them wrong."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        number, right = draw.randint(1000, 99999), draw.random() < 0.5
        said = number if right else number + draw.choice((-1, 1, 1000))
        answer = draw.choice(("{0}", "It is {0}.", "{0:,}", "x = {0}.0", "First 7, then {0}", "{0:.5e}"))
        rows.append((answer.format(said), str(number), right))
    return rows


def share_right(workspace: Workspace, *, verifier: Callable[[str, str], bool] | None) -> dict[str, float]:
    """Share of the answers that are judged rightly; no verifier: by equality of the texts."""
    from .verifier import LastNumber

    judge = verifier or LastNumber(1e-6)
    rows = judged(ANSWERS[workspace.size], workspace.seed)
    return {"right": sum(judge(answer, expected) == right for answer, expected, right in rows) / len(rows)}


def equal(answer: str, expected: str) -> bool:
    """The plain comparison."""
    return answer == expected


def arms(claim: Claim, seed: int, size: str) -> dict[str, Arm]:
    """Equality of the texts, and the verifier."""
    return {
        "equal": Arm(about="equal texts", run=partial(share_right, verifier=equal)),
        "verifier": Arm(about="the verifier", run=partial(share_right, verifier=None)),
    }
