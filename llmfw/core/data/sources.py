"""The sources of a mixture: what each name means, how it's called, and that none is named twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from llmfw.core.data.formats import Form
from llmfw.core.data.hub import is_hub_id, is_saved
from llmfw.core.data.module import ConfiguredData, DataModule, held_out_file, peek_kind
from llmfw.core.data.origin import names_split
from llmfw.core.data.presets import SOURCES, preset_settings
from llmfw.core.data.reader import data_files
from llmfw.core.errors import ConflictError, DataError, UsageError
from llmfw.core.records import Row
from llmfw.core.schema import DataConfig

_FROM_PRESET: Final = ("kind", "options", "package", "split_key")


@dataclass(frozen=True)
class Source:
    """One source of rows. ``label`` is its name in reports and metrics, empty where it's the only one."""

    label: str
    module: DataModule

    @property
    def config(self) -> DataConfig | None:
        """The data settings that speak of this source; None where a plugin brought it."""
        return self.module.config if isinstance(self.module, ConfiguredData) else None


def open_sources(config: DataConfig, tokenizer: Any) -> list[Source]:
    """The sources of ``data.mix``, in its order.

    Raises:
        UsageError: MIX-TWICE, two names mean one thing.
        DataError: a file isn't there.
    """
    labels = _labels(list(config.mix))
    seen: dict[object, str] = {}
    sources: list[Source] = []
    for name, label in labels.items():
        for thing in _identities(name, config):
            if thing in seen:
                what = f"{seen[thing]} and {name} name the same data"
                raise UsageError(
                    "MIX-TWICE", what, mend="keep one of them and give it both weights", key="data.mix"
                )
            seen[thing] = name
        changed: dict[str, Any] = {"name": name, "mix": {}, "streaming": config.streaming}
        if name in SOURCES:
            preset = preset_settings(name)
            changed |= {key: preset.get(key, getattr(DataConfig(), key)) for key in _FROM_PRESET}
        own = replace(config, **changed)
        if held_out_file(config.validation) and not names_split(own):
            own = replace(own, validation=None)  # one file for the whole mixture
        sources.append(Source(label, ConfiguredData(own, tokenizer, alone=False)))
    return sources


def peek_kinds(config: DataConfig, tokenizer: Any) -> str | None:
    """The form of the first source's rows, once all are seen to make one kind of batch; None: not known.

    Raises:
        ConflictError: MIX-FORMS.
    """
    kinds = [(source.label, peek_kind(source.module)) for source in open_sources(config, tokenizer)]
    refuse_kinds([(label, kind, batch_kind(kind)) for label, kind in kinds if kind is not None])
    return kinds[0][1]


def batch_kind(form: Form | str, row: Row | None = None) -> str:
    """The kind of batch that rows of a form become."""
    if form == "scored" or (row is not None and "reward" in row):
        return "scored"
    return "preference" if form == "preference" else "text"


def refuse_kinds(kinds: Sequence[tuple[str, str, str]]) -> None:
    """Refuse sources, given as (label, form, batch kind), that no batch can hold together.

    Raises:
        ConflictError: MIX-FORMS.
    """
    for label, form, kind in kinds[1:]:
        first, first_form, first_kind = kinds[0]
        if kind != first_kind:
            raise ConflictError(
                "MIX-FORMS",
                f"{first} has {first_form} rows ({first_kind} batches), {label} has {form} rows "
                f"({kind} batches)",
                mend="mix sources of one kind of batch",
                key="data.mix",
            )


def refuse_extras(found: Sequence[tuple[str, tuple[str, ...]] | None]) -> None:
    """Refuse sources, given as (label, names of their samples' extra numbers), whose batches would differ.

    Raises:
        DataError: MIX-EXTRA.
    """
    names = [each for each in found if each is not None]
    for label, extras in names[1:]:
        if extras != names[0][1]:
            raise DataError(
                "MIX-EXTRA",
                f"its rows carry the extra numbers {list(extras)}, those of {names[0][0]} carry "
                f"{list(names[0][1])}",
                file=label,
                mend="give the rows of all sources the same keys in extra",
            )


def _identities(name: str, config: DataConfig) -> list[object]:
    """What a name stands for: the files it means, else the name itself."""
    path = Path(name).expanduser()
    if name in SOURCES:
        return [name]
    if is_saved(path):
        return [path.resolve()]
    if is_hub_id(name):
        return [name.lower()]
    split, subset = (config.split, config.subset) if path.is_dir() else ("train", None)
    return [file.resolve() for file in data_files(name, split, subset)[0]]


def _labels(names: Sequence[str]) -> dict[str, str]:
    """The shortest ends of the names that tell them apart: ``x/a.jsonl`` and ``y/b.jsonl`` are a.jsonl and
    b.jsonl.
    """
    parts = {name: [part for part in name.split("/") if part not in ("", ".")] or [name] for name in names}
    length = 1
    while True:
        labels = {name: "/".join(part[-length:]) for name, part in parts.items()}
        if len(set(labels.values())) == len(labels) or length > max(map(len, parts.values())):
            return labels if len(set(labels.values())) == len(labels) else {name: name for name in names}
        length += 1
