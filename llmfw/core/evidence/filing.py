"""Puts what a run of claims found into the plugin's evidence.json, where it may stand."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmfw.core.errors import LlmfwError, UsageError
from llmfw.core.evidence.definition import define
from llmfw.core.evidence.document import read_evidence, settle
from llmfw.core.evidence.git import Tree, tree_of
from llmfw.core.evidence.marks import FILE
from llmfw.core.evidence.pages import write_section
from llmfw.core.evidence.schedule import counted
from llmfw.core.evidence.stated import Stated, told
from llmfw.core.evidence.verdict import by_number
from llmfw.core.tracking.files import write_json

MEANING = ("statement", "metric", "kind", "direction", "effect", "items")
"""Fields of a claim that decide whether older values still answer it."""


def check_place(stated: Stated, size: str | None) -> Tree:
    """The working tree into which evidence may be written.

    Raises:
        UsageError: size smoke, a plugin that can't be written to, no git, files that differ from the commit.
    """
    if size == "smoke":
        raise UsageError(
            "EVIDENCE-SIZE", "values of size smoke show that a command runs, and are no evidence",
            mend="use --size small", key="--file",
        )  # fmt: skip
    folder = stated.folder
    if not os.access(folder, os.W_OK):
        raise UsageError(
            "EVIDENCE-READONLY", f"plugin {stated.name!r} is installed where it can't be written to",
            mend="install it from its source folder (pip install -e .)", file=folder,
        )  # fmt: skip
    tree = tree_of(folder)
    if tree is None:
        raise UsageError(
            "EVIDENCE-GIT",
            f"git doesn't keep the files of plugin {stated.name!r}, or didn't answer: no commit tells its "
            "code",
            mend="work in its git repository (pip install -e .), or make one and commit", file=folder,
        )  # fmt: skip
    _refuse_changes(tree)
    return tree


def _refuse_changes(tree: Tree) -> None:
    if tree.changed:
        more = f" and {len(tree.changed) - 1} more" if len(tree.changed) > 1 else ""
        raise UsageError(
            "EVIDENCE-DIRTY", f"{tree.changed[0]}{more} differ from the commit, so no commit tells the code",
            mend="commit, or run in a clean checkout (git worktree add)", file=tree.root,
        )  # fmt: skip


def file_evidence(stated: Stated, found: Mapping[str, Any], size: str) -> tuple[Path, list[str]]:
    """Merge a run's evidence into the plugin's and write its README's section; (file, what was dropped).

    Raises:
        UsageError: as of ``check_place``, or a value came from code that no commit tells.
    """
    check_place(stated, size)
    for entry in found["claims"]:
        for name, arm in entry["arms"].items():
            for seed, commit in arm["commits"].items():
                if not commit or commit.endswith("+"):
                    raise UsageError(
                        "EVIDENCE-DIRTY", f"arm {name}, seed {seed} ran while files differed from the commit",
                        mend="run it again in a clean checkout (git worktree add)", file=stated.folder,
                    )  # fmt: skip
    merged, notes = merge(stated, read_evidence(stated.folder), found)
    file = stated.folder / FILE
    write_json(file, merged)
    notes += write_section(stated.folder)
    return file, notes


def merge(
    stated: Stated, old: Mapping[str, Any] | None, new: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Old and new evidence together, in the order of the claims and sizes, and what of the old was dropped.

    Seeds of an unchanged claim with unchanged arms are put together; sizes stand apart.
    """
    notes: list[str] = []
    entries = {(entry["id"], entry["size"]): dict(entry) for entry in new["claims"]}
    claims = {claim.id: claim for claim in stated.claims}
    for entry in (old or {}).get("claims", ()):
        key = (entry["id"], entry["size"])
        claim = claims.get(entry["id"])
        if claim is None:
            notes.append(f"dropped {key[0]} ({key[1]}): the plugin states no such claim any more")
        elif changed := [one for one in MEANING if entry.get(one) != told(claim)[one]]:
            notes.append(f"dropped the values of {key[0]} ({key[1]}): its {', '.join(changed)} changed")
        elif bool(claim.not_tested) != (entry["size"] is None):
            notes.append(f"dropped {key[0]} ({key[1]}): it's {'not ' * bool(claim.not_tested)}tested now")
        elif claim.not_tested:
            entries.setdefault(key, dict(entry))
        else:
            # seeds beside new ones have to have been run with the same settings of the command line
            settings = entries.get(key, entry).get("settings", ())
            kept = _still_true(stated, entry, settings, notes)
            entries[key] = _together(kept, entries[key]) if key in entries else kept
    order = {claim.id: n for n, claim in enumerate(stated.claims)}
    sizes = (None, "smoke", "small", "full")
    ordered = sorted(entries.values(), key=lambda entry: (order[entry["id"]], sizes.index(entry["size"])))
    return {
        **new,
        "claims": [entry for entry in ordered if entry["size"] is None or _has_values(entry)],
    }, notes


