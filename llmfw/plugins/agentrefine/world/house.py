"""A house of rooms, boxes and things: what is where, what an action does, and exactly what is wrong with one
that fails. A failed action changes nothing.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from ..actions import declared, filled, parsed, regex_for, slots
from ..records import Action, Errors, Script
from .names import BOXES, CANONICAL, ITEMS, ROOMS, TOOLS, VALUES, Names

TREATED: Final = {"wash": "clean", "heat": "hot"}
"""Treatment -> what a thing is afterwards."""


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A thing into a box, perhaps washed or heated before."""

    item: str
    box: str
    treat: str = ""

    @property
    def text(self) -> str:
        """``bin 1 holds clean cup 1``."""
        return f"{self.box} holds {TREATED[self.treat] + ' ' if self.treat else ''}{self.item}"


@dataclass(frozen=True, kw_only=True)
class House:
    """The state of a house; ``items`` says in which box each thing lies, ``held`` what the player carries."""

    goal: Goal
    room: str
    boxes: dict[str, str]
    """Box -> its room."""
    tools: dict[str, str]
    """Tool -> its room."""
    items: dict[str, str]
    shut: frozenset[str]
    names: Names = field(default_factory=lambda: CANONICAL)
    held: str = ""
    treated: frozenset[tuple[str, str]] = frozenset()
    reached: frozenset[str] = frozenset()
    """Sub-goals that were reached at some time."""

    @property
    def rooms(self) -> tuple[str, ...]:
        """Rooms that there are, in the order of the map."""
        return tuple(dict.fromkeys([*self.boxes.values(), *self.tools.values(), self.room]))

    @property
    def done(self) -> bool:
        """Whether the goal's thing lies in the goal's box, treated as asked."""
        treat = self.goal.treat
        there = self.items.get(self.goal.item) == self.goal.box
        return there and (not treat or (self.goal.item, treat) in self.treated)

    @property
    def progress(self) -> float:
        """Sub-goals reached / (sub-goals + 1), and 1 once it's done: AlfWorld's rule in AgentBoard."""
        parts = 3 if self.goal.treat else 2
        return 1.0 if self.done else len(self.reached) / (parts + 1)

    def here(self) -> str:
        """What stands in the player's room."""
        boxes = [
            f"{box} {'shut' if box in self.shut else 'open'}"
            for box, room in self.boxes.items()
            if room == self.room
        ]
        tools = [tool for tool, room in self.tools.items() if room == self.room]
        return f"{self.room}: {', '.join([*boxes, *tools]) or 'empty'}"

    def instruction(self) -> str:
        """What the player is told first: goal, actions, the map (boxes that hold things first), where it
        stands.
        """
        places = [f"{item} in {box}" for item, box in self.items.items()]
        filled = set(self.items.values())
        boxes = sorted(self.boxes.items(), key=lambda place: place[0] not in filled)
        places += [f"{box} in {room}" for box, room in boxes]
        places += [f"{tool} in {room}" for tool, room in self.tools.items()]
        return (
            f"Goal: {self.goal.text}\nActions: {', '.join(map(shown, self.names.values()))}\n"
            f"Map: {', '.join(places)}\n{self.here()}"
        )

    def script(self) -> Script:
        """The house as a script: the parameters' values are all names of the world."""
        return script_for(self)


