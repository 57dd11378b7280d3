"""Train with and without a plugin, everything else the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from llmfw.core import discovery
from llmfw.core.assemble import Settled, assemble, settle
from llmfw.core.costs import Part, mean_parts
from llmfw.core.errors import LlmfwError, PluginError, UsageError
from llmfw.core.evidence.order import apart, consumed
from llmfw.core.evidence.verdict import spread
from llmfw.core.fit import FitResult
from llmfw.core.records import Estimate
from llmfw.core.say import say
from llmfw.core.series import Child, figures_of, open_series, reference_words, run_child
from llmfw.core.tracking.comparison import direction
from llmfw.core.tracking.files import write_json
from llmfw.core.training.launch import check_nested

VERB = "ablate"
FILE = "ablation.json"
WITH = "with"


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One side of an ablation: the plugins that are on, and every setting."""

    name: str
    """``with``, or ``without`` (of several plugins ``without-NAME``)."""
    left_out: str | None
    """The plugin that is off; None: all are on."""
    instead: str | None = None
    """The baseline that stands in for it, as its card says."""
    values: Mapping[str, Any] = field(repr=False)

    @property
    def plugins(self) -> list[str]:
        """In the user's order."""
        return list(self.values["plugins"])


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A figure with the plugin and without it; of several seeds the means, and the mean difference's 95%
    interval (Student's t over the seeds' own differences).
    """

    name: str
    with_it: float | None
    without: float | None
    difference: Estimate | None
    """With minus without; its bounds are NaN for one seed, None where only one of the arms has the figure."""


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """What an ablation brought."""

    dir: Path
    arms: Sequence[Arm]
    seeds: Sequence[int]
    results: Mapping[str, Mapping[int, FitResult]]
    """Arm's name -> seed -> its run."""
    order: str
    """What the runs say of the order of their data, in one line."""
    same_order: bool | None
    """None: the runs made their own data, so there's nothing to compare."""
    mlflow: Mapping[str, str] = field(default_factory=dict)
    unsent: int = 0

    def differences(self, arm: Arm) -> list[Difference]:
        """Every figure of the runs with all plugins beside the runs of an arm that lacks one."""
        ours, theirs = (self._figures(name) for name in (WITH, arm.name))
        names = dict.fromkeys(name for found in (*ours, *theirs) for name in found)
        return [_difference(name, ours, theirs) for name in names]

    def costs(self, arm: Arm) -> list[Difference]:
        """Likewise: tokens per second, seconds and peaks of memory."""
        ours, theirs = (
            [_cost_figures(result) for result in self.results[name].values()] for name in (WITH, arm.name)
        )
        names = dict.fromkeys(name for found in (*ours, *theirs) for name in found)
        return [_difference(name, ours, theirs) for name in names]

    @property
    def parts(self) -> tuple[Part, ...]:
        """What the plugins' parts cost in the runs with all of them, the mean over seeds."""
        return mean_parts([result.cost.parts for result in self.results[WITH].values()])

    @property
    def cautions(self) -> list[str]:
        """What speaks against reading the differences as the plugins' effect."""
        found = [] if self.same_order is not False else [self.order]
        found += [
            f"the loss is {arm.left_out}'s own: without it what is called loss is another quantity"
            for arm in self.arms[1:]
            if arm.left_out and "loss" in discovery.card(arm.left_out).kinds
        ]
        if len(self.seeds) == 1:
            found.append("one seed: --seeds 1,2,3 tells an effect from chance")
        return found

    def is_telling(self, name: str) -> bool:
        """Whether a figure says what was learnt: one with a better direction, or an evaluation's."""
        plain = name.rsplit("/", 1)[-1] not in ("low", "high", "n") and not name.startswith("time/")
        return plain and (direction(name) is not None or name in self._evaluated)

    def rank(self, name: str) -> int:
        """Evaluations first, then held-out values, then training."""
        return 0 if name in self._evaluated else 1 if name.startswith("validation/") else 2

    @property
    def _evaluated(self) -> set[str]:
        return {name for runs in self.results.values() for result in runs.values() for name in result.after}

    def _figures(self, arm: str) -> list[dict[str, float]]:
        return [figures_of(result) for result in self.results[arm].values()]


