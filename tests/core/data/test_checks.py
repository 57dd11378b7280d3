"""The audit sees a wrong mask, and only a wrong one."""

from __future__ import annotations

import dataclasses
from typing import Any

from llmfw.core.data import Encoder, Example, TokenSequence, audit, canonical, pack
from llmfw.core.data.show import bars, histogram, pieces, visible
from llmfw.core.models.byte_level import byte_tokenizer
from tests.core.data.support import LLAMA2, LLAMA3, llama_like

BYTE = byte_tokenizer()
TURNS = [
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": " b "},
    {"role": "user", "content": "c"},
    {"role": "assistant", "content": "d"},
]
ROWS: list[dict[str, Any]] = [
    {"prompt": "2+2?", "completion": "4"},
    {"prompt": "2+2?", "chosen": "4", "rejected": "five"},
    {"messages": TURNS},
    {"messages": [*TURNS[:3], {**TURNS[3], "content": "d e f", "spans": [[2, 3]]}]},
    {"prompt": "2+2?", "answer": "4", "solution": ["Count."]},
    {"prompt": "q", "completion": "abcdef", "spans": [[1, 3]]},
]


def _encode(tokenizer: Any, row: dict[str, Any]) -> tuple[Any, Example, dict[str, Any]]:
    form, checked = canonical(row)
    example = Encoder(tokenizer, 500).encode(form, checked)
    assert example is not None
    return form, example, checked


def _codes(example: Example, tokenizer: Any, row: dict[str, Any], form: Any, **more: Any) -> list[str]:
    return [finding.code for finding in audit([example], tokenizer, [row], form, **more)]


def test_right_masks_pass_in_every_form_and_template() -> None:
    for tokenizer in (BYTE, llama_like(LLAMA3), llama_like(LLAMA2)):
        for row in ROWS:
            form, example, checked = _encode(tokenizer, row)
            assert _codes(example, tokenizer, checked, form) == [], (row, tokenizer.chat_template)
    for tokenizer in (BYTE, llama_like(None)):
        form, example, checked = _encode(tokenizer, {"text": "hello there"})
        assert _codes(example, tokenizer, checked, form) == []


def _with(example: Example, ids: Any, trained: Any) -> Example:
    return dataclasses.replace(example, sequences=(TokenSequence(tuple(ids), tuple(trained)),))


def test_each_kind_of_wrong_mask_is_found() -> None:
    tokenizer = llama_like(LLAMA3)
    form, example, row = _encode(tokenizer, ROWS[0])
    ids, flags = list(example.sequences[0].ids), list(example.sequences[0].trained)
    bos = tokenizer.bos_token_id
    last = max(index for index, flag in enumerate(flags) if flag)
    cases = {
        "DOUBLE-BOS": ([bos, *ids], [False, *flags]),
        "NO-BOS": (ids[1:], flags[1:]),
        "NOTHING-TRAINED": (ids, [False] * len(ids)),
        "END-UNTRAINED": (ids, [*flags[:last], False, *flags[last + 1 :]]),
    }
    for code, (tokens, mask) in cases.items():
        assert _codes(_with(example, tokens, mask), tokenizer, row, form) == [code]
    early = [*flags]
    first = flags.index(True)  # before it stand "assistant", a control token and two line breaks
    early[first - 3 : first] = [True] * 3
    assert _codes(_with(example, ids, early), tokenizer, row, form) == ["CONTROL-TRAINED"]
    early[first - 4] = True
    assert _codes(_with(example, ids, early), tokenizer, row, form) == ["CONTROL-TRAINED", "TRAINED-TEXT"]
    late = [*flags]
    late[flags.index(True)] = False
    assert _codes(_with(example, ids, late), tokenizer, row, form) == ["TRAINED-TEXT"]


def test_without_rows_an_untrained_end_is_a_warning() -> None:
    _, example, _ = _encode(BYTE, ROWS[5])
    (finding,) = audit([example], BYTE)
    assert (finding.code, finding.severity) == ("END-UNTRAINED", "warning")


def test_a_cut_example_may_train_a_part() -> None:
    form, row = canonical({"prompt": "q", "completion": "abcdefgh"})
    example = Encoder(BYTE, 28, "cut_end").encode(form, row)
    assert example is not None and example.length == 28
    (finding,) = audit([example], BYTE, [row], form, max_length=28)
    assert (finding.code, finding.severity) == ("END-UNTRAINED", "warning")
    assert {found.severity for found in audit([example], BYTE, [row], form)} == {"error"}


def test_members_of_a_packed_unit_are_checked_each() -> None:
    rows = [canonical({"text": text})[1] for text in ("one", "two", "three")]
    encoder = Encoder(BYTE, 100)
    units = pack([example for row in rows if (example := encoder.encode("text", row))], 100)
    assert len(units) == 1 and audit(units, BYTE, rows, "text") == []
    rows[1]["text"] = "other"
    assert [finding.sample for finding in audit(units, BYTE, rows, "text")] == [rows[1]["id"]]


def test_what_is_shown_obeys_no_control_character() -> None:
    assert visible("a\x1b[31m\nb\t") == "a\\x1b[31m⏎\nb\\x09"
    _, example, _ = _encode(BYTE, {"prompt": "q", "completion": "🙂"})
    assert pieces(BYTE, example, 0)[1] == ("🙂<|im_end|>", True)


def test_histograms_count_every_length_once() -> None:
    found = histogram([3, 4, 4, 97])
    assert sum(count for *_, count in found) == 4 and found[0][0] <= 3 and found[-1][1] > 97
    assert all(high - low == 10 for low, high, _ in found) and len(found) == 10
    assert histogram([]) == [] and bars(histogram([5]))[0].split() == ["5-5", "█" * 24, "1"]