def shown(template: str) -> str:
    """A template as the player is told it: ``take {item} from {box}`` is ``take I from B``."""
    return re.sub(r"\{(\w)\w*\}", lambda slot: slot[1].upper(), template)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What an action brings: the house afterwards, what the player sees, and what was wrong."""

    house: House
    observation: str
    errors: Errors = field(default_factory=Errors)


def script_for(house: House) -> Script:
    """Goal, places and actions of a house in the form of a script."""
    rooms = {
        room: {
            **{box: [i for i, b in house.items.items() if b == box]
               for box, at in house.boxes.items() if at == room},
            **{tool: [] for tool, at in house.tools.items() if at == room},
        }
        for room in house.rooms
    }  # fmt: skip
    return Script(
        goal=house.goal.text, actions=_actions(*house.names.values()), environment=rooms,
        completion=(house.goal.text,), persona="somebody who tidies a house",
    )  # fmt: skip


@lru_cache(maxsize=4096)
def _actions(*templates: str) -> Mapping[str, Action]:
    """What a script says of these templates; every step of a house asks."""
    return MappingProxyType(
        {
            template: Action(
                regex=regex_for(template),
                parameters={name: VALUES[name] for name in VALUES if f"{{{name}}}" in template},
            )
            for template in templates
        }
    )


def action_text(house: House, kind: str, *arguments: str) -> str:
    """The action of this kind with these arguments (in the template's canonical order) in the house's own
    names.
    """
    return filled(house.names[kind], dict(zip(slots(CANONICAL[kind]), arguments)))


def step(house: House, action: str) -> Outcome:
    """Do an action.

    Flags: ``parameter``: no template's words, or a name that the script doesn't declare; ``place``: a box or
    tool that isn't here; ``logic``: the right place, at the wrong time.
    """
    actions = _actions(*house.names.values())
    hits = [one for one in parsed(action, actions) if declared(one, actions)]
    if len(hits) != 1:
        return Outcome(house=house, observation="No: unknown", errors=Errors(parameter=True))
    kind = next(kind for kind, template in house.names.items() if template == hits[0].template)
    return _DO[kind](house, **hits[0].arguments)


def _no(house: House, reason: str, *, place: bool = False) -> Outcome:
    errors = Errors(place=True) if place else Errors(logic=True)
    return Outcome(house=house, observation=f"No: {reason}", errors=errors)


def _go(house: House, room: str) -> Outcome:
    if room not in house.rooms:
        return _no(house, f"no {room} in this house", place=True)
    if room == house.room:
        return _no(house, f"already in {room}")
    moved = replace(house, room=room)
    if house.held == house.goal.item and room == house.boxes[house.goal.box] and _ready(house):
        moved = replace(moved, reached=moved.reached | {"carried"})
    return Outcome(house=moved, observation=moved.here())


def _ready(house: House) -> bool:
    return not house.goal.treat or (house.goal.item, house.goal.treat) in house.treated


def _open(house: House, box: str) -> Outcome:
    if house.boxes.get(box) != house.room:
        return _no(house, f"{box} not here", place=True)
    if box not in house.shut:
        return _no(house, f"{box} open")
    return Outcome(house=replace(house, shut=house.shut - {box}), observation=f"{box} open")


def _close(house: House, box: str) -> Outcome:
    if house.boxes.get(box) != house.room:
        return _no(house, f"{box} not here", place=True)
    if box in house.shut:
        return _no(house, f"{box} shut")
    return Outcome(house=replace(house, shut=house.shut | {box}), observation=f"{box} shut")


def _take(house: House, item: str, box: str) -> Outcome:
    if house.boxes.get(box) != house.room:
        return _no(house, f"{box} not here", place=True)
    if box in house.shut:
        return _no(house, f"{box} shut")
    if house.items.get(item) != box:
        return _no(house, f"no {item} in {box}")
    if house.held:
        return _no(house, f"{house.held} in hand")
    items = {name: where for name, where in house.items.items() if name != item}
    taken = replace(house, items=items, held=item)
    if item == house.goal.item:
        taken = replace(taken, reached=taken.reached | {"taken"})
    return Outcome(house=taken, observation=f"{item} in hand")


def _put(house: House, item: str, box: str) -> Outcome:
    if house.boxes.get(box) != house.room:
        return _no(house, f"{box} not here", place=True)
    if box in house.shut:
        return _no(house, f"{box} shut")
    if house.held != item:
        return _no(house, f"{item} not in hand")
    there = replace(house, items={**house.items, item: box}, held="")
    return Outcome(house=there, observation="Done" if there.done else f"{item} in {box}")


def _treat(kind: str, house: House, item: str, tool: str) -> Outcome:
    if house.tools.get(tool) != house.room:
        return _no(house, f"{tool} not here", place=True)
    if TOOLS[kind] != tool:
        return _no(house, f"{tool} can't {kind}")
    if house.held != item:
        return _no(house, f"{item} not in hand")
    after = replace(house, treated=house.treated | {(item, kind)})
    if item == house.goal.item and kind == house.goal.treat:
        after = replace(after, reached=after.reached | {"treated"})
    return Outcome(house=after, observation=f"{item} {TREATED[kind]}")


def _wash(house: House, item: str, tool: str) -> Outcome:
    return _treat("wash", house, item, tool)


def _heat(house: House, item: str, tool: str) -> Outcome:
    return _treat("heat", house, item, tool)


def _look(house: House) -> Outcome:
    return Outcome(house=house, observation=house.here())


def _bag(house: House) -> Outcome:
    return Outcome(house=house, observation=f"in hand: {house.held or 'nothing'}")


_DO: Final[Mapping[str, Callable[..., Outcome]]] = {
    "go": _go, "open": _open, "close": _close, "take": _take, "put": _put, "wash": _wash, "heat": _heat,
    "look": _look, "bag": _bag,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How large houses are: what ``draw_house`` draws from."""

    rooms: int = 3
    """Rooms, 2 to 6."""
    boxes: int = 3
    """Boxes, 2 to 6."""
    items: int = 2
    """Things, 1 to 6."""
    treats: float = 0.5
    """Share of the goals that want a thing washed or heated."""
    shut: float = 0.4
    """Share of the boxes that are shut at first."""
    choice: int = 6
    """Names of each kind that are drawn from."""


def draw_house(draw: random.Random, names: Names = CANONICAL, plan: Plan | None = None) -> House:
    """A house at random; a tool stands in it where the goal needs one."""
    plan = plan or Plan()
    some = plan.choice
    rooms, boxes = draw.sample(ROOMS[:some], plan.rooms), draw.sample(BOXES[:some], plan.boxes)
    treat = draw.choice(tuple(TOOLS)) if draw.random() < plan.treats else ""
    where = {box: rooms[at % len(rooms)] for at, box in enumerate(boxes)}
    items = draw.sample(ITEMS[:some], plan.items)
    source, target = draw.sample(boxes, 2)
    lies = {item: draw.choice(boxes) for item in items[1:]} | {items[0]: source}
    return House(
        goal=Goal(item=items[0], box=target, treat=treat),
        room=draw.choice(rooms),
        boxes=dict(_shuffled(draw, where)),
        tools={TOOLS[treat]: draw.choice(rooms)} if treat else {},
        items=dict(_shuffled(draw, lies)),
        shut=frozenset(box for box in boxes if draw.random() < plan.shut),
        names=names,
    )


def _shuffled(draw: random.Random, given: dict[str, str]) -> list[tuple[str, str]]:
    pairs = list(given.items())
    draw.shuffle(pairs)
    return pairs
