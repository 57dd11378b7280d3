"""Move a built-in plugin out: into what ``llmfw plugins new`` renders, beside a core without it."""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path

from tests.architecture.conftest import ROOT, tracked
from tests.thirdparty.environment import Environment

GROUP = "llmfw.plugins"
CHOICE = "LLMFW_EVICT"
"""Environment variable: plugins' names, or ``all``; unset: the commit draws one."""


def built_ins() -> dict[str, str]:
    """Built-in plugins in order, each with its entry point."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return dict(sorted(project["entry-points"][GROUP].items()))


def kind_of(name: str) -> str:
    """The first kind on a built-in plugin's card."""
    text = (ROOT / "llmfw" / "plugins" / name / "card.toml").read_text(encoding="utf-8")
    return str(tomllib.loads(text)["kinds"][0])


def evict(name: str, environment: Environment, into: Path) -> Path:
    """Render a package for the plugin in an environment whose core lacks it, and put its own code and tests,
    unchanged, in the place of the example's; returns the package's folder.
    """
    told = environment.llmfw("plugins", "new", name, "--kind", kind_of(name), "--into", str(into), cwd=into)
    assert told.returncode == 0, told.stdout + told.stderr
    folder = into / f"llmfw-{name}"
    for source, target in (
        (ROOT / "llmfw" / "plugins" / name, folder / "src" / f"llmfw_{name}"),
        (ROOT / "tests" / "plugins" / name, folder / "tests"),
    ):
        shutil.rmtree(target)
        for file in tracked():
            if file.is_relative_to(source):
                place = target / file.relative_to(source)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, place)
    project = folder / "pyproject.toml"
    entry = built_ins()[name].replace(f"llmfw.plugins.{name}.", f"llmfw_{name}.")
    text, changed = re.subn(
        rf'^{name} = ".*"$', f'{name} = "{entry}"', project.read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    assert changed == 1
    project.write_text(text, encoding="utf-8")
    return folder
