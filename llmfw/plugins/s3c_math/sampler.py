"""Rounds: a model for each fold, trained on the others; then the mix, from the base weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from llmfw import Round, Row
from llmfw.core.data import Encoder, TextTokenizer, canonical
from llmfw.core.generation import Rollouts, prompt_of

from .annotate import by_template, consistent, from_teacher, to_teacher
from .borders import on_tokens
from .errors import SettingsError, SolutionError
from .mix import Draft, corrected_row, drafts, plain_rows, spans_of, wanted, where
from .pool import Found, dealt, made, sampled, told
from .segments import Segment, text_of, with_repair, with_retry
from .solution import lines_of, steps_of

if TYPE_CHECKING:
    from .settings import Settings

Said = tuple[str, str]
"""Reflection and improvement."""


def corrections(config: Settings, run: Any) -> Callable[..., Round | None]:
    """The sampler's ``next``: ``folds`` rounds that are kept as ``fold_0`` ..., unless nothing is sampled,
    and the round of the mix.

    Raises:
        SettingsError: SETTINGS: whole solutions done again have one error; a mark that isn't one word.
    """
    if len(config.mark.split()) != 1 or config.mark != config.mark.strip():
        raise SettingsError(
            "SETTINGS", f"{config.mark!r} can't be recognised at the beginning of a line",
            mend="give one word", key="s3c_math.mark",
        )  # fmt: skip
    if config.level == "solution" and config.errors > 1:
        raise SettingsError(
            "SETTINGS",
            "a whole solution that is done again has one error",
            mend="set s3c_math.errors=1, or s3c_math.level=step",
            key="s3c_math.errors",
        )
    folds = 0 if config.source == "perturbed" else config.folds

    def next_round(index: int, rows: Sequence[Row], policy: Any, services: Any, ledger: Any) -> Round | None:
        for row in rows:
            steps_of(row)
        if index < folds:
            fold_of = dealt(rows, folds, run.seed)
            others = [row for row in rows if fold_of[str(row["id"])] != index]
            return Round(records=plain_rows(others, 0.0), keep_as=f"fold_{index}", epochs=config.fold_epochs)
        if index > folds:
            return None
        found = pooled(config, run, rows, services, ledger, index)
        records, notes = mixed(config, run, rows, found, policy.tokenizer, ledger)
        return Round(
            records=records,
            epochs=passes(policy.tokenizer, records, config.tokens),
            notes={**told(found.counts, config.rollouts), **notes},
            tables={"errors": where(records)} if notes["mix/corrected"] else {},
        )

    return next_round


def pooled(config: Settings, run: Any, rows: Sequence[Row], services: Any, ledger: Any, index: int) -> Found:
    """The wrong steps of all problems: of each fold by the model that was trained without it."""
    found = Found(counts=Counter())
    if config.source != "perturbed":
        fold_of = dealt(rows, config.folds, run.seed)
        for fold in range(config.folds):
            asked = Rollouts(
                policy=run.policy(f"fold_{fold}"),
                ledger=ledger,
                verifier=services("Verifier", config.verifier),
                index=index,
                seed=run.seed,
                temperature=config.rollout_temperature,
            )
            part = sampled(
                asked,
                [row for row in rows if fold_of[str(row["id"])] == fold],
                fold,
                candidates=config.candidates,
                temperature=config.temperature,
                count=config.rollouts,
                audit=config.audit,
            )
            found.pool |= part.pool
            found.counts += part.counts
    if config.source != "sampled":
        beside = found.pool if config.source == "both" else None
        part = made(rows, run.seed, config.candidates, beside=beside)
        found.pool |= part.pool
        found.counts += part.counts
    return found


def mixed(
    config: Settings, run: Any, rows: Sequence[Row], found: Found, tokenizer: Any, ledger: Any
) -> tuple[list[Row], dict[str, float]]:
    """(records, notes) of the mix: the plain solutions, then the corrected ones.

    Raises:
        SolutionError: NO-ERRORS: no wrong step was found for any problem; NO-CORRECTIONS: some were found,
            and nothing corrected was written.
    """
    plain = plain_rows(rows, config.share_corrected)
    every = drafts(rows, found.pool, config.errors, run.seed)
    number = wanted(len(rows), config.share_corrected, len(every))
    if config.share_corrected and not every:
        raise SolutionError(
            "NO-ERRORS",
            f"no step of {len(rows)} problems was judged wrong, so there is nothing to correct",
            mend="raise s3c_math.candidates or s3c_math.temperature, train fold models less "
            "(s3c_math.fold_epochs), or take s3c_math.source=both",
            key="s3c_math.source",
        )
    chosen = every[:number]
    words = annotated(config, run, chosen, ledger)
    text = None if tokenizer is None else TextTokenizer(tokenizer)
    records: list[Row] = []
    for draft, said in zip(chosen, words, strict=True):
        if all(one is not None for one in said.values()):
            segments = written(config, draft, {at: one for at, one in said.items() if one is not None})
            spans = spans_of(segments, mask_wrong=config.mask_wrong)
            exact = spans if text is None else on_tokens(text, text_of(segments), spans)
            records.append(corrected_row(draft, segments, exact if config.mask_wrong else None))
    if config.share_corrected and not records:
        raise nothing_corrected(config, len(rows), number)
    total = len(plain) + len(records)
    notes = {
        "mix/plain": float(len(plain)),
        "mix/corrected": float(len(records)),
        "mix/available": float(len(every)),
        "mix/rejected": float(number - len(records)),
        "mix/share": len(records) / max(1, total),
    }
    return [*plain, *records], notes


def nothing_corrected(config: Settings, problems: int, number: int) -> SolutionError:
    """Why a mix that should hold corrected solutions has none, though there are wrong steps."""
    if number:
        return SolutionError(
            "NO-CORRECTIONS",
            f"models.{config.teacher} said nothing of {number} solutions' wrong steps that can be used",
            mend="take another teacher, or s3c_math.annotator=template",
            key="s3c_math.annotator",
        )
    return SolutionError(
        "NO-CORRECTIONS",
        f"a share of {config.share_corrected:g} is less than one solution beside {problems} plain ones",
        mend="raise it, or give more problems",
        key="s3c_math.share_corrected",
    )


def annotated(
    config: Settings, run: Any, chosen: Sequence[Draft], ledger: Any
) -> list[dict[int, Said | None]]:
    """For each draft what is said of each of its wrong steps; None where the teacher's words can't be used:
    another form than asked for, or an improvement that isn't the gold step's.
    """
    asked = [(draft, at, wrong.text) for draft in chosen for at, wrong in draft.wrong.items()]
    said: list[Said | None]
    if config.annotator == "template":
        said = [
            (by_template(one.row, at, text, config.mark, run.seed), steps_of(one.row)[at])
            for one, at, text in asked
        ]
    else:
        said = taught(config, run, asked, ledger)
    answers = iter(said)
    return [{at: next(answers) for at in draft.wrong} for draft in chosen]


def taught(
    config: Settings, run: Any, asked: Sequence[tuple[Draft, int, str]], ledger: Any
) -> list[Said | None]:
    """The teacher's words of each wrong step."""
    answers = ledger.generate(
        run.policy(config.teacher),
        [
            to_teacher(_asked(one.row), steps_of(one.row)[:at], text, steps_of(one.row)[at])
            for one, at, text in asked
        ],
        purpose="teacher",
        seed=run.seed,
        ids=[f"teacher/{one.row['id']}/{one.variant}/{at}" for one, at, _ in asked],
    )
    found: list[Said | None] = []
    for (one, at, _), answer in zip(asked, answers, strict=True):
        said = from_teacher(answer.text, config.mark)
        steps = steps_of(one.row)
        fits = said is not None and consistent(one.row, steps[:at], said[1], steps[at])
        found.append(said if fits else None)
    return found


def written(config: Settings, draft: Draft, said: dict[int, Said]) -> list[Segment]:
    """The segments of a corrected solution."""
    lines = lines_of(draft.row)
    if config.level == "step":
        repairs = {at: (draft.wrong[at].text, *said[at]) for at in draft.wrong}
        return with_repair(lines, repairs, reflections=config.reflections)
    ((at, wrong),) = draft.wrong.items()
    attempt = [*steps_of(draft.row)[:at], wrong.text, *wrong.rest]
    return with_retry(lines, attempt, at, said[at][0], reflections=config.reflections)


def passes(tokenizer: Any, records: Sequence[Row], tokens: int | None) -> float | None:
    """Passes over the records in which ``tokens`` are seen, prompts included; None: as the trainer says."""
    if tokens is None:
        return None
    encoder = Encoder(tokenizer, max_length=1 << 30)
    total = 0
    for record in records:
        form, row = canonical(record)
        example = encoder.encode(form, row)
        total += example.length if example is not None else 0
    return tokens / total


def _asked(row: Row) -> str:
    prompt = prompt_of(row)
    if isinstance(prompt, str):
        return prompt
    last: Any = prompt[-1]
    return str(last["content"])
