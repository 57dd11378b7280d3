"""A whole sweep: its trials one after another, as runs nested in one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from llmfw.core.errors import UsageError
from llmfw.core.say import say
from llmfw.core.series import figures_of, open_series, run_child
from llmfw.core.session import Session
from llmfw.core.settings.swept import split_swept
from llmfw.core.sweep.search import (
    Mode,
    Sampler,
    Search,
    check,
    fingerprint_of,
    make_search,
    settle_trial,
    share_reference,
)
from llmfw.core.sweep.study import next_settings, open_study, tell
from llmfw.core.sweep.trials import Trial, best_of, plain, remember, remembered
from llmfw.core.training.launch import check_nested


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """What a sweep brought; ``best`` is the trial with the best value."""

    dir: Path
    metric: str
    mode: Mode
    trials: Sequence[Trial]
    best: Trial | None
    mlflow: Mapping[str, str] = field(default_factory=dict)
    unsent: int = 0


def sweep(
    words: Sequence[str],
    *,
    sampler: Sampler = "grid",
    trials: int | None = None,
    metric: str = "validation/loss",
    mode: Mode | None = None,
    resume: bool = False,
    told: Callable[[Trial], None] = lambda trial: None,
    **layers: Any,
) -> SweepResult:
    """Train one run a combination and say which was best by ``metric``.

    A trial that fails is noted and the sweep goes on; one that is interrupted ends it, and ``resume`` goes on
    where it stood, within that trial too. A loss with a reference model has its log-probs computed once for
    the whole sweep (``trainer.reference=cache``), unless that key is set.

    Args:
        words: settings; ``KEY=A,B`` and ``KEY=LOW..HIGH`` are swept.
        sampler: ``grid`` walks every combination in order, ``random`` and ``tpe`` draw ``trials`` of them.
        metric: ``validation/NAME``, an evaluation's name, or a training metric's.
        mode: which direction is better; None: as the metric's name tells.
        told: called with every trial that has ended.
        layers: of ``load_config``.

    Raises:
        UsageError: nothing is swept, a combination that can't be, a metric that no run has.
        ResourceError: Optuna isn't installed.
    """
    fixed, swept = split_swept(words)
    search = make_search(fixed, swept, sampler, trials, metric, mode, layers)
    base = check(search)
    search, note = share_reference(search, base)
    resolved = base.resolved
    check_nested(resolved.root.trainer)
    search = replace(search, seed=resolved.root.seed)
    name = resolved.root.run.name or f"sweep-{'-'.join(resolved.plugin_names) or 'fit'}"
    wanted = Path(resolved.root.run.dir) if resolved.root.run.dir else None
    fingerprint = fingerprint_of(search, base)
    with open_series(
        verb="sweep",
        name=name,
        fingerprint=fingerprint,
        tracking=resolved.root.tracking,
        folder=wanted,
        resume=resume,
        plugins=resolved.plugin_names,
        config={**resolved.flat(), **{one.key: one.said for one in swept}},
        config_yaml=resolved.to_yaml(),
    ) as session:
        for line in (*base.notes, *note):
            say(f"note: {line}")
        say(f"sweep {session.dir}   {search.trials} runs over {', '.join(one.key for one in swept)}")
        done = _walk(search, session, told)
        best = best_of(done, search.mode)
        if best is None:
            raise UsageError(
                "SWEEP-FAILED", f"none of the {len(done)} runs reached the end; the first: {done[0].error}",
                mend="mend the settings", file=session.dir,
            )  # fmt: skip
    return SweepResult(
        dir=session.dir, metric=search.metric, mode=search.mode, trials=done, best=best,
        mlflow=session.mlflow, unsent=session.unsent,
    )  # fmt: skip


def _walk(search: Search, session: Session, told: Callable[[Trial], None]) -> list[Trial]:
    """Every trial that isn't done yet, each written down as soon as it has ended."""
    done = remembered(session.dir)
    study = open_study(search, session.dir)
    journal = session.journal
    assert journal is not None
    while len(done) < search.trials:
        number = len(done)
        trial = _run(search, number, next_settings(study, search, number), session)
        tell(study, trial)
        done.append(trial)
        remember(session.dir, search, done)
        if trial.value is not None:
            best = best_of(done, search.mode)  # None while no value has been finite
            known = {} if best is None or best.value is None else {f"best/{search.metric}": best.value}
            journal.metrics(number, {search.metric: trial.value, **known})
        journal.event("trial", durable=True, **plain(trial))
        told(trial)
    return done


def _run(search: Search, number: int, settings: Mapping[str, str], session: Session) -> Trial:
    say(f"trial {number + 1} of {search.trials}: {' '.join(f'{k}={v}' for k, v in settings.items())}")
    child = run_child(
        session,
        f"trials/{number:03d}",
        lambda *words: settle_trial(search, settings, *words),
        name=f"trial-{number:03d}",
    )
    told: dict[str, Any] = {
        "number": number,
        "settings": settings,
        "dir": child.dir,
        "seconds": child.seconds,
    }
    if child.result is None:
        say(f"trial {number + 1} failed: {child.error}")
        return Trial(status="FAILED", error=child.error, **told)
    found = figures_of(child.result)
    if search.metric not in found:
        raise _no_metric(search.metric, found)
    low, high = (found.get(f"{search.metric}/{bound}") for bound in ("low", "high"))
    return Trial(status="FINISHED", value=found[search.metric], low=low, high=high, **told)


def _no_metric(metric: str, found: Mapping[str, float]) -> UsageError:
    from difflib import get_close_matches

    names = [name for name in found if not name.endswith(("/low", "/high", "/n"))]
    near = get_close_matches(metric, names, n=3, cutoff=0.4) or sorted(names)[:6]
    return UsageError(
        "SWEEP-METRIC", f"the run has no metric {metric!r}", mend=f"choose of: {', '.join(near)}",
        key="--metric",
    )  # fmt: skip
