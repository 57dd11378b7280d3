"""The fixtures, a pytest plugin to opt into: ``pytest_plugins = ["llmfw.testing.fixtures"]``.

Nothing here needs the network; every folder is the test's own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from llmfw.testing.distributions import installed, look_again, write_plugin

if TYPE_CHECKING:
    from llmfw.core.batch import Batch
    from llmfw.core.manager import PluginManager
    from llmfw.testing.runner import Runner
    from llmfw.testing.store import Store

__all__ = [
    "byte_tokenizer",
    "installed_plugin",
    "isolated_manager",
    "mlflow_store",
    "preference_batch",
    "rows_file",
    "runner",
    "scored_batch",
    "text_batch",
    "tiny_llama",
    "tiny_mamba",
    "tiny_mixtral",
]


@pytest.fixture
def tiny_llama() -> Any:
    """A Llama of two layers with random weights over bytes."""
    from llmfw.testing.models import tiny_model

    return tiny_model("tiny-llama")


@pytest.fixture
def tiny_mixtral() -> Any:
    """A Mixtral of two layers, four experts each."""
    from llmfw.testing.models import tiny_model

    return tiny_model("tiny-mixtral")


@pytest.fixture
def tiny_mamba() -> Any:
    """A Mamba of two layers: no attention, no positions."""
    from llmfw.testing.models import tiny_model

    return tiny_model("tiny-mamba")


@pytest.fixture(scope="session")
def byte_tokenizer() -> Any:
    """The tokenizer of the tiny models: a token a byte, five special ones, a ChatML template."""
    from llmfw.core.models import byte_tokenizer

    return byte_tokenizer()


@pytest.fixture
def text_batch() -> Callable[..., Batch]:
    """``text_batch(layout="right")``: three answers of unlike length; left and packed too."""
    from llmfw.testing import batches

    return batches.text_batch


@pytest.fixture
def scored_batch() -> Callable[..., Batch]:
    """``scored_batch(layout="right")``: the same with rewards."""
    from llmfw.testing import batches

    return batches.scored_batch


@pytest.fixture
def preference_batch() -> Callable[..., Batch]:
    """``preference_batch(layout="right")``: three pairs; left, packed and shared_prompt too."""
    from llmfw.testing import batches

    return batches.preference_batch


@pytest.fixture
def rows_file(tmp_path: Path) -> Callable[..., Path]:
    """``rows_file(form="completion", count=12)``: a file of sums in a form (completion, preference, text)."""
    from llmfw.testing.subject import tiny_rows

    def write(form: str = "completion", count: int = 12) -> Path:
        file = tmp_path / f"{form}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in tiny_rows(form, count)), encoding="utf-8")
        return file

    return write


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    """``runner("fit", "--plugin", "mine")`` runs the command line in the test's folder, small and without
    MLflow; ``runner.process(...)`` in a process of its own.
    """
    from llmfw.testing.runner import Runner
    from llmfw.testing.subject import SMALL

    return Runner(tmp_path, tuple(f"{key}={value}" for key, value in SMALL.items()))


@pytest.fixture
def installed_plugin(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """``installed_plugin(name, source, card=..., overlay=..., files=...)`` writes a distribution and installs
    it until the test ends; arguments as of ``llmfw.testing.write_plugin``.
    """
    site = tmp_path / "site-packages"

    def install(name: str, source: str, **more: Any) -> Path:
        folder = write_plugin(site, name, source, **more)
        look_again()
        return folder

    with installed(site):
        yield install


@pytest.fixture
def isolated_manager() -> Callable[..., PluginManager]:
    """``isolated_manager(plugin, other, names=...)``: a manager of these plugin objects and the core's
    defaults, whatever is installed.
    """
    from llmfw.core.defaults import Defaults
    from llmfw.core.manager import PluginManager

    def manager(*plugins: object, names: Sequence[str] | None = None) -> PluginManager:
        called = names or [type(plugin).__name__.lower() for plugin in plugins]
        origins: Mapping[str, str] = dict.fromkeys(called, "a test")
        return PluginManager(list(zip(called, plugins, strict=True)), Defaults(None), origins)

    return manager


@pytest.fixture
def mlflow_store(tmp_path: Path) -> Store:
    """An MLflow store in the test's folder: ``tracking.uri={mlflow_store.uri}``, then ``.runs()``."""
    from llmfw.testing.store import Store

    return Store(tmp_path / "mlflow.db")
