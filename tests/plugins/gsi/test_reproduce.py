"""What the plugin claims: arms that differ by what is sampled alone, at every size."""

from __future__ import annotations

from typing import Any

import pytest

from llmfw import LlmfwError
from llmfw.plugins.gsi import reproduce

SIZES = ("smoke", "small", "full")


def settings(arm: Any) -> dict[str, Any]:
    """An arm's settings but for its plugin's name and what its method is."""
    method = ("samples", "min_correct", "max_resample", "strategy", "mask_prefix", "keep_at_most")
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


@pytest.mark.parametrize("size", SIZES)
def test_with_help_and_without_it_a_problem_is_asked_as_often_at_the_most(size: str) -> None:
    (claim,) = [claim for claim in reproduce.CLAIMS if claim.id == "gsi.2"]
    found = reproduce.arms(claim, 1, size)
    plain, helped = (found[name].settings for name in claim.arms)
    changed = {key for key in {*plain, *helped} if plain.get(key) != helped.get(key)}
    assert changed == {"gsi.strategy"} and plain["gsi.strategy"] == "none"
    assert found["brute-force"].settings["gsi.max_resample"] > plain["gsi.max_resample"]


@pytest.mark.parametrize("size", SIZES)
def test_arms_of_equal_size_train_as_many_answers_and_differ_by_their_help_alone(size: str) -> None:
    (claim,) = [claim for claim in reproduce.CLAIMS if claim.id == "gsi.5"]
    told = {name: arm.settings for name, arm in reproduce.arms(claim, 1, size).items()}
    assert {one["gsi.keep_at_most"] for one in told.values()} == {reproduce.SIZED[size]}
    assert told["vanilla-sized"]["gsi.min_correct"] == 0
    help_ = ("gsi.strategy", "gsi.min_correct")
    rest = [{key: value for key, value in one.items() if key not in help_} for one in told.values()]
    assert all(one == rest[0] for one in rest)
    assert [told[name].get("gsi.strategy") for name in (*claim.arms, *claim.controls)] == [
        None, None, "answer", "rationale"
    ]  # fmt: skip


def test_sets_that_should_be_equally_large_and_are_not_fail() -> None:
    rounds: list[Any] = [
        {"round": 0.0, "start": "base", "records": 400.0},
        {"round": 1.0, "start": "gold", "records": 8.0},
        {"round": 2.0, "start": "gold", "records": 7.0},
    ]
    reproduce.expect_size(rounds[:2], 8)
    with pytest.raises(LlmfwError, match=r"GSI-SIZE\] round 2 trains 7 answers where 8 are compared"):
        reproduce.expect_size(rounds, 8)


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
