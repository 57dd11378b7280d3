"""The journal keeps every value once per name and step, through kills, torn lines and rewinds."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llmfw.core.errors import DataError, ResourceError, UsageError
from llmfw.core.tracking import Journal, read_journal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def test_values_come_back_bit_for_bit(path: Path) -> None:
    values = {"loss": 0.1 + 0.2, "tiny": 5e-324, "big": 1.7976931348623157e308, "minus_zero": -0.0}
    with Journal(path) as journal:
        journal.metrics(3, values)
    series = read_journal(path).series
    assert {name: points[0][1].hex() for name, points in series.items()} == {
        name: value.hex() for name, value in values.items()
    }
    assert {points[0][0] for points in series.values()} == {3}


def test_numbers_that_are_not_finite_are_kept_and_each_line_is_plain_json(path: Path) -> None:
    with Journal(path) as journal:
        journal.metrics(1, {"a": math.nan, "b": math.inf, "c": -math.inf})
        journal.event("note", worst=math.nan, nested={"list": [math.inf]})

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no json")

    for line in path.read_text().splitlines():
        json.loads(line, parse_constant=refuse)
    view = read_journal(path)
    assert math.isnan(view.series["a"][0][1])
    assert view.series["b"] == [(1, math.inf)]
    assert view.series["c"] == [(1, -math.inf)]
    assert view.of("note")[0].fields == {"worst": "NaN", "nested": {"list": ["Infinity"]}}


def test_a_stage_other_than_train_becomes_a_prefix_once(path: Path) -> None:
    with Journal(path) as journal:
        journal.metrics(1, {"loss": 1.0})
        journal.metrics(1, {"loss": 2.0, "validation/rewards/margins": 3.0}, stage="validation")
    assert read_journal(path).series == {
        "loss": [(1, 1.0)],
        "validation/loss": [(1, 2.0)],
        "validation/rewards/margins": [(1, 3.0)],
    }


def test_a_rewind_drops_later_steps_and_the_steps_that_follow_count_once(path: Path) -> None:
    """Steps 1-5, killed, resumed from 3: 4 and 5 are computed again and their new values count; step 6 was
    never repeated.
    """
    with Journal(path) as journal:
        for step in range(1, 7):
            journal.metrics(
                step, {"loss": step * 1.0, "seldom": step * 1.0} if step == 6 else {"loss": step * 1.0}
            )
        journal.event("batch", step=5, ids=["old"])
    with Journal(path) as journal:
        journal.rewind(3)
        for step in (4, 5):
            journal.metrics(step, {"loss": step * 10.0})
        journal.event("batch", step=5, ids=["new"])
    view = read_journal(path)
    assert view.series == {"loss": [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0), (5, 50.0)]}
    assert view.last_step == 5
    assert [event.fields["ids"] for event in view.of("batch")] == [["new"]]
    assert [event.undone for event in view.events if event.kind == "batch"] == [True, False]


def test_a_value_written_twice_for_one_step_counts_as_the_later_one(path: Path) -> None:
    with Journal(path) as journal:
        journal.metrics(2, {"loss": 1.0})
        journal.metrics(2, {"loss": 2.0})
    assert read_journal(path).series == {"loss": [(2, 2.0)]}


@pytest.mark.parametrize("torn", [b'{"t":"metrics","step":2,"val', b"{", b"\xff\xfe", b'{"t":"x"}'])
def test_a_torn_last_line_is_left_out_by_readers_and_cut_off_by_the_next_writer(
    path: Path, torn: bytes
) -> None:
    with Journal(path) as journal:
        journal.metrics(1, {"loss": 1.0})
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    assert read_journal(path).series == {"loss": [(1, 1.0)]}
    with Journal(path) as journal:
        journal.metrics(2, {"loss": 2.0})
    view = read_journal(path)
    assert view.series == {"loss": [(1, 1.0), (2, 2.0)]}
    assert view.damaged == ()
    assert path.read_bytes().startswith(whole)


def test_a_torn_line_longer_than_the_search_window_is_cut_off_too(path: Path) -> None:
    with Journal(path) as journal:
        journal.metrics(1, {"loss": 1.0})
    path.write_bytes(path.read_bytes() + b"x" * 200_000)
    Journal(path).close()
    assert read_journal(path).damaged == ()


def test_a_spoilt_line_in_the_middle_is_counted_and_the_rest_is_read(path: Path) -> None:
    with Journal(path) as journal:
        journal.metrics(1, {"loss": 1.0})
        journal.metrics(2, {"loss": 2.0})
        journal.metrics(3, {"loss": 3.0})
    lines = path.read_bytes().split(b"\n")
    lines[2] = b"\x00" * len(lines[2])
    path.write_bytes(b"\n".join(lines))
    view = read_journal(path)
    assert view.series == {"loss": [(1, 1.0), (3, 3.0)]}
    assert view.damaged == (3,)


@pytest.mark.parametrize(
    "line",
    [
        {"t": "metrics", "step": "7", "values": {"loss": 1.0}},
        {"t": "metrics", "step": True, "values": {"loss": 1.0}},
        {"t": "metrics", "step": 7, "values": {"loss": "a lot"}},
        {"t": "metrics", "step": 7, "values": [1]},
        {"t": "rewind"},
        {"step": 7},
        ["a list"],
    ],
)
def test_a_line_that_is_json_but_no_record_is_counted_as_damaged(path: Path, line: object) -> None:
    Journal(path).close()
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
    view = read_journal(path)
    assert view.damaged == (2,)
    assert view.series == {}


def test_params_of_later_events_win(path: Path) -> None:
    with Journal(path) as journal:
        journal.event("params", values={"seed": 1, "trainer.max_steps": 5})
        journal.event("params", values={"trainer.max_steps": 9})
    assert read_journal(path).params == {"seed": 1, "trainer.max_steps": 9}


def test_what_a_killed_process_wrote_is_there(path: Path) -> None:
    """SIGKILL right after a write that wasn't flushed to the disk: the system has it."""
    script = (
        "import os, signal, sys\n"
        "from llmfw.core.tracking import Journal\n"
        "journal = Journal(sys.argv[1])\n"
        "for step in range(1, 101): journal.metrics(step, {'loss': float(step)})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert read_journal(path).series["loss"] == [(step, float(step)) for step in range(1, 101)]


def test_a_full_disk_ends_with_exit_code_6_and_leaves_no_half_line() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(ResourceError) as caught:
        Journal(full)
    assert caught.value.exit_code == 6
    assert "free space" in str(caught.value)


def test_a_disk_that_fills_up_loses_the_line_that_did_not_fit_and_no_other(tmp_path: Path) -> None:
    """A tmpfs of 64 kB in a mount namespace of its own."""
    script = (
        "import sys\n"
        "from llmfw.core.errors import ResourceError\n"
        "from llmfw.core.tracking import Journal, read_journal\n"
        "path, step = sys.argv[1] + '/journal.jsonl', 0\n"
        "journal = Journal(path)\n"
        "try:\n"
        "    while True: journal.metrics(step + 1, {'loss': 1.0, 'x' * 300: 1.0}); step += 1\n"
        "except ResourceError: pass\n"
        "view = read_journal(path)\n"
        "assert view.damaged == () and view.last_step == step > 50, (view.damaged, view.last_step, step)\n"
        "assert open(path, 'rb').read().endswith(b'\\n')\n"
        "print('held')\n"
    )
    mount = 'mount -t tmpfs -o size=64k tmpfs "$1" && exec "$2" -c "$3" "$1"'
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", mount, "sh", str(tmp_path), sys.executable, script],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"this system allows no mount namespace: {done.stderr.strip()}")
    assert done.stdout == "held\n", done.stderr


def test_a_folder_that_cannot_be_written_ends_with_exit_code_2(locked_folder: Path) -> None:
    with pytest.raises(UsageError) as caught:
        Journal(locked_folder / "journal.jsonl")
    assert caught.value.exit_code == 2


def test_a_journal_of_a_newer_version_is_refused_before_anything_is_written(path: Path) -> None:
    path.write_text('{"t":"journal","version":99}\n')
    with pytest.raises(UsageError, match="version 99"):
        Journal(path)
    assert path.read_text() == '{"t":"journal","version":99}\n'


def test_a_file_that_is_no_journal_is_refused_and_left_alone(path: Path) -> None:
    path.write_text("my notes\n")
    with pytest.raises(UsageError, match="no journal"):
        Journal(path)
    assert path.read_text() == "my notes\n"


def test_reading_a_missing_journal_says_so_with_exit_code_3(path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_journal(path)
    assert caught.value.exit_code == 3


def test_the_digest_of_a_resumed_run_equals_that_of_an_uninterrupted_one(tmp_path: Path) -> None:
    straight, resumed = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    with Journal(straight) as journal:
        for step in range(1, 6):
            journal.metrics(step, {"loss": 1 / step, "time/step": 0.1})
    with Journal(resumed) as journal:
        for step in range(1, 5):
            journal.metrics(step, {"loss": 1 / step, "time/step": 0.2})
    with Journal(resumed) as journal:
        journal.rewind(2)
        for step in range(3, 6):
            journal.metrics(step, {"loss": 1 / step, "time/step": 0.3})
    assert read_journal(straight).digest() == read_journal(resumed).digest()
    with Journal(resumed) as journal:
        journal.metrics(5, {"loss": math.nextafter(1 / 5, 1)})
    assert read_journal(straight).digest() != read_journal(resumed).digest()


def test_an_event_cannot_pose_as_a_metric(path: Path) -> None:
    with Journal(path) as journal, pytest.raises(ValueError, match="event"):
        journal.event("metrics", step=1)


def test_names_that_no_json_expects_survive(path: Path) -> None:
    with Journal(path) as journal:
        journal.metrics(1, {'Länge/ß " \\ \n \u2028': 1.0})
    assert read_journal(path).series == {'Länge/ß " \\ \n \u2028': [(1, 1.0)]}
