"""The method's claims, and the runs that decide them: ``llmfw reproduce my_method``."""

from __future__ import annotations

from functools import partial

from llmfw import Arm, Claim, Workspace

PROMPTS = {"smoke": 4, "small": 16, "full": 64}

CLAIMS = (
    Claim(
        id="my_method.1",
        statement="The best of 8 sampled answers has a higher score than the first one.",
        paper="section 3.2 (best-of-n); the figures there are human preferences",
        metric="score",
        effect=0.01,
        unit="F1",
        arms=("one", "eight"),
        controls=("two",),
        seeds={"smoke": (1, 2), "small": (1, 2, 3), "full": (1, 2, 3, 4, 5)},
    ),
)


def mean_score(workspace: Workspace, *, samples: int) -> dict[str, float]:
    """Mean score of the best of ``samples`` answers of a tiny model, whose weights the seed draws."""
    import llmfw

    from .functional import best, score

    sums = [
        (f"{n} + {n + workspace.seed} =", str(2 * n + workspace.seed)) for n in range(PROMPTS[workspace.size])
    ]
    answers = llmfw.generate(
        [prompt for prompt, _ in sums],
        "model=tiny-llama",
        f"seed={workspace.seed}",
        samples=samples,
        temperature=1.0,
        max_new_tokens=8,
        seed=workspace.seed,
    ).completions
    total = 0.0
    for number, (_, expected) in enumerate(sums):
        texts = [answer.text for answer in answers[number * samples : (number + 1) * samples]]
        index = best(texts, expected)
        total += 0.0 if index is None else score(texts[index], expected)
    return {"score": total / len(sums)}


def arms(claim: Claim, seed: int, size: str) -> dict[str, Arm]:
    """The best of one, two and eight answers."""
    counts = {"one": 1, "two": 2, "eight": 8}
    return {
        name: Arm(about=f"best of {count}", run=partial(mean_score, samples=count))
        for name, count in counts.items()
    }
