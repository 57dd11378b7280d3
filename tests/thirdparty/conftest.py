"""Wheels of llmfw and clean environments, made once for all workers of a session."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.thirdparty.environment import Environment, build_wheel, copy_core, once


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the workers of this session share."""
    base = tmp_path_factory.getbasetemp()
    place = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "thirdparty"
    place.mkdir(exist_ok=True)
    return place


@pytest.fixture(scope="session")
def core_wheel(shared: Path) -> Path:
    """llmfw as a wheel."""
    place = shared / "core"
    with once(place) as first:
        if first:
            build_wheel(copy_core(place / "source"), place / "dist")
    (wheel,) = (place / "dist").glob("*.whl")
    return wheel


@pytest.fixture
def clean(core_wheel: Path, tmp_path: Path) -> Environment:
    """An environment in which llmfw is installed from its wheel, and no other plugin."""
    environment = Environment.create(tmp_path / "environment")
    environment.install(core_wheel)
    return environment
