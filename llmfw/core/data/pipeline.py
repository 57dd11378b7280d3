"""From sources of rows to examples of each split: read, split, transform, tokenise, pack; every step
counted.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from llmfw.core.data.columns import refuse_unmet
from llmfw.core.data.encode import Encoder, row_limit
from llmfw.core.data.examples import Example
from llmfw.core.data.formats import Form
from llmfw.core.data.mixture import Mix, Until
from llmfw.core.data.module import ConfiguredData, DataModule, held_out_file
from llmfw.core.data.order import Order, stable_hash
from llmfw.core.data.origin import names_split
from llmfw.core.data.parts import (
    Part,
    Reading,
    encode_part,
    extras_of,
    kind_of,
    make_encoder,
    note_leaks,
    pack_part,
    read_part,
    tell_apart,
)
from llmfw.core.data.reader import BadRows, ReadCounts
from llmfw.core.data.report import DataReport, SourceReport, describe
from llmfw.core.data.sources import Source, open_sources, refuse_extras, refuse_kinds
from llmfw.core.data.transforms import Transforms as Transforms
from llmfw.core.data.transforms import order_of, transform_examples, transform_rows
from llmfw.core.errors import DataError, PluginError
from llmfw.core.models.encoder_decoder import Sides
from llmfw.core.records import Row
from llmfw.core.schema import Root

if TYPE_CHECKING:
    from llmfw.core.data.stream_loader import Stream

SPLITS = ("train", "validation")


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The data of a run. ``rows`` are those after the row transforms; ``order`` replaces shuffling where a
    plugin brings one.
    """

    train: list[Example]
    """The training samples; none where they're streamed."""
    validation: list[Example]
    rows: dict[str, list[Row]]
    report: DataReport
    form: Form
    """The rows' form; of a mixture the first source's."""
    order: Order | None = None
    fingerprint: str = ""
    """Hash of every token and mask, in order: what a resumed run must find again."""
    max_length: int = 0
    """Longest example, in this tokenizer's tokens."""
    mix: Mix | None = None
    """Weights of the sources, where there are several."""
    stream: Stream | None = None
    """Where training samples come from while training, with ``data.streaming``."""
    parts: tuple[Part, ...] = ()
    """What each source gave."""

    def head(self, count: int) -> list[Example]:
        """The first training samples, for a look at them."""
        return self.train[:count] if self.stream is None else self.stream.head(count)


def prepare(
    config: Root,
    tokenizer: Any,
    transforms: Transforms = (),
    datamodule: DataModule | None = None,
    sides: Sides | None = None,
) -> Prepared:
    """The examples of ``config.data`` (or of ``datamodule``) for this tokenizer; ``sides`` says how the rows
    of an encoder-decoder are laid out.

    Raises:
        DataError: a file, row or setting that can't be used; a transform that selects nothing.
        PluginError: a transform that raises, or loses the uniqueness of ids.
    """
    data = config.data
    source = ConfiguredData(data, tokenizer) if datamodule is None else datamodule
    if not isinstance(source, DataModule):
        raise PluginError(
            "DATA-MODULE",
            f"{type(source).__module__}.{type(source).__qualname__} is no llmfw.DataModule",
            mend="derive from llmfw.DataModule and write rows(split)",
        )
    mixed = bool(data.mix) and isinstance(source, ConfiguredData)
    sources = open_sources(data, tokenizer) if mixed else [Source("", source)]
    mix = None
    if mixed:
        weights = dict(zip((part.label for part in sources), data.mix.values(), strict=True))
        mix = Mix(weights, cast(Until, data.mix_until))
    limit, note = row_limit(tokenizer, data.max_length, sides)
    report = DataReport(source=source.name(), max_length=limit, too_long_policy=data.too_long)
    report.notes += [note] if note else []
    if data.streaming:
        from llmfw.core.data.streaming import prepare_stream

        return prepare_stream(config, tokenizer, sources, mix, report, sides)
    bad = BadRows(skip=data.on_bad_row == "skip", limit=data.max_bad_rows)
    reading = Reading(data, bad, ReadCounts(), report, {} if data.deduplicate else None)
    parts = [read_part(part, reading) for part in sources]
    if mixed:
        parts += held_out_of_all(config, tokenizer, reading)
        refuse_kinds([kind_of(part) for part in parts])
        refuse_unmet(data.columns, reading.counts)
    if mixed or parts[0].apart:
        note_leaks(parts, report)
    for part in parts:
        transform_rows(transforms, part.rows, part.form, report, part.label)
    if mixed:
        tell_apart(parts, report)
    encoder = make_encoder(tokenizer, limit, data.too_long, sides)
    for part in parts:
        encode_part(encoder, part, bad, limit)
        transform_examples(transforms, "tokens", part.examples, report, part.label)
        if data.packing:
            pack_part(part, limit)
        transform_examples(transforms, "units", part.examples, report, part.label)
    if mixed:
        refuse_extras([extras_of(part) for part in parts])
    examples = {"train": _joined(parts, "train"), "validation": interleaved(parts)}
    rows = {split: [row for part in parts for row in part.rows.get(split, [])] for split in SPLITS}
    _finish(report, source, parts, mix, examples, encoder, reading)
    if not examples["train"]:
        raise DataError(
            "NO-SAMPLES",
            f"none of the {len(rows['train'])} training rows is left ({encoder.counts.too_long} are longer "
            f"than {limit} tokens, {bad.count} were skipped)",
            file=source.name(),
            mend="raise data.max_length, or set data.too_long=cut_end",
        )
    return Prepared(
        train=examples["train"],
        validation=examples["validation"],
        rows=rows,
        report=report,
        form=parts[0].form,
        order=order_of(transforms),
        fingerprint=fingerprint(examples["train"], examples["validation"]),
        max_length=limit,
        mix=mix,
        parts=tuple(parts),
    )