def ablate(
    words: Sequence[str],
    *,
    seeds: Sequence[int] = (),
    resume: bool = False,
    told: Callable[[Child], None] = lambda child: None,
    **layers: Any,
) -> Ablation:
    """Train with the plugins and without each of them: the same settings, seeds, data order and reference.

    Without a plugin its own settings are gone and all others are those that held with it, its defaults for
    the core's keys too. Where its card names an installed baseline, that stands in for it, with what both of
    them call alike set alike. All runs are checked before the first begins.

    Args:
        words: settings, as for a training.
        seeds: one run of each arm for each; none: the settings' own seed.
        told: called with every run that has ended.
        layers: of ``load_config``; ``plugins`` are those that are left out in turn (none named: all that are
            on).

    Raises:
        UsageError: no plugin, one without which nothing changes in training, or a run that can't be.
        CheckpointError: ``resume``, and there's no unfinished ablation of the same settings.
        PluginError: some runs failed; ``resume`` tries them again.
    """
    chosen = list(dict.fromkeys(layers.get("plugins", ())))
    check_plugins(chosen)
    base = settle(overrides=list(words), **layers)
    added, notes = reference_words(base)
    if added:
        base = settle(overrides=[*words, *added], **layers)
    root = base.resolved.root
    check_nested(root.trainer)
    chosen = chosen or base.resolved.plugin_names
    check_plugins(chosen, named=True)
    arms = arms_of(base, chosen)
    for arm in arms:
        _check(arm)
    seeds = list(dict.fromkeys(seeds)) or [root.seed]
    with open_series(
        verb=VERB,
        name=root.run.name or f"{VERB}-{'-'.join(chosen)}",
        fingerprint=_fingerprint(arms, seeds),
        tracking=root.tracking,
        folder=Path(root.run.dir) if root.run.dir else None,
        resume=resume,
        plugins=base.resolved.plugin_names,
        config=base.resolved.flat(),
        config_yaml=base.resolved.to_yaml(),
    ) as session:
        for line in (*base.notes, *notes, *(_about(arm) for arm in arms if arm.left_out)):
            say(f"note: {line}")
        say(f"{VERB} {session.dir}   {len(arms) * len(seeds)} runs")
        places = {
            arm.name: {seed: arm.name if len(seeds) == 1 else f"seed-{seed}/{arm.name}" for seed in seeds}
            for arm in arms
        }
        write_json(session.dir / FILE, _document(arms, places))
        results: dict[str, dict[int, FitResult]] = {arm.name: {} for arm in arms}
        failed: list[str] = []
        for seed in seeds:
            for arm in arms:
                say(f"{arm.name}, seed {seed}: plugins {', '.join(arm.plugins) or 'none'}")
                child = run_child(
                    session,
                    places[arm.name][seed],
                    lambda *more, arm=arm, seed=seed: _settle(arm, f"seed={seed}", *more),
                    name=arm.name if len(seeds) == 1 else f"{arm.name}-{seed}",
                )
                told(child)
                if child.result is None:
                    failed.append(f"{child.place}: {child.error}")
                    say(f"{child.place} failed: {child.error}")
                else:
                    results[arm.name][seed] = child.result
        if failed:
            raise PluginError(
                "ABLATE-FAILED",
                f"{len(failed)} of {len(arms) * len(seeds)} runs failed; the first: {failed[0]}",
                mend="mend it, then go on with --resume", file=session.dir,
            )  # fmt: skip
        same, order = _order(results, seeds)
        found = Ablation(
            dir=session.dir, arms=arms, seeds=seeds, results=results, order=order, same_order=same
        )
        assert session.journal is not None
        session.journal.event("order", durable=True, same=same, told=order)
        for arm in arms[1:]:
            session.journal.metrics(0, _series(found, arm, several=len(arms) > 2))
    return replace(found, mlflow=session.mlflow, unsent=session.unsent)


def check_plugins(names: Sequence[str], *, named: bool = False) -> None:
    """Refuse plugins without which a training is the same, as their cards tell; with ``named`` also none.

    Raises:
        UsageError: ABLATE.
    """
    if named and not names:
        raise UsageError(
            "ABLATE", "no plugin is on, so there is none to leave out",
            mend="add --plugin NAME (llmfw plugins list)",
        )  # fmt: skip
    for name in names:
        card = discovery.card(name)
        if "fit" in card.verbs:
            continue
        verb = card.verbs[0] if card.verbs else None
        raise UsageError(
            "ABLATE",
            f"plugin {name!r} trains nothing, so a training is the same without it",
            mend=f"compare what it answers: llmfw {verb} --plugin {name}, and llmfw {verb} without it"
            if verb
            else f"see what it's for: llmfw plugins show {name}",
            key="--plugin",
        )


def arms_of(base: Settled, chosen: Sequence[str]) -> list[Arm]:
    """All plugins on, then each of ``chosen`` off; ``base`` is the configuration with all of them."""
    values = base.resolved.to_dict()
    values["run"] = {**values["run"], "dir": None, "name": None}
    arms = [Arm(name=WITH, left_out=None, values=values)]
    for name in chosen:
        baseline = str(discovery.card(name).neutral.get("baseline") or "")
        instead = baseline if baseline in discovery.cards() and baseline not in values["plugins"] else None
        put = [instead] if instead else []
        others = [one for plugin in values["plugins"] for one in (put if plugin == name else [plugin])]
        left = {key: value for key, value in values.items() if key != name} | {"plugins": others}
        if instead:
            left[instead] = _alike(name, instead, values[name])
        arms.append(
            Arm(
                name="without" if len(chosen) == 1 else f"without-{name}",
                left_out=name,
                instead=instead,
                values=left,
            )
        )
    return arms


