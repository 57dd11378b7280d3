"""``llmfw verify resume``: one command line, run untouched and run killed at random, and the two compared."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from llmfw.callbacks import SignalWatch
from llmfw.core.errors import CheckpointError, RunFailed, UsageError
from llmfw.core.exactness import PROMISES
from llmfw.core.failpoints import VARIABLE
from llmfw.core.proof.facts import Finding, compare, consumed, lost_steps
from llmfw.core.proof.kills import Kill, Pace, draw, journals, last_words, pace_of, run_command, target_of
from llmfw.core.proof.tracked import one_mlflow_run
from llmfw.core.tracking import read_journal, read_record
from llmfw.core.tracking.files import read_json


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of the comparison."""

    folder: Path
    grade: str
    """The class that the run promises: A, B or C."""
    reasons: tuple[str, ...]
    steps: int
    kills: tuple[int, ...]
    """Optimizer steps that were done when each kill came."""
    missed: int
    """Kills that came too late: the run had ended."""
    lost: tuple[int, ...]
    """Steps that were computed again after each kill, where the run had begun to train."""
    every: int
    """Steps between two checkpoints; 0: at the end only."""
    findings: tuple[Finding, ...]
    seconds: float

    @property
    def held(self) -> bool:
        """Whether everything that the class promises is so."""
        return all(finding.held for finding in self.findings)

    def insist(self) -> None:
        """Return where it is so, and at least one kill came in time.

        Raises:
            CheckpointError: RESUME-DIFFERS, naming the first difference; VERIFY-NO-KILL.
        """
        if not self.kills:
            raise CheckpointError(
                "VERIFY-NO-KILL", "the run had ended before any kill: nothing is proved",
                mend="set trainer.max_steps higher, or another --seed", file=self.folder,
            )  # fmt: skip
        for one in self.findings:
            if not one.held:
                raise CheckpointError(
                    "RESUME-DIFFERS", f"{one.what}: {one.said}",
                    mend="both runs and their logs are kept: compare them", file=self.folder,
                )  # fmt: skip


def verify_resume(
    arguments: Sequence[str],
    *,
    folder: Path,
    kills: int = 3,
    seed: int = 0,
    tell: Callable[[str], None] = lambda line: None,
) -> Verdict:
    """Run ``llmfw fit ARGUMENTS`` untouched and killed, both below ``folder``, and compare.

    Args:
        arguments: words of ``llmfw fit``, without ``run.dir`` and ``--resume``.
        kills: SIGKILLs, at moments that ``seed`` draws.
        tell: told what goes on.

    Raises:
        UsageError: VERIFY-FOLDER, the folder isn't empty; VERIFY-SETTING, a setting that verifying decides.
        RunFailed: VERIFY-RUN, the command fails without any kill, or after one.
        Interrupted: a signal came; the run that was under way is killed.
    """
    _check(arguments, folder)
    with SignalWatch(mend=f"remove {folder} and verify again when you like"):
        return _verify(arguments, folder, kills=kills, seed=seed, tell=tell)


def _verify(
    arguments: Sequence[str], folder: Path, *, kills: int, seed: int, tell: Callable[[str], None]
) -> Verdict:
    began, launched = time.monotonic(), time.time()
    folder.mkdir(parents=True, exist_ok=True)
    tell(f"the untouched run (its log: {folder / 'whole.log'})")
    _launch(arguments, folder, "whole")
    whole = folder / "whole"
    steps = sum(len(consumed(read_journal(one))) for one in journals(whole))
    tell(f"it took {time.monotonic() - began:.0f} s for {steps} steps; now with {kills} kills")
    pace, plan = pace_of(whole, launched, time.time()), draw(seed, kills, max(1, steps))
    done, missed = list[int](), 0
    for number, kill in enumerate(plan, start=1):
        code = _launch(arguments, folder, "killed", kill=kill, pace=pace)
        if code == 0:
            missed += len(plan) - number + 1
            tell(f"kill {number} of {kills} came too late: the run had ended")
            break
        done.append(sum(read_journal(one).last_step for one in journals(folder / "killed") if one.exists()))
        tell(f"kill {number} of {kills}: after step {done[-1]}")
    else:
        _launch(arguments, folder, "killed")
    verdict = _judge(folder, steps=steps, kills=done, missed=missed)
    return replace(verdict, seconds=time.monotonic() - began)


def _check(arguments: Sequence[str], folder: Path) -> None:
    for word in arguments:
        for key in ("run.dir=", "checkpoint.dir=", "tracking.uri=", "--resume"):
            if word.startswith(key):
                raise UsageError(
                    "VERIFY-SETTING",
                    f"{word} is for verifying to decide",
                    mend="leave it out",
                    key=key.rstrip("="),
                )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            "VERIFY-FOLDER",
            "there is something already",
            mend="name an empty folder, or remove it",
            file=folder,
        )


def _launch(
    arguments: Sequence[str], folder: Path, name: str, *, kill: Kill | None = None, pace: Pace | None = None
) -> int:
    run, log = folder / name, folder / f"{name}.log"
    command = [
        sys.executable, "-m", "llmfw", "fit", *arguments, f"run.dir={run}", "checkpoint.dir=null",
        "trainer.progress=false", f"tracking.uri=sqlite:///{(folder / 'mlflow.db').absolute()}", "--resume",
    ]  # fmt: skip
    env = {key: value for key, value in os.environ.items() if key != VARIABLE}
    code = run_command(command, log=log, env=env, target=target_of(run), kill=kill, pace=pace)
    if code == 0 or (kill is not None and code == -signal.SIGKILL):
        return code
    raise RunFailed(
        "VERIFY-RUN",
        f"the {'untouched' if name == 'whole' else 'killed'} run ended with exit code {code}: "
        f"{last_words(log)}",
        returncode=code,
        file=log,
        mend="mend the run first" if name == "whole" else "it must go on after a kill: see its log",
    )


def _judge(folder: Path, *, steps: int, kills: Sequence[int], missed: int) -> Verdict:
    whole, killed = folder / "whole", folder / "killed"
    record = read_record(killed)
    told = (read_json(killed / "plan.json") or {}).get("settings", {})
    every = int(told.get("checkpoint.every") or 0)
    lost = [steps for journal in journals(killed) for steps in lost_steps(read_journal(journal))]
    grade = record.resume_class if record.resume_class in PROMISES else "A"
    # one that is being flushed in the background isn't durable yet, and the next one waits for it
    bound = every * (2 if told.get("checkpoint.background") else 1)
    findings = [*compare(whole, killed, grade), _again(max(lost, default=0), bound)]
    records = [read_record(one) for one in (killed, *sorted((killed / "rounds").glob("*")))]
    findings += [one_mlflow_run(folder / "mlflow.db", one) for one in records if one.mlflow]
    return Verdict(
        folder=folder, grade=grade, reasons=tuple(record.resume_reasons), steps=steps, kills=tuple(kills),
        missed=missed, lost=tuple(lost), every=every, findings=tuple(findings), seconds=0.0,
    )  # fmt: skip


def _again(most: int, bound: int) -> Finding:
    """How many steps a kill cost at most; ``bound`` 0: there are checkpoints at the end only."""
    fine = most <= bound or not bound
    allowed = f"{bound} allowed" if bound else "checkpoints at the end only"
    return Finding(
        what="steps computed again", equal=fine, held=fine, said=f"at most {most} a kill, {allowed}"
    )
