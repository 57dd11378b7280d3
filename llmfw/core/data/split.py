"""Held-out rows: by key, so that one prompt or problem never stands on both sides."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llmfw.core.data.formats import RowError, prompt_of
from llmfw.core.data.order import stable_hash
from llmfw.core.records import Row


def key_of(row: Mapping[str, Any], split_key: str | None) -> str:
    """What keeps rows together: the value of ``split_key``, else the prompt, else (of a text) the id."""
    if split_key is None:
        prompt = prompt_of(row)
        return json.dumps(prompt, sort_keys=True) if prompt else str(row["id"])
    value: Any = row
    for part in split_key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise RowError(
                "the split needs this key",
                key=split_key,
                mend="add it to every row, or change data.split_key",
            )
        value = value[part]
    return json.dumps(value, sort_keys=True, default=str)


def split_rows(rows: Sequence[Row], share: float, split_key: str | None) -> tuple[list[Row], list[Row]]:
    """(train, validation), both in the rows' order; about ``share`` of the rows is held out, in whole groups
    of one key.

    Groups are taken in the order of their hashes, so the split depends on the rows alone, never on a seed:
    runs that differ in their seed are measured on the same rows. At least one group stays on each side where
    there are two.
    """
    keys = [key_of(row, split_key) for row in rows]
    sizes: dict[str, int] = {}
    for key in keys:
        sizes[key] = sizes.get(key, 0) + 1
    wanted = max(1, round(share * len(rows))) if share else 0
    groups = sorted(sizes, key=lambda key: (stable_hash("validation", key), key))
    taken: set[str] = set()
    count = 0
    for key in groups[:-1]:
        if count >= wanted:
            break
        taken.add(key)
        count += sizes[key]
    train = [row for row, key in zip(rows, keys, strict=True) if key not in taken]
    return train, [row for row, key in zip(rows, keys, strict=True) if key in taken]
