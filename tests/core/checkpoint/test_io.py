"""Checkpoints on the disk: whole or absent, verified before use, and what happens where neither is
possible.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from llmfw.core import failpoints
from llmfw.core.checkpoint import (
    SafeCheckpointIO,
    checkpoints,
    newest_verified,
    read_manifest,
    step_folder,
    verify,
)
from llmfw.core.checkpoint import (
    io as io_module,
)
from llmfw.core.checkpoint.durable import sweep
from llmfw.core.checkpoint.io import FILES, FOLDER, Files
from llmfw.core.checkpoint.manifest import prune
from llmfw.core.errors import CheckpointError, PluginError, ResourceError
from llmfw.core.failpoints import Failpoint
from tests.disks import needs_mounts, on_small_disk


def dictionary(step: int = 3) -> dict[str, Any]:
    return {
        "global_step": step,
        "state_dict": {"w": torch.arange(1000.0) + step},
        "optimizer_states": [
            {
                "state": {0: {"exp_avg": torch.ones(5), "step": torch.tensor(float(step))}},
                "betas": (0.9, 0.99),
            }
        ],
        "callbacks": {"X": {"best": None, "seen": [1, 2]}},
    }


def save(parent: Path, step: int) -> Path:
    SafeCheckpointIO().save_checkpoint(dictionary(step), step_folder(parent, step))
    return step_folder(parent, step)


def test_a_checkpoint_comes_back_as_it_went(tmp_path: Path) -> None:
    back = SafeCheckpointIO().load_checkpoint(save(tmp_path, 3))
    assert back.pop(FOLDER) == str(tmp_path / "step-00000003")
    expected = dictionary(3)
    assert torch.equal(back.pop("state_dict")["w"], expected.pop("state_dict")["w"])
    state, wanted = back.pop("optimizer_states")[0], expected.pop("optimizer_states")[0]
    assert state["betas"] == (0.9, 0.99) and torch.equal(
        state["state"][0]["exp_avg"], wanted["state"][0]["exp_avg"]
    )
    assert back == expected


def test_only_safetensors_and_json_are_written_and_the_manifest_lists_all(tmp_path: Path) -> None:
    folder = save(tmp_path, 3)
    names = {path.name for path in folder.iterdir()}
    assert names - {"manifest.json"} == set(read_manifest(folder).files)
    assert {Path(name).suffix for name in names} == {".safetensors", ".json"}
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000003"]


def test_a_modules_own_files_and_words_go_into_folder_and_manifest(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        (folder / "templates").mkdir()
        (folder / "templates" / "chat.jinja").write_text("x")

    SafeCheckpointIO().save_checkpoint(
        {**dictionary(), FILES: Files(write=write, about={"kind": "adapter"})}, tmp_path / "a"
    )
    manifest = verify(tmp_path / "a")
    assert "templates/chat.jinja" in manifest.files and manifest.about == {"kind": "adapter"}
    assert json.loads((tmp_path / "a" / "manifest.json").read_text())["kind"] == "adapter"
    (tmp_path / "a" / "templates" / "chat.jinja").write_text("y")
    with pytest.raises(CheckpointError, match=r"chat\.jinja"):
        verify(tmp_path / "a")


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def test_every_flipped_bit_of_every_file_is_noticed(tmp_path: Path) -> None:
    folder = save(tmp_path, 3)
    for path in sorted(folder.iterdir()):
        size = path.stat().st_size
        for offset in {0, 9, size // 3, size // 2, size - 2}:
            flip(path, offset)
            with pytest.raises(CheckpointError) as caught:
                verify(folder)
            assert caught.value.exit_code == 5, path.name
            flip(path, offset)
    verify(folder)


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "truncated": lambda f: os.truncate(f / "training-weights.safetensors", 100),
    "empty": lambda f: (f / "training.json").write_bytes(b""),
    "a web page": lambda f: (f / "training.json").write_text("<!doctype html><title>404</title>"),
    "an LFS pointer": lambda f: (f / "training-weights.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\n"
    ),
    "missing file": lambda f: (f / "training-optimizer.safetensors").unlink(),
    "missing manifest": lambda f: (f / "manifest.json").unlink(),
    "manifest is a list": lambda f: (f / "manifest.json").write_text("[]"),
    "manifest is empty": lambda f: (f / "manifest.json").write_text(""),
    "manifest is binary": lambda f: (f / "manifest.json").write_bytes(b"\x80\x02}q\x00."),
    "manifest is deep": lambda f: (f / "manifest.json").write_text("[" * 100_000),
    "edited step": lambda f: (f / "manifest.json").write_text(
        (f / "manifest.json").read_text().replace('"step": 3', '"step": 9')
    ),
    "a folder in place of a file": lambda f: ((f / "training.json").unlink(), (f / "training.json").mkdir()),
    "a link out of the folder": lambda f: (
        (f / "training.json").rename(f.parent / "x"),
        (f / "training.json").symlink_to(f.parent / "x"),
    ),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_one_line_and_exit_code_five(tmp_path: Path, damage: Callable[[Path], Any]) -> None:
    folder = save(tmp_path, 3)
    damage(folder)
    with pytest.raises(CheckpointError) as caught:
        SafeCheckpointIO().load_checkpoint(folder)
    assert (
        caught.value.exit_code == 5 and "\n" not in str(caught.value) and "step-00000003" in str(caught.value)
    )


def resigned(folder: Path, **changes: Any) -> None:
    """Change the manifest and make its checksum fit again, as a liar would."""
    from llmfw.core.checkpoint.manifest import _own_digest

    body = json.loads((folder / "manifest.json").read_text())
    body.pop("sha256")
    body |= changes
    (folder / "manifest.json").write_text(json.dumps({**body, "sha256": _own_digest(body)}))


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"format": 99}, "format 99"),
        ({"files": {"../../etc/passwd": {"sha256": "0", "bytes": 1}}}, "outside"),
        ({"files": {"/etc/passwd": {"sha256": "0", "bytes": 1}}}, "outside"),
        ({"files": {"training.json": 5}}, "can't be read"),
        ({"files": {}}, "can't be read"),
        ({"step": "three"}, "can't be read"),
        ({"step": 4}, "different steps"),
    ],
)
def test_a_manifest_that_lies_is_refused(tmp_path: Path, changes: dict[str, Any], what: str) -> None:
    folder = save(tmp_path, 3)
    resigned(folder, **changes)
    with pytest.raises(CheckpointError, match=what):
        SafeCheckpointIO().load_checkpoint(folder)


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "pwned"),)

    torch.save({"x": Evil()}, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match="pickles are never read"):
        SafeCheckpointIO().load_checkpoint(tmp_path / "last.ckpt")
    assert not (tmp_path / "pwned").exists()


def test_a_path_that_is_not_there_is_a_missing_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        SafeCheckpointIO().load_checkpoint(tmp_path / "nowhere")
    assert caught.value.code == "CHECKPOINT-MISSING"


# --- which checkpoint
# -------------------------------------------------------------------------------------------


def test_no_checkpoint_at_all_is_none_and_not_an_error(tmp_path: Path) -> None:
    assert newest_verified(tmp_path) is None and newest_verified(tmp_path / "absent") is None


def test_the_newest_is_chosen_by_the_step_in_the_manifest_not_by_name_or_time(tmp_path: Path) -> None:
    new, old = save(tmp_path, 20), save(tmp_path, 9)
    os.utime(new, (1, 1))
    new.rename(tmp_path / "step-00000001")
    assert newest_verified(tmp_path) == tmp_path / "step-00000001"
    assert [folder for folder, _ in checkpoints(tmp_path)] == [tmp_path / "step-00000001", old]


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_newest_is_passed_over_aloud(tmp_path: Path, damage: Callable[[Path], Any]) -> None:
    old, new = save(tmp_path, 2), save(tmp_path, 3)
    damage(new)
    said: list[str] = []
    assert newest_verified(tmp_path, say=said.append) == old
    assert len(said) == 1 and "step-00000003" in said[0] and "using step-00000002" in said[0]


def test_only_damaged_checkpoints_are_an_error_so_that_nothing_is_thrown_away_in_silence(
    tmp_path: Path,
) -> None:
    flip(save(tmp_path, 2) / "training-weights.safetensors", 500)
    with pytest.raises(CheckpointError) as caught:
        newest_verified(tmp_path)
    assert caught.value.code == "NO-GOOD-CHECKPOINT" and "training-weights" in str(caught.value)


def test_pruning_keeps_the_newest_whole_ones_and_touches_no_damaged_one(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        save(tmp_path, step)
    os.truncate(tmp_path / "step-00000004" / "training.json", 3)
    prune(tmp_path, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "step-00000002",
        "step-00000003",
        "step-00000004",
    ]


# --- faults while writing
# ---------------------------------------------------------------------------------------

FAILPOINTS = [
    "ckpt.before_write",
    "ckpt.mid_write",
    "ckpt.before_fsync",
    "ckpt.before_rename",
    "ckpt.after_rename",
]


@pytest.mark.parametrize("name", FAILPOINTS)
def test_a_failure_while_writing_leaves_the_older_checkpoint_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    save(tmp_path, 2)
    monkeypatch.setenv("LLMFW_FAILPOINT", f"{name}:1:raise")
    monkeypatch.setattr(failpoints, "_reached", Counter())
    with pytest.raises(Failpoint):
        save(tmp_path, 3)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["step-00000002"] + (["step-00000003"] if name == "ckpt.after_rename" else [])
    for path in tmp_path.iterdir():
        verify(path)


@pytest.mark.kill
@pytest.mark.parametrize("name", FAILPOINTS)
@pytest.mark.parametrize("replaces", [False, True], ids=["new name", "over a damaged one"])
def test_a_kill_at_any_point_of_writing_leaves_whole_checkpoints_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, replaces: bool
) -> None:
    save(tmp_path, 2)
    if replaces:
        flip(save(tmp_path, 3) / "training-weights.safetensors", 500)
    monkeypatch.setenv("LLMFW_FAILPOINT", f"{name}:1:kill")
    monkeypatch.setattr(failpoints, "_reached", Counter())
    child = os.fork()  # a fresh interpreter would spend ten seconds on imports
    if child == 0:
        save(tmp_path, 3)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} <= {"step-00000002", "step-00000003"}
    newest = newest_verified(tmp_path, say=lambda _: None)
    assert newest == step_folder(tmp_path, 3 if name == "ckpt.after_rename" else 2)


def test_files_are_synced_before_the_rename_and_the_folder_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    real_fsync, real_rename, real_open = os.fsync, Path.rename, os.open
    names: dict[int, str] = {}

    def watch_open(path: Any, *args: Any, **kwargs: Any) -> int:
        handle = real_open(path, *args, **kwargs)
        names[handle] = Path(os.fspath(path)).name
        return handle

    monkeypatch.setattr(os, "open", watch_open)
    monkeypatch.setattr(
        os, "fsync", lambda handle: (calls.append(f"sync {names.get(handle)}"), real_fsync(handle))[1]
    )
    monkeypatch.setattr(
        Path,
        "rename",
        lambda self, to: (calls.append(f"rename to {Path(to).name}"), real_rename(self, to))[1],
    )
    save(tmp_path / "ck", 3)
    at = calls.index("rename to step-00000003")
    for name in [*read_manifest(tmp_path / "ck" / "step-00000003").files, "manifest.json"]:
        assert calls.index(f"sync {name}") < at
    assert "sync ck" in calls[at:]


def test_staging_lies_beside_the_target_and_not_in_the_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "gone"))
    assert verify(save(tmp_path / "ck", 3)).step == 3


def test_litter_of_killed_processes_is_swept_and_a_half_replaced_one_comes_back(tmp_path: Path) -> None:
    whole = save(tmp_path, 2)
    shutil.copytree(whole, tmp_path / ".staging-step-00000003-abc")
    shutil.copytree(whole, tmp_path / ".pruned-step-00000001")
    shutil.copytree(whole, tmp_path / ".old-step-00000002")
    save(tmp_path, 5).rename(tmp_path / ".old-step-00000005")
    (tmp_path / ".lock").write_text("")
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "step-00000002", "step-00000005"]
    assert sweep(tmp_path / "absent") == []


def test_saving_the_same_step_again_is_free_and_a_damaged_one_is_replaced(tmp_path: Path) -> None:
    folder = save(tmp_path, 3)
    before = (folder / "manifest.json").stat().st_mtime_ns
    assert save(tmp_path, 3) == folder and (folder / "manifest.json").stat().st_mtime_ns == before
    flip(folder / "training-weights.safetensors", 500)
    verify(save(tmp_path, 3))


# --- disks
# ------------------------------------------------------------------------------------------------------


def test_too_little_space_prunes_spares_tries_again_and_then_says_how_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step)
    asked: list[int] = []

    def usage(path: Any) -> Any:
        asked.append(len(list(Path(path).glob("step-*"))))
        return shutil._ntuple_diskusage(10**7, 10**7, 1_000_000)

    monkeypatch.setattr(io_module.shutil, "disk_usage", usage)
    with pytest.raises(ResourceError) as caught:
        save(tmp_path, 4)
    assert caught.value.code == "DISK-FULL" and caught.value.exit_code == 6
    assert "need 1.1 MB, 1.0 MB free" in str(caught.value) and "checkpoint.dir" in str(caught.value)
    assert asked[:2] == [3, 1], "spares went before the second try"
    assert newest_verified(tmp_path) == step_folder(tmp_path, 3)


def test_space_that_pruning_frees_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step)

    def usage(path: Any) -> Any:
        spares = len(list(Path(path).glob("step-*")))
        return shutil._ntuple_diskusage(10**7, 10**7, 10**7 if spares == 1 else 1_000_000)

    monkeypatch.setattr(io_module.shutil, "disk_usage", usage)
    assert verify(save(tmp_path, 4)).step == 4


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_an_error_of_the_disk_while_writing_is_a_resource_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    save(tmp_path, 2)

    def broken(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(io_module, "save_file", broken)
    with pytest.raises(ResourceError) as caught:
        save(tmp_path, 3)
    assert caught.value.code == (
        "DISK-FULL" if number in (errno.ENOSPC, errno.EDQUOT) else "CHECKPOINT-WRITE"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]


FILL = """
import sys
from pathlib import Path
import torch
import llmfw.core.checkpoint.io as module
from llmfw.core.checkpoint import SafeCheckpointIO, step_folder, verify
from llmfw.core.errors import ResourceError

parent = Path(sys.argv[1])

def save(step, numbers):
    state = {"global_step": step, "state_dict": {"w": torch.ones(numbers)}}
    SafeCheckpointIO().save_checkpoint(state, step_folder(parent, step))

save(1, 100_000)
module._MARGIN = -(10**9)  # let the write itself hit the end of the disk
try:
    save(2, 1_200_000)
except ResourceError as error:
    print(error.code, verify(step_folder(parent, 1)).step, *sorted(path.name for path in parent.iterdir()))
"""


@pytest.mark.slow
@needs_mounts
def test_a_disk_that_is_really_full_keeps_the_older_checkpoint(tmp_path: Path) -> None:
    child = on_small_disk(tmp_path, FILL, "4100k")
    assert child.stdout == "DISK-FULL 1 step-00000001\n", child.stderr


def test_a_state_that_cannot_be_kept_is_the_plugins_fault_and_harms_nothing(tmp_path: Path) -> None:
    save(tmp_path, 2)
    with pytest.raises(PluginError, match=r"callbacks\.Mine\.when"):
        SafeCheckpointIO().save_checkpoint(
            {**dictionary(3), "callbacks": {"Mine": {"when": object()}}}, step_folder(tmp_path, 3)
        )
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]
