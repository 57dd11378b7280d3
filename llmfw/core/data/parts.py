"""One source of rows on its way to examples: read, checked, split, tokenised, packed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, cast

from llmfw.core.data.encode import EncodeCounts, Encoder, TooLong
from llmfw.core.data.encode_rows import encode_rows
from llmfw.core.data.examples import Example
from llmfw.core.data.formats import Form, RowError, content_hash, prompt_of
from llmfw.core.data.module import ConfiguredData, RowsData, held_out_share
from llmfw.core.data.packing import pack, split_long
from llmfw.core.data.reader import BadRows, ReadCounts, check_rows, without_shared
from llmfw.core.data.report import DataReport
from llmfw.core.data.sources import Source, batch_kind
from llmfw.core.data.split import split_rows
from llmfw.core.data.token_cache import cached
from llmfw.core.errors import DataError, PluginError
from llmfw.core.models.encoder_decoder import Sides
from llmfw.core.records import Row
from llmfw.core.schema import DataConfig

_ANY_LENGTH = 2**40
"""Longest example where long texts are split once they're tokenised."""


@dataclass
class Part:
    """What became of one source so far. ``rows`` and ``examples`` map a split to what it holds."""

    source: Source
    form: Form = "text"
    rows: dict[str, list[Row]] = field(default_factory=dict)
    examples: dict[str, list[Example]] = field(default_factory=dict)
    apart: bool = False
    """Whether held-out rows come from elsewhere than the training rows."""

    @property
    def label(self) -> str:
        """The source's short name; empty where it's the only one."""
        return self.source.label


@dataclass
class Reading:
    """What all sources of a run share while they're read."""

    data: DataConfig
    bad: BadRows
    counts: ReadCounts
    report: DataReport
    seen: dict[str, str] | None = None
    """With ``data.deduplicate``: hashes of what rows said, over all sources."""


def read_part(source: Source, reading: Reading) -> Part:
    """The checked rows of a source, split.

    Raises:
        DataError: a file or row that can't be used, no rows, held-out rows of another form.
    """
    module = source.module
    data = source.config or reading.data
    configured = isinstance(module, ConfiguredData)  # the settings speak of data.name and data.mix only
    kind = data.kind if configured else module.kind
    split_key = data.split_key if configured else module.split_key
    limit = None if isinstance(module, RowsData) else data.limit
    bad, counts = reading.bad, reading.counts
    places = module.located("train", bad, counts)
    if places is None:
        raise PluginError(
            "DATA-MODULE", f"{module.name()}.rows('train') returned None", mend="return the training rows"
        )
    form, train = check_rows(islice(places, limit), bad, kind, seen_before=reading.seen, counts=counts)
    counts.rows += len(train)
    if not train:
        left = f"; {bad.count} were skipped, the first: {bad.messages[0]}" if bad.count else ""
        raise DataError(
            "NO-ROWS",
            f"there are no rows in it{left}",
            file=module.name(),
            mend="give data with at least one row",
        )
    held_out = module.located("validation", bad, counts)
    share = held_out_share(data.validation)
    if held_out is not None:
        other, validation = check_rows(held_out, bad, kind)
        counts.rows += len(validation)
        if reading.seen is not None:
            train = without_shared(train, validation, counts)
        if validation and other != form:
            raise DataError(
                "FORMS",
                f"the held-out rows are {other} rows, the training rows {form} rows",
                file=module.name(),
                mend="give both one form",
            )
    else:
        try:
            train, validation = split_rows(train, share, split_key)
        except RowError as problem:
            raise DataError(
                "SPLIT", problem.what, file=module.name(), key=problem.key, mend=problem.mend
            ) from problem
        if share and not validation:
            which = f" of {source.label}" if source.label else ""
            reading.report.warnings.append(
                f"nothing{which} is held out: all rows have one value of the split's key"
            )
    return Part(source, form, {"train": train, "validation": validation}, apart=held_out is not None)


def note_leaks(parts: Sequence[Part], report: DataReport) -> None:
    """Warn of held-out rows whose prompts are trained on."""
    train = [row for part in parts for row in part.rows["train"]]
    validation = [row for part in parts for row in part.rows["validation"]]
    prompts = {content_hash({"prompt": prompt_of(row)}) for row in train if prompt_of(row)}
    shared = sum(content_hash({"prompt": prompt_of(row)}) in prompts for row in validation)
    if shared:
        report.warnings.append(
            f"{shared} of the {len(validation)} held-out rows ask what training rows ask too"
        )


