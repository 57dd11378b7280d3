"""Attempts at problems: numbered, judged once, and turned into records that say what was sampled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmfw.core.data import Encoder
from llmfw.core.errors import DataError, UsageError
from llmfw.core.generation import (
    Attempt,
    Collected,
    Rollouts,
    Sampling,
    ScriptedPolicy,
    SelfTrainingConfig,
    distinct,
    request_seed,
    scored_row,
    self_training,
    trained_row,
)
from llmfw.core.models.byte_level import byte_tokenizer
from llmfw.core.records import Completion, Verdict
from llmfw.core.rounds import Ledger
from tests.toys.runs import run_of

ROWS = [
    {"id": f"p{n}", "prompt": f"{n}+1", "answer": str(n + 1), "solution": [f"{n}+1={n + 1}"]}
    for n in range(3)
]


class Judge:
    """Right is what ends with the row's answer; it counts what it judges."""

    def __init__(self) -> None:
        self.judged = 0

    def verify(self, rows: Any, responses: Any) -> list[Verdict]:
        self.judged += len(responses)
        return [
            Verdict(status="right" if text.endswith(row["answer"]) else "wrong", answer=text)
            for row, text in zip(rows, responses, strict=True)
        ]


def rollouts(folder: Path, policy: Any, judge: Any) -> tuple[Rollouts, Ledger]:
    ledger = Ledger(folder)
    return Rollouts(
        policy=policy, ledger=ledger, verifier=judge, index=0, seed=1, temperature=1.0
    ), ledger  # fmt: skip


def attempt(
    text: str, *, finish: Any = "stop", status: Any = "right", number: int = 0, prefix: str = ""
) -> Attempt:
    ids = tuple(text.encode()) + ((260,) if finish == "stop" else ())
    answer = Completion(text=text, ids=ids, prompt_tokens=3, finish=finish, logps=(-0.5,) * len(ids))
    return Attempt(
        row=ROWS[0], number=number, completion=answer, verdict=Verdict(status=status), prefix=prefix
    )


def test_attempts_are_numbered_judged_with_their_beginning_and_counted(tmp_path: Path) -> None:
    policy = ScriptedPolicy(lambda prompts: [str(int(prompt[0]) + 1) for prompt in prompts])
    asking, ledger = rollouts(tmp_path, policy, Judge())
    with ledger.sampling(0):
        groups = asking.attempt(ROWS, purpose="sample", samples=2, first=4, prefixes=["a=", "b=", "c="])
    assert [[one.number for one in group] for group in groups] == [[4, 5]] * 3
    assert [group[0].text for group in groups] == ["a=1", "b=2", "c=3"]
    assert all(one.right for group in groups for one in group)
    assert ledger.of("sample")["samples"] == 6


class Drawn(ScriptedPolicy):
    """Each answer is the seed that the engine would draw it with."""

    def generate(self, prompts: Any, *, ids: Any = None, **sampling: Any) -> Any:
        settings = Sampling().but(**{key: sampling[key] for key in ("seed", "samples", "first")})
        texts = [
            str(request_seed(settings.seed, name, number)) for name in ids for number in settings.numbers
        ]
        answers = iter(texts)
        return ScriptedPolicy(lambda asked: [next(answers) for _ in asked]).generate(
            prompts, ids=ids, **sampling
        )


def test_an_attempts_random_numbers_depend_on_its_number_and_not_on_how_the_call_is_cut(
    tmp_path: Path,
) -> None:
    """8 samples of three problems: all at once, and as 5 and 3 more."""
    cut: list[list[list[str]]] = []
    for sizes in ((8,), (5, 3)):
        asking, ledger = rollouts(tmp_path / str(len(sizes)), Drawn(lambda prompts: []), Judge())
        texts: list[list[str]] = [[], [], []]
        with ledger.sampling(0):
            for size in sizes:
                groups = asking.attempt(ROWS, purpose="sample", samples=size, first=len(texts[0]))
                for own, group in zip(texts, groups, strict=True):
                    own += [one.text for one in group]
        cut.append(texts)
    assert cut[0] == cut[1]
    assert len({text for own in cut[0] for text in own}) == 24, "no two attempts share their numbers"


def test_a_round_that_is_sampled_again_is_neither_generated_nor_judged_again(tmp_path: Path) -> None:
    asked: list[str] = []

    def answer(prompts: Any) -> list[str]:
        asked.extend(prompts)
        return ["1"] * len(prompts)

    judge, found = Judge(), []
    for _ in range(2):
        asking, ledger = rollouts(tmp_path, ScriptedPolicy(answer), judge)
        with ledger.sampling(0):
            found.append(asking.attempt(ROWS, purpose="sample"))
    assert found[0] == found[1] and len(asked) == 3 and judge.judged == 3


