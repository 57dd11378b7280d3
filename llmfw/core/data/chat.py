"""Chat templates, and exactly which characters of their output are the assistant's.

Templates needn't mark what the assistant says. Each conversation is rendered twice: as it is, and with
placeholders for the contents; what stands between the placeholders is the template's own text. The first
rendering must be this text with the contents put in (or the contents without outer blanks, as many templates
write them): then the position of every content is known, not guessed; a template that changes contents in
another way is refused by line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmfw.core.data.formats import RowError, is_trained
from llmfw.core.data.text import Response, Span, TextTokenizer

_OUR_KEYS = ("loss", "spans")
_FIRST_PLACEHOLDER = "\ue000"  # private use: no text has it, and no template touches it


@dataclass(frozen=True)
class Rendered:
    """A conversation as the model reads it. ``open_ends`` counts trained answers after which the template
    ends no turn.
    """

    text: str
    responses: tuple[Response, ...]
    answers: tuple[str, ...]
    """What is trained in each response, its end of turn left out."""
    open_ends: int = 0


def render(
    tokenizer: TextTokenizer, messages: Sequence[Mapping[str, Any]], first: int = 0, key: str = "messages"
) -> Rendered:
    """Render ``messages`` and find what is trained: the trained messages from index ``first`` on.

    A response starts where generation would start and ends with the token that ends the turn.

    Raises:
        RowError: the template refuses the conversation, or changes what is said in it.
    """
    contents = [str(message["content"]) for message in messages]
    for index, content in enumerate(contents):
        tokenizer.refuse_specials(content, f"{key}[{index}].content")
    text = apply(tokenizer, messages)
    between = _between(tokenizer, messages)
    places = _places(text, contents, between, key)
    responses: list[Response] = []
    answers: list[str] = []
    open_ends = 0
    for index in range(first, len(messages)):
        if not is_trained(messages[index]):
            continue
        start, stop = places[index]
        end = stop + _end_of_turn(tokenizer, between, index)
        open_ends += end == stop
        begin = _begin(tokenizer, messages[:index], text, start)
        spans = messages[index].get("spans")
        if spans is None:
            responses.append(Response(begin, end, ((begin, end),)))
            answers.append(text[start:stop])
        else:
            shift = start - _trimmed(contents[index], text[start:stop])
            trained = tuple((max(start, first + shift), min(stop, last + shift)) for first, last in spans)
            responses.append(Response(begin, end, tuple(span for span in trained if span[0] < span[1])))
            answers.append("".join(text[first:last] for first, last in responses[-1].trained))
    return Rendered(text, tuple(responses), tuple(answers), open_ends)


def apply(tokenizer: TextTokenizer, messages: Sequence[Mapping[str, Any]], *, opened: bool = False) -> str:
    """The chat template over ``messages``; ``opened`` adds the beginning of an answer, as generation needs
    it.
    """
    said = [{name: value for name, value in message.items() if name not in _OUR_KEYS} for message in messages]
    try:
        text = tokenizer.tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=opened)
    except Exception as error:  # whatever the template's author chose to raise
        reason = " ".join(str(error).split())
        raise RowError(
            f"the chat template refuses this conversation: {reason}",
            mend="mend the order of the roles, or choose tokenizer.template",
        ) from error
    return str(text)


def _between(tokenizer: TextTokenizer, messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """The template's own text before, between and after the contents: one more than there are messages."""
    spoken = "".join(str(message["content"]) for message in messages)
    code = ord(_FIRST_PLACEHOLDER)
    while chr(code) in spoken:
        code += 1
    marks = [f"{chr(code)}{index}{chr(code)}" for index in range(len(messages))]
    rest = apply(
        tokenizer, [{**message, "content": mark} for message, mark in zip(messages, marks, strict=True)]
    )
    found: list[str] = []
    for mark in marks:
        before, seen, rest = rest.partition(mark)
        if not seen:
            raise _rewritten("leaves a message out or changes the messages' order", None)
        found.append(before)
    return [*found, rest]


def _places(text: str, contents: Sequence[str], between: Sequence[str], key: str) -> list[Span]:
    """Where each content stands, so that texts between and contents together are exactly ``text``."""
    at = len(between[0])
    if not text.startswith(between[0]):
        raise _rewritten("writes another beginning for these messages", None)
    places: list[Span] = []
    for index, content in enumerate(contents):
        after = between[index + 1]
        last = index + 1 == len(contents)
        for said in dict.fromkeys((content, content.strip(), content.rstrip(), content.lstrip())):
            stop = at + len(said)
            if text.startswith(said, at) and (text[stop:] == after if last else text.startswith(after, stop)):
                places.append((at, stop))
                at = stop + len(after)
                break
        else:
            raise _rewritten("changes the content", f"{key}[{index}].content")
    return places


def _rewritten(how: str, key: str | None) -> RowError:
    return RowError(
        f"the chat template {how}, so what is trained can't be told exactly",
        key=key,
        mend="choose another tokenizer.template, or leave this row out",
    )


def _begin(tokenizer: TextTokenizer, before: Sequence[Mapping[str, Any]], text: str, start: int) -> int:
    """Where generation would start: after the opening of the answer, at most blanks before its content."""
    if not before:
        return start
    try:
        opened = len(prefix) if text.startswith(prefix := apply(tokenizer, before, opened=True)) else start
    except RowError:
        return start
    return opened if opened <= start and not text[opened:start].strip() else start


def _end_of_turn(tokenizer: TextTokenizer, between: Sequence[str], index: int) -> int:
    """Characters after content ``index`` up to the end of the token that ends its turn; 0 where the template
    writes none.

    In the middle of a conversation the token must be that of the conversation's end, or be followed by
    another: a lone control token may as well begin the next turn.
    """
    after, tail = between[index + 1], between[-1]
    found = tokenizer.first_special(after)
    if found is None or after[: found[0]].strip():
        return 0
    closing = tokenizer.first_special(tail)
    is_last = index + 2 == len(between)
    same = closing is not None and tail[slice(*closing)] == after[slice(*found)]
    return found[1] if is_last or same or tokenizer.first_special(after[found[1] :]) else 0


def _trimmed(content: str, said: str) -> int:
    """Characters that the template took from the front of a content."""
    return content.index(said) if said else 0
