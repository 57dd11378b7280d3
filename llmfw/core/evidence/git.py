"""What git knows of the code that gives the values."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from llmfw.core.evidence.marks import END, FILE, START
from llmfw.core.tracking.surroundings import git_output

_GENERATED = re.compile(rf"(^|/){re.escape(FILE)}$|^docs/evidence(\.md$|/)")
_CODE = (".py", ".toml", ".yaml", ".yml", ".cfg")
_CAP = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Tree:
    """A working tree. ``changed`` are files that differ from the commit, generated evidence aside."""

    root: Path
    commit: str
    changed: tuple[str, ...]

    @property
    def name(self) -> str:
        """The commit, with a + where files differ from it."""
        return self.commit + ("+" if self.changed else "")


def tree_of(folder: Path) -> Tree | None:
    """The working tree that keeps a folder's files; None where git doesn't keep them, or doesn't answer."""
    root, commit = (git_output(folder, "rev-parse", what) for what in ("--show-toplevel", "HEAD"))
    tracked = git_output(folder, "ls-files", "--", ".")
    if root is None or commit is None or not tracked:
        return None
    place = Path(root.strip())
    status = git_output(place, "status", "--porcelain", "-z", "--untracked-files=all", cap=_CAP)
    if status is None:  # not to know what changed isn't to know that nothing did
        return None
    changed = [line for line in _paths(status) if _counts(place, *line)]
    return Tree(root=place, commit=commit.strip(), changed=tuple(path for _, path in changed))


def _paths(status: str) -> list[tuple[str, str]]:
    """(state, path) of git's status; of a renamed file the new path."""
    parts, found = iter(status.split("\0")), []
    for part in parts:
        if len(part) > 3:
            found.append((part[:2], part[3:]))
            if "R" in part[:2] or "C" in part[:2]:
                next(parts, None)
    return found


def _counts(root: Path, state: str, path: str) -> bool:
    """Whether a changed file may change values, or is somebody's unfinished work."""
    if _GENERATED.search(path):
        return False
    if state == "??":
        return path.endswith(_CODE) and not path.startswith("runs/")
    if path.endswith("README.md") and "D" not in state:
        kept = git_output(root, "show", f"HEAD:{path}", cap=_CAP)
        now = (root / path).read_text(encoding="utf-8")
        return kept is None or _without_table(kept) != _without_table(now)
    return True


def _without_table(text: str) -> str:
    return re.sub(rf"{re.escape(START)}.*?{re.escape(END)}", "", text, flags=re.DOTALL)