def tell_apart(parts: Sequence[Part], report: DataReport) -> None:
    """Put the source's label before an id that rows of several sources have."""
    owners: dict[str, set[str]] = {}
    for part in parts:
        for rows in part.rows.values():
            for row in rows:
                owners.setdefault(row["id"], set()).add(part.label)
    shared = {name for name, labels in owners.items() if len(labels) > 1}
    if not shared:
        return
    for part in parts:
        for split, rows in part.rows.items():
            part.rows[split] = [
                {**row, "id": f"{part.label}/{row['id']}"} if row["id"] in shared else row for row in rows
            ]
    report.notes.append(
        f"{len(shared)} ids occur in more than one source: there the source's name stands before the id"
    )


def kind_of(part: Part) -> tuple[str, str, str]:
    """(source, form, kind of batch) for messages about sources that don't fit together."""
    first = next((row for rows in part.rows.values() for row in rows), None)
    return part.label or "data.validation", part.form, batch_kind(part.form, first)


def extras_of(part: Part) -> tuple[str, tuple[str, ...]] | None:
    """(source, names of its samples' extra numbers); None where it has no sample."""
    first = next((example for found in part.examples.values() for example in found), None)
    return None if first is None else (part.label or "data.validation", tuple(sorted(first.extra)))


def make_encoder(tokenizer: Any, limit: int, too_long: str, sides: Sides | None = None) -> Encoder:
    """The encoder for ``data.too_long``; texts that are split later are tokenised whole."""
    longest = _ANY_LENGTH if too_long == "split" else limit
    return Encoder(tokenizer, longest, cast(TooLong, too_long), sides)


def encode_part(encoder: Encoder, part: Part, bad: BadRows, limit: int) -> None:
    """Fill ``part.examples``: the rows' examples, long texts in pieces where that is asked for."""
    for split, rows in part.rows.items():
        examples = _encode(encoder, part.form, rows, bad)
        if encoder.too_long == "split":
            examples = split_texts(examples, part.form, limit, encoder.counts)
        if part.label:
            examples = [replace(example, source=part.label) for example in examples]
        part.examples[split] = examples


def split_texts(examples: list[Example], form: Form, limit: int, counts: EncodeCounts) -> list[Example]:
    """Texts in pieces of at most ``limit`` tokens; longer ones are counted.

    Raises:
        DataError: TOO-LONG-SPLIT, other rows than texts.
    """
    if form != "text" or any(example.kind != "text" for example in examples):
        which = "scored texts" if form == "text" else f"{form} rows"
        raise DataError(
            "TOO-LONG-SPLIT",
            f"{which} can't be split: an answer would stand without its prompt",
            key="data.too_long",
            mend="set data.too_long to drop, cut_start or cut_end",
        )
    long = sum(example.length > limit for example in examples)
    counts.too_long += long
    return [piece for example in examples for piece in split_long(example, limit)] if long else examples


def pack_part(part: Part, limit: int) -> None:
    """Join the examples of each split into units of at most ``limit`` tokens."""
    part.examples = {split: packed(found, limit) for split, found in part.examples.items()}


def packed(examples: list[Example], limit: int) -> list[Example]:
    """The units of these examples.

    Raises:
        DataError: PACKING, preference pairs, or rows of an encoder-decoder.
    """
    which = ""
    if examples and examples[0].kind == "preference":
        which = "preference pairs"
    elif examples and examples[0].sequences[0].encoder:
        which = "rows of an encoder-decoder"
    if which:
        raise DataError(
            "PACKING", f"{which} can't be packed", key="data.packing", mend="set data.packing=false"
        )
    return pack(examples, limit)


class _SomeRefused(Exception):
    """Some rows were refused: there are examples, but nothing to keep for later."""


def _encode(encoder: Encoder, form: Form, rows: Sequence[Row], bad: BadRows) -> list[Example]:
    """The rows' examples, from the cache where they were tokenised before and none was refused."""
    examples: list[Example] = []

    def encode() -> list[Example]:
        refused = bad.count
        examples.extend(encode_rows(encoder, form, rows, bad))
        if bad.count > refused:
            raise _SomeRefused
        return examples

    try:
        return cached(encoder, form, rows, encode)
    except _SomeRefused:
        return examples
