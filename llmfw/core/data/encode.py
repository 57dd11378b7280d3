"""Rows to examples: templates, masks, ends of turns, truncation. Every refusal names the row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from llmfw.core.data.chat import render
from llmfw.core.data.examples import Example, Extra, TokenSequence
from llmfw.core.data.formats import Form, Prompt, RowError, answer_of, is_trained, reaches_end
from llmfw.core.data.sides import cut_sides, decoder_row, encoder_ids
from llmfw.core.data.text import Response, Span, TextTokenizer
from llmfw.core.errors import DataError
from llmfw.core.models.encoder_decoder import Sides
from llmfw.core.records import Row

TooLong = Literal["error", "drop", "cut_start", "cut_end", "split"]
_REFERENCE_TEXT = (
    "Find the number of ways to choose three of the seven points so that no two of them are neighbours. "
    "Let x_1 be the first point; then 2x_1 + 3 = 11, and the answer follows, as the others count twice.\n"
)
_USUAL_BYTES_PER_TOKEN = 4


@dataclass
class EncodeCounts:
    """What happened on the way from rows to tokens."""

    too_long: int = 0
    cut: int = 0
    pairs_cut_equal: int = 0
    open_ends: int = 0
    notes: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Plain:
    """A sequence before truncation, and the text that its mask ought to train (without the end of turn)."""

    ids: list[int]
    trained: list[bool]
    answers: tuple[str, ...]
    encoder: list[int] = field(default_factory=list)
    """What the encoder of an encoder-decoder reads; ``ids`` are then the decoder's row."""


