"""The frame of self-training: a round on solutions, rounds on right answers, and when there are none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmfw.core.data import PLACE
from llmfw.core.errors import LlmfwError
from llmfw.core.generation import Collected, ScriptedPolicy, SelfTrainingConfig, self_training
from llmfw.core.models.byte_level import byte_tokenizer
from llmfw.core.rounds import Ledger
from llmfw.core.verifiers import build
from tests.architecture.conftest import ROOT
from tests.toys.runs import run_of

ROWS = [
    {"id": f"p{n}", "prompt": f"{n} +2", "answer": str(n + 2), "solution": [f"{n}+2={n + 2}"]}
    for n in range(2)
]
RUN = run_of()


def asked(next_round: Any, place: Path | Ledger, texts: list[str], index: int = 0, rows: Any = None) -> Any:
    """What a round makes of these answers."""
    ledger, answers = place if isinstance(place, Ledger) else Ledger(place), iter(texts)
    policy = ScriptedPolicy(lambda prompts: [next(answers) for _ in prompts], byte_tokenizer())
    with ledger.sampling(index):
        services = lambda protocol, name: build(protocol, name, None)  # noqa: E731
        return next_round(index, ROWS if rows is None else rows, policy, services, ledger)


def frame(collect: Any = None, **settings: Any) -> Any:
    def attempts(rollouts: Any, rows: Any) -> Collected:
        groups = rollouts.attempt(rows, purpose="sample", samples=2)
        return Collected(attempts=[one for group in groups for one in group])

    config = SelfTrainingConfig(samples=2, **settings)
    return self_training(config, RUN, collect or attempts, name="mine")


RIGHT = ["Answer: 2", "Answer: 9", "Answer: 3", "Answer: 3"]
WRONG = ["Answer: 9"] * 4


def test_the_first_round_trains_the_solutions_and_the_others_what_is_right(tmp_path: Path):
    next_round = frame(rounds=2, gold_epochs=3)
    first = asked(next_round, tmp_path, [])
    assert [row["id"] for row in first.records] == ["p0.gold", "p1.gold"]
    assert first.keep_as == "gold" and first.epochs == 3
    second = asked(next_round, tmp_path, RIGHT, index=1)
    assert [row["completion"] for row in second.records] == ["Answer: 2", "Answer: 3", "Answer: 3"]
    assert second.start == "base" and second.epochs is None
    assert second.notes["right"] == 0.75 and second.notes["attempts"] == 4
    assert asked(next_round, tmp_path, [], index=3) is None


def test_without_that_round_they_end_one_earlier(tmp_path: Path):
    next_round = frame(rounds=1, gold=False)
    assert len(asked(next_round, tmp_path, RIGHT).records) == 3
    assert asked(next_round, tmp_path, [], index=1) is None


def test_kept_solutions_stand_beside_the_right_answers_under_ids_of_the_round(tmp_path: Path):
    found = asked(frame(gold=False, keep_gold=True, unique=True), tmp_path, RIGHT)
    assert [row["completion"] for row in found.records[:2]] == ["Answer: 2", "Answer: 3"]
    assert [row["id"] for row in found.records[2:]] == ["p0.gold.0", "p1.gold.0"]


def test_kept_solutions_do_not_cover_their_problems(tmp_path: Path):
    """What is sampled covers; the round on solutions itself covers all."""
    found = asked(frame(gold=False, keep_gold=True), tmp_path, ["Answer: 2", "Answer: 9"] * 2)
    assert [row.get("problem") for row in found.records] == ["p0", None, None]
    assert [row["problem"] for row in asked(frame(), tmp_path / "gold", []).records] == ["p0", "p1"]


def test_equal_answers_that_are_left_out_are_told(tmp_path: Path):
    """One answer to p0, two equal ones to p1: three records, Gini 2 (1*1 + 2*2) / (2*3) - 3/2 = 1/6."""
    notes = asked(frame(gold=False, unique=True), tmp_path, RIGHT).notes
    assert notes["before unique/records"] == 3 and notes["before unique/gini"] == pytest.approx(1 / 6)
    assert "before unique/records" not in asked(frame(gold=False), tmp_path / "all", RIGHT).notes


def test_samples_without_chance_are_warned_about(capsys: pytest.CaptureFixture[str]):
    frame(temperature=0.0)
    assert "warning[SAME-SAMPLES] at mine.temperature=0 the 2 answers" in capsys.readouterr().err
    frame(temperature=0.1)
    assert capsys.readouterr().err == ""


def test_nothing_right_is_an_error_that_names_the_settings(tmp_path: Path):
    with pytest.raises(LlmfwError, match="of 4 answers to 2 problems none.*0% right.*mine.samples") as caught:
        asked(frame(gold=False), tmp_path, WRONG)
    assert caught.value.code == "NOTHING-RIGHT"


def test_nothing_right_beside_kept_solutions_is_warned_about(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    found = asked(frame(gold=False, keep_gold=True), tmp_path, WRONG)
    assert [row["id"] for row in found.records] == ["p0.gold.0", "p1.gold.0"]
    assert "warning[NOTHING-RIGHT] round 0: of 4 answers to 2 problems none" in capsys.readouterr().err


def test_a_method_can_end_the_rounds_and_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    ended = Collected(attempts=[], ends="all is learnt")
    assert asked(frame(lambda rollouts, rows: ended, gold=False), tmp_path, []) is None
    assert "note: all is learnt: no more rounds" in capsys.readouterr().err


def test_records_of_a_methods_own_take_the_place_of_right_attempts(tmp_path: Path):
    own = [{"id": "x", "prompt": "a", "completion": "b"}]
    found = asked(frame(lambda rollouts, rows: Collected(attempts=[], rows=own), gold=False), tmp_path, [])
    assert list(found.records) == own


def test_the_start_after_solutions_needs_their_round():
    with pytest.raises(LlmfwError, match="mine.start"):
        frame(gold=False, start="gold")


def test_a_verifier_that_nobody_offers_is_refused_before_the_first_round():
    with pytest.raises(LlmfwError, match="mine.verifier: .*Verifier named 'guess'") as caught:
        frame(verifier="guess")
    assert caught.value.code == "SERVICE"


def test_the_length_of_answers_counts_the_tokens_whose_ids_nobody_told(tmp_path: Path):
    """Two answers of 5 tokens each, known by number alone, as an endpoint tells them."""

    def unseen(rollouts: Any, rows: Any) -> Collected:
        (group, _) = rollouts.attempt(rows, purpose="sample", samples=2)
        hidden = [replace(one, completion=replace(one.completion, ids=(), unseen=5)) for one in group]
        return Collected(attempts=hidden)

    assert asked(frame(unseen, gold=False), tmp_path, RIGHT).notes["length"] == 5


def test_rows_without_an_answer_are_refused_by_name(tmp_path: Path):
    with pytest.raises(LlmfwError, match="row 'q' is no problem") as caught:
        asked(frame(), tmp_path, [], rows=[{"id": "q", "prompt": "hm"}])
    assert caught.value.code == "NOT-PROBLEMS"
    with pytest.raises(LlmfwError, match="my.jsonl:3: row 'q' is no problem"):
        asked(frame(), tmp_path / "file", [], rows=[{"id": "q", "prompt": "hm", PLACE: "my.jsonl:3"}])


def test_the_example_of_the_page_samples_half_of_its_answers_hot(tmp_path: Path):
    """Two cool answers a problem, then two hot ones: 4 of each purpose, 6 of 8 right, each with its id."""
    (code,) = (ROOT / "docs" / "self-training.md").read_text().split("```python\n")[1:]
    names: dict[str, Any] = {}
    exec(code.split("```")[0], names)
    plugin_class = names["TwoTemperatures"]
    plugin = plugin_class(plugin_class.Config(gold=False, samples=2))
    ledger = Ledger(tmp_path)
    found = asked(plugin.llmfw_sampler(RUN).next, ledger, RIGHT + RIGHT)
    assert len(found.records) == 6 and len({row["id"] for row in found.records}) == 6
    assert {name: told["samples"] for name, told in ledger.by_purpose().items()} == {"sample": 4, "hot": 4}
