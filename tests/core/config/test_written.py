"""Settings written out are read back the same."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from llmfw.core.config import Resolved, load_config

TEXTS = (
    st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)
    .map(str.strip)
    .filter(bool)
)


SCALARS = st.none() | st.booleans() | TEXTS


@settings(max_examples=40, deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "seed": st.integers(0, 2**32 - 1),
            "optimizer": st.fixed_dictionaries({"lr": st.floats(0, 1), "betas": st.just([0.5, 0.25])}),
            "generation": st.fixed_dictionaries({"stop": st.lists(TEXTS, max_size=3)}),
            "tracking": st.fixed_dictionaries({"tags": st.dictionaries(TEXTS, TEXTS, max_size=3)}),
            "model": st.fixed_dictionaries({"config": st.dictionaries(TEXTS, SCALARS, max_size=3)}),
            "data": st.fixed_dictionaries({"limit": st.none() | st.integers(1, 9), "packing": st.booleans()}),
        }
    )
)
def test_resolved_settings_written_out_and_read_back_are_the_same(tmp_path_factory, base: dict):
    first = load_config(base=base)
    path = tmp_path_factory.mktemp("again") / "a.yaml"
    path.write_text(first.to_yaml(), encoding="utf-8")
    assert load_config(files=[path]).to_dict() == first.to_dict()
    given_keys = [(key, inner) for key, part in base.items() if key != "seed" for inner in part]
    assert all(first.to_dict()[key][inner] == base[key][inner] for key, inner in given_keys)


def test_settings_written_out_hide_secrets_on_request():
    resolved = load_config(
        overrides=["tracking.uri=http://me:xyzzy@host:5000", "tracking.tags.hub_token=plugh"]
    )
    text = resolved.to_yaml(redacted=True)
    assert "xyzzy" not in text and "plugh" not in text and "host:5000" in text
    assert "me:xyzzy@" in resolved.to_yaml() and "plugh" in resolved.to_yaml()


def test_every_setting_has_an_origin_and_copies_dont_touch_the_original(site: Path):
    resolved: Resolved = load_config(plugins=["first", "strict"], overrides=["strict.needed=2"])
    assert resolved.origin.keys() == resolved.flat().keys()
    resolved.to_dict()["optimizer"]["betas"].append(3)
    assert resolved.to_dict()["optimizer"]["betas"] == [0.9, 0.999]
