"""The experiment over generated chains: a tiny actor and critic, trained by the loop, and the same model
trained without a critic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import llmfw
from llmfw import Arm, Estimate, Workspace

if TYPE_CHECKING:  # it brings torch
    from llmfw import FitResult

_LOOP, _RFT = "critique_loop", "rft"


@dataclass(frozen=True)
class Scale:
    """How much is drawn and trained."""

    train: int
    held_out: int
    gold_epochs: int
    epochs: int
    rounds: int
    samples: int
    chains: int
    """K at test time, and samples of which distinct right answers are counted."""
    levels: str
    hard: tuple[int, ...]
    more: Mapping[str, Any]


SCALES: Mapping[str, Scale] = {
    "smoke": Scale(
        train=16, held_out=6, gold_epochs=1, epochs=1, rounds=1, samples=1, chains=2, levels="1-2", hard=(2,),
        more={
            "critique_loop.unparsed": "use", "critique_loop.filter_keep": 0, "critique_loop.critic_epochs": 1,
            "critique_loop.feedback_epochs": 1, "generation.max_new_tokens": 24,
        },
    ),
    "small": Scale(
        train=400, held_out=200, gold_epochs=24, epochs=4, rounds=2, samples=4, chains=8, levels="2-5",
        hard=(4, 5), more={},
    ),
    "full": Scale(
        train=1000, held_out=400, gold_epochs=16, epochs=4, rounds=3, samples=4, chains=8, levels="2-5",
        hard=(4, 5), more={},
    ),
}  # fmt: skip


_OF_LOOP: Mapping[str, Any] = {
    "critique_loop.test_time": 0,
    "critique_loop.form": "compact",
    "critique_loop.feedback_epochs": 8,
    "critique_loop.critic_start": "gold",
    "critique_loop.critic_epochs": 12,
    "critique_loop.rg1": 1,
    "critique_loop.right_share": 0.4,
    "critique_loop.filter_samples": 2,
    "critique_loop.filter_keep": 1,
}
"""What the overlay says, so that a change of the overlay doesn't change the experiment."""


def arms(seed: int, size: str) -> Mapping[str, Arm]:
    """Trainings: the loop, rft, rft with about as many training steps, rft with about as many generations.
    Measurements of the loop's model at test time: before and after refining, with each critic; gains.
    """
    scale = SCALES[size]
    matched = {"rft.samples": 4 * scale.samples, "rft.gold_epochs": 2 * scale.gold_epochs}
    return {
        "rft": _training(seed, scale, _RFT, "without a critic", {}),
        "rft-size": _training(
            seed, scale, _RFT, "without a critic, twice the passes in each round",
            {"trainer.epochs": 2 * scale.epochs},
        ),
        "rft-compute": _training(
            seed, scale, _RFT, "without a critic, four times the samples, twice the first training", matched
        ),
        "loop": _training(seed, scale, _LOOP, "critique in the loop", scale.more),
        "first": _measuring("answers at test time, before they are refined", seed, size, "trained", "first"),
        "refined": _measuring("refined with the trained critic", seed, size, "trained", "refined"),
        "silent": _measuring("refined without a word", seed, size, "silent", "refined"),
        "random": _measuring("refined with a critic that guesses", seed, size, "noisy", "refined"),
        "oracle": _measuring("refined with a critic that knows", seed, size, "oracle", "refined"),
        "gain-1": _measuring("one chain, less plain answers of its cost", seed, size, "trained", "gain-1"),
        "gain-k": _measuring("K chains, less plain answers of their cost", seed, size, "trained", "gain-k"),
    }  # fmt: skip


def settings_of(seed: int, scale: Scale) -> dict[str, Any]:
    """Model and data, the same in each arm."""
    return {
        "model": "tiny-math",
        "data": "chain-arithmetic",
        "data.options.levels": scale.levels,
        "data.options.largest": 10,
        "data.options.train": scale.train,
        "data.options.validation": scale.held_out,
        "data.options.seed": seed,
        "generation.max_new_tokens": 90,
        "generation.batch_size": 64,
        "trainer.threads": 1,  # so small a model is no faster with more
    }


