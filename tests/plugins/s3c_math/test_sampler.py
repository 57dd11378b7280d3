"""The sampler with models whose answers are known: folds, the pool, roll-outs, words, the mix."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmfw import LlmfwError
from llmfw.core.data import PLACE, answer_of, chain_of, first_wrong_step
from llmfw.core.generation import ScriptedPolicy
from llmfw.core.rounds import Ledger
from llmfw.core.verifiers import build
from llmfw.plugins.s3c_math.mix import corrected_row, drafts, wanted
from llmfw.plugins.s3c_math.plugin import S3cMath
from llmfw.plugins.s3c_math.pool import Wrong, called_wrong, dealt
from llmfw.plugins.s3c_math.reference import called_wrong as chance_called_wrong
from llmfw.plugins.s3c_math.sampler import corrections
from llmfw.plugins.s3c_math.segments import from_record, repaired
from llmfw.plugins.s3c_math.solution import steps_of


def row(n: int) -> dict[str, Any]:
    return {
        "id": f"p{n}", "prompt": f"{n} +2 +3", "answer": str(n + 5), "level": 2,
        "solution": [f"{n}+2={n + 2}", f"{n + 2}+3={n + 5}"],
        "meta": {"start": n, "operations": [["+", 2], ["+", 3]], "style": "compact"},
    }  # fmt: skip


ROWS = [row(n) for n in range(10)]
BY_PROMPT = {one["prompt"]: one for one in ROWS}
Answer = Callable[[dict[str, Any], str, int], str]


class Model:
    """Plays a fold's model: ``answer(row, beginning, number) -> text``, cut at the stop."""

    def __init__(self, answer: Answer) -> None:
        self.answer, self.steps, self.rolled = answer, list[tuple[str, str]](), list[tuple[str, str]]()
        self.tokenizer = None

    def generate(self, prompts: Sequence[Any], *, prefix: Any = "", **sampling: Any) -> Any:
        openings = [prefix] * len(prompts) if isinstance(prefix, str) else list(prefix)
        stop = sampling.pop("stop", ())
        pairs = [
            (prompt, opening)
            for prompt, opening in zip(prompts, openings, strict=True)
            for _ in range(sampling.get("samples", 1))
        ]
        (self.steps if stop else self.rolled).extend(pairs)
        texts = iter(
            self.answer(BY_PROMPT[prompt], opening, at).split("\n" if stop else "\0")[0]
            for at, (prompt, opening) in enumerate(pairs)
        )
        policy = ScriptedPolicy(lambda asked: [next(texts) for _ in asked])
        return policy.generate(prompts, prefix=prefix, **sampling)


def wrong_once(one: dict[str, Any], begun: str, number: int) -> str:
    """A wrong next step where a step is asked for, and the same wrong end behind it."""
    return "99+1=100\nAnswer: 100"


def sampled(
    folder: Path, model: Any, *, rows: Sequence[Any] = ROWS, words: Any = None, **settings: Any
) -> Any:
    """(the last round, its ledger); the folds' models are all ``model``, or ``model(fold)``."""
    settings = {"folds": 2, "rollouts": 2, "candidates": 2, "audit": 0, **settings}
    models = {f"fold_{n}": model(n) if callable(model) else model for n in range(settings["folds"])}
    run = SimpleNamespace(seed=7, policy=lambda name: words if name == "teacher" else models[name])
    make = corrections(S3cMath.Config(**settings), run)
    index = 0 if settings.get("source") == "perturbed" else settings["folds"]
    policy = SimpleNamespace(tokenizer=None)
    with (ledger := Ledger(folder)).sampling(index):
        found = make(index, rows, policy, lambda protocol, name: build(protocol, name, None), ledger)
        assert make(index + 1, rows, policy, None, None) is None
    return found, ledger


def corrected(found: Any) -> list[dict[str, Any]]:
    return [record for record in found.records if record["source"] == "s3c"]


