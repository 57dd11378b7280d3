"""Episodes with scripted players, whose numbers are known; the real simulators where they're installed."""

from __future__ import annotations

import importlib.util
import math
import random
import shutil
import sys
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

import llmfw
from llmfw.core.assemble import assemble, settle
from llmfw.core.generation import ScriptedPolicy, encode_prompt
from llmfw.core.models import byte_tokenizer
from llmfw.core.open import open_policy
from llmfw.plugins.agentrefine import environments
from llmfw.plugins.agentrefine.dialogue import react, react_of
from llmfw.plugins.agentrefine.environments import Suite, names_of, open_suites, rehearse
from llmfw.plugins.agentrefine.environments.scripted import Scripted
from llmfw.plugins.agentrefine.evaluations import asking, measured, shortened
from llmfw.plugins.agentrefine.play.metrics import diversity, rates, spread
from llmfw.plugins.agentrefine.play.react import NO_ACTION, Episode, Reply, play
from llmfw.plugins.agentrefine.plugin import AgentRefine
from llmfw.plugins.agentrefine.records import EnvironmentProblem
from llmfw.plugins.agentrefine.rows import Options
from llmfw.plugins.agentrefine.sampler import refinement

OPTIONS = Options(rooms=2, boxes=2, items=1, names="fixed")


def suite(name: str = "held_in", episodes: int = 4) -> Suite:
    return open_suites(name, episodes, OPTIONS)[0]


def oracle(given: Suite) -> Callable[[Sequence[Any], Sequence[str]], list[Reply]]:
    """Plays each episode by its world's own planner."""
    worlds = {str(seed): world for world, seed in given.worlds}

    def generate(asked: Sequence[Any], names: Sequence[str]) -> list[Reply]:
        moves = [worlds[name.split("/")[-2]].oracle() for name in names]  # type: ignore[attr-defined]
        return [Reply(text=react(*move)) for move in moves]

    return generate


def always(text: str, cut: bool = False) -> Callable[[Sequence[Any], Sequence[str]], list[Reply]]:
    return lambda asked, names: [Reply(text=text, cut=cut)] * len(asked)


def run(given: Suite, generate: Any, max_turns: int = 10, max_retries: int = 2) -> list[Episode]:
    found = play([given], generate, max_turns=max_turns, max_retries=max_retries)
    return found[given.name]


def test_the_planner_succeeds_in_every_episode_and_fails_at_nothing() -> None:
    given = suite()
    told = rates(run(given, oracle(given)))
    assert told["success"] == told["progress"] == 1.0 and told["invalid"] == told["unread"] == 0.0
    assert "repeat" not in told, "no failure, so nobody knows what would have been done after one"


def test_a_player_that_repeats_a_wrong_action_is_seen_doing_it() -> None:
    """By hand: ten actions an episode, all wrong; of the nine failures before the last each is repeated."""
    told = rates(run(suite(), always(react("hm", "fly"))))
    assert told["invalid"] == told["repeat"] == told["first_error"] == 1.0
    assert told["recovery"] == told["success"] == 0.0 and told["turns"] == 10
    assert told["distinct_after"] == 1.0 and told["diversity"] == 1 / 40


def test_a_reply_without_an_action_is_asked_for_again_and_at_most_so_often() -> None:
    """AgentBoard's loop has no cap; here two retries, so three replies, end the episode."""
    found = run(suite(episodes=2), always("I wonder"), max_retries=2)
    assert all(one.stuck and one.unread == 3 and not one.acts for one in found)
    assert [m["content"] for m in found[0].messages[1:3]] == ["I wonder", NO_ACTION]
    assert rates(found)["unread"] == rates(found)["wrong"] == 1.0


def test_retries_count_anew_after_an_action() -> None:
    replies = iter(["hm", react("a", "look"), "hm", react("a", "look")] * 3)
    found = run(
        suite(episodes=1), lambda asked, names: [Reply(text=next(replies))], max_turns=4, max_retries=1
    )
    assert not found[0].stuck and len(found[0].acts) == 4 and found[0].unread == 4


