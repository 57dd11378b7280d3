"""What the plugin claims: arms differ by the loss alone, share their data, and run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import llmfw
from llmfw.testing import plugin_module

reproduce = plugin_module("ld_dpo", "reproduce")
made_pairs = plugin_module("ld_dpo", "made_pairs")
real_pairs = plugin_module("ld_dpo", "real_pairs")
TESTED = [claim for claim in reproduce.CLAIMS if not claim.not_tested]
NAMES = {"dpo": "dpo", "ld_dpo": "ld_dpo"}


def arms(claim: Any, seed: int = 1, size: str = "small") -> dict[str, Any]:
    return dict(reproduce.arms(claim, seed, size))


def test_the_first_three_claims_are_those_of_length_accuracy_and_correlation() -> None:
    first = {claim.id: (claim.metric, claim.direction) for claim in reproduce.CLAIMS[:3]}
    assert first == {
        "ld_dpo.1": ("answer_tokens", "lower"),
        "ld_dpo.2": ("validation/rewards/accuracies/rejected_longer", "higher"),
        "ld_dpo.3": ("correlation_size", "lower"),
    }
    assert [claim.id for claim in reproduce.CLAIMS] == [
        f"ld_dpo.{n + 1}" for n in range(len(reproduce.CLAIMS))
    ]


def test_the_made_task_is_run_with_both_modes_all_alphas_and_the_other_losses() -> None:
    second = reproduce.CLAIMS[1]
    wanted = {
        f"{mode}-{alpha}" for mode in ("ld_dpo", "policy_only") for alpha in ("0", "0.25", "0.5", "0.75", "1")
    }
    assert {*second.arms, *second.controls} == {*wanted, "dpo", "r_dpo", "sampo", "simpo"}
    assert len(second.seeds["small"]) == 5 and len(reproduce.CLAIMS[0].seeds["small"]) == 3


@pytest.mark.parametrize("size", ["smoke", "small", "full"])
@pytest.mark.parametrize("claim", TESTED, ids=lambda claim: claim.id)
def test_arms_of_a_claim_differ_by_their_loss_alone(claim: Any, size: str) -> None:
    """Without the loss's own settings, every arm but the first training says the same."""
    found = arms(claim, size=size)
    assert {*claim.arms, *claim.controls} <= set(found)
    trained = {
        name: found[name] for name in (*claim.arms, *claim.controls) if name not in ("sft", "real-untrained")
    }
    rest = [
        {k: v for k, v in arm.settings.items() if k.partition(".")[0] not in NAMES}
        for arm in trained.values()
    ]
    assert all(one == rest[0] for one in rest)
    for name in ("beta", "answers"):
        values = {
            arm.settings.get(f"{arm.plugins[0]}.{name}") for key, arm in trained.items() if key != "simpo"
        }
        assert len(values) == 1
    assert len({arm.after for arm in trained.values()}) == 1


def test_the_first_data_of_a_seed_are_shared_and_another_seeds_differ(tmp_path: Path) -> None:
    one = arms(reproduce.CLAIMS[1], 1, "smoke")
    said = []
    for place, arm in (
        ("a", one["dpo"]),
        ("b", one["ld_dpo-0.5"]),
        ("c", arms(reproduce.CLAIMS[1], 2, "smoke")["dpo"]),
    ):
        folder = tmp_path / place
        folder.mkdir()
        said.append(Path(arm.prepare(folder)["data"]).read_text())
    assert said[0] == said[1] != said[2]


def test_pairs_are_held_out_from_what_the_model_first_learned(tmp_path: Path) -> None:
    found = arms(reproduce.CLAIMS[1], 1, "smoke")
    texts = Path(found["sft"].prepare(tmp_path)["data"]).read_text()
    held_out = made_pairs.synthetic.rows(1, made_pairs.SCALES["smoke"].sizes)["held_out"]
    assert held_out and not any(row["prompt"] in texts for row in held_out)


@pytest.mark.parametrize("size", ["small", "full"])
def test_the_real_model_is_the_overlays_and_its_pairs_are_those_of_the_size(size: str) -> None:
    scale = real_pairs.SCALES[size]
    assert scale.lengths == {"small": "chosen_longer", "full": "natural"}[size]
    found = arms(reproduce.CLAIMS[0], size=size)["real-dpo"]
    assert "model" not in found.settings and found.settings["trainer.max_steps"] == scale.steps


def test_a_training_over_made_pairs_gives_every_value_that_is_claimed(tmp_path: Path) -> None:
    found = arms(reproduce.CLAIMS[1], 1, "smoke")
    base = fit(found["sft"], tmp_path / "sft")
    learned = found["sft"].values(base)
    assert 1 <= learned["sampled_tokens"] <= made_pairs.LONGEST and 0 <= learned["sampled_well_formed"] <= 1
    result = fit(found["ld_dpo-0.5"], tmp_path / "ld", f"model={base.final}")
    values = found["ld_dpo-0.5"].values(result)
    assert values["correlation_size"] == abs(result.validation["length/margin_correlation"])
    assert values["sampled_tokens"] >= 1
    assert {"rewards/accuracies", "rewards/accuracies/rejected_longer"} <= set(result.validation)


def test_a_training_over_real_pairs_gives_one_length_a_prompt(tmp_path: Path) -> None:
    arm = arms(reproduce.CLAIMS[0], 1, "smoke")["real-ld_dpo-0.5"]
    values = arm.values(fit(arm, tmp_path / "run"))
    assert len(values["answer_tokens"]) == len(values["cut_off"]) == real_pairs.SCALES["smoke"].prompts
    assert all(1 <= tokens <= real_pairs.SCALES["smoke"].longest for tokens in values["answer_tokens"])


@pytest.mark.slow
def test_real_pairs_can_be_prepared_again_after_a_kill(tmp_path: Path) -> None:
    prepare = arms(reproduce.CLAIMS[0], 1, "small")["real-dpo"].prepare
    first = prepare(tmp_path)
    before = {name: Path(file).read_bytes() for name, file in first.items()}
    (tmp_path / "train.jsonl").write_text("half")
    assert prepare(tmp_path) == first
    assert {name: Path(file).read_bytes() for name, file in first.items()} == before


def fit(arm: Any, folder: Path, *words: str) -> Any:
    shared = folder.parent / "shared"
    shared.mkdir(exist_ok=True)
    settings = {**arm.settings, **arm.prepare(shared)}
    said = [f"{key}={'null' if value is None else value}" for key, value in settings.items()]
    return llmfw.fit(
        *said, *words, f"run.dir={folder}", "seed=1", "trainer.progress=false", "tracking.mlflow=false",
        plugins=arm.plugins,
    )  # fmt: skip
