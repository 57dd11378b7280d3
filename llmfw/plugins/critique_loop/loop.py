"""One round of the loop: answers, critiques of the wrong ones, refinements, and what of them is trained."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from llmfw import LlmfwError, Row
from llmfw.core.data import answer_of
from llmfw.core.generation import Attempt, Collected, Rollouts, distinct, trained_row

from .asking import Messages, fits, to_critic, to_refine
from .critics import Critic, criticised, read
from .errors import CritiqueError
from .functional import capped, generations, passes_barrier
from .grammar import Critique, Form
from .leaks import leaks
from .self_talk import self_talk
from .settings import CritiqueLoopConfig
from .steps import located, wrong_steps

_PROOF = 8
"""So many critiques of which none can be read prove that the critic can't write any; fewer may be chance."""


@dataclass
class Trace:
    """A wrong answer, what the critic said of it, and the refinements that followed."""

    attempt: Attempt
    text: str
    critique: Critique | None
    tokens: int
    refined: list[Attempt] = field(default_factory=list)

    @property
    def problem(self) -> str:
        """Id of the problem."""
        return str(self.attempt.row["id"])


@dataclass(frozen=True)
class Kept:
    """A right refinement that is trained, and where it comes from."""

    trace: Trace
    attempt: Attempt


@dataclass(frozen=True)
class Found:
    """What a round's sampling has brought."""

    collected: Collected
    kept: Sequence[Kept]
    traces: Sequence[Trace]


def collect(
    config: CritiqueLoopConfig, critic: Critic, form: Form, rollouts: Rollouts, rows: Sequence[Row]
) -> Found:
    """Sample answers, have the wrong ones criticised (by nobody where the critic has no policy), refine them,
    and choose.

    Raises:
        CritiqueError: CRITIC-UNPARSED: of eight critiques or more not one can be read, and such aren't
            used.
    """
    groups = rollouts.attempt(rows, purpose="sample", samples=config.samples)
    flat = [attempt for group in groups for attempt in group]
    right = [attempt for attempt in flat if attempt.right]
    wrong = [attempt for attempt in flat if critic.policy is not None and mistaken(attempt)]
    traces, notes = criticise(config, critic, form, rollouts, wrong)
    notes |= refine(config, critic, form, rollouts, traces)
    kept, chosen = choose(config, traces)
    notes |= chosen | texts(config, groups, wrong, traces) if critic.policy is not None else {}
    trained = [*right, *(one.attempt for one in kept)]
    if config.unique:
        trained = distinct(trained)
        names = {id(attempt) for attempt in trained}
        kept = [one for one in kept if id(one.attempt) in names]
    made = [trained_row(attempt, rollouts.index) for attempt in trained]
    made += more_rows(config, form, rollouts.index, kept)
    return Found(Collected(attempts=flat, notes=notes, rows=made), kept, traces)


def mistaken(attempt: Attempt) -> bool:
    """Whether an answer is criticised: it isn't right, and that isn't the judge's failure."""
    return not attempt.right and attempt.verdict.status != "failed"


def criticise(
    config: CritiqueLoopConfig,
    critic: Critic,
    form: Form,
    rollouts: Rollouts,
    wrong: Sequence[Attempt],
) -> tuple[list[Trace], dict[str, float]]:
    """One greedy critique of each wrong answer that the critic can read, and numbers about them."""
    prompts = [to_critic(attempt.row, attempt.text, form) for attempt in wrong]
    short = [at for at, prompt in enumerate(prompts) if fits(critic.policy, prompt)]

    def generate(policy: Any, asked: Sequence[Messages], **sampling: Any) -> list[Any]:
        return list(rollouts.ledger.generate(policy, asked, purpose="critique", **sampling))

    said = criticised(critic, [prompts[at] for at in short], generate, config.critique_tokens)
    traces = [
        Trace(wrong[at], answer.text, read(critic, answer.text, form), answer.tokens)
        for at, answer in zip(short, said, strict=True)
    ]
    unread = sum(trace.critique is None for trace in traces)
    if unread == len(traces) >= _PROOF and not critic.silent and config.unparsed == "skip":
        raise CritiqueError(
            "CRITIC-UNPARSED",
            f"round {rollouts.index}: none of {unread} critiques keeps to the grammar (form {config.form}), "
            f"the first is {traces[0].text[:60]!r}",
            mend="train the critic longer (critique_loop.critic_epochs), give it more room "
            "(critique_loop.critique_tokens), or set critique_loop.unparsed=use",
            key="critique_loop.critic",
        )
    return traces, numbers(traces, len(wrong) - len(short))


def numbers(traces: Sequence[Trace], too_long: int) -> dict[str, float]:
    """``critique/asked``, and ``too_long`` to be; the shares of these that can't be read and that say the
    gold answer; of those that can be read the share that call the answer wrong, as all of them are; and
    ``first_error_hit`` over the answers with a wrong step, where the steps' truth is known. Nothing of none.
    """
    told = [trace.critique for trace in traces if trace.critique is not None]
    leaked = [leaks(trace.text, str(trace.attempt.row["answer"])) for trace in traces]
    found: dict[str, Sequence[float]] = {
        "asked": [float(len(traces))] if traces else [],
        "too_long": [float(too_long)] if too_long else [],
        "unparsed": [trace.critique is None for trace in traces],
        "leak": leaked,
        "found_wrong": [not one.correct for one in told],
        "first_error_hit": hits(traces),
    }
    return {f"critique/{name}": sum(values) / len(values) for name, values in found.items() if values}