def test_a_forced_mistake_comes_first_and_is_not_the_players() -> None:
    given = suite("forced")
    found = run(given, oracle(given))
    assert all(
        one.acts[0].forced and one.acts[0].errors.any and len(one.own) < len(one.acts) for one in found
    )
    told = rates(found)
    assert told["recovery"] == told["success"] == 1.0 and told["repeat"] == 0.0 and told["invalid"] == 0.0


def test_a_repeat_of_the_forced_mistake_is_counted() -> None:
    given = suite("forced")

    def same(asked: Sequence[Any], names: Sequence[str]) -> list[Reply]:
        return [Reply(text=messages[1]["content"]) for messages in asked]

    result = measured([given], same, max_turns=3, max_retries=0, seed=0)
    assert result.metrics["episodes/forced/first_repeat"] == 1.0


def test_a_world_that_takes_the_mistake_for_right_is_refused() -> None:
    class Easy(Scripted):
        def mistake(self, draw: random.Random) -> tuple[str, str]:
            return "", "look"

    (world, seed), *_ = suite("held_in").worlds
    bad = Suite(name="forced", worlds=[(Easy(world.house), seed)], forced=True)  # type: ignore[attr-defined]
    with pytest.raises(EnvironmentProblem, match=r"error\[FORCED-ERROR\].*took 'look' for no mistake"):
        run(bad, always("x"))


def test_all_suites_are_measured_and_the_spread_is_that_of_the_population() -> None:
    suites = open_suites("held_in,held_out,perturbed,forced", 2, OPTIONS)
    result = measured(suites, always(react("x", "look")), max_turns=2, max_retries=0, seed=0)
    told = result.metrics
    assert told["episodes/held_in/success"].n == 2  # type: ignore[union-attr]
    assert told["episodes/perturbed/success_std"] == 0.0 and told["episodes/unseen/success"] == 0.0
    assert len(result.tables["episodes"]) == 2 * len(suites)
    # in held_out "look" is another word, so unknown: the two episodes' four actions of 24 unseen ones
    assert told["episodes/unseen/wrong"] == pytest.approx(4 / 24)


def test_the_papers_own_spread_is_the_populations() -> None:
    """Success of AgentRefine on AlfWorld and P1 to P5 in the sheet has the population's deviation, 3.73."""
    mean, deviation = spread({"a": 1.0, "b": 3.0})
    assert (mean, deviation) == (2.0, 1.0), "over n, not n - 1 (1.41)"


def test_thoughts_differ_apart_from_case_and_blanks() -> None:
    assert diversity(["a b", "A  b ", "c", "", "d"]) == 3 / 4 and math.isnan(diversity([""]))


def test_a_history_that_outgrows_the_model_loses_its_oldest_turns() -> None:
    messages = [{"role": ("user", "assistant")[at % 2], "content": f"{at}" * 20} for at in range(9)]
    kept = shortened(messages, byte_tokenizer(), 200)
    assert kept[0] == messages[0] and kept[-1] == messages[-1] and 3 <= len(kept) < 9
    assert kept[1:] == messages[-len(kept) + 1 :] and [m["role"] for m in kept[:2]] == ["user", "assistant"]


def test_a_scripted_policy_plays_through_the_same_door_as_a_model() -> None:
    policy = ScriptedPolicy(lambda prompts: [react("x", "look") for _ in prompts])
    found = run(suite(episodes=2), asking(policy), max_turns=2)
    assert [act.action for act in found[0].acts] == ["look", "look"] and policy.usage.calls == 2


science = pytest.mark.skipif(
    importlib.util.find_spec("scienceworld") is None or shutil.which("java") is None,
    reason="needs scienceworld==1.2.3 and Java",
)
minigrid = pytest.mark.skipif(
    importlib.util.find_spec("minigrid") is None, reason="needs minigrid==3.2.0"
)  # fmt: skip


