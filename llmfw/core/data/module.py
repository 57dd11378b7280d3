"""Sources of rows: the base class for plugins, rows in memory, and what ``data.name`` means."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from llmfw.core.data.formats import PLACE, RowError, form_of
from llmfw.core.data.origin import Origin, held_out_rows, names_split, open_origin, refuse_idle
from llmfw.core.data.reader import BadRows, ReadCounts
from llmfw.core.errors import DataError, LlmfwError
from llmfw.core.records import Row
from llmfw.core.schema import DataConfig


class DataModule:
    """Derive and write ``rows``; templates, masks, splits, caches and batches are the core's.

    ``kind`` names the rows' form (``llmfw.core.data.formats``) where it's known beforehand, so that a plan
    can be checked. Rows with one value of ``split_key`` (None: their prompt) stay on one side of the split.
    """

    kind: ClassVar[str | None] = None
    split_key: ClassVar[str | None] = None

    def rows(self, split: str) -> Iterable[Row] | None:
        """The rows of ``"train"`` or ``"validation"``; None for validation: a share of the training rows is
        held out.
        """
        raise NotImplementedError(f"{type(self).__name__}.rows")

    def recipe(self) -> Mapping[str, Any]:
        """What the report says about the source, once the rows are made: names to words, numbers or lists of
        them.
        """
        return {}

    def name(self) -> str:
        """The source as messages name it."""
        return type(self).__name__

    def located(self, split: str, bad: BadRows, counts: ReadCounts) -> Iterator[tuple[str, object]] | None:
        """(place, row) of a split; the core calls this, and file sources override it."""
        rows = self.rows(split)
        return None if rows is None else _numbered(self.name(), split, rows)


class RowsData(DataModule):
    """Rows in memory, e.g. the records of a sampler's round; without validation rows nothing is held out."""

    def __init__(self, train: Sequence[Row], validation: Sequence[Row] = (), name: str = "records") -> None:
        self._rows = {"train": train, "validation": validation}
        self._name = name

    def rows(self, split: str) -> Iterable[Row]:
        return self._rows[split]

    def name(self) -> str:
        return self._name


class ConfiguredData(DataModule):
    """What the ``data`` settings name: a preset, files, a folder, or a data set of the hub. Nothing is read
    before the rows are asked for. ``alone`` is False for a source of a mixture.
    """

    def __init__(self, config: DataConfig, tokenizer: Any, *, alone: bool = True) -> None:
        self.config, self.tokenizer, self.alone = config, tokenizer, alone
        self._preset: DataModule | None = None
        self._origin: Origin | None = None

    def name(self) -> str:
        mix = self.config.mix
        if mix:
            return "mix of " + ", ".join(f"{name} ({weight:g})" for name, weight in mix.items())
        return self.config.name

    def rows(self, split: str) -> Iterable[Row] | None:
        bad = BadRows(skip=self.config.on_bad_row == "skip", limit=self.config.max_bad_rows)
        places = self.located(split, bad, ReadCounts())
        return (
            None
            if places is None
            else [{**row, PLACE: place} for place, row in places if isinstance(row, dict)]
        )

    def recipe(self) -> Mapping[str, Any]:
        if self._origin is not None:
            return self._origin.recipe()
        return self._preset.recipe() if self._preset else {}

    def located(self, split: str, bad: BadRows, counts: ReadCounts) -> Iterator[tuple[str, object]] | None:
        held_out = held_out_file(self.config.validation) if split == "validation" else None
        source = self.preset()
        if held_out and (source is not None or not names_split(self.config)):
            return held_out_rows(self.config, held_out, bad, counts)
        return (source or self.origin()).located(split, bad, counts)

    def origin(self) -> Origin:
        """The files or the data set that ``data.name`` means where it's no preset; opened once.

        Raises:
            DataError: nothing there.
            UsageError: a setting that has no effect on it.
        """
        if self._origin is None:
            self._origin = open_origin(self.config, alone=self.alone)
        return self._origin

    def preset(self) -> DataModule | None:
        """The preset's source, where ``data.name`` names one."""
        from llmfw.core.data.presets import open_preset

        if self._preset is None:
            self._preset = open_preset(self.config, self.tokenizer)
            if self._preset is not None and self.alone:
                refuse_idle(self.config, "a preset", ("columns", "subset", "split", "revision"))
        return self._preset


def held_out_share(validation: str | None) -> float:
    """``data.validation`` as a share; 0 where nothing is to be held out or a file is named.

    Raises:
        DataError: a number outside [0, 1).
    """
    if validation is None or held_out_file(validation):
        return 0.0
    share = float(validation)
    if not 0 <= share < 1:
        raise DataError(
            "VALIDATION",
            f"{validation} is no share of the rows",
            key="data.validation",
            mend="give a number from 0 to below 1, or a file",
        )
    return share


def held_out_file(validation: str | None) -> str | None:
    """The file that ``data.validation`` names, if it isn't a number."""
    if validation is None:
        return None
    try:
        float(validation)
    except ValueError:
        return validation
    return None


def peek_kind(datamodule: Any) -> str | None:
    """The form of a source's rows as far as it can be told without making them; ``"scored"`` where they carry
    rewards.

    Raises:
        DataError: the file that ``data.name`` means isn't there.
    """
    if not isinstance(datamodule, ConfiguredData):
        return getattr(datamodule, "kind", None)
    if datamodule.config.mix:
        from llmfw.core.data.sources import peek_kinds

        return peek_kinds(datamodule.config, datamodule.tokenizer)
    preset = datamodule.preset()
    if preset is not None:
        return preset.kind
    origin = datamodule.origin()
    try:
        for _, row in origin.located("train", BadRows(skip=True, limit=0), ReadCounts()) or ():
            if isinstance(row, dict):
                return "scored" if "reward" in row else form_of(row, datamodule.config.kind)
    except (LlmfwError, RowError):
        pass  # reading names what is wrong, with its line
    return datamodule.config.kind


def _numbered(name: str, split: str, rows: Iterable[Row]) -> Iterator[tuple[str, object]]:
    for number, row in enumerate(rows, start=1):
        place = row.get(PLACE) if isinstance(row, dict) else None
        yield str(place) if place else f"{name} {split} row {number}", row


def is_path(name: str) -> bool:
    """Whether a name looks like a file or folder, not like a preset."""
    return Path(name).suffix != "" or "/" in name or Path(name).exists()
