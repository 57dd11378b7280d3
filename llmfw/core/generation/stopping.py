"""Where an answer ends: stop strings, and text that can be shown while it is written. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from llmfw.core.generation.sampling import Sampling

_WINDOW = 8
"""Tokens decoded beyond the longest stop string when looking whether it has just been completed."""


def decode(tokenizer: Any, ids: Sequence[int]) -> str:
    """Text of an answer without special tokens, exactly as the tokens spell it."""
    text: str = tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text


def hits_stop(tokenizer: Any, ids: Sequence[int], stop: Sequence[str]) -> bool:
    """Whether one of ``stop`` stands in the text of ``ids``; cheap enough to ask after each token."""
    if not stop:
        return False
    # a token spells at least one byte, but a byte-level tokenizer needs up to four for a character
    window = max(len(text.encode()) for text in stop) + _WINDOW
    tail = decode(tokenizer, ids[-window:])
    return any(text in tail for text in stop)


def finish(
    tokenizer: Any, ids: Sequence[int], sampling: Sampling
) -> tuple[str, tuple[int, ...], Literal["stop", "length"]]:
    """(text, ids, reason) of an answer, cut after its first end-of-turn token or completed stop string."""
    ids = tuple(int(token) for token in ids)
    stop_ids = set(sampling.stop_ids)
    ended = next((index for index, token in enumerate(ids) if token in stop_ids), None)
    if ended is not None:
        ids = ids[: ended + 1]
    body = ids[:ended] if ended is not None else ids
    text = decode(tokenizer, body)
    cut = min((at for at in (text.find(stop) for stop in sampling.stop) if at >= 0), default=-1)
    if cut < 0:
        return text, ids, "stop" if ended is not None else "length"
    # the fewest tokens whose text holds a stop string whole
    low, high = 1, len(body)
    while low < high:
        middle = (low + high) // 2
        if any(stop in decode(tokenizer, body[:middle]) for stop in sampling.stop):
            high = middle
        else:
            low = middle + 1
    return text[:cut], ids[:low], "stop"


class TextStream:
    """Turns tokens into text that may be shown at once: no half characters, no beginning of a stop string.

    ``push(token)`` returns what is new; ``close()`` what was held back and is text after all.
    """

    def __init__(self, tokenizer: Any, sampling: Sampling) -> None:
        self._tokenizer, self._sampling = tokenizer, sampling
        self._ids: list[int] = []
        self._shown = 0

    @property
    def ids(self) -> tuple[int, ...]:
        """Tokens so far."""
        return tuple(self._ids)

    def push(self, token: int) -> str:
        """Text that the token completes, possibly none."""
        self._ids.append(token)
        text, _, reason = finish(self._tokenizer, self._ids, self._sampling)
        if reason == "length":
            text = text.rstrip("\N{REPLACEMENT CHARACTER}")  # an unfinished character
            text = text[: len(text) - self._held_back(text)]
        return self._show(text)

    def close(self) -> str:
        """The rest."""
        return self._show(finish(self._tokenizer, self._ids, self._sampling)[0])

    def _held_back(self, text: str) -> int:
        return max(
            (
                size
                for stop in self._sampling.stop
                for size in range(1, len(stop))
                if text.endswith(stop[:size])
            ),
            default=0,
        )

    def _show(self, text: str) -> str:
        new = text[self._shown :]
        self._shown = max(self._shown, len(text))
        return new
