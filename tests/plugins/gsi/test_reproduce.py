"""What the plugin claims: arms that differ by what is sampled alone, at every size."""

from __future__ import annotations

from typing import Any

import pytest

from llmfw.plugins.gsi import reproduce

SIZES = ("smoke", "small", "full")


def settings(arm: Any) -> dict[str, Any]:
    """An arm's settings but for its plugin's name and what its method is."""
    method = ("samples", "min_correct", "max_resample", "strategy", "mask_prefix")
    own = {key.removeprefix(f"{arm.plugins[0]}."): value for key, value in arm.settings.items()}
    return {key: value for key, value in own.items() if key not in method}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("claim", reproduce.CLAIMS, ids=lambda claim: claim.id)
def test_arms_of_a_claim_differ_by_their_method_alone(claim: Any, size: str) -> None:
    found = reproduce.arms(claim, claim.seeds[size][0], size)
    assert set(found) == {*claim.arms, *claim.controls}
    told = [settings(arm) for arm in found.values()]
    assert all(one == told[0] for one in told)


def test_an_arm_of_a_name_is_the_same_in_every_claim() -> None:
    seen: dict[str, Any] = {}
    for claim in reproduce.CLAIMS:
        for name, arm in reproduce.arms(claim, 11, "small").items():
            assert seen.setdefault(name, arm.settings) == arm.settings


def test_what_help_cost_is_summed_over_the_rounds_but_the_one_on_solutions() -> None:
    """Two rounds with 8 + 12 answers under help and 2 + 3 problems rescued: 4 answers a problem."""
    shape = {"start": "gold", "level/5/coverage": 0.5, "sampled/samples": 100.0, "sampled/tokens": 900.0}
    rounds = [
        {"start": "base", "records": 9.0},
        {**shape, "records": 30.0, "level/5/share": 0.2, "guided/generations": 8.0, "guided/rescued": 2.0},
        {**shape, "records": 40.0, "level/5/share": 0.3, "guided/generations": 12.0, "guided/rescued": 3.0},
    ]
    found = reproduce.of_rounds(rounds, reproduce.SCALES["small"])
    assert found == {
        "hard_share": 0.3, "hard_coverage": 0.5, "answers": 200.0, "sampled_tokens": 1800.0, "kept": 70.0,
        "per_rescue": 4.0,
    }  # fmt: skip
