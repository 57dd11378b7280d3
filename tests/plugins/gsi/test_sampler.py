"""The sheet's oracles, with policies whose answers are known."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from llmfw.core.data import answer_of
from llmfw.core.errors import DataError
from llmfw.core.generation import Attempt, ScriptedPolicy
from llmfw.core.records import Completion, RolloutSampler, Verdict
from llmfw.core.rounds import Ledger, RoundState, run_rounds
from llmfw.core.verifiers import build
from llmfw.plugins.gsi.plugin import Gsi
from llmfw.plugins.gsi.reference import needs_guidance
from llmfw.plugins.gsi.sampler import drawn, guided
from llmfw.plugins.rft.plugin import Rft
from llmfw.plugins.rft.sampler import rejection_sampling
from tests.toys.runs import run_of

ROWS = [
    {"id": f"p{n}", "prompt": f"{n} +2 +3 +4", "answer": str(n + 9), "level": "3",
     "solution": [f"{n}+2={n + 2}", f"{n + 2}+3={n + 5}", f"{n + 5}+4={n + 9}"]}
    for n in range(6)
]  # fmt: skip
BY_PROMPT = {row["prompt"]: row for row in ROWS}
BY_ID = {row["id"]: row for row in ROWS}


def row_of(prompt: Any) -> dict[str, Any]:
    text = prompt if isinstance(prompt, str) else prompt[0]["content"]
    return next(row for row in ROWS if text.startswith(row["prompt"]))


def right(prompt: Any) -> str:
    return answer_of(row_of(prompt))


class Stub:
    """Plays a model: ``answer(prompt, prefix) -> text``; counts its calls by whether they were helped."""

    def __init__(self, answer: Callable[[Any, str], str]) -> None:
        self.answer, self.calls = answer, 0
        self.tokenizer = None

    def generate(self, prompts: Sequence[Any], *, prefix: Any = "", **sampling: Any) -> Any:
        openings = [prefix] * len(prompts) if isinstance(prefix, str) else list(prefix)
        self.calls += len(prompts) * sampling.get("samples", 1)
        opening = {id(prompt): text for prompt, text in zip(prompts, openings, strict=True)}
        policy = ScriptedPolicy(lambda asked: [self.answer(one, opening[id(one)]) for one in asked])
        return policy.generate(prompts, prefix=prefix, **sampling)


def sampled(
    policy: Stub, folder: Path, *, rows: Sequence[Any] = ROWS, rft: bool = False, **settings: Any
) -> Any:
    """(the round, its ledger) of one sampling round."""
    settings = {"gold": False, "rounds": 1, "samples": 8, **settings}
    teacher = settings.pop("teacher_policy", None)
    run = run_of(policies={"teacher": teacher})
    make = rejection_sampling(Rft.Config(**settings), run) if rft else guided(Gsi.Config(**settings), run)
    with (ledger := Ledger(folder)).sampling(0):
        found = make(0, rows, policy, lambda protocol, name: build(protocol, name, None), ledger)
    return found, ledger


def helped(prompt: Any, prefix: str) -> bool:
    texts = [prompt] if isinstance(prompt, str) else [turn["content"] for turn in prompt]
    return bool(prefix) or len(texts) > 1 or texts[0] not in BY_PROMPT


@pytest.mark.parametrize("off", [{"min_correct": 0}, {"max_resample": 0}])
def test_oracle_1_without_help_it_is_plain_self_improvement(tmp_path: Path, off: dict[str, int]) -> None:
    def answer(prompt: Any, prefix: str) -> str:
        return right(prompt) if row_of(prompt)["id"] in ("p1", "p4") else "Answer: 0"

    ours, ledger = sampled(Stub(answer), tmp_path / "gsi", **off)
    plain, _ = sampled(Stub(answer), tmp_path / "rft", rft=True)
    assert ours.records == plain.records and len(ours.records) == 16
    assert set(ledger.by_purpose()) == {"sample"}


def test_oracle_2_a_model_that_is_always_right_gets_no_help(tmp_path: Path) -> None:
    found, ledger = sampled(Stub(lambda prompt, prefix: right(prompt)), tmp_path)
    assert ledger.total()["samples"] == len(ROWS) * 8 == len(found.records)
    assert set(ledger.by_purpose()) == {"sample"}


def test_oracle_3_a_model_that_is_always_wrong_trains_nothing_and_says_why(tmp_path: Path) -> None:
    policy = Stub(lambda prompt, prefix: "Answer: 0")
    with pytest.raises(DataError, match="none can be trained .0% right"):
        sampled(policy, tmp_path)
    assert policy.calls == len(ROWS) * (8 + 8) == Ledger(tmp_path).total()["samples"]


@pytest.mark.parametrize("strategy", ["state_reset", "answer", "rationale"])
def test_oracle_4_help_goes_on_until_a_problem_has_enough_and_no_longer(
    tmp_path: Path, strategy: str
) -> None:
    def answer(prompt: Any, prefix: str) -> str:
        return right(prompt).removeprefix(prefix) if helped(prompt, prefix) else "Answer: 0"

    found, ledger = sampled(Stub(answer), tmp_path, strategy=strategy)
    assert len(found.records) == 4 * len(ROWS)
    assert ledger.of("guided")["samples"] == 4 * len(ROWS)
    assert found.notes["guided/rescued"] == len(ROWS) and found.notes["guided/per_rescue"] == 4
    assert found.notes["guided/share"] == 1.0


def test_oracle_5_as_many_problems_get_help_as_the_binomial_says(tmp_path: Path) -> None:
    """300 problems at p = 0.5: 0.363 expected, three standard errors are 0.083."""
    rows = [{**ROWS[0], "id": f"q{n}"} for n in range(300)]
    draw = random.Random(0)
    policy = Stub(lambda prompt, prefix: right(prompt) if draw.random() < 0.5 else "Answer: 0")
    found, _ = sampled(policy, tmp_path, rows=rows, max_resample=1, strategy="none")
    assert found.notes["guided/needed"] / 300 == pytest.approx(needs_guidance(0.5, 8, 4), abs=0.083)


def test_oracle_7_a_copying_model_writes_the_gold_solution_behind_what_it_was_given(tmp_path: Path) -> None:
    def answer(prompt: Any, prefix: str) -> str:
        return right(prompt).removeprefix(prefix) if prefix else "Answer: 0"

    found, _ = sampled(Stub(answer), tmp_path)
    gold = {row["id"]: answer_of(row) for row in ROWS}
    assert all(record["completion"] == gold[record["problem"]] for record in found.records)


def test_a_given_beginning_can_be_left_untrained_and_the_end_is_trained(tmp_path: Path) -> None:
    def answer(prompt: Any, prefix: str) -> str:
        return right(prompt).removeprefix(prefix) if prefix else "Answer: 0"

    found, _ = sampled(Stub(answer), tmp_path, mask_prefix=True, min_correct=1)
    first = next(record for record in found.records if record["problem"] == "p0")
    assert first["spans"] == [[len("0+2=2\n"), len(first["completion"]) + 1]]


@pytest.mark.parametrize("form", ["text", "messages"])
@pytest.mark.parametrize(
    ("strategy", "hint"),
    [
        ("state_reset", None),
        ("answer", "The answer is 9"),
        ("rationale", "0+2=2\\n2+3=5\\n5+4=9\\nAnswer: 9"),
        ("interactive", "Look at the second step."),
    ],
)
def test_oracle_8_what_is_trained_never_shows_the_hint(
    tmp_path: Path, strategy: str, hint: str | None, form: str
) -> None:
    """The hint that the first problem is asked with stands in no prompt that is trained; all are the plain
    ones. A prompt that holds it was asked indeed.
    """
    asked: list[str] = []

    def answer(prompt: Any, prefix: str) -> str:
        asked.append(json.dumps(prompt))
        return right(prompt).removeprefix(prefix) if helped(prompt, prefix) else "Answer: 0"

    def own(row: Any) -> Any:
        return row["prompt"] if form == "text" else [{"role": "user", "content": row["prompt"]}]

    rows = {row["id"]: {**row, "prompt": own(row)} for row in ROWS}
    teacher = ScriptedPolicy(lambda prompts: ["Look at the second step."] * len(prompts))
    found, _ = sampled(
        Stub(answer), tmp_path, rows=list(rows.values()), strategy=strategy, teacher_policy=teacher
    )
    assert len(found.records) == 4 * len(ROWS)
    assert all(record["prompt"] == own(BY_ID[record["problem"]]) for record in found.records)
    assert all(row["prompt"] == own(BY_ID[row["id"]]) for row in rows.values())
    if hint is not None:
        assert any(hint in text for text in asked)
        assert not any(hint in json.dumps(record["prompt"]) for record in found.records)
    else:
        assert {*asked} == {json.dumps(row["prompt"]) for row in rows.values()}, (
            "its prompts are the plain ones"
        )


def test_the_teacher_sees_the_last_wrong_response_and_the_student_the_explanation(tmp_path: Path) -> None:
    seen: list[Any] = []

    def answer(prompt: Any, prefix: str) -> str:
        if isinstance(prompt, str):
            return "Answer: 0"
        seen.append(prompt)
        return right(prompt)

    asked: list[str] = []

    def explain(prompts: Sequence[str]) -> list[str]:
        asked.extend(prompts)
        return ["The last line forgets 4."] * len(prompts)

    _, ledger = sampled(
        Stub(answer), tmp_path, strategy="interactive", teacher_policy=ScriptedPolicy(explain), min_correct=1
    )
    assert len(asked) == len(ROWS) and all("Answer: 0" in text for text in asked)
    assert [turn["role"] for turn in seen[0]] == ["user", "assistant", "user"]
    assert seen[0][1]["content"] == "Answer: 0" and "forgets 4" in seen[0][2]["content"]
    assert ledger.of("teacher")["samples"] == len(ROWS)


def test_a_teacher_that_says_nothing_is_counted_and_the_student_looks_itself(tmp_path: Path) -> None:
    """Six problems, the first of two attempts each without and the second with an explanation."""
    said = iter([" ", "The last line forgets 4."])
    heard: list[str] = []

    def answer(prompt: Any, prefix: str) -> str:
        if not isinstance(prompt, str):
            heard.append(prompt[-1]["content"])
        return right(prompt) if "forgets 4" in str(prompt) else "Answer: 0"

    def explain(prompts: Sequence[str]) -> list[str]:
        return [next_said] * len(prompts) if (next_said := next(said)) else []

    found, _ = sampled(
        Stub(answer), tmp_path, strategy="interactive", teacher_policy=ScriptedPolicy(explain), min_correct=1
    )
    assert found.notes["guided/unexplained"] == 6 and found.notes["guided/rescued"] == 6
    assert [text.startswith("Go through this solution again") for text in heard] == [True] * 6 + [False] * 6


def test_numbers_where_help_makes_nothing_right(tmp_path: Path) -> None:
    """p1 is right by itself, in 2 of 2; the other five are asked 3 times more: 12 + 15 answers for 2."""
    policy = Stub(lambda prompt, prefix: right(prompt) if row_of(prompt)["id"] == "p1" else "Answer: 0")
    found, _ = sampled(policy, tmp_path, samples=2, min_correct=1, max_resample=3)
    guided_notes = {key: value for key, value in found.notes.items() if key.startswith(("guided", "per"))}
    assert guided_notes == {
        "guided/needed": 5, "guided/rescued": 0, "guided/generations": 15, "guided/share": 0, "per_kept": 13.5
    }  # fmt: skip


def test_numbers_where_help_makes_some_answers_right_but_no_problem_has_enough(tmp_path: Path) -> None:
    """2 of 3 wanted, all with help: 12 + 12 answers for 12, and nothing to divide by the rescued ones."""
    policy = Stub(
        lambda prompt, prefix: right(prompt).removeprefix(prefix) if helped(prompt, prefix) else "Answer: 0"
    )
    found, _ = sampled(policy, tmp_path, samples=2, min_correct=3, max_resample=2)
    assert (found.notes["guided/needed"], found.notes["guided/rescued"]) == (6, 0)
    assert (found.notes["guided/share"], found.notes["per_kept"]) == (1.0, 2.0)
    assert "guided/per_rescue" not in found.notes and len(found.records) == 12


def test_answers_that_leave_steps_out_show_in_their_lines(tmp_path: Path) -> None:
    """The gold solutions have four lines, their answer's among them; a shortcut has one of them."""
    policy = Stub(
        lambda prompt, prefix: right(prompt).splitlines()[-1] if helped(prompt, prefix) else "Answer: 0"
    )
    found, _ = sampled(policy, tmp_path, strategy="answer")
    assert found.notes["guided/lines"] == 0.25


