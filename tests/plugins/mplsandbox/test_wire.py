"""Requests and results as JSON: nothing is lost on the way, and nothing odd comes in."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest

from llmfw.testing import plugin_module

RequestError = plugin_module("mplsandbox", "executor").RequestError
Sandbox = plugin_module("mplsandbox", "executor").Sandbox
document = plugin_module("mplsandbox", "openapi").document
Case = plugin_module("mplsandbox", "records").Case
Checker = plugin_module("mplsandbox", "records").Checker
Limits = plugin_module("mplsandbox", "records").Limits
Request = plugin_module("mplsandbox", "records").Request
Result = plugin_module("mplsandbox", "records").Result
BOUNDS = plugin_module("mplsandbox", "wire").BOUNDS
Bounds = plugin_module("mplsandbox", "wire").Bounds
case_of = plugin_module("mplsandbox", "wire").case_of
line_of = plugin_module("mplsandbox", "wire").line_of
parse = plugin_module("mplsandbox", "wire").parse
request_of = plugin_module("mplsandbox", "wire").request_of
result_of = plugin_module("mplsandbox", "wire").result_of
told = plugin_module("mplsandbox", "wire").told
told_request = plugin_module("mplsandbox", "wire").told_request

FULL = Request(
    code="é\ud800\n", lang="python", name="a.py", mode="call", entry_point="f", setup="import x", tests="y",
    cases=(
        Case(stdin=b"\x00\xff", expected=[1.5, None], args=(1, "a"), kwargs={"k": [True]}),
        Case(checker=Checker(name="program", code="c", lang="lua"), limits=Limits(seconds=2.0, wall=3.0)),
    ),
    files={"a/b": b"\x80", "c": "text"}, outputs=("o",), checker=Checker(name="float", tolerance=0.1),
    limits=Limits(memory=64), compile_limits=Limits(seconds=9.0), id="7",
)  # fmt: skip


def test_a_request_comes_back_as_it_went() -> None:
    line = line_of(told_request(FULL))
    assert "\n" not in line
    assert request_of(parse(line)) == FULL
    assert all(getattr(FULL, one.name) != one.default for one in fields(Request))


def test_values_that_json_cannot_say_go_with_marks() -> None:
    row = told_request(Request(code="", cases=[Case(args=[(1, {2}), float("inf")], expected=b"x")]))
    case = row["cases"][0]
    assert case["args"] == [{"$tuple": [1, {"$set": [2]}]}, {"$float": "inf"}]
    assert case["expected"] == {"$bytes": [120]}


def test_a_result_comes_back_as_it_went(sandbox: Sandbox) -> None:
    code = "open('x', 'wb').write(b'\\xff\\x00')"
    files = sandbox.run(code, lang="python", cases=[Case()], outputs=["x"], id="9")
    assert files.cases[0].outputs == {"x": b"\xff\x00"}
    values = sandbox.run(
        "def f(x): return (x, float('nan'))", lang="python", mode="call", entry_point="f",
        cases=[Case(args=[{1: 2}])],
    )  # fmt: skip
    broken = sandbox.run("print(", lang="python", cases=[Case()])
    for result in (files, values, broken):
        row = json.loads(line_of(told(result)))
        assert result_of(row) == result
        assert (row["total"], row["passed"]) == (result.total, result.passed)
    assert told(files)["cases"][0]["outputs"] == {"x": {"base64": "/wA="}}
    assert told(broken)["reward"] == -1.0


@pytest.mark.parametrize(
    ("row", "key", "words"),
    [
        ([], None, "a JSON object is expected, not a list"),
        ({}, "code", "give code"),
        ({"code": 1}, "code", "text is expected, not a whole number"),
        ({"code": "", "langg": "c"}, "langg", "did you mean lang?"),
        ({"code": "", "qqqqqq": 1}, "qqqqqq", "known are code"),
        ({"code": "", "mode": "eval"}, "mode", "use one of stdin, call, tests"),
        ({"code": "", "mode": ["stdin"]}, "mode", "isn't known"),
        ({"code": "", "cases": {}}, "cases", "a list is expected, not an object"),
        ({"code": "", "files": []}, "files", "an object is expected"),
        ({"code": "", "cases": [{"stdn": ""}]}, "cases[0].stdn", "did you mean stdin?"),
        ({"code": "", "cases": [{}, {"stdin": 4}]}, "cases[1].stdin", "not a whole number"),
        ({"code": "", "cases": [{"stdin": {"base64": "%"}}]}, "cases[0].stdin", "aren't bytes"),
        ({"code": "", "cases": [{"stdin": {"base64": "", "x": 1}}]}, "cases[0].stdin", "aren't bytes"),
        ({"code": "", "cases": [{"checker": {"name": "exakt"}}]}, "cases[0].checker.name", "exact"),
        ({"code": "", "files": {"a": None}}, "files.a", "not null"),
        ({"code": "", "files": {"a\ud800": ""}}, "files", "isn't a name"),
        ({"code": "", "limits": {"seconds": True}}, "limits.seconds", "expected, not true or false"),
        ({"code": "", "limits": {"seconds": 0}}, "limits.seconds", "isn't above 0"),
        ({"code": "", "limits": {"seconds": 1e9}}, "limits.seconds", "at most 600"),
        ({"code": "", "limits": {"seconds": 10**400}}, "limits.seconds", "a number is expected"),
        ({"code": "", "limits": {"memory": 1.5}}, "limits.memory", "whole number is expected, not a number"),
        ({"code": "", "limits": {"memory": -1}}, "limits.memory", "isn't above 0"),
        ({"code": "", "limits": None}, "limits", "not null"),
        ({"code": "x" * (BOUNDS.code + 1)}, "code", "are more than 1048576"),
        ({"code": "", "cases": [{}] * 1001}, "cases", "1001 cases are more than 1000"),
    ],
)  # fmt: skip
def test_what_is_odd_is_refused_with_its_key_and_a_remedy(row: Any, key: str | None, words: str) -> None:
    with pytest.raises(RequestError) as caught:
        request_of(row, file="in.jsonl", line=3)
    error = caught.value
    assert (error.key, error.code, error.line, error.exit_code) == (key, "REQUEST", 3, 2)
    assert words in str(error)
    assert "in.jsonl:3" in str(error)


@pytest.mark.parametrize("text", ["{", '{"a": NaN}', "[" * 100_000, "1" * 5000, b"\xff", ""])
def test_a_text_that_is_no_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(RequestError, match="JSON"):
        parse(text)


def test_a_text_that_is_too_long_is_not_even_read() -> None:
    with pytest.raises(RequestError, match="BODY-SIZE"):
        parse("[" * 11, bounds=Bounds(body=10))


def test_arguments_may_be_deep_but_not_bottomless() -> None:
    def deep(levels: int) -> Any:
        return json.loads("[" * levels + "]" * levels)

    assert case_of({"args": deep(60)}).args
    with pytest.raises(RequestError, match=r"args\[0\].*deeper than 64 levels"):
        case_of({"args": [deep(70)]})


def test_a_whole_number_of_seconds_is_a_number_of_seconds() -> None:
    assert request_of({"code": "", "limits": {"seconds": 5, "wall": None}}).limits == Limits(seconds=5.0)
    assert line_of(told_request(Request(code="", limits=Limits(seconds=5)))) == line_of(
        told_request(Request(code="", limits=Limits(seconds=5.0)))
    )


def test_the_description_names_every_field_and_leads_nowhere_else() -> None:
    found = document(BOUNDS)
    schemas = found["components"]["schemas"]
    assert set(schemas["Request"]["properties"]) == {one.name for one in fields(Request)}
    assert schemas["Request"]["required"] == ["code"]
    assert {one.name for one in fields(Result)} < set(schemas["Result"]["properties"])
    assert schemas["Case"]["properties"]["stdin"]["anyOf"][1] == {"$ref": "#/components/schemas/Bytes"}
    assert schemas["Limits"]["properties"]["seconds"]["description"].startswith("CPU time")
    text = json.dumps(found)
    for name in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert name in schemas
    assert set(told_request(FULL)) == set(schemas["Request"]["properties"])
