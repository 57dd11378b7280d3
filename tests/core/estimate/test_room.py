"""Limits of control groups, of both versions."""

from __future__ import annotations

from pathlib import Path

from llmfw.core.estimate.room import group_room, room

GIB = 2**30


def _group(folder: Path, files: dict[str, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / name).write_text(f"{value}\n")


def test_the_narrowest_group_above_the_process_counts(tmp_path: Path) -> None:
    """a may have 8 GiB and uses 2 (6 left); a/b may have 4 and uses 3, of which 1 is unused file pages (2
    left)."""
    groups, own = tmp_path / "groups", tmp_path / "own"
    own.write_text("0::/a/b\n")
    _group(groups, {})
    _group(
        groups / "a",
        {"memory.max": 8 * GIB, "memory.current": 2 * GIB, "memory.stat": "anon 5\ninactive_file 0"},
    )
    _group(
        groups / "a" / "b",
        {"memory.max": 4 * GIB, "memory.current": 3 * GIB, "memory.stat": f"inactive_file {GIB}"},
    )
    assert group_room(groups, own) == 2 * GIB


def test_a_group_without_a_limit_says_nothing(tmp_path: Path) -> None:
    groups, own = tmp_path / "groups", tmp_path / "own"
    own.write_text("0::/a\n")
    _group(groups / "a", {"memory.max": "max", "memory.current": 5, "memory.stat": "anon 5"})
    assert group_room(groups, own) is None


def test_version_1_is_read_too(tmp_path: Path) -> None:
    """3 GiB may be had, 1 is used: 2 are left. The root's limit is a number too large to be one."""
    groups, own = tmp_path / "groups", tmp_path / "own"
    own.write_text("4:cpu,memory:/a\n3:devices:/\n")
    _group(
        groups / "memory" / "a",
        {
            "memory.limit_in_bytes": 3 * GIB,
            "memory.usage_in_bytes": GIB,
            "memory.stat": "total_inactive_file 0",
        },
    )
    _group(
        groups / "memory",
        {"memory.limit_in_bytes": 2**63 - 4096, "memory.usage_in_bytes": 9, "memory.stat": "x 1"},
    )
    assert group_room(groups, own) == 2 * GIB


def test_processes_share_what_there_is() -> None:
    """Two processes get half each, as near as a busy machine's free memory stays the same."""
    one, two = room(1), room(2)
    assert 0.4 * one.bytes < two.bytes < 0.6 * one.bytes
    assert two.how.endswith("for each of 2 processes")
