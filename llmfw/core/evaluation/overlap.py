"""Overlap of answers with references, through torchmetrics: ROUGE, BLEU, chrF, from 0 to 1.

ROUGE (Lin 2004) is the mean of the answers' F-measures. BLEU (Papineni et al. 2002; 4-grams, tokens as
sacreBLEU's 13a, no smoothing) and chrF (Popović 2015; character 6-grams, beta 2) are of the corpus: counts
are summed over answers first, so their intervals resample counts.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from llmfw.core.evaluation import bootstrap
from llmfw.core.records import Estimate

ROUGE = ("rouge1", "rouge2", "rougeL")
"""rougeLsum is left out: torchmetrics splits sentences for it by a model that has to be downloaded."""

Scored = tuple[Mapping[str, Estimate], Mapping[str, list[float]]]
"""(metric -> estimate, column -> one score an answer)."""


def rouge(answers: Sequence[str], references: Sequence[str]) -> Scored:
    """rouge1, rouge2 and rougeL: the mean F-measure over answers, lower case, letters and digits only."""
    from torchmetrics.functional.text import rouge_score

    scores: dict[str, list[float]] = {key: [] for key in ROUGE}
    for answer, reference in zip(answers, references, strict=True):
        found = rouge_score(answer, reference, rouge_keys=ROUGE)
        for key in ROUGE:
            scores[key].append(float(found[f"{key}_fmeasure"]))
    return {key: bootstrap.mean(values) for key, values in scores.items()}, scores


def bleu(answers: Sequence[str], references: Sequence[str]) -> Scored:
    """Corpus BLEU; an answer's own score is 0 where one of its n-grams of any order has no match."""
    from torchmetrics.text import SacreBLEUScore

    return _of_corpus("bleu", SacreBLEUScore(), answers, references)


def chrf(answers: Sequence[str], references: Sequence[str]) -> Scored:
    """Corpus chrF over character n-grams alone."""
    from torchmetrics.text import CHRFScore

    return _of_corpus("chrf", CHRFScore(n_word_order=0), answers, references)


def _of_corpus(name: str, metric: Any, answers: Sequence[str], references: Sequence[str]) -> Scored:
    """A metric whose states are sums over answers: its value, interval and each answer's own value."""
    rows: list[Tensor] = []
    shapes: Mapping[str, Tensor] = {}
    for answer, reference in zip(answers, references, strict=True):
        shapes = {**_states(metric, answer, reference), **_of_reference(metric, reference)}
        rows.append(torch.cat([state.reshape(-1).double() for state in shapes.values()]))
    columns = torch.stack(rows)
    statistic = _statistic(metric, shapes)
    return {name: bootstrap.estimate(columns, statistic)}, {name: statistic(columns).tolist()}


def _states(metric: Any, answer: str, reference: str) -> dict[str, Tensor]:
    metric.reset()
    metric.update([answer], [[reference]])
    return {name: state.clone() for name, state in metric.metric_state.items()}


def _of_reference(metric: Any, reference: str) -> dict[str, Tensor]:
    """The counts of the reference's own n-grams: chrF as it is leaves out those of an answer without any
    match, which would raise its recall.
    """
    states = _states(metric, reference, reference)
    return {name: state for name, state in states.items() if name.startswith("total_target_")}


def _statistic(metric: Any, shapes: Mapping[str, Tensor]) -> Callable[[Tensor], Tensor]:
    """[R, K] sums of states -> [R] values of the metric."""
    names, sizes = list(shapes), [state.numel() for state in shapes.values()]
    forms = [(state.shape, state.dtype) for state in shapes.values()]

    def compute(sums: Tensor) -> Tensor:
        values: list[float] = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # compute without an update: the states are set by us
            for row in sums:
                metric.reset()
                parts = row.split(sizes)
                for name, part, (shape, dtype) in zip(names, parts, forms, strict=True):
                    setattr(metric, name, part.reshape(shape).to(dtype))
                values.append(float(metric.compute()))
        return torch.tensor(values, dtype=torch.float64)

    return compute
