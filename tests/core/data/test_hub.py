"""Data sets that `datasets` reads: folders that it saved, and its cache of the hub without a network."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmfw.core.data.module import ConfiguredData
from llmfw.core.data.reader import BadRows, ReadCounts
from llmfw.core.errors import DataError, LlmfwError, ResourceError, UsageError
from llmfw.core.schema import DataConfig

datasets = pytest.importorskip("datasets")
ROWS = [{"prompt": f"{number}+1?", "completion": str(number + 1)} for number in range(4)]


def _rows(of: str = "train", **settings: Any) -> list[tuple[str, Any]] | None:
    config = replace(DataConfig(), **settings)
    found = ConfiguredData(config, None).located(of, BadRows(), ReadCounts())
    return None if found is None else list(found)


def _saved(folder: Path, **splits: list[dict[str, Any]]) -> str:
    made = {name: datasets.Dataset.from_list(rows) for name, rows in splits.items()}
    if list(made) == ["only"]:
        made["only"].save_to_disk(str(folder))
    else:
        datasets.DatasetDict(made).save_to_disk(str(folder))
    return str(folder)


def test_a_saved_data_set_is_read_row_by_row(tmp_path: Path) -> None:
    name = _saved(tmp_path / "one", only=ROWS)
    assert _rows(name=name) == [(f"{name} train:row {number}", row) for number, row in enumerate(ROWS, 1)]
    assert _rows("validation", name=name) is None


def test_a_dictionary_of_splits_holds_one_out(tmp_path: Path) -> None:
    name = _saved(tmp_path / "many", train=ROWS[:2], validation=ROWS[2:3], test=ROWS[3:])
    assert [row for _, row in _rows(name=name) or []] == ROWS[:2]
    assert [row for _, row in _rows("validation", name=name) or []] == ROWS[2:3]
    assert [row for _, row in _rows("validation", name=name, validation="test") or []] == ROWS[3:]
    assert [row for _, row in _rows(name=name, split="test") or []] == ROWS[3:]
    with pytest.raises(DataError, match=r"data.validation: the data set has no split 'tets'; choose one"):
        _rows("validation", name=name, validation="tets")
    with pytest.raises(
        DataError, match=r"data.split: the data set has no split 'tets'; choose one of: train"
    ):
        _rows(name=name, split="tets")


def test_dialects_and_columns_hold_for_saved_data_sets(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    name = _saved(tmp_path / "talk", only=[{"conversations": turns}])
    assert [list(row) for _, row in _rows(name=name) or []] == [["messages"]]
    name = _saved(tmp_path / "renamed", only=[{"q": "a", "r": "b"}])
    rows = _rows(name=name, columns={"prompt": "q", "completion": "r"})
    assert [row for _, row in rows or []] == [{"prompt": "a", "completion": "b"}]


def test_what_was_read_is_pinned_by_a_fingerprint(tmp_path: Path) -> None:
    name = _saved(tmp_path / "one", only=ROWS)
    data = ConfiguredData(replace(DataConfig(), name=name), None)
    list(data.located("train", BadRows(), ReadCounts()) or ())
    assert len(data.recipe()["fingerprint, train"]) == 16


def test_a_damaged_folder_is_named(tmp_path: Path) -> None:
    name = _saved(tmp_path / "one", only=ROWS)
    for file in Path(name).glob("*.arrow"):
        file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(DataError, match=r"DATA-SAVED.*one: the saved data set can't be read"):
        _rows(name=name)


def test_settings_without_effect_are_refused(tmp_path: Path) -> None:
    name = _saved(tmp_path / "one", only=ROWS)
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps(ROWS[0]))
    for settings in (
        {"name": name, "revision": "main"},
        {"name": name, "options": {"text": "lines"}},
        {"name": str(file), "split": "test"},
        {"name": str(file), "subset": "x"},
        {"name": str(file), "revision": "x"},
        {"name": str(file), "options": {"text": "lines"}},
        {"name": str(file), "options": {"txt": "lines"}},
        {"name": "champ-problems", "columns": {"prompt": "x"}, "package": {"distribution": "x"}},
    ):
        with pytest.raises(LlmfwError) as caught:
            _rows(**settings)  # type: ignore[arg-type]  # settings of several types
        key = next(key for key in settings if key not in ("name", "package"))
        assert f"data.{key}" in str(caught.value) and isinstance(caught.value, (UsageError, DataError))


def test_without_the_library_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = _saved(tmp_path / "one", only=ROWS)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ResourceError, match=r"error\[EXTRA\].*pip install 'llmfw\[datasets\]'"):
        _rows(name=name)


def test_without_a_network_an_unknown_data_set_says_how_to_fetch_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(ResourceError) as caught:
        _rows(name="nobody/nothing")
    said = str(caught.value)
    assert "error[HUB] nobody/nothing" in said
    assert "the hub is switched off (HF_HUB_OFFLINE)" in said and "hf download --repo-type dataset" in said
    assert caught.value.exit_code == 6


def test_without_a_network_the_librarys_cache_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache of a hub data set is that of a builder under OWNER___NAME/CONFIG/VERSION/COMMIT."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    source = tmp_path / "source"
    source.mkdir()
    (source / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    made = tmp_path / "made"
    datasets.load_dataset(str(source), cache_dir=str(made))
    (inner,) = [info.parent for info in made.rglob("dataset_info.json")]
    target = tmp_path / "cache" / "someone___sums" / "default" / "0.0.0" / commit
    target.parent.mkdir(parents=True)
    inner.rename(target)
    info = json.loads((target / "dataset_info.json").read_text())
    url = f"hf://datasets/someone/sums@{commit}/train.jsonl"
    info |= {"download_checksums": {url: {"num_bytes": 1, "checksum": None}}, "dataset_name": "sums"}
    (target / "dataset_info.json").write_text(json.dumps(info))
    for file in target.glob("*.arrow"):
        file.rename(target / "sums-train.arrow")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    data = ConfiguredData(replace(DataConfig(), name="someone/sums"), None)
    found = data.located("train", BadRows(), ReadCounts())
    assert [row for _, row in found or ()] == ROWS
    assert data.recipe()["commit"] == f"{commit} (from the cache)"
    other = ConfiguredData(replace(DataConfig(), name="someone/sums", revision="f" * 40), None)
    with pytest.raises(ResourceError, match=f"the cache holds commit {commit}"):
        other.located("train", BadRows(), ReadCounts())
