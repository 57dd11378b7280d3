"""The documentation site: built without a warning, without a dead link, and readable in a real browser."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.architecture.conftest import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "scripts/build_site.py", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


class Links(HTMLParser):
    """Where a page leads, and the anchors that it has."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: list[str] = []
        self.anchors: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        self.anchors |= {told[key] or "" for key in ("id", "name") if told.get(key)}
        self.found += [told[key] or "" for key in ("href", "src") if told.get(key)]


def dead(site: Path) -> Iterator[str]:
    """Links inside the site whose file or anchor doesn't exist."""
    pages = {page: Links(page) for page in site.rglob("*.html")}
    for page, links in pages.items():
        for link in links.found:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or link.startswith("data:"):
                continue
            aim = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            if not aim.exists():
                yield f"{page.name}: {link}"
            elif parts.fragment and aim in pages and parts.fragment not in pages[aim].anchors:
                yield f"{page.name}: {link} has no such anchor"


def test_no_link_and_no_anchor_leads_nowhere(site: Path):
    assert list(dead(site)) == []


def test_every_page_of_the_docs_every_decision_and_every_plugins_card_is_in_it(site: Path):
    docs = [page.relative_to(ROOT / "docs").with_suffix(".html") for page in (ROOT / "docs").rglob("*.md")]
    plugins = [Path("plugins", f"{card.parent.name}.html") for card in ROOT.glob("llmfw/plugins/*/card.toml")]
    assert plugins
    assert [page for page in (*docs, *plugins) if not (site / page).is_file()] == []


def test_an_error_code_can_be_linked_to(site: Path):
    assert 'id="plugin-unknown"' in (site / "errors.html").read_text(encoding="utf-8")


def test_a_link_that_leads_nowhere_is_found(site: Path, tmp_path: Path):
    (tmp_path / "page.html").write_text(
        '<a href="gone.html">x</a><a href="#no">y</a><a id="yes" href="#yes">'
    )
    assert list(dead(tmp_path)) == ["page.html: gone.html", "page.html: #no has no such anchor"]


@pytest.mark.browser
def test_a_browser_shows_the_start_page_with_its_contents_and_the_picture_of_a_run(
    site: Path, chromium: Path
):
    def shown(page: str) -> str:
        flags = ("--headless", "--no-sandbox", "--disable-gpu", "--dump-dom")
        command = [str(chromium), *flags, (site / page).as_uri()]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout

    start = shown("index.html")
    contents = re.findall(r'class="reference internal" href="([a-z-]+)\.html"', start)
    assert {"start", "concepts", "verbs", "errors", "write-a-plugin", "evidence"} <= set(contents)
    assert 'src="_images/one-run.svg"' in shown("concepts.html")
