"""What a model is asked: strings, message lists or rows of data become token ids. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from llmfw.core.errors import DataError, UsageError
from llmfw.core.records import Row

Message = Mapping[str, Any]
Prompt = str | Sequence[Message] | Sequence[int]
"""A string (a user's message where there is a chat template, else raw text), a message list, or token ids."""


def encode_prompt(tokenizer: Any, prompt: Prompt, prefix: str = "") -> list[int]:
    """Token ids of a prompt, ready for the answer's first token.

    Args:
        prefix: the beginning of the answer, already written. A message list that ends with an assistant's
            message is continued there, as if its text stood before ``prefix``.

    Errors:
        UsageError: nothing to ask, or messages for a tokenizer without a chat template.
    """
    if _is_ids(prompt):
        ids = [int(token) for token in cast(Sequence[int], prompt)]
        ids += tokenizer(prefix, add_special_tokens=False)["input_ids"] if prefix else []
    elif isinstance(prompt, str) and not has_template(tokenizer):
        ids = list(tokenizer(prompt + prefix)["input_ids"])
    else:
        # a template writes its own special tokens, so the tokenizer must not add a second BOS
        ids = list(tokenizer(render(tokenizer, prompt, prefix), add_special_tokens=False)["input_ids"])
    if not ids:
        raise UsageError(
            "EMPTY-PROMPT", "the prompt holds no token", mend="write a prompt of at least one character"
        )
    return ids


def render(tokenizer: Any, prompt: Prompt, prefix: str = "") -> str:
    """The text that the model reads: the chat template over the messages, the answer's opening, a prefix."""
    messages = (
        [{"role": "user", "content": prompt}]
        if isinstance(prompt, str)
        else [dict(cast(Message, message)) for message in prompt]
    )
    if not messages:
        raise UsageError("EMPTY-PROMPT", "the message list is empty", mend="give at least one message")
    for message in messages:
        if not isinstance(message.get("role"), str) or not isinstance(message.get("content"), str):
            raise UsageError(
                "MESSAGE",
                f"a message needs a role and a content, both text; got the keys {sorted(message)}",
                mend='write messages as {"role": "user", "content": "..."}',
            )
    if not has_template(tokenizer):
        raise UsageError(
            "NO-TEMPLATE",
            "messages were given, but the tokenizer has no chat template",
            mend="set tokenizer.template, or give the prompt as one string",
            key="tokenizer.template",
        )
    if len(messages) > 1 and messages[-1]["role"] == "assistant":
        prefix = messages.pop()["content"] + prefix
    text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return text + prefix


def has_template(tokenizer: Any) -> bool:
    """Whether strings are asked as a user's message."""
    return bool(getattr(tokenizer, "chat_template", None))


def _is_ids(prompt: Prompt) -> bool:
    return not isinstance(prompt, str) and len(prompt) > 0 and not isinstance(prompt[0], Mapping)


def prompt_of(row: Row) -> Prompt:
    """The question in a row of data, in any form: its ``prompt``, or the messages before the last answer.

    A preference row without a prompt has an implicit one: the messages that both answers share.

    Errors:
        DataError: a row that asks nothing (form ``text``).
    """
    if row.get("prompt"):
        prompt: Prompt = row["prompt"]
        return prompt
    if isinstance(row.get("messages"), Sequence) and not isinstance(row["messages"], str):
        return _before_answer(row["messages"])
    chosen, rejected = row.get("chosen"), row.get("rejected")
    if isinstance(chosen, Sequence) and not isinstance(chosen, str) and isinstance(rejected, Sequence):
        shared = 0
        while shared < min(len(chosen), len(rejected)) and _same(chosen[shared], rejected[shared]):
            shared += 1
        # equal answers share everything: even then the last message is the answer
        return _before_answer([*chosen[: min(shared, len(chosen) - 1)], {"role": "assistant", "content": ""}])
    raise DataError(
        "NO-PROMPT",
        f"row {row.get('id', '?')} asks nothing: it has {', '.join(sorted(map(str, row))) or 'no keys'}",
        mend="give rows with a prompt or with messages",
    )


def _same(left: Message, right: Message) -> bool:
    return left.get("role") == right.get("role") and left.get("content") == right.get("content")


def _before_answer(messages: Sequence[Message]) -> list[Message]:
    answers = [index for index, message in enumerate(messages) if message.get("role") == "assistant"]
    last = answers[-1] if answers else len(messages)
    asked: list[Message] = [
        {"role": message["role"], "content": message["content"]} for message in messages[:last]
    ]
    if not asked:
        raise DataError("NO-PROMPT", "the messages hold no question", mend="start with a user's message")
    return asked
