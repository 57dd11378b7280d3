"""Scripts and trajectories: what a game master sets up, and what was played. Read from and written as the
JSON that the paper's figure shows.

A trajectory's turns are numbered from 1. Odd turns are the player's (thought, action), even ones the game
master's (thought, observation, three error flags); the flags of turn 2k + 2 are about the action of turn
2k + 1. That a game master's turn may say ``goal_completed`` is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from llmfw import LlmfwError

FLAGS: Final = ("parameter_error", "place_error", "logic_error")
PLAYER, MASTER = "Player", "DM"
PLAYER_KEYS: Final = ("turn", "role", "Thought", "Action")
MASTER_KEYS: Final = ("turn", "role", "Thought", "Observation", *FLAGS)


class TrajectoryError(LlmfwError):
    """A script or trajectory that can't be used (exit code 3)."""

    exit_code = 3


class EnvironmentProblem(LlmfwError):
    """An environment that can't be built or asked (exit code 2)."""

    exit_code = 2


@dataclass(frozen=True, kw_only=True)
class Errors:
    """What was wrong with an action: its arguments, where it was done, or when."""

    parameter: bool = False
    place: bool = False
    logic: bool = False

    @property
    def any(self) -> bool:
        """Whether the action was wrong at all."""
        return self.parameter or self.place or self.logic


@dataclass(frozen=True, kw_only=True)
class Action:
    """One entry of a script's actions: the regular expression that an action has to match, and the values
    that each of its parameters may have.
    """

    regex: str
    parameters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Script:
    """What a game master sets up: places and things, a goal, when it's reached, and the actions that there
    are, by template (``take {item} from {box}``).
    """

    goal: str
    actions: Mapping[str, Action]
    environment: Mapping[str, Any] = field(default_factory=dict)
    completion: tuple[str, ...] = ()
    persona: str = ""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One turn; ``text`` is the player's action or the game master's observation."""

    number: int
    thought: str
    text: str
    errors: Errors = field(default_factory=Errors)
    """Of a game master's turn: about the action before it."""
    completed: bool = False
    """Of a game master's turn: the goal is reached."""
    plain: str = ""
    """Of a player's turn that repairs an error: the thought that it would have had without it, if known."""

    @property
    def player(self) -> bool:
        """Whether the player says it."""
        return self.number % 2 == 1


def script_of(told: Any) -> Script:
    """A script from its JSON.

    Raises:
        TrajectoryError: a key is missing or of another type.
    """
    goal = _need(told, "Goal", str, "script")
    actions = _need(told, "Available Actions", dict, "script")
    if not actions:
        raise _bad("a script's Available Actions are empty", "name at least one action")
    found: dict[str, Action] = {}
    for template, about in actions.items():
        where = f"action {template!r}"
        parameters = about.get("parameters", {}) if isinstance(about, Mapping) else {}
        if not isinstance(parameters, Mapping):
            raise _bad(f"{where}: parameters is no object", "give each parameter a list of values")
        values: dict[str, tuple[str, ...]] = {}
        for name, these in parameters.items():
            if not isinstance(these, list) or not these or not all(isinstance(one, str) for one in these):
                raise _bad(
                    f"{where}: parameter {name!r} has no list of values", "list the values it may have"
                )
            values[str(name)] = tuple(these)
        found[template] = Action(regex=_need(about, "verification code", str, where), parameters=values)
    completion = told.get("Completion Conditions", [])
    return Script(
        goal=goal,
        actions=found,
        environment=_need(told, "Environment", dict, "script"),
        completion=tuple(map(str, completion if isinstance(completion, list) else [completion])),
        persona=str(told.get("Persona", "")),
    )


def script_json(script: Script) -> dict[str, Any]:
    """The script as the JSON that ``script_of`` reads."""
    return {
        "Persona": script.persona,
        "Environment": dict(script.environment),
        "Goal": script.goal,
        "Completion Conditions": list(script.completion),
        "Available Actions": {
            template: {
                "verification code": action.regex,
                "parameters": {name: list(values) for name, values in action.parameters.items()},
            }
            for template, action in script.actions.items()
        },
    }


def turn_of(told: Any, number: int) -> Turn:
    """Turn ``number`` from its JSON.

    Raises:
        TrajectoryError: a key is missing or of another type, or it's another's turn.
    """
    player = number % 2 == 1
    where = f"turn {number}"
    for key in PLAYER_KEYS if player else MASTER_KEYS:
        _need(told, key, {"turn": int, **dict.fromkeys(FLAGS, bool)}.get(key, str), where)
    if told["turn"] != number or told["role"] != (PLAYER if player else MASTER):
        raise _bad(
            f"{where} calls itself turn {told['turn']} of {told['role']}",
            f"number turns from 1; odd ones are {PLAYER}'s, even ones {MASTER}'s",
        )
    if player:
        return Turn(
            number=number, thought=told["Thought"], text=told["Action"], plain=str(told.get("plain", ""))
        )
    parameter, place, logic = (told[name] for name in FLAGS)
    return Turn(
        number=number,
        thought=told["Thought"],
        text=told["Observation"],
        errors=Errors(parameter=parameter, place=place, logic=logic),
        completed=told.get("goal_completed") is True,
    )


def turn_json(turn: Turn) -> dict[str, Any]:
    """The turn as the JSON that ``turn_of`` reads."""
    if turn.player:
        said = {"turn": turn.number, "role": PLAYER, "Thought": turn.thought, "Action": turn.text}
        return {**said, "plain": turn.plain} if turn.plain else said
    flags = dict(zip(FLAGS, (turn.errors.parameter, turn.errors.place, turn.errors.logic)))
    said = {"turn": turn.number, "role": MASTER, "Thought": turn.thought, "Observation": turn.text, **flags}
    return {**said, "goal_completed": True} if turn.completed else said


def flags_of(turns: Sequence[Turn]) -> list[bool]:
    """For each player's turn whether the game master's turn behind it has an error flag.

    Raises:
        TrajectoryError: the last turn is the player's, so that nobody has judged it.
    """
    if len(turns) % 2:
        raise _bad(
            f"turn {len(turns)} is the player's and nobody answers it", "end with the game master's turn"
        )
    return [master.errors.any for master in turns[1::2]]


def _need(told: Any, key: str, kind: type, where: str) -> Any:
    if not isinstance(told, Mapping):
        raise _bad(f"{where} is no object", "write it as a JSON object")
    value: Any = told.get(key)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise _bad(f"{where} has no {key!r} of type {kind.__name__}", "add it")
    if (
        isinstance(value, str)
        and key in ("Action", "Observation", "Goal", "verification code")
        and not value.strip()
    ):
        raise _bad(f"{where}: {key!r} is empty", "fill it")
    return value


def _bad(what: str, mend: str) -> TrajectoryError:
    return TrajectoryError("TRAJECTORY", what, mend=mend)
