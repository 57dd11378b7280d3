"""Flawed answers, annotations, filters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import llmfw
from llmfw import LlmfwError
from llmfw.core.generation import Rollouts, ScriptedPolicy
from llmfw.core.rounds import Ledger
from llmfw.plugins.critique_loop import builder
from llmfw.plugins.critique_loop.critics import scripted
from llmfw.plugins.critique_loop.grammar import parse
from llmfw.plugins.critique_loop.reference import kept_chance
from llmfw.plugins.critique_loop.steps import true_critique, wrong_steps


def built(roles: Any, folder: Path, actor: Any, annotator: Any = None, **settings: Any) -> Any:
    """(records, numbers)."""
    config = roles.Config(**{"form": "compact", **settings})
    with (ledger := Ledger(folder)).sampling(0):
        return builder.build(config, rollouts(roles, actor, ledger), roles.ROWS, annotator)


def rollouts(roles: Any, actor: Any, ledger: Any) -> Rollouts:
    return Rollouts(
        policy=actor, ledger=ledger, verifier=roles.service("Verifier"), index=-1, seed=7, temperature=0.7
    )


def test_oracle_8_errors_that_were_put_in_are_the_first_that_the_critique_finds(
    roles: Any, tmp_path: Path
) -> None:
    records, notes = built(roles, tmp_path, roles.drawn(0.4, 3), rg1=4, rg2=4, rg3=4)
    rows = {row["id"]: row for row in roles.ROWS}
    assert notes["build/flagged"] == 0.0 and notes["build/disagree"] == 0.0
    assert {one["origin"] for one in records} == {"RG1", "RG2", "RG3", "right"}
    for one in records:
        critique = parse(one["critique"], "compact")
        assert critique is not None and critique.first_error == one["first_error"]
        assert one["first_error"] == wrong_steps(rows[one["problem"]], one["response"])
        assert one["final_label"] == (one["origin"] == "right") and (
            one["origin"] != "RG3" or one["error_type"]
        )
        assert one["first_error"] is not None or one["origin"] != "RG3"


def test_oracle_8_an_annotator_that_finds_another_error_is_flagged_and_dropped(
    roles: Any, tmp_path: Path
) -> None:
    """It always blames the first step: RG3 errors at the first step alone survive."""

    def blame(prompts: Any) -> list[str]:
        return [
            f"{one[-2]['content'].splitlines()[0]} |no| so\nanswer |no|" if len(one) > 2 else "1+1=5"
            for one in prompts
        ]

    def answer(prompt: Any, prefix: str) -> str:
        return "Answer: 0"

    records, notes = built(
        roles, tmp_path, roles.Actor(answer), ScriptedPolicy(blame), rg1=0, rg2=0, rg3=1, right_share=0.0
    )
    told = notes["build/flagged"] + len(records)
    assert told == 6 and notes["build/flagged"] > 0 and records
    assert all(one["first_error"] == 0 for one in records)


def test_oracle_8_a_right_beginning_that_goes_wrong_is_flagged_unless_its_step_is_found(
    roles: Any, tmp_path: Path
) -> None:
    """RG2 goes on wrongly right behind the given one or two steps: the error is step 1 or 2, from 0."""
    actor = roles.Actor(lambda prompt, prefix: "7*7=50\nAnswer: 50")
    settings = {"rg1": 0, "rg2": 1, "rg3": 0, "right_share": 0.0}
    records, notes = built(roles, tmp_path / "truth", actor, **settings)
    assert notes["build/RG2"] == 6 == len(records) and notes["build/flagged"] == 0.0
    places = [one["response"].splitlines().index("7*7=50") for one in records]
    assert [one["first_error"] for one in records] == places and set(places) == {1, 2}

    def blame(prompts: Any) -> list[str]:  # always the second step
        lines = [one[-2]["content"].splitlines() for one in prompts]
        return [f"{two[0]} |ok|\n{two[1]} |no|\nanswer |no|" for two in lines]

    left, notes = built(roles, tmp_path / "blame", actor, ScriptedPolicy(blame), **settings)
    assert notes["build/flagged"] == places.count(2) and [one["first_error"] for one in left] == [1] * len(
        left
    )


def test_a_share_of_right_answers_is_learnt_too(roles: Any, tmp_path: Path) -> None:
    for share in (0.0, 0.5):
        records, _ = built(
            roles, tmp_path / str(share), roles.drawn(0.0), rg2=0, rg3=0, rg1=1, right_share=share
        )
        right = sum(one["origin"] == "right" for one in records)
        assert right == (6 if share else 0) and len(records) - right == 6


def test_an_annotator_that_disagrees_with_the_verifier_is_dropped_unless_that_is_off(
    roles: Any, tmp_path: Path
) -> None:
    content = ScriptedPolicy(lambda prompts: ["all of it |ok|\nanswer |ok|"] * len(prompts))
    settings = {"rg2": 0, "rg3": 0, "right_share": 0.0}
    with pytest.raises(LlmfwError, match=r"error\[NO-CRITIQUES\].*disagree"):
        built(roles, tmp_path / "hard", roles.drawn(0.0), content, **settings)
    records, notes = built(roles, tmp_path / "soft", roles.drawn(0.0), content, hard_filter=False, **settings)
    assert len(records) == 6 and notes["build/disagree"] == 0.0


def test_an_annotator_that_never_parses_is_told(roles: Any, tmp_path: Path) -> None:
    mumbling = ScriptedPolicy(lambda prompts: ["Hm."] * len(prompts))
    with pytest.raises(LlmfwError, match=r"error\[NO-CRITIQUES\].*unparsed.*critique_loop.form"):
        built(roles, tmp_path, roles.drawn(0.0), mumbling, rg2=0, rg3=0)


def test_an_actor_that_is_never_wrong_leaves_nothing_to_learn(roles: Any, tmp_path: Path) -> None:
    def answer(prompt: Any, prefix: str) -> str:
        return (
            roles.gold(prompt).removeprefix(prefix)
            if not prefix
            else f"Answer: {roles.row_of(prompt)['answer']}"
        )

    with pytest.raises(LlmfwError, match=r"error\[NO-FLAWS\].*give harder problems"):
        built(roles, tmp_path, roles.Actor(answer))


def test_a_records_name_depends_on_its_problem_alone(roles: Any, tmp_path: Path) -> None:
    """It draws the filter's random numbers. Two answers to each problem, in any order and company."""
    settings = {"rg1": 2, "rg2": 0, "rg3": 0, "right_share": 0.0}

    def named(rows: Any, folder: Path) -> dict[str, str]:
        config = roles.Config(form="compact", **settings)
        turn = {"n": 0}

        def answer(prompt: Any, prefix: str) -> str:
            turn["n"] += 1
            return roles.slipped(roles.row_of(prompt)) if turn["n"] % 2 else "1+1=3\nAnswer: 3"

        with (ledger := Ledger(folder)).sampling(0):
            given = rollouts(roles, roles.Actor(answer), ledger)
            records, _ = builder.build(config, given, rows, None)
        return {one["id"]: one["response"] for one in records}

    every = named(roles.ROWS, tmp_path / "all")
    assert len(every) == 12 and named(roles.ROWS[::-1], tmp_path / "back") == every
    assert named(roles.ROWS[3:4], tmp_path / "one").items() <= every.items()


