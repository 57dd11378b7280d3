"""Chat templates, and exactly which characters of their output are the assistant's.

Templates needn't mark what the assistant says. Each conversation is rendered twice: as it is, and with
placeholders for the contents; what stands between the placeholders is the template's own text. The first
rendering must be this text with the contents put in (or the contents without outer blanks, as many templates
write them): then the position of every content is known, not guessed; a template that changes contents in
another way is refused by line. What a template writes for calls of functions is what it adds to the
conversation before them; one that leaves tools, calls or results out is refused by line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmfw.core.data.chat_tools import refuse_unwritten
from llmfw.core.data.formats import RowError, is_trained
from llmfw.core.data.rendering import apply as apply
from llmfw.core.data.rendering import rewritten
from llmfw.core.data.text import Response, Span, TextTokenizer

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

    A response starts where generation would start and ends with the token that ends the turn. A message that
    calls functions is trained as the template writes it, calls and all.

    Raises:
        RowError: the template refuses the conversation, or changes what is said in it.
    """
    contents = [str(message["content"]) for message in messages]
    for index, message in enumerate(messages):
        tokenizer.refuse_specials(contents[index], f"{key}[{index}].content")
        for name in ("tool_calls", "tools"):
            if name in message:
                said = json.dumps(message[name], ensure_ascii=False)
                tokenizer.refuse_specials(said, f"{key}[{index}].{name}")
    text = apply(tokenizer, messages)
    marked = [index for index, message in enumerate(messages) if _is_marked(message)]
    between = _between(tokenizer, messages, marked)
    places = dict(zip(marked, _places(text, contents, between, key, marked), strict=True))
    refuse_unwritten(tokenizer, messages, text, key)
    responses: list[Response] = []
    answers: list[str] = []
    open_ends = 0
    for index in range(first, len(messages)):
        if not is_trained(messages[index]):
            continue
        if "tool_calls" in messages[index]:
            begin, said_end, end = _calling_turn(tokenizer, messages, index, text, key)
            open_ends += end == said_end
            responses.append(Response(begin, end, ((begin, end),)))
            answers.append(text[begin:said_end])
            continue
        start, stop = places[index]
        end = stop + _end_of_turn(tokenizer, between, marked.index(index))
        open_ends += end == stop
        begin = _begin(tokenizer, messages[:index], text, start)
        spans = messages[index].get("spans")
        if spans is None:
            responses.append(Response(begin, end, ((begin, end),)))
            answers.append(text[start:stop])
        else:
            shift = start - _trimmed(contents[index], text[start:stop])
            edges = (
                (first + shift, end if last > len(contents[index]) else min(stop, last + shift))
                for first, last in spans
            )
            trained = tuple((max(start, first), last) for first, last in edges)
            responses.append(Response(begin, end, tuple(span for span in trained if span[0] < span[1])))
            answers.append("".join(text[first : min(last, stop)] for first, last in responses[-1].trained))
    return Rendered(text, tuple(responses), tuple(answers), open_ends)


def _is_marked(message: Mapping[str, Any]) -> bool:
    """Whether a content is replaced by a placeholder: not one that is empty beside calls, nor a function's
    result, which templates may write as JSON and nobody trains.
    """
    if message["role"] == "tool" and not is_trained(message):
        return False
    return bool(message["content"]) or "tool_calls" not in message


def _between(
    tokenizer: TextTokenizer, messages: Sequence[Mapping[str, Any]], marked: Sequence[int]
) -> list[str]:
    """The template's own text (and what isn't ``marked``) before, between and after the marked contents: one
    more than there are.
    """
    spoken = "".join(str(message["content"]) for message in messages)
    code = ord(_FIRST_PLACEHOLDER)
    while chr(code) in spoken:
        code += 1
    marks = {index: f"{chr(code)}{index}{chr(code)}" for index in marked}
    rest = apply(
        tokenizer,
        [
            {**message, "content": marks.get(index, message["content"])}
            for index, message in enumerate(messages)
        ],
    )
    found: list[str] = []
    for mark in marks.values():
        before, seen, rest = rest.partition(mark)
        if not seen:
            raise rewritten("leaves a message out or changes the messages' order", None)
        found.append(before)
    return [*found, rest]


def _places(
    text: str, contents: Sequence[str], between: Sequence[str], key: str, marked: Sequence[int]
) -> list[Span]:
    """Where each marked content stands, so that texts between and contents together are exactly ``text``."""
    at = len(between[0])
    if not text.startswith(between[0]):
        raise rewritten("writes another beginning for these messages", None)
    places: list[Span] = []
    for order, index in enumerate(marked):
        content, after = contents[index], between[order + 1]
        last = order + 1 == len(marked)
        for said in dict.fromkeys((content, content.strip(), content.rstrip(), content.lstrip())):
            stop = at + len(said)
            if text.startswith(said, at) and (text[stop:] == after if last else text.startswith(after, stop)):
                places.append((at, stop))
                at = stop + len(after)
                break
        else:
            raise rewritten("changes the content", f"{key}[{index}].content")
    return places


def _calling_turn(
    tokenizer: TextTokenizer, messages: Sequence[Mapping[str, Any]], index: int, text: str, key: str
) -> tuple[int, int, int]:
    """Where a message that calls functions begins, ends without and with the token that ends its turn.

    It's what the template adds to the conversation before it, opened for an answer; where the template
    writes a conversation that goes on in another way, that can't be told.
    """
    before = apply(tokenizer, messages[:index], opened=True) if index else ""
    whole = apply(tokenizer, messages[: index + 1])
    if not index or not whole.startswith(before) or not text.startswith(whole) or len(whole) == len(before):
        raise rewritten("writes this call in another way once the conversation goes on", f"{key}[{index}]")
    turn = whole[len(before) :]
    end = said = at = 0
    while found := tokenizer.first_special(turn[at:]):
        end, at = at + found[1], at + found[1]
        said = at - (found[1] - found[0])
    if end and not turn[end:].strip():
        return len(before), len(before) + said, len(before) + end
    stop = len(before) + len(turn.rstrip())
    return len(before), stop, stop


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
