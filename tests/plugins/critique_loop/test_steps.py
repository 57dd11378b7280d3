"""Steps of responses, true and noisy critiques of chains, and the annotated responses of CHAMP."""

from __future__ import annotations

from typing import Any

import pytest

from llmfw import LlmfwError
from llmfw.core.data import answer_of
from llmfw.plugins.critique_loop import steps as s
from llmfw.plugins.critique_loop.critics import Critic
from llmfw.plugins.critique_loop.grammar import FORMS, Block, Critique, parse, render
from llmfw.plugins.critique_loop.localise import annotation_of, labelled, measured, scores


@pytest.fixture
def row(roles: Any) -> dict[str, Any]:
    """1 +2 *3 -1: 1+2=3, 3*3=9, 9-1=8."""
    first: dict[str, Any] = roles.ROWS[0]
    return first


def test_a_response_is_split_into_steps_and_its_answer() -> None:
    assert s.split("1+2=3\n\n 3*3=9 \nAnswer: 9") == (["1+2=3", "3*3=9"], "Answer: 9")
    assert s.split("Answer: 9") == ([], "Answer: 9") and s.split("") == ([], None)


def test_a_span_of_characters_is_the_step_that_it_touches_first() -> None:
    text = "one\n\n  two\nthree"
    assert s.step_spans(text) == [(0, 3), (7, 10), (11, 16)]
    assert [s.step_of_span(text, *span) for span in ((0, 1), (3, 8), (8, 16), (3, 7))] == [0, 1, 1, None]


def test_the_truth_ends_at_the_first_wrong_step_and_names_the_right_one(row: Any) -> None:
    found = s.true_critique(row, "1+2=3\n3*3=10\n10-1=9\nAnswer: 9")
    assert found == Critique((Block("1+2=3", True), Block("3*3=10", False, "3*3=9")), False)
    assert (
        s.true_critique(row, "1+2=3\n3*3=10\n10-1=9\nAnswer: 9", explain="none").blocks[1].explanation == ""
    )


def test_the_truth_can_label_later_steps_too(row: Any) -> None:
    found = s.true_critique(row, "1+2=3\n3*3=10\n9-1=8\nAnswer: 8", after_error="go_on")
    assert found.labels == [True, False, True] and found.correct and found.first_error == 1


def test_the_truth_of_right_short_long_and_empty_responses(row: Any) -> None:
    whole = s.true_critique(row, answer_of(row))
    assert whole.labels == [True, True, True] and whole.correct and whole.explanation == ""
    short = s.true_critique(row, "1+2=3\nAnswer: 3")
    assert short.labels == [True] and not short.correct and short.explanation == "3*3=9"
    slip = s.true_critique(row, "1+2=3\n3*3=9\n9-1=8\nAnswer: 9")
    assert slip.first_error is None and not slip.correct and slip.explanation == "Answer: 8"
    long = s.true_critique(row, "1+2=3\n3*3=9\n9-1=8\n8+0=8\nAnswer: 8")
    assert long.first_error == 3 and long.blocks[3].explanation == "no step is left"
    assert s.true_critique(row, "").first_error == 0 == s.true_critique(row, "Answer: 8").first_error


@pytest.mark.parametrize("form", FORMS)
def test_oracle_8_true_critiques_survive_being_written(form: Any, roles: Any) -> None:
    for one in roles.ROWS:
        for text in (answer_of(one), roles.slipped(one), "", "Answer: 3", "what?"):
            found = s.true_critique(one, text)
            assert parse(render(found, form), form) == found


def test_oracle_8_a_step_that_was_put_in_is_the_first_error(roles: Any) -> None:
    for seed in range(20):
        for one in roles.ROWS:
            text, at = s.flawed_response(one, seed)
            assert s.true_critique(one, text).first_error == at == s.wrong_steps(one, text)


def test_a_noisy_critic_errs_at_its_rates(roles: Any) -> None:
    """600 responses each: 0.3 and 0.2 within three standard errors, 3 sqrt(0.3 * 0.7 / 600) = 0.056."""
    rates = {"miss": 0.3, "alarm": 0.2, "place": 0.0}
    wrong = [(one, s.flawed_response(one, seed)) for seed in range(100) for one in roles.ROWS]
    said = [s.noisy_critique(one, text, seed=n, **rates) for n, (one, (text, _)) in enumerate(wrong)]
    missed = sum(one.correct and one.first_error is None for one in said) / len(said)
    assert missed == pytest.approx(0.3, abs=0.056)
    assert all(
        c.first_error == at for c, (_, (_, at)) in zip(said, wrong, strict=True) if c.first_error is not None
    )
    right = [
        s.noisy_critique(one, answer_of(one), seed=seed, **rates) for seed in range(100) for one in roles.ROWS
    ]
    assert sum(not one.correct for one in right) / len(right) == pytest.approx(0.2, abs=0.049)


