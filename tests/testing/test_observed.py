"""Where two trainings, two lists of answers and two traces part, by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from llmfw.core.records import Completion
from llmfw.testing import calls
from llmfw.testing.laws import Violation
from llmfw.testing.observed import (
    Training,
    difference,
    forward_calls,
    output_difference,
    same_outputs,
    series_difference,
)

ONE = Training(
    series={"loss": [(1, 2.0), (2, 1.0)], "own": [(1, 5.0)]},
    ids=[["a"], ["b"]],
    data="d",
    weights={"model:w": torch.tensor([1.0, 2.0])},
)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"ids": [["a"], ["c"]]}, "step 2 trains on b here and on c there"),
        ({"ids": [["a"]]}, "2 steps here, 1 there"),
        ({"series": {"loss": [(1, 2.0)], "own": [(1, 5.0)]}}, "loss of step 2 is there only once"),
        ({"series": {"loss": [(1, 2.5), (2, 1.0)]}}, "loss of step 1 is 2.0 here and 2.5 there"),
        ({"weights": {"model:v": torch.ones(2)}}, "the weights lack model:v"),
        ({"weights": {"model:w": torch.ones(3)}}, "the shape"),
        ({"weights": {"model:w": torch.tensor([1.0, 2.5])}}, "model:w ends up to 0.5 apart"),
    ],
)
def test_the_first_difference_is_told(changed: dict[str, Any], told: str):
    assert difference(ONE, ONE) is None
    assert told in str(difference(ONE, replace(ONE, **changed)))


def test_named_series_alone_count_and_only_where_both_have_them():
    other = replace(ONE, series={"loss": ONE.series["loss"], "own": [(1, 6.0)]})
    assert difference(ONE, other, names=("loss", "validation/loss")) is None
    assert "own of step 1" in str(difference(ONE, other))


def test_weights_that_the_baseline_lacks_do_not_count():
    more = replace(ONE, weights={**ONE.weights, "model:mine": torch.ones(1)})
    assert difference(more, ONE) is None and "lack model:mine" in str(difference(ONE, more))


def test_a_tolerance_is_relative_to_the_larger_of_one_and_the_value():
    """100 and 100.01 are 1e-4 apart, 0.1 and 0.10005 only 5e-5; NaN equals NaN, and nothing else."""
    assert series_difference("x", [(1, 100.0)], [(1, 100.01)], tolerance=1.1e-4) is None
    assert series_difference("x", [(1, 100.0)], [(1, 100.02)], tolerance=1.1e-4)
    assert series_difference("x", [(1, 0.1)], [(1, 0.10005)], tolerance=1e-4) is None
    assert series_difference("x", [(1, math.nan)], [(1, math.nan)], tolerance=0.0) is None
    assert series_difference("x", [(1, math.nan)], [(1, 1.0)], tolerance=1.0)


def answer(*ids: int, logps: tuple[float, ...] | None = None) -> Completion:
    return Completion(text="", ids=ids, prompt_tokens=1, finish="length", logps=logps)


def test_answers_part_at_a_token_or_at_a_log_prob():
    assert output_difference([answer(1, 2, 3)], [answer(1, 2, 3)]) is None
    assert output_difference([answer(1, 2, 3)], [answer(1, 4)]) == (
        "answer 0 parts at token 1: [2, 3] here, [4] there"
    )
    left, right = answer(1, logps=(-1.0,)), answer(1, logps=(-1.25,))
    assert "log-prob of token 0 of answer 0 is -1.0 here and -1.25" in str(output_difference([left], [right]))
    assert output_difference([left], [right], tolerance=0.25) is None
    with pytest.raises(Violation, match="; do otherwise"):
        same_outputs([left], [right], mend="do otherwise")


def test_forward_passes_are_counted_by_class_and_shape():
    layer = torch.nn.Linear(2, 2)
    with forward_calls() as counts:
        layer(torch.zeros(3, 2))
        layer(torch.zeros(3, 2))
    layer(torch.zeros(1, 2))
    assert counts == {("Linear", (3, 2)): 2}


def early(flag: bool) -> int:
    if flag:
        return 1
    return sum(n for n in range(2))


def test_functions_are_noted_with_the_lines_from_which_they_return():
    first = early.__code__.co_firstlineno

    def seen(flag: bool) -> calls.Calls:
        with calls.calls_into(lambda file: file == __file__) as found:
            early(flag)
        return found

    name = ("test_observed.py", "early")
    assert seen(True) == {name: {first + 2}} and seen(False) == {name: {first + 3}}
    assert calls.left_early(seen(False), seen(True)) == [name]
    assert calls.left_early({name: {first + 2, first + 3}}, seen(True)) == []
