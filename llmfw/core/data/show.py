"""Examples as a person reads them: trained tokens marked, blanks and control characters visible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llmfw.core.data.examples import Example
from llmfw.core.data.text import TextTokenizer

if TYPE_CHECKING:
    from rich.text import Text

OPEN, CLOSE = "⟦", "⟧"
"""What stands around trained text where there is no colour."""
_BARS = 24


def pieces(tokenizer: Any, example: Example, side: int) -> list[tuple[str, bool]]:
    """(text, trained) of a sequence: runs of tokens of one kind, decoded together so that no character is
    torn.
    """
    text = TextTokenizer(tokenizer)
    sequence = example.sequences[side]
    runs: list[tuple[list[int], bool]] = []
    for token, trained in zip(sequence.ids, sequence.trained, strict=True):
        if not runs or runs[-1][1] != trained:
            runs.append(([], trained))
        runs[-1][0].append(token)
    return [(text.decode(ids), trained) for ids, trained in runs]


def visible(text: str) -> str:
    """The text with control characters spelt out (a terminal must not obey data); a line break is shown and
    made.
    """
    shown = (
        character if character.isprintable() else "⏎\n" if character == "\n" else f"\\x{ord(character):02x}"
        for character in text
    )
    return "".join(shown)


def marked(tokenizer: Any, example: Example, side: int, *, colour: bool) -> Text:
    """A sequence with its trained text in bold green, or between ⟦ and ⟧."""
    from rich.text import Text

    shown = Text()
    for text, trained in pieces(tokenizer, example, side):
        if colour:
            shown.append(visible(text), style="bold green" if trained else "dim")
        else:
            shown.append(f"{OPEN}{visible(text)}{CLOSE}" if trained else visible(text))
    return shown


def read(tokenizer: Any, example: Example, side: int, *, colour: bool) -> Text:
    """What the encoder of an encoder-decoder reads for a sequence."""
    from rich.text import Text

    text = visible(TextTokenizer(tokenizer).decode(example.sequences[side].encoder))
    return (
        Text("encoder: ", style="bold").append(f"{text}\n", style="dim" if colour else "").append("decoder:")
    )


def histogram(lengths: Sequence[int], buckets: int = 10) -> list[tuple[int, int, int]]:
    """(from, below, count) of equal buckets that cover all lengths; round bounds."""
    if not lengths:
        return []
    low, high = min(lengths), max(lengths)
    width = max(1, -(-(high - low + 1) // buckets))
    width = next(step for step in (1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500, 1000, 10**9) if step >= width)
    start = low // width * width
    counts = [0] * ((high - start) // width + 1)
    for length in lengths:
        counts[(length - start) // width] += 1
    return [(start + index * width, start + (index + 1) * width, count) for index, count in enumerate(counts)]


def bars(found: Sequence[tuple[int, int, int]]) -> list[str]:
    """A histogram as lines of text."""
    most = max((count for _, _, count in found), default=0)
    return [
        f"{low:>6}-{high - 1:<6} {'█' * round(_BARS * count / most):<{_BARS}} {count}"
        for low, high, count in found
    ]
