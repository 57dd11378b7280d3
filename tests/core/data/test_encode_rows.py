"""Many rows are tokenised in several processes to the same examples, counts and errors."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from llmfw.core.data import Encoder
from llmfw.core.data.encode_rows import encode_rows
from llmfw.core.data.formats import PLACE, canonical
from llmfw.core.data.reader import BadRows
from llmfw.core.data.text import TextTokenizer
from llmfw.core.errors import DataError, ResourceError
from llmfw.core.models.byte_level import byte_tokenizer
from tests.core.data.support import LLAMA3, llama_like

BYTE = byte_tokenizer()


def _rows(count: int) -> list[dict[str, Any]]:
    made = []
    for number in range(count):
        text = "<|im_end|>" if number % 400 == 7 else "word " * (1 + number % 30)
        row = canonical({"id": f"r{number}", "prompt": f"{number}?", "completion": text})[1]
        made.append(row | {PLACE: f"file:{number + 1}"})
    return made


def test_processes_change_neither_examples_nor_counts_nor_bad_rows() -> None:
    rows = _rows(1300)
    found = []
    for processes in (1, 2, 3):
        encoder, bad = Encoder(BYTE, 100, "drop"), BadRows(skip=True)
        examples = encode_rows(encoder, "completion", rows, bad, processes=processes)
        found.append((examples, encoder.counts, bad.count, bad.messages))
    assert found[0] == found[1] == found[2]
    assert found[0][2] == 4 and found[0][1].too_long > 0 and len(found[0][0]) + 4 < 1300
    assert found[0][3][0].startswith("error[BAD-ROW] file:8:")


def test_the_first_bad_row_stops_all_processes() -> None:
    with pytest.raises(DataError, match="file:8:.*spells the control token"):
        encode_rows(Encoder(BYTE, 100), "completion", _rows(600), BadRows(), processes=2)


def test_a_process_that_dies_is_an_error_and_no_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Encoder, "encode", lambda self, form, row: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(ResourceError, match="TOKENISE.*has died"):
        encode_rows(Encoder(BYTE, 100), "completion", _rows(1100), BadRows(), processes=2)


@pytest.mark.parametrize("tokenizer", [BYTE, llama_like(LLAMA3), llama_like(None, spaced=True)])
def test_ids_are_those_of_the_tokenizer_itself_whatever_was_called_before(tokenizer: Any) -> None:
    text = TextTokenizer(tokenizer)
    said = "Ünïcode, two  blanks\n\tand a </s> control token"
    for spoil in ({}, {"truncation": True, "max_length": 3}, {"padding": "max_length", "max_length": 400}):
        tokenizer("spoilt", **spoil)
        assert text.ids(said) == list(tokenizer(said, add_special_tokens=False)["input_ids"])
    assert text.ids("") == []
