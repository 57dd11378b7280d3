"""A made-up task in which how good an answer is and how long it is have nothing to do with each other.

A prompt is a task's number, which means nothing. Its answer is the alphabet from a on, broken off somewhere,
with one digit put in after one of the letters: ``abcde7fghijk``. The digit is the answer's quality, 1 to 4,
and nothing else is: of a pair's two answers the one with the higher digit is chosen. Lengths, digits and the
digit's place are drawn apart from each other, and afterwards it is decided by lot which pairs have the
longer side chosen: an exact share of them.

So a model can please the pairs by two things, writing higher digits, which holds always, and writing more
letters, which holds as often as that share says.
"""

from __future__ import annotations

import json
import random
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

FEWEST, MOST = 3, 24
"""Letters of an answer, drawn from a normal distribution and kept within these."""
MEAN, SPREAD = 12.0, 2.5
QUALITIES = range(10)


@dataclass(frozen=True)
class Sizes:
    """How much is drawn for one seed."""

    texts: int
    """Single answers, any quality, from which the model learns to write before it sees a pair."""
    pairs: int
    held_out: int
    """Pairs of prompts that nothing is trained on; of exactly half of them the longer side is chosen."""
    longer: float = 0.85
    """Share of the training pairs whose longer side is chosen, rounded to whole pairs."""


def rows(seed: int, sizes: Sizes) -> Mapping[str, Sequence[dict[str, str]]]:
    """What is drawn: texts, pairs and held_out, a function of seed and sizes."""
    draw = random.Random(f"synthetic {seed}")
    prompts = _prompts(draw, sizes.texts + sizes.pairs + sizes.held_out)
    return {
        "texts": [_text(draw, next(prompts)) for _ in range(sizes.texts)],
        "pairs": _pairs(draw, prompts, sizes.pairs, sizes.longer),
        "held_out": _pairs(draw, prompts, sizes.held_out, 0.5),
    }


def write(folder: Path, seed: int, sizes: Sizes) -> Mapping[str, Path]:
    """Write each part of ``rows`` as a jsonl file of its name, and say where."""
    parts = rows(seed, sizes)
    files = {name: folder / f"{name}.jsonl" for name in parts}
    for name, file in files.items():
        file.write_text("".join(json.dumps(row) + "\n" for row in parts[name]), encoding="utf-8")
    return files


def answer(letters: int, quality: int) -> str:
    """The digit, then the first ``letters`` letters."""
    return f"{quality}{string.ascii_lowercase[:letters]}"


def quality(text: str) -> int | None:
    """The quality of an answer of this form, None of any other text."""
    if not text[:1].isdecimal() or not text[:1].isascii():
        return None
    return int(text[0]) if text == answer(len(text) - 1, int(text[0])) else None


def _prompts(draw: random.Random, wanted: int) -> Iterator[str]:
    """Prompts that are all different."""
    return (f"task {number:05d}" for number in draw.sample(range(100_000), wanted))


def _letters(draw: random.Random) -> int:
    return min(MOST, max(FEWEST, round(draw.gauss(MEAN, SPREAD))))


def _text(draw: random.Random, prompt: str) -> dict[str, str]:
    return {"prompt": prompt, "completion": answer(_letters(draw), draw.choice(QUALITIES))}


def _pairs(
    draw: random.Random, prompts: Iterator[str], wanted: int, longer_chosen: float
) -> Sequence[dict[str, str]]:
    longer = round(wanted * longer_chosen)
    sides = [True] * longer + [False] * (wanted - longer)
    draw.shuffle(sides)
    made = []
    for chosen_is_longer, prompt in zip(sides, prompts, strict=False):
        short = long = 0
        while short == long:
            short, long = sorted((_letters(draw), _letters(draw)))
        worse, better = sorted(draw.sample(QUALITIES, 2))
        chosen, rejected = (long, short) if chosen_is_longer else (short, long)
        made.append({"prompt": prompt, "chosen": answer(chosen, better), "rejected": answer(rejected, worse)})
    return made
