"""Conversations: turns, commands, Ctrl-C, and a context that runs full."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmfw.core.errors import UsageError
from llmfw.core.generation import GeneratingPolicy, Sampling, encode_prompt
from llmfw.core.models import LocalPolicy
from llmfw.verbs.chat import Conversation, converse
from tests.core.generation.conftest import byte_tokenizer, tiny_llama


def ask(conversation: Conversation, text: str) -> tuple[str, list[str]]:
    """(what was shown, the notes)."""
    shown: list[str] = []
    notes: list[str] = []
    conversation.answer(text, show=shown.append, note=notes.append)
    return "".join(shown), notes


def test_each_answer_continues_the_whole_conversation(policy):
    conversation = Conversation(policy, system="Be brief.")
    first, _ = ask(conversation, "Hi")
    second, _ = ask(conversation, "And then?")
    said = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "And then?"},
    ]
    assert second == policy.generate([said])[0].text
    assert conversation.messages == [*said, {"role": "assistant", "content": second}]


def test_sampled_answers_to_one_question_asked_twice_differ(policy):
    policy.sampling = policy.sampling.but(temperature=2.0)
    conversation = Conversation(policy)
    first, _ = ask(conversation, "Hi")
    conversation.reset()
    assert ask(conversation, "Hi")[0] != first


def test_an_answer_that_is_cut_says_so(policy):
    conversation = Conversation(policy)
    assert ask(conversation, "Hi")[1] == ["cut at the limit (generation.max_new_tokens)"]


def test_ctrl_c_stops_the_answer_and_keeps_what_was_written(policy):
    whole = policy.generate(["Hi"])[0]
    conversation = Conversation(policy)
    shown: list[str] = []
    notes: list[str] = []

    def show(piece: str) -> None:
        shown.append(piece)
        if len(shown) == 3:
            raise KeyboardInterrupt

    assert conversation.answer("Hi", show=show, note=notes.append) is None
    assert notes == ["stopped"]
    kept = conversation.turns[-1]
    assert kept["role"] == "assistant" and whole.text.startswith(kept["content"]) and len(shown) == 3
    ask(conversation, "go on")  # and the conversation goes on
    assert [turn["role"] for turn in conversation.turns] == ["user", "assistant"] * 2


def small_context(context: int, answer: int) -> Conversation:
    policy = GeneratingPolicy(
        LocalPolicy(tiny_llama(max_position_embeddings=context)),
        byte_tokenizer(),
        Sampling(max_new_tokens=answer),
    )
    return Conversation(policy)


def test_a_conversation_that_fills_the_context_forgets_its_oldest_turns_and_keeps_the_system_message():
    """Context 150, 10 tokens for the answer. A message costs its text, its role and 4."""
    conversation = small_context(150, 10)
    conversation.system = "S"
    for number in range(6):
        _, notes = ask(conversation, f"question {number}")
        length = len(encode_prompt(conversation.policy.tokenizer, conversation.messages[:-1]))
        assert length <= 140
    assert any("the oldest 2 messages are forgotten" in note for note in notes)
    assert conversation.messages[0] == {"role": "system", "content": "S"}
    assert conversation.turns[0]["role"] == "user" and conversation.turns[-2]["content"] == "question 5"


def test_a_message_longer_than_the_context_is_refused_and_forgotten():
    conversation = small_context(100, 10)
    ask(conversation, "Hi")
    before = list(conversation.turns)
    with pytest.raises(UsageError, match="write a shorter one"):
        ask(conversation, "x" * 200)
    assert conversation.turns == before


def talk(conversation: Conversation, *lines: str) -> None:
    converse(conversation, iter(lines))


def test_answers_go_to_standard_output_and_all_else_to_standard_error(policy, capsys):
    conversation = Conversation(policy)
    talk(conversation, "Hi", "", "/system Be kind.", "/help", "/reset", "/nonsense", "/quit", "never asked")
    out, err = capsys.readouterr()
    assert out == policy.generate(["Hi"])[0].text + "\n"
    assert "the system message is set" in err and "/save FILE.jsonl" in err and "is forgotten" in err
    assert "error[CHAT-COMMAND] there is no command /nonsense" in err
    assert conversation.system == "Be kind." and conversation.turns == []


def test_a_saved_conversation_is_a_row_that_can_be_trained_on(policy, tmp_path: Path, capsys):
    from llmfw.core.data import canonical

    conversation = Conversation(policy)
    file = tmp_path / "talk.jsonl"
    talk(conversation, f"/save {file}", "Hi", "/save", f"/save {file}", f"/save {tmp_path}/none/x.jsonl")
    (line,) = file.read_text().splitlines()
    assert json.loads(line) == {"messages": conversation.messages}
    assert canonical(json.loads(line))[0] == "messages"
    err = capsys.readouterr().err
    assert "nothing was said yet" in err and "the file's name is missing" in err and "mkdir -p" in err


def test_a_question_that_can_not_be_asked_does_not_end_the_conversation(policy, capsys):
    conversation = Conversation(policy)
    talk(conversation, "<|end|>", "Hi")
    assert "spells the control token" in capsys.readouterr().err
    assert [turn["content"] for turn in conversation.turns[:1]] == ["Hi"]
