"""Which files a name means."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmfw.core.data.files import data_files, is_data_file
from llmfw.core.errors import DataError


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def _names(found: tuple[list[Path], list[Path]]) -> tuple[list[str], list[str]]:
    return [file.name for file in found[0]], [file.name for file in found[1]]


def test_shards_of_a_split_belong_together(tmp_path: Path) -> None:
    shards = [f"train-0000{number}-of-00002.parquet" for number in range(2)]
    _touch(tmp_path, *shards, "validation-00000-of-00001.parquet", "test-00000-of-00001.parquet")
    assert _names(data_files(str(tmp_path))) == (shards, ["validation-00000-of-00001.parquet"])
    assert _names(data_files(str(tmp_path), "test"))[0] == ["test-00000-of-00001.parquet"]


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    _touch(tmp_path, "train-00000-of-00003.parquet", "train-00002-of-00003.parquet")
    with pytest.raises(DataError, match="1 of 3 shards are missing, the first: train-00001-of-00003"):
        data_files(str(tmp_path))


def test_a_clone_of_a_hub_repository_is_read(tmp_path: Path) -> None:
    _touch(tmp_path, "README.md", "dataset_infos.json", "data/train-00000-of-00001.parquet", "data/val.jsonl")
    assert _names(data_files(str(tmp_path))) == (["train-00000-of-00001.parquet"], ["val.jsonl"])


def test_a_subset_is_a_folder_within(tmp_path: Path) -> None:
    _touch(tmp_path, "main/train.csv", "hard/train.csv")
    assert data_files(str(tmp_path), subset="hard")[0] == [tmp_path / "hard" / "train.csv"]
    with pytest.raises(DataError, match=r"its folders hard, main do; choose one with data.subset=hard"):
        data_files(str(tmp_path))
    with pytest.raises(
        DataError, match=r"data.subset: the folder holds no subset 'easy'; choose one of: hard"
    ):
        data_files(str(tmp_path), subset="easy")


def test_test_files_are_not_trained_on_unless_they_are_all_there_is(tmp_path: Path) -> None:
    _touch(tmp_path, "a.jsonl", "b.csv", "test.jsonl", "dev.txt")
    assert _names(data_files(str(tmp_path))) == (["a.jsonl", "b.csv"], ["dev.txt"])


def test_texts_beside_files_of_rows_are_notes(tmp_path: Path) -> None:
    _touch(tmp_path, "a.jsonl", "notes.txt", "requirements.txt", "README.md")
    assert _names(data_files(str(tmp_path)))[0] == ["a.jsonl"]
    (tmp_path / "a.jsonl").unlink()
    assert _names(data_files(str(tmp_path)))[0] == ["notes.txt"]


def test_a_split_that_the_folder_lacks_is_answered_with_those_it_has(tmp_path: Path) -> None:
    _touch(tmp_path, "train.jsonl", "test.jsonl")
    with pytest.raises(DataError, match="no files of the split 'tset'; choose one of: test, train"):
        data_files(str(tmp_path), "tset")


def test_a_pattern_means_its_files_in_order(tmp_path: Path) -> None:
    _touch(tmp_path, "b.jsonl", "a.jsonl.gz", "notes.pdf", "deep/c.jsonl")
    assert _names(data_files(str(tmp_path / "*"))) == (["a.jsonl.gz", "b.jsonl"], [])
    assert _names(data_files(str(tmp_path / "**" / "c.*")))[0] == ["c.jsonl"]
    with pytest.raises(DataError, match="no file matches"):
        data_files(str(tmp_path / "*.csv"))
    with pytest.raises(DataError, match="no file that matches can be read"):
        data_files(str(tmp_path / "*.pdf"))


def test_only_text_formats_may_be_packed(tmp_path: Path) -> None:
    _touch(tmp_path, "a.jsonl.gz", "a.parquet.gz", "a.tar.gz", "a.TXT")
    assert [
        is_data_file(tmp_path / name) for name in ("a.jsonl.gz", "a.parquet.gz", "a.tar.gz", "a.TXT")
    ] == [
        True,
        False,
        False,
        True,
    ]
    with pytest.raises(DataError, match=r"files of kind \.tar\.gz can't be read"):
        data_files(str(tmp_path / "a.tar.gz"))
