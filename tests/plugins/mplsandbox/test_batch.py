"""Files of requests: every line gets its result exactly once, whatever happens in between."""

from __future__ import annotations

import fcntl
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from llmfw.testing import plugin_module

Batch = plugin_module("mplsandbox", "batch").Batch
BatchBusy = plugin_module("mplsandbox", "batch").BatchBusy
BatchError = plugin_module("mplsandbox", "batch").BatchError
Progress = plugin_module("mplsandbox", "batch").Progress
group = plugin_module("mplsandbox", "commands").group
Sandbox = plugin_module("mplsandbox", "executor").Sandbox
Pool = plugin_module("mplsandbox", "pool").Pool
Request = plugin_module("mplsandbox", "records").Request
Result = plugin_module("mplsandbox", "records").Result


def row(number: int, **more: Any) -> dict[str, Any]:
    code = more.pop("code", "print(int(input()) % 2)")
    return {"code": code, "lang": "python", "cases": [{"stdin": str(number), "expected": "1"}], **more}


def write(file: Path, rows: Sequence[Any]) -> Path:
    file.write_text("".join(f"{one if isinstance(one, str) else json.dumps(one)}\n" for one in rows))
    return file


def read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def run(*words: Any, sandbox: Sandbox) -> tuple[int, str]:
    """``llmfw sandbox batch`` in this process. -> exit code and standard error."""
    done = CliRunner().invoke(group, ["batch", *map(str, words)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stderr


def test_each_request_gets_a_line_with_its_id_or_its_number(sandbox: Sandbox, tmp_path: Path) -> None:
    file = write(tmp_path / "in", [row(1, id="odd"), "", row(2), row(3, code="print(", id="x")])
    code, said = run(file, tmp_path / "out", "--jobs", 2, sandbox=sandbox)
    found = {one["id"]: one for one in read(tmp_path / "out")}
    assert {key: one["verdict"] for key, one in found.items()} == {"odd": "OK", "3": "WA", "x": "CE"}
    assert (found["3"]["line"], found["odd"]["reward"], code) == (3, 1.0, 0)
    assert "3/3 done" in said
    code, said = run(file, tmp_path / "out", sandbox=sandbox)
    assert (code, len(read(tmp_path / "out"))) == (0, 3) and "3 from before" in said


def test_bad_lines_are_named_in_the_end_and_the_others_have_run(sandbox: Sandbox, tmp_path: Path) -> None:
    rows = ["{", row(1, id="a"), row(1, langg="c"), row(3, id="a"), row(1, lang="klingon"), row(5)]
    file = write(tmp_path / "in.jsonl", rows)
    code, said = run(file, tmp_path / "out", sandbox=sandbox)
    assert code == 2
    assert sorted(one["id"] for one in read(tmp_path / "out")) == ["6", "a"]
    places = [line.split("in.jsonl:")[1].split(":")[0] for line in said.splitlines() if "error[" in line]
    assert places == ["1", "3", "4", "5"]
    assert "did you mean lang?" in said and "line 2 has the same id" in said and "klingon" in said


def test_strict_stops_at_the_first_bad_line(sandbox: Sandbox, tmp_path: Path) -> None:
    file = write(tmp_path / "in", [row(1), *["{"] * 3, *[row(3)] * 30])
    with pytest.raises(Exception, match="JSON") as caught:
        run(file, tmp_path / "out", "--strict", sandbox=sandbox)
    assert getattr(caught.value, "line", 0) == 2
    assert len(read(tmp_path / "out")) <= 3


def test_a_torn_last_line_is_cut_off_and_run_again(sandbox: Sandbox, tmp_path: Path) -> None:
    file, out = write(tmp_path / "in", [row(n) for n in range(4)]), tmp_path / "out"
    run(file, out, sandbox=sandbox)
    whole = out.read_bytes()
    lines = whole.splitlines(keepends=True)
    for torn in (whole[:-20], whole[:-1], b"".join(lines[:3]) + b"\0" * 100):
        out.write_bytes(torn)
        code, said = run(file, out, sandbox=sandbox)
        assert (code, sorted(one["id"] for one in read(out))) == (0, list("1234"))
        assert "3 from before" in said
    out.write_bytes(lines[0] + b"{\n" + lines[1])
    with pytest.raises(BatchError, match=r"BATCH-OUT.*out:2"):
        run(file, out, sandbox=sandbox)


def test_results_of_another_request_are_not_taken_for_its_own(sandbox: Sandbox, tmp_path: Path) -> None:
    run(write(tmp_path / "in", [row(1, id="a")]), tmp_path / "out", sandbox=sandbox)
    write(tmp_path / "in", [row(2, id="a")])
    with pytest.raises(BatchError, match="BATCH-CHANGED"):
        run(tmp_path / "in", tmp_path / "out", sandbox=sandbox)


def test_two_processes_do_not_write_one_file(sandbox: Sandbox, tmp_path: Path) -> None:
    file = write(tmp_path / "in", [row(1)])
    with (tmp_path / "out").open("w") as out:
        fcntl.flock(out, fcntl.LOCK_EX)
        with pytest.raises(BatchBusy, match="BATCH-BUSY") as caught:
            run(file, tmp_path / "out", sandbox=sandbox)
    assert caught.value.exit_code == 9
    with pytest.raises(BatchError, match="BATCH-IN"):
        run(tmp_path / "absent", tmp_path / "out", sandbox=sandbox)


def test_equal_requests_come_from_the_cache(sandbox: Sandbox, tmp_path: Path) -> None:
    file = write(tmp_path / "in", [row(1, id=str(n)) for n in range(6)])
    words = (file, tmp_path / "out", "--cache", "--cache-folder", tmp_path / "cache")
    code, said = run(*words, sandbox=sandbox)
    assert code == 0 and "5 from the cache" in said
    assert len(read(tmp_path / "out")) == 6


def test_progress_tells_how_much_how_fast_and_how_long() -> None:
    progress = Progress(total=100, kept=10, done=30, begun=time.monotonic() - 15)
    assert str(progress) == "40/100 done, 2.0/s, 30 s left, 10 from before"
    assert "1 h 23 min left" in str(Progress(total=5001, done=1, begun=time.monotonic() - 1))


def test_it_is_told_as_it_goes_on(sandbox: Sandbox, tmp_path: Path) -> None:
    told: list[int] = []
    file = write(tmp_path / "in", [row(n) for n in range(5)])
    Batch(file, tmp_path / "out", Pool(sandbox, 2), tell=lambda progress: told.append(progress.done)).run()
    assert told == sorted(told) and told[-1] == 5


def test_a_program_that_breaks_the_judge_costs_its_own_line_alone(sandbox: Sandbox, tmp_path: Path) -> None:
    class Broken:
        isolation, jobs = sandbox.isolation, 1

        def run(self, request: Request, /) -> Result:
            if request.id == "evil":
                raise RecursionError("too deep")
            return sandbox.run(request)

    file = write(tmp_path / "in", [row(1), row(3, id="evil"), row(5)])
    progress = Batch(file, tmp_path / "out", Pool(Broken())).run()
    assert [one["id"] for one in read(tmp_path / "out")] == ["1", "3"]
    assert [(one.code, one.line) for one in progress.bad] == [("FAILED", 2)]


SLEEP = "import time; time.sleep(0.25); print(1)"


def begin(tmp_path: Path, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "llmfw.cli", "sandbox", "batch", "in", "out", "--jobs", "3"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 20
    out = tmp_path / "out"
    while not out.exists() or out.read_bytes().count(b"\n") < count:  # on the disk every second
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.02)
    return process


@pytest.mark.kill
def test_killed_in_the_middle_it_goes_on_and_each_id_is_there_once(sandbox: Sandbox, tmp_path: Path) -> None:
    write(tmp_path / "in", [row(n, code=SLEEP, id=f"r{n}") for n in range(24)])
    process = begin(tmp_path, 2)
    process.kill()
    process.communicate()
    before = (tmp_path / "out").read_bytes().count(b"\n")
    assert 2 <= before < 24
    code, said = run(tmp_path / "in", tmp_path / "out", "--jobs", 3, sandbox=sandbox)
    rows = read(tmp_path / "out")
    assert (code, len(rows)) == (0, 24) and f"{before} from before" in said
    assert {one["id"] for one in rows} == {f"r{n}" for n in range(24)}
    assert {one["verdict"] for one in rows} == {"OK"}


@pytest.mark.kill
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_whole_lines_and_a_word_how_to_go_on(
    sandbox: Sandbox, tmp_path: Path, number: int, code: int
) -> None:
    write(tmp_path / "in", [row(n, code=SLEEP) for n in range(60)])
    process = begin(tmp_path, 1)
    process.send_signal(number)
    _, said = process.communicate(timeout=10)
    assert process.returncode == code
    assert "the same command goes on" in said and "Traceback" not in said
    rows = read(tmp_path / "out")
    assert 1 <= len(rows) < 60 and len({one["id"] for one in rows}) == len(rows)