def test_a_noisy_critic_without_noise_is_the_truth_and_says_the_same_again(roles: Any, row: Any) -> None:
    quiet = {"miss": 0.0, "alarm": 0.0, "place": 0.0}
    text = roles.slipped(row)
    assert s.noisy_critique(row, text, seed=1, **quiet) == s.true_critique(row, text)
    loud = {"miss": 0.5, "alarm": 0.5, "place": 1.0}
    assert s.noisy_critique(row, text, seed=1, **loud) == s.noisy_critique(row, text, seed=1, **loud)
    moved = [
        s.noisy_critique(row, text, seed=n, miss=0.0, alarm=0.0, place=1.0).first_error for n in range(20)
    ]
    assert set(moved) == {0, 2}


def test_the_error_is_found_by_the_steps_words_before_its_place(row: Any) -> None:
    text = "1+2=3\n3*3=10\n10-1=9\nAnswer: 9"
    assert s.located(Critique((Block("3*3=10", False),), False), text) == 1
    assert s.located(Critique((Block("1+2=3", True), Block("else", False)), False), text) == 1
    assert s.located(Critique((Block("1+2=3", True),), True), text) is None


def test_rows_that_are_no_chains_are_refused_in_one_line() -> None:
    with pytest.raises(LlmfwError, match=r"error\[NO-CHAIN\].*use rows of data=chain-arithmetic"):
        s.true_critique({"id": "q", "prompt": "?", "answer": "1"}, "1")


@pytest.fixture(scope="session")
def champ() -> list[dict[str, Any]]:
    from llmfw.core.data.champ.rows import ChampFirstWrong
    from llmfw.core.data.presets import preset_settings
    from llmfw.core.schema import DataConfig

    said = preset_settings("champ-first-wrong")
    config = DataConfig(name="champ-first-wrong", package=said["package"])
    return [dict(row) for row in ChampFirstWrong(config, None).rows("validation")]


def test_champ_has_540_annotated_responses_444_of_them_with_a_wrong_step(champ: Any) -> None:
    cases = labelled(champ, 0)
    assert len(cases) == 540 and len({case.row["id"] for case in cases}) == 540
    assert sum(case.first_wrong is not None for case in cases) == 444


def test_each_annotated_step_of_champ_holds_the_annotated_characters(champ: Any) -> None:
    for row in champ:
        case = annotation_of(row)
        if case.first_wrong is None:
            continue
        begin, end = row["meta"]["first_wrong"]
        start, stop = s.step_spans(case.response)[case.first_wrong]
        assert start < end and begin < stop
        assert all(later_stop <= begin for _, later_stop in s.step_spans(case.response)[: case.first_wrong])


def test_a_critic_that_knows_champs_annotations_finds_every_error_and_one_that_names_the_first_line_few(
    champ: Any,
) -> None:
    """The share of a critic that always blames the first line is the share of errors in the first line, by
    hand from the file.
    """
    cases = labelled(champ, 0)

    def knowing(case: Any, at: int | None) -> Critique | None:
        spans = s.step_spans(case.response)
        told = spans if at is None else spans[: at + 1]
        blocks = [Block(" ".join(case.response[b:e].split()), n != at) for n, (b, e) in enumerate(told)]
        found = Critique(tuple(blocks), at is None)
        try:
            return parse(render(found), "paper")
        except LlmfwError:
            return None

    found = scores([(case, knowing(case, case.first_wrong)) for case in cases])
    assert found["critic/unparsed"] == 0.0
    assert found["critic/verdict"].value == 1.0 and found["critic/false_alarm"].value == 0.0  # type: ignore[union-attr]
    # a line that a response says twice is told apart by its place
    assert found["critic/first_error_hit"].value == 1.0  # type: ignore[union-attr]
    blaming = scores([(case, knowing(case, 0)) for case in cases])
    first = sum(case.first_wrong == 0 for case in cases)
    assert blaming["critic/first_error_hit"].value == first / 444  # type: ignore[union-attr]
    assert blaming["critic/false_alarm"].value == 1.0  # type: ignore[union-attr]
    assert blaming["critic/verdict"].value == 444 / 540  # type: ignore[union-attr]


def test_a_critic_that_never_parses_scores_nothing_and_that_is_told(champ: Any, roles: Any) -> None:
    mumbling = roles.ScriptedPolicy(lambda prompts: ["Looks fine to me."] * len(prompts))
    found, lines = measured(Critic(mumbling), labelled(champ[:40], 0), "paper", None)
    assert found["critic/unparsed"] == 1.0 and found["critic/verdict"].value == 0.0  # type: ignore[union-attr]
    assert len(lines) == 40 and not any(line["read"] for line in lines)


def test_an_annotation_that_touches_no_line_is_refused() -> None:
    row = {"id": "q", "prompt": "?", "answer": "1", "meta": {"response": "a\nb", "first_wrong": [9, 12]}}
    with pytest.raises(LlmfwError, match=r"error\[ANNOTATION\] meta.first_wrong: row 'q'"):
        labelled([row], 0)
