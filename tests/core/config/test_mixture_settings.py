"""``data.name`` and ``data.mix``: the higher layer holds, both in one are an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmfw.core.config import load_config
from llmfw.core.errors import UsageError


def _file(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_mixture_takes_sources_with_dots_and_slashes_and_drops_the_presets_settings() -> None:
    data = load_config(overrides=["data.mix={x/a.jsonl: 2, champ-problems: 0.5}"], plugins=["dpo"]).root.data
    assert data.mix == {"x/a.jsonl": 2.0, "champ-problems": 0.5}
    assert (data.kind, data.options, data.package, data.validation) == (None, {}, {}, "0.1")
    one = load_config(overrides=["data.mix.a.jsonl=3", "data.mix.b.jsonl=1", "data.split_key=k"]).root.data
    assert one.mix == {"a.jsonl": 3.0, "b.jsonl": 1.0} and one.split_key == "k"


def test_the_higher_layer_holds(tmp_path: Path) -> None:
    mixed = _file(tmp_path / "mix.yaml", "data:\n  mix: {a.jsonl: 1}\n  split_key: topic\n")
    named = _file(tmp_path / "name.yaml", "data:\n  name: b.jsonl\n  split_key: topic\n")
    assert load_config(files=[mixed], overrides=["data=c.jsonl"]).root.data.mix == {}
    over = load_config(files=[named], overrides=["data.mix={a.jsonl: 1}"]).root.data
    assert over.mix == {"a.jsonl": 1.0} and over.split_key is None  # it was the other source's
    assert load_config(files=[mixed]).root.data.split_key == "topic"
    saved = load_config(overrides=["data.mix={a.jsonl: 2, b.jsonl: 1}", "data.split_key=k"]).to_dict()
    again = load_config(base=saved).root.data
    assert again.mix == {"a.jsonl": 2.0, "b.jsonl": 1.0} and again.split_key == "k"
    other = load_config(base=saved, overrides=["data=champ-problems"]).root.data
    assert other.mix == {} and other.kind == "problems"


def test_both_in_one_layer_are_refused_by_line(tmp_path: Path) -> None:
    both = _file(tmp_path / "both.yaml", "data:\n  mix: {a.jsonl: 1}\n  name: b.jsonl\n")
    with pytest.raises(UsageError, match=rf"MIX-NAME\] {both}:3:data.name: data.name and data.mix are both"):
        load_config(files=[both])
    with pytest.raises(UsageError, match="MIX-NAME"):
        load_config(overrides=["data=b.jsonl", "data.mix={a.jsonl: 1}"])
    assert load_config(overrides=["data=b.jsonl", "data.mix={}"]).root.data.name == "b.jsonl"
    with pytest.raises(UsageError, match="must be above 0"):
        load_config(overrides=["data.mix={a.jsonl: 0}"])
