"""One call of a chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmfw.core.data.row_checks import RowError
from llmfw.core.data.text import TextTokenizer

_OUR_KEYS = ("loss", "spans", "tools")


def apply(tokenizer: TextTokenizer, messages: Sequence[Mapping[str, Any]], *, opened: bool = False) -> str:
    """The chat template over ``messages``, with the ``tools`` that one of them carries; ``opened`` adds the
    beginning of an answer, as generation needs it.
    """
    said = [{name: value for name, value in message.items() if name not in _OUR_KEYS} for message in messages]
    tools = next((message["tools"] for message in messages if message.get("tools")), None)
    try:
        text = tokenizer.tokenizer.apply_chat_template(
            said, tools=tools, tokenize=False, add_generation_prompt=opened
        )
    except Exception as error:  # whatever the template's author chose to raise
        reason = " ".join(str(error).split())
        raise RowError(
            f"the chat template refuses this conversation: {reason}",
            mend="mend the order of the roles, or choose tokenizer.template",
        ) from error
    return str(text)


def rewritten(how: str, key: str | None) -> RowError:
    """The refusal of a template that changes what is said."""
    return RowError(
        f"the chat template {how}, so what is trained can't be told exactly",
        key=key,
        mend="choose another tokenizer.template, or leave this row out",
    )
