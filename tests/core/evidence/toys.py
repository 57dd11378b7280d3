"""A toy plugin whose reproduce.py has trainings and functions as arms, small and quick."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.toys import write_toy

PLUGIN = """
import llmfw

class Toy(llmfw.Plugin):
    @llmfw.hookimpl
    def llmfw_evaluations(self, run):
        measure = lambda policy, services: llmfw.EvaluationResult(metrics={"toy/one": 1.0})
        return [llmfw.Evaluation(name="toy", run=measure)]
"""
README = """# mine

## Measured here
<!-- evidence -->
<!-- /evidence -->

## Deviations from the paper
None.
"""
CLAIMS = """
import json
import random
from llmfw import Arm, Claim

CLAIMS = (
    Claim(
        id="mine.1", statement="Six steps end in a lower loss than two", paper="Table 1: 3.1 -> 2.9 nats",
        metric="validation/loss", direction="lower", effect=0.1, unit="nats", arms=("few", "many"),
        controls=("slow",), seeds={"smoke": (1, 2), "small": (1, 2)},
    ),
    Claim(
        id="mine.2", statement="Words are counted", paper="none", metric="count", kind="level", effect=2.0,
        arms=("counted",), seeds={"smoke": (1, 2, 3), "small": (1, 2, 3)},
    ),
    Claim(id="mine.3", statement="It is fast", paper="Table 2: 1.9x", metric="", not_tested="needs a GPU"),
)


def prepare(folder):
    draws = [random.random() for _ in range(20)]
    answers = [f"it is {one:.3f}" for one in draws]
    rows = [{"id": f"r{n}", "prompt": f"say {n}", "completion": one} for n, one in enumerate(answers)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\\n" for row in rows))
    with (folder / "calls").open("a") as file:
        file.write("called\\n")
    return {"data": folder / "rows.jsonl"}


def counted(workspace):
    (workspace.dir / "left.txt").write_text("kept")
    random.random()
    return {"count": 3.0 + workspace.seed / 10, "each": [1, 2, 3]}


def trained(about, steps, rate=0.01, **more):
    settings = {
        "model": "tiny-llama", "adapter.kind": "none", "trainer.max_steps": steps, "optimizer.lr": rate,
        "trainer.threads": 1, "checkpoint.every": 1,
    }
    return Arm(about=about, plugins=("mine",), settings=settings, prepare=prepare, **more)


def arms(claim, seed, size):
    return {
        "few": trained("two steps", 2),
        "many": trained("six steps", 6),
        "slow": trained("six small steps", 6, 1e-4),
        "counted": Arm(about="a function", run=counted),
    }
"""
FUNCTIONS = """
from llmfw import Arm, Claim

CLAIMS = (
    Claim(
        id="mine.1", statement="Mine is more", paper="gives none", metric="count", effect=0.5,
        arms=("plain", "own"), seeds={"smoke": (1, 2), "small": (1, 2, 3)},
    ),
)


def arms(claim, seed, size):
    return {
        "plain": Arm(about="none", run=lambda workspace: {"count": workspace.seed}),
        "own": Arm(about="mine", run=lambda workspace: {"count": workspace.seed + 1}),
    }
"""
"""Arms that are functions alone: nothing is trained, so it takes no time."""


def write_mine(site: Path, claims: str = CLAIMS) -> Path:
    """The plugin ``mine`` with this reproduce.py; gives its folder."""
    return write_toy(site, "mine", PLUGIN, files={"reproduce.py": claims, "README.md": README})


def git(place: Path, *words: str) -> str:
    """git's output in a repository that belongs to nobody."""
    who = ["-c", "user.name=toy", "-c", "user.email=toy@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *who, *words], cwd=place, check=True, capture_output=True, text=True)
    return done.stdout


def committed(site: Path) -> str:
    """Put the folder under git, or what changed in it; gives the commit."""
    if not (site / ".git").exists():
        git(site, "init", "-q")
        (site / ".gitignore").write_text("__pycache__/\n")
    git(site, "add", "-A")
    git(site, "commit", "-q", "--allow-empty", "-m", "State it")
    return git(site, "rev-parse", "HEAD").strip()