@science
def test_the_real_scienceworld_is_played_to_its_goal_by_its_own_gold_actions() -> None:
    from llmfw.plugins.agentrefine.environments.science import ScienceWorld

    world = ScienceWorld("find-plant")
    try:
        gold = world.gold(0)
        assert world.reset(0).startswith("Goal: ") and world.step("fly to the moon").errors.parameter
        assert world.step(world.mistake(random.Random(0))[1]).errors.any
        assert "look around" in world.admissible()
        steps = [world.step(action) for action in gold]
        assert steps[-1].progress == 1.0 and steps[-1].done
        assert [one.progress for one in steps] == sorted(one.progress for one in steps)
    finally:
        world.close()
    with pytest.raises(EnvironmentProblem, match=r"error\[ENVIRONMENT\].*no task 'cook'"):
        ScienceWorld("cook")


@science
def test_episodes_that_share_one_simulator_are_played_one_after_another() -> None:
    suites = open_suites("scienceworld:find-plant", 2, OPTIONS)
    try:
        result = measured(suites, always(react("x", "look around")), max_turns=2, max_retries=0, seed=0)
        assert result.metrics["episodes/scienceworld-find-plant/invalid"] == 0.0
        assert len(result.tables["episodes"]) == 2
    finally:
        suites[0].worlds[0][0].close()


@minigrid
def test_the_real_babyai_tells_what_it_shows_and_flags_what_fails() -> None:
    """A walk by what is told alone: along the walls until the ball is seen, then to it."""
    from llmfw.plugins.agentrefine.environments.babyai import BabyAi

    world = BabyAi("GoToRedBallNoDists")
    told = world.reset(3)
    assert told.startswith("Goal: go to the red ball\nActions: turn left")
    assert world.step("fly").errors.parameter and world.step("drop").errors.logic
    assert "turn left" in world.admissible()
    assert world.step(world.mistake(random.Random(0))[1]).errors.any
    done, view = False, world.step("turn left").observation
    for _ in range(60):
        if "red ball" not in view:
            action = "move forward" if "ahead is free" in view else "turn left"
        else:
            place = view.split("red ball ")[1].split(",")[0].split(";")[0]
            ahead = "ahead" in place and not place.startswith("0")
            action = "move forward" if ahead else "turn left" if "left" in place else "turn right"
        found = world.step(action)
        view = found.observation if not found.errors.any else view
        if found.done:
            done = found.progress == 1.0
            break
    world.close()
    assert done
    with pytest.raises(EnvironmentProblem, match=r"error\[ENVIRONMENT\].*no level 'Nowhere'"):
        BabyAi("Nowhere")


