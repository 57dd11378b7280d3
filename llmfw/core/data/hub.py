"""Data sets that the library ``datasets`` reads: a repository on the hub, or a folder that it saved.

Nothing of a repository is run: repositories with a loading script are refused by the library. What was
loaded is pinned by its commit (where the library tells it) and by the library's fingerprint.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from llmfw.core.data.files import HELD_OUT, READERS
from llmfw.core.data.readers.arrow import cleaned
from llmfw.core.data.readers.common import BadRows, ReadCounts, suffix_of
from llmfw.core.data.row_checks import RowError
from llmfw.core.errors import DataError, LlmfwError, ResourceError
from llmfw.core.schema import DataConfig

_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_COMMIT: Final = re.compile(r"@([0-9a-f]{40})/")
_ROWS_AT_ONCE = 256
_UNREACHED: Final = {"ConnectionError", "OfflineModeIsEnabled", "ConnectError", "TimeoutException", "Timeout"}
_SWITCHES: Final = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
_ON: Final = ("1", "ON", "YES", "TRUE")


def is_hub_id(name: str) -> bool:
    """Whether a name is OWNER/NAME and no file or folder here."""
    return bool(_ID.fullmatch(name)) and not Path(name).exists() and suffix_of(Path(name)) not in READERS


def is_saved(path: Path) -> bool:
    """Whether ``datasets`` saved this folder: one data set, or a dictionary of splits."""
    return (path / "dataset_dict.json").is_file() or (
        (path / "state.json").is_file() and (path / "dataset_info.json").is_file()
    )


class HubData:
    """The splits of a data set, opened once, on first use."""

    def __init__(self, config: DataConfig) -> None:
        self.config = config
        self.saved = is_saved(Path(config.name).expanduser())
        self._splits: dict[str, Any] | None = None
        self._failure: LlmfwError | None = None
        self._commit: str | None = None
        self._cached = False
        self._bare = False

    def located(self, split: str, bad: BadRows, counts: ReadCounts) -> Iterator[tuple[str, object]] | None:
        """(``NAME SPLIT:row N``, row) of the rows that are trained on or held out; None: there is no
        held-out split.
        """
        name = self.held_out() if split == "validation" else self.trained()
        if name is None:
            return None
        counts.files.append(f"{self.config.name} {name}")
        return self._rows(name, bad)

    def trained(self) -> str:
        """The name of the split that is trained on.

        Raises:
            DataError: there is no such split.
        """
        splits = self.splits()
        wanted = self.config.split
        if wanted in splits:
            return wanted
        raise self._no_split(wanted, "data.split")

    def _no_split(self, name: str, key: str) -> DataError:
        return DataError(
            "SPLIT",
            f"the data set has no split {name!r}",
            file=self.config.name,
            key=key,
            mend=f"choose one of: {', '.join(self.splits())}",
        )

    def held_out(self) -> str | None:
        """The split that ``data.validation`` names, or one called validation; None where there is none.

        Raises:
            DataError: there is none of the name that's given.
        """
        splits = self.splits()
        named = self.config.validation
        if named in splits:
            return named
        if named is not None and named.isidentifier() and not Path(named).exists():
            raise self._no_split(named, "data.validation")
        found = next((name for name in HELD_OUT if name in splits), None)
        return None if found == self.config.split else found

    def splits(self) -> Mapping[str, Any]:
        """The data set's splits by name; opened on first use.

        Raises:
            ResourceError: the library isn't there, or the hub can't be reached and nothing is cached.
            DataError: no such data set, or one that can't be read.
        """
        if self._failure is not None:
            raise self._failure
        if self._splits is None:
            try:
                self._splits = self._saved() if self.saved else self._fetched()
            except LlmfwError as error:
                self._failure = error  # asking a second time would only take as long again
                raise
        return self._splits

    def recipe(self) -> dict[str, Any]:
        """Commit, subset and fingerprints of what was loaded."""
        if self._splits is None:
            return {}
        said: dict[str, Any] = {}
        if self._commit:
            said["commit"] = self._commit + (" (from the cache)" if self._cached else "")
        for name in filter(None, dict.fromkeys((self.config.split, self.held_out()))):
            mark = getattr(self._splits.get(name), "_fingerprint", None)
            if mark:
                said[f"fingerprint, {name}"] = mark
        if self.config.subset:
            said["subset"] = self.config.subset
        return said

    def _rows(self, name: str, bad: BadRows) -> Iterator[tuple[str, object]]:
        for number, row in enumerate(_plain_rows(self.splits()[name]), start=1):
            place = f"{self.config.name} {name}:row {number}"
            try:
                yield place, cleaned(row)
            except RowError as problem:
                bad.refuse(place, problem)

    def _saved(self) -> dict[str, Any]:
        datasets = _library()
        path = Path(self.config.name).expanduser()
        try:
            loaded = datasets.load_from_disk(str(path))
        except Exception as error:  # of pyarrow, json and the library: missing or damaged files
            raise DataError(
                "DATA-SAVED",
                f"the saved data set can't be read ({_short(error)})",
                file=path,
                mend="save it again with save_to_disk",
            ) from error
        if isinstance(loaded, datasets.DatasetDict):
            return dict(loaded)
        return {str(loaded.split or "train"): loaded}

    def _fetched(self) -> dict[str, Any]:
        datasets = _library()
        config = self.config
        self._commit = _commit_on_hub(config.name, config.revision)
        before = datasets.config.HF_HUB_OFFLINE
        # unreachable: the library would ask again and again before it looks into its cache
        datasets.config.HF_HUB_OFFLINE = before or self._commit is None
        try:
            loaded = datasets.load_dataset(
                config.name, config.subset, revision=config.revision, streaming=config.streaming
            )
        except Exception as error:  # the library raises its own, requests', httpx' and fsspec's
            raise self._failed(error) from error
        finally:
            datasets.config.HF_HUB_OFFLINE = before
        found = self._commit or next((commit for data in loaded.values() if (commit := _commit(data))), None)
        if self._commit is None:
            self._cached = True
            if config.revision and found != config.revision:
                raise ResourceError(
                    "HUB",
                    f"the hub can't be reached, and the cache holds commit {found or 'unknown'}",
                    file=config.name,
                    key="data.revision",
                    mend=f"fetch {config.revision} where there is a network, or set data.revision={found}",
                )
        self._commit = found
        return dict(loaded)

    def _failed(self, error: Exception) -> DataError | ResourceError:
        config = self.config
        names = {kind.__name__ for kind in type(error).__mro__}
        offline = any(os.environ.get(name, "").upper() in _ON for name in _SWITCHES)
        unreached = offline or names & _UNREACHED
        if unreached:
            why = "the hub is switched off (HF_HUB_OFFLINE)" if offline else "the hub can't be reached"
            return ResourceError(
                "HUB",
                f"there is no such file or folder here, {why}, and the data set isn't cached",
                file=config.name,
                key="data.name",
                mend=f"fetch it where there is a network: hf download --repo-type dataset {config.name} "
                "--local-dir DIR, then data=DIR",
            )
        if "DatasetNotFoundError" in names or "RepositoryNotFoundError" in names:
            return DataError(
                "NO-DATA",
                "there is no such file or folder here, and no such data set on the hub (or a private one)",
                file=config.name,
                key="data.name",
                mend="check the name, or log in with hf auth login",
            )
        return DataError(
            "HUB-DATA",
            f"the data set can't be loaded ({_short(error)})",
            file=config.name,
            mend="check data.subset, data.split and data.revision",
        )


def _library() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ResourceError(
            "EXTRA",
            "data sets of the hub and saved data sets need the library datasets",
            mend="pip install 'llmfw[datasets]'",
        ) from error
    datasets.disable_progress_bars()
    return datasets


def _plain_rows(data: Any) -> Iterator[Mapping[str, Any]]:
    """Rows as python values: images and sounds stay bytes, nothing is decoded."""
    if not hasattr(data, "__len__"):  # streamed
        yield from data
        return
    for table in data.with_format("arrow").iter(batch_size=_ROWS_AT_ONCE):
        yield from table.to_pylist()


def _commit_on_hub(name: str, revision: str | None) -> str | None:
    """The commit that a revision stands for; None where the hub can't be asked or doesn't know it."""
    from huggingface_hub import HfApi

    try:
        return HfApi().dataset_info(name, revision=revision, timeout=10).sha
    except Exception as error:  # offline, unreachable, unknown, private: loading says which
        unreached = {kind.__name__ for kind in type(error).__mro__} & _UNREACHED
        return None if unreached else ""


def _commit(data: Any) -> str | None:
    checksums = getattr(getattr(data, "info", None), "download_checksums", None) or {}
    found = next((match for url in checksums if (match := _COMMIT.search(str(url)))), None)
    return found[1] if found else None


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
