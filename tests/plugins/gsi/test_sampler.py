"""The sheet's oracles, with policies whose answers are known."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from llmfw.core.data import answer_of
from llmfw.core.errors import DataError
from llmfw.core.generation import ScriptedPolicy
from llmfw.core.records import RolloutSampler
from llmfw.core.rounds import Ledger, RoundState, run_rounds
from llmfw.core.verifiers import build
from llmfw.plugins.gsi.plugin import Gsi
from llmfw.plugins.gsi.reference import needs_guidance
from llmfw.plugins.gsi.sampler import guided
from llmfw.plugins.rft.plugin import Rft
from llmfw.plugins.rft.sampler import rejection_sampling
from tests.toys.runs import run_of

ROWS = [
    {"id": f"p{n}", "prompt": f"{n} +2 +3 +4", "answer": str(n + 9), "level": "3",
     "solution": [f"{n}+2={n + 2}", f"{n + 2}+3={n + 5}", f"{n + 5}+4={n + 9}"]}
    for n in range(6)
]  # fmt: skip
BY_PROMPT = {row["prompt"]: row for row in ROWS}


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
    return bool(prefix) or isinstance(prompt, list) or prompt not in BY_PROMPT


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


@pytest.mark.parametrize("strategy", ["state_reset", "answer", "rationale", "interactive"])
def test_oracle_8_what_is_trained_never_shows_the_hint(tmp_path: Path, strategy: str) -> None:
    def answer(prompt: Any, prefix: str) -> str:
        return right(prompt).removeprefix(prefix) if helped(prompt, prefix) else "Answer: 0"

    teacher = ScriptedPolicy(lambda prompts: ["Look at the second step."] * len(prompts))
    found, _ = sampled(Stub(answer), tmp_path, strategy=strategy, teacher_policy=teacher)
    rows = {row["id"]: row for row in ROWS}
    for record in found.records:
        row = rows[record["problem"]]
        assert record["prompt"] == row["prompt"]
        assert row["answer"] not in record["prompt"].split()


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
