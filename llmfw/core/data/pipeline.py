"""From a source of rows to examples of each split: read, split, transform, tokenise, pack; every step
counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

from llmfw.core.data.encode import Encoder, TooLong, length_limit
from llmfw.core.data.examples import Example, pack
from llmfw.core.data.formats import PLACE, Form, RowError, content_hash, prompt_of
from llmfw.core.data.module import ConfiguredData, DataModule, RowsData, held_out_share
from llmfw.core.data.order import Order, stable_hash
from llmfw.core.data.reader import BadRows, ReadCounts, check_rows
from llmfw.core.data.report import DataReport, describe
from llmfw.core.data.split import split_rows
from llmfw.core.data.token_cache import cached
from llmfw.core.errors import DataError, LlmfwError, PluginError
from llmfw.core.records import DatasetTransform, Row, Transformed
from llmfw.core.schema import Root

SPLITS = ("train", "validation")
Transforms = Sequence[tuple[str, DatasetTransform]]
"""(plugin, transform), in the order in which the user lists plugins."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The data of a run. ``rows`` are those after the row transforms; ``order`` replaces shuffling where a
    plugin brings one.
    """

    train: list[Example]
    validation: list[Example]
    rows: dict[str, list[Row]]
    report: DataReport
    form: Form
    order: Order | None = None
    fingerprint: str = ""
    """Hash of every token and mask, in order: what a resumed run must find again."""
    max_length: int = 0
    """Longest example, in this tokenizer's tokens."""


def prepare(
    config: Root, tokenizer: Any, transforms: Transforms = (), datamodule: DataModule | None = None
) -> Prepared:
    """The examples of ``config.data`` (or of ``datamodule``) for this tokenizer.

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
    bad = BadRows(skip=data.on_bad_row == "skip", limit=data.max_bad_rows)
    counts = ReadCounts()
    limit = length_limit(tokenizer, data.max_length)
    report = DataReport(source=source.name(), max_length=limit, too_long_policy=data.too_long)
    form, rows = _read(source, config, bad, counts, report)
    for owner, transform in transforms:
        if transform.stage == "rows":
            for split in transform.splits:
                changed = _apply(owner, transform, split, rows.get(split, []), report)
                rows[split] = _recheck(changed, owner, transform, form)
    encoder = Encoder(tokenizer, limit, cast(TooLong, data.too_long))
    examples = {split: _encode(encoder, form, rows[split], bad) for split in SPLITS}
    for stage in ("tokens", "units"):
        if stage == "units" and data.packing:
            examples = {split: _pack(found, limit) for split, found in examples.items()}
        for owner, transform in transforms:
            if transform.stage == stage:
                for split in transform.splits:
                    examples[split] = _apply(owner, transform, split, examples[split], report)
                    _check_ids(examples[split], owner, transform)
    _finish(report, source, form, examples, encoder, bad, counts)
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
        form=form,
        order=_order(transforms),
        fingerprint=fingerprint(examples["train"], examples["validation"]),
        max_length=limit,
    )


def fingerprint(*splits: Sequence[Example]) -> str:
    """16 hex digits over ids, tokens and masks of these splits, in order."""
    whole = 0
    for split in splits:
        whole = stable_hash(whole, len(split))
        for example in split:
            parts = [part for sequence in example.sequences for part in (sequence.ids, sequence.trained)]
            whole = stable_hash(whole, example.id, sorted(example.extra.items()), *parts)
    return f"{whole:016x}"


def _read(
    source: DataModule, config: Root, bad: BadRows, counts: ReadCounts, report: DataReport
) -> tuple[Form, dict[str, list[Row]]]:
    data = config.data
    share = held_out_share(data.validation)
    configured = isinstance(source, ConfiguredData)  # the settings speak of data.name only
    kind = data.kind if configured else source.kind
    split_key = data.split_key if configured else source.split_key
    limit = None if isinstance(source, RowsData) else data.limit
    places = source.located("train", bad, counts)
    if places is None:
        raise PluginError(
            "DATA-MODULE", f"{source.name()}.rows('train') returned None", mend="return the training rows"
        )
    form, train = check_rows(islice(places, limit), bad, kind)
    counts.rows += len(train)
    if not train:
        left = f"; {bad.count} were skipped, the first: {bad.messages[0]}" if bad.count else ""
        raise DataError(
            "NO-ROWS",
            f"there are no rows in it{left}",
            file=source.name(),
            mend="give data with at least one row",
        )
    held_out = source.located("validation", bad, counts)
    if held_out is not None:
        other, validation = check_rows(held_out, bad, kind)
        counts.rows += len(validation)
        if validation and other != form:
            raise DataError(
                "FORMS",
                f"the held-out rows are {other} rows, the training rows {form} rows",
                file=source.name(),
                mend="give both one form",
            )
        _note_leaks(train, validation, report)
    else:
        try:
            train, validation = split_rows(train, share, split_key)
        except RowError as problem:
            raise DataError(
                "SPLIT", problem.what, file=source.name(), key=problem.key, mend=problem.mend
            ) from problem
        if share and not validation:
            report.warnings.append("nothing is held out: all rows have one value of the split's key")
    return form, {"train": train, "validation": validation}


def _note_leaks(train: list[Row], validation: list[Row], report: DataReport) -> None:
    prompts = {content_hash({"prompt": prompt_of(row)}) for row in train if prompt_of(row)}
    shared = sum(content_hash({"prompt": prompt_of(row)}) in prompts for row in validation)
    if shared:
        report.warnings.append(
            f"{shared} of the {len(validation)} held-out rows ask what training rows ask too"
        )


class _SomeRefused(Exception):
    """Some rows were refused: there are examples, but nothing to keep for later."""


def _encode(encoder: Encoder, form: Form, rows: Sequence[Row], bad: BadRows) -> list[Example]:
    """The rows' examples, from the cache where they were tokenised before and none was refused."""
    examples: list[Example] = []

    def encode() -> list[Example]:
        refused = bad.count
        examples.extend(_encode_rows(encoder, form, rows, bad))
        if bad.count > refused:
            raise _SomeRefused
        return examples

    try:
        return cached(encoder, form, rows, encode)
    except _SomeRefused:
        return examples


