"""The verifier ``reasoning_gym``: the package's scores on answers as models write them."""

from __future__ import annotations

import importlib.metadata
import json
import random
from pathlib import Path
from typing import Any

import pytest

from llmfw.core.errors import CanaryError, DataError, ResourceError
from llmfw.core.verifiers import gym
from llmfw.core.verifiers.canaries import Checked
from llmfw.core.verifiers.gym import ReasoningGym, build

SUM = {"question": "State the result: 4 + 3 =", "answer": "7", "metadata": {}}


def row(task: str, entry: dict[str, Any], **meta: Any) -> dict[str, Any]:
    return {"id": f"{task}-1", "prompt": "?", "answer": "7", "meta": {"task": task, "entry": entry, **meta}}


def test_without_the_package_or_with_another_version_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gym.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ResourceError, match=r"run: python -m pip install reasoning-gym==0\.1\.25"):
        build()
    monkeypatch.setattr(gym.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(gym.importlib.metadata, "version", lambda name: "0.2.0")
    with pytest.raises(ResourceError, match=r"0\.2\.0 is installed"):
        build()


@pytest.mark.parametrize(
    ("meta", "what"),
    [
        ({}, "doesn't name the task"),
        ({"task": "chain_sum"}, "doesn't name the task"),
        ({"task": "number_sorting", "entry": {"answer": "exit()"}}, "would evaluate what the row says"),
    ],
)
def test_a_row_of_another_kind_is_an_error_that_names_it(meta: dict[str, Any], what: str):
    with pytest.raises(DataError, match=f"row r1: .*{what}"):
        ReasoningGym().verify([{"id": "r1", "prompt": "?", "answer": "7", "meta": meta}], ["7"])


@pytest.fixture(scope="module")
def package() -> Any:
    return pytest.importorskip("reasoning_gym", reason="pip install reasoning-gym==0.1.25")


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("response", "status", "score"),
    [
        ("4 + 3 is 6, no, 7.\n<answer>7</answer>", "right", 1.0),
        ("<answer>6</answer> or rather <answer> 7 </answer>", "right", 1.0),
        ("Answer: 7.", "right", 1.0),
        ("Answer: $7$", "right", 1.0),
        ("\\boxed{7}", "right", 1.0),
        ("7", "right", 1.0),
        ("+07.00", "right", 1.0),
        ("Answer: 17", "wrong", 0.5),  # the package: 7 is one of its two characters
        ("Answer: 6", "wrong", 0.0),
        ("Let me see.\nI don't know.", "unparsed", 0.0),
        ("", "unparsed", 0.0),
        ("<answer></answer>", "unparsed", 0.0),
    ],
)
def test_the_score_is_the_packages_own(response: str, status: str, score: float):
    (verdict,) = ReasoningGym().verify([row("chain_sum", SUM)], [response])
    assert (verdict.status, verdict.score) == (status, score)


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    "task",
    ["chain_sum", "countdown", "spell_backward", "number_sorting", "bitwise_arithmetic", "rotate_matrix",
     "gcd", "word_sorting", "prime_factorization", "simple_equations", "string_insertion",
     "sentence_reordering"],
)  # fmt: skip
def test_the_packages_own_answers_are_right_and_the_canaries_hold(task: str):
    from reasoning_gym.factory import create_dataset

    made = create_dataset(task, size=3, seed=5)
    entries = [json.loads(json.dumps(made[index], default=str)) for index in range(3)]
    rows = [{**row(task, entry), "answer": entry["answer"]} for entry in entries]
    told = Checked(build(), "reasoning_gym").verify(
        rows, [f"So:\nAnswer: {one['answer']}" for one in entries]
    )
    assert [verdict.status for verdict in told] == ["right"] * 3


@pytest.mark.usefixtures("package")
def test_a_scorer_that_says_right_to_everything_is_found_by_its_canaries():
    """``game_of_life_halting`` of 0.1.25 compares ``bool(answer)`` with ``bool("True")``: any text does."""
    entry = {"question": "?", "answer": "True", "metadata": {}}
    with pytest.raises(CanaryError, match="game_of_life_halting-1"):
        Checked(build(), "reasoning_gym").verify([row("game_of_life_halting", entry)], ["Answer: False"])


@pytest.mark.usefixtures("package")
def test_an_answer_is_never_run(tmp_path: Path):
    """These scorers evaluate answers as Python."""
    file = tmp_path / "touched"
    evil = f"open({str(file)!r}, 'w')"
    matrix = {"question": "?", "answer": "1 2 3", "metadata": {}}
    formula = {"question": "?", "answer": "x**2 + C", "metadata": {"integrand": "2*x", "variable": "x"}}
    sums = {"question": "?", "answer": "1 + 2", "metadata": {"numbers": [1, 2], "target": 3}}
    rows = [row("spiral_matrix", matrix), row("simple_integration", formula), row("countdown", sums)]
    told = ReasoningGym().verify(rows, [f"<answer>{evil}</answer>"] * 3)
    assert [verdict.status for verdict in told] == ["wrong"] * 3 and not file.exists()
    told = ReasoningGym().verify(
        rows, ["<answer>1 2 3</answer>", "<answer>C + x*x</answer>", "<answer>2+1</answer>"]
    )
    assert [verdict.status for verdict in told] == ["right"] * 3


@pytest.mark.usefixtures("package")
def test_an_answer_that_breaks_a_scorer_is_wrong_and_a_row_that_does_has_failed():
    """``prime_factorization`` reads an answer's factors as whole numbers, or raises."""
    entry = {"question": "?", "answer": "2 × 3", "metadata": {}}
    broken = {"question": "?", "answer": "two", "metadata": {}}
    rows = [row("prime_factorization", entry), row("prime_factorization", broken)]
    told = ReasoningGym().verify(rows, ["Answer: two times three", "Answer: 2"])
    assert [verdict.status for verdict in told] == ["wrong", "failed"]


@pytest.mark.usefixtures("package")
def test_settings_of_the_task_decide_and_wrong_ones_are_errors():
    """``puzzle24`` accepts numbers up to ``max_value``, 10 without settings."""
    entry = {"question": "?", "answer": "9 + 9 + 5 + 1", "metadata": {}}
    said = "<answer>9 + 9 + 5 + 1</answer>"
    told = ReasoningGym().verify(
        [row("puzzle24", entry), row("puzzle24", entry, config={"max_value": 8})], [said, said]
    )
    assert [verdict.status for verdict in told] == ["right", "wrong"]
    with pytest.raises(DataError, match="puzzle24 refuses its settings"):
        ReasoningGym().verify([row("puzzle24", entry, config={"most": 8})], [said])
    with pytest.raises(DataError, match="no task 'sums'"):
        ReasoningGym().verify([row("sums", entry)], [said])


@pytest.mark.usefixtures("package")
def test_scoring_leaves_the_random_numbers_alone():
    random.seed(3)
    before = random.getstate()
    ReasoningGym().verify([row("chain_sum", SUM)], ["7"])
    assert random.getstate() == before and importlib.metadata.version("reasoning-gym") == gym.VERSION
