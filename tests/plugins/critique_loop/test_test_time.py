"""Answer, critique, refinement at test time, with roles whose answers are known."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import pytest

from llmfw.core.data import answer_of
from llmfw.core.generation import ScriptedPolicy
from llmfw.core.models import byte_tokenizer
from llmfw.plugins.critique_loop import measure
from llmfw.plugins.critique_loop.chains import Course, Roles, Said, courses
from llmfw.plugins.critique_loop.critics import critic_for
from llmfw.plugins.critique_loop.evaluations import critiqued, evaluations, scaling


def roles_of(
    roles: Any, actor: Any, temperature: float = 0.7, tokenizer: Any = None, **settings: Any
) -> Roles:
    config = roles.Config(**{"form": "compact", "critic": "oracle", "test_time": 1, **settings})
    return Roles(
        actor=actor,
        critic=critic_for(config, roles.run_of(Path()), roles.ROWS, tokenizer),
        judge=roles.service("Verifier"),
        form="compact",
        config=config,
        temperature=temperature,
        seed=7,
    )


def said(right: bool, answer: str | None = None, tokens: int = 1) -> Said:
    return Said("", answer if answer is not None else ("1" if right else "2"), right, tokens)


def test_oracle_1_a_perfect_critic_and_an_actor_that_follows_it_end_at_one(roles: Any) -> None:
    """Half of the problems are right at first: all others become right, none is lost."""
    known = {row["prompt"] for row in roles.ROWS[:3]}
    actor = roles.follower(lambda row: answer_of(row) if row["prompt"] in known else roles.slipped(row))
    found = measure.before_and_after(
        [group[0] for group in courses(roles_of(roles, actor), roles.ROWS, 1, 1, "x")]
    )
    assert found["critiqued/first"].value == 0.5 and found["critiqued/refined"].value == 1.0  # type: ignore[union-attr]
    assert found["critiqued/c_to_i"] == 0.0 and found["critiqued/i_to_c"] == 0.5 == found["critiqued/delta"]
    assert found["critiqued/acc_dis"] == 1.0 and found["critiqued/unparsed"] == 0.0
    assert found["critiqued/first_error_hit"].value == 1.0  # type: ignore[union-attr]
    assert found["critiqued/level/3/refined"].value == 1.0  # type: ignore[union-attr]


def copier(roles: Any, seed: int) -> Any:
    first = roles.drawn(0.5, seed)
    return roles.Actor(
        lambda prompt, prefix: (
            str(prompt[-2]["content"]) if roles.is_refinement(prompt) else first.answer(prompt, prefix)
        )
    )


def test_oracle_2_a_silent_critic_and_an_actor_that_copies_change_nothing(roles: Any) -> None:
    """Accuracy and Maj@K of K = 4 chains are those of their first answers."""
    groups = courses(roles_of(roles, copier(roles, 3), critic="silent"), roles.ROWS, 4, 1, "x")
    for k in (1, 2, 4):
        for group in groups:
            first, last = [one.said[0] for one in group[:k]], [one.said[-1] for one in group[:k]]
            assert [one.text for one in first] == [one.text for one in last]
            assert measure.voted(first) == measure.voted(last)
    flat = [one for group in groups for one in group]
    assert {one.said[0].right for one in flat} == {True, False}


def test_oracle_3_what_refining_changes_adds_up_on_a_random_actor(roles: Any) -> None:
    for seed in range(5):
        actor = roles.drawn(0.5, seed, refined=0.6)
        flat = [one for group in courses(roles_of(roles, actor), roles.ROWS, 8, 1, "x") for one in group]
        found = measure.before_and_after(flat)
        delta = found["critiqued/refined"].value - found["critiqued/first"].value  # type: ignore[union-attr]
        assert delta == pytest.approx(found["critiqued/i_to_c"] - found["critiqued/c_to_i"])  # type: ignore[operator]
        assert found["critiqued/i_to_c"] and found["critiqued/c_to_i"]


def test_oracle_6_one_chain_has_one_accuracy_and_more_pass_no_less(roles: Any) -> None:
    """Maj@1 = pass@1 = accuracy; pass@K of nested chains never falls; K equal answers vote as one."""
    draw = random.Random(0)
    for _ in range(50):
        groups = [
            [Course({}, [said(draw.random() < 0.5), said(draw.random() < 0.5)]) for _ in range(8)]
            for _ in range(5)
        ]
        lines = measure.side_by_side(groups, 8)
        assert [line["k"] for line in lines] == [1, 2, 4, 8]
        assert lines[0]["maj"] == lines[0]["pass"] == lines[0]["accuracy"]
        assert all(one["pass"] <= two["pass"] for one, two in itertools.pairwise(lines))
    equal = [[Course({}, [said(right), said(right)]) for _ in range(8)] for right in (True, False, True)]
    assert {line["maj"] for line in measure.side_by_side(equal, 8)} == {2 / 3}


def test_a_vote_leaves_out_what_can_not_be_read_and_of_equals_takes_the_earliest() -> None:
    unread = Said("", None, False, 1)
    assert measure.voted([unread, unread, said(True)])
    assert not measure.voted([said(False), said(True)]) and measure.voted([said(True), said(False)])
    assert not measure.voted([unread])


def test_tokens_of_all_calls_are_counted() -> None:
    """Two chains of 10 for the answer and 7 for critique and refinement: 17 and 34. One chain of three
    rounds: 10 + 7, + 7, + 7.
    """
    chain = Course({}, [said(True, tokens=10), *(said(True, tokens=7) for _ in range(3))])
    short = Course({}, chain.said[:2])
    assert [line["tokens"] for line in measure.side_by_side([[short, short]], 2)] == [17, 34]
    deep = measure.one_behind_another([chain], 3, only_final=False)
    assert [line["tokens"] for line in deep] == [17, 24, 31]


def test_what_a_scripted_critic_says_costs_the_tokens_of_its_words(roles: Any) -> None:
    """Each answer is `1+2=3, 3*3=10 ...`; its critique `1+2=3 |ok|, 3*3=10 |no| 3*3=9, answer |no|`: a token
    a byte, 10 + 1 + 17 + 1 + 11 = 40 for the first problem. The actor's own words count for nothing here.
    """
    for critic, expected in (("oracle", 40), ("silent", 0)):
        given = roles_of(roles, roles.follower(), tokenizer=byte_tokenizer(), critic=critic)
        ((course,),) = courses(given, roles.ROWS[:1], 1, 1, "x")
        assert course.tokens == expected


def test_successive_rounds_vote_or_the_last_one_counts() -> None:
    """First answer wrong, refinements right, right, wrong: the vote is right at 3, the last one isn't."""
    chain = Course({}, [said(False), said(True), said(True), said(False)])
    assert measure.one_behind_another([chain], 3, only_final=False)[-1]["maj"] == 1.0
    last = measure.one_behind_another([chain], 3, only_final=True)[-1]
    assert last["maj"] == 0.0 == last["pass"] and last["tokens"] == 4


