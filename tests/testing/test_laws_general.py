"""Mutants of the laws of every plugin: each breaks its law alone; and what else a law refuses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from llmfw.core import discovery
from llmfw.testing.laws.documents import command_lines
from tests.testing.base_toys import Change, assert_only, mutant, outcomes

HOOK = "    @hookimpl\n    def llmfw_services"
CALLBACK = """
    @hookimpl
    def llmfw_callbacks(self, run: Any) -> Any:
        import os

        from lightning.pytorch import Callback

        class Mark(Callback):
            def on_fit_start(self, trainer: Any, module: Any) -> None:
                os.environ["TOY_WAS_HERE"] = "1"

        return [Mark()]

"""
SIX_MORE = "".join(
    f"    @hookimpl\n    def llmfw_{hook}(self) -> None:\n        return None\n\n"
    for hook in ("loss", "sampler", "datamodule", "evaluations", "metrics", "callbacks")
)
METRIC = """
    @hookimpl
    def llmfw_metrics(self, run: Any, stage: Any) -> Any:
        from torchmetrics import SumMetric

        from llmfw import NamedMetric

        def alone() -> SumMetric:
            if len(run.config.plugins) > 1:
                raise ValueError("not alone")
            return SumMetric()

        return [NamedMetric(name="toy/one", factory=alone, update=lambda metric, output, batch: metric.update(1.0))]

"""
QUARREL = """
        from llmfw.core.errors import ConflictError

        if len(run.config.plugins) > 1:
            raise ConflictError("TOY", "not in company", mend="leave")
"""
CLAIM = """
from llmfw import Arm, Claim

CLAIMS = (
    Claim(
        id="base_service.1", statement="It rates.", paper="none: a toy", metric="loss", effect=0.0,
        arms=("without", "with"), seeds={"smoke": (0,)},
    ),
)


def arms(claim, seed, size):
    return {"without": Arm(about="without"), "with": Arm(about="with", plugins=("base_service",))}
