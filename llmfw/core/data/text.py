"""Text to token ids with a mask, cut exactly where the trained characters begin and end.

A rendered text is tokenised in pieces, cut where a response starts and stops: the prompt's ids are then those
that generation starts from, and no token lies half in the mask. Tokenizers that put a space before every
piece are given the whole text, and the mask is read off character offsets.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

from llmfw.core.data.formats import RowError
from llmfw.core.errors import DataError

Span = tuple[int, int]


@dataclass(frozen=True)
class Response:
    """Where an answer stands in a text: characters [start, stop) with its end of turn, and those that are
    trained.
    """

    start: int
    stop: int
    trained: tuple[Span, ...]


class TextTokenizer:
    """A tokenizer's traits that masks depend on. Nothing is added to a text unless asked for."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.fast = bool(getattr(tokenizer, "is_fast", False))

    @property
    def chat(self) -> bool:
        """Whether there is a chat template."""
        return bool(getattr(self.tokenizer, "chat_template", None))

    @cached_property
    def specials(self) -> tuple[str, ...]:
        """The control tokens' texts, longest first."""
        added = getattr(self.tokenizer, "added_tokens_decoder", {})
        texts = {str(token) for token in added.values() if token.special} | set(
            self.tokenizer.all_special_tokens
        )
        return tuple(sorted((text for text in texts if text), key=lambda text: (-len(text), text)))

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """The control tokens' ids."""
        return frozenset(self.tokenizer.convert_tokens_to_ids(list(self.specials)))

    @cached_property
    def _special(self) -> re.Pattern[str] | None:
        return re.compile("|".join(map(re.escape, self.specials))) if self.specials else None

    def first_special(self, text: str) -> Span | None:
        """The characters of the first control token in a text."""
        found = self._special.search(text) if self._special else None
        return found.span() if found else None

    def refuse_specials(self, text: str, key: str) -> None:
        """Refuse user text in which a control token is spelt out: it would end the turn, or forge one."""
        found = self.first_special(text)
        if found:
            token = text[found[0] : found[1]]
            raise RowError(
                f"the text spells the control token {token}", key=key, mend="remove it from the text"
            )

    @cached_property
    def ends(self) -> dict[int, str]:
        """The control tokens that begin, end and fill up texts, by id: not those that stand in one (T5's
        ``<extra_id_0>``, BART's ``<mask>``).
        """
        roles = (self.tokenizer.bos_token, self.tokenizer.eos_token, self.tokenizer.pad_token)
        return {int(self.tokenizer.convert_tokens_to_ids(text)): str(text) for text in roles if text}

    def refuse_ends(self, text: str, key: str) -> None:
        """Refuse user text that spells a token which begins, ends or fills up a text."""
        for token in self.ends.values():
            if token in text:
                raise RowError(
                    f"the text spells the control token {token}", key=key, mend="remove it from the text"
                )

    @cached_property
    def bos(self) -> tuple[int, ...]:
        """What the tokenizer itself puts before a text: its BOS id, or nothing."""
        bos = self.tokenizer.bos_token_id
        ids = self.tokenizer("a")["input_ids"]
        return (bos,) if bos is not None and ids and ids[0] == bos else ()

    def marks(self, *, target: bool = False) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Ids that the tokenizer itself puts before and after a text (T5: nothing and ``</s>``); ``target``:
        around a text that a decoder writes (a translator's mark may name another language).
        """
        return self._target_marks if target else self._source_marks

    @cached_property
    def _source_marks(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return self._around(list(self.tokenizer("a")["input_ids"]), self.ids("a"))

    @cached_property
    def _target_marks(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        plain = self.tokenizer(text_target="a", add_special_tokens=False)["input_ids"]
        return self._around(list(self.tokenizer(text_target="a")["input_ids"]), list(plain))

    def _around(self, whole: list[int], plain: list[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        for start in range(len(whole) - len(plain) + 1):
            if whole[start : start + len(plain)] == plain:
                return tuple(whole[:start]), tuple(whole[start + len(plain) :])
        raise DataError(
            "TOKENIZER",
            f"{type(self.tokenizer).__name__} changes a text when it puts its own tokens around it",
            mend="choose another with tokenizer.name",
            key="tokenizer.name",
        )

    @cached_property
    def joins(self) -> bool:
        """Whether tokenising in pieces gives the same text as tokenising the whole (false where a space is
        put before each).
        """
        pieces = ["2 x", "y 3", "\n", "z"]
        ids = [token for piece in pieces for token in self.ids(piece)]
        text = self.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        return bool(text == "".join(pieces))

    def ids(self, text: str) -> list[int]:
        """Token ids of a text, nothing added; control tokens in it are recognised."""
        if not text:
            return []
        core = self._core
        if core is None:
            return list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
        if core.truncation is not None:  # another's call left it there
            core.no_truncation()
        if core.padding is not None:
            core.no_padding()
        if core.encode_special_tokens != self.tokenizer.split_special_tokens:
            core.encode_special_tokens = self.tokenizer.split_special_tokens
        found: list[int] = core.encode(text, add_special_tokens=False).ids
        return found

    @cached_property
    def _core(self) -> Any:
        """The tokenizer's own core, where calling the tokenizer adds nothing to it: three times as fast."""
        from transformers import PreTrainedTokenizerFast

        plain = ("__call__", "_encode_plus")
        kind = type(self.tokenizer)
        same = self.fast and all(
            getattr(kind, name, None) is getattr(PreTrainedTokenizerFast, name) for name in plain
        )
        return self.tokenizer.backend_tokenizer if same else None

    def masked(self, text: str, responses: Sequence[Response]) -> tuple[list[int], list[bool]]:
        """Ids of ``text`` and whether each is trained.

        A token is trained when it holds a trained character, so one that straddles the edge of a span inside
        an answer is.
        """
        if not self.joins:
            return self._by_offsets(text, 0, [span for response in responses for span in response.trained])
        ids: list[int] = []
        flags: list[bool] = []
        at = 0
        for response in responses:
            prompt = self.ids(text[at : response.start])
            ids += prompt
            flags += [False] * len(prompt)
            answer, trained = self._answer(text, response)
            ids += answer
            flags += trained
            at = response.stop
        rest = self.ids(text[at:])
        return ids + rest, flags + [False] * len(rest)

    def _answer(self, text: str, response: Response) -> tuple[list[int], list[bool]]:
        whole = (response.start, response.stop)
        if response.trained == (whole,):
            ids = self.ids(text[whole[0] : whole[1]])
            return ids, [True] * len(ids)
        if self.fast:
            return self._by_offsets(text[whole[0] : whole[1]], whole[0], response.trained)
        ids, flags = [], []  # a slow tokenizer knows no offsets: cut at the spans themselves
        edges = sorted({*whole, *(edge for span in response.trained for edge in span)})
        for start, stop in pairwise(edges):
            piece = self.ids(text[start:stop])
            ids += piece
            flags += [any(first <= start and stop <= last for first, last in response.trained)] * len(piece)
        return ids, flags

    def _by_offsets(self, text: str, origin: int, spans: Sequence[Span]) -> tuple[list[int], list[bool]]:
        if not self.fast:
            raise DataError(
                "TOKENIZER",
                f"{type(self.tokenizer).__name__} is slow and spaces pieces out: no mask is exact",
                mend="use a fast tokenizer (a folder with tokenizer.json)",
            )
        encoded: Mapping[str, Any] = self.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        offsets = contiguous([(int(start), int(stop)) for start, stop in encoded["offset_mapping"]])
        flags = [
            any(start < last - origin and stop > first - origin for first, last in spans)
            for start, stop in offsets
        ]
        return list(encoded["input_ids"]), flags

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over all that decides ids and texts: vocabulary, merges, control tokens, template."""
        if self.fast:
            core = json.loads(self.tokenizer.backend_tokenizer.to_str())
            core.update(truncation=None, padding=None)  # changed by calls, and never used here
        else:
            core = dict(sorted(self.tokenizer.get_vocab().items()))
        parts = [type(self.tokenizer).__name__, core, self.specials, self.tokenizer.chat_template]
        parts += [self.tokenizer.bos_token, self.tokenizer.eos_token, self.tokenizer.pad_token]
        said = json.dumps(parts, sort_keys=True, default=str)
        return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, control tokens included."""
        return str(self.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))


def contiguous(offsets: Sequence[Span]) -> list[Span]:
    """Offsets without gaps: tokenizers that trim them leave blanks (and tokens of blanks only) unclaimed;
    they go to the token that holds them.
    """
    filled: list[Span] = []
    before = 0
    for index, (start, stop) in enumerate(offsets):
        if stop <= start:  # a token of blanks only: up to where the next one begins
            later = [other for other in offsets[index + 1 :] if other[1] > other[0]]
            stop = later[0][0] if later else max(stop, before)
            start = min(before, stop)
        elif start > before:
            start = before
        filled.append((start, stop))
        before = max(before, stop)
    return filled
