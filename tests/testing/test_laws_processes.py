"""Mutants that are well-behaved in one process."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from llmfw.testing import ranks
from llmfw.testing.laws import Violation
from tests.testing.base_toys import assert_broken, assert_only

_RANK = '__import__("os").environ.get("LOCAL_RANK", "0")'


HANGS = """#!{python}
import pathlib, subprocess, sys, time
second = subprocess.Popen([{python!r}, "-c", "import time; time.sleep(600)"])
(pathlib.Path(sys.argv[-1]) / "second").write_text(str(second.pid))
time.sleep(600)
"""


def test_a_run_that_hangs_is_ended_with_the_process_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A program stands in for the first process: it starts a second one, as Lightning does, and both sleep."""
    program = tmp_path / "python"
    program.write_text(HANGS.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(ranks, "_LIMIT", 5)
    with pytest.raises(Violation, match="a run in two processes doesn't end within 5 s; let every process"):
        ranks.in_two_processes([], [], tmp_path / "run")
    second = int((tmp_path / "run" / "second").read_text())
    end = time.monotonic() + 10
    while _alive(second) and time.monotonic() < end:
        time.sleep(0.05)
    assert not _alive(second)


def _alive(process: int) -> bool:
    """Whether it runs; a zombie that nobody has read off doesn't."""
    try:
        os.kill(process, 0)
        return ") Z " not in Path(f"/proc/{process}/stat").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False


@pytest.mark.slow
def test_a_loss_that_depends_on_the_process_is_found(tmp_path: Path):
    """At first policy and reference agree, so that beta shows in the gradient alone."""
    assert_only(
        "two-ranks",
        tmp_path,
        "loss",
        functional=("link=partial(preference.sigmoid, beta=beta)",
                    f'link=partial(preference.sigmoid, beta=beta * (1 + ({_RANK} == "1")))'),
        match=r"in two processes \(here\) and in one \(there\) grad_norm of step 1 is .*return sums over",
    )  # fmt: skip


@pytest.mark.slow
def test_a_plan_that_depends_on_the_process_is_found(tmp_path: Path):
    assert_broken(
        "two-ranks",
        tmp_path,
        "surgery",
        plugin=('name="base_surgery"', f'name="base_surgery" + {_RANK}'),
        match="two processes make two plans|a run in two processes fails",
    )


@pytest.mark.slow
def test_weights_that_go_their_own_way_in_a_process_are_found(tmp_path: Path):
    apart = f"module.shift.data.add_(float({_RANK})) if module.training else 0, shifted(out, module.shift"
    assert_broken(
        "two-ranks",
        tmp_path,
        "surgery",
        surgery=(
            "lambda module, given, out: shifted(out, module.shift, scale=scale)",
            f"lambda module, given, out: ({apart}, scale=scale))[-1]",
        ),
        match=r"model\.norm\.shift ends otherwise in the second process; change weights through gradients",
    )
