"""What every run over preference pairs measures beside its loss; plugins add these records to their own.

The loss's own metrics hold the means (``rewards/margins`` and so on); here are their intervals and counts on
held-out pairs, named as an ``Estimate``'s parts are, and the length of the policy's own answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from llmfw.core.records import Evaluation, EvaluationResult, NamedMetric

if TYPE_CHECKING:
    from llmfw.callbacks.pair_statistics import Longer, PairStatistic, PairSums
    from llmfw.core.batch import Batch, LossOutput
    from llmfw.core.records import Row


def pair_metrics(stage: Literal["train", "validation"]) -> Sequence[NamedMetric]:
    """Held-out pairs: 95% intervals and n of margin (Student's t) and accuracy (Wilson), n by the longer
    side, and ``length/margin_correlation``, Pearson's r of length gap and margin. The pairs count as
    independent. Training steps hold too few pairs for any of them: nothing there.
    """
    if stage != "validation":
        return []
    return [
        _metric("rewards/margins/low", lambda sums: sums.mean_margin.low),
        _metric("rewards/margins/high", lambda sums: sums.mean_margin.high),
        _metric("rewards/margins/n", lambda sums: sums.n),
        _metric("rewards/accuracies/low", lambda sums: sums.accuracy.low),
        _metric("rewards/accuracies/high", lambda sums: sums.accuracy.high),
        _metric("rewards/accuracies/n", lambda sums: sums.n),
        _metric("rewards/accuracies/chosen_longer/n", lambda sums: sums.n, "chosen"),
        _metric("rewards/accuracies/rejected_longer/n", lambda sums: sums.n, "rejected"),
        _metric("length/margin_correlation", lambda sums: sums.correlation),
    ]


def _metric(name: str, read: Callable[[PairSums], float], longer: Longer = "any") -> NamedMetric:
    return NamedMetric(name=name, factory=partial(_build, read, longer), update=_update)


def _build(read: Callable[[PairSums], float], longer: Longer) -> PairStatistic:
    from llmfw.callbacks.pair_statistics import PairStatistic  # brings torchmetrics: seconds

    return PairStatistic(read, longer)


def _update(metric: PairStatistic, output: LossOutput, batch: Batch) -> None:
    metric.update(output.details["margin"], output.details["length_gap"])


def answer_length(rows: Callable[[str], Sequence[Row]], prompts: int) -> Evaluation:
    """Length of the answers to the first ``prompts`` different held-out prompts, before and after training.

    ``rows``: the run's ``rows``. Sampled with the run's ``generation`` settings.
    """
    return Evaluation(name="answer_length", run=partial(_answer_length, rows, prompts), when=("start", "end"))


def _answer_length(
    rows: Callable[[str], Sequence[Row]], prompts: int, policy: Any, services: Any
) -> EvaluationResult:
    from llmfw.core.generation import generated_length, prompt_of

    different: list[Any] = []
    for row in rows("validation"):
        prompt = prompt_of(row)
        if len(different) < prompts and prompt not in different:
            different.append(prompt)
    return generated_length(policy, different) if different else EvaluationResult()
