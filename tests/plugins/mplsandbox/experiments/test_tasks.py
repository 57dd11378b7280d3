"""The thirty tasks: their tests, and that a choice never sees those that judge it."""

from __future__ import annotations

import pytest

from llmfw.testing import plugin_module

tasks = plugin_module("mplsandbox", "experiments.tasks")
BY_NAME = {task.name: task for task in tasks.TASKS}


def test_there_are_thirty_with_names_of_their_own() -> None:
    assert len(tasks.TASKS) == len(BY_NAME) == 30


@pytest.mark.parametrize("task", tasks.TASKS, ids=lambda task: task.name)
def test_no_hidden_input_is_a_visible_one(task: object) -> None:
    seen = [repr(case.args) for case in (*task.visible, *task.hidden)]  # type: ignore[attr-defined]
    assert len(seen) == len(set(seen)) == tasks.VISIBLE + tasks.HIDDEN


@pytest.mark.parametrize("task", tasks.TASKS, ids=lambda task: task.name)
def test_no_constant_answer_passes_the_hidden_tests(task: object) -> None:
    assert len({repr(case.expected) for case in task.hidden}) > 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "args", "expected"),
    [
        ("add", [2, -5], -3), ("larger", [-4, -9], -4), ("spread", [[3, -2, 7]], 9),
        ("count_positive", [[0, 1, -1, 5]], 2), ("evens", [[3, 4, -2, 0]], [4, -2, 0]),
        ("sort_down", [[1, 9, 4]], [9, 4, 1]), ("distinct", [[2, 1, 2, 3, 1]], [2, 1, 3]),
        ("second", [[8, -1, 5]], 5), ("is_palindrome", ["abba"], True), ("is_palindrome", ["ab"], False),
        ("count_vowels", ["AbEe"], 3), ("longest_word", [["ab", "cde", "fgh"]], "cde"),
        ("join_words", [["a", "b"]], "a-b"), ("factorial", [5], 120), ("factorial", [0], 1),
        ("fibonacci", [10], 55), ("fibonacci", [0], 0), ("digit_sum", [907], 16),
        ("is_prime", [1], False), ("is_prime", [2], True), ("is_prime", [49], False),
    ],
)  # fmt: skip
def test_answers_are_those_worked_out_by_hand(name: str, args: list[object], expected: object) -> None:
    assert BY_NAME[name].solution(*args) == expected


def test_a_prompt_shows_the_visible_tests_and_no_hidden_one() -> None:
    task = BY_NAME["add"]
    for case in task.visible:
        assert f"add({case.args[0]}, {case.args[1]}) == {case.expected}" in task.prompt
    assert not any(f"add({case.args[0]}, {case.args[1]})" in task.prompt for case in task.hidden)
    assert task.head == "def add(a, b):"
