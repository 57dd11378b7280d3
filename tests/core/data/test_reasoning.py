"""The preset reasoning-gym: what the real package generates, and that it scores rows read from a file."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable
from typing import Any

import pytest

from llmfw.core.config import load_config
from llmfw.core.data import prepare
from llmfw.core.data.formats import canonical
from llmfw.core.data.reasoning import ReasoningGym, level_of
from llmfw.core.errors import DataError, ResourceError, UsageError
from llmfw.core.models.byte_level import byte_tokenizer
from llmfw.core.records import Row

VERSION = "0.1.25"


def installed() -> bool:
    try:
        return importlib.metadata.version("reasoning-gym") == VERSION
    except importlib.metadata.PackageNotFoundError:
        return False


needs_package = pytest.mark.skipif(not installed(), reason=f"needs reasoning-gym=={VERSION}")
ONE_DIGIT = "data.options.settings={min_terms: 2, max_terms: 3, max_digits: 1}"


def source(*overrides: str) -> ReasoningGym:
    config = load_config(overrides=["data=reasoning-gym", *overrides]).root.data
    return ReasoningGym(config, None)


def rows(*overrides: str, train: int = 20, validation: int = 5, split: str = "train") -> list[Row]:
    counts = (f"data.options.train={train}", f"data.options.validation={validation}")
    return list(source(*counts, *overrides).rows(split))


def scorer(task: str) -> Callable[[str, Any], float]:
    import reasoning_gym

    score: Callable[[str, Any], float] = reasoning_gym.get_score_answer_fn(task)
    return score


@needs_package
@pytest.mark.parametrize(
    ("task", "wrong"),
    [
        ("chain_sum", "x"),
        ("gsm_symbolic", "no number"),  # its entries hold fractions
        ("fraction_simplification", "1/1"),
        ("syllogism", "Perhaps"),
        ("countdown", "1 + 1"),  # scored by calculating: any way to the target is right
        ("number_sorting", "[]"),
    ],
)
def test_a_row_read_from_a_file_is_scored_by_the_package(task: str, wrong: str) -> None:
    score = scorer(task)
    for row in rows(f"data.options.task={task}"):
        meta = json.loads(json.dumps(row))["meta"]
        assert meta["task"] == task and meta["entry"]["question"] == row["prompt"]
        assert score(row["answer"], meta["entry"]) == 1.0
        assert score(wrong, meta["entry"]) < 0.1
        assert canonical(row, "problems")[1] == row


@needs_package
def test_a_sum_is_that_of_its_question() -> None:
    for row in rows():
        words = row["prompt"].removesuffix(" =").split(": ")[1].split(" ")
        total = int(words[0])
        for sign, term in zip(words[1::2], words[2::2], strict=True):
            total += int(term) if sign == "+" else -int(term)
        assert row["answer"] == str(total)
        assert row["level"].startswith("num_digits=")
        assert row["level"].endswith(f"num_terms={len(words[::2])}")


@needs_package
def test_the_same_options_give_the_same_rows_in_every_run() -> None:
    made = rows(ONE_DIGIT)
    assert made == rows(ONE_DIGIT) and made != rows(ONE_DIGIT, "data.options.seed=1")
    assert [row["prompt"].split(": ")[1] for row in made[:3]] == ["5 - 7 =", "6 + 9 + 7 =", "3 + 5 ="]


@needs_package
def test_more_problems_are_the_same_and_further_ones() -> None:
    assert rows(train=700)[:20] == rows()  # beyond the 500 that one seed gives
    assert rows(train=700, split="validation") == rows(split="validation")


@needs_package
def test_no_question_occurs_twice_or_on_both_sides() -> None:
    """One digit and two terms: 10 x 10 pairs with + or - are 200 questions, and all of them are given."""
    pairs = "data.options.settings={min_terms: 2, max_terms: 2, max_digits: 1}"
    made = rows(pairs, train=150, validation=50)
    held_out = rows(pairs, train=150, validation=50, split="validation")
    assert len({row["prompt"] for row in made + held_out}) == 200
    assert len({row["id"] for row in made + held_out}) == 200
    with pytest.raises(UsageError, match=r"201 problems of chain_sum .* only 200 different ones are found"):
        rows(pairs, train=151, validation=50)


@needs_package
def test_rows_become_samples() -> None:
    words = ("data=reasoning-gym", "data.options.train=8", "data.options.validation=4", ONE_DIGIT)
    prepared = prepare(load_config(overrides=list(words)).root, byte_tokenizer())
    assert (len(prepared.train), len(prepared.validation), prepared.form) == (8, 4, "problems")
    assert prepared.report.recipe["task"] == "chain_sum" and not prepared.report.warnings


@needs_package
@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("task=chain_summ", r"task: .*no task 'chain_summ'; choose from: chain_sum"),
        ("settings={min_terms: 0}", r"settings: chain_sum refuses them: min_terms must be positive"),
        ("settings={min_terms: few}", r"settings: chain_sum refuses them: "),
        ("settings={min_tems: 2}", r"settings\.min_tems: .*choose from: min_terms"),
        ("settings={size: 2}", r"settings\.size: the preset decides it"),
        ("settings={seed: 2}", r"settings\.seed: the preset decides it"),
        ("settings=2", r"settings: expected names and values"),
        ("train=0", r"train: .*give 1 or more"),
        ("validation=-1", r"validation: .*give 0 or more"),
        ("tasks=chain_sum", r"tasks: .*did you mean task\?"),
    ],
)
def test_options_that_cannot_be_used_are_refused(override: str, said: str) -> None:
    with pytest.raises(UsageError, match=r"error\[OPTION\] data\.options\." + said):
        list(source(f"data.options.{override}").rows("train"))


@needs_package
def test_a_task_whose_problems_have_no_one_answer_is_refused() -> None:
    with pytest.raises(DataError, match=r"GYM-TASK.*problems of propositional_logic have no one answer"):
        rows("data.options.task=propositional_logic")


@needs_package
def test_a_task_whose_scores_a_file_cannot_carry_is_refused() -> None:
    """Its score compares tuples, which a file gives back as lists."""
    with pytest.raises(DataError, match=r"GYM-TASK.*problems of rearc are scored otherwise"):
        rows("data.options.task=rearc", train=1, validation=0)


@needs_package
def test_a_task_that_differs_between_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    with pytest.raises(
        UsageError, match=r"ransom_note gives other problems in every process; set PYTHONHASH"
    ):
        rows("data.options.task=ransom_note")
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    assert len(rows("data.options.task=ransom_note")) == 20


def test_without_the_package_or_with_another_version_the_command_is_said() -> None:
    with pytest.raises(
        ResourceError, match=r"nowhere-gym==0\.1\.25 isn't installed; run: python -m pip install"
    ):
        source("data.package.distribution=nowhere-gym")
    found = importlib.metadata.version("pytest")
    with pytest.raises(ResourceError, match=f"but {found} is.*data.package.version={found}"):
        source("data.package.distribution=pytest")


@pytest.mark.parametrize(
    ("metadata", "level"),
    [
        ({}, None),
        ({"difficulty": 2}, 2),
        ({"difficulty": "hard"}, "hard"),
        ({"difficulty": {"b": (1, 4), "a": (2, 2)}, "a": 2, "b": 3}, "a=2, b=3"),
        ({"difficulty": {"a": (2, 2), "p": 0.5}, "a": [1]}, "p=0.5"),
        ({"difficulty": {"difficulty": 5}}, "difficulty=5"),
        ({"difficulty": {"a": (1, 2)}}, None),
        ({"difficulty": None}, None),
    ],
)
def test_the_level_is_the_problems_own_difficulty(metadata: dict[str, Any], level: object) -> None:
    assert level_of(metadata) == level
