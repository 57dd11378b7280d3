"""The presets made of CHAMP's package, with a byte tokenizer: real pairs, uncut, balanced, split."""

from __future__ import annotations

import json
import os
import zipfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from llmfw.core.config import load_config
from llmfw.core.data import Prepared, prepare
from llmfw.core.data.champ.rows import Options
from llmfw.core.data.champ.source import SETTINGS, data_file, problems
from llmfw.core.data.options import read_options
from llmfw.core.errors import DataError, LlmfwError, ResourceError, UsageError
from llmfw.core.models.byte_level import byte_tokenizer

BYTE = byte_tokenizer()


@pytest.fixture(scope="module", autouse=True)
def _one_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Judging takes ten seconds: once for this file."""
    before = os.environ.get("LLMFW_CACHE")
    os.environ["LLMFW_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    os.environ.pop("LLMFW_CACHE")
    if before is not None:
        os.environ["LLMFW_CACHE"] = before


def _prepare(*overrides: str, data: str = "champ-preferences") -> Prepared:
    return prepare(load_config(overrides=[f"data={data}", *overrides]).root, BYTE)


@pytest.mark.slow
def test_pairs_are_right_against_wrong_uncut_balanced_and_split_by_problem() -> None:
    prepared = _prepare("data.max_length=320")
    report = prepared.report
    assert prepared.max_length == 1280 and report.too_long == report.cut == report.rows_skipped == 0
    for split in report.splits.values():
        assert split.samples > 50 and split.chosen_longer == split.rejected_longer
        assert split.equal_length == 0 and split.longest <= 1280
    for example in prepared.train[:10]:  # any beginning is balanced too
        chosen, rejected = example.trained_lengths
        assert chosen != rejected
    first = [example.trained_lengths for example in prepared.train[:10]]
    assert sum(chosen > rejected for chosen, rejected in first) == 5
    by_split = [{row["problem"] for row in prepared.rows[split]} for split in ("train", "validation")]
    assert not by_split[0] & by_split[1] and len(by_split[0]) > 50
    rows = prepared.rows["train"] + prepared.rows["validation"]
    assert max(Counter(row["problem"] for row in rows).values()) <= 16
    known = {problem.id: problem for problem in problems(_file())}
    settings = defaultdict(set)
    for problem in known.values():
        for answer in problem.answers:
            settings[problem.id, answer.text].add(answer.setting)
    for row in rows:
        assert row["prompt"] == known[row["problem"]].text
        for side in ("chosen", "rejected"):
            assert settings[row["problem"], row[side]] & set(SETTINGS)
    assert "golden" not in json.dumps(report.recipe) and report.recipe["gold solutions"] == "not used"


def _file() -> Path:
    return data_file(load_config(overrides=["data=champ-preferences"]).root.data.package)


@pytest.mark.slow
def test_options_choose_lengths_gold_and_the_number_per_problem() -> None:
    natural = _prepare("data.max_length=200", "data.options.lengths=natural", "data.options.per_problem=0")
    longer = _prepare("data.max_length=200", "data.options.lengths=chosen_longer")
    few = _prepare("data.max_length=320", "data.options.per_problem=2")
    gold = _prepare("data.max_length=200", "data.options.gold=true", "data.options.lengths=natural")
    total = sum(split.samples for split in natural.report.splits.values())
    assert total > sum(split.samples for split in longer.report.splits.values()) > 0
    assert all(split.chosen_longer == split.samples for split in longer.report.splits.values())
    assert max(Counter(row["problem"] for row in few.rows["train"]).values()) <= 2
    assert sum(split.samples for split in gold.report.splits.values()) > total
    assert any(row["meta"]["chosen"]["from"] == "gold solution" for row in gold.rows["train"])
    assert (
        _prepare("data.max_length=200", "data.options.lengths=chosen_longer").fingerprint
        == longer.fingerprint
    )


@pytest.mark.slow
def test_the_settings_share_no_hint() -> None:
    assert len(SETTINGS) == 8
    assert not any(word in setting for setting in SETTINGS for word in ("w/ H", "Soln", "Misleading"))
    held = {problem.id: problem for problem in problems(_file())}
    assert len(held) == 270 and sum(len(problem.hints) for problem in held.values()) >= 456


def test_problems_have_answers_solutions_and_hints() -> None:
    prepared = _prepare("data.max_length=2000", data="champ-problems")
    assert prepared.form == "problems" and len(prepared.train) + len(prepared.validation) == 270
    row = next(row for row in prepared.rows["train"] if row["id"] == "P_Combinatorics_1")
    assert row["answer"] == "239" and len(row["solution"]) == 6 and len(row["meta"]["hints"]) == 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"length": "natural"}, r"data\.options\.length: .*did you mean lengths"),
        ({"gold": "yes"}, r"data\.options\.gold: expected true or false"),
        ({"per_problem": 1.5}, r"data\.options\.per_problem: expected a whole number"),
        ({"settings": "0-Shot"}, r"data\.options\.settings: expected a list"),
    ],
)
def test_options_are_checked_by_key(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_options(options, Options)


@pytest.mark.parametrize("option", ["lengths=short", "settings=['1/3 Soln']"])
def test_an_option_of_another_meaning_is_refused(option: str) -> None:
    with pytest.raises(UsageError, match=r"data\.options\."):
        _prepare(f"data.options.{option}")


def _wheel(folder: Path, content: dict[str, Any]) -> str:
    """A wheel of one file; its sha256."""
    import hashlib

    path = folder / "champ_dataset-9.9.9-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("champ_dataset/dataset_files/v0.json", json.dumps(content))
        archive.writestr(
            "champ_dataset-9.9.9.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: champ-dataset\nVersion: 9.9.9\n",
        )
        archive.writestr(
            "champ_dataset-9.9.9.dist-info/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr("champ_dataset-9.9.9.dist-info/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_without_the_package_its_wheel_alone_is_fetched_and_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMFW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    sha = _wheel(tmp_path, {"problems": {}, "concepts": {}, "hints": {}})
    package = {**load_config(overrides=["data=champ-problems"]).root.data.package, "version": "9.9.9"}
    with pytest.raises(LlmfwError, match="sha256"):
        data_file(package)
    package["sha256"] = sha
    found = data_file(package)
    assert found.is_relative_to(tmp_path / "cache") and problems(found) == ()
    (tmp_path / "champ_dataset-9.9.9-py3-none-any.whl").unlink()
    assert data_file(package) == found  # from the cache
    found.write_text("[]")
    problems.cache_clear()
    with pytest.raises(DataError, match="not the data of CHAMP"):
        problems(found)
    package["sha256"] = "0" * 64
    with pytest.raises(ResourceError, match=r"data\.name: champ-dataset==9\.9\.9 can't be fetched"):
        data_file(package)
