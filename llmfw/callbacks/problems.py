"""How many held-out problems a policy solves: greedily, in one of k samples, by a vote of k; by level."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from math import comb
from typing import TYPE_CHECKING, Any

from llmfw.callbacks.intervals import mean_interval, share_interval
from llmfw.core.records import Estimate, Evaluation, EvaluationResult
from llmfw.core.say import say
from llmfw.core.verifiers.match import normalised, number_of

if TYPE_CHECKING:
    from llmfw.core.records import Row, Verdict


def solved(config: Any, run: Any) -> list[Evaluation]:
    """The share of the first ``config.problems`` held-out problems that are solved; [] where that is 0.

    ``solved`` (greedy) with Wilson's 95% interval, and for each level ``solved/level/L``; ``solved/tokens``
    generated per answer; ``solved/unparsed``. With k = ``config.vote`` above 0 also ``solved/pass@j`` for
    j = 1, 2, 4 ... k, ``solved/maj@k`` (``majority``), ``solved/distinct`` (different right answers' texts
    per problem) and ``solved/sampled_tokens``, all of the samples, per problem. Intervals of these are
    Student's t over problems.

    Args:
        config: has ``problems``, ``vote``, ``temperature`` (of samples), ``verifier`` (a service).
    """
    if not config.problems:
        return []
    if config.vote > 1 and config.temperature == 0:
        say(
            f"warning[SAME-SAMPLES] at temperature=0 the vote={config.vote} samples of a held-out problem "
            "are one and the same: solved/pass@k and solved/maj@k say what solved/pass@1 does"
        )
    run.expect_service("Verifier", config.verifier)
    measure = partial(
        _solved, run.rows, config.verifier, config.problems, config.vote, config.temperature, run.seed
    )
    return [Evaluation(name="solved", run=measure, when=("start", "end"))]


def _solved(
    rows: Callable[[str], Sequence[Row]],
    verifier: str,
    problems: int,
    samples: int,
    temperature: float,
    seed: int,
    policy: Any,
    services: Any,
) -> EvaluationResult:
    from llmfw.core.generation import prompt_of

    asked = list(rows("validation"))[:problems]
    if not asked:
        return EvaluationResult()
    judge = services("Verifier", verifier)
    prompts = [prompt_of(row) for row in asked]
    names = [f"solved/{row['id']}" for row in asked]
    greedy = policy.generate(prompts, temperature=0.0, samples=1)
    verdicts = judge.verify(asked, [answer.text for answer in greedy])
    hits = [v.right and a.finish == "stop" for v, a in zip(verdicts, greedy, strict=True)]
    metrics: dict[str, float | Estimate] = {"solved": share_interval(sum(hits), len(hits))}
    metrics |= by_level(asked, hits)
    metrics["solved/tokens"] = sum(answer.tokens for answer in greedy) / len(greedy)
    metrics["solved/unparsed"] = sum(v.status == "unparsed" for v in verdicts) / len(verdicts)
    table = [
        {
            "id": row["id"], "level": str(row.get("level", "")), "prompt": str(row["prompt"]),
            "expected": str(row["answer"]), "answer": answer.text, "solved": hit,
        }
        for row, answer, hit in zip(asked, greedy, hits, strict=True)
    ]  # fmt: skip
    if samples:
        drawn = policy.generate(prompts, temperature=temperature, samples=samples, seed=seed, ids=names)
        repeated = [row for row in asked for _ in range(samples)]
        judged = judge.verify(repeated, [answer.text for answer in drawn])
        metrics |= of_samples(drawn, judged, samples)
    return EvaluationResult(metrics=metrics, tables={"solved": table})


def by_level(rows: Sequence[Row], hits: Sequence[bool]) -> dict[str, Estimate]:
    """``solved/level/L`` of each level that rows have."""
    found: dict[str, list[bool]] = defaultdict(list)
    for row, hit in zip(rows, hits, strict=True):
        if "level" in row:
            found[str(row["level"])].append(hit)
    return {
        f"solved/level/{level}": share_interval(sum(own), len(own)) for level, own in sorted(found.items())
    }


def of_samples(answers: Sequence[Any], verdicts: Sequence[Verdict], k: int) -> dict[str, float | Estimate]:
    """What the k samples of each problem, side by side, are worth."""
    right = [v.right and a.finish == "stop" for v, a in zip(verdicts, answers, strict=True)]
    groups = [range(start, start + k) for start in range(0, len(answers), k)]
    found: dict[str, float | Estimate] = {}
    sizes = [size for size in (1, 2, 4, 8, 16, 32, 64) if size < k] + [k]
    for size in sizes:
        found[f"solved/pass@{size}"] = _mean([pass_at(k, sum(right[i] for i in own), size) for own in groups])
    if any(verdict.answer is not None for verdict in verdicts):  # of programs there's no answer to vote on
        voted = [majority([verdicts[i].answer for i in own], [right[i] for i in own]) for own in groups]
        found[f"solved/maj@{k}"] = _mean([float(hit) for hit in voted])
    texts = [len({" ".join(answers[i].text.split()) for i in own if right[i]}) for own in groups]
    found["solved/distinct"] = sum(texts) / len(texts)
    found["solved/sampled_tokens"] = sum(answer.tokens for answer in answers) / len(groups)
    return found


def pass_at(n: int, right: int, k: int) -> float:
    """Chance that one of k of n samples is right, ``right`` of them being so: 1 - C(n - c, k) / C(n, k),
    unbiased (arXiv 2107.03374, eq. 1).

    Raises:
        ValueError: k isn't one to n.
    """
    if not 1 <= k <= n:
        raise ValueError(f"{k} of {n} samples")
    return 1.0 - comb(n - right, k) / comb(n, k)


def majority(answers: Sequence[str | None], right: Sequence[bool]) -> bool:
    """Whether the most frequent final answer is right; samples without one don't vote, of equals the earliest
    wins, and where nobody votes nothing is right. Equal numbers, and words but for case and spacing, are one
    answer however they're written.
    """
    said = [None if answer is None else _vote(answer) for answer in answers]
    votes = Counter(vote for vote in said if vote is not None)
    if not votes:
        return False
    winner = votes.most_common(1)[0][0]  # of equals the one counted first
    return any(hit for vote, hit in zip(said, right, strict=True) if vote == winner)


def _vote(answer: str) -> Fraction | str:
    number = number_of(answer)
    return normalised(answer) if number is None else number


def _mean(values: Sequence[float]) -> Estimate:
    return mean_interval(len(values), sum(values), sum(value * value for value in values))
