"""Rows that are read, checked and tokenised while training: bounded memory, and an order that is a pure
function of (seed, position).

Each source is read again and again. A pass is cut into blocks of ``shuffle_buffer`` rows (the first one of a
length of its own, so that passes differ in what stands together); a block's samples are shuffled by hashes of
(seed, pass, row). A position is (pass, block, samples given of it), so a resumed run reads up to its block
without tokenising, and tokenises one block again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from llmfw.core.data.encode import EncodeCounts
from llmfw.core.data.examples import Example
from llmfw.core.data.formats import PLACE, Form, RowError
from llmfw.core.data.order import stable_hash
from llmfw.core.data.parts import make_encoder, packed, split_texts
from llmfw.core.data.reader import BadRows, ReadCounts, checked
from llmfw.core.data.sources import Source
from llmfw.core.data.split import key_of
from llmfw.core.errors import DataError, LlmfwError
from llmfw.core.models.encoder_decoder import Sides
from llmfw.core.records import Row

Failure = tuple[type[LlmfwError], dict[str, Any]]
"""An error as it crosses from a worker process: class and arguments."""
_HASHES = 2.0**64


@dataclass(frozen=True, kw_only=True)
class StreamSettings:
    """What decides the samples of a stream. ``limit``: longest example in tokens; ``share``: held out."""

    tokenizer: Any
    seed: int
    limit: int
    too_long: str
    buffer: int
    share: float
    packing: bool
    skip_bad: bool
    rows: int | None = None
    sides: Sides | None = None


@dataclass(kw_only=True)
class Block:
    """The samples of some consecutive rows, and what was counted on the way."""

    number: tuple[int, int]
    """Pass and block, both from 0."""
    examples: list[Example] = field(default_factory=list)
    rows: int = 0
    held_out: int = 0
    bad: int = 0
    messages: list[str] = field(default_factory=list)
    encoded: EncodeCounts = field(default_factory=EncodeCounts)
    failure: Failure | None = None


class SourceStream:
    """One source as an endless sequence of blocks; it can be sent to worker processes."""

    def __init__(self, source: Source, form: Form, settings: StreamSettings) -> None:
        self.source, self.form, self.settings = source, form, settings
        said = source.module if source.config is None else source.config
        self.split_key, self.kind = said.split_key, said.kind

    def blocks(self, start: tuple[int, int] = (0, 0), worker: int = 0, workers: int = 1) -> Iterator[Block]:
        """The blocks from ``start`` on of which every ``workers``-th is this worker's; the rows of the others
        are read, not tokenised. An error ends the sequence, as a block that carries it.
        """
        turn, number = 0, start[0]
        encoder = make_encoder(
            self.settings.tokenizer, self.settings.limit, self.settings.too_long, self.settings.sides
        )
        at = start
        try:
            while True:
                bad = BadRows(skip=self.settings.skip_bad, limit=2**62)
                rows = self._rows(bad)
                block, size = 0, self._first_size(number)
                while chunk := list(islice(rows, size)):
                    at = (number, block)
                    if at >= start:
                        if turn % workers == worker:
                            encoder.counts = EncodeCounts()
                            yield self._block(at, chunk, bad, encoder)
                        turn += 1
                    bad.count, bad.messages = 0, []
                    block, size = block + 1, self.settings.buffer
                if not block:
                    raise DataError(
                        "NO-ROWS", "there are no rows in it", file=self.source.module.name(),
                        mend="give data with at least one row",
                    )  # fmt: skip
                number += 1
        except LlmfwError as error:
            said = {name: getattr(error, name) for name in ("code", "what", "mend", "file", "line", "key")}
            failed = Block(number=at, failure=(type(error), said))
            while True:  # whichever worker's turn it is
                yield failed

    def rows(self, bad: BadRows) -> Iterator[tuple[bool, Row]]:
        """(held out?, checked row) of every row of one pass."""
        for place, raw in self._rows(bad):
            found = self._checked(place, raw, bad)
            if found is not None:
                yield found

    def _rows(self, bad: BadRows) -> Iterator[tuple[str, object]]:
        places = self.source.module.located("train", bad, ReadCounts())
        return islice(places or iter(()), self.settings.rows)

    def _first_size(self, number: int) -> int:
        return 1 + stable_hash(self.settings.seed, self.source.label, number, "block") % self.settings.buffer

    def _checked(self, place: str, raw: object, bad: BadRows) -> tuple[bool, Row] | None:
        try:
            form, row = checked(raw, self.kind)
            if form != self.form:
                raise RowError(
                    f"this is a {form} row, but the first is a {self.form} row",
                    mend="keep one form a file, or set data.kind",
                )
            if self.source.label:
                row["id"] = f"{self.source.label}/{row['id']}"
            row[PLACE] = place
            share = self.settings.share
            return share > 0 and is_held_out(row, share, self.split_key), row
        except RowError as problem:
            bad.refuse(place, problem)
            return None

    def _block(
        self, at: tuple[int, int], chunk: list[tuple[str, object]], bad: BadRows, encoder: Any
    ) -> Block:
        made = Block(number=at, rows=len(chunk))
        placed: list[tuple[int, Example]] = []
        seed, label, (number, _) = self.settings.seed, self.source.label, at
        for place, raw in chunk:
            found = self._checked(place, raw, bad)
            if found is None:
                continue
            held_out, row = found
            if held_out:
                made.held_out += 1
                continue
            try:
                example = encoder.encode(self.form, row)
            except RowError as problem:
                bad.refuse(place, problem)
                continue
            if example is not None:
                key = stable_hash(seed, label, number, place.rpartition(":")[2], example.id)
                placed.append((key, example))
        examples = [example for _, example in sorted(placed, key=lambda item: item[0])]
        if self.settings.too_long == "split":
            examples = split_texts(examples, self.form, self.settings.limit, encoder.counts)
            examples.sort(key=lambda example: stable_hash(seed, label, number, "piece", example.id))
        if label:
            examples = [replace(example, source=label) for example in examples]
        if self.settings.packing:
            examples = packed(examples, self.settings.limit)
            examples.sort(key=lambda unit: stable_hash(seed, label, number, "unit", unit.id))
        made.examples, made.encoded = examples, encoder.counts
        made.bad, made.messages = bad.count, list(bad.messages)
        return made


def is_held_out(row: Row, share: float, split_key: str | None) -> bool:
    """Whether a streamed row is held out: its key's hash decides, so a row's side never changes."""
    return stable_hash("validation", key_of(row, split_key)) / _HASHES < share


@dataclass
class Tally:
    """What a source gave so far; json's types, as checkpoints keep it."""

    rows: int = 0
    """Rows read, over all passes."""
    held_out: int = 0
    bad: int = 0
    """Rows skipped in the first pass: later passes meet the same ones."""
    messages: list[str] = field(default_factory=list)
    too_long: int = 0
    cut: int = 0
    pairs_cut_equal: int = 0
    notes: list[str] = field(default_factory=list)
    samples: int = 0
    examples: int = 0
    tokens: int = 0
    trained: int = 0
    shortest: int = 0
    longest: int = 0

    def add_block(self, block: Block) -> None:
        """Count a block that was begun."""
        self.rows += block.rows
        if block.number[0] == 0:
            self.held_out += block.held_out
            self.bad += block.bad
            self.messages = [*self.messages, *block.messages][:20]
            self.too_long += block.encoded.too_long
            self.cut += block.encoded.cut
            self.pairs_cut_equal += block.encoded.pairs_cut_equal
        self.notes = list(dict.fromkeys([*self.notes, *block.encoded.notes]))

    def add_example(self, example: Example) -> None:
        """Count an example that was given."""
        self.samples += len(example.sample_ids)
        self.examples += 1
        self.tokens += sum(sequence.tokens for sequence in example.sequences)
        self.trained += sum(example.trained_lengths)
        self.shortest = min(self.shortest or example.length, example.length)
        self.longest = max(self.longest, example.length)


