"""So many at once, so many waiting, and a clear no beyond that."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from llmfw.testing import plugin_module

Sandbox = plugin_module("mplsandbox", "executor").Sandbox
LanguageError = plugin_module("mplsandbox", "languages").LanguageError
Pool = plugin_module("mplsandbox", "pool").Pool
PoolClosed = plugin_module("mplsandbox", "pool").PoolClosed
PoolFull = plugin_module("mplsandbox", "pool").PoolFull
Case = plugin_module("mplsandbox", "records").Case
Isolation = plugin_module("mplsandbox", "records").Isolation
Request = plugin_module("mplsandbox", "records").Request
Result = plugin_module("mplsandbox", "records").Result


class Toy:
    """Runs nothing: answers when it may, and remembers how many it had at once."""

    isolation = Isolation(level="strict", backend="toy")
    jobs = 2

    def __init__(self, *, held: bool = False, seconds: float = 0.0) -> None:
        self.may, self.seconds = threading.Event(), seconds
        self.now = self.most = 0
        self.seen: list[str] = []
        self._lock = threading.Lock()
        if not held:
            self.may.set()

    def run(self, request: Request, /) -> Result:
        with self._lock:
            self.now, self.most = self.now + 1, max(self.most, self.now + 1)
            self.seen.append(request.code)
        assert self.may.wait(20)
        time.sleep(self.seconds)
        with self._lock:
            self.now -= 1
        if request.code == "bad":
            raise LanguageError("LANGUAGE", "none", mend="name one")
        return Result(
            lang="python", confidence=1, verdict="OK", compile=None, cases=(), isolation=self.isolation,
            version="1", id=request.id,
        )  # fmt: skip


def asked(number: int) -> Request:
    return Request(code=str(number), id=str(number))


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_beyond_those_that_run_and_wait_there_is_a_no() -> None:
    toy = Toy(held=True)
    pool = Pool(toy, jobs=2, waiting=3)
    futures = [pool.submit(asked(n)) for n in range(5)]
    until(lambda: pool.running == 2)
    assert (pool.queued, pool.full) == (3, True)
    with pytest.raises(PoolFull, match="2 requests run and 3 wait"):
        pool.submit(asked(5))
    assert not pool.wait_for_room(0.01)
    toy.may.set()
    assert [one.result(10).id for one in futures] == list("01234")
    assert pool.wait_for_room(1) and toy.most == 2 and pool.done == {"OK": 5}


def test_who_takes_a_waiting_request_back_makes_room() -> None:
    toy = Toy(held=True)
    pool = Pool(toy, jobs=1, waiting=1)
    first, second = pool.submit(asked(0)), pool.submit(asked(1))
    until(lambda: pool.running == 1)
    assert second.cancel() and not first.cancel()
    third = pool.submit(asked(2))
    toy.may.set()
    assert third.result(10).id == "2" and toy.seen == ["0", "2"]


def test_results_come_in_order_and_requests_are_taken_only_as_there_is_room() -> None:
    taken = 0

    def requests() -> Iterator[Request]:
        nonlocal taken
        for number in range(40):
            taken += 1
            yield asked(number)

    pool = Pool(Toy(seconds=0.002), jobs=3, waiting=2)
    for at, result in enumerate(pool.map(requests())):
        assert result.id == str(at)
        assert taken - at <= 3 + 2 + 1


def test_an_error_is_the_requests_own() -> None:
    with Pool(Toy()) as pool:
        bad, fine = pool.submit(Request(code="bad")), pool.submit(asked(1))
        with pytest.raises(LanguageError):
            bad.result(10)
        assert fine.result(10).verdict == "OK"
    assert pool.done == {"error": 1, "OK": 1}


def test_draining_lets_all_end_and_takes_no_more() -> None:
    toy = Toy(held=True)
    pool = Pool(toy, jobs=1)
    futures = [pool.submit(asked(n)) for n in range(3)]
    threading.Timer(0.1, toy.may.set).start()
    assert pool.drain(10)
    assert all(one.done() for one in futures)
    with pytest.raises(PoolClosed):
        pool.submit(asked(3))


def test_draining_ends_in_time_and_cancels_those_that_wait() -> None:
    toy = Toy(held=True)
    pool = Pool(toy, jobs=1)
    running, waiting = pool.submit(asked(0)), pool.submit(asked(1))
    begun = time.monotonic()
    assert not pool.drain(0.1)
    assert time.monotonic() - begun < 5
    assert waiting.cancelled() and not running.done()
    toy.may.set()
    assert running.result(10).id == "0"


def test_a_thousand_coroutines_share_one_place() -> None:
    async def main() -> list[str]:
        pool = Pool(toy, jobs=1, waiting=0)
        return [one.id for one in await asyncio.gather(*(pool.arun(asked(n)) for n in range(1000)))]

    toy = Toy()
    assert asyncio.run(main()) == [str(n) for n in range(1000)]
    assert toy.most == 1


def test_a_coroutine_that_is_cancelled_passes_its_turn_on() -> None:
    async def main() -> None:
        pool = Pool(toy, jobs=1, waiting=0)
        tasks = [asyncio.create_task(pool.arun(asked(n))) for n in range(6)]
        await asyncio.sleep(0.05)
        for task in tasks[1:5]:
            task.cancel()
        toy.may.set()
        done = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
        assert [isinstance(one, Result) for one in done] == [True, False, False, False, False, True]

    toy = Toy(held=True)
    asyncio.run(main())


@pytest.mark.parametrize("ordered", [True, False])
def test_an_event_loop_gets_results_as_they_come(ordered: bool) -> None:
    async def main() -> list[str]:
        pool = Pool(Toy(seconds=0.001), jobs=4, waiting=2)
        return [one.id async for one in pool.amap(map(asked, range(50)), ordered=ordered)]

    found = asyncio.run(main())
    assert (found if ordered else sorted(found, key=int)) == [str(n) for n in range(50)]


def test_a_loop_that_is_left_early_leaves_nothing_waiting() -> None:
    async def main() -> None:
        results = pool.amap(map(asked, range(50)))
        async for _ in results:
            break
        await results.aclose()  # type: ignore[attr-defined]  # an async generator

    pool = Pool(Toy(seconds=0.01), jobs=1, waiting=5)
    asyncio.run(main())
    until(lambda: not pool.running and not pool.queued)
    assert pool.done.total() < 10


def test_programs_give_the_same_verdicts_as_one_after_another(sandbox: Sandbox) -> None:
    codes = ["print(7)", "print(8)", "1/0", "print("] * 3
    requests = [Request(code=code, lang="python", cases=[Case(expected="7")]) for code in codes]
    with Pool(sandbox, jobs=3, waiting=2) as pool:
        assert [one.verdict for one in pool.map(requests)] == ["OK", "WA", "RE", "CE"] * 3

    async def main() -> list[str]:
        return [one.verdict async for one in Pool(sandbox, 2).amap(requests[:4])]

    assert asyncio.run(main()) == ["OK", "WA", "RE", "CE"]
