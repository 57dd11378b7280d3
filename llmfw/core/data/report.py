"""What became of the data, in numbers: printable and json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from llmfw.core.data.examples import Example

if TYPE_CHECKING:
    from rich.console import RenderableType

    from llmfw.core.data.encode import EncodeCounts
    from llmfw.core.data.reader import BadRows, ReadCounts


@dataclass
class SplitReport:
    """One split after every step: samples, tokens, the share that is trained, lengths, and pairs by the
    longer side.
    """

    samples: int = 0
    tokens: int = 0
    trained: int = 0
    shortest: int = 0
    median: int = 0
    longest: int = 0
    chosen_longer: int = 0
    rejected_longer: int = 0
    equal_length: int = 0
    rows: int = 0
    """Packed rows; 0 where samples aren't packed."""
    positions: int = 0
    """Positions of the packed rows, padding included: rows times the longest allowed."""

    @property
    def efficiency(self) -> float:
        """Share of the packed rows' positions that hold a token; 0 where samples aren't packed."""
        return self.tokens / self.positions if self.positions else 0.0

    @property
    def trained_share(self) -> float:
        """Trained tokens over all tokens."""
        return self.trained / self.tokens if self.tokens else 0.0


@dataclass
class SourceReport:
    """One source of a mixture."""

    form: str
    weight: float
    share: float
    """Of the training samples, by its weight."""
    recipe: dict[str, Any] = field(default_factory=dict)
    splits: dict[str, SplitReport] = field(default_factory=dict)