"""
MUTANTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "card": ("service", {"card": ('summary = "Rates a text by its length."', 'summary = ""')}, "set summary"),
    "config-round-trip": ("service", {"plugin": ("characters of one point", "")}, "base_service.unit has no help"),
    "known-hooks": ("service", {"card": ("[paper]", '[commands]\nrate = "Rate."\n\n[paper]')}, "card's verbs are rate.*name the same verb"),
    "plan-is-pure": (
        "service",
        {
            "plugin": [
                ("class Toy(Plugin):", "from itertools import count\n\nCOUNT = count()\n\n\nclass Toy(Plugin):"),
                ('name="base_service"', 'name=f"rater-{next(COUNT)}"'),
            ]
        },
        "return the same records",
    ),
    "quiet-birth": (
        "service",
        {"rater": ("class Length:", 'open("/tmp/never", "a").close()\n\n\nclass Length:'),
         "plugin": ("class Toy(Plugin):", "from . import rater\n\n\nclass Toy(Plugin):")},
        "writes the file /tmp/never.* inside a record's function",
    ),
    "mathematics-alone": (
        "transform",
        {"functional": ("from typing import Any", "from typing import Any\n\nimport transformers  # noqa: F401")},
        "functional.py:8: import transformers; keep the mathematics to torch",
    ),
    "doors": (
        "service",
        {"rater": ("class Length:", "from llmfw.core.schema import Root  # noqa: F401\n\n\nclass Length:")},
        "from llmfw.core.schema import Root: a module of the core's own; use a public name",
    ),
    "documents": ("service", {"README": ("## Idea", "## Thoughts")}, "no heading '## Idea'; write it"),
    "overlay": ("transform", {"config": ("data:\n  name: champ-problems\n", "")}, "name data in config.yaml"),
    "claims": ("service", {"reproduce": CLAIM}, "effect.*; mend reproduce.py"),
    "company-plans": (
        "service",
        {"plugin": ("        from .rater import Length\n", "        from .rater import Length\n\n        assert len(run.config.plugins) == 1\n")},
        f"together with '{min(discovery.cards())}' there is neither a plan nor a conflict.*; let hooks look at nothing but",
    ),
    "company-steps": ("service", {"plugin": (HOOK, METRIC + HOOK)}, "it plans, but doesn't run.*; leave room"),
    "leaves-no-trace": ("service", {"plugin": (HOOK, CALLBACK + HOOK)}, "variable TOY_WAS_HERE.*be undone when"),
}  # fmt: skip


@pytest.mark.parametrize("law", MUTANTS)
def test_a_mutant_breaks_its_law_alone(tmp_path: Path, law: str):
    kind, changes, match = MUTANTS[law]
    assert_only(law, tmp_path, kind, match=match, **changes)


MORE: list[tuple[str, str, str, Change, str]] = [
    ("card", "service", "card", ('kinds = ["service"]', 'kinds = ["service", "loss"]'), r'set kinds = \["service"\]'),
    ("card", "service", "card", ('offers = ["Rater"]', "offers = []"), "the card offers nothing, the hooks Rater"),
    ("card", "loss", "card", ("early = 1.0", "late = 1.0"), r"neutral settings can't be set: base_loss.late"),
    ("card", "loss", "card", ('title = "A toy"', 'title = "A toy"\narxiv = "24-1"'), "'24-1' is no arXiv number"),
    ("card", "loss", "card", ('title = "A toy"', 'titel = "A toy"'), "unknown key 'titel'"),
    ("config-round-trip", "service", "plugin", ("default=10", "default=0"), "its defaults can't be taken"),
    ("config-round-trip", "service", "plugin", ('"minimum"', '"min"'), "has 'min', which nobody reads"),
    (
        "config-round-trip",
        "service",
        "plugin",
        ("    config: Config", "        def __post_init__(self):\n            self.unit *= 2\n\n    config: Config"),
        "base_service.unit isn't what was set",
    ),
    ("known-hooks", "service", "plugin", ("    config: Config", "    llmfw_x1 = 1\n    config: Config"), "isn't marked"),
    ("known-hooks", "service", "plugin", (HOOK, SIX_MORE + HOOK), "it answers 7 hooks.*; keep to 6"),
    ("doors", "service", "plugin", ("from .rater", "from toy_base_service.rater"), "write from .rater import"),
    ("doors", "service", "rater", ("class Length:", "import llmfw.plugins.dpo.plugin\n\n\nclass Length:"), "plugin 'dpo'"),
    ("doors", "service", "rater", ("class Length:", "from llmfw import Root\n\n\nclass Length:"), "no public name"),
    ("mathematics-alone", "loss", "reference", ("import torch\n", "import torch\nfrom .functional import weights\n"), "from the paper alone"),
    ("documents", "service", "README", ("| `base_service.unit` |", "| unit |"), "base_service.unit isn't in the table"),
    ("documents", "service", "README", ("| `base_service.unit` |", "| `base_service.unit` | | |\n| `base_service.size` |"), "which isn't a setting"),
    ("documents", "service", "README", ("llmfw generate", "llmfw generat"), "there is no verb generat"),
    ("documents", "service", "README", ("--prompt", "--promt"), "there is no option --promt"),
    ("documents", "loss", "README", ("llmfw fit --plugin base_loss", "llmfw fit --plugin base_loss base_loss.late=1"), "there is no key base_loss.late"),
    ("documents", "loss", "README", ("llmfw fit --plugin base_loss", "llmfw fit --plugin base_loss base_loss.beta=-1"), "can't be planned"),
    ("documents", "service", "README", ("Nothing.", ""), "says nothing under '## Measured here'"),
    ("company-plans", "service", "plugin", ("from .rater import Length\n", "from .rater import Length\n" + QUARREL), "doesn't name 'base_service'.* declare conflicts_with"),
]  # fmt: skip


@pytest.mark.parametrize(("law", "kind", "file", "change", "match"), MORE, ids=lambda part: str(part)[:40])
def test_a_law_says_what_else_is_wrong(
    tmp_path: Path, law: str, kind: str, file: str, change: Change, match: str
):
    name = mutant(tmp_path, kind, **{file: change})
    (outcome,) = outcomes(tmp_path, name, only=[law]).values()
    assert outcome.status == "failed"
    assert re.search(match, outcome.message), outcome.message


def test_what_libraries_do_when_they_are_imported_isnt_the_plugins(tmp_path: Path):
    name = mutant(tmp_path, "service", rater=("class Length:", "import lightning.pytorch\n\n\nclass Length:"))
    (outcome,) = outcomes(tmp_path, name, only=["quiet-birth"]).values()
    assert outcome.status == "passed", outcome.message


def test_a_sentence_that_begins_with_llmfw_is_no_command_line():
    """Only code is: fenced, indented by four or behind a prompt; a comment and a broken line are read too."""
    page = (
        "llmfw doesn't mind.\n\n    llmfw fit --plugin one  # a comment\n$ llmfw plan a=1\n"
        "```\nllmfw config \\\n  --keys\n```\nllmfw isn't code here.\n"
    )
    assert command_lines(page) == [
        ["llmfw", "fit", "--plugin", "one"],
        ["llmfw", "plan", "a=1"],
        ["llmfw", "config", "--keys"],
    ]