def test_an_answer_that_was_cut_is_never_right() -> None:
    assert attempt("1").right and not attempt("1", finish="length").right
    assert not attempt("1", status="failed").right


def test_a_record_teaches_the_whole_answer_or_what_comes_after_its_given_beginning() -> None:
    one = attempt("=1", prefix="0+1", number=5)
    assert trained_row(one, 2) == {"id": "p0.2.5", "prompt": "0+1", "completion": "0+1=1", "problem": "p0"}
    assert trained_row(one, 2, mask_prefix=True)["spans"] == [[3, 6]]


def test_a_scored_record_has_the_log_probs_of_the_tokens_that_are_trained() -> None:
    """``=1`` and the end of the turn: three tokens; without an end two, and the end isn't trained."""
    encoder = Encoder(byte_tokenizer(), 1 << 20)
    row = scored_row(attempt("=1"), 0, encoder, reward=1.0, advantage=0.5)
    assert row is not None
    assert row["old_logps"] == [-0.5] * 3 and row["reward"] == 1.0 and row["extra"] == {"advantage": 0.5}
    cut = scored_row(attempt("=1", finish="length"), 0, encoder, reward=0.0, advantage=-0.5)
    assert cut is not None and cut["old_logps"] == [-0.5] * 2 and cut["spans"] == [[0, 2]]


def test_a_text_that_training_reads_as_other_tokens_makes_no_scored_record() -> None:
    encoder = Encoder(byte_tokenizer(), 1 << 20)
    other = attempt("=1")
    other = replace(other, completion=replace(other.completion, ids=(61, 50, 260)))
    assert scored_row(other, 0, encoder, reward=1.0, advantage=1.0) is None
    assert scored_row(attempt(" "), 0, encoder, reward=0.0, advantage=0.0) is None, "nothing to train"


def test_equal_answers_to_one_problem_are_kept_once() -> None:
    kept = distinct([attempt("a  b"), attempt("a b\n", number=1), attempt("c", number=2)])
    assert [one.number for one in kept] == [0, 2]


# the frame of rounds


def test_equal_answers_to_different_problems_are_both_kept() -> None:
    one, other = attempt("a b"), attempt("a b")
    other = replace(other, row={**other.row, "id": "another"})
    assert distinct([one, other]) == [one, other]


def frame(**settings: Any) -> Any:
    def collect(asking: Rollouts, rows: Any) -> Collected:
        return Collected(attempts=[one for group in asking.attempt(rows, purpose="sample") for one in group])

    return self_training(SelfTrainingConfig(**settings), run_of(seed=0), collect, name="toy")


def next_of(make: Any, index: int, folder: Path, answer: Any) -> Any:
    ledger = Ledger(folder)
    with ledger.sampling(index):
        return make(index, ROWS, ScriptedPolicy(answer), lambda protocol, name: Judge(), ledger)


def test_rounds_come_after_the_one_on_solutions_and_end(tmp_path: Path) -> None:
    make = frame(rounds=1, start="gold", gold_epochs=3.0)
    gold = next_of(make, 0, tmp_path, None)
    assert (gold.start, gold.keep_as, gold.epochs) == ("base", "gold", 3.0)
    assert gold.records[0]["completion"] == "0+1=1\nAnswer: 1"
    sampled = next_of(make, 1, tmp_path, lambda prompts: ["1", "9", "3"])
    assert sampled.start == "gold" and [row["problem"] for row in sampled.records] == ["p0", "p2"]
    assert sampled.notes["right"] == pytest.approx(2 / 3) and sampled.notes["attempts"] == 3
    assert next_of(make, 2, tmp_path, None) is None


def test_the_solutions_can_be_trained_in_every_round(tmp_path: Path) -> None:
    sampled = next_of(frame(gold=False, keep_gold=True), 0, tmp_path, lambda prompts: ["1", "9", "9"])
    assert len(sampled.records) == 4 and len({row["id"] for row in sampled.records}) == 4


def test_nothing_right_is_an_error_that_says_what_came(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="round 0: of 3 answers to 3 problems none can be trained .0% right"):
        next_of(frame(gold=False), 0, tmp_path, lambda prompts: ["9"] * 3)


def test_rows_that_are_no_problems_and_a_start_that_is_never_trained_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no problem"):
        frame()(0, [{"id": "a", "prompt": "p", "completion": "c"}], None, None, None)
    with pytest.raises(UsageError, match="no round trains the problems' own solutions"):
        frame(gold=False, start="gold")
