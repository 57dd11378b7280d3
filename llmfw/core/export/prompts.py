"""What is asked of a model and of its export: held-out rows of the run where they can be had."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

from llmfw.core.assemble import Assembled
from llmfw.core.errors import LlmfwError
from llmfw.core.models.plain import NEW_TOKENS

PROMPTS = 4
FIXED = (
    "Is 91 a prime number?",
    "Write one sentence about the sea.",
    "def add(a, b):\n    return",
    "Ein Zug fährt um 7:45 Uhr ab – wann kommt er an?",
)
_LONGEST = 192
"""Tokens of a prompt; longer ones are cut at their start."""


def prompts_of(assembled: Assembled, held_out: bool, notes: list[str]) -> tuple[list[list[int]], str]:
    """(token ids of the prompts that are compared, what they are): held-out rows where they can be had."""
    from llmfw.core.generation import encode_prompt

    longest = _longest(assembled.model_config)
    if held_out:
        try:
            rows = _held_out(assembled)
        except (LlmfwError, OSError) as error:
            what = error.what if isinstance(error, LlmfwError) else error
            notes.append(f"the run's held-out rows can't be read ({what}): fixed texts are compared")
        else:
            every = (tuple(_ids_of(assembled.tokenizer, row, longest)) for row in rows)
            found = list(islice(dict.fromkeys(ids for ids in every if ids), PROMPTS))
            if found:
                return [list(ids) for ids in found], "held-out rows of the run"
    fixed = [list(encode_prompt(assembled.tokenizer, text))[-longest:] for text in FIXED]
    return fixed, "fixed texts"


def _held_out(assembled: Assembled) -> Sequence[Any]:
    from llmfw.core.data import DataModule, prepare

    source = assembled.plan.one("llmfw_datamodule")
    if not isinstance(source, DataModule):
        return []
    found = prepare(assembled.run.config, assembled.tokenizer, assembled.transforms, source, assembled.sides)
    return found.rows["validation"]


def _longest(config: Any) -> int:
    """Tokens of a prompt that leave room for the answer in the model's context."""
    room = getattr(config.get_text_config(), "max_position_embeddings", None)
    return _LONGEST if room is None else max(1, min(_LONGEST, int(room) - NEW_TOKENS))


def _ids_of(tokenizer: Any, row: Any, longest: int) -> list[int]:
    """A row's question, or the beginning of its text."""
    from llmfw.core.generation import encode_prompt
    from llmfw.core.generation.prompts import prompt_of

    try:
        if isinstance(row.get("text"), str):
            return list(tokenizer(row["text"])["input_ids"])[:longest]
        return list(encode_prompt(tokenizer, prompt_of(row)))[-longest:]
    except LlmfwError:
        return []
