"""A well-behaved toy plugin of each kind, and mutants of them: each breaks what one text of it says.

The sources lie in ``tests/testing/toys/KIND/``; the READMEs are written from their settings. A mutant is the
toy with some texts replaced, under the same name (``base_KIND``), in a folder of its own:

    def test_the_law_is_broken(tmp_path):
        assert_only("sorted-once", tmp_path, "transform", functional=("index)", "-index)"), match="sort by")
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from llmfw.testing.check import Outcome, check_plugin
from llmfw.testing.distributions import installed, write_plugin
from llmfw.testing.laws import KINDS as KINDS
from llmfw.testing.laws import laws

SOURCES = Path(__file__).parent / "toys"
Change = tuple[str, str]
"""(text that stands in the file, what stands there instead)."""

_README = """\
# {name}

## Idea
{summary}

## What it does
See the docstrings: it is a toy.

## Use
```
llmfw {verb} --plugin {name}{prompt}
llmfw plugins show {name}
```

## Settings
| key | default | meaning |
|---|---|---|
{settings}

## Neutral setting
{neutral}

## Measured here
Nothing.

## Deviations from the paper
There is no paper.
"""


def texts(kind: str) -> dict[str, str]:
    """File name -> text of the toy of a kind, its README included."""
    found = {path.name: path.read_text(encoding="utf-8") for path in sorted((SOURCES / kind).glob("*.*"))}
    return {"README.md": _readme(found), **found}


def _readme(found: dict[str, str]) -> str:
    import tomllib

    card = tomllib.loads(found["card.toml"])
    settings = re.findall(
        r"^        (\w+): \w+ = field\(\s*default=([^,]+),\s*metadata=\{\s*\"help\": \"([^\"]*)\"",
        found["plugin.py"],
        re.MULTILINE,
    )
    neutral = card.get("neutral", {})
    values = " ".join(f"`{card['name']}.{key}={value}`" for key, value in neutral.get("settings", {}).items())
    trains = "fit" in card["verbs"] and "service" not in card["kinds"]
    return _README.format(
        name=card["name"],
        summary=card["summary"],
        verb="fit" if trains else "generate",
        prompt="" if trains else ' model=tiny-llama --prompt "Hello there"',
        settings="\n".join(
            f"| `{card['name']}.{key}` | {default} | {help} |" for key, default, help in settings
        ),
        neutral=f"{values} is {neutral['baseline']}." if values else "None: it is no method.",
    )


def mutant(site: Path, kind: str, **changes: Change | Sequence[Change] | str | None) -> str:
    """Write the toy of a kind, changed, into the folder ``site``; gives the plugin's name.

    ``changes``: a file by its stem (``plugin``, ``card``, ``README``, ``config``, ``functional`` ...) -> one
    replacement (old, new) or several; a whole text; or None to leave the file out. An old text that isn't
    there is an error: the mutant would be the toy itself.
    """
    found = texts(kind)
    for stem, change in changes.items():
        name = next((file for file in found if file.partition(".")[0] == stem), f"{stem}.py")
        if change is None:
            del found[name]
        elif isinstance(change, str):
            found[name] = change
        else:
            pairs = [change] if isinstance(change[0], str) else list(change)
            for old, new in pairs:
                assert old in found[name], f"{name} of the toy {kind!r} has no {old!r}"
                found[name] = found[name].replace(old, new)
    files = {name: text for name, text in found.items() if name not in ("plugin.py", "card.toml")}
    write_plugin(site, f"base_{kind}", found["plugin.py"], card=found.get("card.toml"), files=files)
    return f"base_{kind}"


def outcomes(site: Path, name: str, *, only: Sequence[str] = ()) -> dict[str, Outcome]:
    """What the kit says of a plugin of ``site``, by law; ``only``: these laws alone."""
    with installed(site):
        return {outcome.law: outcome for outcome in check_plugin(name, only=only)}


def assert_only(
    law: str, site: Path, kind: str, *, match: str, **changes: Change | Sequence[Change] | str | None
) -> None:
    """The changed toy breaks this law, and of all laws of its kind only this one; ``match`` is searched for
    in the message (a regular expression).

    Two processes take as long as all other laws together: ``two-ranks`` is asked about its own mutants alone.
    """
    asked = [one.id for one in laws() if law == one.id or one.id != "two-ranks"]
    found = outcomes(site, mutant(site, kind, **changes), only=asked)
    failed = {outcome.law: outcome.message for outcome in found.values() if not outcome.good}
    assert set(failed) == {law}, failed or f"no law was broken; {law} was {found.get(law)}"
    assert re.search(match, failed[law]), failed[law]


def assert_broken(
    law: str, site: Path, kind: str, *, match: str, **changes: Change | Sequence[Change] | str | None
) -> None:
    """The changed toy breaks this law; the others aren't asked. For a further way to break a law that has a
    mutant of its own.
    """
    found = outcomes(site, mutant(site, kind, **changes), only=[law])[law]
    assert found.status == "failed" and re.search(match, found.message), found
