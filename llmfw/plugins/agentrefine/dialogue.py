"""Trajectories as conversations: the game master's observations are the user's messages, the player's turns
the assistant's, in ReAct's form. The game master's thoughts and flags never enter the text.

A row is ``{id, messages: [{role, content, kind, loss}], meta: {errors, source}}``; ``kind`` stands on
assistant messages (``functional.KINDS``), ``loss`` is what the core's masks go by. A message that repairs an
error may have ``plain``: the same turn as it would be without the error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from llmfw import Row

from .functional import KINDS, kept, kinds, trained
from .records import Script, TrajectoryError, Turn, flags_of

_THOUGHT: Final = "thought:"
_ACTION: Final = "action:"


def react(thought: str, action: str) -> str:
    """``Thought: ...`` and ``Action: ...``, each on a line of its own."""
    return f"Thought: {thought}\nAction: {action}"


def react_of(text: str) -> tuple[str, str] | None:
    """(thought, action) of a reply; None: it can't be read as one.

    A reply is a line ``Action: ...``, with nothing behind it, and before it nothing or a text that begins
    with ``Thought:``. Both words may have any capitals. Of several actions nobody knows which one is meant.
    """
    *before, last = text.strip().split("\n")
    action = _behind(last, _ACTION)
    thought = _behind("\n".join(before), _THOUGHT)
    if not action or (thought is None and any(line.strip() for line in before)):
        return None
    if any(_behind(line, _ACTION) is not None for line in before):
        return None
    return thought or "", action


def _behind(text: str, word: str) -> str | None:
    """What stands behind a word with which the text begins; None: it begins otherwise."""
    text = text.lstrip()
    return text[len(word) :].strip() if text[: len(word)].lower() == word else None


def instruction_for(script: Script) -> str:
    """What a player is told first where the script's writer gives no words for it: places, goal, actions."""
    places = "; ".join(f"{name}: {_told(inside)}" for name, inside in script.environment.items())
    return f"Goal: {script.goal}\nActions: {', '.join(script.actions)}\nPlaces: {places}"


def _told(inside: Any) -> str:
    if isinstance(inside, Mapping):
        return ", ".join(f"{name} ({_told(value)})" if value else str(name) for name, value in inside.items())
    return ", ".join(map(str, inside)) if isinstance(inside, list) else str(inside)


def to_chat(name: str, instruction: str, turns: Sequence[Turn], *, source: str, script: str = "") -> Row:
    """The row of a trajectory; nothing is masked yet.

    Args:
        name: the row's id.
        instruction: the first user message: rules, goal, actions.
        source: who gave the flags: ``rules`` (a simulator) or ``model``.
        script: id of the script, for ``problem``.

    Raises:
        TrajectoryError: no turn, or nobody answers the last one.
    """
    flagged = flags_of(turns)
    if not flagged:
        raise TrajectoryError("TRAJECTORY", f"trajectory {name} has no turn", mend="leave it out")
    told = kinds(flagged, finished=turns[-1].completed)
    messages: list[dict[str, Any]] = [{"role": "user", "content": instruction}]
    for at, kind in enumerate(told):
        player, master = turns[2 * at], turns[2 * at + 1]
        said: dict[str, Any] = {
            "role": "assistant", "content": react(player.thought, player.text), "kind": kind, "loss": True
        }  # fmt: skip
        if player.plain:
            said["plain"] = react(player.plain, player.text)
        messages.append(said)
        if at < len(told) - 1:
            messages.append({"role": "user", "content": master.text})
    return {
        "id": name, "messages": messages, "problem": script or name,
        "meta": {"errors": sum(flagged), "source": source},
    }  # fmt: skip


def kinds_of(row: Row) -> list[str]:
    """The kinds of a row's assistant messages.

    Raises:
        TrajectoryError: one has no kind, or an unknown one.
    """
    found: list[str] = []
    for at, message in enumerate(row.get("messages", ())):
        if message["role"] != "assistant":
            continue
        kind = message.get("kind")
        if kind not in KINDS:
            said = "no kind" if kind is None else f"kind {kind!r}"
            raise TrajectoryError(
                "TURN-KIND",
                f"row {row.get('id')}: messages[{at}] of the assistant has {said}",
                mend=f"mark each with one of {', '.join(KINDS)}, or convert trajectories with "
                "`llmfw trajectories convert`",
                key=f"messages[{at}].kind",
            )
        found.append(str(kind))
    if not found:
        raise TrajectoryError(
            "TURN-KIND", f"row {row.get('id')} has no messages with turns of an assistant",
            mend="give rows with messages, e.g. those of `llmfw trajectories build`", key="messages",
        )  # fmt: skip
    return found


def masked(row: Row, arm: str) -> Row | None:
    """The row as an arm trains it: ``loss`` of each assistant message by its kind, turns that the arm leaves
    out removed with the observations that answer them, repairs of removed errors in their plain form.

    None: nothing of it would be trained (all its turns are errors).
    """
    told = iter(kinds_of(row))
    messages: list[dict[str, Any]] = []
    gone = False
    for message in row["messages"]:
        if message["role"] != "assistant":
            if not gone:
                messages.append({**message, "loss": False})
            gone = False
            continue
        kind = next(told)
        gone = not kept(kind, arm)
        if gone:
            continue
        plain = _plain(message) if _mended(kind, arm) else message["content"]
        said = {key: value for key, value in message.items() if key != "plain"}
        messages.append({**said, "content": plain, "loss": trained(kind, arm)})
    if not any(message["loss"] for message in messages):
        return None
    return {**row, "messages": messages}


def _mended(kind: str, arm: str) -> bool:
    """Whether a turn repairs an error that the arm has taken out of the text."""
    return kind == "refine" and not kept("error", arm)


def _plain(message: Mapping[str, Any]) -> str:
    return str(message.get("plain") or message["content"])
