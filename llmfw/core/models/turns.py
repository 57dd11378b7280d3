"""The tokens of a tokenizer that are no text, and the one that ends an assistant's turn. Imports no torch."""

from __future__ import annotations

from typing import Any

_PROBE = "\u2060llmfw\u2060"
"""A text that no template writes by itself; word joiners survive every template's strip()."""


def special_ids(tokenizer: Any) -> set[int]:
    """Ids of tokens that are no text: those with a role (bos, eos, ...) and added ones marked special."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return set(tokenizer.all_special_ids) | {token for token, entry in added.items() if entry.special}


def turn_end(tokenizer: Any) -> int | None:
    """The special token that the chat template writes straight after an assistant's message, if one is."""
    if not getattr(tokenizer, "chat_template", None):
        return None
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _PROBE}]
    text: str = tokenizer.apply_chat_template(messages, tokenize=False)
    _, found, after = text.rpartition(_PROBE)
    if not found:
        return None
    ids: list[int] = tokenizer(after.lstrip(), add_special_tokens=False)["input_ids"]
    return ids[0] if ids and ids[0] in special_ids(tokenizer) else None
