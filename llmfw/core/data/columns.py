"""``data.columns``: keys under other names, nested ones too; a renaming without effect is an error."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from llmfw.core.data.formats import MARKS
from llmfw.core.data.readers.common import ReadCounts
from llmfw.core.data.row_checks import RowError
from llmfw.core.errors import DataError, UsageError

Raw = dict[str, Any]
_NEEDED: Final = frozenset({"prompt", *(mark for marks in MARKS.values() for mark in marks)})


def refuse_unmet(columns: Mapping[str, str], counts: ReadCounts, keys: Sequence[str] = ()) -> None:
    """Refuse columns that no row had once all rows are read; ``keys`` are those that rows had.

    Raises:
        DataError: a renaming had no effect.
    """
    unmet = set(columns.values()) - counts.renamed
    if unmet:
        raise DataError(
            "COLUMNS",
            f"no row has the key {_shown(min(unmet), list(keys))}",
            key="data.columns",
            mend=f"the keys are: {', '.join(keys[:12])}" if keys else "check the name, or leave it out",
        )


def check_columns(columns: Mapping[str, str]) -> None:
    """Refuse renamings that can't change anything.

    Raises:
        UsageError: a key that is called as it is already.
    """
    for new, old in columns.items():
        if new == old:
            raise UsageError(
                "COLUMNS",
                f"{new} is called {old} already: this has no effect",
                key=f"data.columns.{new}",
                mend="give the key's name in the file, or leave it out",
            )


def renamed(
    row: Raw, columns: Mapping[str, str], unmet: set[str] | None = None, *, strict: bool = True
) -> Raw:
    """The row with ``columns`` (new name -> old name, dotted for nested keys); those found leave ``unmet``.

    Not ``strict``: a row without a column stays as it is.

    Raises:
        RowError: it lacks a column that its form needs.
    """
    if not columns:
        return row
    taken = {old for old in columns.values() if old in row}
    made = {key: value for key, value in row.items() if key not in taken and key not in columns}
    for new, old in columns.items():
        found, value = _look(row, old)
        if found:
            made[new] = value
            if unmet is not None:
                unmet.discard(old)
        elif new in row:
            made[new] = row[new]
        elif strict and new in _NEEDED:
            raise RowError(
                f"the row has no key {_shown(old, list(row))}",
                key=f"data.columns.{new}",
                mend=f"the row's keys are: {', '.join(list(row)[:12]) or 'none'}",
            )
    return made


def _look(row: Raw, name: str) -> tuple[bool, Any]:
    if name in row:
        return True, row[name]
    value: Any = row
    for part in name.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return False, None
    return True, value


def _shown(name: str, keys: list[str]) -> str:
    near = difflib.get_close_matches(name, keys, 1)
    return name + (f" (did you mean {near[0]}?)" if near else "")