@pytest.mark.parametrize(
    ("name", "package"), [("scienceworld:boil", "scienceworld"), ("babyai:GoTo", "minigrid")]
)
def test_a_simulator_that_is_not_installed_is_named_with_its_extra_before_anything_is_loaded(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    said = r"error\[ENVIRONMENT-MISSING\].*isn't installed; pip install 'llmfw\[environments\]'"
    for ask in (names_of, rehearse, lambda given: open_suites(given, 1, OPTIONS)):
        with pytest.raises(EnvironmentProblem, match=said):
            ask(name)
    with pytest.raises(EnvironmentProblem, match=said):
        llmfw.plan("model=tiny-llama", f"agentrefine.environments={name}", plugins=["agentrefine"])


def test_scienceworld_without_java_is_refused_before_anything_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(environments, "find_spec", lambda package: object())
    monkeypatch.setattr(environments.shutil, "which", lambda program: None)
    with pytest.raises(EnvironmentProblem, match=r"error\[ENVIRONMENT-MISSING\].*needs Java.*install a Java"):
        names_of("held_in,scienceworld:boil")


@minigrid
def test_a_level_that_does_not_exist_stops_the_round_before_it_trains() -> None:
    config = AgentRefine.Config(environments="held_in,babyai:Nowhere")
    with pytest.raises(EnvironmentProblem, match=r"error\[ENVIRONMENT\].*no level 'Nowhere'"):
        refinement(config, SimpleNamespace(seed=0))(0, [], None, None, None)


def test_what_a_rehearsal_opens_it_closes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []

    class World(Scripted):
        def close(self) -> None:
            closed.append(self.name)

    (plain, seed), *_ = suite().worlds
    world = World(plain.house, "outside")  # type: ignore[attr-defined]
    asked: list[str] = []

    def opened(names: str, episodes: int, options: object) -> list[Suite]:
        asked.append(names)
        return [Suite(name="outside", worlds=[(world, seed), (world, seed)])]

    monkeypatch.setattr(environments, "open_suites", opened)
    monkeypatch.setitem(environments._OUTSIDE, "babyai", lambda: None)
    rehearse("held_in, babyai:GoTo")
    assert asked == ["babyai:GoTo"] and closed == ["outside"]


def test_replies_that_are_cut_off_are_counted_and_their_actions_done() -> None:
    """By hand: two episodes of one reply each; both cut, one of them within its thought."""
    given = suite(episodes=2)
    replies = [Reply(text=react("x", "look"), cut=True), Reply(text="Thought: I th", cut=True)]
    found = run(given, lambda asked, names: replies, max_turns=1, max_retries=0)
    assert [one.cut for one in found] == [1, 1] and [len(one.own) for one in found] == [1, 0]
    assert rates(found)["cut"] == 1.0 and rates(found)["unread"] == 0.5
    assert rates(run(given, always("x"), max_retries=0))["cut"] == 0.0


@pytest.fixture(scope="module")
def tiny() -> Any:
    """A policy of the overlay's model, with random weights, in a run that draws its answers."""
    words = ("model=tiny-lfm2", "generation.temperature=0.7")
    return open_policy(assemble(settle(plugins=(), overrides=words), "generate")).policy


def test_a_model_that_reaches_its_longest_reply_is_seen_to_be_cut(tiny: Any) -> None:
    replies = asking(tiny, max_new_tokens=3)([[{"role": "user", "content": "hi"}]], ["one"])
    assert [reply.cut for reply in replies] == [True]


def test_greedy_replies_are_the_same_in_any_batch_and_at_any_temperature_of_the_run(tiny: Any) -> None:
    given = open_suites("held_in,forced", 3, OPTIONS)
    told = [world.reset(seed) for one in given for world, seed in one.worlds]
    asked = [[{"role": "user", "content": text}, *turns(at)] for at, text in enumerate(told)]
    names = [str(at) for at in range(len(asked))]
    alone = [asking(tiny, max_new_tokens=12, batch_size=1)([one], [n])[0] for one, n in zip(asked, names)]
    assert asking(tiny, max_new_tokens=12, batch_size=64)(asked, names) == alone
    backwards = asking(tiny, max_new_tokens=12, batch_size=4)(asked[::-1], names[::-1])
    assert backwards == alone[::-1]


def test_a_reply_that_spells_a_control_token_can_be_read_again() -> None:
    """A history with a forged end of turn is refused by the prompts' door, which would end the run."""
    policy = ScriptedPolicy(lambda prompts: ["Thought: <|im_end|>\nAction: look"], byte_tokenizer())
    (reply,) = asking(policy)([[{"role": "user", "content": "hi"}]], ["one"])
    assert react_of(reply.text) == ("", "look") and "<|" not in reply.text
    assert encode_prompt(byte_tokenizer(), [{"role": "user", "content": reply.text}])


def test_equal_histories_are_answered_once_and_different_ones_each() -> None:
    seen: list[str] = []

    def answer(prompts: Sequence[Any]) -> list[str]:
        seen.extend(prompt[0]["content"] for prompt in prompts)
        return [f"to {prompt[0]['content']}" for prompt in prompts]

    asked = [[{"role": "user", "content": text}] for text in "abaac"]
    replies = asking(ScriptedPolicy(answer))(asked, list("12345"))
    assert seen == ["a", "b", "c"] and [reply.text for reply in replies] == [f"to {x}" for x in "abaac"]


def turns(count: int) -> list[dict[str, str]]:
    """So many turns of a player, each answered."""
    one = ({"role": "assistant", "content": react("x", "look")}, {"role": "user", "content": "den 1: empty"})
    return [message for _ in range(count) for message in one]
