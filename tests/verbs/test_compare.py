"""``llmfw compare`` and ``llmfw sync`` as they are typed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from llmfw.cli import run
from llmfw.core.tracking import read_record, update_record
from tests.core.tracking.making import DATA, make_run


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Path("runs")


@pytest.fixture
def two(runs: Path) -> Path:
    series = {
        "loss": [(1, 0.75), (2, 0.5)],
        "rewards/margins": [(1, 0.0), (2, 1.0)],
        "lr": [(1, 1.0), (2, 2.0)],
    }
    make_run(runs, "plain", config={**DATA, "ld_dpo.alpha": 1.0}, series=series)
    make_run(runs, "half", series={**series, "loss": [(1, 0.75), (2, 0.25)]})
    return runs


def test_without_arguments_the_last_runs_are_compared_and_a_report_is_written(
    two: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["compare"]) == 0
    out = capsys.readouterr().out
    assert "ld_dpo.alpha" in out
    assert "0.75 → 0.25 (-0.25)" in out
    assert f"report: {(two / 'report.html').absolute().as_uri()}" in out
    assert "1 more metrics" in out
    assert (two / "report.html").read_text().startswith("<!doctype html>")


def test_runs_and_baseline_are_named_by_any_of_their_names(
    two: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half = next(two.glob("*-half"))
    assert run(["compare", "plain", str(half), "--baseline", read_record(half).id[:6], "--no-report"]) == 0
    assert "0.75 → 0.5 (+0.25)" in capsys.readouterr().out
    assert not (two / "report.html").exists()


def test_a_baseline_that_was_not_named_joins_in(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compare", "half", "--baseline", "plain", "--no-report"]) == 0
    assert "0.75 → 0.25 (-0.25)" in capsys.readouterr().out


def test_json_goes_alone_to_standard_output(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compare", "--json", "--report", "page.html"]) == 0
    captured = capsys.readouterr()
    assert [item["name"] for item in json.loads(captured.out)["runs"]] == ["plain", "half"]
    assert "page.html" in captured.err
    assert Path("page.html").exists()
    assert run(["compare", "--json"]) == 0
    assert not (two / "report.html").exists()


def test_metrics_are_chosen_by_name_or_pattern(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compare", "--no-report", "--metric", "l?", "--metric", "rewards"]) == 0
    out = capsys.readouterr().out
    assert " lr " in out and "rewards/margins" in out
    assert "↓ loss" not in out
    assert run(["compare", "--no-report", "--all"]) == 0
    assert "more metrics" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--metric", "rewards/margin"], 2, "did you mean rewards/margins"),
        (["nobody"], 2, "no run is called 'nobody'"),
        (["--baseline", "nobody"], 2, "no run is called 'nobody'"),
        (["--experiment", "none"], 2, "'none'"),
        (["--report", "/proc/none/report.html"], 2, "--no-report"),
        (["--last", "0"], 2, "0"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    two: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, words: str
) -> None:
    assert run(["compare", *arguments]) == code
    err = capsys.readouterr().err.strip()
    assert err.startswith("error[") and "\n" not in err
    assert words in err


def test_nothing_to_compare_says_how_to_begin(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compare"]) == 2
    assert "llmfw fit" in capsys.readouterr().err


def test_comparing_imports_neither_torch_nor_mlflow(two: Path) -> None:
    import subprocess

    script = (
        "import sys\nfrom llmfw.cli import run\nassert run(['compare']) == 0\n"
        "heavy = {'torch', 'mlflow', 'lightning', 'transformers', 'pandas'}.intersection(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_sync_brings_all_waiting_runs_with_their_rounds_once(
    two: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from llmfw.core.tracking import open_run

    folders = sorted(path.parent for path in two.glob("*/run.json"))
    for folder in folders:
        update_record(folder, mlflow={"uri": f"sqlite:///{two.absolute()}/mlflow.db", "experiment": "here"})
    with open_run(
        name="round", folder=folders[0] / "rounds" / "000", parent=read_record(folders[0]).id
    ) as inner:
        inner.journal.metrics(1, {"loss": 1.0})
    update_record(inner.dir, mlflow=read_record(folders[0]).mlflow)
    assert run(["sync"]) == 0
    assert capsys.readouterr().out.count("items sent") == 3
    assert run(["sync"]) == 0
    assert "MLflow has everything" in capsys.readouterr().out
    assert read_record(inner.dir).mlflow["run_id"]
    known = read_record(folders[1]).mlflow["run_id"]
    assert run(["compare", known, known[:5], "--no-report"]) == 0


def test_a_run_that_was_not_meant_for_mlflow_is_sent_only_when_it_is_named(
    two: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["sync"]) == 0
    assert "MLflow has everything" in capsys.readouterr().out
    assert not (two / "mlflow.db").exists()
    assert run(["sync", "half"]) == 0
    assert "items sent" in capsys.readouterr().out
    assert (two / "mlflow.db").exists()
