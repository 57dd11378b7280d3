"""The lock holds what the tested tree needs, at constraints.txt's versions, each package with its hashes."""

from __future__ import annotations

import re
from importlib.metadata import requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.architecture.conftest import ROOT


def pins(name: str) -> dict[str, str]:
    """package -> version, from a file of ``package==version`` lines."""
    lines = (ROOT / name).read_text().splitlines()
    return dict(found.groups() for line in lines if (found := re.match(r"([a-z0-9-]+)==([^\s;]+)", line)))


def needed() -> dict[str, list[Requirement]]:
    """package -> what asks for it: the project with its extras test and docs, and in turn what those need."""
    waiting = [Requirement("llmfw[test,docs]")]
    found: dict[str, list[Requirement]] = {}
    done: set[tuple[str, str]] = set()
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        found.setdefault(name, []).append(wanted)
        for extra in {"", *wanted.extras}:
            if (name, extra) not in done:
                done.add((name, extra))
                more = map(Requirement, requires(name) or [])
                waiting += [one for one in more if not one.marker or one.marker.evaluate({"extra": extra})]
    del found["llmfw"]
    return found


def test_everything_that_the_tested_tree_needs_is_locked_at_a_version_that_satisfies_it():
    """The lock is installed with ``--no-deps``; extra sandbox's six packages were once missing from it."""
    locked = pins("requirements.lock")
    missing = {
        str(one)
        for name, asked in needed().items()
        for one in asked
        if name not in locked or not one.specifier.contains(locked[name], prereleases=True)
    }
    assert missing == set()


def test_the_lock_and_the_constraints_name_the_same_versions():
    constraints, locked = pins("constraints.txt"), pins("requirements.lock")
    assert {name: constraints.get(name) for name in locked} == locked


def test_every_locked_package_has_a_hash():
    text = (ROOT / "requirements.lock").read_text()
    blocks = re.split(r"\n(?=[a-z0-9-]+==)", text)[1:]
    assert len(blocks) == len(pins("requirements.lock"))
    assert [block for block in blocks if "--hash=sha256:" not in block] == []
