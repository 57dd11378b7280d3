"""Rows in the words of other tools become ours; which dialect it was is counted."""

from __future__ import annotations

from typing import Any

import pytest

from llmfw.core.data.dialects import translate
from llmfw.core.data.formats import canonical
from llmfw.core.data.row_checks import RowError

ASKED = [{"role": "user", "content": "2+2?"}]
TURNS = [*ASKED, {"role": "assistant", "content": "4"}]
HUMAN = {"from": "human", "value": "2+2?"}
GPT = {"from": "gpt", "value": "4"}

DIALECTS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "sharegpt": ({"conversations": [HUMAN, GPT]}, {"messages": TURNS}, "ShareGPT (conversations with from"),
    "sharegpt system": (
        {"conversations": [HUMAN, GPT], "system": "Be brief."},
        {"messages": [{"role": "system", "content": "Be brief."}, *TURNS]},
        "ShareGPT",
    ),
    "sharegpt weight": (
        {"conversations": [HUMAN, {**GPT, "weight": 0}, HUMAN, GPT]},
        {"messages": [*ASKED, {**TURNS[1], "loss": False}, *TURNS]},
        "ShareGPT",
    ),
    "sharegpt roles": ({"conversations": TURNS}, {"messages": TURNS}, "conversations with role and content"),
    "sharegpt under messages": (
        {"messages": [HUMAN, GPT]},
        {"messages": TURNS},
        "messages with from and value",
    ),
    "sharegpt call": (
        {
            "conversations": [
                HUMAN,
                {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 2}}'},
                {"from": "observation", "value": "4"},
                GPT,
            ],
            "tools": '[{"name": "add"}]',
        },
        {
            "messages": [
                *ASKED,
                {"role": "assistant", "content": "", "tool_calls": [{"name": "add", "arguments": {"a": 2}}]},
                {"role": "tool", "content": "4"},
                TURNS[1],
            ],
            "tools": [{"name": "add"}],
        },
        "ShareGPT",
    ),
    "sharegpt pair": (
        {"conversations": [HUMAN], "chosen": GPT, "rejected": {**GPT, "value": "5"}},
        {
            "prompt": ASKED,
            "chosen": TURNS[1:],
            "rejected": [{"role": "assistant", "content": "5"}],
        },
        "ShareGPT pairs",
    ),
    "alpaca": (
        {"instruction": "Add.", "input": "2+2", "output": "4", "text": "Below is ..."},
        {"prompt": "Add.\n\n2+2", "completion": "4"},
        "Alpaca (instruction, input, output)",
    ),
    "alpaca without input": (
        {"instruction": "2+2?", "input": "", "output": "4"},
        {"prompt": "2+2?", "completion": "4"},
        "Alpaca",
    ),
    "alpaca history": (
        {"instruction": "2+2?", "output": "4", "system": "Be brief.", "history": [["Hi", "Yes?"]]},
        {
            "prompt": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "Yes?"},
                *ASKED,
            ],
            "completion": "4",
        },
        "Alpaca",
    ),
    "alpaca pair": (
        {"instruction": "2+2?", "input": "", "chosen": "4", "rejected": "5"},
        {"prompt": "2+2?", "chosen": "4", "rejected": "5"},
        "Alpaca pairs",
    ),
    "dolly": (
        {"instruction": "Add.", "context": "2+2", "response": "4", "category": "math"},
        {"prompt": "Add.\n\n2+2", "completion": "4", "category": "math"},
        "Alpaca (instruction, input, response)",
    ),
    "prompt and response": (
        {"prompt": "2+2?", "response": "4"},
        {"prompt": "2+2?", "completion": "4"},
        "prompt and response as prompt and completion",
    ),
    "question and response": (
        {"question": "2+2?", "response": "4"},
        {"prompt": "2+2?", "completion": "4"},
        "question and response",
    ),
    "input and output": (
        {"input": "2+2?", "output": "4"},
        {"prompt": "2+2?", "completion": "4"},
        "input and output",
    ),
    "question and answer": (
        {"question": "2+2?", "answer": "4"},
        {"prompt": "2+2?", "answer": "4"},
        "question and answer as a problem",
    ),
    "problem and solution": (
        {"problem": "2+2?", "solution": "2+2 = 4"},
        {"prompt": "2+2?", "completion": "2+2 = 4"},
        "problem and solution as prompt and completion",
    ),
    "problem, solution, answer": (
        {"problem": "2+2?", "solution": "2+2 = 4", "answer": "4"},
        {"prompt": "2+2?", "solution": "2+2 = 4", "answer": "4"},
        "problem and answer",
    ),
    "orca pairs": (
        {"system": "Be brief.", "question": "2+2?", "chosen": "4", "rejected": "5"},
        {
            "prompt": [{"role": "system", "content": "Be brief."}, *ASKED],
            "chosen": "4",
            "rejected": "5",
        },
        "pairs (question, chosen, rejected)",
    ),
    "openai pair": (
        {
            "input": {"messages": ASKED, "tools": [{"name": "add"}], "parallel_tool_calls": True},
            "preferred_output": TURNS[1:],
            "non_preferred_output": [{"role": "assistant", "content": "5"}],
        },
        {
            "prompt": ASKED,
            "chosen": TURNS[1:],
            "rejected": [{"role": "assistant", "content": "5"}],
            "tools": [{"name": "add"}],
        },
        "OpenAI pairs",
    ),
    "binarised ultrafeedback": (
        {"prompt": "2+2?", "chosen": TURNS, "rejected": [*ASKED, GPT | {"x": 1}], "messages": TURNS},
        {"prompt": "2+2?", "chosen": TURNS, "rejected": [*ASKED, GPT | {"x": 1}]},
        "the messages are left out",
    ),
    "ultrafeedback": (
        {
            "instruction": "2+2?",
            "completions": [
                {"response": "5", "overall_score": 2},
                {"response": "4", "overall_score": 9.5},
                {"response": "3", "overall_score": 3},
            ],
        },
        {"prompt": "2+2?", "chosen": "4", "rejected": "5"},
        "the best against the worst",
    ),
}


