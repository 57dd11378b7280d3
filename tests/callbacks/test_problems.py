"""Held-out problems: greedy answers, chances of k samples, votes; worked out by hand."""

from __future__ import annotations

from itertools import combinations
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmfw.callbacks.problems import majority, of_samples, pass_at, solved
from llmfw.core.errors import UsageError
from llmfw.core.generation import ScriptedPolicy
from llmfw.core.records import Verdict
from llmfw.core.verifiers import build
from tests.toys.runs import run_of

ROWS = [{"id": str(n), "prompt": f"{n}+1", "answer": str(n + 1), "level": 1 + n % 2} for n in range(4)]


def config(**changes):
    return SimpleNamespace(**{"problems": 4, "vote": 0, "temperature": 1.0, "verifier": "number", **changes})


def measured(answer, **changes):
    run = run_of(seed=0, rows={"validation": ROWS})
    (evaluation,) = solved(config(**changes), run)
    return evaluation.run(ScriptedPolicy(answer), lambda protocol, name: build(protocol, name, None))


def test_the_chance_of_one_right_among_k_of_n() -> None:
    """Two of four are right: of one 1/2; of two 1 - 1/6; of four certain."""
    assert [pass_at(4, 2, k) for k in (1, 2, 4)] == [0.5, pytest.approx(5 / 6), 1.0]


@given(st.lists(st.booleans(), min_size=1, max_size=7), st.data())
def test_it_is_the_share_of_all_choices_of_k(right: list[bool], data) -> None:
    k = data.draw(st.integers(1, len(right)))
    chosen = [any(group) for group in combinations(right, k)]
    assert pass_at(len(right), sum(right), k) == pytest.approx(sum(chosen) / len(chosen))


def test_the_most_frequent_answer_is_the_vote_and_of_equals_the_earliest() -> None:
    assert majority(["3", "4", "4"], [True, False, False]) is False
    assert majority(["3", "4", "3", "4"], [True, False, True, False]) is True
    assert majority([None, "3", None], [False, True, False]) is True, "who has no answer doesn't vote"
    assert majority([None, None], [False, False]) is False


def test_greedy_answers_are_told_by_level() -> None:
    """0+1 and 2+1 (level 1) are solved, of the others none."""
    told = measured(lambda prompts: [str(int(prompt[0]) + 1 + int(prompt[0]) % 2) for prompt in prompts])
    assert told.metrics["solved"].value == 0.5 and told.metrics["solved"].n == 4
    assert told.metrics["solved/level/1"].value == 1.0 and told.metrics["solved/level/2"].value == 0.0
    assert told.metrics["solved/unparsed"] == 0.0
    assert [row["solved"] for row in told.tables["solved"]] == [True, False, True, False]


def test_samples_are_told_by_chance_vote_and_variety() -> None:
    """Each problem's three samples: right, wrong, right in other words: pass@1 2/3, the vote right."""
    calls: dict[str, int] = {}

    def answer(prompts):
        texts = []
        for prompt in prompts:
            calls[prompt] = calls.get(prompt, -1) + 1
            right = str(int(prompt[0]) + 1)
            texts.append([right, right, "99", f"It is so.\nAnswer: {right}"][calls[prompt]])
        return texts

    told = measured(answer, vote=3).metrics
    assert told["solved"].value == 1.0
    assert told["solved/pass@1"].value == pytest.approx(2 / 3) and told["solved/pass@2"].value == 1.0
    assert told["solved/pass@3"].value == 1.0 and told["solved/maj@3"].value == 1.0
    assert told["solved/distinct"] == 2.0


def test_a_verifier_that_nobody_offers_is_refused_before_anything_is_measured() -> None:
    with pytest.raises(UsageError, match="Verifier named 'guess'"):
        solved(config(verifier="guess"), run_of())


def test_one_number_is_one_vote_however_it_is_written() -> None:
    """1/2 and 0.50 together have more votes than either 3."""
    assert majority(["3", "1/2", "3.", "0.50", ".5"], [False, True, False, True, True]) is True
    assert majority(["Paris", "rome", "Rome", "ROME "], [True, False, False, False]) is False


def test_no_more_than_are_there_can_be_drawn() -> None:
    for k in (0, 5):
        with pytest.raises(ValueError, match=f"{k} of 4 samples"):
            pass_at(4, 2, k)


def test_one_sample_has_a_chance_too() -> None:
    """Greedy and sampled alike: two of four right."""
    told = measured(lambda prompts: [str(int(p[0]) + 1 + int(p[0]) % 2) for p in prompts], vote=1).metrics
    assert told["solved/pass@1"].value == 0.5 and told["solved/maj@1"].value == 0.5


def test_answers_that_cannot_be_compared_have_no_vote() -> None:
    answers = [SimpleNamespace(text="print(1)", finish="stop", tokens=2)] * 2
    told = of_samples(answers, [Verdict(status="right"), Verdict(status="wrong")], 2)
    assert told["solved/pass@1"].value == 0.5 and "solved/maj@2" not in told


def test_samples_without_chance_are_warned_about(capsys: pytest.CaptureFixture[str]) -> None:
    solved(config(vote=4, temperature=0.0), run_of())
    assert "warning[SAME-SAMPLES] at temperature=0 the vote=4 samples" in capsys.readouterr().err
    solved(config(vote=4), run_of())
    assert capsys.readouterr().err == ""


def test_nothing_is_measured_where_nothing_is_asked_for() -> None:
    assert solved(config(problems=0), run_of()) == []
