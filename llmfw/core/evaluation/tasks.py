"""Tasks of the language-model evaluation harness (lm-eval): found, loaded, run, and told as metrics."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from llmfw.core.errors import DataError, LlmfwError, ResourceError, UsageError
from llmfw.core.records import Estimate, EvaluationResult
from llmfw.core.schema import EvaluationConfig, Root

_RESAMPLES = 1000
"""For the few metrics whose error the harness finds by resampling."""
_NO_PROCESSES = "DISABLE_MULTIPROC"
_MOST_ROWS = 100
"""Documents of a task that its table shows."""
_Z = 1.959963984540054
_ABSENT = ("DatasetNotFoundError", "ConnectionError", "OfflineModeIsEnabled", "LocalEntryNotFoundError")


def check_installed(settings: EvaluationConfig) -> None:
    """Whether lm-eval and the folder with tasks are there; imports nothing.

    Raises:
        ResourceError: the package is absent. UsageError: the folder is.
    """
    if find_spec("lm_eval") is None:
        raise ResourceError(
            "LM-EVAL",
            "evaluation.lm_eval needs the package lm-eval, which isn't installed",
            mend="pip install 'llmfw[eval]'",
            key="evaluation.lm_eval",
        )
    folder = settings.lm_eval_path
    if folder is not None and not Path(folder).is_dir():
        raise UsageError(
            "LM-EVAL-PATH", "there is no such folder", file=folder, key="evaluation.lm_eval_path",
            mend="name the folder that holds the tasks' yaml files",
        )  # fmt: skip


def load_tasks(settings: EvaluationConfig) -> dict[str, Any]:
    """The harness's tasks and groups with their data, as its ``evaluate`` takes them.

    Relative paths in ``data_files`` count from ``lm_eval_path``. Tasks of one's own are looked for first;
    those that the harness ships only where a name isn't among them.

    Raises:
        UsageError: no such task. ResourceError: its data must come from a hub that can't be reached.
        DataError: it can't be loaded for another reason.
    """
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    folder = Path(settings.lm_eval_path).absolute() if settings.lm_eval_path else None
    manager = TaskManager(include_path=folder, include_defaults=False) if folder else None
    if manager is None or any(name not in manager.all_tasks for name in settings.lm_eval):
        manager = TaskManager(include_path=folder)
    loaded: dict[str, Any] = {"tasks": {}, "groups": {}, "group_map": {}}
    for name in settings.lm_eval:
        if name not in manager.all_tasks:
            near = get_close_matches(name, manager.all_tasks, n=3)
            mend = (
                f"did you mean {' or '.join(near)}?" if near else "set evaluation.lm_eval_path to its folder"
            )
            raise UsageError(
                "LM-EVAL-TASK", f"there is no task {name!r}", mend=mend, key="evaluation.lm_eval"
            )
        with contextlib.chdir(folder or Path()), _named(name):
            found = manager.load([name])
        for kind in loaded:
            loaded[kind] |= found.get(kind, {})
    for name, task in loaded["tasks"].items():
        _refuse(name, task)
        shots = task.get_config("num_fewshot")
        if settings.lm_eval_shots is not None and shots != 0:  # a task that says 0 means it
            shots = settings.lm_eval_shots
        task.set_config(key="num_fewshot", value=shots or 0)
        task.set_fewshot_seed(seed=1234)  # the harness's own
    return loaded


def _refuse(name: str, task: Any) -> None:
    """Tasks that can't be asked of a text model, or that run what the model writes."""
    for mark, what in (
        ("UNSAFE_CODE", "runs code that the model writes, which isn't done outside a sandbox"),
        ("MULTIMODAL", "shows images or sounds, and models here read text"),
    ):
        if getattr(task, mark, False):
            raise UsageError(
                "LM-EVAL-REFUSED", f"task {name!r} {what}", mend="leave it out", key="evaluation.lm_eval"
            )


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Errors of a task's loading as ours, in one line that names the task."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except LlmfwError:
        raise
    except Exception as error:
        kinds = {type(link).__name__ for link in _chain(error)}
        if kinds & set(_ABSENT):
            raise ResourceError(
                "LM-EVAL-DATA",
                f"the data of task {name!r} comes from a hub that can't be reached ({error})"[:300],
                mend="load it once where there's a network, or give tasks with local files in "
                "evaluation.lm_eval_path (docs/evaluation.md)",
                key="evaluation.lm_eval",
            ) from error
        raise DataError(
            "LM-EVAL-LOAD",
            f"task {name!r} can't be loaded: {type(error).__name__}: {error}",
            mend="mend its yaml file or the files that it names",
            key="evaluation.lm_eval",
        ) from error


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def measure_tasks(root: Root, policy: Any) -> EvaluationResult:
    """Run the tasks of ``evaluation.lm_eval`` on the policy.

    Metrics ``lm_eval/TASK/METRIC`` (``.../FILTER`` where a task filters answers), with the harness's standard
    error as a 95% interval; a table of all of them, and one of each task's first documents.
    """
    from lm_eval.evaluator import evaluate

    from llmfw.core.evaluation.harness import PolicyLM

    settings = root.evaluation
    loaded = load_tasks(settings)
    model = PolicyLM(policy, show=root.trainer.progress)
    with contextlib.redirect_stdout(sys.stderr), _alone():  # it prints as it resamples
        try:
            found: Any = evaluate(
                model,
                loaded,
                limit=settings.lm_eval_limit,
                bootstrap_iters=_RESAMPLES,
                apply_chat_template=settings.lm_eval_chat,
                fewshot_as_multiturn=settings.lm_eval_chat,
            )
        except (ArithmeticError, AssertionError, LookupError, TypeError, ValueError) as error:
            names = ", ".join(settings.lm_eval)
            raise DataError(
                "LM-EVAL-RUN",
                f"lm-eval stopped in {names}: {type(error).__name__}: {error}",
                mend="look at the tasks' yaml and documents (--debug shows where)",
                key="evaluation.lm_eval",
            ) from error
    return told(found)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """The harness resamples in processes of its own unless told not to; a run forks none."""
    before = os.environ.get(_NO_PROCESSES)
    os.environ[_NO_PROCESSES] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_NO_PROCESSES]
        else:
            os.environ[_NO_PROCESSES] = before


