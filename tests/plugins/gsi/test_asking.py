"""How problems are asked again: what of a solution is shown, hints in texts and messages, a teacher."""

from __future__ import annotations

from typing import Any

import pytest

from llmfw import LlmfwError
from llmfw.core.data import answer_of
from llmfw.core.models.byte_level import byte_tokenizer
from llmfw.plugins.gsi import asking
from llmfw.plugins.gsi.plugin import Gsi
from llmfw.plugins.gsi.sampler import guided
from llmfw.testing import Runner
from tests.toys.runs import run_of

ROW = {"id": "p", "prompt": "1 +2?", "answer": "3", "solution": "1+2=3"}


def shown(solution: Any, attempts: int = 4, schedule: str = "auto") -> list[str]:
    """What successive attempts begin with; each is a beginning of what the problem is trained on."""
    row = {**ROW, "solution": solution}
    config, tokenizer = Gsi.Config(schedule=schedule), byte_tokenizer()
    found = [asking.beginning(config, tokenizer, row, attempt) for attempt in range(1, attempts + 1)]
    assert all(answer_of(row).startswith(text) for text in found)
    return found


def test_steps_and_lines_of_a_text_are_shown_alike() -> None:
    assert shown(["a", "b", "c"]) == shown("a\nb\nc") == ["a\n", "a\nb\n", "a\nb\n", "a\n"]
    assert shown(["a\nb", "c"]) == ["a\nb\n"] * 4, "a step of two lines is one step"


@pytest.mark.parametrize("solution", ["abcdefghij", "abcdefghij\n", "abcdefghij\r\n\n", ["abcdefghij"]])
def test_of_a_single_line_shares_of_its_tokens_are_shown_whatever_newlines_stand_behind_it(
    solution: Any,
) -> None:
    """Ten bytes, so tokens: 2, 4, 6, 8."""
    assert shown(solution) == ["ab", "abcd", "abcdef", "abcdefgh"]
    assert shown(solution, schedule="lines") == [""] * 4


def test_the_last_line_is_never_shown_whatever_newlines_stand_behind_it() -> None:
    assert shown("a\nb\n") == shown("a\nb") == ["a\n"] * 4
    assert shown("a\r\n\r\nb\r\n") == ["a\r\n\r\n"] * 4


def test_shares_of_tokens_are_those_of_the_whole_text() -> None:
    """Five bytes: 1, 2, 3, 4."""
    assert shown("a\nb\nc", schedule="tokens") == ["a", "a\n", "a\nb", "a\nb\n"]


@pytest.mark.parametrize("solution", [None, "", " \n", [], [" ", ""]])
@pytest.mark.parametrize("strategy", ["state_reset", "rationale"])
def test_a_problem_without_the_solution_that_would_be_shown_is_named_before_anything_is_sampled(
    strategy: str, solution: Any
) -> None:
    """Even before the round on solutions: no policy and no ledger are there to be used."""
    make = guided(Gsi.Config(strategy=strategy), run_of())
    with pytest.raises(LlmfwError, match=r"error\[NO-SOLUTION\].*'q'.*gsi.strategy to answer") as caught:
        make(0, [ROW, {**ROW, "id": "q", "solution": solution}], None, None, None)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    "settings",
    [{"strategy": "answer"}, {"strategy": "none"}, {"min_correct": 0}, {"max_resample": 0}],
    ids=lambda settings: "-".join(map(str, *settings.items())),
)
def test_where_no_solution_is_shown_none_is_asked_for(settings: dict[str, Any]) -> None:
    make = guided(Gsi.Config(**settings), run_of())
    assert make(0, [{**ROW, "solution": None}], None, None, None).keep_as == "gold"


def test_what_is_no_problem_at_all_is_told_as_that() -> None:
    make = guided(Gsi.Config(), run_of())
    with pytest.raises(LlmfwError, match="NOT-PROBLEMS"):
        make(0, [{"id": "t", "text": "Once upon a time"}], None, None, None)


def test_the_hint_stands_in_the_question_of_text_and_messages_and_the_row_stays_as_it_is() -> None:
    system = {"role": "system", "content": "Be short."}
    user, begun = {"role": "user", "content": "1 +2?"}, {"role": "assistant", "content": "It is"}
    hinted = "1 +2? (The answer is 3.)"
    assert asking.hinted("answer", "1 +2?", ROW) == hinted
    prompt = [system, user, begun]
    assert asking.hinted("answer", prompt, ROW) == [system, {"role": "user", "content": hinted}, begun]
    assert prompt == [system, {"role": "user", "content": "1 +2?"}, begun]
    assert "1+2=3\nAnswer: 3" in asking.hinted("rationale", prompt, ROW)[1]["content"]


def test_a_teacher_is_heard_in_a_conversation_after_a_text_or_messages() -> None:
    user = {"role": "user", "content": "1 +2?"}
    end = [{"role": "assistant", "content": "4"}, {"role": "user", "content": asking.to_student("No.")}]
    assert asking.conversation("1 +2?", "4", "No.") == [user, *end]
    system = {"role": "system", "content": "Be short."}
    assert asking.conversation([system, user], "4", "No.") == [system, user, *end]


def test_an_answer_that_the_prompt_has_begun_is_one_message_with_the_response() -> None:
    prompt = [{"role": "user", "content": "1 +2?"}, {"role": "assistant", "content": "It is"}]
    found = asking.conversation(prompt, " 4", "No.")
    assert [turn["role"] for turn in found] == ["user", "assistant", "user"]
    assert found[1]["content"] == "It is 4" and len(prompt) == 2


def test_a_teacher_whom_nobody_provides_is_refused_before_anything_is_loaded(runner: Runner) -> None:
    done = runner("plan", "--plugin", "gsi", "gsi.strategy=interactive")
    done.assert_failed(match="NO-MODEL", code=2)
    assert "models.teacher.name" in done.messages and "gsi.teacher" in done.messages


def test_the_student_after_the_solutions_can_be_the_teacher() -> None:
    """That round keeps it; where there's no such round nobody does. Without help nobody is asked."""
    assert guided(Gsi.Config(strategy="interactive", teacher="gold"), run_of())
    assert guided(Gsi.Config(strategy="interactive", min_correct=0), run_of())
    with pytest.raises(LlmfwError, match="NO-MODEL"):
        guided(Gsi.Config(strategy="interactive", teacher="gold", gold=False), run_of())