class Feed:
    """The samples of one source, one after another, and where it stands."""

    def __init__(
        self, stream: SourceStream, workers: int, position: dict[str, Any] | None, on_bad: Any
    ) -> None:
        self.stream, self._on_bad = stream, on_bad
        said = position or {"pass": 0, "block": 0, "given": 0, "tally": {}}
        self.number, self.given = (int(said["pass"]), int(said["block"])), int(said["given"])
        self.tally = Tally(**said["tally"])
        self._known = position is not None  # its first block was counted before the checkpoint
        self._blocks = open_blocks(stream, self.number, workers)
        self._block: Block | None = None
        self._last_full = self.number[0] - 1

    def next(self) -> Example:
        """The next sample.

        Raises:
            DataError: NO-SAMPLES, a whole pass gave none; what reading met.
        """
        while self._block is None or self.given >= len(self._block.examples):
            if self._block is not None:
                self.given = 0
            self._open(next(self._blocks))
        assert self._block is not None
        example = self._block.examples[self.given]
        self.given += 1
        self.tally.add_example(example)
        return example

    def position(self) -> dict[str, Any]:
        """Where the source stands, as json."""
        number, block = self.number
        return {"pass": number, "block": block, "given": self.given, "tally": dict(vars(self.tally))}

    def close(self) -> None:
        """Let worker processes go."""
        self._blocks = iter(())

    def _open(self, block: Block) -> None:
        if block.failure is not None:
            kind, said = block.failure
            raise kind(**said)
        self._block, self.number = block, block.number
        if self._known:
            self._known = False
        else:
            self.tally.add_block(block)
            if block.bad and block.number[0] == 0:
                self._on_bad(block)
        if block.examples:
            self._last_full = block.number[0]
        elif block.number[0] > self._last_full + 1:
            tally = self.tally
            raise DataError(
                "NO-SAMPLES",
                f"a whole pass gave no training sample ({tally.too_long} rows are longer than "
                f"{self.stream.settings.limit} tokens, {tally.bad} were skipped, {tally.held_out} held out)",
                file=self.stream.source.module.name(),
                mend="raise data.max_length, or look at the rows with llmfw data inspect",
            )


def open_blocks(stream: SourceStream, start: tuple[int, int], workers: int) -> Iterator[Block]:
    """A source's blocks from ``start`` on, tokenised by ``workers`` processes; 0: by this one."""
    if not workers:
        return stream.blocks(start)
    from llmfw.core.data.stream_workers import blocks_by_workers

    return blocks_by_workers(stream, start, workers)
