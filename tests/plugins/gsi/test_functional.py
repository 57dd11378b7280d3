"""Schedules and hints, by hand and against the slow oracle."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmfw.plugins.gsi import functional as f
from llmfw.plugins.gsi import reference


def test_oracle_6_lines_of_a_solution_are_shown_by_the_schedule() -> None:
    """Of four lines 1, 2, 3, 3 and again; of two 1, 1; of one nothing."""
    assert [f.lines_shown(attempt, 4) for attempt in range(1, 9)] == [1, 2, 3, 3, 1, 2, 3, 3]
    assert [f.lines_shown(attempt, 2) for attempt in range(1, 5)] == [1, 1, 1, 1]
    assert [f.lines_shown(attempt, 1) for attempt in range(1, 4)] == [0, 0, 0]


def test_oracle_6_shares_of_tokens_are_shown_by_the_schedule() -> None:
    assert [f.share_shown(attempt) for attempt in range(1, 9)] == [0.2, 0.4, 0.6, 0.8, 0.8, 0.2, 0.4, 0.6]


@given(st.integers(1, 40), st.integers(1, 12))
def test_the_schedules_are_those_of_the_slow_oracle(attempt: int, lines: int) -> None:
    assert f.lines_shown(attempt, lines) == reference.lines_shown(attempt, lines)
    assert f.share_shown(attempt) == pytest.approx(reference.share_shown(attempt))


@pytest.mark.parametrize(
    ("p", "told"), [(0.1, 0.995), (0.3, 0.806), (0.5, 0.363), (0.7, 0.058), (0.9, 0.0004)]
)
def test_oracle_5_the_chance_that_a_problem_needs_help(p: float, told: float) -> None:
    """P[Bin(8, p) < 4], as the sheet has it to three digits."""
    assert reference.needs_guidance(p, 8, 4) == pytest.approx(told, abs=5e-4)


@given(
    st.lists(st.text(alphabet="ab1 +=", min_size=1, max_size=6), min_size=1, max_size=6), st.integers(1, 9)
)
def test_oracle_7_what_is_shown_begins_the_solution_and_never_holds_its_last_line(lines, attempt) -> None:
    whole = "\n".join(lines)
    shown = f.first_lines([f"{line}\n" for line in lines], attempt)
    assert whole.startswith(shown) and shown + "\n".join(lines[shown.count("\n") :]) == whole
    assert whole[len(shown) :].strip() or not whole.strip()


@given(st.text(alphabet="ab \r\n", max_size=20))
def test_lines_of_a_solution_are_the_same_text_and_none_is_blank(text) -> None:
    found = f.written(text.splitlines(keepends=True))
    assert "".join(found) == text
    assert not text.strip() or all(line.strip() for line in found)


def test_blank_lines_are_shown_with_their_neighbours_and_are_no_help_of_their_own() -> None:
    """Three lines that say something: 1, 2, 2; a blank one before the first comes with it."""
    lines = "\n a\n\n\nb\nc\n\n".splitlines(keepends=True)
    assert f.written(lines) == ["\n a\n\n\n", "b\n", "c\n\n"]
    shown = ["\n a\n\n\n", "\n a\n\n\nb\n", "\n a\n\n\nb\n", "\n a\n\n\n"]
    assert [f.first_lines(lines, attempt) for attempt in (1, 2, 3, 4)] == shown


def test_a_newline_at_the_end_does_not_make_the_last_line_shown() -> None:
    assert [f.first_lines(["a\n", "b\n"], attempt) for attempt in (1, 2, 3)] == ["a\n"] * 3
    assert f.first_lines(["a\n"], 1) == "", "of a single line nothing"


def test_windows_newlines_stay_as_they_are() -> None:
    lines = "a\r\n\r\nb\r\nc".splitlines(keepends=True)
    assert [f.first_lines(lines, attempt) for attempt in (1, 2)] == ["a\r\n\r\n", "a\r\n\r\nb\r\n"]


def test_tokens_are_shown_up_to_a_cut_that_is_a_beginning_of_the_text() -> None:
    """Ten pieces: 0.2 shows two of them; a cut inside a character shows what was whole before it."""
    text = "abcdefghij"
    pieces = [text[: at + 1] for at in range(10)]
    assert [f.first_tokens(text, pieces, attempt) for attempt in (1, 2, 4, 5)] == [
        "ab", "abcd", "abcdefgh", "abcdefgh"
    ]  # fmt: skip
    assert f.first_tokens("aé...", ["a", "a\N{REPLACEMENT CHARACTER}", "aé", "aé.", "aé.."], 2) == "a"
    assert f.first_tokens("ab", ["a", "ab"], 1) == "", "a fifth of two tokens is none"


def test_hints_show_what_they_say_and_keep_the_question() -> None:
    assert f.with_answer("How many?", "12") == "How many? (The answer is 12.)"
    assert "5+7=12" in f.with_rationale("How many?", "5+7=12") and "own" in f.with_rationale("How many?", "x")
    teacher = f.to_teacher("How many?", "13", "12")
    assert all(part in teacher for part in ("How many?", "13", "The correct answer is 12."))


def test_an_empty_explanation_sends_the_student_to_look_itself() -> None:
    assert f.to_student("The 4.\n").startswith("The 4.\n\nWrite the complete solution again")
    assert f.to_student(" \n").startswith("Go through this solution again and look for a mistake.\n\nWrite")


def test_overlap_is_the_shared_part_of_the_word_triples() -> None:
    """a b c d has abc bcd, a b c e has abc bce: one of three."""
    assert f.overlap("a b c d", "a b c e") == pytest.approx(1 / 3)
    assert f.overlap("a b", "c d") == 1.0 and f.overlap("a b c", "") == 0.0
