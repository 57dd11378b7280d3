"""Build the documentation site into build/site: docs/, the plugins' READMEs and the project's own pages.

Usage: python scripts/build_site.py [OUT]

Every warning is an error: a page that no table of contents names, a link or an anchor that leads nowhere.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = {"CONTRIBUTING.md": "contributing.md", "SECURITY.md": "security.md", "CHANGELOG.md": "changes.md"}
_LINK = re.compile(r"\[([^\]]+)\]\((?!https?://|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")


def gather(folder: Path) -> None:
    """Copy every page into one folder, and turn links so that they hold there."""
    shutil.copytree(ROOT / "docs", folder, ignore=shutil.ignore_patterns("*.lock"))
    homes = {path: folder / path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")}
    homes |= {ROOT / name: folder / page for name, page in PAGES.items()}
    (folder / "plugins").mkdir(exist_ok=True)
    readmes = sorted((ROOT / "llmfw" / "plugins").glob("*/README.md"))
    homes |= {path: folder / "plugins" / f"{path.parent.name}.md" for path in readmes}
    for source, home in homes.items():
        text = source.read_text(encoding="utf-8")
        home.write_text(turned(text, source, home, homes), encoding="utf-8")
    (folder / "plugins" / "index.md").write_text(plugin_index(), encoding="utf-8")


def turned(text: str, source: Path, home: Path, homes: dict[Path, Path]) -> str:
    """The page with every relative link leading to where its aim lies in the site; a file of the repository
    that is no page is named instead.
    """

    def turn(link: re.Match[str]) -> str:
        words, target, anchor = link[1], link[2], link[3] or ""
        aim = Path(os.path.normpath(source.parent / target))
        if aim in homes:
            return f"[{words}]({os.path.relpath(homes[aim], home.parent)}{anchor})"
        if aim.is_relative_to(ROOT / "docs") and aim.is_file():
            return link[0]
        if not aim.exists():
            sys.exit(f"error[LINK] {source.relative_to(ROOT)}: {target} leads nowhere; mend the link")
        return f"{words} (`{aim.relative_to(ROOT).as_posix()}`)"

    return _LINK.sub(turn, text)


def plugin_index() -> str:
    """The plugins that come with the core, from their cards."""
    from llmfw.core.discovery import cards

    rows = [
        f"| [{card.name}]({card.name}.md) | {', '.join(card.kinds)} | {card.summary} |"
        for card in sorted(cards().values(), key=lambda card: card.name)
        if card.value.startswith("llmfw.")
    ]
    head = "# Plugins\n\nWhat comes with the core. `llmfw plugins` lists what is installed.\n\n"
    return head + "| plugin | kinds | summary |\n|---|---|---|\n" + "\n".join(rows) + "\n"


def main() -> None:
    """Gather the pages and run Sphinx."""
    out = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "site").absolute()
    source = out.parent / f"{out.name}-source"
    for folder in (source, out):
        shutil.rmtree(folder, ignore_errors=True)
    gather(source)
    sphinx = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    done = subprocess.run([*sphinx, str(source), str(out)], check=False)
    if done.returncode:
        sys.exit(f"error[SITE] Sphinx ended with {done.returncode}; mend what it says above")
    shutil.rmtree(source)
    print(f"site {out / 'index.html'}")


if __name__ == "__main__":
    main()
