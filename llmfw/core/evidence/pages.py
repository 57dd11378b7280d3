"""Evidence as tables for people: the section of a plugin's README, and the rows that other pages share."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmfw.core.evidence.document import read_evidence
from llmfw.core.evidence.marks import END, START
from llmfw.core.tracking.files import write_text
from llmfw.core.tracking.journal import decode

README = "README.md"


def write_section(folder: Path) -> list[str]:
    """Bring the section of a plugin's README up to date; says so where the README has no place for it."""
    file = folder / README
    if not file.is_file():
        return [f"{folder.name} has no {README}, so no table was written"]
    text = file.read_text(encoding="utf-8")
    now = with_section(text, read_evidence(folder))
    if now is None:
        return [f"{README} has no {START} ... {END}, so no table was written"]
    if now != text:
        write_text(file, now)
    return []


def with_section(text: str, evidence: Mapping[str, Any] | None) -> str | None:
    """A README with the section that evidence.json gives; None where it has no place for one."""
    if START not in text or END not in text:
        return None
    head, rest = text.split(START, 1)
    return f"{head}{START}\n{section(evidence)}\n{END}{rest.split(END, 1)[1]}"


def section(evidence: Mapping[str, Any] | None) -> str:
    """Markdown between the marks of a README."""
    if evidence is None:
        return "Nothing was measured yet."
    return "\n\n".join([*claim_tables(evidence), *last_lines(evidence)])


def claim_tables(evidence: Mapping[str, Any]) -> Iterator[str]:
    """The table of claims that were run, and the list of those that weren't."""
    run = [entry for entry in evidence["claims"] if entry["arms"]]
    if run:
        head = "| claim | the paper | arms: mean [95% interval] | difference | verdict | size |"
        yield "\n".join([head, "|---|---|---|---|---|---|", *(_row(entry) for entry in run)])
    untested = [entry for entry in evidence["claims"] if not entry["arms"]]
    if untested:
        yield "\n".join(
            f"- `{entry['id']}` not tested: {entry['statement']} (the paper: {entry['paper']}) {entry['why']}"
            for entry in untested
        )


def _row(entry: Mapping[str, Any]) -> str:
    arms = [f"{name} ({arm['role']}) {interval(arm)}" for name, arm in entry["arms"].items()]
    unit = f" {entry['unit']}" if entry["unit"] else ""
    told = f"{entry['statement']} (`{entry['metric']}`{unit}; {rule(entry)})"
    cells = [
        f"`{entry['id']}` {told}", entry["paper"], "<br>".join(arms), differences(entry, "<br>"),
        f"**{entry['verdict']}**: {entry['why']}", f"{entry['size']}, {count(entry)}",
    ]  # fmt: skip
    return f"| {' | '.join(_cell(cell) for cell in cells)} |"


def rule(entry: Mapping[str, Any]) -> str:
    """What of a claim decides, in words."""
    effect, better = f"{float(entry['effect']):g}", entry["direction"]
    return {
        "greater": f"{better} by at least {effect}",
        "equivalent": f"equal within {effect}",
        "not_worse": f"{better} is better; no worse than by {effect}",
        "level": f"at {effect} or {better}",
    }[entry["kind"]]


def difference_of(entry: Mapping[str, Any], arm: str) -> str:
    """Method minus baseline beside the method, method minus control beside a control; else nothing."""
    role = entry["arms"][arm]["role"]
    if role == "control":
        return f"method minus it {interval(entry['controls'][arm])}"
    return interval(entry["differences"]) if role == "method" and entry["differences"] else ""


def differences(entry: Mapping[str, Any], between: str = ", ") -> str:
    """The difference that was judged, and those to the controls; positive ones are in the paper's favour."""
    parts = [] if entry["differences"] is None else [interval(entry["differences"])]
    parts += [f"to {name} {interval(found)}" for name, found in entry["controls"].items()]
    return between.join(parts)


def interval(found: Mapping[str, Any]) -> str:
    """Mean and interval, as in tables; a mean alone where there's no interval."""
    low, high = found["interval"]
    mean = number(found["mean"])
    return mean if isinstance(low, str) else f"{mean} [{number(low)}, {number(high)}]"


def number(value: Any) -> str:
    """A number of evidence.json with four digits."""
    return f"{decode(value):.4g}"


def count(entry: Mapping[str, Any]) -> str:
    """Over how much a claim was run."""
    seeds = {seed for arm in entry["arms"].values() for seed in arm["values"]}
    found = f"{len(seeds)} seed{'s' * (len(seeds) != 1)}"
    lengths = {
        len(value) for arm in entry["arms"].values() for value in arm["values"].values() if entry["items"]
    }
    return f"{found}, {max(lengths)} items" if lengths else found


def costs(evidence: Mapping[str, Any]) -> list[tuple[str, str, dict[str, float]]]:
    """(size, arm, its cost: seconds and tokens a seed, peaks of memory) of every arm, each once."""
    per: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for entry in evidence["claims"]:
        for name, seeds in entry.get("cost", {}).items():
            per.setdefault((entry["size"], name), {}).update(seeds)
    found = []
    for (size, name), seeds in per.items():
        if seeds:
            told = {key: [float(one[key]) for one in seeds.values() if key in one] for key in _COSTS}
            mean = {key: sum(told[key]) / len(seeds) for key in ("seconds", "tokens") if told[key]}
            peaks = {key: max(told[key]) for key in ("host_gib", "gpu_gib") if told[key]}
            found.append((size, name, {**mean, **peaks, "seeds": float(len(seeds))}))
    return found


_COSTS = ("seconds", "tokens", "host_gib", "gpu_gib")


def spoken_cost(cost: Mapping[str, float]) -> str:
    """A cost in words."""
    parts = [f"{cost['seconds']:.0f} s"] if "seconds" in cost else []
    parts += [f"{cost['tokens']:,.0f} tokens"] if "tokens" in cost else []
    parts += [f"{cost['host_gib']:.2f} GiB"] if "host_gib" in cost else []
    parts += [f"{cost['gpu_gib']:.2f} GiB on the GPU"] if "gpu_gib" in cost else []
    return ", ".join(parts)


def last_lines(evidence: Mapping[str, Any]) -> Iterator[str]:
    """Cost, machine and command."""
    found = costs(evidence)
    if found:
        arms = "; ".join(f"{name} ({size}) {spoken_cost(cost)}" for size, name, cost in found)
        yield f"Cost of a seed (seconds, tokens trained on, peak of the process's memory): {arms}."
    commits = commits_of(evidence["claims"])
    at = f", at {'commits' if len(commits) > 1 else 'commit'} {', '.join(commits)}" if commits else ""
    yield (
        "Differences are method minus baseline (to NAME: minus that control, which decides nothing), seed by "
        "seed, turned round where lower is better. Written by "
        f"`{evidence['command']}` on {evidence['date']}{at}; {evidence['machine']}."
    )


def commits_of(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """The commits whose code gave the values, shortened, each once."""
    told = (one for entry in entries for arm in entry["arms"].values() for one in arm["commits"].values())
    return list(dict.fromkeys(one[:10] for one in told))


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|").strip()
