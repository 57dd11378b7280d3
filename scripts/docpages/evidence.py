"""The pages that show what plugins claim and what running it gave: docs/evidence.md, a plot a plugin, and the
sections of the plugins' READMEs. ``write_docs.py`` writes them.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from llmfw.core import discovery
from llmfw.core.evidence.document import read_evidence, values_of
from llmfw.core.evidence.pages import README, claim_tables, last_lines, with_section
from llmfw.core.evidence.stated import states_claims
from llmfw.core.evidence.verdict import VERDICTS
from llmfw.core.tracking.journal import decode

DOCS = Path(__file__).parents[2] / "docs"
INTRO = """\
# Evidence

A plugin states its paper's claims in `reproduce.py`: the metric, the arms that are compared, the smallest
effect that counts, the seeds. They are committed before their first run. `llmfw reproduce NAME` runs every
arm for every seed, on the same data in the same order, and works out each verdict by rules that were fixed
beforehand. They look at the 95% interval of the difference (method minus baseline of one seed, turned round
where lower is better, so that a positive one is in the paper's favour):

| kind of claim | reproduced | opposite | not reproduced |
|---|---|---|---|
| greater | interval above 0, mean at least the effect | interval below 0 | interval within ± the effect |
| equivalent | interval within ± the margin | interval outside it | |
| not worse | interval above minus the margin | interval below that | |
| level | interval of the value itself at the level or beyond | interval short of it | |

Everything else is *inconclusive*. The interval is Student's t over seeds, or a bootstrap over items where a
claim says so. Controls are shown and decide nothing. A claim that comes out the other way stays on this page,
and one that could not be tested here is listed with why.

`llmfw reproduce NAME --file` puts the values into the plugin's `evidence.json`, from which this page is made;
a test works every mean, interval and verdict out again. What runs here is small: small models, small data,
few seeds. It shows whether an effect is there at that size, and no more.
"""
CAPTION = """\
Each claim on a scale of its own: a dot with its bar is a mean with its 95% interval, small ticks are seeds,
diamonds are controls; the grey band is ± the effect, a dashed line the level."""
BACK, INK, RULE = "#ffffff", "#1f2328", "#d0d7de"
DARK = {BACK: "#0d1117", INK: "#e6edf3", RULE: "#30363d"}
COLOURS = {
    "reproduced": "#1a7f37", "opposite": "#cf222e", "not reproduced": "#9a6700", "inconclusive": "#57606a",
    "failed": "#cf222e",
}  # fmt: skip
DARK_COLOURS = {"#1a7f37": "#3fb950", "#cf222e": "#f85149", "#9a6700": "#d29922", "#57606a": "#8b949e"}


def pages(note: str) -> dict[Path, Callable[[], str]]:
    """Path -> its text, of everything that is made from evidence; ``note`` begins the page."""
    found: dict[Path, Callable[[], str]] = {DOCS / "evidence.md": partial(page, note)}
    for name, (folder, evidence) in built_in().items():
        if evidence is not None and any(entry["arms"] for entry in evidence["claims"]):
            found[plot_of(name)] = partial(plot, evidence)
        readme = folder / README
        text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
        if with_section(text, evidence) is not None:
            found[readme] = partial(section_of, readme, evidence)
    return found


def built_in() -> dict[str, tuple[Path, dict[str, Any] | None]]:
    """Name -> (folder, evidence.json) of the plugins that come with llmfw."""
    cards = sorted(discovery.cards().items())
    return {
        name: (card.folder, read_evidence(card.folder))
        for name, card in cards
        if card.value.startswith("llmfw.") and card.folder is not None
    }


def plot_of(name: str) -> Path:
    """Where a plugin's plot lies."""
    return DOCS / "evidence" / f"{name}.svg"


def section_of(readme: Path, evidence: dict[str, Any] | None) -> str:
    """A README with its section."""
    text = with_section(readme.read_text(encoding="utf-8"), evidence)
    assert text is not None
    return text


def page(note: str) -> str:
    """docs/evidence.md."""
    plugins = built_in()
    parts = [note + INTRO, "## All verdicts", verdicts(plugins)]
    for name, (_, evidence) in plugins.items():
        if evidence is None:
            continue
        card = discovery.card(name)
        parts.append(f"## {name}\n\n{card.summary}")
        if any(entry["arms"] for entry in evidence["claims"]):
            parts.append(f"![Differences of {name} with their intervals](evidence/{name}.svg)\n\n{CAPTION}")
        parts += [*claim_tables(evidence), *last_lines(evidence)]
    return "\n\n".join(parts) + "\n"


def catalogue() -> str:
    """The README's table of methods: each with its paper, what it adds, and how its claims came out."""
    rows = ["| plugin | paper | what it adds | its claims, run here |", "|---|---|---|---|"]
    for name, (folder, evidence) in built_in().items():
        card = discovery.card(name)
        paper = str(card.paper.get("title", ""))
        if "arxiv" in card.paper:
            paper = f"{paper} ([{card.paper['arxiv']}](https://arxiv.org/abs/{card.paper['arxiv']}))"
        link = f"[`{name}`]({folder.relative_to(DOCS.parent).as_posix()}/{README})"
        rows.append(f"| {link} | {paper} | {card.summary} | {came_out(card, evidence)} |")
    return "\n".join(rows)


def came_out(card: discovery.Card, evidence: Mapping[str, Any] | None) -> str:
    """How many claims came out how, in words."""
    if evidence is None:
        return "no evidence yet" if states_claims(card) else "none of its own"
    told = [entry["verdict"] for entry in evidence["claims"]]
    counted = [f"{told.count(verdict)} {verdict}" for verdict in VERDICTS if verdict in told]
    return ", ".join(counted)


def verdicts(plugins: Mapping[str, tuple[Path, dict[str, Any] | None]]) -> str:
    """How many claims of each plugin came out how; and the plugins that say nothing."""
    head = ["plugin", *VERDICTS]
    rows, silent, unmeasured = [], [], []
    for name, (_, evidence) in plugins.items():
        if evidence is None:
            (unmeasured if states_claims(discovery.card(name)) else silent).append(f"`{name}`")
            continue
        told = [entry["verdict"] for entry in evidence["claims"]]
        counts = [str(told.count(verdict) or "") for verdict in VERDICTS]
        rows.append(f"| [{name}](#{name.replace('_', '-')}) | {' | '.join(counts)} |")
    table = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|", *rows]
    lines = ["\n".join(table)] if rows else []
    if unmeasured:
        lines.append(f"Stated, and not measured yet: {', '.join(unmeasured)}.")
    if silent:
        lines.append(f"No claims of their own: {', '.join(silent)}.")
    return "\n\n".join(lines)


# the plot


def plot(evidence: Mapping[str, Any]) -> str:
    """A forest plot: of each claim the judged difference and those to controls, on a scale of its own."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    entries = [entry for entry in evidence["claims"] if entry["arms"]]
    heights = [len(rows_of(entry)) + 1.6 for entry in entries]
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "llmfw", "font.size": 9.0}):
        figure = Figure(figsize=(8.0, 0.24 * sum(heights) + 0.2), facecolor=BACK, layout="constrained")
        axes = figure.subplots(len(entries), 1, height_ratios=heights, squeeze=False)[:, 0]
        for entry, axis in zip(entries, axes):
            draw(entry, axis)
        written = io.StringIO()
        FigureCanvasSVG(figure).print_svg(written, metadata={"Date": None, "Creator": None})
    return in_both_schemes(written.getvalue())


def rows_of(entry: Mapping[str, Any]) -> list[tuple[str, float, float, float]]:
    """(label, mean, low, high) of what is drawn: the judged difference, or value, then the controls'."""
    arms = {arm["role"]: name for name, arm in entry["arms"].items() if arm["role"] != "control"}
    method = arms["method"]
    if entry["kind"] == "level":
        rows = [(method, entry["arms"][method])]
    else:
        rows = (
            [(f"{method} against {arms['baseline']}", entry["differences"])] if entry["differences"] else []
        )
    rows += [(f"{method} against {name} (control)", found) for name, found in entry["controls"].items()]
    return [(label, decode(found["mean"]), *map(decode, found["interval"])) for label, found in rows]


def seeds_of(entry: Mapping[str, Any]) -> list[float]:
    """The judged differences of single seeds, or a level's values; none where items are judged."""
    if entry["items"]:
        return []
    if entry["kind"] != "level":
        return [decode(value) for value in (entry["differences"] or {"values": {}})["values"].values()]
    (method,) = (arm for arm in entry["arms"].values() if arm["role"] == "method")
    return [value for value in values_of(method).values() if isinstance(value, float)]


def draw(entry: Mapping[str, Any], axis: Any) -> None:
    """One claim."""
    rows, effect, level = rows_of(entry), float(entry["effect"]), entry["kind"] == "level"
    colour = COLOURS[entry["verdict"]]
    axis.set_facecolor(BACK)
    if level:
        axis.axvline(effect, color=INK, linewidth=0.8, linestyle=(0, (4, 2)))
    else:
        axis.axvspan(-effect, effect, facecolor=RULE, alpha=0.5, linewidth=0)
        axis.axvline(0, color=INK, linewidth=0.8)
    for n, (_, mean, low, high) in enumerate(rows):
        tone = colour if n == 0 else INK
        if low == low:  # a single value has no interval
            axis.plot([low, high], [n, n], color=tone, linewidth=1.0 if n else 2.0, solid_capstyle="butt")
        axis.plot([mean], [n], marker="D" if n else "o", markersize=3.5 if n else 5, color=tone)
    axis.plot(each := seeds_of(entry), [0] * len(each), "|", color=colour, markersize=9, markeredgewidth=0.8)
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_yticks(range(len(rows)), [row[0] for row in rows], color=INK)
    axis.tick_params(colors=INK, length=2)
    unit = f" ({entry['unit']})" if entry["unit"] else ""
    title = f"{entry['id']}  {entry['metric']}{unit}, {entry['size']}: {entry['verdict']}"
    axis.set_title(title, loc="left", x=-0.5, fontsize=9, color=colour)  # over the names, too: it's long
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.spines["bottom"].set_color(RULE)


def in_both_schemes(svg: str) -> str:
    """The drawing with dark colours where the reader's system asks for them; no blanks at ends of lines."""
    rules = [
        f'[style*="{kind}: {light}"] {{ {kind}: {dark} !important }}'
        for light, dark in {**DARK, **DARK_COLOURS}.items()
        for kind in ("fill", "stroke")
    ]
    style = "<style>@media (prefers-color-scheme: dark) {\n" + "\n".join(rules) + "\n}</style>"
    head, rest = svg.split("<defs>", 1)
    return re.sub(r"[ \t]+$", "", f"{head}{style}\n <defs>{rest}", flags=re.MULTILINE)
