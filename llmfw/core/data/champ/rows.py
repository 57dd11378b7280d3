"""Preference pairs and problems out of CHAMP.

A pair is a right and a wrong answer to the same problem. Both fit uncut: a pair that is cut to equal length
tells nothing of length. Everything is chosen by hashes of ids, so that the same settings and tokenizer give
the same rows in the same order.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from llmfw.core.cache import cached_json
from llmfw.core.data.champ import judge
from llmfw.core.data.champ.source import SETTINGS, Problem, data_file, problems
from llmfw.core.data.champ.verdicts import verdicts
from llmfw.core.data.encode import Encoder, length_limit
from llmfw.core.data.formats import RowError, content_hash
from llmfw.core.data.module import DataModule, held_out_share
from llmfw.core.data.options import read_options
from llmfw.core.data.order import stable_hash
from llmfw.core.data.split import split_rows
from llmfw.core.data.text import TextTokenizer
from llmfw.core.errors import UsageError
from llmfw.core.records import Row
from llmfw.core.schema import DataConfig

VERSION = 1
"""Raised when the same settings may give other rows."""
LENGTHS = ("balanced", "natural", "chosen_longer")
_FOREIGN = re.compile(
    r"\b(?:concepts?|hints?)\b|\b(?:above|previous|provided|similar|first) "
    r"(?:problem|example|solution|information)|\b(?:problem|example|solution|information) "
    r"(?:above|provided|given)|\bgiven information\b|\bsimilar to the one\b",
    re.IGNORECASE,
)
"""Words about a context that the pair's prompt, the problem alone, doesn't show."""


@dataclass(frozen=True)
class Options:
    """``data.options`` of ``champ-preferences``."""

    lengths: str = "balanced"
    """balanced: as many pairs with the longer side chosen as rejected; natural: all; chosen_longer: these
    alone.
    """
    settings: tuple[str, ...] = SETTINGS
    """Prompting settings whose answers are used."""
    per_problem: int = 16
    """Most pairs of one problem; 0: no limit."""
    gold: bool = False
    """Whether gold solutions count as right answers too; they are short: few have the longer side chosen."""


@dataclass(frozen=True)
class _Said:
    text: str
    who: str
    total: int
    """Tokens of prompt and answer."""
    trained: int
    """Tokens of the answer with its end of turn."""


class ChampPreferences(DataModule):
    """Right against wrong answers of real models to the same competition problem."""

    kind: ClassVar[str | None] = "preference"

    def __init__(self, config: DataConfig, tokenizer: Any) -> None:
        self.config, self.tokenizer = config, tokenizer
        self.options = read_options(config.options, Options)
        if self.options.lengths not in LENGTHS:
            raise UsageError(
                "OPTION",
                f"{self.options.lengths!r} is none of {', '.join(LENGTHS)}",
                key="data.options.lengths",
                mend="choose one of them",
            )
        unknown = sorted(set(self.options.settings) - set(SETTINGS))
        if unknown:
            raise UsageError(
                "OPTION",
                f"{unknown[0]!r} is no setting without hints, partial solutions or misleading concepts",
                key="data.options.settings",
                mend=f"choose among {', '.join(SETTINGS)}",
            )
        self._made: dict[str, Any] | None = None

    def name(self) -> str:
        return self.config.name

    def rows(self, split: str) -> Iterable[Row]:
        if self._made is None:
            self._made = cached_json("rows", self._key(), self._make)
        rows: list[Row] = self._made[split]
        return rows

    def recipe(self) -> Mapping[str, Any]:
        return self._made["recipe"] if self._made else {}

    def _key(self) -> str:
        """Names everything that the rows depend on."""
        data = self.config
        said = [VERSION, judge.VERSION, dict(data.package), data.max_length, data.validation, data.split_key]
        said += [sorted(vars(self.options).items()), TextTokenizer(self.tokenizer).fingerprint]
        return f"champ-preferences-{content_hash({'said': said})}"

    def _make(self) -> dict[str, Any]:
        options = self.options
        everything = problems(data_file(self.config.package))
        judged = verdicts(everything, self.config.package)
        count: Counter[str] = Counter()
        encoder = Encoder(self.tokenizer, length_limit(self.tokenizer, self.config.max_length))
        pairs: list[Row] = []
        for problem in everything:
            right, wrong = self._sides(problem, judged[problem.id], encoder, count)
            pairs += _pairs(problem, right, wrong, encoder.max_length, options.per_problem, count)
        train, validation = split_rows(
            pairs, held_out_share(self.config.validation), self.config.split_key or "problem"
        )
        splits = {
            "train": _choose(train, options.lengths),
            "validation": _choose(validation, options.lengths),
        }
        return {**splits, "recipe": self._describe(splits, count)}

    def _sides(
        self, problem: Problem, judged: Mapping[str, str], encoder: Encoder, count: Counter[str]
    ) -> tuple[list[_Said], list[_Said]]:
        """(right, wrong) answers, each text once; a text that got both verdicts is neither."""
        found: dict[str, set[str]] = defaultdict(set)
        who: dict[str, str] = {}
        for answer in problem.answers:
            if answer.setting not in self.options.settings:
                continue
            count["answers"] += 1
            who.setdefault(answer.text, f"{answer.model} | {answer.setting}")
            found[answer.text].add(_checked(judged[answer.summary], problem.answer, answer.text))
        count["texts"] += len(found)
        sides: dict[str, list[_Said]] = {"right": [], "wrong": []}
        if self.options.gold:
            gold = "\n".join([*problem.steps, f"Answer: {problem.answer}"])
            found[gold], who[gold] = {"right"}, "gold solution"
        for text, given in found.items():
            verdict = next(iter(given)) if len(given) == 1 else "unsure"
            if verdict == "unsure":
                count["unsure"] += 1
                continue
            count[verdict] += 1
            if who[text] != "gold solution" and _FOREIGN.search(text):
                count["speak of context"] += 1
                continue
            said = _measure(problem.text, text, who[text], encoder)
            if said is not None:
                sides[verdict].append(said)
        return sides["right"], sides["wrong"]

    def _describe(self, splits: Mapping[str, Sequence[Row]], count: Counter[str]) -> dict[str, Any]:
        package, most = self.config.package, self.options.per_problem or "all"
        return {
            "made of": f"{package['distribution']} {package['version']} ({package['licence']})",
            "settings": ", ".join(self.options.settings),
            "answers": f"{count['answers']}, {count['texts']} different: {count['right']} right, "
            f"{count['wrong']} wrong, {count['unsure']} unsure; {count['speak of context']} speak of context "
            "that isn't shown and are left out",
            "pairs": f"{count['pairs']} right against wrong, {count['fit']} fit uncut "
            f"(from {count['problems']} problems), {count['capped']} with at most {most} a problem",
            "lengths": f"{self.options.lengths}: {sum(map(len, splits.values()))} pairs",
            "gold solutions": "used as right answers" if self.options.gold else "not used",
        }


class ChampProblems(DataModule):
    """The 270 problems with gold answers and solutions by step; hints and concepts stand in ``meta``."""

    kind: ClassVar[str | None] = "problems"

    def __init__(self, config: DataConfig, tokenizer: Any) -> None:
        self.config = config
        read_options(config.options, _NoOptions)

    def name(self) -> str:
        return self.config.name

    def rows(self, split: str) -> Iterable[Row] | None:
        if split == "validation":
            return None
        return [_problem_row(problem) for problem in problems(data_file(self.config.package))]

    def recipe(self) -> Mapping[str, Any]:
        package = self.config.package
        return {"made of": f"{package['distribution']} {package['version']} ({package['licence']})"}


class ChampFirstWrong(DataModule):
    """540 responses of real models whose first wrong step was found by hand, as rows of their problems. The
    response stands in ``meta.response``, the step's characters in ``meta.first_wrong`` ([begin, end), null:
    no mistake). All are held out: nothing is trained on them.
    """

    kind: ClassVar[str | None] = "problems"

    def __init__(self, config: DataConfig, tokenizer: Any) -> None:
        self.config = config
        read_options(config.options, _NoOptions)

    def name(self) -> str:
        return self.config.name

    def rows(self, split: str) -> Iterable[Row]:
        everything = problems(data_file(self.config.package))
        if split == "train":  # a run has to have something to train on
            return [_problem_row(problem) for problem in everything]
        return [
            {
                **_problem_row(problem),
                "id": f"{problem.id} | {one.model} | {one.setting}",
                "problem": problem.id,
                "meta": {
                    "response": one.text,
                    "first_wrong": None if one.first_wrong is None else list(one.first_wrong),
                },
            }
            for problem in everything
            for one in problem.judged
        ]

    def recipe(self) -> Mapping[str, Any]:
        package = self.config.package
        return {"made of": f"{package['distribution']} {package['version']} ({package['licence']})"}


def _problem_row(problem: Problem) -> Row:
    return {
        "id": problem.id,
        "prompt": problem.text,
        "answer": problem.answer,
        "solution": list(problem.steps),
        "level": problem.category,
        "meta": {"concepts": list(problem.concepts), "hints": list(problem.hints)},
    }


@dataclass(frozen=True)
class _NoOptions:
    """This preset has no options."""


def _checked(verdict: str, gold: str, text: str) -> str:
    """The verdict on a summary, as one on the answer itself: a right number of two digits or more must stand
    in it.
    """
    plain = text.replace(",", "")
    return "unsure" if verdict == "right" and re.fullmatch(r"\d{2,}", gold) and gold not in plain else verdict


def _measure(prompt: str, text: str, who: str, encoder: Encoder) -> _Said | None:
    try:
        plain = encoder.answered(prompt, text)
    except RowError:
        return None  # e.g. an answer that spells a control token
    return _Said(text, who, len(plain.ids), sum(plain.trained))


def _pairs(
    problem: Problem,
    right: Sequence[_Said],
    wrong: Sequence[_Said],
    limit: int,
    most: int,
    count: Counter[str],
) -> list[Row]:
    """At most ``most`` pairs of a problem, such that its answers are used about equally often."""
    count["pairs"] += len(right) * len(wrong)
    rows = []
    for chosen in right:
        for rejected in wrong:
            if max(chosen.total, rejected.total) <= limit:
                row: Row = {"prompt": problem.text, "chosen": chosen.text, "rejected": rejected.text}
                row |= {
                    "id": f"{problem.id}-{content_hash(row)[:10]}",
                    "problem": problem.id,
                    "category": problem.category,
                    "meta": {
                        "chosen": {"from": chosen.who, "tokens": chosen.trained},
                        "rejected": {"from": rejected.who, "tokens": rejected.trained},
                    },
                }
                rows.append(row)
    count["fit"] += len(rows)
    count["problems"] += bool(rows)
    rows.sort(key=lambda row: stable_hash(row["id"]))
    used: Counter[str] = Counter()
    chosen_rows: list[Row] = []
    while rows and (not most or len(chosen_rows) < most):
        best = min(
            range(len(rows)), key=lambda index: used[rows[index]["chosen"]] + used[rows[index]["rejected"]]
        )
        row = rows.pop(best)
        used.update((row["chosen"], row["rejected"]))
        chosen_rows.append(row)
    count["capped"] += len(chosen_rows)
    return chosen_rows


def _choose(rows: Sequence[Row], lengths: str) -> list[Row]:
    """The rows of a split by ``lengths``, in the order of their hashes; balanced ones alternate, so that any
    beginning is too.
    """
    mixed = sorted(rows, key=lambda row: stable_hash("row", row["id"]))
    if lengths == "natural":
        return mixed
    gap = {row["id"]: row["meta"]["chosen"]["tokens"] - row["meta"]["rejected"]["tokens"] for row in mixed}
    longer = [row for row in mixed if gap[row["id"]] > 0]
    shorter = [row for row in mixed if gap[row["id"]] < 0]
    if lengths == "chosen_longer":
        return longer
    return [row for both in zip(longer, shorter, strict=False) for row in both]