def test_oracle_6_no_step_comes_from_a_model_that_was_trained_on_its_problem(tmp_path: Path) -> None:
    """Each problem is in one fold, is left out of that fold's round, and is sampled by that model alone."""
    models = {n: Model(wrong_once) for n in range(5)}
    run = SimpleNamespace(seed=7)
    make = corrections(S3cMath.Config(folds=5), run)
    rounds = [make(n, ROWS, None, None, None) for n in range(5)]
    trained = {n: {record["problem"] for record in one.records} for n, one in enumerate(rounds)}
    assert [one.keep_as for one in rounds] == [f"fold_{n}" for n in range(5)]
    assert all(one.start == "base" and len(one.records) == 8 for one in rounds)
    found, _ = sampled(tmp_path, lambda n: models[n], folds=5, share_corrected=1.0)
    seen = {n: {BY_PROMPT[prompt]["id"] for prompt, _ in model.steps} for n, model in models.items()}
    assert all(not seen[n] & trained[n] for n in range(5))
    assert sorted(name for names in seen.values() for name in names) == sorted(one["id"] for one in ROWS)
    for record in found.records:
        assert record["fold"] == dealt(ROWS, 5, 7)[record["problem"]]
        assert record["problem"] not in trained[record["fold"]]


def test_steps_are_asked_for_behind_the_gold_beginning_and_roll_outs_behind_the_candidate(
    tmp_path: Path,
) -> None:
    model = Model(wrong_once)
    sampled(tmp_path, model)
    begun = {"", "0+2=2\n"}
    assert {opening for prompt, opening in model.steps if prompt == "0 +2 +3"} == begun
    assert {opening for prompt, opening in model.rolled if prompt == "0 +2 +3"} == {
        f"{opening}99+1=100\n" for opening in begun
    }


