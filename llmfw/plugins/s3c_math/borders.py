"""Spans that no token crosses in the wrong direction: masks are exact on tokens, not only on characters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmfw.core.data import TextTokenizer


def on_tokens(text: TextTokenizer, completion: str, spans: Sequence[Sequence[int]]) -> list[list[int]]:
    """``spans`` of a completion, such that a token with characters of a wrong segment is trained only where
    it holds the beginning of the trained segment behind it.

    The core trains a token that holds any trained character. At the beginning of a span that is the rule
    wanted: the first token of a reflection is trained, whatever it drags along. A token that crosses a span's
    end would train the beginning of the wrong step; there the span is cut back to where that token begins. A
    span of which nothing is left is dropped.
    """
    if not text.fast or not spans:
        return [list(span) for span in spans]  # a slow tokenizer is cut at the spans themselves
    offsets = _offsets(text.tokenizer, completion)
    found: list[list[int]] = []
    for first, last in spans:
        crossing = [start for start, stop in offsets if start < last < stop and last < len(completion)]
        end = min([last, *crossing])
        if first < end:
            found.append([first, end])
    return found


def _offsets(tokenizer: Any, completion: str) -> list[tuple[int, int]]:
    encoded = tokenizer(completion, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return [(int(start), int(stop)) for start, stop in encoded["offset_mapping"]]
