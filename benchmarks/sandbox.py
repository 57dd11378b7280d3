"""What a sandbox costs: a job against its floor, two processors against one, and many jobs at once.

    python -m benchmarks.sandbox                         # results/sandbox.json
    python -m benchmarks.sandbox --repetitions 3 --out FOLDER

The floor is bubblewrap with the same namespaces and mounts around the interpreter alone: no limits, no
supervisor, no test. ``subprocess`` is the interpreter without any wall; firejail is measured where it is
installed (other public sandboxes need Docker or root). All are interleaved. While a
job runs, the sandbox of the next one is started on a free processor; the row after a pause is without that.
One worker against as many as there are processors: one worker has one processor, hence no spare either.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks import harness, record
from llmfw.plugins.mplsandbox.executor import Sandbox
from llmfw.plugins.mplsandbox.isolation.filesystem import links, readable
from llmfw.plugins.mplsandbox.isolation.spares import IDLE
from llmfw.plugins.mplsandbox.records import Case, Limits, Request

CODE = "print(int(input()) * 2)"
PROGRAMS: Mapping[str, str] = {
    "python": CODE,
    "javascript": "console.log(2 * parseInt(require('fs').readFileSync(0, 'utf8')));",
    "bash": "read -r n; echo $((2 * n))",
    "perl": "print 2 * <STDIN>, qq(\\n);",
    "lua": "print(2 * io.read('n'))",
    "c": '#include <stdio.h>\nint main(void) { int n; return scanf("%d", &n) < 1 || !printf("%d", 2 * n); }',
}
MIXED: tuple[tuple[Request, str], ...] = (
    (Request(code=CODE, lang="python", cases=[Case(stdin="4", expected="8")]), "OK"),
    (Request(code=CODE, lang="python", cases=[Case(stdin="4", expected="9")]), "WA"),
    (Request(code="1 / 0", lang="python", cases=[Case()]), "RE"),
    (Request(code="print(", lang="python", cases=[Case()]), "CE"),
    (Request(code="while True: print('x' * 999)", lang="python", cases=[Case()]), "OLE"),
    (Request(code="x = b'x' * (99 << 20)", lang="python", cases=[Case()], limits=Limits(memory=32)), "MLE"),
    (Request(code="while True: pass", lang="python", cases=[Case()], limits=Limits(seconds=0.2)), "TLE"),
    (Request(code="read -r n; echo $((2 * n))", lang="bash", cases=[Case(stdin="4", expected="8")]), "OK"),
)


def floor(folder: Path) -> None:
    """Bubblewrap and the interpreter."""
    words = ["bwrap", "--unshare-all", "--unshare-user", "--die-with-parent", "--new-session"]
    words += [word for place in readable() for word in ("--ro-bind", place, place)]
    words += [word for place, target in links().items() for word in ("--symlink", target, place)]
    words += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--ro-bind", str(folder), "/work"]
    _answer([*_other(), *words, "--chdir", "/work", "/usr/bin/python3", "-B", "-E", "-s", "main.py"], folder)


def bare(folder: Path) -> None:
    """The interpreter alone."""
    _answer([*_other(), "/usr/bin/python3", "-B", "-E", "-s", "main.py"], folder)


def firejail(folder: Path) -> None:
    """A public sandbox, set as close to ours as it gets: no network, no capability, its filter."""
    words = ["firejail", "--quiet", "--noprofile", "--net=none", f"--private={folder}", "--seccomp"]
    words += ["--caps.drop=all", "--nonewprivs", "--rlimit-as=512000000"]
    _answer([*words, "/usr/bin/python3", "-B", "-E", "-s", "main.py"], folder)


def _other() -> list[str]:
    return ["setpriv", "--reuid=61183", "--regid=61183", "--clear-groups"] if os.geteuid() == 0 else []


def _answer(words: Sequence[str], folder: Path) -> None:
    done = subprocess.run(words, input=b"4", capture_output=True, cwd=folder, check=True)
    assert done.stdout == b"8\n"


def timed(call: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def single(sandbox: Sandbox, repetitions: int) -> list[dict[str, Any]]:
    """A job of each language, and a Python job against floor and bare interpreter, interleaved."""
    told: dict[str, list[float]] = {}
    request = Request(code=CODE, lang="python", cases=[Case(stdin="4", expected="8")])

    def ours() -> None:
        assert sandbox.run(request).verdict == "OK"

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        folder.chmod(0o755)
        (folder / "main.py").write_text(CODE)
        sides = {"ours": ours, "floor": lambda: floor(folder), "subprocess": lambda: bare(folder)}
        if shutil.which("firejail"):
            sides["firejail"] = lambda: firejail(folder)
        for _ in range(repetitions):
            for name, side in sides.items():
                told.setdefault(name, []).append(1000 * timed(side))
        cold = pauses(ours, folder, max(3, repetitions // 4))
    rows = [
        record.row(
            "a Python job, end to end", ours=statistics.median(told["ours"]), unit="ms",
            repetitions=repetitions, peer=statistics.median(told[peer]), peer_name=name, goal=goal,
            ours_spread=harness.spread(told["ours"]), peer_spread=harness.spread(told[peer]),
        )
        for peer, name, goal in (
            ("floor", "bubblewrap + interpreter", ("at most", 1.3)),
            ("subprocess", "plain subprocess, no wall", None),
            ("firejail", "firejail + interpreter, a public sandbox", None),
        )
        if peer in told
    ]  # fmt: skip
    first, bwrap = (list(values) for values in zip(*cold, strict=True))
    rows.append(
        record.row(
            "a Python job after a pause", ours=statistics.median(first), unit="ms", repetitions=len(cold),
            peer=statistics.median(bwrap), peer_name="bubblewrap + interpreter",
            ours_spread=harness.spread(first), peer_spread=harness.spread(bwrap),
        )
    )  # fmt: skip
    for lang, code in PROGRAMS.items():
        case = Request(code=code, lang=lang, cases=[Case(stdin="4\n", expected="8")])
        assert sandbox.run(case).verdict == "OK", lang
        values = [1000 * timed(lambda case=case: sandbox.run(case)) for _ in range(max(3, repetitions // 4))]
        median = statistics.median(values)
        rows.append(
            record.row(f"{lang}: compile and one run", ours=median, unit="ms", repetitions=len(values))
        )
    return rows


def pauses(ours: Callable[[], object], folder: Path, repetitions: int) -> list[tuple[float, float]]:
    """Milliseconds of our job and of the floor, each time after a pause that no spare outlives."""
    told = []
    for _ in range(repetitions):
        time.sleep(2 * IDLE + 0.1)
        told.append((1000 * timed(ours), 1000 * timed(lambda: floor(folder))))
    return told


def scaling(repetitions: int, jobs: int) -> list[dict[str, Any]]:
    """Jobs a second by a worker on each processor against one worker on one, interleaved; the floor's too,
    which says how far this machine's processors are two.
    """
    processors = os.sched_getaffinity(0)
    cores = len(processors)
    request = Request(code=CODE, lang="python", cases=[Case(stdin="4", expected="8")])
    told: dict[tuple[str, int], list[float]] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        folder.chmod(0o755)
        (folder / "main.py").write_text(CODE)

        def ours(workers: int) -> None:
            list(Sandbox(jobs=workers).run_many([request] * jobs))

        def floors(workers: int) -> None:
            with ThreadPoolExecutor(workers) as pool:
                list(pool.map(floor, [folder] * jobs))

        for _ in range(repetitions):
            for name, side in (("Python jobs", ours), ("bubblewrap + interpreter", floors)):
                for workers in (1, cores):
                    os.sched_setaffinity(0, sorted(processors)[:workers])  # threads begun here inherit it
                    try:
                        seconds = timed(lambda side=side, workers=workers: side(workers))
                    finally:
                        os.sched_setaffinity(0, processors)
                    told.setdefault((name, workers), []).append(jobs / seconds)
    rows = []
    for name, goal in (("Python jobs", ("at least", 0.9)), ("bubblewrap + interpreter", None)):
        one, all_ = told[name, 1], told[name, cores]
        rows.append(
            record.row(
                f"{name} by {cores} workers on {cores} processors", ours=statistics.median(all_),
                unit="jobs/s", repetitions=repetitions, peer=statistics.median(one),
                peer_name="one worker, one processor", goal=goal,
                judged=statistics.median(all_) / statistics.median(one) / cores if goal else None,
                ours_spread=harness.spread(all_), peer_spread=harness.spread(one),
            )
        )  # fmt: skip
    return rows


def together() -> list[dict[str, Any]]:
    """64 mixed jobs side by side against their verdicts one after another."""
    requests, wanted = zip(*(MIXED * 8), strict=True)
    alone = Sandbox(jobs=1)
    assert [alone.run(one).verdict for one, _ in MIXED] == [verdict for _, verdict in MIXED]
    found = [result.verdict for result in Sandbox(jobs=8).run_many(requests)]
    same = sum(one == other for one, other in zip(found, wanted))
    return [
        record.row(
            "64 mixed jobs at once: verdicts as one after another", ours=same, unit="of 64", repetitions=1,
            judged=same, goal=("at least", 64),
        )
    ]  # fmt: skip


def versions() -> dict[str, str]:
    """Of what holds the programs."""
    told = subprocess.run(["bwrap", "--version"], capture_output=True, text=True, check=True).stdout.split()
    return {"bubblewrap": told[-1]}


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--repetitions", type=int, default=40)
    parser.add_argument("--out", type=Path, default=record.RESULTS, help="folder of the result")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> Path:
    """Measure, write the result, print a line per row."""
    options = parse(words)
    sandbox = Sandbox(jobs=1)
    rows = single(sandbox, options.repetitions)
    rows += scaling(max(3, options.repetitions // 8), 4 * options.repetitions)
    rows += together()
    settings = {"level": "strict", "python": sys.version.split()[0]}
    path = record.write("sandbox", rows, versions=versions(), folder=options.out, settings=settings)
    record.tell(rows)
    print(f"wrote {path.name}")
    return path


if __name__ == "__main__":
    main()