class Encoder:
    """Turns rows of one form into examples for one tokenizer.

    Args:
        max_length: longest row of tokens, already scaled (``length_limit``).
        too_long: what happens to a longer one. ``cut_start`` keeps BOS and the end, and takes as much from
            both prompts of a
            pair; ``cut_end`` keeps the beginning, and loses the end of turn.
        sides: of an encoder-decoder: the prompt is the encoder's row, the answer the decoder's, and each is
            held to ``max_length`` by itself.
    """

    def __init__(
        self, tokenizer: Any, max_length: int, too_long: TooLong = "drop", sides: Sides | None = None
    ) -> None:
        self.text = tokenizer if isinstance(tokenizer, TextTokenizer) else TextTokenizer(tokenizer)
        self.tokenizer = self.text.tokenizer
        self.max_length, self.too_long = max_length, too_long
        self.sides = sides
        self.counts = EncodeCounts()
        self.chat = bool(getattr(self.tokenizer, "chat_template", None))

    def encode(self, form: Form, row: Row) -> Example | None:
        """The example of a row, or None where it's dropped as too long.

        Raises:
            RowError: the row can't be tokenised as asked, or nothing in it would be trained.
        """
        kind: Literal["text", "preference", "scored"] = "text"
        if form == "preference":
            kind = "preference"
            plain = [self.answered(row["prompt"], row[side], key=side) for side in ("chosen", "rejected")]
        elif form == "completion":
            plain = [
                self.answered(row["prompt"], row["completion"], spans=row.get("spans"), key="completion")
            ]
        elif form == "problems":
            plain = [self.answered(row["prompt"], answer_of(row), key="answer")]
        elif form == "messages":
            plain = [self._conversation(row["messages"], 0, "messages")]
        else:
            plain = [self._document(row)]
        if "reward" in row:
            kind = "scored"
        sequences = self._fit(plain)
        if sequences is None:
            return None
        for side, sequence in zip(
            ("chosen", "rejected") if form == "preference" else (form,), sequences, strict=True
        ):
            if not any(sequence.trained):
                what = "nothing of it is trained" + (
                    f" after the cut to {self.max_length} tokens" if len(sequence) == self.max_length else ""
                )
                raise RowError(
                    what,
                    key=None if side == form else side,
                    mend="raise data.max_length, or change data.too_long",
                )
        extra: dict[str, Extra] = {"prompt_length": tuple(_prompt_length(sequence) for sequence in sequences)}
        if "reward" in row:
            extra["reward"] = float(row["reward"])
        if "old_logps" in row:
            extra["old_logps"] = (_old_logps(row["old_logps"], sequences[0]),)
        extra.update({name: float(value) for name, value in row.get("extra", {}).items()})
        return Example(id=row["id"], kind=kind, sequences=tuple(sequences), extra=extra)

    def answered(
        self,
        prompt: Prompt,
        response: Prompt,
        *,
        spans: Sequence[Sequence[int]] | None = None,
        key: str = "completion",
    ) -> Plain:
        """A prompt with its response, uncut. With a chat template strings become a user's and an assistant's
        message.
        """
        if self.chat:
            before = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
            said: list[dict[str, Any]]
            said = (
                [{"role": "assistant", "content": response}] if isinstance(response, str) else list(response)
            )
            if spans is not None:
                said[0]["spans"] = spans
            return self._conversation([*before, *said], len(before), key)
        if not isinstance(prompt, str) or not isinstance(response, str):
            raise _no_template()
        for name, text in (("prompt", prompt), (key, response)):
            if self.sides is None:
                self.text.refuse_specials(text, name)
            else:
                self.text.refuse_ends(text, name)
        shown = [(0, len(response))] if spans is None else [(a, min(b, len(response))) for a, b in spans]
        close = reaches_end(spans, response)
        if self.sides is not None:
            return self._two_sides(prompt, response, shown, close=close)
        self.counts.notes[
            "no chat template: prompt and answer are joined as they are, and end with the end-of-text token"
        ] += 1
        whole = prompt + response
        trained = [(len(prompt) + a, len(prompt) + b) for a, b in shown]
        ids, flags = self.text.masked(whole, [Response(len(prompt), len(whole), tuple(trained))])
        answers = tuple(whole[first:last] for first, last in trained)
        return self._closed([*self.text.bos, *ids], [False] * len(self.text.bos) + flags, answers, close)

    def _conversation(self, messages: list[dict[str, Any]], first: int, key: str) -> Plain:
        if not self.chat:
            raise _no_template()
        rendered = render(self.text, messages, first, key)
        text, responses = rendered.text, rendered.responses
        last = messages[-1]
        if self.sides is not None and (len(responses) != 1 or not is_trained(last)):
            raise RowError(
                f"an encoder-decoder writes one answer, the last message; {len(responses)} are to be trained",
                key=key,
                mend='end the row with the answer, and give earlier ones "loss": false',
            )
        ends_open = (
            rendered.open_ends > 0
            and bool(responses)
            and last["role"] == "assistant"
            and reaches_end(last.get("spans"), last["content"])
            and not text[responses[-1].stop :].strip()
        )
        if ends_open:
            text = text[: responses[-1].stop]
        if self.sides is not None:
            (only,) = responses
            self.counts.open_ends += rendered.open_ends - ends_open
            shown = [(a - only.start, b - only.start) for a, b in only.trained]
            answer = text[only.start : only.stop]
            return self._two_sides(text[: only.start], answer, shown, rendered.answers, close=ends_open)
        ids, flags = self.text.masked(text, responses)
        left_open = rendered.open_ends - ends_open
        self.counts.open_ends += left_open
        if left_open:
            self.counts.notes[
                "the chat template ends some answers with no token: their end isn't learnt"
            ] += 1
        return self._closed(ids, flags, rendered.answers, ends_open)

    def _two_sides(
        self,
        asked: str,
        answer: str,
        spans: Sequence[Span],
        answers: tuple[str, ...] | None = None,
        *,
        close: bool,
    ) -> Plain:
        """The encoder's row of what is asked, the decoder's row of the answer (``llmfw.core.data.sides``)."""
        assert self.sides is not None
        encoder = encoder_ids(self.text, asked)
        if not encoder:
            raise RowError("the prompt holds no token", key="prompt", mend="give the encoder a text to read")
        row = decoder_row(self.text, self.sides.start, answer, spans, close=close)
        said = answers if answers is not None else tuple(answer[first:last] for first, last in spans)
        return replace(self._closed(row.ids, row.trained, said, row.open), encoder=encoder)

    def _document(self, row: Row) -> Plain:
        if self.sides is not None:
            raise RowError(
                "an encoder-decoder needs something to read, a text row has no prompt",
                key="text",
                mend="give rows with prompt and completion, or take a decoder-only model",
            )
        text: str = row["text"]
        self.text.refuse_specials(text, "text")
        spans = row.get("spans")
        if spans is None:
            ids = [*self.text.bos, *self.text.ids(text)]
            return self._closed(ids, [False] + [True] * (len(ids) - 1), (text,), True)
        trained = tuple((first, min(last, len(text))) for first, last in spans)
        ids, flags = self.text.masked(text, [Response(0, len(text), trained)])
        if not self.text.bos and flags:
            flags[0] = False  # nothing precedes it
        answers = tuple(text[first:last] for first, last in trained)
        ids, flags = [*self.text.bos, *ids], [False] * len(self.text.bos) + flags
        return self._closed(ids, flags, answers, reaches_end(spans, text))

    def _closed(self, ids: list[int], flags: list[bool], answers: tuple[str, ...], close: bool) -> Plain:
        """The sequence with the trained end-of-text token, where it's asked for and there is one."""
        eos = self.tokenizer.eos_token_id
        if close and eos is not None:
            return Plain([*ids, int(eos)], [*flags, True], answers)
        if close:
            self.counts.notes["the tokenizer has no end-of-text token: the answers' end isn't learnt"] += 1
        return Plain(ids, flags, answers)

    def _fit(self, plain: list[Plain]) -> list[TokenSequence] | None:
        """The sequences within ``max_length``, or None: dropped."""
        if self.sides is not None:
            return self._fit_sides(plain)
        over = max(len(one.ids) for one in plain) - self.max_length
        if over > 0:
            self.counts.too_long += 1
            if self.too_long == "drop":
                return None
            if self.too_long == "error":
                raise RowError(
                    f"{over + self.max_length} tokens, {over} more than allowed",
                    mend=f"raise data.max_length (now {self.max_length} tokens) or set data.too_long",
                )
            self.counts.cut += 1
        cut = [(one.ids, one.trained) for one in plain]
        if over > 0 and self.too_long == "cut_start":
            keep = (
                len(self.text.bos)
                if all(tuple(ids[: len(self.text.bos)]) == self.text.bos for ids, _ in cut)
                else 0
            )
            cut = [
                (ids[:keep] + ids[keep + over :], flags[:keep] + flags[keep + over :]) for ids, flags in cut
            ]
        elif over > 0:
            cut = [(ids[: self.max_length], flags[: self.max_length]) for ids, flags in cut]
        if any(not ids for ids, _ in cut):
            raise RowError(
                "nothing is left of it after the cut", mend="raise data.max_length, or set data.too_long=drop"
            )
        sequences = [TokenSequence(tuple(ids), (False, *flags[1:])) for ids, flags in cut]
        if over > 0:
            self._count_equal(plain, sequences)
        return sequences

    def _fit_sides(self, plain: list[Plain]) -> list[TokenSequence] | None:
        """Both sides within ``max_length``, or None: dropped."""
        read = max(len(one.encoder) for one in plain) - self.max_length
        written = max(len(one.ids) for one in plain) - self.max_length
        if max(read, written) > 0:
            self.counts.too_long += 1
            if self.too_long == "drop":
                return None
            if self.too_long == "error":
                side, over = ("encoder", read) if read > written else ("decoder", written)
                raise RowError(
                    f"{over + self.max_length} tokens on the {side}'s side, {over} more than allowed",
                    mend=f"raise data.max_length (now {self.max_length} tokens) or set data.too_long",
                )
            self.counts.cut += 1
        rows = [(one.ids, one.trained, one.encoder) for one in plain]
        sequences = cut_sides(rows, self.text, self.max_length, from_start=self.too_long == "cut_start")
        if written > 0:
            self._count_equal(plain, sequences)
        return sequences

    def _count_equal(self, before: list[Plain], after: list[TokenSequence]) -> None:
        """Count a pair whose answers a cut has made equally long."""
        lengths = [[sum(one.trained) for one in those] for those in (before, after)]
        if len(before) == 2:
            (first, second), (one, other) = lengths
            self.counts.pairs_cut_equal += first != second and one == other