def told(found: Mapping[str, Any]) -> EvaluationResult:
    """The harness's results as metrics and tables."""
    metrics: dict[str, float | Estimate] = {}
    rows: list[dict[str, Any]] = []
    for task, values in {**found["results"], **found.get("groups", {})}.items():
        count = _count(task, found)
        for key, value in values.items():
            metric, _, chosen = key.partition(",")
            if not chosen or metric.endswith("_stderr") or not isinstance(value, (int, float)):
                continue
            error = values.get(f"{metric}_stderr,{chosen}")
            name = f"lm_eval/{task}/{metric}" + ("" if chosen == "none" else f"/{chosen}")
            metrics[name] = _estimate(float(value), error, count)
            rows.append(
                {
                    "task": task,
                    "metric": metric,
                    "filter": chosen,
                    "value": float(value),
                    "standard_error": error if isinstance(error, (int, float)) else None,
                    "documents": count,
                    "shots": found.get("n-shot", {}).get(task),
                    "version": found.get("versions", {}).get(task),
                }
            )
    tables: dict[str, Sequence[Mapping[str, Any]]] = {"lm_eval": rows}
    for task, samples in found.get("samples", {}).items():
        tables[f"lm_eval-{task}"] = [_row(sample) for sample in samples[:_MOST_ROWS]]
    return EvaluationResult(metrics=metrics, tables=tables)


def _count(task: str, found: Mapping[str, Any]) -> int:
    """Documents that a task, or a group's tasks together, were measured on."""
    counts = found.get("n-samples", {})
    names = [task] if task in counts else _leaves(task, found.get("group_subtasks", {}))
    return sum(int(counts[name]["effective"]) for name in names if name in counts)


def _leaves(name: str, inside: Mapping[str, Sequence[str]]) -> list[str]:
    return [leaf for part in inside[name] for leaf in _leaves(part, inside)] if inside.get(name) else [name]


def _estimate(value: float, error: Any, count: int) -> float | Estimate:
    if not isinstance(error, (int, float)) or not math.isfinite(error):
        return value
    return Estimate(value=value, low=value - _Z * error, high=value + _Z * error, n=count)


def _row(sample: Mapping[str, Any]) -> dict[str, Any]:
    """A document in a task's table: what was asked first, what was wanted, what came, and how it scored."""
    asked, came, wanted = sample["arguments"], sample["filtered_resps"], sample["target"]
    scores = {name: sample[name] for name in sample["metrics"] if isinstance(sample.get(name), (int, float))}
    choices = [str(one[1]).strip() for one in asked if len(one) > 1]
    if len(came) > 1 and len(choices) == len(came):  # log-likelihoods of choices: the likeliest is the answer
        answer = choices[max(range(len(came)), key=lambda index: came[index][0])]
        wanted = choices[wanted] if isinstance(wanted, int) and wanted < len(choices) else wanted
    else:
        answer = came[0] if len(came) == 1 else came
    return {
        "document": sample["doc_id"],
        "filter": sample["filter"],
        "prompt": str(asked[0][0]),
        "reference": str(wanted),
        "answer": str(answer),
        **scores,
    }
