"""The two rows of an encoder-decoder: what its encoder reads, and what its decoder writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llmfw.core.data.examples import TokenSequence
from llmfw.core.data.formats import RowError
from llmfw.core.data.text import Response, Span, TextTokenizer


@dataclass(frozen=True)
class Written:
    """A decoder's row; ``open``: it ought to end with an end-of-text token, and the tokenizer adds none."""

    ids: list[int]
    trained: list[bool]
    open: bool


def encoder_ids(text: TextTokenizer, asked: str) -> list[int]:
    """What an encoder reads: the text between the marks that the tokenizer puts around one by itself."""
    before, after = text.marks()
    ids = text.ids(asked)
    if tuple(ids[: len(before)]) == before:
        before = ()  # a chat template may write it itself
    return [*before, *ids, *after]


def decoder_row(
    text: TextTokenizer, start: int, answer: str, spans: Sequence[Span], *, close: bool
) -> Written:
    """``start``, the tokenizer's mark before an answer (BART's ``<s>``, a language), the answer with
    its ``spans`` trained, and, with ``close``, the tokenizer's mark after it. Of an answer that is trained
    whole the marks are, too: they are labels of transformers' own loss.
    """
    before, after = text.marks(target=True)
    body, flags = text.masked(answer, [Response(0, len(answer), tuple(spans))])
    whole = list(spans) == [(0, len(answer))]
    ids, trained = [start, *before, *body], [False, *[whole] * len(before), *flags]
    if close and after:
        ids, trained = [*ids, *after], [*trained, *[True] * len(after)]
    return Written(ids, trained, close and not after)


def cut_sides(
    rows: Sequence[tuple[list[int], list[bool], list[int]]],
    text: TextTokenizer,
    max_length: int,
    *,
    from_start: bool,
) -> list[TokenSequence]:
    """Rows of (decoder ids, flags, encoder ids), each side within ``max_length``. The marks around the
    encoder's text and the decoder's first token stay; a pair's sides lose equally much.

    Raises:
        RowError: nothing of the prompt is left.
    """
    read = max(len(encoder) for _, _, encoder in rows) - max_length
    written = max(len(ids) for ids, _, _ in rows) - max_length
    before, after = map(len, text.marks())
    found: list[TokenSequence] = []
    for ids, flags, encoder in rows:
        if read > 0:
            last = len(encoder) - after
            inner = encoder[before:last]
            inner = inner[read:] if from_start else inner[: max(0, len(inner) - read)]
            if not inner:
                raise RowError(
                    "nothing of the prompt is left after the cut",
                    mend="raise data.max_length, or set data.too_long=drop",
                )
            encoder = [*encoder[:before], *inner, *encoder[last:]]
        if written > 0 and from_start:
            ids, flags = ids[:1] + ids[1 + written :], flags[:1] + flags[1 + written :]
        elif written > 0:
            ids, flags = ids[:max_length], flags[:max_length]
        found.append(TokenSequence(tuple(ids), (False, *flags[1:]), tuple(encoder)))
    return found
