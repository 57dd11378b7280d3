"""The sandbox over HTTP: right answers to those who may ask, a clear no to the others, and an orderly end."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from llmfw.testing import plugin_module

handler = plugin_module("mplsandbox", "handler")
Sandbox = plugin_module("mplsandbox", "executor").Sandbox
Gate = plugin_module("mplsandbox", "gate").Gate
ServiceError = plugin_module("mplsandbox", "gate").ServiceError
is_loopback = plugin_module("mplsandbox", "gate").is_loopback
token_from = plugin_module("mplsandbox", "gate").token_from
Runs = plugin_module("mplsandbox", "pool").Runs
Isolation = plugin_module("mplsandbox", "records").Isolation
Request = plugin_module("mplsandbox", "records").Request
Result = plugin_module("mplsandbox", "records").Result
Service = plugin_module("mplsandbox", "service").Service
Bounds = plugin_module("mplsandbox", "wire").Bounds
result_of = plugin_module("mplsandbox", "wire").result_of

TOKEN = "0123456789abcdef"
KIND = "Content-Type: application/json"
JSON = {"Content-Type": "application/json"}


class Held:
    """Answers nothing until it may."""

    isolation = Isolation(level="strict", backend="toy")
    jobs = 1

    def __init__(self) -> None:
        self.may = threading.Event()
        self.count = 0

    def run(self, request: Request, /) -> Result:
        self.count += 1
        assert self.may.wait(20)
        if request.code == "bug":
            raise ZeroDivisionError
        return Result(
            lang="python", confidence=1, verdict="OK", compile=None, cases=(), isolation=self.isolation,
            version="1", id=request.id,
        )  # fmt: skip


@contextmanager
def serving(sandbox: Runs, **options: Any) -> Iterator[Service]:
    service = Service(sandbox, port=0, **options)
    service.start()
    try:
        yield service
    finally:
        service.stop(5)


@pytest.fixture(scope="module")
def service(sandbox: Sandbox) -> Iterator[Service]:
    """With the real sandbox."""
    with serving(sandbox, jobs=2, waiting=20, bounds=Bounds(body=1 << 20)) as one:
        yield one


@pytest.fixture
def held() -> Iterator[tuple[Held, Service]]:
    """One program at once, one may wait, and none ends before it may."""
    toy = Held()
    with serving(toy, jobs=1, waiting=1) as one:
        yield toy, one
        toy.may.set()


def connection(service: Service) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(service.url.removeprefix("http://"), timeout=20)


def ask(
    service: Service, path: str, body: Any = None, *, method: str = "", **headers: str
) -> tuple[int, Any, http.client.HTTPMessage]:
    """-> status, body (JSON where it is), headers."""
    one = connection(service)
    data = json.dumps(body) if body is not None and not isinstance(body, bytes) else body
    sent = {
        **(JSON if data is not None else {}),
        **{key.replace("_", "-"): text for key, text in headers.items()},
    }
    one.request(method or ("POST" if data is not None else "GET"), path, data, sent)
    answer = one.getresponse()
    text = answer.read().decode()
    one.close()
    told = json.loads(text) if answer.headers.get_content_type() == "application/json" and text else text
    return answer.status, told, answer.headers


def raw(service: Service, data: bytes) -> bytes:
    """All that comes back on a connection of its own."""
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as client:
        client.sendall(data)
        return b"".join(iter(lambda: client.recv(1 << 16), b""))


def until(true: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


DOUBLE = {"code": "print(int(input()) * 2)", "lang": "python", "cases": [{"stdin": "4", "expected": "8"}]}


# Answers.


def test_a_program_goes_in_and_its_verdict_comes_out(service: Service, sandbox: Sandbox) -> None:
    status, told, headers = ask(service, "/run", {**DOUBLE, "id": "7"})
    result = result_of(told)
    assert (status, result.verdict, result.id, told["reward"]) == (200, "OK", "7", 1.0)
    assert result.cases[0].stdout == "8\n" and result.isolation == sandbox.isolation
    assert headers["Cache-Control"] == "no-store" and headers["X-Content-Type-Options"] == "nosniff"


def test_one_connection_serves_many_requests(service: Service) -> None:
    one = connection(service)
    for path in ("/health", "/languages", "/health"):
        one.request("GET", path)
        answer = one.getresponse()
        assert answer.status == 200 and json.loads(answer.read())
    one.request("POST", "/run", json.dumps(DOUBLE), JSON)
    assert json.loads(one.getresponse().read())["verdict"] == "OK"


def test_a_list_comes_back_line_by_line_each_with_its_place(service: Service) -> None:
    rows = [{**DOUBLE, "cases": [{"stdin": str(n), "expected": "8"}], "id": f"r{n}"} for n in (3, 4, 5)]
    rows.insert(1, {"cod": ""})
    rows.append({"code": "", "lang": "klingon", "id": "k"})
    status, text, headers = ask(service, "/batch", rows)
    lines = sorted(map(json.loads, text.splitlines()), key=lambda one: one["index"])
    assert (status, headers.get_content_type()) == (200, "application/jsonl")
    assert [one.get("verdict") for one in lines] == ["WA", None, "OK", "WA", None]
    assert [one["id"] for one in lines] == ["r3", "", "r4", "r5", "k"]
    assert lines[1]["error"] == {
        "code": "REQUEST", "message": "cod: Request has no key 'cod'", "mend": "did you mean code?",
    }  # fmt: skip
    assert lines[4]["error"]["code"] == "LANGUAGE"


def test_a_lists_first_results_come_before_its_last(service: Service) -> None:
    rows = [{"code": f"import time; time.sleep({s})", "lang": "python", "cases": [{}]} for s in (2, 0)]
    one = connection(service)
    one.request("POST", "/batch", json.dumps(rows), JSON)
    answer = one.getresponse()
    assert json.loads(answer.readline())["index"] == 1
    assert service.pool.running == 1
    assert json.loads(answer.readline())["index"] == 0 and not answer.readline()


def test_an_old_client_gets_a_list_without_chunks(service: Service) -> None:
    body = json.dumps([DOUBLE]).encode()
    head = f"POST /batch HTTP/1.0\r\nHost: localhost\r\n{KIND}\r\nContent-Length: {len(body)}\r\n\r\n"
    answer = raw(service, head.encode() + body)
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["verdict"] == "OK"


def test_what_it_has_and_does_can_be_asked(service: Service, sandbox: Sandbox) -> None:
    ask(service, "/run", {"code": "print(", "lang": "python", "cases": [{}]})
    _, rows, _ = ask(service, "/languages")
    assert {"id": "python", "name": "Python"}.items() <= rows[0].items() and rows[0]["here"]
    status, health, _ = ask(service, "/health")
    assert (status, health["status"], health["jobs"], health["waiting"]) == (200, "ok", 2, 20)
    assert health["done"]["CE"] >= 1 and health["isolation"]["features"] == list(sandbox.isolation.features)
    _, text, headers = ask(service, "/metrics")
    assert headers.get_content_type() == "text/plain"
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(values['llmfw_sandbox_requests_total{verdict="CE"}']) >= 1
    assert float(values['llmfw_sandbox_answers_total{path="/run",status="200"}']) >= 1
    _, described, _ = ask(service, "/openapi.json?x=1")
    assert set(described["paths"]) == set(handler.ROUTES)


# Refusals.


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/run", {"code": "", "langg": ""}, 400, "REQUEST"),
        ("/run", b"{", 400, "REQUEST"),
        ("/run", [DOUBLE], 400, "REQUEST"),
        ("/run", {"code": "x", "lang": "klingon"}, 400, "LANGUAGE"),
        ("/run", {"code": "x", "lang": "python", "mode": "call"}, 400, "REQUEST"),
        ("/batch", DOUBLE, 400, "REQUEST"),
        ("/batch", [{}] * 1001, 400, "REQUEST"),
        ("/nowhere", {}, 404, "PATH"),
        ("/run", None, 405, "METHOD"),
        ("/health", {}, 405, "METHOD"),
        ("/run", b"x" * ((1 << 20) + 1), 413, "BODY-SIZE"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_of_json(
    service: Service, path: str, body: Any, status: int, code: str
) -> None:
    found, told, _ = ask(service, path, body)
    assert (found, told["error"]["code"]) == (status, code)
    assert set(told["error"]) == {"code", "message", "mend"} and all(told["error"].values())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ("Content-Type: text/plain\r\nContent-Length: 2", 415),
        ("Content-Type: application/json;charset=utf-16\r\nContent-Length: 2", 415),
        ("Content-Length: 2", 415),
        ("Content-Type: application/json", 411),
        ("Content-Type: application/json\r\nTransfer-Encoding: chunked", 411),
        ("Content-Type: application/json\r\nContent-Length: 2\r\nTransfer-Encoding: chunked", 411),
        ("Content-Type: application/json\r\nContent-Length: 2\r\nContent-Length: 3", 400),
        ("Content-Type: application/json\r\nContent-Length: -2", 400),
        ("Content-Type: application/json\r\nContent-Length: 99999999999", 413),
        ("Content-Type: application/json\r\nContent-Length: 99999999999\r\nExpect: 100-continue", 413),
    ],
)
def test_a_body_that_will_not_do_is_not_read(service: Service, headers: str, status: int) -> None:
    answer = raw(service, f"POST /run HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n\r\n".encode())
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()) and b"100 Continue" not in answer
    assert b"Connection: close" in answer and json.loads(answer.partition(b"\r\n\r\n")[2])["error"]


@pytest.mark.parametrize(
    "line",
    [
        b"\x16\x03\x01 hello\r\n\r\n",
        b"GET\r\n\r\n",
        b"BREW / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET " + b"/" * 70000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n",
    ],
    ids=["tls", "short", "method", "long", "headers"],
)
def test_what_is_no_http_gets_an_error_and_the_connection_ends(service: Service, line: bytes) -> None:
    answer = raw(service, line)
    assert json.loads(answer.partition(b"\r\n\r\n")[2] or answer)["error"]["code"] == "HTTP"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example:80"}, 403),
        ({"Host": "localhost.evil.example"}, 403),
        ({"Host": "localhost:1"}, 200),
        ({"Host": "[::1]:8020"}, 200),
        ({"Host": "10.0.0.1"}, 403),
        ({"Host": ""}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "localhost:5", "Origin": "http://localhost:6"}, 403),
        ({"Host": "localhost:5", "Origin": "http://localhost:5"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
    ],
)
def test_pages_of_other_sites_are_refused(service: Service, headers: dict[str, str], status: int) -> None:
    assert ask(service, "/health", **headers)[0] == status
    assert ask(service, "/run", DOUBLE, **headers)[0] == status
    assert "Access-Control-Allow-Origin" not in ask(service, "/run", method="OPTIONS", **headers)[2]


def test_a_token_opens_and_another_one_does_not() -> None:
    with serving(Held(), token=TOKEN) as service:
        for shown in (
            {},
            {"Authorization": "Bearer x"},
            {"Authorization": TOKEN},
            {"Authorization": "Bearer é"},
        ):
            status, told, headers = ask(service, "/health", **shown)
            assert (status, told["error"]["code"]) == (401, "TOKEN")
            assert headers["WWW-Authenticate"].startswith("Bearer")
        assert ask(service, "/health", Authorization=f"Bearer {TOKEN}")[0] == 200
        assert ask(service, "/")[0] == ask(service, "/openapi.json")[0] == 200


def test_off_loopback_a_token_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ServiceError, match="there's no token"):
        Service(Held(), host="0.0.0.0", port=0)
    with pytest.raises(ServiceError, match="16 or more"):
        Service(Held(), host="0.0.0.0", port=0, token="short")
    with serving(Held(), host="0.0.0.0", token=TOKEN) as service:
        answer = ask(service, "/health", Authorization=f"Bearer {TOKEN}", Host="sandbox.example")
        assert answer[0] == 200
        assert ask(service, "/health", Host="sandbox.example")[0] == 401
    assert "0123" not in repr(Gate(loopback=True, token=TOKEN))
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    monkeypatch.setenv("LLMFW_SANDBOX_TOKEN", "of the environment")
    assert (token_from(file), token_from(None)) == (TOKEN, "of the environment")
    with pytest.raises(ServiceError, match="TOKEN-FILE"):
        token_from(tmp_path / "absent")
    assert is_loopback("127.9.9.9") and is_loopback("::1") and not is_loopback("0.0.0.0")


def test_a_port_that_is_taken_is_named(service: Service) -> None:
    with pytest.raises(ServiceError, match=r"PORT.*--port"):
        Service(Held(), port=int(service.url.rpartition(":")[2]))


# Too much, too slow, gone.


def test_beyond_its_places_it_says_when_to_come_again(held: tuple[Held, Service]) -> None:
    toy, service = held
    row = {"code": "x", "lang": "python"}
    first = [threading.Thread(target=ask, args=(service, "/run", row)) for _ in range(2)]
    for one in first:
        one.start()
    until(lambda: service.pool.full)
    for path, body in (("/run", row), ("/batch", [row])):
        status, told, headers = ask(service, path, body)
        assert (status, told["error"]["code"]) == (429, "POOL-FULL")
        assert 1 <= int(headers["Retry-After"]) <= 60
    assert ask(service, "/health")[1]["queued"] == 1
    toy.may.set()
    for one in first:
        one.join(10)
    assert ask(service, "/run", row)[0] == 200


def test_a_list_longer_than_the_queue_waits_its_turn(held: tuple[Held, Service]) -> None:
    toy, service = held
    threading.Timer(0.2, toy.may.set).start()
    _, text, _ = ask(service, "/batch", [{"code": "x"}] * 9 + [{"code": "bug"}])
    lines = [json.loads(line) for line in text.splitlines()]
    assert [one.get("verdict") for one in lines] == ["OK"] * 9 + [None]
    assert lines[-1]["error"]["code"] == "BUG"
    assert ask(service, "/run", {"code": "bug"})[0] == 500


def test_who_hangs_up_takes_along_what_waits(
    held: tuple[Held, Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    toy, service = held
    clients = [connection(service) for _ in range(2)]
    for one in clients:
        one.request("POST", "/run", json.dumps({"code": "x"}), JSON)
        time.sleep(0.05)
    until(lambda: service.pool.queued == 1)
    clients[1].close()
    until(lambda: service.pool.queued == 0)
    toy.may.set()
    assert clients[0].getresponse().status == 200
    assert toy.count == 1


def test_a_client_that_dribbles_is_cut_off(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler, "_HEAD", 0.4)
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.settimeout(0.05)
        begun, open_ = time.monotonic(), True
        while open_ and time.monotonic() - begun < 10:
            with suppress(TimeoutError):
                try:
                    client.sendall(b"G")
                    open_ = client.recv(1) != b""
                except ConnectionError:
                    open_ = False
        assert not open_ and time.monotonic() - begun < 5
    head = f"POST /run HTTP/1.1\r\nHost: localhost\r\n{KIND}\r\nContent-Length: 9\r\n\r\n{{".encode()
    assert raw(service, head).startswith(b"HTTP/1.1 408 ")


def test_there_is_a_bound_on_connections(held: tuple[Held, Service]) -> None:
    _, service = held
    host, port = service.url.removeprefix("http://").split(":")
    idle = [socket.create_connection((host, int(port))) for _ in range(1 + 1 + 32)]
    until(lambda: b" 503 " in raw(service, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")[:20])
    for one in idle:
        one.close()
    until(lambda: service.health() is not None and ask_status(service) == 200)


def ask_status(service: Service) -> int:
    try:
        return ask(service, "/health")[0]
    except OSError:
        return 0


def test_while_it_stops_it_ends_what_runs_and_takes_nothing(sandbox: Sandbox) -> None:
    toy = Held()
    service = Service(toy, port=0)
    service.start()
    kept, running = connection(service), connection(service)
    kept.request("GET", "/health")
    assert kept.getresponse().read()
    running.request("POST", "/run", json.dumps({"code": "x"}), JSON)
    until(lambda: service.pool.running == 1)
    ended: list[bool] = []
    stop = threading.Thread(target=lambda: ended.append(service.stop(10)))
    stop.start()
    until(lambda: not service.pool.is_open)
    kept.request("POST", "/run", json.dumps({"code": "x"}), JSON)
    answer = kept.getresponse()
    assert (answer.status, json.loads(answer.read())["error"]["code"]) == (503, "STOPPING")
    with pytest.raises(OSError):
        ask(service, "/health")
    toy.may.set()
    assert running.getresponse().status == 200
    stop.join(10)
    assert ended == [True]
