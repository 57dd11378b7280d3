"""``${other.key}`` in values: one setting may repeat another; the environment and code are out of reach."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llmfw.core.errors import UsageError
from llmfw.core.settings.keys import Leaf, Section, find
from llmfw.core.settings.layers import Path_, Setting, error_at, nest
from llmfw.core.settings.suggest import near_keys
from llmfw.core.settings.values import WrongValue, fit

_INTERPOLATION = re.compile(r"(?P<slashes>\\*)\$\{(?P<inside>[^}]*)(?P<end>\}?)")
_KEY = re.compile(r"\.*[\w-]+(\.[\w-]+)*")


def resolve(root: Section, merged: Mapping[Path_, Setting]) -> dict[str, Any]:
    """The nested values with each ``${key}`` replaced by that setting's value, and each ``\\${`` by ``${``.

    Raises:
        UsageError: a resolver (``${oc.env:HOME}``), an unknown key, a circle, or a value of another type.
    """
    tree = nest((path, setting.value) for path, setting in merged.items())
    marked = [(path, setting) for path, setting in merged.items() if any(texts(setting.value))]
    if not marked:
        return tree
    for path, setting in marked:
        for text in texts(setting.value):
            for match in _INTERPOLATION.finditer(text):
                if len(match["slashes"]) % 2 == 0:
                    _check(root, path, setting, match)
    replaced = _replace(tree, merged)
    for path, setting in marked:
        node = find(root, path)
        if isinstance(node, Leaf):
            try:
                at(replaced, path[:-1])[path[-1]] = fit(node, at(replaced, path), ".".join(path), None)
            except WrongValue as wrong:
                raise error_at(setting.origin, wrong) from None
    return replaced


def _replace(tree: dict[str, Any], merged: Mapping[Path_, Setting]) -> dict[str, Any]:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        found = OmegaConf.to_container(OmegaConf.create(tree), resolve=True)
    except (OmegaConfBaseException, RecursionError) as error:
        key = str(getattr(error, "full_key", None) or "")
        setting = merged.get(tuple(key.split(".")))
        file, line = (setting.origin.file, setting.origin.line) if setting else (None, None)
        what = str(error).split("\n")[0]
        if isinstance(error, RecursionError) or "ecursi" in what:
            what = "the interpolation leads back to itself"
        mend = "refer to a key that has a value of its own"
        raise UsageError(
            "CONFIG-INTERPOLATION", what, mend=mend, key=key or None, file=file, line=line
        ) from error
    assert isinstance(found, dict)
    return {str(name): value for name, value in found.items()}


def _check(root: Section, path: Path_, setting: Setting, match: re.Match[str]) -> None:
    inside = match["inside"]
    if match["end"] and _KEY.fullmatch(inside):
        if inside.startswith(".") or find(root, inside.split(".")) is not None:
            return
        what = f"there is no setting {inside}"
        near = near_keys(root, inside)
        mend = f"did you mean {' or '.join(near)}?" if near else "llmfw config --keys lists the settings"
    elif ":" in inside:
        what = f"{match[0]} isn't allowed: settings read neither the environment nor code"
        mend = "write the value itself, or \\${ for these characters"
    else:
        what = f"{match[0]} isn't allowed: only another setting can be referred to, as in ${{optimizer.lr}}"
        mend = "write the value itself, or \\${ for these characters"
    raise UsageError(
        "CONFIG-INTERPOLATION", what, mend=mend,
        file=setting.origin.file, line=setting.origin.line, key=".".join(path),
    )  # fmt: skip


def texts(value: Any) -> Iterator[str]:
    """Every text in a value that holds ``${``."""
    if isinstance(value, str):
        if "${" in value:
            yield value
    elif isinstance(value, (list, Mapping)):
        for part in value if isinstance(value, list) else value.values():
            yield from texts(part)


def escape(value: Any) -> Any:
    """Resolved values as a file holds them: a ``${`` that is meant as such becomes ``\\${``."""
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", lambda match: f"{match[1] * 2}\\${{", value)
    if isinstance(value, Mapping):
        return {name: escape(part) for name, part in value.items()}
    return [escape(part) for part in value] if isinstance(value, list) else value


def at(tree: Any, path: Sequence[str]) -> Any:
    """The value at a path of nested mappings."""
    for part in path:
        tree = tree[part]
    return tree