@pytest.mark.parametrize("success", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("rollouts", [1, 2, 4])
def test_oracle_7_a_step_is_called_wrong_as_often_as_no_roll_out_succeeds(
    tmp_path: Path, success: float, rollouts: int
) -> None:
    """(1 - r)^K: 1 of r = 0, 0 of r = 1, 0.7^4 = 0.2401; 400 cases, so 3.5 standard errors are below 0.09."""
    assert chance_called_wrong(0.3, 4) == pytest.approx(0.2401)
    draw = random.Random(f"{success} {rollouts}")
    attempts = [[SimpleNamespace(right=draw.random() < success) for _ in range(rollouts)] for _ in range(400)]
    share = sum(map(called_wrong, attempts)) / 400  # type: ignore[arg-type]
    assert share == pytest.approx(chance_called_wrong(success, rollouts), abs=0.09 * (0 < success < 1))


@pytest.mark.parametrize("success", [0.0, 1.0])
def test_oracle_7_the_sampler_keeps_what_never_succeeds_and_drops_what_always_does(
    tmp_path: Path, success: float
) -> None:
    def answer(one: dict[str, Any], begun: str, number: int) -> str:
        return f"99+1=100\nAnswer: {one['answer'] if success else 0}"

    if not success:
        found, _ = sampled(tmp_path, Model(answer))
        assert found.notes["steps/wrong"] == 20 and len(corrected(found)) == 13
        assert found.notes["label/right_truly_wrong"] == 0
        assert corrected(found)[0]["pass_at_k"] == {"k": 2, "n_ok": 0}
        return
    with pytest.raises(LlmfwError, match=r"error\[NO-ERRORS\] s3c_math.source: no step of 10 problems"):
        sampled(tmp_path, Model(answer))
    both, _ = sampled(tmp_path / "both", Model(answer), source="both")
    assert both.notes["label/right_truly_wrong"] == 1.0 and both.notes["steps/wrong"] == 0


def test_oracle_7_right_steps_are_audited_and_compared_with_the_formula(tmp_path: Path) -> None:
    """Roll-outs alternate right and wrong: of two one is right, so none is called wrong; of one, half are."""

    def answer(one: dict[str, Any], begun: str, number: int) -> str:
        return "99+1=100" if not begun else f"Answer: {one['answer'] if number % 2 else 0}"

    two, _ = sampled(tmp_path / "two", Model(answer), audit=4, source="both")
    one, ledger = sampled(tmp_path / "one", Model(answer), audit=4, rollouts=1, source="both")
    assert (two.notes["audit/called_wrong"], two.notes["audit/success"]) == (0.0, 0.5)
    assert two.notes["audit/expected"] == 0.25
    assert one.notes["audit/called_wrong"] == one.notes["audit/expected"] == 0.5
    assert ledger.of("audit")["samples"] == 8


def test_oracle_8_a_candidate_that_is_the_gold_step_is_never_called_wrong(tmp_path: Path) -> None:
    """White space apart; and though no roll-out ever succeeds."""

    def answer(one: dict[str, Any], begun: str, number: int) -> str:
        at = begun.count("\n")
        return f" {one['solution'][min(at, 1)].replace('=', ' = ')} \nAnswer: 0"

    found, ledger = sampled(tmp_path, Model(answer), share_corrected=0.0)
    assert found.notes["steps/gold"] == 1.0 and found.notes["steps/wrong"] == 0
    assert ledger.of("rollout")["samples"] == 0 and not corrected(found)


def test_empty_unfinished_and_repeated_candidates_are_dropped(tmp_path: Path) -> None:
    model = Model(lambda one, begun, number: ["", "99+1=100\nAnswer: 1"][number % 2])
    found, ledger = sampled(tmp_path, model, candidates=4)
    assert found.notes["steps/unfinished"] == 0.5 and found.notes["steps/wrong"] == 20
    assert ledger.of("step")["samples"] == 10 * 2 * 4 and ledger.of("rollout")["samples"] == 20 * 2


def test_oracle_9_every_record_comes_back_to_the_gold_solution(tmp_path: Path) -> None:
    gold = {one["id"]: answer_of(one) for one in ROWS}
    for settings in (
        {},
        {"errors": 2},
        {"level": "solution"},
        {"reflections": False},
        {"source": "perturbed"},
    ):
        found, _ = sampled(tmp_path / str(settings), Model(wrong_once), **settings)
        assert corrected(found)
        for record in found.records:
            segments = from_record(record["segments"])
            assert repaired(segments) == gold[record["problem"]]
            assert "".join(one.text for one in segments) == record["completion"]


def test_oracle_10_the_mix_has_the_share_that_was_asked_for_and_the_same_order_again(tmp_path: Path) -> None:
    """Of ten plain ones and a share of 0.5 there are ten corrected ones, with 0.57 there are 13."""
    counts = {}
    for share in (0.0, 0.5, 0.57, 1.0):
        found, _ = sampled(tmp_path / str(share), Model(wrong_once), share_corrected=share)
        again, _ = sampled(tmp_path / f"{share} again", Model(wrong_once), share_corrected=share)
        assert found.records == again.records
        plain = [record for record in found.records if record["source"] == "plain"]
        assert len(plain) + len(corrected(found)) == len(found.records)
        assert len({record["id"] for record in found.records}) == len(found.records)
        counts[share] = (len(plain), len(corrected(found)))
    assert counts == {0.0: (10, 0), 0.5: (10, 10), 0.57: (10, 13), 1.0: (0, 20)}
    assert [wanted(395, 532 / 927, 900), wanted(10, 0.57, 4), wanted(0, 1.0, 7)] == [532, 4, 7]


def test_errors_are_placed_evenly_and_told_in_a_table(tmp_path: Path) -> None:
    """400 problems of two steps: the first error is at either as often, within 3.5 standard errors (70)."""
    rows = [{**row(0), "id": f"q{n}"} for n in range(400)]
    pool = {(one["id"], at): [Wrong(text="x")] for one in rows for at in (0, 1)}
    first = [min(one.wrong) for one in drafts(rows, pool, 1, 0) if one.variant == 0]
    assert len(first) == 400 and abs(sum(first) - 200) < 35
    found, _ = sampled(tmp_path, Model(wrong_once), share_corrected=0.5)
    assert sum(line["solutions"] for line in found.tables["errors"]) == 10
    assert {line["steps"] for line in found.tables["errors"]} == {2}


def test_a_whole_attempts_error_is_told_where_it_is(tmp_path: Path) -> None:
    """Of ten problems the same places as with steps; once the attempt's first line was told."""
    step, whole = (
        sampled(tmp_path / level, None, source="perturbed", share_corrected=0.5, level=level)[0].tables[
            "errors"
        ]
        for level in ("step", "solution")
    )
    assert step == whole and {line["step"] for line in whole} == {1, 2}
    twice, _ = sampled(tmp_path / "two", Model(wrong_once), errors=2, share_corrected=0.5)
    assert {line["step"] for line in twice.tables["errors"]} == {1}


def test_two_errors_stand_in_one_solution_and_each_is_masked(tmp_path: Path) -> None:
    found, _ = sampled(tmp_path, Model(wrong_once), errors=2, share_corrected=0.5)
    record = corrected(found)[0]
    assert record["n_errors"] == 2 and record["completion"].count("99+1=100\n") == 2
    trained = "".join(record["completion"][a:b] for a, b in record["spans"])
    assert "99+1=100\n" not in trained and trained.count("Wait") == 2


def test_unmasked_records_train_everything_and_have_no_spans(tmp_path: Path) -> None:
    """Oracle 2: a row without spans is an ordinary row of prompt and completion."""
    masked, _ = sampled(tmp_path / "masked", Model(wrong_once))
    full, _ = sampled(tmp_path / "full", Model(wrong_once), mask_wrong=False)
    assert not any("spans" in record for record in full.records)
    assert [{k: v for k, v in one.items() if k != "spans"} for one in masked.records] == full.records
    assert all("spans" in record for record in corrected(masked))


def test_perturbed_steps_are_truly_wrong_and_need_no_model(tmp_path: Path) -> None:
    found, ledger = sampled(tmp_path, None, source="perturbed", candidates=3)
    assert ledger.total()["samples"] == 0 and found.keep_as is None
    for record in corrected(found):
        one = next(one for one in ROWS if one["id"] == record["problem"])
        lines = [segment["text"].rstrip("\n") for segment in record["segments"]]
        at = next(n for n, segment in enumerate(record["segments"]) if segment["type"] == "wrong")
        assert first_wrong_step(one, lines[: at + 1]) == at
        assert record["segments"][at + 1]["text"].startswith("Wait, ")


def test_a_whole_attempt_goes_on_from_its_error_and_is_masked(tmp_path: Path) -> None:
    """Perturbed chains are carried on rightly from the wrong value, to an answer that isn't the gold one."""
    found, _ = sampled(tmp_path, None, source="perturbed", level="solution")
    for record in corrected(found):
        one = next(one for one in ROWS if one["id"] == record["problem"])
        wrong = [s["text"].rstrip("\n") for s in record["segments"] if s["type"] == "wrong"]
        assert len(wrong) == 3 and wrong[-1].startswith("Answer: ")
        assert wrong[-1] == f"Answer: {wrong[-2].rpartition('=')[2]}"
        assert first_wrong_step(one, wrong) is not None
        assert record["spans"][0][0] == sum(len(line) + 1 for line in wrong)
        assert len(chain_of(one).operations) == 2


def teacher(improvement: Callable[[str], str]) -> ScriptedPolicy:
    """Says that the step is off, and gives an improvement made of the right step in its prompt."""

    def explain(prompts: Sequence[str]) -> list[str]:
        rights = [text.split("The right step:\n")[1].split("\n")[0] for text in prompts]
        return [f"Reflection: The step is off.\nStep: {improvement(right)}" for right in rights]

    return ScriptedPolicy(explain)  # type: ignore[arg-type]


def taught(folder: Path, improvement: Callable[[str], str]) -> Any:
    return sampled(folder, Model(wrong_once), words=teacher(improvement), annotator="teacher")


def test_a_teacher_words_reflection_and_improvement_and_wrong_improvements_are_rejected(
    tmp_path: Path,
) -> None:
    good, ledger = taught(tmp_path / "good", lambda right: right)
    texts = [s["text"] for r in corrected(good) for s in r["segments"] if s["type"] == "reflect"]
    assert set(texts) == {"Wait, the step is off.\n"} and ledger.of("teacher")["samples"] == 13
    some, _ = taught(tmp_path / "some", lambda right: f"{right}0" if right.startswith("0") else right)
    assert some.notes["mix/rejected"] == 13 - len(corrected(some)) > 0


def test_a_mix_that_nothing_corrected_came_into_is_no_plain_training_in_silence(tmp_path: Path) -> None:
    """Once a teacher of whom nothing can be used, and a share of less than half a solution, trained plain
    solutions alone without a word.
    """
    with pytest.raises(
        LlmfwError, match=r"error\[NO-CORRECTIONS\] s3c_math.annotator: .* of 13 sol"
    ) as useless:
        taught(tmp_path / "bad", lambda right: f"{right}0")
    with pytest.raises(
        LlmfwError, match=r"error\[NO-CORRECTIONS\] s3c_math.share_corrected: a share of 0.01"
    ):
        sampled(tmp_path / "few", Model(wrong_once), share_corrected=0.01)
    assert useless.value.exit_code == 3


def test_what_the_sampler_cant_use_is_refused_in_one_line_with_the_remedy(tmp_path: Path) -> None:
    run = SimpleNamespace(seed=0)
    with pytest.raises(LlmfwError, match=r"error\[SETTINGS\] s3c_math.errors:.*; set s3c_math.errors=1"):
        corrections(S3cMath.Config(level="solution", errors=2), run)
    for mark in ("", "Wait a moment", " Wait"):
        with pytest.raises(LlmfwError, match=r"error\[SETTINGS\] s3c_math.mark:.*; give one word"):
            corrections(S3cMath.Config(mark=mark), run)
    make = corrections(S3cMath.Config(folds=5), run)
    with pytest.raises(LlmfwError, match=r"error\[FOLDS\] s3c_math.folds: 3 problems.*; give more") as few:
        make(0, ROWS[:3], None, None, None)
    assert few.value.exit_code == 2
    for bad in ({"id": "x", "prompt": "1 +1", "answer": "2"}, {"id": "x", "prompt": "1", "completion": "2"},
                {**ROWS[0], "solution": ["a\nb"]}, {**ROWS[0], "solution": ["a", " "]}):  # fmt: skip
        with pytest.raises(
            LlmfwError, match=r"error\[NO-STEPS\] (answer|solution): row .*; give rows with prompt, answer"
        ):
            make(0, [*ROWS, bad], None, None, None)
    with pytest.raises(LlmfwError, match=r"^error\[NO-STEPS\] my.jsonl:7:solution: row 'x' ") as placed:
        make(0, [*ROWS, {"id": "x", "prompt": "1 +1", "answer": "2", PLACE: "my.jsonl:7"}], None, None, None)
    assert placed.value.exit_code == 3
    assert steps_of({**ROWS[0], "solution": "a\nb\n"}) == ["a", "b"]


def test_a_corrected_solution_has_an_id_that_no_chain_has() -> None:
    """Chains are named by what they are, 3-3+8 and 3-3+8+1: a second variant was once ``...+1``."""
    rows = [
        {"id": "3-3+8", "prompt": "3 -3 +8", "answer": "8", "solution": ["3-3=0", "0+8=8"]},
        {"id": "3-3+8+1", "prompt": "3 -3 +8 +1", "answer": "9", "solution": ["3-3=0", "0+8=8", "8+1=9"]},
    ]
    pool = {("3-3+8", at): [Wrong(text="3-3=1"), Wrong(text="3-3=2")] for at in (0, 1)}
    made = [corrected_row(draft, [], None)["id"] for draft in drafts(rows, pool, 1, 7)]
    assert len(made) == 4 and not {*made} & {row["id"] for row in rows}