def test_numbers_where_nothing_is_right_name_no_price(tmp_path: Path) -> None:
    policy = Stub(lambda prompt, prefix: "Answer: 0")
    found, _ = sampled(policy, tmp_path, samples=2, keep_gold=True)
    assert not {"per_kept", "guided/per_rescue", "guided/overlap", "guided/lines"} & set(found.notes)
    assert [record["completion"] for record in found.records] == [answer_of(row) for row in ROWS]


def test_no_more_answers_are_trained_than_are_wanted_and_the_rest_is_counted(tmp_path: Path) -> None:
    """24 right ones, 5 wanted: 19 are cut. Fewer wanted are a part of more wanted; the order stays."""
    policy = Stub(lambda prompt, prefix: right(prompt))
    whole, _ = sampled(policy, tmp_path / "all", samples=4)
    five, _ = sampled(policy, tmp_path / "5", samples=4, keep_at_most=5)
    nine, _ = sampled(policy, tmp_path / "9", samples=4, keep_at_most=9)
    more, _ = sampled(policy, tmp_path / "99", samples=4, keep_at_most=99)
    assert len(five.records) == 5 and five.notes["cut"] == 19 and "cut" not in whole.notes
    assert five.records == [record for record in nine.records if record in five.records]
    assert nine.records == [record for record in whole.records if record in nine.records]
    assert more.records == whole.records and more.notes["cut"] == 0
    once, _ = sampled(policy, tmp_path / "once", samples=4, keep_at_most=5, unique=True)
    assert len({record["problem"] for record in once.records}) == 5 and once.notes["cut"] == 1


