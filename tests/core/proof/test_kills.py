"""Kills come at the moments that were drawn, and leave no process behind."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from llmfw.core.proof.kills import Kill, Pace, Place, Target, Victim, draw, pace_of, run_command, target_of


def test_kills_are_drawn_over_all_steps_in_order_the_same_for_a_seed() -> None:
    kills = draw(3, 500, 10)
    assert kills == draw(3, 500, 10) != draw(4, 500, 10)
    assert [kill.step for kill in kills] == sorted(kill.step for kill in kills)
    assert {kill.step for kill in kills} == set(range(10))
    assert all(0 <= kill.share < 1 for kill in kills)


WRITES = """
import json, sys, time
for step in range({first}, {last} + 1):
    with open({journal!r}, "a") as file:
        file.write(json.dumps({{"t": "consumed", "step": step}}, separators=(",", ":")) + "\\n")
    time.sleep(0.05)
"""


def command(journal: Path, first: int, last: int) -> list[str]:
    return [sys.executable, "-c", WRITES.format(journal=str(journal), first=first, last=last)]


def steps(journal: Path) -> list[int]:
    return [json.loads(line)["step"] for line in journal.read_text().splitlines()]


def test_a_command_is_killed_once_the_step_is_done_and_not_before(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    code = run_command(
        command(journal, 1, 200),
        log=tmp_path / "log",
        env=os.environ,
        target=target_of(tmp_path),
        kill=Kill(step=4, share=0.0),
        pace=Pace(start=1.0),
    )
    assert code == -signal.SIGKILL
    assert 4 <= steps(journal)[-1] < 100


def test_steps_of_an_earlier_process_do_not_count(tmp_path: Path) -> None:
    """The earlier process did steps 1 to 5, this one goes on behind 3: step 5 is done once it has done it."""
    journal = tmp_path / "journal.jsonl"
    journal.write_text("".join(f'{{"t":"consumed","step":{step}}}\n' for step in range(1, 6)))
    run_command(
        command(journal, 4, 200),
        log=tmp_path / "log",
        env=os.environ,
        target=Target(run=tmp_path, begun={journal: Place(size=journal.stat().st_size, step=3)}),
        kill=Kill(step=5, share=0.0),
        pace=Pace(start=0.0),
    )
    assert steps(journal)[5:7] == [4, 5]


def test_a_step_behind_which_the_process_goes_on_stands_for_its_start(tmp_path: Path) -> None:
    journal, began = tmp_path / "journal.jsonl", time.monotonic()
    code = run_command(
        [sys.executable, "-c", "import time; time.sleep(60)"],
        log=tmp_path / "log",
        env=os.environ,
        target=Target(run=tmp_path, begun={journal: Place(step=3)}),
        kill=Kill(step=3, share=0.5),
        pace=Pace(start=0.6, gaps=(50.0,) * 9),
    )
    assert code == -signal.SIGKILL and 0.25 < time.monotonic() - began < 20


def test_steps_are_counted_through_the_rounds_and_finished_ones_stay_done(tmp_path: Path) -> None:
    """Round 0 ended at step 3; round 1 had done 2 and has a journal from before; the process does its step 1
    again: 3 + 1 = 4 steps are done, whatever was done before its launch.
    """
    for name, last in (("000", 3), ("001", 2)):
        lines = (f'{{"t":"consumed","step":{step}}}\n' for step in range(1, last + 1))
        (tmp_path / "rounds" / name).mkdir(parents=True)
        (tmp_path / "rounds" / name / "journal.jsonl").write_text("".join(lines))
    (tmp_path / "rounds/000/done.json").write_text("{}")
    target = target_of(tmp_path)
    assert target.resumes == target.steps() == 3
    with (tmp_path / "rounds/001/journal.jsonl").open("a") as file:
        file.write('{"t":"consumed","step":1}\n')
    assert target.steps() == 4
    assert target_of(tmp_path).steps() == 3, "a process that is launched now begins round 1 anew"


def test_a_share_is_of_the_time_up_to_the_next_step_whatever_lies_between(tmp_path: Path) -> None:
    """Steps end at 12, 13, 20 (a validation between) of a command from 10 to 21."""
    walls = (12.0, 13.0, 20.0)
    lines = [json.dumps({"t": "consumed", "step": n, "wall": wall}) for n, wall in enumerate(walls, 1)]
    (tmp_path / "journal.jsonl").write_text("\n".join(lines) + "\n")
    pace = pace_of(tmp_path, 10.0, 21.0)
    assert [pace.after(step) for step in range(4)] == [2.0, 1.0, 7.0, 1.0]


def test_a_command_that_ends_before_its_kill_gives_its_own_code(tmp_path: Path) -> None:
    code = run_command(
        [sys.executable, "-c", "print('told'); raise SystemExit(3)"],
        log=tmp_path / "log",
        env=os.environ,
        target=target_of(tmp_path),
        kill=Kill(step=9, share=0.0),
        pace=Pace(start=1.0),
    )
    assert code == 3 and (tmp_path / "log").read_text() == "told\n"


def test_whatever_interrupts_the_waiting_leaves_no_process_of_the_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = "import os, time; print(os.fork() or os.getpid(), flush=True); time.sleep(60)"
    victim = Victim([sys.executable, "-c", child], log=tmp_path / "log", env=os.environ)
    while len((tmp_path / "log").read_text().splitlines()) < 2:
        time.sleep(0.02)
    pids = [int(line) for line in (tmp_path / "log").read_text().split()]

    def interrupted(*_: object) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(victim._process, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        victim.wait()
    until = time.monotonic() + 10
    while (
        any(Path(f"/proc/{pid}/stat").exists() and _alive(pid) for pid in pids) and time.monotonic() < until
    ):
        time.sleep(0.02)
    assert not any(_alive(pid) for pid in pids)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
