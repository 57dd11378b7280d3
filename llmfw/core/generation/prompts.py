"""What a model is asked: strings, message lists or rows of data become token ids. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from llmfw.core.data.chat import apply
from llmfw.core.data.chat_tools import refuse_unwritten
from llmfw.core.data.formats import RowError, is_trained
from llmfw.core.data.sides import encoder_ids
from llmfw.core.data.text import Response, TextTokenizer
from llmfw.core.data.tool_calls import normal_messages, with_tools
from llmfw.core.errors import DataError, UsageError
from llmfw.core.models.encoder_decoder import Sides
from llmfw.core.records import Row

Message = Mapping[str, Any]
Prompt = str | Sequence[Message] | Sequence[int]
"""A string (a user's message where there is a chat template, else raw text), a message list, or token ids."""


def encode_prompt(tokenizer: Any, prompt: Prompt, prefix: str = "") -> list[int]:
    """Token ids of a prompt, ready for the answer's first token: exactly what training puts before it.

    Args:
        tokenizer: of transformers, or a ``llmfw.core.data.TextTokenizer`` around one.
        prefix: the beginning of the answer, already written. A message list that ends with an assistant's
            message is continued there, its text before ``prefix``.

    Raises:
        UsageError: nothing to ask, no chat template for messages, or a message that spells a control token.
    """
    text = tokenizer if isinstance(tokenizer, TextTokenizer) else TextTokenizer(tokenizer)
    if _is_ids(prompt):
        ids = [*(int(token) for token in cast(Sequence[int], prompt)), *text.ids(prefix)]
    elif isinstance(prompt, str) and not has_template(text):
        ids = [*text.bos, *_joined(text, prompt, prefix)]
    else:
        ids = _joined(text, *_opened(text, prompt, prefix))
    if not ids:
        raise UsageError(
            "EMPTY-PROMPT", "the prompt holds no token", mend="write a prompt of at least one character"
        )
    return ids


def encode_sides(
    tokenizer: Any, prompt: Prompt, sides: Sides, prefix: str = ""
) -> tuple[list[int], list[int]]:
    """(what the encoder of an encoder-decoder reads, what its decoder begins with), as training has them.

    Token ids are taken as they are. The decoder begins with the model's start token, the token that every
    answer is forced to begin with where there is one, and ``prefix`` after the tokenizer's own mark.

    Raises:
        UsageError: as of ``encode_prompt``.
    """
    text = tokenizer if isinstance(tokenizer, TextTokenizer) else TextTokenizer(tokenizer)
    if _is_ids(prompt):
        read = [int(token) for token in cast(Sequence[int], prompt)]
    elif isinstance(prompt, str) and not has_template(text):
        read = encoder_ids(text, prompt)
    else:
        asked, prefix = _opened(text, prompt, prefix)
        read = encoder_ids(text, asked)
    if not read:
        raise UsageError(
            "EMPTY-PROMPT", "the prompt holds no token", mend="write a prompt of at least one character"
        )
    opening = [] if sides.forced is None else [sides.forced]
    if prefix:
        marks = list(text.marks(target=True)[0])
        opening = marks if marks[:1] == opening or not opening else [*opening, *marks]
        opening += text.ids(prefix)
    return read, [sides.start, *opening]


def ids_read(tokenizer: Any, prompt: Prompt, sides: Sides | None = None) -> list[int]:
    """What the model reads of a prompt: ``encode_prompt``, or the encoder's row of an encoder-decoder."""
    return encode_prompt(tokenizer, prompt) if sides is None else encode_sides(tokenizer, prompt, sides)[0]


def render(tokenizer: Any, prompt: Prompt, prefix: str = "") -> str:
    """The text that the model reads: the chat template over the messages, the answer's opening, a prefix."""
    text = tokenizer if isinstance(tokenizer, TextTokenizer) else TextTokenizer(tokenizer)
    return "".join(_opened(text, prompt, prefix))


def has_template(tokenizer: Any) -> bool:
    """Whether strings are asked as a user's message."""
    inner = tokenizer.tokenizer if isinstance(tokenizer, TextTokenizer) else tokenizer
    return bool(getattr(inner, "chat_template", None))


def _joined(text: TextTokenizer, asked: str, prefix: str) -> list[int]:
    """Ids of a question and of the answer's beginning, cut where training cuts them."""
    if not prefix:
        return text.ids(asked)
    end = len(asked) + len(prefix)
    ids, _ = text.masked(asked + prefix, [Response(len(asked), end, ((len(asked), end),))])
    return ids


def _opened(text: TextTokenizer, prompt: Prompt, prefix: str) -> tuple[str, str]:
    """(the rendered question with the answer's opening, the answer's given beginning)."""
    messages = (
        [{"role": "user", "content": prompt}]
        if isinstance(prompt, str)
        else [dict(cast(Message, message)) for message in prompt]
    )
    if not messages:
        raise UsageError("EMPTY-PROMPT", "the message list is empty", mend="give at least one message")
    if not has_template(text):
        raise UsageError(
            "NO-TEMPLATE",
            "messages were given, but the tokenizer has no chat template",
            mend="set tokenizer.template, or give the prompt as one string",
            key="tokenizer.template",
        )
    try:
        for message in messages:
            if not isinstance(message.get("role"), str) or not isinstance(message.get("content"), str):
                raise RowError(
                    f"a message needs a role and a content, both text; got the keys {sorted(message)}",
                    mend='write messages as {"role": "user", "content": "..."}',
                )
            text.refuse_specials(message["content"], "content")
        if len(messages) > 1 and messages[-1]["role"] == "assistant":
            prefix = messages.pop()["content"] + prefix
        if any(message["role"] == "tool" or {"tools", "tool_calls"} & message.keys() for message in messages):
            refuse_unwritten(text, messages, apply(text, messages), "messages")
        return apply(text, messages, opened=True), prefix
    except RowError as problem:
        raise UsageError("PROMPT", problem.what, mend=problem.mend, key=problem.key) from problem


def _is_ids(prompt: Prompt) -> bool:
    return not isinstance(prompt, str) and len(prompt) > 0 and not isinstance(prompt[0], Mapping)


def prompt_of(row: Row) -> Prompt:
    """The question in a row of data, in any form: its ``prompt``, or what precedes the last trained message.

    A preference row without a prompt has an implicit one: the leading messages that both answers share.
    Unlike ``llmfw.core.data.prompt_of`` it also takes rows that hold no answer, and rows not checked.

    Raises:
        DataError: a row that asks nothing (form ``text``), or whose functions can't be used.
    """
    row = _with_functions(row)
    if row.get("prompt"):
        prompt: Prompt = row["prompt"]
        return prompt
    asked: list[Message] = []
    if _is_messages(row.get("messages")):
        messages: list[Message] = row["messages"]
        answers = [index for index, message in enumerate(messages) if is_trained(message)]
        asked = messages[: answers[-1]] if answers else messages
    elif _is_messages(row.get("chosen")) and _is_messages(row.get("rejected")):
        for one, other in zip(row["chosen"], row["rejected"], strict=False):
            if one != other:
                break
            asked.append(one)
        while asked and asked[-1]["role"] == "assistant":
            asked.pop()
    if not asked:
        raise DataError(
            "NO-PROMPT",
            f"row {row.get('id', '?')} asks nothing: its keys are {', '.join(map(str, row)) or 'none'}",
            mend="give rows with a prompt, or with messages before the answer",
        )
    return [
        {name: value for name, value in message.items() if name not in ("loss", "spans")} for message in asked
    ]


def _with_functions(row: Row) -> Row:
    """The row with its calls in one form and its ``tools`` in the first message, as in canonical rows."""
    lists = [row[key] for key in ("prompt", "messages") if isinstance(row.get(key), list)]
    if not row.get("tools") and not any(
        isinstance(message, Mapping) and message.get("tool_calls")
        for messages in lists
        for message in messages
    ):
        return row
    try:
        made = dict(row)
        for key in ("prompt", "messages"):
            if key in row:
                made[key] = normal_messages(row[key], key)
        return with_tools(made, "prompt" if made.get("prompt") else "messages")
    except RowError as problem:
        raise DataError("PROMPT", problem.what, key=problem.key, mend=problem.mend) from problem


def _is_messages(value: object) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(message, Mapping) and {"role", "content"} <= message.keys() for message in value)
    )