def _encode_rows(encoder: Encoder, form: Form, rows: Sequence[Row], bad: BadRows) -> list[Example]:
    examples: list[Example] = []
    for row in rows:
        try:
            example = encoder.encode(form, row)
        except RowError as problem:
            bad.refuse(str(row.get(PLACE) or f"row {row['id']}"), problem)
            continue
        if example is not None:
            examples.append(example)
    return examples


def _pack(examples: list[Example], limit: int) -> list[Example]:
    if examples and examples[0].kind == "preference":
        raise DataError(
            "PACKING", "preference pairs can't be packed", key="data.packing", mend="set data.packing=false"
        )
    return pack(examples, limit)


def _apply(
    owner: str, transform: DatasetTransform, split: str, items: list[Any], report: DataReport
) -> list[Any]:
    """The transform's answer, checked not to be empty; errors name plugin and transform."""
    if not items:
        return items
    answer = _guarded(owner, transform, transform.apply, items)
    if isinstance(answer, Transformed):
        at = "data" if split == "train" else f"data/{split}"
        report.metrics.update(
            {f"{at}/{owner}/{name}": float(value) for name, value in answer.metrics.items()}
        )
        report.tables.update({f"{owner}/{name}/{split}": list(rows) for name, rows in answer.tables.items()})
        answer = answer.items
    changed: list[Any] = _guarded(owner, transform, list, answer)
    report.transforms.append(
        f"{owner}/{transform.name} ({transform.stage}, {split}): {len(items)} -> {len(changed)}"
    )
    if not changed:
        raise DataError(
            "TRANSFORM-EMPTY",
            f"plugin {owner!r}: transform {transform.name!r} left none of {len(items)} {transform.stage} "
            f"of the {split} split",
            mend=f"loosen the settings of {owner}, or leave it out",
        )
    return changed


def _guarded(owner: str, transform: DatasetTransform, call: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return call(*arguments)
    except LlmfwError as error:
        error.add_note(f"raised by plugin {owner!r} in transform {transform.name!r}")
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(
            "PLUGIN-RAISED",
            f"plugin {owner!r} failed in transform {transform.name!r}: {type(error).__name__}: {error}",
            mend="mend the plugin, or leave it out",
        ) from error


def _recheck(rows: list[Any], owner: str, transform: DatasetTransform, form: Form) -> list[Row]:
    """Rows of a transform are checked like those of a file; they may be new, but not of another form."""
    who = f"plugin {owner!r}, transform {transform.name!r}"
    located = [
        ((row.get(PLACE) if isinstance(row, dict) else None) or f"row {number}", row)
        for number, row in enumerate(rows, 1)
    ]
    try:
        return check_rows(located, BadRows(), form)[1]
    except DataError as error:
        raise PluginError(
            "TRANSFORM", f"{who} returned a row that can't be used: {error}", mend="mend the plugin"
        ) from error


def _check_ids(examples: Sequence[Any], owner: str, transform: DatasetTransform) -> None:
    seen: set[str] = set()
    for example in examples:
        if not isinstance(example, Example):
            what = f"returned {type(example).__name__}, not an Example"
        elif example.id in seen:
            what = f"returned two samples with the id {example.id}"
        else:
            seen.add(example.id)
            continue
        raise PluginError(
            "TRANSFORM",
            f"plugin {owner!r}, transform {transform.name!r} {what}",
            mend="mend the plugin: ids stay unique",
        )


def _order(transforms: Transforms) -> Order | None:
    found = [(owner, transform) for owner, transform in transforms if transform.stage == "order"]
    if not found:
        return None
    owner, transform = found[0]
    return _NamedOrder(owner, transform)


@dataclass(frozen=True)
class _NamedOrder:
    owner: str
    transform: DatasetTransform

    def __call__(self, examples: list[Example], epoch: int) -> Sequence[int]:
        return list(_guarded(self.owner, self.transform, self.transform.apply, examples, epoch))


def _finish(
    report: DataReport,
    source: DataModule,
    form: Form,
    examples: dict[str, list[Example]],
    encoder: Encoder,
    bad: BadRows,
    counts: ReadCounts,
) -> None:
    report.form = form
    report.recipe = dict(source.recipe())
    report.files, report.lines, report.rows_read = counts.files, counts.lines, counts.rows
    report.blank_lines, report.byte_order_marks = counts.blank, counts.bom
    report.rows_skipped, report.skipped = bad.count, list(bad.messages)
    encoded = encoder.counts
    report.too_long, report.cut, report.pairs_cut_equal = (
        encoded.too_long,
        encoded.cut,
        encoded.pairs_cut_equal,
    )
    report.splits = {split: describe(found) for split, found in examples.items()}
    report.notes += list(encoded.notes)
    if encoded.pairs_cut_equal:
        report.warnings.append(
            f"truncation made {encoded.pairs_cut_equal} pairs equally long: such a pair no longer shows "
            "which answer was longer; raise data.max_length or set data.too_long=drop"
        )
