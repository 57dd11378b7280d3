"""Which files a name means: one file, a folder, a pattern; and which of them are which split."""

from __future__ import annotations

import difflib
import glob
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from llmfw.core.data.readers.arrow import read_arrow, read_parquet
from llmfw.core.data.readers.common import COMPRESSED, Reader, suffix_of
from llmfw.core.data.readers.json_array import read_json
from llmfw.core.data.readers.jsonl import read_jsonl
from llmfw.core.data.readers.table import read_csv, read_tsv
from llmfw.core.data.readers.text import read_text
from llmfw.core.errors import DataError

READERS: Final[dict[str, Reader]] = {
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".json": read_json,
    ".parquet": read_parquet,
    ".arrow": read_arrow,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".txt": read_text,
    ".md": read_text,
}
"""Suffix -> reader; text formats may be packed (.gz, .zst)."""
HELD_OUT: Final = ("validation", "valid", "val", "dev")
"""Names of the split that is held out."""
_TEXTS: Final = (".txt", ".md")
_NOT_DATA: Final = re.compile(
    r"(readme|licen[sc]e|changelog|requirements[\w-]*|llmfw-crash|dataset_infos?|dataset_dict|state|config)"
    r"(\.|$)",
    re.IGNORECASE,
)
_SHARD: Final = re.compile(r"(?P<split>.+?)-(?P<number>\d{5})-of-(?P<of>\d{5})(-[0-9a-f]+)?")


def is_data_file(path: Path) -> bool:
    """Whether a reader takes this file by its name."""
    packed = path.suffix.lower() in COMPRESSED
    return (
        suffix_of(path) in READERS
        and not (packed and suffix_of(path) in (".parquet", ".arrow"))
        and path.is_file()
    )


def data_files(
    name: str, split: str = "train", subset: str | None = None, key: str = "data.split"
) -> tuple[list[Path], list[Path]]:
    """The (training, held-out) files that a file's, folder's or pattern's name means.

    A folder holds ``train.SUFFIX`` (or ``train-00000-of-00002.SUFFIX`` and so on; in it or in its folder
    ``data``, as on the hub) and perhaps ``validation.SUFFIX``; without these names all its data files but
    ``test`` are training rows. ``split`` is the name that takes the place of ``train`` (``key``: the
    setting that gave it); ``subset`` a folder within.

    Raises:
        DataError: nothing there, of no known kind, or a shard is missing.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return _folder(path, split, subset, key)
    if not path.exists() and any(mark in name for mark in "*?["):
        found = sorted(Path(one) for one in glob.glob(str(path), recursive=True))
        files = [one for one in found if is_data_file(one)]
        if not files:
            what = "no file matches" if not found else "no file that matches can be read"
            raise DataError("NO-DATA", what, file=path, mend=f"check the pattern ({suffixes()})")
        return _whole(files), []
    if not path.exists():
        near = difflib.get_close_matches(str(path), _around(path), 1)
        raise DataError(
            "NO-DATA",
            "there is no such file" + (f"; near it: {near[0]}" if near else ""),
            file=path,
            mend="give a file, a folder, a preset or a hub id (owner/name) as data.name",
        )
    if not is_data_file(path):
        kind = "".join(path.suffixes[-2:]) if path.suffix in COMPRESSED else path.suffix
        raise DataError(
            "DATA-SUFFIX",
            f"files of kind {kind or '(no suffix)'} can't be read",
            file=path,
            mend=f"convert it ({suffixes()})",
        )
    return [path], []


def folder_files(path: Path) -> list[Path]:
    """The data files that lie in a folder. Texts beside files of rows are notes, not data."""
    files = [one for one in sorted(path.iterdir()) if is_data_file(one) and not _NOT_DATA.match(one.name)]
    rows = [file for file in files if suffix_of(file) not in _TEXTS]
    named = [file for file in files if _split_of(file) in ("train", "test", *HELD_OUT)]
    return sorted({*rows, *named}) if rows else files


def suffixes() -> str:
    """The suffixes that can be read, for messages."""
    return ", ".join(READERS) + "; text formats also as .gz, .zst"


def _around(path: Path) -> list[str]:
    if not path.parent.is_dir():
        return []
    return [str(path.with_name(other.name)) for other in path.parent.iterdir()]


def _folder(path: Path, split: str, subset: str | None, key: str) -> tuple[list[Path], list[Path]]:
    if subset is not None:
        if not (path / subset).is_dir():
            inner = sorted(one.name for one in path.iterdir() if one.is_dir())
            raise DataError(
                "NO-DATA",
                f"the folder holds no subset {subset!r}",
                file=path,
                key="data.subset",
                mend=f"choose one of: {', '.join(inner)}" if inner else "leave data.subset away",
            )
        path = path / subset
    files = folder_files(path)
    if not files and (path / "data").is_dir():
        return _folder(path / "data", split, None, key)
    if not files:
        inner = [
            one.name
            for one in sorted(path.iterdir())
            if one.is_dir() and any(map(is_data_file, one.iterdir()))
        ]
        raise DataError(
            "NO-DATA",
            "the folder holds no data file"
            + (f" of its own, its folders {', '.join(inner)} do" if inner else ""),
            file=path,
            mend=f"choose one with data.subset={inner[0]}" if inner else f"put a file into it ({suffixes()})",
        )
    named: dict[str, list[Path]] = {}
    for file in files:
        named.setdefault(_split_of(file), []).append(file)
    held_out = [file for name in HELD_OUT for file in named.get(name, [])]
    if split in named:
        return _whole(named[split]), _whole([file for file in held_out if split not in HELD_OUT])
    if split != "train":
        raise DataError(
            "SPLIT",
            f"the folder holds no files of the split {split!r}",
            file=path,
            key=key,
            mend=f"choose one of: {', '.join(sorted(named))}",
        )
    rest = [file for file in files if _split_of(file) not in (*HELD_OUT, "test")]
    return _whole(rest or [file for file in files if file not in held_out]), _whole(held_out)


def _split_of(file: Path) -> str:
    """``train`` of train.jsonl, train-00000-of-00002.parquet and train.csv.gz."""
    stem = file.name.split(".")[0]
    found = _SHARD.fullmatch(stem)
    return found["split"] if found else stem


def _whole(files: Sequence[Path]) -> list[Path]:
    """The files, unless shards of a numbered series are missing."""
    there: dict[tuple[Path, str, int], set[int]] = {}
    for file in files:
        found = _SHARD.fullmatch(file.name.split(".")[0])
        if found:
            there.setdefault((file.parent, found["split"], int(found["of"])), set()).add(int(found["number"]))
    for (folder, split, count), numbers in there.items():
        missing = sorted(set(range(count)) - numbers)
        if missing:
            raise DataError(
                "SHARDS",
                f"{len(missing)} of {count} shards are missing, the first: "
                f"{split}-{missing[0]:05d}-of-{count:05d}",
                file=folder,
                mend="download them too",
            )
    return list(files)