@dataclass
class DataReport:
    """Counts of the data path. ``pairs_cut_equal`` counts pairs that truncation made equally long."""

    source: str
    form: str = ""
    recipe: dict[str, Any] = field(default_factory=dict)
    max_length: int = 0
    too_long_policy: str = ""
    files: list[str] = field(default_factory=list)
    lines: int = 0
    rows_read: int = 0
    blank_lines: int = 0
    byte_order_marks: int = 0
    rows_skipped: int = 0
    skipped: list[str] = field(default_factory=list)
    duplicates: int = 0
    dialects: dict[str, int] = field(default_factory=dict)
    """Rows by the dialect that was recognised and how it was read."""
    too_long: int = 0
    cut: int = 0
    pairs_cut_equal: int = 0
    transforms: list[str] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    """What transforms measured, as ``data/PLUGIN/NAME``."""
    tables: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)
    splits: dict[str, SplitReport] = field(default_factory=dict)
    sources: dict[str, SourceReport] = field(default_factory=dict)
    """The sources of a mixture, by their labels."""
    streamed: dict[str, Any] = field(default_factory=dict)
    """What was streamed, once training has ended."""
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The report as json holds it."""
        plain = asdict(self)
        for name, split in self.splits.items():
            plain["splits"][name]["trained_share"] = round(split.trained_share, 4)
            if split.rows:
                plain["splits"][name]["efficiency"] = round(split.efficiency, 4)
        return plain

    def note_reading(self, counts: ReadCounts, bad: BadRows) -> None:
        """Take over what reading counted."""
        self.files, self.lines, self.rows_read = counts.files, counts.lines, counts.rows
        self.blank_lines, self.byte_order_marks = counts.blank, counts.bom
        self.rows_skipped, self.skipped = bad.count, list(bad.messages)
        self.duplicates, self.dialects = counts.duplicates, dict(counts.dialects)

    def take_streamed(self, told: Mapping[str, Mapping[str, Any]]) -> None:
        """Take over what a stream's sources counted, by their labels ("all": the only one)."""
        self.streamed = {label: dict(tally) for label, tally in told.items()}
        tallies = list(told.values())
        self.rows_read = sum(tally["rows"] for tally in tallies)
        self.rows_skipped = sum(tally["bad"] for tally in tallies)
        self.skipped = [message for tally in tallies for message in tally["messages"]]
        self.too_long = sum(tally["too_long"] for tally in tallies)
        self.cut = sum(tally["cut"] for tally in tallies)
        self.pairs_cut_equal = sum(tally["pairs_cut_equal"] for tally in tallies)
        self.notes = list(
            dict.fromkeys([*self.notes, *(note for tally in tallies for note in tally["notes"])])
        )

    def note_encoding(self, counts: EncodeCounts) -> None:
        """Take over what tokenising counted."""
        self.too_long, self.cut, self.pairs_cut_equal = counts.too_long, counts.cut, counts.pairs_cut_equal
        self.notes += list(counts.notes)
        if counts.pairs_cut_equal:
            self.warnings.append(
                f"truncation made {counts.pairs_cut_equal} pairs equally long: such a pair no longer shows "
                "which answer was longer; raise data.max_length or set data.too_long=drop"
            )

    def __rich__(self) -> RenderableType:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        facts = Table.grid(padding=(0, 2))
        for name, value in self._facts().items():
            facts.add_row(Text(name, style="bold"), Text(value))
        table = Table(box=None, padding=(0, 2))
        unit = "pairs" if self.form == "preference" else "samples"
        for column in ("split", unit, "tokens", "trained", "shortest", "median", "longest"):
            table.add_column(column, justify="left" if column == "split" else "right", no_wrap=True)
        for name, split in self.splits.items():
            lengths = (split.shortest, split.median, split.longest)
            table.add_row(
                name,
                str(split.samples),
                f"{split.tokens:,}",
                f"{split.trained_share:.0%}",
                *map(str, lengths),
            )
        parts: list[RenderableType] = [facts, table]
        if self.sources:
            parts.append(self._sources())
        if self.streamed:
            parts.append(self.streamed_table())
        lines = [Text(f"warning: {text}", style="yellow") for text in self.warnings]
        return Group(*parts, *[Text(f"note: {text}") for text in self.notes], *lines)

    def _sources(self) -> RenderableType:
        """A line for each source: its share by weight, and what it holds."""
        from rich.table import Table

        table = Table(box=None, padding=(0, 2))
        for column in ("source", "form", "share", "samples", "tokens", "held out"):
            left = column in ("source", "form")
            table.add_column(column, justify="left" if left else "right", no_wrap=not left)
        for label, source in self.sources.items():
            train = source.splits.get("train", SplitReport())
            held_out = source.splits.get("validation", SplitReport())
            table.add_row(
                label, source.form, f"{source.share:.1%}", str(train.samples), f"{train.tokens:,}",
                str(held_out.samples),
            )  # fmt: skip
        return table

    def streamed_table(self) -> RenderableType:
        """A line for each source that was streamed: what training has seen of it."""
        from rich.table import Table

        table = Table(box=None, padding=(0, 2))
        for column in ("streamed", "rows read", "passes", "samples", "tokens", "shortest", "longest"):
            table.add_column(column, justify="left" if column == "streamed" else "right")
        for label, tally in self.streamed.items():
            numbers = (tally[name] for name in ("rows", "passes", "samples", "tokens", "shortest", "longest"))
            table.add_row(label, *(f"{number:,}" for number in numbers))
        return table

    def _facts(self) -> dict[str, str]:
        facts = {"data": f"{self.source} ({self.form} rows)"}
        facts.update({name: _words(value) for name, value in self.recipe.items()})
        read = f"{self.rows_read}"
        passed = (
            ("rows_skipped", "skipped"),
            ("blank_lines", "blank lines"),
            ("byte_order_marks", "byte order marks"),
            ("duplicates", "dropped: their content was seen before"),
        )
        for count, what in ((getattr(self, name), words) for name, words in passed):
            read += f", {count} {what}" if count else ""
        facts["rows read"] = read
        if self.dialects:
            facts["recognised"] = "\n".join(f"{what} ({count} rows)" for what, count in self.dialects.items())
        facts["longest allowed"] = (
            f"{self.max_length} tokens; longer: {self.too_long_policy}, {self.too_long} of them"
        )
        for name, split in self.splits.items():
            if split.rows:
                facts[f"packed, {name}"] = (
                    f"{split.rows} rows of up to {self.max_length} tokens, {split.efficiency:.1%} of their "
                    "positions used"
                )
        if self.form == "preference":
            for name, split in self.splits.items():
                facts[f"longer side, {name}"] = (
                    f"chosen {_part(split.chosen_longer, split.samples)}, "
                    f"rejected {_part(split.rejected_longer, split.samples)}, "
                    f"neither {_part(split.equal_length, split.samples)}"
                )
        if self.transforms:
            facts["transforms"] = "; ".join(self.transforms)
        if self.skipped:
            facts["skipped"] = "\n".join(self.skipped[:5] + (["..."] if self.rows_skipped > 5 else []))
        return facts


def describe(examples: Sequence[Example], capacity: int | None = None) -> SplitReport:
    """The numbers of one split; ``capacity``: the longest packed row, where samples are packed."""
    if not examples:
        return SplitReport()
    lengths = sorted(example.length for example in examples)
    report = SplitReport(
        samples=sum(len(example.sample_ids) for example in examples),
        tokens=sum(sequence.tokens for example in examples for sequence in example.sequences),
        trained=sum(sum(example.trained_lengths) for example in examples),
        shortest=lengths[0],
        median=lengths[len(lengths) // 2],
        longest=lengths[-1],
    )
    if capacity is not None:
        report.rows = len(examples)
        report.positions = sum(max(capacity, example.length) for example in examples)
    for example in examples:
        if example.kind == "preference":
            chosen, rejected = example.trained_lengths
            report.chosen_longer += chosen > rejected
            report.rejected_longer += chosen < rejected
            report.equal_length += chosen == rejected
    return report


def _part(count: int, whole: int) -> str:
    return f"{count} ({count / whole:.0%})" if whole else "0"


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_words(part)}" for name, part in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_words, value))
    return str(value)