def _training(seed: int, scale: Scale, plugin: str, about: str, more: Mapping[str, Any]) -> Arm:
    given = {
        **settings_of(seed, scale),
        "optimizer.lr": 4e-3,
        "optimizer.schedule": "cosine",
        "optimizer.warmup": 0.05,
        "trainer.epochs": scale.epochs,
        "trainer.micro_batch": 16,
        "checkpoint.every": 0,
        f"{plugin}.start": "gold",
        f"{plugin}.gold_epochs": scale.gold_epochs,
        f"{plugin}.keep_gold": True,
        f"{plugin}.rounds": scale.rounds,
        f"{plugin}.samples": scale.samples,
        f"{plugin}.problems": 0,
        **(_OF_LOOP if plugin == _LOOP else {}),
        **more,
    }
    return Arm(
        about=about,
        plugins=(plugin,),
        settings=given,
        values=partial(_solved, seed, scale, plugin),
        own_data=True,
    )


def _measuring(about: str, seed: int, size: str, critic: str, what: str) -> Arm:
    return Arm(about=about, run=partial(_at_test_time, seed, size, critic, what), after="loop", own_data=True)


def _solved(seed: int, scale: Scale, plugin: str, result: FitResult) -> dict[str, float]:
    """Held-out problems solved greedily, of hard levels and of all; distinct right answers of K samples."""
    words = {
        **settings_of(seed, scale),
        "model": result.final,
        **({"critique_loop.critic": "none"} if plugin == _LOOP else {}),
        f"{plugin}.problems": scale.held_out,
        f"{plugin}.vote": scale.chains,
        "seed": seed,
    }
    found = llmfw.evaluate(*_words(words), plugins=(plugin,)).metrics
    return {
        "hard_accuracy": mean(found, [f"solved/level/{level}" for level in scale.hard]),
        "accuracy": _number(found["solved"]),
        "distinct": _number(found["solved/distinct"]),
        "pass": _number(found[f"solved/pass@{scale.chains}"]),
        "maj": _number(found[f"solved/maj@{scale.chains}"]),
        "generated": sum(float(line.get("sampled/samples", 0.0)) for line in result.by_round),
        "training_tokens": float(result.cost.tokens or 0.0),
    }


def _at_test_time(seed: int, size: str, critic: str, what: str, where: Workspace) -> dict[str, float]:
    """What a critic makes of the loop's last model."""
    scale = SCALES[size]
    assert where.starts_from is not None
    found = measured(where.starts_from, seed, size, critic)
    levels = [f"critiqued/level/{level}" for level in scale.hard]
    if what.startswith("gain"):
        k = 1 if what == "gain-1" else scale.chains
        return {
            "gain": _number(found[f"critiqued/gain/maj@{k}"]),
            "maj": _number(found[f"critiqued/parallel/maj@{k}"]),
            "sequential_maj": _number(found[f"critiqued/sequential/maj@{k}"]),
            "tokens": _number(found[f"critiqued/parallel/tokens@{k}"]),
        }
    return {
        "hard_accuracy": mean(found, [f"{level}/{what}" for level in levels]),
        "accuracy": _number(found[f"critiqued/{what}"]),
        **{
            name: _number(found[f"critiqued/{name}"])
            for name in ("i_to_c", "c_to_i", "acc_dis", "leak", "unparsed", "tokens")
        },
    }


@cache
def measured(final: Path, seed: int, size: str, critic: str) -> Mapping[str, float | Estimate]:
    """The evaluations of a trained actor with a critic; made once a process, as several arms read them.

    ``final`` is the weights' folder of the last round of a run; the critic's round is the third.
    """
    scale = SCALES[size]
    words: dict[str, Any] = {
        **settings_of(seed, scale),
        "model": final,
        **_OF_LOOP,
        "critique_loop.critic": critic,
        "critique_loop.problems": scale.held_out,
        "critique_loop.test_time": scale.chains if critic == "trained" else 1,
        "seed": seed,
    }
    if critic == "trained":
        words["models.critic"] = final.parent.parent / "002" / "final"
    if critic == "noisy":
        words |= {f"critique_loop.noise_{name}": 0.5 for name in ("miss", "alarm")}
        words["critique_loop.noise_place"] = 1.0
    return llmfw.evaluate(*_words({**words, **scale.more}), plugins=(_LOOP,)).metrics


def mean(found: Mapping[str, float | Estimate], names: Sequence[str]) -> float:
    """The mean of estimates, weighed by the problems behind them."""
    estimates = [one for name in names if isinstance(one := found[name], Estimate)]
    return sum(one.value * one.n for one in estimates) / max(1, sum(one.n for one in estimates))


def _number(value: float | Estimate) -> float:
    return value.value if isinstance(value, Estimate) else value


def _words(settings: Mapping[str, Any]) -> list[str]:
    return [
        f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in settings.items()
    ]
