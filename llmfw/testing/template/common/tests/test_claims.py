"""What ``reproduce.py`` states can be run: ids, arms, seeds."""

from __future__ import annotations

from llmfw.testing import plugin_module

reproduce = plugin_module("my_method", "reproduce")


def test_every_claim_has_an_id_of_its_own_and_arms_for_each_size() -> None:
    ids = [claim.id for claim in reproduce.CLAIMS]
    assert ids and len(set(ids)) == len(ids)
    for claim in reproduce.CLAIMS:
        assert claim.id.startswith("my_method.") and claim.statement.endswith(".")
        for size, seeds in claim.seeds.items():
            for seed in seeds:
                assert set(claim.arms) | set(claim.controls) <= set(reproduce.arms(claim, seed, size))
