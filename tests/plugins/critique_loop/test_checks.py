"""What is refused before the first round."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmfw import LlmfwError
from llmfw.plugins.critique_loop.checks import check, check_settings
from llmfw.plugins.critique_loop.sampler import critique_loop

PLAIN = {"id": "q", "prompt": "?", "answer": "1"}
"""A problem that is no chain: nobody knows its steps."""


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({}, "annotator"),
        ({"feedback": False}, "annotator"),
        ({"critic": "oracle"}, "annotator"),
        ({"critic": "oracle", "feedback": False}, "critic"),
        ({"critic": "noisy", "feedback": False}, "critic"),
    ],
)
def test_rows_without_known_steps_are_refused_before_anything_is_sampled(
    roles: Any, tmp_path: Path, settings: dict[str, Any], key: str
) -> None:
    actor = roles.follower()
    make = critique_loop(roles.Config(**settings), roles.run_of(tmp_path))
    told = rf"error\[NO-CHAIN\] critique_loop.{key}: row 'q' .*; use data=chain-arithmetic, or name a model"
    with pytest.raises(LlmfwError, match=told) as caught:
        make(0, [*roles.ROWS, PLAIN], actor, roles.service, None)
    assert caught.value.exit_code == 3 and not actor.asked


def test_held_out_rows_have_known_steps_where_a_scripted_critic_is_measured_on_them(
    roles: Any, tmp_path: Path
) -> None:
    run = roles.run_of(tmp_path)
    run.rows = lambda split: [PLAIN]
    settings = {"critic": "oracle", "feedback": False}
    with pytest.raises(LlmfwError, match=r"error\[NO-CHAIN\] critique_loop.critic: row 'q'"):
        check(roles.Config(test_time=1, **settings), run, roles.ROWS)
    check(roles.Config(test_time=0, **settings), run, roles.ROWS)


@pytest.mark.parametrize(
    "settings",
    [
        {"critic": "none"},
        {"critic": "silent", "feedback": False},
        {"critic": "sage", "annotator": "sage"},
        {"annotator": "sage"},
    ],
)
def test_rows_without_known_steps_will_do_where_nobody_has_to_know_them(
    roles: Any, tmp_path: Path, settings: dict[str, Any]
) -> None:
    check(roles.Config(**settings), roles.run_of(tmp_path, sage=None), [PLAIN])


@pytest.mark.parametrize(("share", "whom"), [(1.0, "the loop"), (0.0001, "the critic")])
def test_too_few_problems_to_part_are_refused_before_anything_is_sampled(
    roles: Any, tmp_path: Path, share: float, whom: str
) -> None:
    actor = roles.follower()
    make = critique_loop(roles.Config(critic_share=share), roles.run_of(tmp_path))
    told = rf"error\[NO-SPLIT\].*of 6 problems leaves none to {whom}; give more problems"
    with pytest.raises(LlmfwError, match=told) as caught:
        make(0, roles.ROWS, actor, roles.service, None)
    assert caught.value.exit_code == 3 and not actor.asked


def test_the_critics_share_alone_has_to_have_known_steps(roles: Any, tmp_path: Path) -> None:
    """Of two rows the critic's is a chain; the other's steps nobody asks for."""
    config = roles.Config(critic_share=0.5)
    from llmfw.plugins.critique_loop.stages import for_critic

    theirs = next(row for row in roles.ROWS if for_critic(config, row))
    other = next(row for n in range(99) if not for_critic(config, row := {**PLAIN, "id": f"q{n}"}))
    check(config, roles.run_of(tmp_path), [theirs, other])


def test_models_that_are_not_there_are_told_before_anything_is_loaded(roles: Any, tmp_path: Path) -> None:
    run = roles.run_of(tmp_path, sage=None)
    for key in ("critic", "annotator"):
        check_settings(roles.Config(**{key: "sage"}), run)
        with pytest.raises(LlmfwError, match=rf"error\[NO-MODEL\] critique_loop.{key}: .*'wise'") as caught:
            check_settings(roles.Config(**{key: "wise"}), run)
        assert caught.value.exit_code == 2
    check_settings(roles.Config(critic="none", annotator="wise"), run)  # nobody asks it


def test_settings_that_can_not_be_together_are_told(roles: Any, tmp_path: Path) -> None:
    with pytest.raises(LlmfwError, match=r"error\[NO-ACTOR\].*critique_loop.gold=true") as caught:
        roles.sampled(tmp_path, roles.follower(), critic="trained")
    assert caught.value.exit_code == 2
    run = roles.run_of(tmp_path)
    run.config = SimpleNamespace(models={"critic": object()})
    make = critique_loop(roles.Config(), run)
    with pytest.raises(LlmfwError, match=r"error\[CRITIC-NAME\].*give models.critic another name") as caught:
        make(0, roles.ROWS, None, roles.service, None)
    assert caught.value.exit_code == 2
