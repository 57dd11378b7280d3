"""What actions are called in the scripted world. Names differ, what they do is the same.

``CANONICAL`` are the world's own names, with which it's trained by default. ``VARIED``: names among which
each episode draws when training varies them. ``HELD_OUT`` names are never trained.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Final

Names = Mapping[str, str]
"""Kind of action -> template."""

CANONICAL: Final[Names] = {
    "go": "go to {room}",
    "open": "open {box}",
    "close": "shut {box}",
    "take": "take {item} from {box}",
    "put": "put {item} in {box}",
    "wash": "wash {item} with {tool}",
    "heat": "heat {item} with {tool}",
    "look": "look",
    "bag": "bag",
}
VARIED: Final[Mapping[str, tuple[str, ...]]] = {
    "go": ("go to {room}", "walk to {room}", "enter {room}"),
    "open": ("open {box}", "unlock {box}", "lift lid of {box}"),
    "close": ("shut {box}", "close {box}"),
    "take": ("take {item} from {box}", "get {item} out of {box}", "pick {item} from {box}"),
    "put": ("put {item} in {box}", "place {item} into {box}", "leave {item} in {box}"),
    "wash": ("wash {item} with {tool}", "clean {item} at {tool}"),
    "heat": ("heat {item} with {tool}", "bake {item} at {tool}"),
    "look": ("look", "look around"),
    "bag": ("bag", "inventory"),
}
HELD_OUT: Final[Names] = {
    "go": "head for {room}",
    "open": "unseal {box}",
    "close": "seal {box}",
    "take": "fetch {item} off {box}",
    "put": "drop {item} into {box}",
    "wash": "rinse {item} under {tool}",
    "heat": "warm {item} on {tool}",
    "look": "scan",
    "bag": "pockets",
}

ROOMS: Final = ("den 1", "hall 1", "attic 1", "yard 1", "loft 1", "barn 1")
BOXES: Final = ("box 1", "bin 1", "chest 1", "desk 1", "rack 1", "box 2")
ITEMS: Final = ("cup 1", "pen 1", "key 1", "pan 1", "map 1", "cup 2")
TOOLS: Final[Mapping[str, str]] = {"wash": "sink 1", "heat": "oven 1"}
"""Treatment -> the tool that does it."""
VALUES: Final[Mapping[str, tuple[str, ...]]] = {
    "room": ROOMS, "box": BOXES, "item": ITEMS, "tool": tuple(TOOLS.values()),
}  # fmt: skip
"""Parameter -> the values that scripts declare."""


def drawn(draw: random.Random) -> Names:
    """One of the varied names for each kind of action."""
    return {kind: draw.choice(choices) for kind, choices in VARIED.items()}
