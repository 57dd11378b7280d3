"""Keys under other names."""

from __future__ import annotations

from typing import Any

import pytest

from llmfw.core.data.columns import refuse_unmet
from llmfw.core.data.dialects import translated
from llmfw.core.data.reader import BadRows, ReadCounts
from llmfw.core.errors import DataError, UsageError


def _translated(rows: list[dict[str, Any]], columns: dict[str, str], **more: Any) -> list[Any]:
    places = [(f"a.jsonl:{number}", row) for number, row in enumerate(rows, 1)]
    return [row for _, row in translated(places, BadRows(), ReadCounts(), columns, **more)]


def test_columns_rename_keys_nested_and_crossed_ones_too() -> None:
    assert _translated(
        [{"q": "a", "out": {"texts": ["b"]}}], {"prompt": "q", "completion": "out.texts.0"}
    ) == [{"prompt": "a", "completion": "b", "out": {"texts": ["b"]}}]
    pair = {"prompt": "a", "chosen": "worse", "rejected": "better"}
    crossed = _translated([pair], {"chosen": "rejected", "rejected": "chosen"})
    assert crossed == [{"prompt": "a", "chosen": "better", "rejected": "worse"}]


def test_a_column_that_is_not_there_is_named_with_near_ones() -> None:
    with pytest.raises(
        DataError, match=r"a.jsonl:1:data.columns.prompt: the row has no key qestion .did you mean question"
    ):
        _translated([{"question": "a", "reply": "b"}], {"prompt": "qestion", "completion": "reply"})
    with pytest.raises(DataError, match=r"data.columns: no row has the key levl .did you mean level"):
        _translated([{"text": "a", "level": 1}], {"difficulty": "levl"})
    assert _translated([{"text": "a", "level": 1}], {"difficulty": "levl"}, alone=False)


def test_in_a_mixture_a_column_may_be_another_sources_but_not_nobodys() -> None:
    columns = {"prompt": "question", "completion": "reply"}
    counts = ReadCounts()
    native = {"prompt": "a", "completion": "b"}
    rows = [("a:1", native), ("b:1", {"question": "c", "reply": "d"})]
    found = [next(iter(translated([row], BadRows(), counts, columns, alone=False)))[1] for row in rows]
    assert found == [native, {"prompt": "c", "completion": "d"}]
    refuse_unmet(columns, counts)
    with pytest.raises(DataError, match="no row has the key level"):
        refuse_unmet({**columns, "x": "level"}, counts)


def test_a_renaming_without_effect_is_refused() -> None:
    with pytest.raises(UsageError, match=r"data.columns.prompt: prompt is called prompt already"):
        _translated([{"prompt": "a"}], {"prompt": "prompt"})
    with pytest.raises(DataError, match="no row has the key question"):
        _translated([{"prompt": "a", "completion": "b"}], {"prompt": "question"})