def hits(traces: Sequence[Trace]) -> list[bool]:
    """For each answer with a wrong step whether its critique finds the first of them; answers whose steps
    nobody knows are left out.
    """
    found = []
    for trace in traces:
        with suppress(LlmfwError):  # its row is no chain
            at = wrong_steps(trace.attempt.row, trace.attempt.text)
            if at is not None:
                found.append(trace.critique is not None and located(trace.critique, trace.attempt.text) == at)
    return found


def refine(
    config: CritiqueLoopConfig, critic: Critic, form: Form, rollouts: Rollouts, traces: Sequence[Trace]
) -> dict[str, float]:
    """Give each trace its refinements: answers to the problem, the wrong answer and the critique."""
    count = config.refinements or config.samples
    use = critic.silent or config.unparsed == "use"
    by_number: dict[int, list[tuple[Trace, Messages]]] = defaultdict(list)
    too_long = 0
    for trace in traces:
        if trace.critique is None and not use:
            continue
        prompt = to_refine(trace.attempt.row, trace.attempt.text, trace.text, form)
        if fits(rollouts.policy, prompt):
            by_number[trace.attempt.number].append((trace, prompt))
        else:
            too_long += 1
    for number, asked in sorted(by_number.items()):  # each wrong answer has numbers of its own
        groups = rollouts.attempt(
            [trace.attempt.row for trace, _ in asked],
            purpose="refine",
            samples=count,
            first=config.samples + number * count,
            prompts=[prompt for _, prompt in asked],
        )
        for (trace, _), group in zip(asked, groups, strict=True):
            trace.refined = group
    every = [attempt.right for trace in traces for attempt in trace.refined]
    told = {"refine/attempts": float(len(every)), "refine/too_long": float(too_long)}
    right = {"refine/right": sum(every) / len(every)} if every else {}
    return {**(told if traces else {}), **right}


def choose(config: CritiqueLoopConfig, traces: Sequence[Trace]) -> tuple[list[Kept], dict[str, float]]:
    """The right refinements that pass the barrier, at most ``reserved`` of each critique (a problem's equal
    critiques count as one), and how many were turned away.
    """
    right = [Kept(trace, attempt) for trace in traces for attempt in trace.refined if attempt.right]
    passed = [one for one in right if not config.barrier or _passes(config, one)]
    kept = capped(passed, lambda one: (one.trace.problem, one.trace.text), config.reserved)
    return kept, {
        "refine/barred": float(len(right) - len(passed)),
        "refine/kept": float(len(kept)),
        "refine/rescued": float(len({one.trace.problem for one in kept})),
    }


def texts(
    config: CritiqueLoopConfig,
    groups: Sequence[Sequence[Attempt]],
    wrong: Sequence[Attempt],
    traces: Sequence[Trace],
) -> dict[str, float]:
    """``texts/spent``: generated in the round; ``texts/full``: what N + k (1 + N) of each problem comes to.
    They differ by critiques that weren't asked for or couldn't be used.
    """
    mistakes = Counter(str(attempt.row["id"]) for attempt in wrong)
    full = sum(
        generations(len(group), mistakes[str(group[0].row["id"])], config.refinements) for group in groups
    )
    spent = sum(map(len, groups)) + len(traces) + sum(len(trace.refined) for trace in traces)
    return {"texts/full": float(full), "texts/spent": float(spent)}


def _passes(config: CritiqueLoopConfig, one: Kept) -> bool:
    response = one.trace.attempt
    return passes_barrier(one.attempt.text, response.text, answer_of(response.row), config.slack)


def more_rows(config: CritiqueLoopConfig, form: Form, index: int, kept: Sequence[Kept]) -> list[Row]:
    """Refinements as answers to their critiques, and as self-talk, where the settings want them."""
    made: list[Row] = []
    for one in kept if config.refine_turn else ():
        response = one.trace.attempt
        made.append(
            {
                **trained_row(one.attempt, index),
                "id": f"{trained_row(one.attempt, index)['id']}.turn",
                "prompt": to_refine(response.row, response.text, one.trace.text, form),
            }
        )
    for one in kept if config.self_talk else ():
        if one.trace.critique is None:
            continue
        text = self_talk(one.trace.attempt.text, one.trace.critique, one.attempt.text)
        if text is not None:
            row = trained_row(one.attempt, index)
            made.append({**row, "id": f"{row['id']}.talk", "completion": text})
    return made


def told(traces: Sequence[Trace], index: int) -> list[dict[str, Any]]:
    """A line for each wrong answer: what was said of it, and what became of it."""
    return [
        {
            "id": f"{trace.problem}.{index}.{trace.attempt.number}",
            "round": index,
            "y": trace.attempt.text,
            "ok_y": trace.attempt.right,
            "critique": trace.text,
            "verdict": None if trace.critique is None else trace.critique.correct,
            "first_error": None if trace.critique is None else trace.critique.first_error,
            "y_ref": [attempt.text for attempt in trace.refined],
            "ok_ref": [attempt.right for attempt in trace.refined],
            "cost_tokens": trace.tokens + sum(attempt.completion.tokens for attempt in trace.refined),
        }
        for trace in traces
    ]