def bytes_per_token(tokenizer: Any) -> float:
    """UTF-8 bytes per token on a fixed sample of English and mathematics: about 3 to 4, and 1 for byte
    tokenizers.
    """
    ids = tokenizer(_REFERENCE_TEXT, add_special_tokens=False, verbose=False)["input_ids"]
    return len(_REFERENCE_TEXT.encode()) / max(1, len(ids))


def length_limit(tokenizer: Any, max_length: int) -> int:
    """``data.max_length`` in this tokenizer's tokens: four times as many where a token is a byte, so that the
    same texts fit.
    """
    return max_length * _USUAL_BYTES_PER_TOKEN if bytes_per_token(tokenizer) < 1.5 else max_length


def row_limit(tokenizer: Any, max_length: int, sides: Sides | None) -> tuple[int, str | None]:
    """(``length_limit``, but no more than the model has positions; what to say of it, if that counts)."""
    limit = length_limit(tokenizer, max_length)
    # a decoder-only model's tokenizer says how many positions there are; T5's says 512, and has no limit
    most = tokenizer.model_max_length if sides is None else sides.positions
    if most is None or limit <= most:
        return limit, None
    return most, f"longest allowed is {most} tokens, not {limit}: the model has no more positions"


def _prompt_length(sequence: TokenSequence) -> int:
    return next((index for index, flag in enumerate(sequence.trained) if flag), len(sequence))


def _old_logps(given: Sequence[float], sequence: TokenSequence) -> tuple[float, ...]:
    """One number per trained token.

    Raises:
        RowError: they aren't as many.
    """
    trained = sum(sequence.trained)
    if len(given) != trained:
        raise RowError(
            f"{len(given)} numbers for {trained} trained tokens", key="old_logps",
            mend="give one log-prob per token that is trained, the end of the turn among them",
        )  # fmt: skip
    return tuple(float(value) for value in given)


def _no_template() -> DataError:
    return DataError(
        "NO-TEMPLATE",
        "the rows hold messages, but the tokenizer has no chat template",
        mend="set tokenizer.template (chatml, or a file), or give prompt and answers as strings",
        key="tokenizer.template",
    )


def pad_id_of(tokenizer: Any) -> int:
    """The id that fills rows up: the padding token's, else the end-of-text token's, else 0 (padding is masked
    everywhere).
    """
    for name in ("pad_token_id", "eos_token_id"):
        found = getattr(tokenizer, name, None)
        if found is not None:
            return int(found)
    return 0


def trained_text(tokenizer: Any, sequence: TokenSequence) -> str:
    """What the mask of a sequence trains, decoded, control tokens included."""
    return TextTokenizer(tokenizer).decode(sequence.trained_ids)
