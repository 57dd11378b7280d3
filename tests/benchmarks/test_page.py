"""docs/benchmarks.md is made of the results alone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import record

ROOT = Path(__file__).parents[2]


@pytest.fixture
def page(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from docpages import benchmarks

    yield benchmarks
    for name in [name for name in sys.modules if name.split(".")[0] == "docpages"]:
        del sys.modules[name]


def rows():
    row = record.row
    return [
        row(
            "ragged: as installed", ours=200.0, peer=100.0, peer_name="trl", unit="tokens/s", repetitions=3,
            goal=("at least", 2.0), ours_spread=[190.0, 210.0], peer_spread=[100.0, 100.0], flop_ratio=1.5,
        ),
        row(
            "wide: peak memory", ours=3.0, peer=6.0, peer_name="trl", unit="GiB", repetitions=3,
            goal=("at most", 0.25),
        ),
        row(
            "ragged: loss", ours=0.5, peer=0.5, peer_name="trl", unit="nats", repetitions=3,
            goal=("at most", 1e-4), judged=2e-6,
        ),
        row(
            "ragged: useful FLOP/s over the GEMM rate", ours=0.4, peer=0.2, peer_name="trl",
            unit="share of the GEMM rate", repetitions=3, kind="roofline",
        ),
    ]  # fmt: skip


@pytest.fixture
def results(tmp_path: Path) -> Path:
    settings = {"threads": 2, "sides": {"llmfw": ["trainer.layout=auto"], "trl": {"bf16": False}, "raw": []}}
    record.write("dpo_step", rows(), versions={"trl": "1.16.0"}, folder=tmp_path, settings=settings)
    return tmp_path


def test_every_row_stands_in_the_table_with_its_goal(page, results):
    text = page.benchmarks_page("", results)
    assert "| ragged: as installed | 200 (190 to 210) | 100 | trl | tokens/s | 2 | at least 2 | met |" in text
    assert "| wide: peak memory | 3 | 6 | trl | GiB | 0.5 | at most 0.25 | **missed** |" in text
    assert "| ragged: loss | 0.5 | 0.5 | trl | nats | 2e-06 apart | at most 0.0001 | met |" in text
    roofline = "| ragged: useful FLOP/s over the GEMM rate | 0.4 | 0.2 | trl | share of the GEMM rate | 2 |"
    assert roofline in text


def test_each_goal_has_a_sentence_that_says_whether_it_was_met(page, results):
    text = page.benchmarks_page("", results)
    met = (
        "- Met: ragged: as installed; the ratio is 2, the goal at least 2 (the peer's FLOPs over ours: 1.5)."
    )
    assert met in text
    assert "- **Missed**: wide: peak memory; the ratio is 0.5, the goal at most 0.25." in text
    assert "- Met: ragged: loss; it is 2e-06, the goal at most 0.0001." in text


def test_the_settings_of_each_side_are_shown(page, results):
    text = page.benchmarks_page("", results)
    assert "- *llmfw*: `trainer.layout=auto`\n- *trl*: `bf16=False`\n- *raw*: its defaults" in text


def test_parts_of_a_result_stand_under_one_heading_each_with_its_table(page, tmp_path):
    for part, seconds in (("b", 2.0), ("a", 1.0)):
        one = [record.row(f"case {part}", ours=seconds, unit="s", repetitions=1)]
        record.write("sft_step", one, part=part, versions={}, folder=tmp_path)
    text = page.benchmarks_page("", tmp_path)
    under = text.partition("`python -m benchmarks.sft_step`")[2].partition("\n## ")[0]
    assert 0 < under.index("| case a | 1 ") < under.index("| case b | 2 ")
    assert text.count("Not measured yet.") == len(page.PROGRAMS) - 1


def test_the_readme_shows_every_step_beside_a_peer_also_where_it_is_tuned(page, tmp_path):
    def row(case: str, peer: str, unit: str, ours: float) -> dict[str, Any]:
        return record.row(
            case, ours=ours, peer=2.0, peer_name=peer, ours_name="llmfw", unit=unit, repetitions=3
        )

    measured = [
        row("pairs: as installed", "trl", "tokens/s", 6.0),
        row("pairs: as installed", "trl, tuned", "tokens/s", 4.0),
        row("pairs: against ourselves", "llmfw, padded", "tokens/s", 4.0),
        row("pairs: measured once", "trl", "tokens/s", 9.0) | {"repetitions": 1},
        row("pairs: peak memory", "trl", "GiB", 1.0),
        row("pairs: memory beyond what was loaded", "trl", "GiB", 0.5),
    ]
    record.write("dpo_step", measured, part="pairs", versions={"trl": "1.16.0"}, folder=tmp_path)
    assert "; 1 or 3 repetitions, " in page.benchmarks_page("", tmp_path)
    assert page.beside_peers(tmp_path).splitlines()[2:] == [
        "| pairs: as installed | trl 1.16.0 | 6 | 2 | 3 | 0.5 |",
        "| pairs: as installed | trl 1.16.0, tuned | 4 | 2 | 2 |  |",
    ]


def test_what_was_not_measured_is_said_and_what_was_only_tried_too(page, tmp_path):
    record.write("startup", rows()[:1], versions={}, folder=tmp_path, settings={"tiny": True})
    text = page.benchmarks_page("NOTE\n", tmp_path)
    assert text.startswith("NOTE\n# Benchmarks")
    assert text.count("Not measured yet.") == len(page.PROGRAMS) - 1
    assert "no measurement" in text


def test_a_result_that_the_page_does_not_know_is_shown_by_its_programs_own_words(page, tmp_path):
    record.write(
        "roofline", [record.row("case", ours=2.0, unit="s", repetitions=1)], versions={}, folder=tmp_path
    )
    text = page.benchmarks_page("", tmp_path)
    assert (
        "## Roofline\n\nThe machine's own rate: floating-point operations a second of a large matrix" in text
    )
    assert "| case | 2 |" in text


def test_every_program_that_is_named_is_there(page):
    assert all((ROOT / "benchmarks" / f"{name}.py").is_file() for name in page.PROGRAMS)


def test_a_long_list_of_goals_is_counted(page, tmp_path):
    many = [rows()[2] | {"case": f"case {number}"} for number in range(30)]
    many[3]["met"] = False
    record.write("trl_ld_dpo", many, versions={}, folder=tmp_path)
    text = page.benchmarks_page("", tmp_path)
    assert "- 29 of 30 goals met." in text and "- **Missed**: case 3;" in text and "- Met: case 4" not in text
