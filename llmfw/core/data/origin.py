"""What ``data.name`` means where it's no preset: files, a folder, a pattern, a saved data set, a hub id."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from llmfw.core.data.columns import check_columns
from llmfw.core.data.dialects import translated
from llmfw.core.data.files import data_files
from llmfw.core.data.hub import HubData, is_hub_id, is_saved
from llmfw.core.data.reader import located
from llmfw.core.data.readers.common import BadRows, ReadCounts, suffix_of
from llmfw.core.errors import DataError, UsageError
from llmfw.core.schema import DataConfig

Places = Iterator[tuple[str, object]]
_OPTIONS: Final[dict[str, tuple[str, ...]]] = {
    "text": (".txt", ".md"),
    "rows": (".json",),
    "delimiter": (".csv", ".tsv"),
}
"""Options of files -> the suffixes that they act on."""


@dataclass(frozen=True)
class Origin:
    """One source of rows: its files, or a data set of the library ``datasets``."""

    config: DataConfig
    alone: bool = True
    train: Sequence[Path] = ()
    held_out: Sequence[Path] = ()
    hub: HubData | None = None

    def located(self, split: str, bad: BadRows, counts: ReadCounts) -> Places | None:
        """(place, row) of a split, keys renamed and dialects in our words; None: nothing is held out."""
        columns, kind = self.config.columns, self.config.kind
        if self.hub is not None:
            rows = self.hub.located(split, bad, counts)
            return None if rows is None else translated(rows, bad, counts, columns, kind, self.alone)
        files = self.held_out if split == "validation" else self.train
        if not files:
            return None
        return located(files, bad, counts, self.config.options, columns, kind, self.alone)

    def recipe(self) -> dict[str, Any]:
        """What pins the source, once its rows were read."""
        return self.hub.recipe() if self.hub is not None else {}


def open_origin(config: DataConfig, *, alone: bool = True) -> Origin:
    """The source that the settings name; no row is read.

    ``alone`` is False for a source of a mixture: settings may then be meant for another of its sources.

    Raises:
        DataError: nothing there.
        UsageError: a setting that has no effect on this source.
    """
    check_columns(config.columns)
    if alone:
        _check_settings(config)
    path = Path(config.name).expanduser()
    if is_saved(path) or is_hub_id(config.name):
        return Origin(config, alone, hub=HubData(config))
    folder = path.is_dir()
    split, subset = (config.split, config.subset) if folder else ("train", None)
    train, held_out = data_files(config.name, split, subset)
    if folder and names_split(config):
        held_out = data_files(config.name, str(config.validation), subset, "data.validation")[0]
    if alone:
        _check_options(config, [*train, *held_out])
    return Origin(config, alone, train, held_out)


def held_out_rows(config: DataConfig, name: str, bad: BadRows, counts: ReadCounts) -> Places:
    """The rows of the file, folder or pattern that ``data.validation`` names."""
    return located(data_files(name)[0], bad, counts, config.options, config.columns, config.kind)


def names_split(config: DataConfig) -> bool:
    """Whether ``data.validation`` names a split of the source, not a file: a word that is no file's name."""
    name = config.validation
    if name is None or not name.isidentifier() or Path(name).exists():
        return False
    path = Path(config.name).expanduser()
    return path.is_dir() or is_hub_id(config.name)


def _check_settings(config: DataConfig) -> None:
    path = Path(config.name).expanduser()
    if is_saved(path):
        what, idle = "a saved data set", ["revision", "subset", "options"]
    elif is_hub_id(config.name):
        what, idle = "a data set of the hub", ["options"]
    elif path.is_dir():
        what, idle = "a folder of files", ["revision"]
    else:
        what, idle = "files", ["revision", "subset", "split"]
    refuse_idle(config, what, idle)


def refuse_idle(config: DataConfig, what: str, idle: Sequence[str]) -> None:
    """Refuse settings that have no effect on a kind of source.

    Raises:
        UsageError: one of ``idle`` isn't at its default.
    """
    plain = DataConfig()
    for key in idle:
        if getattr(config, key) != getattr(plain, key):
            raise UsageError(
                "DATA-SETTING",
                f"data.{key} has no effect on {what} ({config.name})",
                key=f"data.{key}",
                mend="leave it out",
            )


def _check_options(config: DataConfig, files: Sequence[Path]) -> None:
    there = {suffix_of(file) for file in files}
    for name in config.options:
        if name not in _OPTIONS:
            raise UsageError(
                "DATA-OPTIONS",
                f"files have no option {name}",
                key=f"data.options.{name}",
                mend=f"choose from: {', '.join(_OPTIONS)}",
            )
        if not there & set(_OPTIONS[name]):
            raise DataError(
                "DATA-OPTIONS",
                f"the option acts on {', '.join(_OPTIONS[name])} only",
                file=config.name,
                key=f"data.options.{name}",
                mend="leave it out",
            )
