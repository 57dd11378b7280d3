"""The grammar of replies, and that no text a model can write makes reading it slow."""

from __future__ import annotations

import time
from typing import Any

import pytest

from llmfw.plugins.agentrefine.dialogue import react, react_of
from llmfw.plugins.agentrefine.environments.renamed import PERTURBATIONS
from llmfw.plugins.agentrefine.environments.science import refused
from llmfw.plugins.agentrefine.generator import read_script
from llmfw.plugins.agentrefine.play.metrics import diversity
from llmfw.plugins.agentrefine.verify import read_turns

LONG = 50_000
"""Characters of a reply that no episode has; what is quadratic in them takes minutes."""


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("Thought: a\nAction: go to den 1", ("a", "go to den 1")),
        ("Action: look", ("", "look")),
        ("Thought: a\nb\nAction: look \n", ("a\nb", "look")),
        ("thought: a\nACTION: Look", ("a", "Look")),
        ("\n Thought:a\r\n\r\n Action:look\r\n", ("a", "look")),
        ("Thought:\nAction: look", ("", "look")),
        ("Thought: Action: look\nAction: bag", ("Action: look", "bag")),
        ("Thought: a", None),
        ("Action:", None),
        ("Action: look\nThought: more", None),
        ("Action: look\nden 1: box 1 open", None),
        ("Thought: a\nAction: look\nAction: bag", None),
        ("Thought: a\nAction: look\nObservation: b\nThought: c\nAction: bag", None),
        ("So be it.\nAction: look", None),
        ("", None),
        ("the Action: look", None),
    ],
)
def test_a_reply_is_read_as_a_thought_and_a_single_action_at_its_end(text: str, want: Any) -> None:
    assert react_of(text) == want


@pytest.mark.parametrize("action", ["go to den 1", "take cup 1 from box 1"])
def test_what_a_turn_is_written_as_is_read_back(action: str) -> None:
    assert react_of(react("in box 1, so\ntake it", action)) == ("in box 1, so\ntake it", action)


@pytest.mark.parametrize(
    "text",
    [
        "\n" * LONG,
        "Thought:" + " \n" * (LONG // 2),
        "Thought: " + "a\nAction: \n" * (LONG // 11),
        "Action:" + " " * LONG + "\nx",
        "```" + " " * LONG,
        "```json" * (LONG // 7),
        "{" * LONG,
        "a" * LONG,
        "cup " * (LONG // 4),
        "take cup 1 from " * (LONG // 16),
        "wash " + "a" * LONG + " with ",
        "1" * LONG,
        "a1" * (LONG // 2),
        "go to move to " * (LONG // 14),
    ],
)
def test_a_long_text_of_a_model_is_read_at_once_whatever_it_says(text: str) -> None:
    """Each reader is linear: all of them together take milliseconds, here at most two seconds."""
    start = time.process_time()
    react_of(text)
    assert read_turns(text) is None
    assert read_script(text, "x")[0] is None
    for renamer in PERTURBATIONS.values():
        renamer.decode(text)
        renamer.rewrite(text)
    refused(text)
    diversity([text])
    assert time.process_time() - start < 2
