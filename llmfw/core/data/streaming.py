"""Streamed data before training: forms, held-out rows and a look at the first samples; the rest is read while
training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

from llmfw.core.data.examples import Example
from llmfw.core.data.formats import Form, RowError
from llmfw.core.data.mixture import Mix
from llmfw.core.data.module import ConfiguredData, held_out_share
from llmfw.core.data.order import stable_hash
from llmfw.core.data.parts import (
    Part,
    Reading,
    encode_part,
    extras_of,
    kind_of,
    make_encoder,
    pack_part,
)
from llmfw.core.data.pipeline import Prepared, fingerprint, held_out_of_all, interleaved
from llmfw.core.data.reader import BadRows, ReadCounts, check_rows, checked
from llmfw.core.data.report import DataReport, SourceReport, describe
from llmfw.core.data.sources import Source, refuse_extras, refuse_kinds
from llmfw.core.data.stream import SourceStream, StreamSettings
from llmfw.core.data.stream_loader import Stream
from llmfw.core.errors import DataError
from llmfw.core.models.encoder_decoder import Sides
from llmfw.core.records import Row
from llmfw.core.schema import Root

_HEAD = 64
"""Training rows of each source that are looked at before step 1."""
_ENDS = 64 * 1024
"""Bytes of a file's beginning and end that its fingerprint covers."""


def prepare_stream(
    config: Root,
    tokenizer: Any,
    sources: Sequence[Source],
    mix: Mix | None,
    report: DataReport,
    sides: Sides | None = None,
) -> Prepared:
    """What a streamed run needs before its first step. Held-out rows and the first training rows are read,
    as far as needed for that.

    Raises:
        DataError: a file or row that can't be used, no rows.
        ConflictError: MIX-FORMS.
    """
    data = config.data
    settings = StreamSettings(
        tokenizer=tokenizer,
        seed=config.seed,
        limit=report.max_length,
        too_long=data.too_long,
        buffer=data.shuffle_buffer,
        share=held_out_share(data.validation),
        packing=data.packing,
        skip_bad=data.on_bad_row == "skip",
        rows=data.limit,
        sides=sides,
    )
    bad = BadRows(skip=settings.skip_bad, limit=data.max_bad_rows)
    reading = Reading(data, bad, ReadCounts(), report)
    streams: list[SourceStream] = []
    parts: list[Part] = []
    for source in sources:
        stream = SourceStream(source, _form_of(source, settings), settings)
        share = mix.shares[source.label] if mix is not None else 1.0
        cap = ceil((config.trainer.validation_limit or data.shuffle_buffer) * share)
        stream, part = _look(stream, cap, reading)
        streams.append(stream)
        parts.append(part)
    if mix is not None:
        parts += held_out_of_all(config, tokenizer, reading)
        refuse_kinds([kind_of(part) for part in parts])
    encoder = make_encoder(tokenizer, report.max_length, data.too_long, sides)
    for part in parts:
        encode_part(encoder, part, bad, report.max_length)
        if data.packing:
            pack_part(part, report.max_length)
    if mix is not None:
        refuse_extras([extras_of(part) for part in parts])
    validation = interleaved(parts)
    head = [example for part in parts for example in part.examples["train"]]
    _tell(report, parts, mix, reading, validation, data.shuffle_buffer)
    prints = [fingerprint(head, validation), *(_print_of(source) for source in sources)]
    return Prepared(
        train=[],
        validation=validation,
        rows={
            split: [row for part in parts for row in part.rows[split]] for split in ("train", "validation")
        },
        report=report,
        form=parts[0].form,
        fingerprint=f"{stable_hash(*prints):016x}",
        max_length=report.max_length,
        mix=mix,
        stream=Stream(streams, report, mix, data.max_bad_rows, head),
        parts=tuple(parts),
    )


def _form_of(source: Source, settings: StreamSettings) -> Form:
    """The form of a source's first good row."""
    kind = source.module.kind if source.config is None else source.config.kind
    bad = BadRows(skip=settings.skip_bad, limit=2**62)
    for place, raw in source.module.located("train", bad, ReadCounts()) or ():
        try:
            return checked(raw, kind)[0]
        except RowError as problem:
            bad.refuse(place, problem)
    raise DataError(
        "NO-ROWS",
        "there are no rows in it",
        file=source.module.name(),
        mend="give data with at least one row",
    )


def _look(stream: SourceStream, cap: int, reading: Reading) -> tuple[SourceStream, Part]:
    """The stream (which holds no share out where held-out rows stand apart), and its first rows of each
    side, at most ``cap`` held-out ones.
    """
    source, report = stream.source, reading.report
    apart = source.module.located("validation", reading.bad, reading.counts)
    validation: list[Row] = []
    if apart is not None:
        validation = check_rows(apart, reading.bad, stream.kind)[1]
        stream = SourceStream(source, stream.form, replace(stream.settings, share=0.0))
    share = stream.settings.share
    train: list[Row] = []
    for held_out, row in stream.rows(reading.bad):
        reading.counts.rows += 1
        if held_out and len(validation) < cap:
            validation.append(row)
        elif not held_out and len(train) < _HEAD:
            train.append(row)
        if len(train) == _HEAD and (not share or len(validation) == cap):
            if share:
                which = f" of {source.label}" if source.label else ""
                report.notes.append(
                    f"{share:.0%} of the rows{which} are held out, by the hash of their key, and the first "
                    f"{cap} of them are measured (trainer.validation_limit)"
                )
            break
    if not train:
        raise DataError(
            "NO-SAMPLES", "no row of it is left to train on", file=source.module.name(),
            mend="give more rows, or hold fewer out (data.validation)",
        )  # fmt: skip
    if share and not validation:
        report.warnings.append("nothing is held out: no row's key has a hash below the share")
    return stream, Part(source, stream.form, {"train": train, "validation": validation})


def _tell(
    report: DataReport,
    parts: Sequence[Part],
    mix: Mix | None,
    reading: Reading,
    validation: list[Example],
    buffer: int,
) -> None:
    report.form = ", ".join(dict.fromkeys(part.form for part in parts))
    report.note_reading(reading.counts, reading.bad)
    capacity = report.max_length if reading.data.packing else None
    report.splits = {"validation": describe(validation, capacity)}
    report.notes.append(
        f"training rows are read while training, {buffer} of a source shuffled together; equal ids and "
        "contents are not looked for"
    )
    for part in parts:
        if mix is not None and part.label:
            report.sources[part.label] = SourceReport(
                form=part.form,
                weight=mix.weights[part.label],
                share=mix.shares[part.label],
                splits={"validation": describe(part.examples["validation"], capacity)},
            )


def _print_of(source: Source) -> str:
    """What pins a source's files without reading them whole: sizes, beginnings and ends."""
    module = source.module
    if not isinstance(module, ConfiguredData) or module.preset() is not None:
        return module.name()
    return " ".join(_file_print(file) for file in module.origin().train)


def _file_print(path: Path) -> str:
    size = path.stat().st_size
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        digest.update(handle.read(_ENDS))
        handle.seek(max(0, size - _ENDS))
        digest.update(handle.read())
    return f"{size}:{digest.hexdigest()[:16]}"
