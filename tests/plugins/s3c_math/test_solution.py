"""A solution's lines, to the character, and numbers as texts write them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from llmfw.core.data import answer_of
from llmfw.plugins.s3c_math.annotate import begins, consistent
from llmfw.plugins.s3c_math.measure import first_taken_back, forced
from llmfw.plugins.s3c_math.mix import plain_rows
from llmfw.plugins.s3c_math.perturb import perturbed
from llmfw.plugins.s3c_math.quantities import last_number
from llmfw.plugins.s3c_math.segments import from_record, gold, repaired, text_of, with_repair, with_retry
from llmfw.plugins.s3c_math.solution import beginning, behind, in_place_of, lines_of, steps_of

CHAIN = {
    "id": "c", "prompt": "7 +5 *3", "answer": "36", "solution": ["7+5=12", "12*3=36"],
    "meta": {"start": 7, "operations": [["+", 5], ["*", 3]], "style": "compact"},
}  # fmt: skip


def row(solution: Any, answer: str = "9") -> dict[str, Any]:
    return {"id": "r", "prompt": "?", "answer": answer, "solution": solution}


SPACED = row("\n  4+1=5 \n\n5+4=9\r\n\n")


@pytest.mark.parametrize(
    "one", [SPACED, CHAIN, row("a 1\n\nb 2"), row("a 1"), row(["a 1 ", " b 2"]), row("a 1", answer="x\n\ny")]
)
def test_lines_are_the_solution_to_the_character(one: dict[str, Any]) -> None:
    assert "".join(lines_of(one)) == answer_of(one) == text_of(gold(lines_of(one)))
    (plain,) = plain_rows([one], 0.5)
    assert text_of(from_record(plain["segments"])) == plain["completion"]


def test_blank_lines_belong_to_the_line_before_and_the_very_first_ones_to_the_first() -> None:
    """Once they were trained in plain solutions and left out of corrected ones."""
    assert lines_of(SPACED) == ["\n  4+1=5 \n\n", "5+4=9\r\n\n\n", "Answer: 9"]
    assert steps_of(SPACED) == ["4+1=5", "5+4=9"]
    assert (beginning(SPACED, 0), beginning(SPACED, 1)) == ("\n  ", "\n  4+1=5 \n\n")
    assert (behind("\n  4+1=5 \n\n"), in_place_of("\n  4+1=5 \n\n", "x")) == (" \n\n", "\n  x \n\n")


@pytest.mark.parametrize("at", [0, 1])
def test_a_corrected_solution_is_laid_out_as_the_plain_one(at: int) -> None:
    lines, steps = lines_of(SPACED), steps_of(SPACED)
    mended = with_repair(lines, {at: ("wrong", "Wait, no.", steps[at])})
    retried = with_retry(lines, [*steps[:at], "wrong", "Answer: 8"], at, "Wait, no.")
    assert repaired(mended) == repaired(retried) == answer_of(SPACED)
    after = behind(lines[at])
    assert in_place_of(lines[at], "wrong") + "Wait, no." + after + lines[at] in text_of(mended)
    assert f"Answer: 8{after}Wait, no.{after}" in text_of(retried)


def test_what_is_forced_is_laid_out_as_the_solution() -> None:
    case = forced(SPACED, 0)
    assert case is not None and case.begun("right") in answer_of(SPACED)
    assert case.begun("wrong") == case.begun("right").replace(case.right, case.wrong)


@pytest.mark.parametrize(
    ("answer", "which"),
    [
        ("7+5=12\n\n12*3=35\n\nWait, no.", "wrong"), ("7+5=12\n\nWait, no.", "right"),
        ("7+5=13\n\n13*3=39\nWait, no.", "later"), ("\nWait, no.", None),
        ("7+5=12\nWaiting won't help.", None),
    ],
)  # fmt: skip
def test_blank_lines_of_an_answer_dont_count(answer: str, which: str | None) -> None:
    """Once a blank line was taken for a wrong step, and ``Waiting`` for the mark."""
    assert first_taken_back(CHAIN, answer, "Wait") == which


def test_the_mark_is_a_word_of_its_own() -> None:
    assert all(begins(text, "No") for text in ("No, 4.", "No: 4", "\n No", "No"))
    assert not any(begins(text, "No") for text in ("Now 4.", "So no", "no", ""))


@pytest.mark.parametrize(
    ("text", "written", "value"),
    [
        ("It costs $1,000.", "1,000", "1000"), ("that is 3.50", "3.50", "3.50"), ("x = -4", "-4", "-4"),
        ("12-4", "4", "4"), ("(7)-4", "4", "4"), ("5 - 4", "4", "4"), ("of 1, 2,3", "3", "3"),
        ("12,345,678.90 in all", "12,345,678.90", "12345678.90"), ("at 10:05", "05", "5"),
        ("7--4", "4", "4"),
    ],
)  # fmt: skip
def test_the_last_number_is_read_as_it_is_written(text: str, written: str, value: str) -> None:
    found = last_number(text)
    assert found is not None and found.written == written and found.value == Decimal(value)
    assert text[found.start : found.stop] == written


def test_a_number_that_slips_is_written_as_it_was() -> None:
    """Once 1,000 became 1,1 and 3.05 became 3.6; and no wrong number was ever smaller than the right one."""
    wrong = {
        text: perturbed(row([text]), [text], 0, 0, 8) for text in ("1,000", "3.05", "-4", "05", "0", "x-1")
    }
    assert set(wrong["1,000"]) == {"990", "997", "998", "999", "1,001", "1,002", "1,003", "1,010"}
    assert set(wrong["3.05"]) == {"13.05", "6.05", "5.05", "4.05", "2.05", "1.05", "0.05"}
    assert set(wrong["-4"]) == {"-14", "-7", "-6", "-5", "-3", "-2", "-1"}
    assert set(wrong["05"]) == {"02", "03", "04", "06", "07", "08", "15"}
    assert set(wrong["0"]) == {"1", "2", "3", "10"} and set(wrong["x-1"]) == {
        "x-0", "x-2", "x-3", "x-4", "x-11"
    }  # fmt: skip
    assert perturbed(row(["none"]), ["none"], 0, 0, 4) == []


def test_an_improvement_that_ends_in_another_number_isnt_consistent_and_one_written_otherwise_is() -> None:
    """Once 1,000 and 2,000 both ended in 000, and 12-4 in -4."""
    one = row(["It is 2,000"])
    assert not consistent(one, [], "That makes 1,000", "It is 2,000")
    assert consistent(one, [], "That makes 2000.00", "It is 2,000")
    assert consistent(one, [], "8, less 12-4", "so it is 4") and not consistent(
        one, [], "so -4", "so it is 4"
    )