def fingerprint(*splits: Sequence[Example]) -> str:
    """16 hex digits over ids, sources, tokens and masks of these splits, in order."""
    whole = 0
    for split in splits:
        whole = stable_hash(whole, len(split))
        for example in split:
            flat: list[int] = []
            for sequence in example.sequences:
                flat += (-len(sequence), *sequence.ids, *sequence.trained, -len(sequence.encoder))
                flat += sequence.encoder
            tokens = array("q", flat).tobytes().hex()
            whole = stable_hash(whole, example.id, example.source, sorted(example.extra.items()), tokens)
    return f"{whole:016x}"


def held_out_of_all(config: Root, tokenizer: Any, reading: Reading) -> list[Part]:
    """The one held-out file of a mixture, as a part without training rows; [] where there's none."""
    name = held_out_file(config.data.validation)
    if name is None or any(names_split(replace(config.data, name=each, mix={})) for each in config.data.mix):
        return []
    data = replace(config.data, name=name, mix={}, validation=None, limit=None)
    part = read_part(Source("", ConfiguredData(data, tokenizer)), replace(reading, seen=None))
    part.rows = {"train": [], "validation": part.rows["train"]}
    return [part]


def interleaved(parts: Sequence[Part]) -> list[Example]:
    """The held-out samples of all sources, spread evenly, so that any beginning holds some of each."""
    placed = [
        ((index + 0.5) / len(found), number, index)
        for number, part in enumerate(parts)
        for found in (part.examples.get("validation", []),)
        for index in range(len(found))
    ]
    return [parts[number].examples["validation"][index] for _, number, index in sorted(placed)]


def _joined(parts: Sequence[Part], split: str) -> list[Example]:
    """The samples of all sources, in their order.

    Raises:
        DataError: SAMPLE-IDS, one id twice.
    """
    found = [example for part in parts for example in part.examples.get(split, [])]
    seen: set[str] = set()
    for example in found:
        if example.id in seen:
            raise DataError(
                "SAMPLE-IDS",
                f"two training samples have the id {example.id}",
                file=example.source or None,
                mend="rename one of the rows",
            )
        seen.add(example.id)
    return found


def _finish(
    report: DataReport,
    source: DataModule,
    parts: Sequence[Part],
    mix: Mix | None,
    examples: dict[str, list[Example]],
    encoder: Encoder,
    reading: Reading,
) -> None:
    report.form = ", ".join(dict.fromkeys(part.form for part in parts))
    report.note_reading(reading.counts, reading.bad)
    report.note_encoding(encoder.counts)
    capacity = report.max_length if reading.data.packing else None
    report.splits = {split: describe(found, capacity) for split, found in examples.items()}
    if mix is None:
        report.recipe = dict(source.recipe())
        return
    for part in parts:
        if part.label:
            report.sources[part.label] = SourceReport(
                form=part.form,
                weight=mix.weights[part.label],
                share=mix.shares[part.label],
                recipe=dict(part.source.module.recipe()),
                splits={split: describe(found, capacity) for split, found in part.examples.items()},
            )
