"""The cost of a run, once it has ended: read from its journals, kept in its folder."""

from __future__ import annotations

from llmfw.core.assemble import Assembled
from llmfw.core.costs import FILE, Cost, Peak, parts_of, series_of
from llmfw.core.session import Session
from llmfw.core.tracking import read_journal
from llmfw.core.tracking.files import write_json
from llmfw.core.training.measuring import EVENT, SPENT, note_spent


def settle_costs(assembled: Assembled, session: Session, peak: Peak) -> Cost:
    """The run's cost: into ``costs.json``, the journal (``cost/tokens`` ...) and back to the caller.

    Processes other than the main one have no journal, and tell nothing.
    """
    if session.journal is None:
        return Cost()
    note_spent(assembled, session)
    session.journal.flush()
    rounds = sorted((session.dir / "rounds").glob("*/journal.jsonl"))
    own = read_journal(session.dir / "journal.jsonl")
    views = [read_journal(path) for path in rounds] or [own]
    trained = [event.fields for view in views for event in view.of("trained")[-1:]]
    samples = [event.fields for view in views for event in view.of(EVENT)]
    spent = [
        event.fields
        for view in {id(view): view for view in (own, *views)}.values()
        for event in view.of(SPENT)
    ]
    parts = parts_of(samples, spent)
    host, gpu = peak.host, peak.gpu
    cost = Cost(
        tokens=sum(int(told.get("tokens", 0)) for told in trained),
        train_seconds=sum(float(told.get("seconds", 0.0)) for told in trained),
        seconds=own.seconds,
        host_gib=None if host is None else host / 2**30,
        gpu_gib=None if gpu is None else gpu / 2**30,
        memory=peak.how,
        parts=parts,
    )
    write_json(session.dir / FILE, cost.to_json())
    figures = ("tokens", "train_seconds", "seconds", "host_gib", "gpu_gib")
    known = {f"cost/{name}": float(value) for name in figures if (value := getattr(cost, name)) is not None}
    session.journal.metrics(own.last_step, {**known, **series_of(parts)})
    return cost
