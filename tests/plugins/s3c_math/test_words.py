"""Wrong steps made on purpose, the words that take them back, and what is measured of answers."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from llmfw.core.data import first_wrong_step
from llmfw.core.generation import ScriptedPolicy
from llmfw.core.verifiers import build
from llmfw.plugins.s3c_math.annotate import (
    by_template,
    consistent,
    from_teacher,
    reason,
    to_teacher,
    truly_wrong,
)
from llmfw.plugins.s3c_math.functional import sequence_means
from llmfw.plugins.s3c_math.measure import _corrections, first_taken_back, forced
from llmfw.plugins.s3c_math.perturb import carried_on, perturbed
from llmfw.plugins.s3c_math.plugin import S3cMath
from llmfw.plugins.s3c_math.reference import sequence_means as slow_means
from llmfw.plugins.s3c_math.solution import steps_of

CHAIN = {
    "id": "c", "prompt": "7 +5 *3", "answer": "36", "solution": ["7+5=12", "12*3=36"],
    "meta": {"start": 7, "operations": [["+", 5], ["*", 3]], "style": "compact"},
}  # fmt: skip
LINES = [*steps_of(CHAIN), "Answer: 36"]
WORDS = {"id": "w", "prompt": "Two and two?", "answer": "4", "solution": ["Two and 2 make 4 pears."]}


@pytest.mark.parametrize(
    ("at", "wrong", "kind"),
    [
        (0, "7+5=13", "calculation"), (0, "7 + 5 = 13", "calculation"), (1, "13*3=39", "carry"),
        (1, "12+3=15", "operation"), (1, "12*4=48", "operation"), (0, "Answer: 9", "form"),
        (0, "7+5", "form"),
    ],
)  # fmt: skip
def test_a_checker_finds_the_kind_of_error(at: int, wrong: str, kind: str) -> None:
    assert reason(CHAIN, at, wrong)[0] == kind
    assert truly_wrong(CHAIN, LINES[:at], wrong)


def test_reflections_begin_with_the_mark_differ_and_come_again() -> None:
    said = {by_template(CHAIN, 0, f"7+5={n}", "Wait", 0) for n in range(13, 40)}
    assert all(text.startswith("Wait, ") and text.endswith(".") and "\n" not in text for text in said)
    assert {"isn't", "gives"} & {word for text in said for word in text.split()} and len(said) > 3
    assert by_template(CHAIN, 0, "7+5=13", "No", 0) == by_template(CHAIN, 0, "7+5=13", "No", 0)
    assert by_template(WORDS, 0, "nonsense", "Wait", 1).startswith("Wait, ")


@pytest.mark.parametrize("at", [0, 1])
def test_steps_made_wrong_are_different_and_wrong(at: int) -> None:
    found = perturbed(CHAIN, LINES, at, 0, 4)
    assert len(set(found)) == len(found) >= 3 and found == perturbed(CHAIN, LINES, at, 0, 4)
    assert all(first_wrong_step(CHAIN, [*LINES[:at], step]) == at for step in found)


def test_without_a_chain_the_last_number_is_off_and_without_a_number_nothing_is_made() -> None:
    found = perturbed(WORDS, WORDS["solution"], 0, 0, 7)  # type: ignore[arg-type]
    assert sorted(found) == sorted(f"Two and 2 make {n} pears." for n in (1, 2, 3, 5, 6, 7, 14))
    assert perturbed(WORDS, ["So it is."], 0, 0, 4) == []
    assert forced({**WORDS, "solution": ["So it is."]}, 0) is None
    assert carried_on(WORDS, 0, "x") == []


def test_an_error_is_carried_on_rightly_also_below_zero() -> None:
    assert carried_on(CHAIN, 0, "7+5=13") == ["13*3=39", "Answer: 39"]
    assert carried_on(CHAIN, 0, "7-9=-2") == ["-2*3=-6", "Answer: -6"]
    assert carried_on(CHAIN, 1, "12*3=35") == ["Answer: 35"]


def test_a_teachers_answer_is_read_by_its_form() -> None:
    asked = to_teacher("7 +5 *3", [], "7+5=13", "7+5=12")
    assert "7+5=13" in asked and "(nothing yet)" in asked
    assert from_teacher("Reflection: The sum is off.\nStep: 7+5=12", "Wait") == (
        "Wait, the sum is off.", "7+5=12",
    )  # fmt: skip
    assert from_teacher("reflection: Wait, no.\nStep: 1", "Wait") == ("Wait, no.", "1")
    assert from_teacher("It should be 12.", "Wait") is None


def test_an_improvement_counts_where_it_does_what_the_gold_step_does() -> None:
    assert consistent(CHAIN, [], " 7 + 5 = 12", "7+5=12") and not consistent(CHAIN, [], "7+5=13", "7+5=12")
    assert consistent(WORDS, [], "2 and 2 is 4", "Two and 2 make 4 pears.")
    assert not consistent(WORDS, [], "2 and 2 is 5", "Two and 2 make 4 pears.")
    assert not consistent(WORDS, [], "So it is", "Two and 2 make 4 pears.")


@pytest.mark.parametrize(
    ("answer", "which"),
    [
        ("7+5=12\n12*3=36\nAnswer: 36", None), ("7+5=13\nWait, no.\n7+5=12", "wrong"),
        ("7+5=12\nWait, no.\n7+5=12", "right"), ("7+5=13\n13*3=39\nWait, no.", "later"),
        ("Wait, what?", None),
    ],
)  # fmt: skip
def test_the_first_line_that_is_taken_back_was_right_or_wrong(answer: str, which: str | None) -> None:
    assert first_taken_back(CHAIN, answer, "Wait") == which


class Mender:
    """Takes back what is wrong, goes on with what is right; without a beginning it errs once and mends it."""

    tokenizer = None

    def generate(self, prompts: Sequence[Any], *, prefix: Any = "", **sampling: Any) -> Any:
        texts = iter([self.go_on(begun) for begun in prefix])
        return ScriptedPolicy(lambda asked: [next(texts) for _ in asked]).generate(prompts, **sampling)

    def go_on(self, begun: str) -> str:
        lines = begun.splitlines()
        wrong = first_wrong_step(CHAIN, lines)
        if not lines:
            return "\n".join(["7+5=99", "Wait, 99 is much.", *LINES])
        return "\n".join(LINES[len(lines) :] if wrong is None else ["Wait, no.", *LINES[wrong:]])


def measured(policy: Any) -> dict[str, float]:
    config = S3cMath.Config(problems=1)
    judge = build("Verifier", "number", None)
    found = _corrections(config, lambda split: [CHAIN], 0, policy, lambda protocol, name: judge)
    return {name: getattr(value, "value", value) for name, value in found.metrics.items()}


def test_a_model_that_mends_recovers_and_leaves_right_steps_alone() -> None:
    """The last answer counts: the wrong part of an answer may hold one too."""
    assert measured(Mender()) == {
        "forced/recovered": 1.0, "forced/reflects": 1.0, "right/solved": 1.0, "right/reflects": 0.0,
        "answers/corrections": 1.0, "answers/tokens": 0.0, "answers/needless": 0.0, "answers/fixed": 1.0,
        "answers/broken": 0.0,
    }  # fmt: skip


def test_a_model_that_goes_on_whatever_stands_there_recovers_nothing_and_one_that_doubts_all_is_told() -> (
    None
):
    class Blind(Mender):
        def go_on(self, begun: str) -> str:
            lines = begun.splitlines()
            value = lines[-1].rpartition("=")[2] if lines else "7"
            return f"Answer: {value}" if len(lines) == 2 else "\n".join(carried_on(CHAIN, 0, f"={value}"))

    blind = measured(Blind())
    assert (blind["forced/recovered"], blind["right/solved"], blind["forced/reflects"]) == (0.0, 1.0, 0.0)

    class Doubter(Mender):
        def go_on(self, begun: str) -> str:
            return "Wait, no.\nAnswer: 0" if begun else "7+5=12\nWait, no.\nAnswer: 0"

    doubter = measured(Doubter())
    assert doubter["right/reflects"] == doubter["answers/needless"] == doubter["answers/broken"] == 1.0


def test_no_held_out_problem_no_measurement() -> None:
    run = SimpleNamespace(rows=lambda split: [], seed=0, config=None)
    assert S3cMath(S3cMath.Config(problems=0)).llmfw_evaluations(run=run) == []


def test_means_by_sequence_are_those_of_the_slow_oracle_and_an_empty_one_is_zero() -> None:
    """Two tokens, none, one: -(1 + 2) / 2, 0, -4."""
    logps = torch.tensor([-1.0, -2.0, -4.0], dtype=torch.float64, requires_grad=True)
    segment, length = torch.tensor([0, 0, 2]), torch.tensor([2, 0, 1])
    means = sequence_means(logps, segment, length)
    assert means.tolist() == [-1.5, 0.0, -4.0] == slow_means(logps.tolist(), segment.tolist(), 3)
    means.sum().backward()
    assert logps.grad is not None and logps.grad.tolist() == [0.5, 0.5, 1.0]