def test_a_share_of_right_answers_above_nine_tenths_is_refused() -> None:
    with pytest.raises(LlmfwError, match=r"critique_loop.right_share.*0.9"):
        llmfw.plan("model=tiny-math", "critique_loop.right_share=0.95", plugins=["critique_loop"])


# --- the soft filter ----------------------------------------------------------------------------------------


def kept(roles: Any, folder: Path, q: float, least: int, n: int, copies: int, seed: int = 0) -> float:
    """Share of ``copies`` critiques that an actor whose refinements are right with chance q keeps."""
    records, _ = built(roles, folder / "made", roles.drawn(0.0), rg1=1, rg2=0, rg3=0, right_share=0.0)
    many = [{**records[at % 6], "id": f"c{at}"} for at in range(copies)]
    config = roles.Config(form="compact", filter_keep=least, filter_samples=n)
    with (ledger := Ledger(folder / "filter")).sampling(0):
        actor = roles.drawn(0.0, seed, refined=q)
        given = replace(rollouts(roles, actor, ledger), index=-2)
        try:
            left, _ = builder.filtered(config, given, many, roles.ROWS, "compact")
        except LlmfwError as error:
            if error.code != "NO-CRITIQUES":
                raise
            return 0.0
    return len(left) / copies


def test_oracle_7_a_bar_of_nothing_keeps_all_and_one_above_n_keeps_none(roles: Any, tmp_path: Path) -> None:
    assert kept(roles, tmp_path / "0", 0.0, 0, 4, 12) == 1.0
    assert kept(roles, tmp_path / "5", 1.0, 5, 4, 12) == 0.0
    assert kept(roles, tmp_path / "4", 1.0, 4, 4, 12) == 1.0


def test_oracle_7_what_is_kept_shrinks_as_the_bar_rises(roles: Any, tmp_path: Path) -> None:
    """The same draws at each bar, so the sets are nested."""
    shares = [kept(roles, tmp_path / str(least), 0.5, least, 4, 40) for least in range(6)]
    assert shares == sorted(shares, reverse=True) and shares[0] == 1.0 and shares[5] == 0.0
    assert shares[1] > shares[4]


def test_oracle_7_as_many_are_kept_as_the_binomial_says(roles: Any, tmp_path: Path) -> None:
    """P[Bin(4, 0.5) >= 2] = (6 + 4 + 1) / 16 = 0.6875; 400 critiques, three standard errors are 0.07."""
    assert kept_chance(4, 0.5, 2) == 0.6875
    assert kept(roles, tmp_path, 0.5, 2, 4, 400) == pytest.approx(0.6875, abs=0.07)


def test_another_model_can_write_the_wrong_steps_and_the_critiques(roles: Any, tmp_path: Path) -> None:
    rows = {row["prompt"]: row for row in roles.ROWS}
    oracle = scripted(true_critique, roles.ROWS, "compact")

    def sage(prompts: Any) -> list[str]:
        said = []
        for prompt in prompts:
            if prompt[-2]["role"] == "assistant":
                assert rows[prompt[0]["content"]]["answer"] in prompt[-1]["content"]  # it sees the reference
                said += [one.text for one in oracle.generate([prompt])]
            else:
                said.append("7*7=50\nand more")
        return said

    records, notes = built(
        roles, tmp_path, roles.Actor(lambda p, x: "Answer: 0"), ScriptedPolicy(sage), rg1=0, rg2=0, rg3=1
    )
    flawed = [one for one in records if one["origin"] == "RG3"]
    assert len(flawed) == 6 and notes["build/flagged"] == 0.0
    assert all(one["response"].splitlines()[one["first_error"]] == "7*7=50" for one in flawed)