def test_what_was_given_stays_untrained_among_answers_by_lot(tmp_path: Path) -> None:
    policy = Stub(
        lambda prompt, prefix: right(prompt).removeprefix(prefix) if helped(prompt, prefix) else "Answer: 0"
    )
    found, _ = sampled(policy, tmp_path, mask_prefix=True, keep_at_most=7)
    assert len(found.records) == 7 and all(record["spans"][0][0] > 0 for record in found.records)


def test_the_lot_falls_on_every_answer_alike() -> None:
    """2 of 4 in 2000 draws: each in half of them, three standard errors are 0.034."""
    four = [
        Attempt(
            row=ROWS[n % 2], number=n // 2, verdict=Verdict(status="right"),
            completion=Completion(text="", ids=(), prompt_tokens=0, finish="stop"),
        )
        for n in range(4)
    ]  # fmt: skip
    draws = [drawn(four, 2, f"7/{seed}") for seed in range(2000)]
    shares = [sum(one in draw for draw in draws) / 2000 for one in four]
    assert shares == pytest.approx([0.5] * 4, abs=0.034)
    assert drawn(four[::-1], 2, "7/1") == drawn(four, 2, "7/1")[::-1]


def test_oracle_9_every_stored_answer_is_right_when_it_is_judged_again(tmp_path: Path) -> None:
    draw = random.Random(1)
    policy = Stub(lambda prompt, prefix: right(prompt).removeprefix(prefix) if draw.random() < 0.4 else "7")
    found, _ = sampled(policy, tmp_path)
    rows = {row["id"]: row for row in ROWS}
    verdicts = build("Verifier", "number", None).verify(
        [rows[record["problem"]] for record in found.records],
        [record["completion"] for record in found.records],
    )
    assert found.records and all(verdict.right for verdict in verdicts)


