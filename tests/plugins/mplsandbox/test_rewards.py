"""Rewards of programs, and the best of some."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from llmfw.testing import plugin_module

best_of = plugin_module("mplsandbox", "best_of").best_of
Sandbox = plugin_module("mplsandbox", "executor").Sandbox
Case = plugin_module("mplsandbox", "records").Case
Isolation = plugin_module("mplsandbox", "records").Isolation
Request = plugin_module("mplsandbox", "records").Request
Result = plugin_module("mplsandbox", "records").Result
Stage = plugin_module("mplsandbox", "records").Stage
Verdict = plugin_module("mplsandbox", "records").Verdict
compute_rewards = plugin_module("mplsandbox", "reward_function").compute_rewards
reward_function = plugin_module("mplsandbox", "reward_function").reward_function
reward = plugin_module("mplsandbox", "verdicts").reward
worst = plugin_module("mplsandbox", "verdicts").worst

TESTS = Request(code="", lang="python", cases=[Case(stdin=str(n), expected=str(2 * n)) for n in (1, 4, 9)])
RIGHT, HALF, WRONG = "print(int(input()) * 2)", "n = int(input())\nprint(2 * n if n < 9 else 0)", "print(1)"


def result(*verdicts: Verdict) -> Result:
    return Result(
        lang="python", confidence=1.0, verdict=worst(verdicts), compile=None, version="1",
        cases=tuple(Stage(verdict=verdict) for verdict in verdicts),
        isolation=Isolation(level="strict", backend="bubblewrap"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("verdicts", "levels", "binary", "interpolated"),
    [
        (("OK", "OK"), 1.0, 1.0, 1.0),
        (("OK", "WA"), -0.3, 0.0, 0.35),
        (("WA", "WA"), -0.3, 0.0, -0.3),
        (("OK", "RE", "WA"), -0.6, 0.0, -0.6),
        (("OK", "TLE"), -0.6, 0.0, -0.6),
        (("OLE",), -0.6, 0.0, -0.6),
        (("SV", "OK"), -0.6, 0.0, -0.6),
        (("CE", "CE"), -1.0, 0.0, -1.0),
        (("OK", "IE"), None, None, None),
    ],
)
def test_a_reward_is_the_worst_cases_level(
    verdicts: Sequence[Verdict], levels: float | None, binary: float | None, interpolated: float | None
) -> None:
    """Interpolated: -0.3 + 1.3 x 1/2 = 0.35 for one of two."""
    told = result(*verdicts)
    assert reward(told) == levels
    assert reward(told, shape="binary") == binary
    assert reward(told, shape="interpolated") == pytest.approx(interpolated)


def test_rewards_of_a_batch_take_programs_out_of_their_fences(sandbox: Sandbox) -> None:
    answers = [f"Here it is:\n```python\n{RIGHT}\n```\nDone.", WRONG, "print(", "1 / 0"]
    assert compute_rewards(sandbox, answers, [TESTS] * 4) == [1.0, -0.3, -1.0, -0.6]


def test_languages_may_have_rewards_of_their_own(sandbox: Sandbox) -> None:
    shaped = compute_rewards(sandbox, [WRONG], [TESTS], by_language={"python": lambda value: value / 2})
    assert shaped == [-0.15]


def test_as_many_requests_as_completions_are_wanted(sandbox: Sandbox) -> None:
    with pytest.raises(ValueError, match="2 completions and 1 requests"):
        compute_rewards(sandbox, [WRONG, WRONG], [TESTS])


def test_trainers_of_the_trl_family_can_call_it(sandbox: Sandbox) -> None:
    def requests(row: Any) -> Request:
        return Request(code="", lang="python", cases=[Case(stdin=row["given"], expected=row["wanted"])])

    rewards = reward_function(sandbox, requests, shape="binary")
    chat = [[{"role": "assistant", "content": RIGHT}], [{"role": "assistant", "content": RIGHT}]]
    assert rewards(["a", "b"], chat, given=["2", "3"], wanted=["4", "7"], trainer_state=None) == [1.0, 0.0]


def test_the_best_of_some_is_the_one_with_most_tests_passed(sandbox: Sandbox) -> None:
    choice = best_of(sandbox, [WRONG, "print(", HALF, RIGHT, "1 / 0"], TESTS)
    assert choice.index == 3
    assert [one.verdict for one in choice.results] == ["WA", "CE", "WA", "OK", "RE"]
    assert best_of(sandbox, [WRONG, HALF], TESTS).index == 1


def test_of_equals_the_one_written_most_often_is_taken_then_the_first(sandbox: Sandbox) -> None:
    other = "x = input()\nprint(int(x) + int(x))"
    assert best_of(sandbox, [RIGHT, other, other + "\n"], TESTS).index == 1
    assert best_of(sandbox, [RIGHT, other], TESTS).index == 0
    with pytest.raises(ValueError, match="no candidates"):
        best_of(sandbox, [], TESTS)
