"""Actions against the templates of a script: which one an action is, and whether a script's own regular
expressions fit its templates.

A script may come from a model, so its expressions are strangers' (``expressions``); an action longer than
``LONGEST`` matches none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from .expressions import LONGEST, compiled
from .records import Action, Script, TrajectoryError

_SLOT: Final = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Matched:
    """The template that an action has, and its arguments by parameter."""

    template: str
    arguments: Mapping[str, str]


def slots(template: str) -> tuple[str, ...]:
    """The parameters that a template names, in order."""
    return tuple(_SLOT.findall(template))


def regex_for(template: str) -> str:
    """An expression that the template's own actions match: a group per parameter, of any words."""
    parts = _SLOT.split(template)
    return "".join(
        re.escape(part) if at % 2 == 0 else f"(?P<{part}>[A-Za-z0-9 ]+?)" for at, part in enumerate(parts)
    )


def filled(template: str, arguments: Mapping[str, str]) -> str:
    """The action that a template and its arguments make."""
    return _SLOT.sub(lambda slot: arguments[slot[1]], template)


def match(action: str, script: Script) -> list[Matched]:
    """The templates whose expression the whole action matches, and whose declared values it keeps to."""
    return [found for found in parsed(action, script.actions) if declared(found, script.actions)]


def parsed(action: str, actions: Mapping[str, Action]) -> list[Matched]:
    """The templates whose expression the whole action matches, whatever its arguments."""
    if len(action) > LONGEST:
        return []
    found = []
    for template, about in actions.items():
        hit = compiled(about.regex).fullmatch(action)
        if hit is not None:
            found.append(Matched(template, _arguments(hit, template, about)))
    return found


def declared(found: Matched, actions: Mapping[str, Action]) -> bool:
    """Whether all arguments are among the values that the actions declare."""
    values = actions[found.template].parameters
    return all(argument in values.get(name, (argument,)) for name, argument in found.arguments.items())


def _arguments(hit: re.Match[str], template: str, about: Action) -> dict[str, str]:
    """Arguments by name: named groups, else groups in the order of the template's parameters."""
    named = {name: value for name, value in hit.groupdict().items() if value is not None}
    if named:
        return named
    return {name: value for name, value in zip(slots(template), hit.groups()) if value is not None}


def faults(script: Script) -> list[str]:
    """What is wrong with a script's actions; [] where each template, filled with each declared value, matches
    its own expression and no other's. Each in words that a writer of scripts can act upon.
    """
    found: list[str] = []
    for template, about in script.actions.items():
        missing = [name for name in slots(template) if name not in about.parameters]
        unused = [name for name in about.parameters if name not in slots(template)]
        if missing or unused:
            names = ", ".join(missing or unused)
            found.append(f"{template!r}: {names} {'has no values' if missing else 'is no parameter of it'}")
            continue
        try:
            compiled(about.regex)
        except TrajectoryError as error:
            found.append(f"{template!r}: {error.what}")
    if found:
        return found
    for template in script.actions:
        for action in every(template, script.actions[template]):
            hits = [one.template for one in match(action, script)]
            if hits != [template]:
                others = ", ".join(repr(one) for one in hits if one != template)
                found.append(
                    f"{action!r} doesn't match the verification code of {template!r}"
                    if template not in hits
                    else f"{action!r} of {template!r} matches {others}, too"
                )
                break
    return found


def every(template: str, about: Action) -> Iterator[str]:
    """The template filled with each declared value of each parameter, the others at their first."""
    first = {name: values[0] for name, values in about.parameters.items()}
    yield filled(template, first)
    for name, values in about.parameters.items():
        for value in values[1:]:
            yield filled(template, {**first, name: value})
