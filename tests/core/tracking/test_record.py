"""Run folders: made once, owned by one process, found again, and never RUNNING after their process died."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llmfw.core.errors import BusyError, UsageError
from llmfw.core.tracking import (
    find_resumable,
    find_run,
    list_runs,
    open_run,
    read_journal,
    read_record,
    update_record,
)

HF = "hf_" + "AbCdEfGhIjKlMnOpQrStUvWxYz012345"
OPEN_AND_WAIT = (
    "import sys, time\n"
    "from pathlib import Path\n"
    "from llmfw.core.tracking import open_run\n"
    "run = open_run(name='victim', runs=Path(sys.argv[1]), fingerprint='f')\n"
    "print(run.dir, flush=True)\n"
    "time.sleep(600)\n"
)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def start_victim(runs: Path) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", OPEN_AND_WAIT, str(runs)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_a_run_ends_with_the_status_it_was_closed_with(runs: Path) -> None:
    with open_run(name="good", runs=runs) as run:
        assert run.record.status == "RUNNING"
    assert read_record(run.dir).status == "FINISHED"
    assert read_record(run.dir).ended is not None
    with pytest.raises(ZeroDivisionError), open_run(name="bad", runs=runs) as run:
        raise ZeroDivisionError
    assert read_record(run.dir).status == "FAILED"
    with pytest.raises(KeyboardInterrupt), open_run(name="stopped", runs=runs) as run:
        raise KeyboardInterrupt
    assert read_record(run.dir).status == "KILLED"


def test_runs_of_one_second_and_one_name_get_folders_of_their_own(runs: Path) -> None:
    folders = set()
    for _ in range(5):
        with open_run(name="same", runs=runs) as run:
            folders.add(run.dir)
    assert len(folders) == 5


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", "../../etc/passwd", "a/b", "", "  ", "é" * 300, "-rf"]
)
def test_a_name_never_leads_out_of_the_folder_and_is_kept_as_it_was(runs: Path, name: str) -> None:
    with open_run(name=name, runs=runs) as run:
        assert run.dir.parent == runs
        assert len(run.dir.name) < 100
        assert run.record.name == name


def test_secrets_reach_no_file_of_the_run(runs: Path) -> None:
    with open_run(
        name="r",
        runs=runs,
        config={"hub.token": "abc-secret-1", "uri": "https://me:secret-2@host/x", "note": HF},
        config_yaml=f"hub: {HF}\napi_key: secret-345\n",
        plan={"settings": {"password": "secret-4", "seed": 1}},
        cards={"x": {"homepage": "https://u:secret-5@host"}},
    ) as run:
        pass
    text = "".join(path.read_text() for path in run.dir.iterdir() if path.is_file())
    assert "secret-" not in text.replace("secret-ly", "")
    assert HF not in text
    assert read_journal(run.record.journal).params["hub.token"] == "***"
    assert json.loads((run.dir / "plan.json").read_text())["settings"]["seed"] == 1


def test_environment_json_holds_versions_and_no_environment_variable(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_PRIVATE_THING", "a-value-that-is-nowhere-else")
    with open_run(name="r", runs=runs) as run:
        pass
    text = (run.dir / "environment.json").read_text()
    assert "a-value-that-is-nowhere-else" not in text
    facts = json.loads(text)
    assert {"python", "platform", "hardware", "packages"} <= facts.keys()
    assert facts["packages"]["pytest"] == pytest.__version__
    assert facts["hardware"]["threads"] == os.cpu_count()


def test_the_working_tree_is_kept_as_a_capped_diff_without_secrets(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-C", str(tree)]
    for name in ("code.py", ".env", "big.txt"):
        (tree / name).write_text("old\n")
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "-f", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "x"], check=True)
    (tree / "code.py").write_text(f"new line\nlogin({HF!r})\n")
    (tree / ".env").write_text("A=what-stands-in-dot-env\n")
    (tree / "new.txt").write_text("what-was-never-added\n")
    monkeypatch.chdir(tree)
    with open_run(name="r", runs=runs) as run:
        pass
    diff = (run.dir / "git.diff").read_text()
    assert "+new line" in diff
    assert HF not in diff and "what-stands-in-dot-env" not in diff and "what-was-never-added" not in diff
    facts = json.loads((run.dir / "environment.json").read_text())["git"]
    assert len(facts["commit"]) == 40
    assert facts["dirty"] is True and facts["diff_cut"] is False and facts["untracked"] == ["new.txt"]
    (tree / "big.txt").write_text("a line of thirty characters...\n" * 20_000)
    with open_run(name="r", runs=runs) as run:
        pass
    assert (run.dir / "git.diff").stat().st_size < 201_000
    assert json.loads((run.dir / "environment.json").read_text())["git"]["diff_cut"] is True


def test_outside_git_a_run_is_described_without_it(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with open_run(name="r", runs=runs) as run:
        pass
    assert "git" not in json.loads((run.dir / "environment.json").read_text())
    assert not (run.dir / "git.diff").exists()


def test_a_second_process_is_refused_with_the_pid_of_the_first(runs: Path) -> None:
    victim, folder = start_victim(runs)
    try:
        with pytest.raises(BusyError) as caught:
            open_run(name="again", folder=folder, resume=True)
        assert caught.value.exit_code == 9
        assert str(victim.pid) in str(caught.value)
        assert list_runs(runs)[0].status == "RUNNING"
    finally:
        victim.kill()
        victim.wait()


def test_a_run_whose_process_was_killed_is_listed_as_killed_and_its_folder_is_free(runs: Path) -> None:
    victim, folder = start_victim(runs)
    assert read_record(folder).status == "RUNNING"
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait()
    assert [record.status for record in list_runs(runs)] == ["KILLED"]
    assert read_record(folder).status == "KILLED"
    with open_run(name="victim", folder=folder, resume=True) as run:
        assert run.record.status == "RUNNING"
        assert run.record.pid == os.getpid()
    assert read_record(folder).status == "FINISHED"


def test_a_run_of_another_machine_is_not_judged(runs: Path) -> None:
    with open_run(name="far", runs=runs) as run:
        pass
    update_record(run.dir, status="RUNNING", host="elsewhere", boot="another boot")
    assert list_runs(runs)[0].status == "RUNNING"


def test_a_run_from_before_this_machine_was_restarted_is_dead(runs: Path) -> None:
    with open_run(name="old", runs=runs) as run:
        pass
    update_record(run.dir, status="RUNNING", boot="an earlier boot")
    assert list_runs(runs)[0].status == "KILLED"


def test_a_folder_that_holds_a_run_is_not_written_over(runs: Path) -> None:
    with open_run(name="first", runs=runs) as run:
        run.journal.metrics(1, {"loss": 1.0})
    before = (run.dir / "journal.jsonl").read_bytes()
    with pytest.raises(UsageError, match="already holds a run"):
        open_run(name="second", folder=run.dir)
    assert (run.dir / "journal.jsonl").read_bytes() == before
    with open_run(name="first", folder=run.dir, resume=True) as again:
        again.journal.metrics(2, {"loss": 2.0})
    assert read_journal(run.dir / "journal.jsonl").series["loss"] == [(1, 1.0), (2, 2.0)]


def test_going_on_where_there_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run to go on with"):
        open_run(name="r", folder=tmp_path / "none", resume=True)


def test_a_place_that_cannot_be_written_is_told_at_the_start_with_exit_code_2(locked_folder: Path) -> None:
    for place in (
        {"folder": locked_folder},
        {"folder": locked_folder / "new"},
        {"runs": locked_folder / "runs"},
    ):
        with pytest.raises(UsageError) as caught:
            open_run(name="r", **place)
        assert caught.value.exit_code == 2
        assert "run.dir" in str(caught.value)


def test_listing_is_newest_first_and_skips_what_is_no_run(runs: Path) -> None:
    names = ["one", "two", "three"]
    for name in names:
        with open_run(name=name, runs=runs):
            pass
    for junk, text in (
        ("a", ""),
        ("b", "[]"),
        ("c", '{"id": 3}'),
        ("d", "\x00"),
        ("e", '{"id":"x","name":"y","created":"z","status":"DONE"}'),
    ):
        (runs / junk).mkdir()
        (runs / junk / "run.json").write_text(text)
    assert [record.name for record in list_runs(runs)] == names[::-1]
    assert list_runs(runs / "nowhere") == []


def test_a_run_is_found_by_folder_name_id_and_their_beginnings(runs: Path) -> None:
    with open_run(name="alpha", runs=runs) as run:
        pass
    update_record(run.dir, mlflow={"run_id": "feedbeef0123"})
    record = read_record(run.dir)
    for name in (
        str(run.dir),
        run.dir.name,
        "alpha",
        "alp",
        record.id,
        record.id[:8],
        "feedbeef0123",
        "feedb",
    ):
        assert find_run(name, runs).id == record.id
    with open_run(name="alpine", runs=runs):
        pass
    assert find_run("alpha", runs).id == record.id
    with pytest.raises(UsageError, match="means 2 runs"):
        find_run("alp", runs)
    with pytest.raises(UsageError, match="no run is called"):
        find_run("beta", runs)


def test_the_newest_unfinished_run_of_the_same_fingerprint_is_resumed(runs: Path) -> None:
    made = {}
    for name, fingerprint, status in (
        ("a", "f", "KILLED"),
        ("b", "f", "FAILED"),
        ("c", "f", "FINISHED"),
        ("d", "g", "KILLED"),
    ):
        run = open_run(name=name, runs=runs, fingerprint=fingerprint)
        run.close(status)
        made[name] = run.dir
    found = find_resumable("f", runs=runs)
    assert found is not None and found.name == "b"
    assert find_resumable("h", runs=runs) is None
    named = find_resumable("f", folder=made["a"], runs=runs)
    assert named is not None and named.name == "a"
    assert find_resumable("f", folder=made["d"], runs=runs) is None
    assert find_resumable("f", folder=runs / "none", runs=runs) is None


def test_run_json_is_whole_while_many_write_it(runs: Path) -> None:
    """Four processes change one field each, fifty times: every reader sees whole json, and no change is
    lost.
    """
    with open_run(name="r", runs=runs) as run:
        script = (
            "import sys\nfrom pathlib import Path\n"
            "from llmfw.core.tracking import update_record, read_record\n"
            "folder, key = Path(sys.argv[1]), sys.argv[2]\n"
            "for n in range(50):\n"
            "    update_record(folder, **{key: str(n)})\n"
            "    assert getattr(read_record(folder), key) == str(n)\n"
        )
        workers = [
            subprocess.Popen([sys.executable, "-c", script, str(run.dir), key])
            for key in ("name", "verb", "fingerprint", "host")
        ]
        assert [worker.wait() for worker in workers] == [0, 0, 0, 0]
        record = read_record(run.dir)
        assert (record.name, record.verb, record.fingerprint, record.host) == ("49", "49", "49", "49")
    assert not list(run.dir.glob("*.tmp")) and not list(run.dir.glob(".*.tmp"))
