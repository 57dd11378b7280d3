"""What AgentRefine claims, and the experiment that decides it; the README describes it.

A tiny model first learns to play from the planner's trajectories without errors, with words of actions that
vary. From its weights four arms train trajectories with errors in the same houses, and read as many tokens:
an arm whose text is shorter has more steps. Then all play the same episodes in houses that none trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from llmfw import Arm, Claim

from .dialogue import masked
from .functional import ARMS
from .rows import ScriptedWorld, options_of

Seeds = Mapping[Literal["smoke", "small", "full"], tuple[int, ...]]
SEEDS: Seeds = {"smoke": (1,), "small": (11, 12, 13), "full": (11, 12, 13, 14, 15)}
BASE = "base"
ALL = ("no_refinement_loss", "no_refinement_data", "erroneous_loss")


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is trained and played."""

    base_steps: int
    """Optimizer steps of the model that the arms begin with."""
    base_batch: int
    """Dialogues of such a step, each read once."""
    steps: int
    """Optimizer steps of arm full; another has as many more as its dialogues are shorter."""
    batch: int
    """Dialogues of a step."""
    episodes: int
    max_turns: int
    tokens: int
    """Longest reply."""
    layers: int = 4
    width: int = 96


SCALES: Mapping[str, Scale] = {
    "smoke": Scale(
        base_steps=2, base_batch=1, steps=2, batch=1, episodes=1, max_turns=1, tokens=8, layers=2, width=32
    ),
    "small": Scale(base_steps=2000, base_batch=4, steps=400, batch=2, episodes=20, max_turns=10, tokens=96),
    "full": Scale(
        base_steps=20_000, base_batch=8, steps=4000, batch=8, episodes=100, max_turns=15, tokens=96,
        layers=6, width=192,
    ),
}  # fmt: skip
WORLD: Mapping[str, Any] = {
    "names": "fixed", "rooms": 2, "boxes": 2, "items": 1, "treats": 0.0, "shut": 0.25, "choice": 3,
}  # fmt: skip
"""Houses of the plugin's overlay, written out: claims don't change with it."""
_COUNTED = 64
"""Trajectories by which the arms' lengths are compared."""


def more(
    number: int, statement: str, metric: str, *, over: str, effect: float, paper: str, **how: Any
) -> Claim:
    """That the method has more of a metric than an arm (or less, by ``direction``)."""
    return Claim(
        id=f"agentrefine.{number}", statement=statement, paper=paper, metric=metric, effect=effect,
        arms=(over, "full"), controls=tuple(arm for arm in ALL if arm != over), seeds=SEEDS, **how,
    )  # fmt: skip


_TABLE = (
    "ablation, LLaMA-3-8B, success on AlfWorld / BabyAI / SciWorld / PDDL / Jericho: full 48.5 / 37.1 / "
    "7.7 / 21.7 / 5.0, "
)
CLAIMS = (
    more(
        1,
        "In houses that weren't trained on, with words or in forms that weren't (all episodes of the suites "
        "held_out, perturbed/P1, P2, P3, P4 and P5), the refined model succeeds more often than one that is "
        "trained on its errors.",
        "episodes/unseen/success",
        over="erroneous_loss",
        # one episode in twenty
        effect=0.05,
        unit="share of episodes",
        paper=_TABLE + "with erroneous loss 29.9 / 23.2 / 3.3 / 8.3 / 5.0",
    ),
    more(
        2,
        "Right after a forced mistake the refined model repeats it less often than one that has never seen "
        "an error.",
        "episodes/forced/first_repeat",
        over="no_refinement_data",
        effect=0.05,
        unit="share of episodes",
        direction="lower",
        paper="described in words; no figure was readable here",
    ),
    more(
        3,
        "The refined model's thoughts differ more from each other, in the episodes of agentrefine.1, than "
        "those of a model that has never seen an error.",
        "episodes/unseen/diversity",
        over="no_refinement_data",
        # one thought in twenty
        effect=0.05,
        unit="different thoughts / thoughts",
        paper="diversity of thoughts is shown in a figure; its measure isn't known here",
    ),
    more(
        4,
        "In the episodes of agentrefine.1 the refined model succeeds more often than one that has never seen "
        "an error.",
        "episodes/unseen/success",
        over="no_refinement_data",
        effect=0.05,
        unit="share of episodes",
        paper=_TABLE + "without refinement data 49.3 / 30.4 / 5.5 / 11.7 / 0",
    ),
    more(
        5,
        "The action after a forced mistake is right more often than that of a model that has never seen an "
        "error.",
        "episodes/forced/first_right",
        over="no_refinement_data",
        effect=0.05,
        unit="share of episodes",
        paper="none",
    ),
    more(
        6,
        "In houses that weren't trained on, with the trained words, fewer of the refined model's replies "
        "are no right action than of one that is trained on its errors.",
        "episodes/held_in/wrong",
        over="erroneous_loss",
        effect=0.05,
        unit="share of replies",
        direction="lower",
        paper="none",
    ),
    Claim(
        id="agentrefine.7",
        statement="On AgentBoard's tasks the refined LLaMA-3-8B and Mistral-7B generalise better to held-out "
        "environments than models tuned on AgentGym or Agent-FLAN.",
        paper="AgentRefine-8B, success: 44.8 AlfWorld, 37.5 BabyAI, 14.4 SciWorld, 16.6 PDDL, 10.0 Jericho",
        metric="success",
        not_tested="models, trajectories and most of the environments are out of reach of two cores",
    ),
)


