"""What MPLSandbox claims, and the experiments that decide it; the README describes them.

Sampled programs: SmolLM2-135M-Instruct writes small Python functions, judged by tests that no choice saw.
Rewards: a tiny model whose programs have many mistakes is trained on them. Other people's files: sources of
the toolchains' own libraries, their languages hidden. Attacks: the thirty of ``llmfw sandbox doctor``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from llmfw import Arm, Claim

from .experiments import attacked, library_files, rewarded, sampled

REWARDED: Mapping[Any, tuple[int, ...]] = {
    "smoke": (1,), "small": (11, 12, 13, 14, 15), "full": tuple(range(11, 21))
}  # fmt: skip

CLAIMS = (
    Claim(
        id="mplsandbox.1",
        statement="Of several programs (size small: eight) that SmolLM2-135M-Instruct writes for a task, the "
        "one that passes most visible tests passes all hidden tests more often than one taken at random.",
        paper="the supplement uses the sandbox as a verifier for Best-of-N; its figures are of other models",
        metric="hidden_pass",
        # one task in thirty
        effect=1 / 30,
        unit="share of tasks",
        arms=("pass-at-1", "best-of-n"),
        controls=("first", "most-frequent", "pass-at-n"),
        seeds={"smoke": (1,), "small": (11, 12, 13), "full": (11, 12, 13, 14, 15)},
        items=True,
    ),
    Claim(
        id="mplsandbox.2",
        statement="Trained in rounds on the sandbox's rewards by the paper's four levels, a tiny model "
        "writes programs that don't compile less often than before.",
        paper="section on reinforcement learning from compiler feedback: PPO on DeepSeek-Coder-6.7B",
        metric="compile_errors",
        direction="lower",
        # one program in twenty
        effect=0.05,
        unit="share of programs",
        arms=("before", "levels"),
        controls=("binary",),
        seeds=REWARDED,
    ),
    Claim(
        id="mplsandbox.3",
        statement="Of source files of other people's, whose name and first line are hidden, at least 99.9% "
        "get their language.",
        paper="the paper puts the error of its rules and classifier below 0.1%",
        metric="right",
        kind="level",
        effect=0.999,
        unit="share",
        arms=("vote",),
        controls=("signs", "magika"),
        seeds={"smoke": (101,), "small": (1, 2, 3, 4, 5), "full": (1, 2, 3, 4, 5)},
    ),
    Claim(
        id="mplsandbox.4",
        statement="Every one of thirty attacks (bombs, escapes, theft of secrets, network, cheating) is held "
        "by level strict, on a machine without Docker.",
        paper="programs can't harm the host, by Docker; no attacks are tried",
        metric="held",
        kind="level",
        effect=1.0,
        unit="share",
        arms=("bubblewrap",),
        controls=("unshare",),
        seeds={"smoke": (1,), "small": (1, 2, 3), "full": (1, 2, 3)},
        items=True,
    ),
    Claim(
        id="mplsandbox.5",
        statement="After as many rounds, rewards by the paper's four levels leave fewer programs that don't "
        "compile than pass or fail does.",
        paper="the levels are told, and not compared with others",
        metric="compile_errors",
        direction="lower",
        effect=0.02,
        unit="share of programs",
        arms=("binary", "levels"),
        controls=("before",),
        seeds=REWARDED,
    ),
)


def arms(claim: Claim, seed: int, size: str) -> Mapping[str, Arm]:
    """The arms of a claim's experiment."""
    if claim.id in ("mplsandbox.2", "mplsandbox.5"):
        return rewarded.arms(seed, size)
    return {
        "mplsandbox.1": {
            "pass-at-1": Arm(about="one program taken at random", run=sampled.pass_at_1),
            "best-of-n": Arm(about="the best by the visible tests", run=sampled.best_of_n),
            "first": Arm(about="the first program", run=sampled.first_of),
            "most-frequent": Arm(about="the program written most often", run=sampled.most_frequent),
            "pass-at-n": Arm(about="the best by the hidden tests", run=sampled.pass_at_n),
        },
        "mplsandbox.3": {
            "vote": Arm(about="the whole vote, with magika where the rest leaves doubt",
                        run=library_files.by_vote),
            "signs": Arm(about="the vote without magika", run=library_files.by_signs),
            "magika": Arm(about="magika alone", run=library_files.by_magika),
        },
        "mplsandbox.4": {
            name: Arm(about=f"level strict by {name}", run=partial(attacked.held, name))
            for name in ("bubblewrap", "unshare")
        },
    }[claim.id]  # fmt: skip
