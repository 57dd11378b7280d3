"""What is tried next: Optuna's study of a sweep, kept beside its runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmfw.core.errors import ResourceError
from llmfw.core.settings.swept import Swept, combinations
from llmfw.core.sweep.search import Search
from llmfw.core.sweep.trials import Trial

FILE = "optuna.jsonl"


def open_study(search: Search, folder: Path) -> Any:
    """The study in a sweep's folder, made there first; of a grid every combination is queued, in order.

    Raises:
        ResourceError: Optuna isn't installed.
    """
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError as error:
        raise ResourceError(
            "PACKAGE", "sweeps need Optuna, which isn't installed", mend="pip install 'llmfw[sweep]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name="sweep",
        storage=JournalStorage(JournalFileBackend(str(folder / FILE))),
        direction="minimize" if search.mode == "min" else "maximize",
        load_if_exists=True,
    )
    if search.sampler == "grid" and not study.trials:
        for settings in combinations(search.swept):
            study.enqueue_trial(settings)
    return study


def next_settings(study: Any, search: Search, number: int) -> dict[str, str]:
    """The settings of trial ``number``: those that it was interrupted with, else what is tried next."""
    import optuna

    begun = [trial for trial in study.trials if trial.number == number]
    if begun and begun[0].state == optuna.trial.TrialState.RUNNING:
        params = begun[0].params
    else:
        kind = optuna.samplers.TPESampler if search.sampler == "tpe" else optuna.samplers.RandomSampler
        # what is drawn depends on the number and on what was found, not on interruptions
        study.sampler = kind(seed=search.seed + number)
        params = study.ask(_distributions(search.swept)).params
    return {one.key: params[one.key] if one.choices else one.number(params[one.key]) for one in search.swept}


def _distributions(swept: Sequence[Swept]) -> dict[str, Any]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, Any] = {}
    for one in swept:
        if one.choices:
            found[one.key] = CategoricalDistribution(one.choices)
        elif one.whole:
            found[one.key] = IntDistribution(int(one.low), int(one.high), log=one.log)
        else:
            found[one.key] = FloatDistribution(one.low, one.high, log=one.log)
    return found


def tell(study: Any, trial: Trial) -> None:
    """Let the study know what a trial brought."""
    import optuna

    if trial.value is None or not math.isfinite(trial.value):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    else:
        study.tell(trial.number, trial.value)