def arms(claim: Claim, seed: int, size: str) -> Mapping[str, Arm]:
    """The four arms and the model that they begin with; all claims look at the same runs."""
    scale = SCALES[size]
    base = Arm(
        about="the model before, from trajectories without errors",
        plugins=("agentrefine",),
        settings={
            **settings(scale, seed),
            **_model(scale),
            "data.options.names": "varied",
            "data.options.error_rate": 0.0,
            "data.options.least_errors": 0,
            "data.options.train": scale.base_steps * scale.base_batch,
            "trainer.max_steps": scale.base_steps,
            "trainer.micro_batch": scale.base_batch,
            "agentrefine.environments": '""',  # no claim looks at how it plays
        },
        own_data=True,
    )
    steps = {name: round(scale.steps * length("full") / length(name)) for name in ARMS}
    return {
        BASE: base,
        **{
            name: Arm(
                about=f"arm {name}",
                plugins=("agentrefine",),
                settings={
                    **settings(scale, seed),
                    "agentrefine.arm": name,
                    "data.options.train": steps[name] * scale.batch,
                    "trainer.max_steps": steps[name],
                    "trainer.micro_batch": scale.batch,
                    "optimizer.lr": 1e-3,
                },
                after=BASE,
                own_data=True,
            )
            for name in ARMS
        },
    }


def settings(scale: Scale, seed: int) -> dict[str, Any]:
    """What all trainings have in common; a seed has houses of its own."""
    return {
        **{f"data.options.{key}": value for key, value in WORLD.items()},
        "data.options.seed": seed,
        "optimizer.lr": 3e-3,
        "trainer.epochs": None,
        "trainer.threads": 1,  # so small a model is hardly faster with more
        "checkpoint.every": 0,
        "generation.max_new_tokens": scale.tokens,
        "agentrefine.episodes": scale.episodes,
        "agentrefine.max_turns": scale.max_turns,
    }


def _model(scale: Scale) -> dict[str, Any]:
    """The overlay's model in the scale's size."""
    return {
        "model.name": "tiny-lfm2",
        "model.config.hidden_size": scale.width,
        "model.config.intermediate_size": 8 * scale.width // 3,
        "model.config.num_hidden_layers": scale.layers,
        "model.config.layer_types": ["conv", "full_attention"] * (scale.layers // 2),
    }


@cache
def length(arm: str) -> float:
    """Characters per dialogue that an arm reads, the turns' marks among them."""
    options = options_of({**WORLD, "train": _COUNTED})
    rows = [masked(row, arm) for row in ScriptedWorld(options).rows("train")]
    told = [message for row in rows if row is not None for message in row["messages"]]
    return sum(len(message["content"]) + len(message["role"]) + 4 for message in told) / _COUNTED