def _has_values(entry: Mapping[str, Any]) -> bool:
    return any(arm["values"] for arm in entry["arms"].values())


def _still_true(
    stated: Stated, entry: Mapping[str, Any], settings: Sequence[str], notes: list[str]
) -> dict[str, Any]:
    """An old entry without the values of arms that were changed since, or ran with other settings."""
    if entry["size"] is None:
        return dict(entry)
    claim = next(one for one in stated.claims if one.id == entry["id"])
    now: dict[str, dict[str, str]] = {}
    for seed in by_number({seed: 0 for arm in entry["arms"].values() for seed in arm["values"]}):
        try:
            arms = stated.arms(claim, int(seed), entry["size"])
        except LlmfwError as error:
            notes.append(f"dropped seed {seed} of {entry['id']} ({entry['size']}): {error}")
            arms = {}
        words = counted(settings)
        now[seed] = {
            name: define(arm, entry["size"], words if arm.run is None else (), stated.folder)
            for name, arm in arms.items()
        }
    kept: dict[str, Any] = {}
    for name, arm in entry["arms"].items():
        if name not in (*claim.arms, *claim.controls):
            notes.append(f"dropped arm {name} of {entry['id']} ({entry['size']}): it's no arm of it any more")
            continue
        good = {seed for seed in arm["values"] if now[seed].get(name) == arm["definitions"].get(seed)}
        if bad := [seed for seed in by_number(arm["values"]) if seed not in good]:
            what = f"seed {', '.join(bad)} of arm {name} of {entry['id']} ({entry['size']})"
            notes.append(f"dropped {what}: the arm or the settings that it's run with changed")
        kept[name] = {**arm, **{part: _of(arm[part], good) for part in _PER_SEED}}
    cost = {
        name: _of(seeds, set(kept[name]["values"])) for name, seeds in entry["cost"].items() if name in kept
    }
    return settle({**entry, "arms": kept, "cost": cost})


_PER_SEED = ("values", "commits", "definitions")


def _of(by_seed: Mapping[str, Any], seeds: set[str]) -> dict[str, Any]:
    return {seed: by_seed[seed] for seed in by_number(by_seed) if seed in seeds}


def _together(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """One entry with the seeds of both; of a seed that both have the new values count."""
    arms = {}
    for name, arm in new["arms"].items():
        before = old["arms"].get(name, {part: {} for part in _PER_SEED})
        both = {part: {**before[part], **arm[part]} for part in _PER_SEED}
        arms[name] = {**arm, **{part: _of(both[part], set(both[part])) for part in _PER_SEED}}
    cost = {name: {**old["cost"].get(name, {}), **seeds} for name, seeds in new["cost"].items()}
    return settle(
        {**new, "arms": arms, "cost": {name: _of(seeds, set(seeds)) for name, seeds in cost.items()}}
    )


def filed_seeds(evidence: Mapping[str, Any] | None, size: str) -> dict[str, Sequence[int]]:
    """Claim's id -> the seeds that evidence.json has at a size."""
    return {
        entry["id"]: sorted({int(seed) for arm in entry["arms"].values() for seed in arm["values"]})
        for entry in (evidence or {}).get("claims", ())
        if entry["size"] == size
    }
