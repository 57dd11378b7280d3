"""The task of the rewards' experiment: mistakes have the verdicts that they are named after."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest

from llmfw.testing import plugin_module

rewarded = plugin_module("mplsandbox", "experiments.rewarded")
reproduce = plugin_module("mplsandbox", "reproduce")
Sandbox = plugin_module("mplsandbox", "executor").Sandbox

CHAIN = (("+", 5), ("*", 3), ("-", 2))


def test_a_program_is_its_chains_steps() -> None:
    """(2 + 5) * 3 - 2 = 19."""
    assert rewarded.prompt(CHAIN) == "n +5 *3 -2"
    assert rewarded.program(CHAIN) == "n=int(input())\nn=n+5\nn=n*3\nn=n-2\nprint(n)"
    assert rewarded.result(CHAIN, 2) == 19
    assert rewarded.problem(CHAIN)["tests"][0] == {"stdin": "2\n", "expected": "19"}


@pytest.mark.parametrize(("mistake", "verdict"), [("", "OK"), ("CE", "CE"), ("RE", "RE"), ("WA", "WA")])
def test_a_mistake_gets_the_verdict_that_it_is_named_after(sandbox: Any, mistake: str, verdict: str) -> None:
    chains = rewarded.chains(3, 12)
    for number, chain in enumerate(chains):
        code = rewarded.program(chain, mistake, Random(number))
        found = rewarded._verdicts(chain, [code])
        assert found == {verdict: 1}, code


def test_texts_have_the_shares_of_mistakes_and_no_held_out_chain() -> None:
    """Of 3,200 texts 40% don't compile; the standard error of a share is below 0.009."""
    scale = rewarded.SCALES["small"]
    texts = rewarded.texts(11, scale)
    right = Counter(
        row["completion"] == rewarded.program(
            tuple((word[0], int(word[1:])) for word in row["prompt"].split()[1:])
        )
        for row in texts
    )  # fmt: skip
    assert right[True] / len(texts) == pytest.approx(0.1, abs=0.03)
    held_out = {rewarded.prompt(chain) for chain in rewarded.chains(11, scale.held_out)}
    assert not held_out & {row["prompt"] for row in texts}


def test_held_out_problems_are_none_of_those_that_are_rewarded() -> None:
    scale = rewarded.SCALES["small"]
    asked = rewarded.chains(11, scale.held_out + scale.problems)
    assert asked[: scale.held_out] == rewarded.chains(11, scale.held_out)
    assert len(set(asked)) == len(asked)


def test_the_arms_differ_by_the_shape_of_the_reward_alone() -> None:
    arms = rewarded.arms(11, "small")
    levels, binary = arms["levels"].settings, arms["binary"].settings
    assert {**levels, "mplsandbox.reward": ""} == {**binary, "mplsandbox.reward": ""}
    claims = [claim for claim in reproduce.CLAIMS if claim.id in ("mplsandbox.2", "mplsandbox.5")]
    assert all({*claim.arms, *claim.controls} <= set(arms) for claim in claims) and len(claims) == 2
