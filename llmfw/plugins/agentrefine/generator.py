"""Scripts and trajectories that a model writes, in rounds of attempts that go on from what holds.

One call plays both sides: the player, and the game master who answers and flags what was wrong. Every attempt
is kept with its fault, so that acceptance can be looked at.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llmfw import Row
from llmfw.core.data import content_hash

from .actions import faults
from .dialogue import instruction_for, to_chat
from .records import (
    FLAGS,
    MASTER_KEYS,
    PLAYER_KEYS,
    Script,
    TrajectoryError,
    Turn,
    script_json,
    script_of,
    turn_json,
)
from .verify import FAULTS, Fault, next_prefix, read_turns, verify

if TYPE_CHECKING:
    from .plugin import AgentRefine

Attempt = dict[str, Any]
"""A row of the table of attempts: script, attempt, what was written, fault ("" for none), turns that hold."""
_TEMPERATURE: Final = 1.0
_EXAMPLE: Final = {
    "Environment": {"hall": {"box 1": ["cup 1"]}, "den": {"rack 1": []}},
    "Goal": "the cup 1 stands in rack 1",
    "Completion Conditions": ["rack 1 holds cup 1"],
    "Available Actions": {
        "take {item} from {place}": {
            "verification code": "take (?P<item>cup 1) from (?P<place>box 1|rack 1)",
            "parameters": {"item": ["cup 1"], "place": ["box 1", "rack 1"]},
        }
    },
}


def script_prompt(persona: str, wrong: Sequence[str] = ()) -> str:
    """What a model is asked for a script; ``wrong``: faults of its last one."""
    again = "".join(f"\n- {fault}" for fault in wrong)
    return (
        f"Set up a text game for this persona: {persona}\n"
        "Write one JSON object in the form of this example, with several places, things that the goal "
        f"doesn't need, and 4 to 12 actions:\n{json.dumps(_EXAMPLE)}\n"
        "Each action's verification code is a regular expression that matches the action for every value of "
        "its parameters, and no other action."
        + (f"\nYour last script had these faults; mend them:{again}" if again else "")
    )


def trajectory_prompt(script: Script, prefix: Sequence[Turn], least: int, wrong: str = "") -> str:
    """What a model is asked for a trajectory, or for the rest of one."""
    told = json.dumps([turn_json(turn) for turn in prefix])
    return (
        f"Play this text game, both the player and the DM:\n{json.dumps(script_json(script))}\n"
        "Write a JSON list of turns, numbered from 1; odd turns are the Player's "
        f"({', '.join(PLAYER_KEYS)}), even ones the DM's ({', '.join(MASTER_KEYS)}). The flags "
        f"{', '.join(FLAGS)} are true or false and about the action just before. Let the player make at "
        f"least {least} mistakes, see from the observation what was wrong, and put each right with its next "
        "action. "
        'The last turn is the DM\'s; in it the goal is reached: "goal_completed": true.\n'
        f"The turns so far are right: {told}\nGo on with turn {len(prefix) + 1}; write further turns only."
        + (f"\nWhat was wrong with your last try: {wrong}" if wrong else "")
    )


@dataclass
class Story:
    """One script on its way to a trajectory."""

    name: str
    script: Script
    turns: tuple[Turn, ...] = ()
    fault: Fault | None = "json"
    about: str = ""
    attempts: list[Attempt] = field(default_factory=list)


def scripts_written(
    ledger: Any, policy: Any, personas: Sequence[str], *, attempts: int, seed: int
) -> tuple[list[tuple[str, Script]], list[Attempt]]:
    """(id, script) of each persona whose script came out whole, and all attempts.

    A script is asked for again, with what is wrong with it, until each of its actions matches its own
    expression alone.
    """
    open_ones = {f"persona-{at}": (persona, list[str]()) for at, persona in enumerate(personas)}
    done: dict[str, Script] = {}
    table: list[Attempt] = []
    for attempt in range(attempts):
        if not open_ones:
            break
        answers = ledger.generate(
            policy,
            [script_prompt(persona, wrong) for persona, wrong in open_ones.values()],
            purpose="script",
            temperature=_TEMPERATURE,
            seed=seed,
            ids=[f"script/{name}/{attempt}" for name in open_ones],
        )
        for (name, (persona, _)), answer in zip(list(open_ones.items()), answers, strict=True):
            script, wrong = read_script(answer.text, persona)
            table.append(
                {"script": name, "stage": "script", "attempt": attempt, "fault": "script" if wrong else "",
                 "about": "; ".join(wrong), "turns": 0, "text": answer.text}
            )  # fmt: skip
            if script is None or wrong:
                open_ones[name] = (persona, wrong)
            else:
                done[name] = script
                del open_ones[name]
    return sorted(done.items()), table


def read_script(text: str, persona: str) -> tuple[Script | None, list[str]]:
    """(the script in a model's answer, what is wrong with it)."""
    start, stop = text.find("{"), text.rfind("}")
    try:
        script = script_of({**json.loads(text[start : stop + 1]), "Persona": persona})
    except (ValueError, RecursionError):
        return None, ["the answer holds no JSON object"]
    except TrajectoryError as error:
        return None, [error.what]
    return script, faults(script)


def trajectories_written(
    ledger: Any,
    policy: Any,
    scripts: Sequence[tuple[str, Script]],
    *,
    attempts: int,
    least: int,
    seed: int,
) -> list[Story]:
    """A trajectory for each script in at most ``attempts`` attempts; each goes on from what holds."""
    stories = [Story(name, script) for name, script in scripts]
    for attempt in range(attempts):
        left = [story for story in stories if story.fault is not None]
        if not left:
            break
        answers = ledger.generate(
            policy,
            [trajectory_prompt(story.script, story.turns, least, story.about) for story in left],
            purpose="trajectory",
            temperature=_TEMPERATURE,
            seed=seed,
            ids=[f"trajectory/{story.name}/{attempt}" for story in left],
        )
        for story, answer in zip(left, answers, strict=True):
            found = verify(story.script, read_turns(answer.text), story.turns, least=least)
            story.fault, story.about = found.fault, found.about
            story.turns = found.turns if found.accepted else next_prefix(found)
            story.attempts.append(
                {"script": story.name, "stage": "trajectory", "attempt": attempt,
                 "fault": found.fault or "", "about": found.about, "turns": len(found.turns),
                 "text": answer.text}
            )  # fmt: skip
    return stories


def written(
    config: AgentRefine.Config, run: Any, rows: Sequence[Row], ledger: Any
) -> tuple[list[Row], dict[str, float], dict[str, list[Attempt]]]:
    """(rows of the accepted trajectories, numbers, the table of attempts).

    Numbers: ``written/accepted``, share of the scripts with a trajectory; ``written/attempts`` per script;
    ``written/fault/NAME``, share of the attempts; ``written/duplicates``, scripts with the goal and the
    actions of an earlier one, left out.

    Raises:
        TrajectoryError: no script, or no accepted trajectory.
    """
    policy, table = run.policy(config.generator), list[Attempt]()
    if config.personas:
        personas = read_personas(config.personas)
        scripts, table = scripts_written(
            ledger, policy, personas, attempts=config.attempts, seed=run.seed
        )  # fmt: skip
    else:
        scripts = scripts_of(rows)
    different = without_doubles(scripts)
    stories = trajectories_written(
        ledger, policy, different, attempts=config.attempts, least=config.least_errors, seed=run.seed
    )
    tries = [attempt for story in stories for attempt in story.attempts]
    good = [story for story in stories if story.fault is None]
    counted = Counter(attempt["fault"] for attempt in tries)
    if not good:
        told = ", ".join(f"{fault or 'none'}: {count}" for fault, count in counted.most_common())
        raise TrajectoryError(
            "NOTHING-ACCEPTED",
            f"of {len(different)} scripts none came to a trajectory that holds "
            f"(faults: {told or 'no attempt'})",
            mend="take a better model for models." + config.generator + ", or raise agentrefine.attempts",
            key="agentrefine.generator",
        )
    made = [
        to_chat(f"written-{story.name}", instruction_for(story.script), story.turns, source="model",
                script=story.name)
        for story in good
    ]  # fmt: skip
    notes = {
        "written/accepted": len(good) / len(different),
        "written/attempts": len(tries) / len(different),
        "written/duplicates": float(len(scripts) - len(different)),
        **{f"written/fault/{fault}": counted[fault] / len(tries) for fault in FAULTS},
    }
    return made, notes, {"attempts": [*table, *tries]}


def read_personas(file: str) -> list[str]:
    """The lines of a file that aren't empty.

    Raises:
        TrajectoryError: there's no such file, or nothing in it.
    """
    try:
        lines = [line.strip() for line in Path(file).read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise TrajectoryError(
            "PERSONAS", f"the personas can't be read ({error})", mend="name a text file, a persona a line",
            file=file, key="agentrefine.personas",
        ) from None  # fmt: skip
    found = [line for line in lines if line]
    if not found:
        raise TrajectoryError(
            "PERSONAS", "there is no persona in the file", mend="write one a line", file=file,
            key="agentrefine.personas",
        )  # fmt: skip
    return found


def scripts_of(rows: Sequence[Row]) -> list[tuple[str, Script]]:
    """The scripts that rows carry under ``script``.

    Raises:
        TrajectoryError: a row has none, or one that doesn't hold.
    """
    found = []
    for row in rows:
        if "script" not in row:
            raise TrajectoryError(
                "NO-SCRIPT", f"row {row.get('id')} has no script for a generator",
                mend="give rows with a script, or name a file with agentrefine.personas",
                key="agentrefine.generator",
            )  # fmt: skip
        script = script_of(row["script"])
        wrong = faults(script)
        if wrong:
            raise TrajectoryError(
                "SCRIPT", f"row {row.get('id')}: {wrong[0]}", mend="mend the script's actions", key="script"
            )
        found.append((str(row["id"]), script))
    return found


def without_doubles(scripts: Sequence[tuple[str, Script]]) -> list[tuple[str, Script]]:
    """The scripts without those that have the goal, the places and the actions of an earlier one."""
    seen: set[str] = set()
    kept = []
    for name, script in scripts:
        key = content_hash({**script_json(script), "Persona": ""})
        if key not in seen:
            seen.add(key)
            kept.append((name, script))
    return kept
