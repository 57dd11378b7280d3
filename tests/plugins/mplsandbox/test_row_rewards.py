"""Rewards of rows that carry their tests, and the core's verifier of programs over the sandbox."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmfw import LlmfwError, Reward
from llmfw.core.manager import Answer
from llmfw.core.run import Run
from llmfw.core.schema import Root
from llmfw.testing import plugin_module

MplSandbox = plugin_module("mplsandbox", "plugin").MplSandbox
RowRewards = plugin_module("mplsandbox", "row_rewards").RowRewards
Sandbox = plugin_module("mplsandbox", "executor").Sandbox

ROW: dict[str, Any] = {
    "id": "q1",
    "prompt": "Double the number.",
    "answer": "8",
    "tests": [{"stdin": "4", "expected": "8"}, {"stdin": "9", "expected": "18"}],
}
RIGHT = "```python\nprint(int(input()) * 2)\n```"
HALF = "n = int(input())\nprint(8)"
ANSWERS = [RIGHT, HALF, "```python\n1 / 0\n```", "```python\nprint(\n```", "", "I can't do that."]


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [
        ("levels", [1.0, -0.3, -0.6, -1.0, -1.0, -1.0]),
        ("binary", [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]),
        ("interpolated", [1.0, 0.35, -0.6, -1.0, -1.0, -1.0]),
    ],
)
def test_a_rows_tests_decide_the_reward(sandbox: Sandbox, shape: Any, wanted: list[float]) -> None:
    """Interpolated: -0.3 + 1.3 x 1/2 = 0.35. Saying nothing is worth what doesn't compile is worth."""
    found = RowRewards(sandbox, shape).rewards([ROW] * len(ANSWERS), ANSWERS)
    assert found == pytest.approx(wanted)


def test_without_tests_the_rows_answer_is_to_be_printed(sandbox: Sandbox) -> None:
    row = {"prompt": "2^3?", "answer": "8"}
    assert RowRewards(sandbox).rewards([row] * 2, ["print(2 ** 3)", "print(9)"]) == [1.0, -0.3]


def test_functions_are_called_where_a_row_names_one(sandbox: Sandbox) -> None:
    row = {
        "prompt": "?",
        "answer": "8",
        "tests": [{"args": [4], "expected": 8}],
        "meta": {"entry_point": "double"},
    }
    told = RowRewards(sandbox).rewards(
        [row] * 2, ["def double(n):\n    return 2 * n", "def double(n):\n    return n"]
    )
    assert told == [1.0, -0.3]


def test_a_test_of_another_form_is_an_error_that_names_its_key(sandbox: Sandbox) -> None:
    with pytest.raises(LlmfwError, match="stdn"):
        RowRewards(sandbox).rewards([{**ROW, "tests": [{"stdn": "4"}]}], [RIGHT])


def test_a_run_offers_it_with_the_shape_that_is_set(sandbox: Sandbox) -> None:
    plugin = MplSandbox(MplSandbox.Config(reward="binary"))
    run = Run(Root(), Path("."), "test")
    run._offer([Answer("mplsandbox", service) for service in plugin.llmfw_services(run)])
    reward = run.service("Reward")
    assert isinstance(reward, Reward) and reward.rewards([ROW], [HALF]) == [0.0]
    verdicts = run.service("Verifier", "program").verify([ROW] * 3, [RIGHT, HALF, ""])
    assert [(verdict.status, verdict.score) for verdict in verdicts] == [
        ("right", 1.0), ("wrong", 0.5), ("unparsed", 0.0),
    ]  # fmt: skip