def test_oracle_11_the_ledger_counts_what_was_generated(tmp_path: Path) -> None:
    draw = random.Random(2)
    policy = Stub(lambda prompt, prefix: right(prompt).removeprefix(prefix) if draw.random() < 0.3 else "7")
    found, ledger = sampled(policy, tmp_path)
    assert ledger.total()["samples"] == policy.calls == found.notes["attempts"]
    assert sum(row["samples"] for row in ledger.by_purpose().values()) == policy.calls


def test_the_gold_solutions_come_first_and_are_kept(tmp_path: Path) -> None:
    make = guided(Gsi.Config(rounds=1, gold_epochs=2.0), run_of(seed=0))
    found = make(0, ROWS, None, None, None)
    assert found.keep_as == "gold" and found.epochs == 2.0
    assert found.records[0]["completion"] == answer_of(ROWS[0])
    assert make(2, ROWS, None, None, None) is None


def test_oracle_10_every_round_trains_from_the_same_weights(tmp_path: Path) -> None:
    """From base that is None each time; from gold the weights after the solutions, which nobody changes."""
    run = run_of()
    for start in ("base", "gold"):
        begun: list[tuple[Path | None, str]] = []

        def train(state: RoundState, weights: Path | None, begun: Any = begun) -> None:
            begun.append((weights, "" if weights is None else (weights / "weights").read_text()))
            state.final.mkdir()
            (state.final / "weights").write_text(f"after round {state.index}")

        run_rounds(
            RolloutSampler(name="gsi", next=guided(Gsi.Config(rounds=3, samples=2, start=start), run)),
            tmp_path / start, seed=7, rows=ROWS, train=train, keep=lambda name, final: None,
            services=lambda protocol, name: build(protocol, name, None),
            policy=lambda weights: Stub(lambda prompt, prefix: right(prompt)),
            ledger=Ledger(tmp_path / start),
        )  # fmt: skip
        assert len(begun) == 4
        wanted = (None, "") if start == "base" else (tmp_path / "gold/rounds/000/final", "after round 0")
        assert begun[0] == (None, "") and set(begun[1:]) == {wanted}