def test_a_gain_is_measured_at_equal_tokens() -> None:
    """Plain: 0.4 at 10 tokens, 0.6 at 20. A chain of 15 tokens at 0.7 gains 0.2; one of 40 gains 0.1."""
    lines = [
        {"mode": "plain", "k": 1, "tokens": 10.0, "maj": 0.4},
        {"mode": "plain", "k": 2, "tokens": 20.0, "maj": 0.6},
        {"mode": "parallel", "k": 1, "tokens": 15.0, "maj": 0.7},
        {"mode": "parallel", "k": 2, "tokens": 40.0, "maj": 0.7},
    ]
    assert measure.gain(lines, 1) == pytest.approx(0.2) and measure.gain(lines, 2) == pytest.approx(0.1)
    assert measure.between([(10.0, 0.4), (20.0, 0.6)], 5.0) == 0.4


@pytest.mark.parametrize(("refine", "expected"), [("all", 6), ("flagged", 3), ("wrong", 3)])
def test_which_answers_are_refined_is_a_setting(roles: Any, refine: str, expected: int) -> None:
    known = {row["prompt"] for row in roles.ROWS[:3]}
    actor = roles.follower(lambda row: answer_of(row) if row["prompt"] in known else roles.slipped(row))
    courses(roles_of(roles, actor, refine=refine), roles.ROWS, 1, 1, "x")
    assert sum(roles.is_refinement(prompt) for prompt in actor.asked) == expected


def test_chains_rounds_and_plain_answers_are_measured_together(roles: Any) -> None:
    found, lines = scaling(roles_of(roles, roles.drawn(0.4, 1, refined=0.8), test_time=4), roles.ROWS)
    assert {line["mode"] for line in lines} == {"parallel", "sequential", "plain"}
    for k in (1, 2, 4):
        assert {
            f"critiqued/parallel/maj@{k}",
            f"critiqued/sequential/tokens@{k}",
            f"critiqued/gain/maj@{k}",
        } <= set(found)
    assert "critiqued/plain/pass@16" in found


def test_evaluations_are_off_unless_they_are_asked_for(roles: Any, tmp_path: Path) -> None:
    run = roles.run_of(tmp_path)

    def names(**settings: Any) -> list[str]:
        return [one.name for one in evaluations(roles.Config(**settings), run)]

    assert names() == ["solved", "critic"] and names(test_time=1) == ["solved", "critiqued", "critic"]
    assert names(critic="none", test_time=4) == ["solved"] and names(problems=0) == []
    assert names(critic="oracle", test_time=1) == ["solved", "critiqued"]


def test_nothing_is_measured_before_the_critic_is_there(roles: Any, tmp_path: Path) -> None:
    config = roles.Config(test_time=1)
    found = critiqued(config, roles.run_of(tmp_path), roles.follower(), roles.service)
    assert not found.metrics
    there = roles.run_of(tmp_path, critic=ScriptedPolicy(lambda prompts: ["?"] * len(prompts)))
    found = critiqued(config, there, roles.drawn(0.5), roles.service)
    assert found.metrics["critiqued/unparsed"] == 1.0 and len(found.tables["critiqued"]) == 6
    assert {line["refine"] for line in found.tables["critiqued"]} == {"all"}
