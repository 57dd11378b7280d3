"""A player that knows the house: the next step of a shortest way, and mistakes that it makes on purpose.

A mistake is an action that the house refuses: what comes only after the next step, a name that isn't there,
something that can't be done now. Mistakes that the house would let pass are drawn again.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from ..actions import match
from ..records import Script, Turn
from .house import House, Outcome, action_text, shown, step
from .names import BOXES, ITEMS, ROOMS, drawn


@dataclass(frozen=True)
class Move:
    """A thought and the action that follows from it."""

    thought: str
    action: str


def next_move(house: House) -> Move:
    """The next step of a shortest way to the goal (from a house in which it isn't reached)."""
    goal, item = house.goal, house.goal.item
    if house.held and house.held != item:
        free = next((box for box, room in house.boxes.items() if room == house.room), "")
        if not free:
            return _walk(house, next(iter(house.boxes)))
        return _unless_shut(
            house, free, Move(f"{house.held} away", action_text(house, "put", house.held, free))
        )
    if house.held != item:
        box = house.items[item]
        if house.boxes[box] != house.room:
            return Move(f"{item} in {box}, {box} in {house.boxes[box]}", _to(house, house.boxes[box]))
        return _unless_shut(house, box, Move(f"{item} in {box}", action_text(house, "take", item, box)))
    if goal.treat and (item, goal.treat) not in house.treated:
        tool, room = next(iter(house.tools.items()))
        if room != house.room:
            return Move(f"{tool} in {room}", _to(house, room))
        return Move(f"{tool} here", action_text(house, goal.treat, item, tool))
    if house.boxes[goal.box] != house.room:
        return _walk(house, goal.box)
    return _unless_shut(house, goal.box, Move(f"{goal.box} here", action_text(house, "put", item, goal.box)))


def _walk(house: House, box: str) -> Move:
    return Move(f"{box} in {house.boxes[box]}", _to(house, house.boxes[box]))


def _to(house: House, room: str) -> str:
    return action_text(house, "go", room)


def _unless_shut(house: House, box: str, move: Move) -> Move:
    return Move(f"{box} shut", action_text(house, "open", box)) if box in house.shut else move


def mistake(house: House, draw: random.Random) -> Move:
    """A step that the house refuses."""
    while True:
        move = draw.choice((_too_early, _too_early, _wrong_name, _wrong_words, _elsewhere))(house, draw)
        if step(house, move.action).errors.any:
            return move


def _too_early(house: House, draw: random.Random) -> Move:
    """What comes after the next step, at once."""
    after = step(house, next_move(house).action).house
    return next_move(house) if after.done else next_move(after)


def _wrong_name(house: House, draw: random.Random) -> Move:
    """The next step with a name that nothing in the world has."""
    move = next_move(house)
    name = draw.choice([word for word in (*ROOMS, *BOXES, *ITEMS) if word in move.action] or ["look"])
    wrong = f"{name.split()[0]} {draw.randint(3, 9)}"
    return Move(move.thought.replace(name, wrong), move.action.replace(name, wrong))


def _wrong_words(house: House, draw: random.Random) -> Move:
    """The next step in words that another world has for it."""
    names = drawn(draw)
    other = next_move(replace(house, names=names))
    return Move(other.thought, other.action)


def _elsewhere(house: House, draw: random.Random) -> Move:
    """Something that can't be done here or now."""
    item, box = draw.choice(list(house.items) or [house.goal.item]), draw.choice(list(house.boxes))
    return draw.choice(
        (
            Move(f"{box} shut", action_text(house, "open", box)),
            Move(f"{item} in {box}", action_text(house, "take", item, box)),
            Move(f"{box} here", action_text(house, "put", item, box)),
            Move(f"look in {house.room}", _to(house, house.room)),
        )
    )


@dataclass(frozen=True, kw_only=True)
class Played:
    """A trajectory in a house that ends with the goal reached; ``instruction``: what the player was told."""

    script: Script
    instruction: str
    turns: tuple[Turn, ...]


def play(house: House, draw: random.Random, *, error_rate: float = 0.3, least: int = 2) -> Played:
    """The planner's way to the goal with mistakes and their repairs.

    Before each step a mistake is made with probability ``error_rate``, never two in a row; where fewer than
    ``least`` came about, as many steps as are wanting get one (drawn among the others). 0 and 0: none.
    """
    steps = _length(house)
    wrong = [draw.random() < error_rate for _ in range(steps)]
    right = [at for at in range(steps) if not wrong[at]]
    for at in draw.sample(right, min(len(right), max(0, least - sum(wrong)))):
        wrong[at] = True
    start, turns = house, list[Turn]()
    for errs in wrong:
        refused = _turns(turns, house, mistake(house, draw)) if errs else None
        house = _turns(turns, house, next_move(house), refused).house
    return Played(script=start.script(), instruction=start.instruction(), turns=tuple(turns))


def _turns(turns: list[Turn], house: House, move: Move, refused: Outcome | None = None) -> Outcome:
    """Append the player's turn and the answer to it; ``refused``: what the turn before it brought."""
    outcome = step(house, move.action)
    thought = move.thought if refused is None else repair_thought(house, refused.observation, move)
    number, plain = len(turns) + 1, "" if refused is None else move.thought
    turns.append(Turn(number=number, thought=thought, text=move.action, plain=plain))
    turns.append(
        Turn(
            number=number + 1, thought="", text=outcome.observation, errors=outcome.errors,
            completed=outcome.house.done,
        )
    )  # fmt: skip
    return outcome


def repair_thought(house: House, observation: str, move: Move) -> str:
    """What is thought after a failure: why it failed, then what is to be done; where the action wasn't
    understood, the template that the next one has.
    """
    reason = observation.removeprefix("No: ")
    if reason == "unknown":
        hits = match(move.action, house.script())
        return f"unknown, so {shown(hits[0].template)}" if hits else f"unknown, so {move.thought}"
    return move.thought if reason == move.thought else f"{reason}, so {move.thought}"


def _length(house: House) -> int:
    """Steps of a shortest way."""
    steps = 0
    while not house.done:
        house = step(house, next_move(house).action).house
        steps += 1
    return steps
