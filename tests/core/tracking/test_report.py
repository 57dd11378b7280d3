"""The report works from a file, without a network, and runs nobody's scripts but its own two."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from llmfw.core.tracking import compare, list_runs, write_report
from llmfw.core.tracking.charts import MOST_POINTS
from tests.core.tracking.making import DATA, make_run

EVIL = "<script>document.title='evil'</script>"
IMAGE = "<img src=x onerror=\"document.title='evil'\">"


class Reader(HTMLParser):
    """Collects elements and the text outside scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside not in ("script", "style"):
            self.text += data


def read(path: Path) -> Reader:
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """A report over runs whose every text tries to be markup."""
    runs = tmp_path / "runs"
    config = {**DATA, EVIL: IMAGE, "note": "</script></style></pre>", "ld_dpo.alpha": "&lt;b&gt;"}
    series = {
        "loss": [(step, 1 / step) for step in range(1, 30)],
        f"{EVIL}/loss": [(1, 1.0), (2, 0.5)],
        "rewards/margins": [(1, 0.0), (9, 1.0)],
    }
    series |= {
        "rewards/margins/low": [(9, 0.5)],
        "rewards/margins/high": [(9, 1.5)],
        "flat": [(1, 3.0), (2, 3.0)],
        "gap_loss": [(1, 1.0), (2, float("nan")), (3, 2.0)],
    }
    tables = {"answers": [{EVIL: IMAGE, "prompt": EVIL}], EVIL.replace("/", ""): [{"a": 1}]}
    make_run(runs, EVIL, config=config, series=series, plugins={EVIL: IMAGE}, tables=tables)
    make_run(
        runs,
        IMAGE,
        series={**series, "loss": [(1, 2.0), (2, 3.0)]},
        tables={"answers": [{"prompt": EVIL, EVIL: "<b>other</b>"}]},
    )
    path = tmp_path / "out" / "report.html"
    write_report(compare(list_runs(runs)), path)
    return path


def test_texts_from_runs_are_shown_and_never_become_elements(report: Path) -> None:
    page = read(report)
    assert page.text.count(EVIL) >= 5
    assert IMAGE in page.text
    tags = [tag for tag, _ in page.tags]
    assert tags.count("script") == 3
    assert not {"img", "iframe", "object", "embed", "link", "base", "form"}.intersection(tags)
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


def test_the_page_names_no_address_outside_itself(report: Path) -> None:
    page = read(report)
    for _, attributes in page.tags:
        assert "src" not in attributes
        assert (attributes.get("href") or "#").startswith("#")


def test_the_policy_lets_two_scripts_run_by_their_hashes_and_nothing_be_fetched(report: Path) -> None:
    policies = [
        attributes["content"]
        for tag, attributes in read(report).tags
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert len(policies) == 1 and policies[0] is not None
    assert "default-src 'none'" in policies[0]
    assert len(re.findall(r"'sha256-[A-Za-z0-9+/=]{44}'", policies[0])) == 2
    assert "unsafe-eval" not in policies[0]
    script_part = policies[0].split("script-src")[1]
    assert "unsafe-inline" not in script_part


def test_flat_series_and_gaps_are_told_in_words(report: Path) -> None:
    text = " ".join(read(report).text.split())
    assert "The same at every step of every run: flat = 3" in text
    assert "2 values not finite" in text


def test_a_long_curve_is_thinned_and_keeps_its_last_point(tmp_path: Path) -> None:
    """5001 points are every third of them: 1667, and the last."""
    make_run(tmp_path / "runs", "a", series={"loss": [(step, float(step)) for step in range(1, 5002)]})
    path = tmp_path / "report.html"
    write_report(compare(list_runs(tmp_path / "runs")), path)
    text = path.read_text()
    found = re.search(r'"x":\[([0-9,]+)\]', text)
    assert found is not None
    steps = [int(step) for step in found[1].split(",")]
    assert steps[0] == 1 and steps[-1] == 5001 and len(steps) <= MOST_POINTS
    assert "every 3th point" not in text
    assert "one point in 3" in text


def test_one_run_alone_makes_a_report(tmp_path: Path) -> None:
    make_run(tmp_path / "runs", "alone")
    write_report(compare(list_runs(tmp_path / "runs")), tmp_path / "report.html")
    assert "One run" in read(tmp_path / "report.html").text


def test_an_older_report_is_replaced_whole(report: Path, tmp_path: Path) -> None:
    make_run(tmp_path / "runs", "later")
    write_report(compare(list_runs(tmp_path / "runs")), report)
    assert "later" in read(report).text
    assert [path.name for path in report.parent.iterdir()] == ["report.html"]


@pytest.mark.browser
def test_a_browser_draws_the_curves_from_the_file_and_runs_nothing_else(report: Path, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium here")
    done = subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--enable-logging=stderr",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--window-size=1300,4000",
            "--virtual-time-budget=10000",
            "--dump-dom",
            report.as_uri(),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert "<title>llmfw: " in done.stdout
    assert "<title>evil" not in done.stdout
    # 4 curves that aren't flat, 1 interval
    assert done.stdout.count('data-drawn="yes"') == 5
    assert done.stdout.count('class="main-svg"') >= 5
    assert "CONSOLE" not in done.stderr, done.stderr