def _alike(name: str, baseline: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The plugin's settings that its baseline has too, but those at which the two become one."""
    card = discovery.card(baseline)
    known = {item.name for item in fields(discovery.load_class(card).Config)}
    neutral = discovery.card(name).neutral.get("settings", {})
    return {key: value for key, value in settings.items() if key in known and key not in neutral}


def _settle(arm: Arm, *words: str) -> Settled:
    return settle(base=arm.values, overrides=list(words))


def _check(arm: Arm) -> None:
    """Plan the arm's run: what can't be is told before any run begins."""
    try:
        settled = _settle(arm)
        assemble(settled, "fit")
    except LlmfwError as error:
        if arm.left_out is None:
            raise
        raise type(error)(
            error.code, f"without plugin {arm.left_out!r}: {error.what}", mend=error.mend,
            file=error.file, line=error.line, key=error.key,
        ) from error  # fmt: skip
    if arm.left_out in settled.resolved.plugin_names:
        needy = [
            name
            for name in settled.resolved.plugin_names
            if set(discovery.card(name).needs) & set(discovery.card(arm.left_out).offers)
        ]
        raise UsageError(
            "ABLATE",
            f"plugin {arm.left_out!r} can't be left out alone: "
            f"{', '.join(needy) or 'another'} needs what it offers",
            mend=f"ablate {needy[0] if needy else 'that one'} instead",
            key="--plugin",
        )


def _about(arm: Arm) -> str:
    if arm.instead is None:
        return f"without {arm.left_out}: every other setting stays as it was with it"
    alike = sorted(arm.values[arm.instead])
    told = (
        f"; {', '.join(f'{arm.instead}.{key}' for key in alike)} as {arm.left_out} had them" if alike else ""
    )
    return f"without {arm.left_out}: {arm.instead} stands in, the baseline that its card names{told}"


def _fingerprint(arms: Sequence[Arm], seeds: Sequence[int]) -> str:
    told = [
        [
            arm.name,
            {key: value for key, value in arm.values.items() if key not in ("run", "tracking", "seed")},
        ]
        for arm in arms
    ]
    return hashlib.sha256(json.dumps([told, list(seeds)], sort_keys=True, default=str).encode()).hexdigest()


def _document(arms: Sequence[Arm], places: Mapping[str, Mapping[int, str]]) -> dict[str, Any]:
    """ablation.json: which run is what."""
    return {
        "arms": [
            {
                "name": arm.name,
                "left_out": arm.left_out,
                "instead": arm.instead,
                "plugins": arm.plugins,
                "runs": {str(seed): place for seed, place in places[arm.name].items()},
            }
            for arm in arms
        ]
    }


def _order(results: Mapping[str, Mapping[int, FitResult]], seeds: Sequence[int]) -> tuple[bool | None, str]:
    """Whether the runs of each seed consumed the same samples in the same order, and a line that says so."""
    count = 0
    for seed in seeds:
        seen = [(arm, consumed(found[seed].dir)) for arm, found in results.items()]
        known = [(arm, ids) for arm, ids in seen if ids is not None]
        if len(known) < len(seen):
            return None, "some runs made their own data in rounds, so the order of data isn't compared"
        if differing := apart(known, whole=True):
            old, new, where = differing
            return False, f"{old} and {new} saw different data ({where}, seed {seed})"
        count += len(known[0][1])
    of = "" if len(seeds) == 1 else f", {len(seeds)} seeds"
    return True, f"checked: all runs of a seed saw the same samples in the same order ({count} samples{of})"


def _cost_figures(result: FitResult) -> dict[str, float]:
    cost = result.cost
    told = {
        "tokens/s": cost.tokens_per_second,
        "seconds in steps": cost.train_seconds,
        "seconds overall": cost.seconds,
        "host GiB, peak": cost.host_gib,
        "GPU GiB, peak": cost.gpu_gib,
    }
    return {name: value for name, value in told.items() if value is not None}


def _difference(
    name: str, ours: Sequence[Mapping[str, float]], theirs: Sequence[Mapping[str, float]]
) -> Difference:
    """Paired by seed; runs that lack the figure are left out of it."""
    pairs = [(a[name], b[name]) for a, b in zip(ours, theirs, strict=True) if name in a and name in b]
    if not pairs:
        return Difference(name=name, with_it=_mean(ours, name), without=_mean(theirs, name), difference=None)
    return Difference(
        name=name,
        with_it=sum(a for a, _ in pairs) / len(pairs),
        without=sum(b for _, b in pairs) / len(pairs),
        difference=spread([a - b for a, b in pairs]),
    )


def _mean(found: Sequence[Mapping[str, float]], name: str) -> float | None:
    values = [figures[name] for figures in found if name in figures]
    return sum(values) / len(values) if values else None


def _series(found: Ablation, arm: Arm, *, several: bool) -> dict[str, float]:
    """The differences as the parent's own values."""
    prefix = f"difference/{arm.left_out}/" if several else "difference/"
    told: dict[str, float] = {}
    for one in found.differences(arm):
        if one.difference is None or one.name.startswith("time/"):
            continue
        told[prefix + one.name] = one.difference.value
        if len(found.seeds) > 1:
            told |= {
                f"{prefix}{one.name}/low": one.difference.low,
                f"{prefix}{one.name}/high": one.difference.high,
            }
    return told