@pytest.mark.parametrize("case", DIALECTS)
def test_a_dialect_is_recognised_and_said(case: str) -> None:
    row, wanted, name = DIALECTS[case]
    said = translate(row)
    assert said is not None
    assert said[0] == wanted and name in said[1]


NATIVE: dict[str, dict[str, Any]] = {
    "completion": {"prompt": "a", "completion": "b", "response": "c"},
    "preference": {"prompt": "a", "chosen": "b", "rejected": "c"},
    "messages": {"messages": TURNS, "instruction": "x", "output": "y"},
    "problems": {"prompt": "a", "answer": "b", "question": "c"},
    "text": {"text": "a"},
    "message pairs": {
        "prompt": ASKED,
        "chosen": TURNS[1:],
        "rejected": [{"role": "assistant", "content": "5"}],
    },
    "nothing known": {"a": 1},
}


@pytest.mark.parametrize("case", NATIVE)
def test_rows_in_our_own_words_stay_as_they_are(case: str) -> None:
    assert translate(NATIVE[case]) is None


def test_data_kind_outweighs_a_dialect() -> None:
    row = {"instruction": "a", "output": "b", "text": "the whole"}
    assert translate(row, "text") is None
    assert translate(row) is not None


def test_an_answer_that_is_one_message_becomes_a_list() -> None:
    said = translate({"prompt": ASKED, "chosen": TURNS[1], "rejected": {"role": "assistant", "content": "5"}})
    assert said is not None and said[0]["chosen"] == TURNS[1:]


BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "speaker": ({"conversations": [{"from": "alien", "value": "x"}]}, "conversations[0].from", '"alien"'),
    "empty reply": ({"instruction": "a", "output": ""}, "output", "the answer is empty"),
    "empty question": ({"question": " ", "response": "b"}, "question", "empty"),
    "call": (
        {"conversations": [{"from": "function_call", "value": "add("}]},
        "conversations[0].value",
        "JSON",
    ),
    "tools": ({"conversations": [HUMAN, GPT], "tools": "add("}, "tools", "not JSON"),
    "weight": ({"conversations": [{**GPT, "weight": 0.5}]}, "conversations[0].weight", "0 or 1"),
    "history": ({"instruction": "a", "output": "b", "history": ["x"]}, "history[0]", "[question, answer]"),
    "scores": (
        {"instruction": "a", "completions": [{"response": "b", "score": 1}, {"response": "c", "score": 1}]},
        "completions",
        "one score",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_dialects_bad_row_is_named_by_its_own_key(case: str) -> None:
    row, key, said = BAD[case]
    with pytest.raises(RowError) as caught:
        translate(row)
    assert caught.value.key == key and said in caught.value.what


def test_every_dialect_gives_rows_that_can_be_used() -> None:
    for case, (row, _, _) in DIALECTS.items():
        if case == "binarised ultrafeedback":
            continue  # its rejected side is no message on purpose
        said = translate(row)
        assert said is not None
        canonical(said[0])
