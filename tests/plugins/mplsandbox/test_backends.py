"""Which backend a level gets, what it says it has, and that nothing steps down in silence."""

from __future__ import annotations

import pytest

from llmfw.testing import plugin_module

RequestError = plugin_module("mplsandbox", "executor").RequestError
Sandbox = plugin_module("mplsandbox", "executor").Sandbox
backends = plugin_module("mplsandbox", "isolation.backends")
PHRASE = plugin_module("mplsandbox", "isolation.backends").PHRASE
SandboxUnavailable = plugin_module("mplsandbox", "isolation.backends").SandboxUnavailable
BindError = plugin_module("mplsandbox", "isolation.backends").BindError
backend = plugin_module("mplsandbox", "isolation.backends").backend
Case = plugin_module("mplsandbox", "records").Case
Limits = plugin_module("mplsandbox", "records").Limits
Request = plugin_module("mplsandbox", "records").Request


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch):
    """``without("bwrap", ...)``: a machine that lacks these programs."""
    found = backends.which

    def lack(*names: str) -> None:
        backends._probe.cache_clear()
        monkeypatch.setattr(backends, "which", lambda one: None if one in names else found(one))

    yield lack
    backends._probe.cache_clear()


def test_each_result_names_what_held_it(sandbox: Sandbox) -> None:
    told = sandbox.run("print(1)", lang="python", cases=[Case()]).isolation
    assert told.backend == "bubblewrap" and told.sandboxed
    assert "seccomp" in told.features and "no capabilities" in told.features


def test_without_bubblewrap_the_wall_is_our_own_and_holds_as_much(sandbox: Sandbox, without) -> None:
    wanted = sandbox.isolation.features
    without("bwrap")
    other = backend("strict")
    assert other.isolation.backend == "unshare"
    assert other.isolation.features == wanted


def test_strict_without_either_is_exit_code_eight_and_names_both(without) -> None:
    without("bwrap", "unshare")
    with pytest.raises(
        SandboxUnavailable, match=r"SANDBOX.*bubblewrap isn't installed.*no unshare"
    ) as caught:
        backend("strict")
    assert caught.value.exit_code == 8 and "apt-get install bubblewrap" in str(caught.value)


def test_paranoid_without_gvisor_names_it_and_takes_nothing_else(without) -> None:
    without("runsc")
    with pytest.raises(SandboxUnavailable, match=r"level paranoid.*gVisor isn't installed.*install runsc"):
        backend("paranoid")


def test_a_wall_that_fails_is_told_with_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    backends._probe.cache_clear()
    monkeypatch.setattr(
        backends.bubblewrap, "command", lambda *_, **__: ["sh", "-c", "echo no namespaces >&2; exit 1"]
    )
    monkeypatch.setattr(backends, "LADDER", {"strict": ("bubblewrap",)})
    with pytest.raises(SandboxUnavailable, match="bubblewrap fails: no namespaces"):
        backend("strict")
    backends._probe.cache_clear()


@pytest.mark.parametrize("phrase", ["", "yes", PHRASE.upper()])
def test_unsafe_needs_the_phrase(phrase: str) -> None:
    with pytest.raises(SandboxUnavailable, match=f"SANDBOX-UNSAFE.*{PHRASE}"):
        Sandbox("unsafe", phrase=phrase)


def test_unsafe_runs_with_limits_and_marks_every_result() -> None:
    sandbox = Sandbox("unsafe", phrase=PHRASE)
    fine = sandbox.run("print(6 * 7)", lang="python", cases=[Case(expected="42")])
    assert fine.verdict == "OK"
    assert (fine.isolation.backend, fine.isolation.sandboxed) == ("none", False)
    slow = Request(code="while True: pass", lang="python", cases=[Case()], limits=Limits(seconds=0.5))
    assert sandbox.run(slow).verdict == "TLE"
    daemon = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(60)"
    assert sandbox.run(daemon, lang="python", cases=[Case()]).cases[0].usage.wall < 30


def test_gvisor_runs_programs_and_calls_but_no_test_programs() -> None:
    try:
        sandbox = Sandbox("paranoid")
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    echo = sandbox.run("print(input())", lang="python", cases=[Case(stdin="a\n", expected="a")])
    assert echo.verdict == "OK" and echo.isolation.backend == "gvisor"
    call = Request(
        code="def f(x): return x * 2", lang="python", mode="call", entry_point="f",
        cases=[Case(args=[4], expected=8)],
    )  # fmt: skip
    assert sandbox.run(call).verdict == "OK"
    flood = sandbox.run("while True: print('x' * 999)", lang="python", cases=[Case()])
    assert flood.verdict == "OLE" and len(flood.cases[0].stdout) == 65536
    with pytest.raises(RequestError, match="level strict"):
        sandbox.run("def f(x): return x", lang="python", mode="tests", entry_point="f", tests="assert f(1)")


def test_a_folder_that_is_bound_can_be_read_at_its_place() -> None:
    """Debian's own list of packages is nothing that a program finds, unless it's bound."""
    code = "import os; print(os.path.isdir('/var/lib/dpkg'))"
    for name in backends.LADDER["strict"]:
        for binds, found in ([], "False\n"), (["/var/lib/dpkg"], "True\n"):
            held = Sandbox(name=name, binds=binds).run(code, lang="python", cases=[Case()])
            assert held.cases[0].stdout == found, (name, binds)


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("/tmp/mine", "it has a /tmp of its own"),
        ("/", "it has a /tmp of its own"),
        ("/nowhere", "/nowhere doesn't exist"),
    ],
)
def test_a_folder_that_programs_could_not_read_is_refused(place: str, why: str) -> None:
    """One below /tmp was once hidden without a word, behind the sandbox's own."""
    with pytest.raises(BindError, match=why) as caught:
        backend("strict", binds=[place])
    assert caught.value.exit_code == 2
