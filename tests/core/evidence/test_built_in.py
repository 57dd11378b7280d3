"""The evidence of the plugins that come with llmfw, present and future: its values bear it out."""

from __future__ import annotations

import time

import pytest

from llmfw.core import discovery
from llmfw.core.claims import Size
from llmfw.core.evidence.definition import define
from llmfw.core.evidence.document import faults, read_evidence
from llmfw.core.evidence.filing import MEANING
from llmfw.core.evidence.pages import README, with_section
from llmfw.core.evidence.run import run_claims
from llmfw.core.evidence.schedule import counted, make_schedule
from llmfw.core.evidence.stated import read_claims, states_claims, told

BUILT_IN = {name: card for name, card in discovery.cards().items() if card.value.startswith("llmfw.")}
STATED = sorted(name for name, card in BUILT_IN.items() if states_claims(card))
MEASURED = sorted(name for name, card in BUILT_IN.items() if card.folder and read_evidence(card.folder))


@pytest.mark.parametrize("name", MEASURED)
def test_every_mean_interval_and_verdict_follows_from_the_raw_values(name):
    assert faults(read_evidence(BUILT_IN[name].folder)) == []


@pytest.mark.parametrize("name", MEASURED)
def test_the_readme_shows_the_evidence_as_it_is(name):
    folder = BUILT_IN[name].folder
    text = (folder / README).read_text(encoding="utf-8")
    assert with_section(text, read_evidence(folder)) == text, "run: python scripts/write_docs.py"


@pytest.mark.parametrize("name", MEASURED)
def test_the_evidence_answers_the_claims_that_are_stated_with_the_arms_as_they_are(name):
    """Values of a claim or an arm that was changed since are of something else."""
    stated = read_claims(name)
    claims = {claim.id: claim for claim in stated.claims}
    entries = read_evidence(stated.folder)["claims"]
    for entry in entries:
        claim = claims[entry["id"]]
        assert {key: entry[key] for key in MEANING} == {key: told(claim)[key] for key in MEANING}
        assert all(len(commit) == 40 for arm in entry["arms"].values() for commit in arm["commits"].values())
        words = counted(entry.get("settings", ()))
        for seed in {seed for arm in entry["arms"].values() for seed in arm["values"]}:
            now = stated.arms(claim, int(seed), entry["size"])
            for arm_name, arm in entry["arms"].items():
                arm_now = now[arm_name]
                wanted = define(arm_now, entry["size"], words if arm_now.run is None else (), stated.folder)
                assert arm["definitions"].get(seed, wanted) == wanted, (entry["id"], arm_name, seed)
    untested = {claim.id for claim in stated.claims if claim.not_tested}
    assert untested <= {entry["id"] for entry in entries if entry["verdict"] == "not tested"}


@pytest.mark.parametrize("size", ["smoke", "small"])
@pytest.mark.parametrize("name", STATED)
def test_every_stated_arm_can_be_made(name, size: Size):
    assert make_schedule(read_claims(name), size).tasks


@pytest.mark.slow
@pytest.mark.parametrize("name", STATED)
def test_every_claim_runs_at_size_smoke_within_twenty_seconds_of_processor_time(name, tmp_path, monkeypatch):
    """Wall-clock time hangs on what else runs; two cores at work for 20 s are 40 s of a processor."""
    monkeypatch.setenv("LLMFW_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    schedule = make_schedule(read_claims(name), "smoke")
    begun = time.process_time()
    found = run_claims(schedule)
    assert time.process_time() - begun < 40
    assert set(found.verdicts.values()) <= {
        "reproduced", "opposite", "not reproduced", "inconclusive", "not tested"
    }  # fmt: skip
