"""Which pairs the law company-steps judges: those of which neither fails alone over the kit's rows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from llmfw.core import discovery
from llmfw.testing.check import Outcome
from tests.testing.base_toys import mutant, outcomes

METRIC = """
    @hookimpl
    def llmfw_metrics(self, run: Any, stage: Any) -> Any:
        from torchmetrics import SumMetric

        from llmfw import NamedMetric

        def count() -> SumMetric:
            if QUARRELSOME and len(run.config.plugins) > 1:
                raise ValueError("not alone")
            return SumMetric()

        return [NamedMetric(name="toy/NAME", factory=count, update=lambda metric, output, batch: metric.update(1.0))]

"""
CHOOSY = """\
    from llmfw import LlmfwError

    if index == 0 and not all("KEY" in row for row in rows):
        raise LlmfwError("TOY", "rows without KEY", mend="bring others")
    if index == 1:
        return None
"""


def speaking(name: str, hook: str, *, quarrelsome: bool) -> tuple[str, str]:
    """A change of ``plugin.py``: it counts steps, too, and so speaks where others do."""
    first = f"    @hookimpl\n    def {hook}"
    return first, METRIC.replace("NAME", name).replace("QUARRELSOME", str(quarrelsome)) + first


def told_of_a_service_beside_a_sampler_that_wants(
    key: str, site: Path, *, quarrelsome: bool = False
) -> Outcome:
    """What the law says of the toy service with that sampler as its only company."""
    built_in = sorted(name for name, card in discovery.cards().items() if card.distribution == "llmfw")
    card = ("api = [1, 1]", f"api = [1, 1]\nconflicts_with = {json.dumps(built_in)}")
    mutant(
        site, "sampler", card=card,
        plugin=[speaking("rounds", "llmfw_sampler", quarrelsome=False), ("default=2", "default=0")],
        sampler=("    if index == 1:\n        return None\n", CHOOSY.replace("KEY", key)),
    )  # fmt: skip
    service = speaking("service", "llmfw_services", quarrelsome=quarrelsome)
    name = mutant(site, "service", card=card, plugin=service)
    (outcome,) = outcomes(site, name, only=["company-steps"]).values()
    return outcome


def test_a_pair_isnt_judged_where_one_cant_read_the_kits_rows_even_alone(tmp_path: Path):
    """No row of the kit has a key ``hints``."""
    outcome = told_of_a_service_beside_a_sampler_that_wants("hints", tmp_path)
    assert outcome.status == "skipped", outcome.message
    assert re.search("none that both it and another of 'base_sampler' can read", outcome.message)


@pytest.mark.parametrize(("quarrelsome", "status"), [(False, "passed"), (True, "failed")])
def test_a_pair_is_judged_over_the_first_rows_with_which_each_runs_alone(
    tmp_path: Path, quarrelsome: bool, status: str
):
    """The service's own rows have a ``completion``, and no key ``text``, as the kit's third form has."""
    outcome = told_of_a_service_beside_a_sampler_that_wants("text", tmp_path, quarrelsome=quarrelsome)
    assert outcome.status == status, outcome.message
    assert not quarrelsome or "together with 'base_sampler' it plans, but doesn't run" in outcome.message
