"""What is asked of a model and its export."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from llmfw.core.errors import DataError
from llmfw.core.export import prompts
from llmfw.core.models import byte_tokenizer
from llmfw.core.models.plain import NEW_TOKENS


def _assembled(room: int | None) -> Any:
    text = SimpleNamespace(max_position_embeddings=room)
    return SimpleNamespace(
        tokenizer=byte_tokenizer(), model_config=SimpleNamespace(get_text_config=lambda: text)
    )


def _asked(rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, room: int | None = None) -> Any:
    monkeypatch.setattr(prompts, "_held_out", lambda assembled: rows)
    return prompts.prompts_of(_assembled(room), True, [])


def test_held_out_rows_of_any_form_are_asked_each_once(monkeypatch: pytest.MonkeyPatch):
    rows = [
        {"prompt": "a", "completion": "b"},
        {"prompt": "a", "completion": "c"},
        {"text": "plain text"},
        {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]},
        {"prompt": "d", "chosen": "e", "rejected": "f"},
        {"prompt": "one too many", "completion": "g"},
    ]
    found, words = _asked(rows, monkeypatch)
    assert len(found) == prompts.PROMPTS == len({tuple(ids) for ids in found})
    assert words == "held-out rows of the run"
    assert bytes(found[1]).decode() == "plain text"


def test_a_prompt_leaves_room_for_the_answer_and_keeps_its_end(monkeypatch: pytest.MonkeyPatch):
    """A context of 64 positions: 64 - 16 = 48 tokens of the prompt, those next to the answer."""
    whole, _ = _asked([{"prompt": "x" * 100 + "end"}], monkeypatch, 4096)
    (ids,), _ = _asked([{"prompt": "x" * 100 + "end"}], monkeypatch, 64)
    assert len(ids) == 64 - NEW_TOKENS and ids == whole[0][-48:]


def test_without_rows_fixed_texts_are_asked(monkeypatch: pytest.MonkeyPatch):
    assert _asked([], monkeypatch)[1] == "fixed texts"
    found, words = prompts.prompts_of(_assembled(None), False, [])
    assert words == "fixed texts" and len(found) == len(prompts.FIXED)


def test_rows_that_can_not_be_read_are_said(monkeypatch: pytest.MonkeyPatch):
    def gone(assembled: Any) -> Any:
        raise DataError("NO-DATA", "there is no such file", mend="look")

    monkeypatch.setattr(prompts, "_held_out", gone)
    notes: list[str] = []
    assert prompts.prompts_of(_assembled(None), True, notes)[1] == "fixed texts"
    assert notes == [
        "the run's held-out rows can't be read (there is no such file): fixed texts are compared"
    ]
