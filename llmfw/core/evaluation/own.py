"""The core's own evaluations as records, from the ``evaluation`` settings."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

from llmfw.core.errors import DataError, UsageError
from llmfw.core.records import Evaluation, EvaluationResult, When
from llmfw.core.run import Run
from llmfw.core.settings.limits import ANSWER_METRICS


def evaluations(run: Run) -> list[Evaluation]:
    """What ``evaluation`` asks for: perplexity, the metrics of answers (one record, so that they share their
    answers), and tasks of lm-eval.

    Raises:
        ResourceError: lm-eval is asked for and not installed. UsageError: its folder isn't there.
    """
    settings = run.config.evaluation
    when = cast(tuple[When, ...], tuple(settings.when))
    found: list[Evaluation] = []
    if "perplexity" in settings.metrics:
        found.append(Evaluation(name="perplexity", run=partial(_perplexity, run), when=when))
    names = tuple(name for name in ANSWER_METRICS if name in settings.metrics)
    if names:
        found.append(Evaluation(name="+".join(names), run=partial(_answers, run, names), when=when))
    if settings.lm_eval:
        from llmfw.core.evaluation.tasks import check_installed

        check_installed(settings)
        found.append(Evaluation(name="lm_eval", run=partial(_tasks, run), when=when))
    return found


def check_form(metrics: Sequence[str], form: str | None, *, held_out: bool) -> None:
    """Refuse metrics that the data can't give, as far as that is known before it's read.

    Raises:
        DataError: nothing is held out, or rows of running text have no answers.
    """
    if metrics and not held_out:
        raise DataError(
            "NOTHING-HELD-OUT",
            f"evaluation.metrics={','.join(metrics)} needs held-out rows, and data.validation holds none out",
            mend="set data.validation to a share or a file",
            key="data.validation",
        )
    compared = [name for name in metrics if name in ANSWER_METRICS]
    if compared and form == "text":
        raise UsageError(
            "EVALUATION-FORM",
            f"{compared[0]} compares answers with references, and text rows hold neither",
            mend="set evaluation.metrics=[perplexity], or give rows with prompts and answers",
            key="evaluation.metrics",
        )


def check_evaluations(run: Run) -> None:
    """The same once the rows are read, and that the tasks of lm-eval can be had; before weights are read.

    Raises:
        DataError: nothing is held out. UsageError, ResourceError: a task that isn't known or has no data.
    """
    settings = run.config.evaluation
    check_form(settings.metrics, None, held_out=bool(run._held_out))
    if settings.lm_eval:
        from llmfw.core.evaluation.tasks import load_tasks

        load_tasks(settings)


def _perplexity(run: Run, policy: Any, services: Any) -> EvaluationResult:
    """Imports what it needs when it's run, so that a plan is made without it."""
    from llmfw.core.evaluation.perplexity import perplexity

    return perplexity(run, policy)


def _answers(run: Run, names: tuple[str, ...], policy: Any, services: Any) -> EvaluationResult:
    from llmfw.core.evaluation.answers import answers

    return answers(run, names, policy)


def _tasks(run: Run, policy: Any, services: Any) -> EvaluationResult:
    from llmfw.core.evaluation.tasks import measure_tasks

    return measure_tasks(run.config, policy)
