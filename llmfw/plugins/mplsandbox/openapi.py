"""The service told as OpenAPI 3.1, made from the records that it reads and writes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, Literal, get_args, get_origin

from .executor import VERSION
from .records import Case, Checker, Isolation, Limits, Request, Result, Stage, Usage
from .wire import Bounds, hints, options

_INPUTS = (Request, Case, Checker, Limits)
_OUTPUTS = (Result, Stage, Usage, Isolation)
_PLAIN: Mapping[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    bytes: {"$ref": "#/components/schemas/Bytes"},
    type(None): {"type": "null"},
    Any: {},
}
_ERRORS = {
    400: "the request makes no sense, or its language isn't known or isn't here",
    401: "no token, or another one",
    403: "another site's page asks, or the host's name isn't this machine's",
    404: "there's no such path",
    405: "the path has other methods",
    408: "the request didn't arrive in time",
    411: "there's no Content-Length",
    413: "the body is too long",
    415: "the body isn't application/json",
    429: "all places are taken; Retry-After says when to try again",
    503: "the service is being stopped, or has too many connections",
}


def schema(kind: Any) -> dict[str, Any]:
    """The JSON schema of a type."""
    several = options(kind)
    if len(several) > 1:
        return {"anyOf": [schema(one) for one in several]}
    if is_dataclass(kind) and isinstance(kind, type):
        return _ref(kind.__name__)
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return {"type": "string", "enum": list(inner)}
    if origin in (Sequence, tuple):
        return {"type": "array", "items": schema(inner[0])}
    if origin is Mapping:
        return {"type": "object", "additionalProperties": schema(inner[1])}
    return dict(_PLAIN[kind])


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _record(kind: Any) -> dict[str, Any]:
    """A dataclass as the schema of an object; words from its docstring."""
    text = kind.__doc__ or ""
    about, _, attributes = text.partition("Attributes:")
    known = hints(kind)
    found: dict[str, Any] = {
        "type": "object",
        "description": _words(about),
        "properties": {
            one.name: {**schema(known[one.name]), **_default(one), **_about(attributes, one.name)}
            for one in fields(kind)
        },
        "additionalProperties": False,
    }
    wanted = [one.name for one in fields(kind) if one.default is MISSING and one.default_factory is MISSING]
    return {**found, "required": wanted} if wanted else found


def _words(text: str) -> str:
    return " ".join(text.replace("``", "`").split())


def _default(one: Field[Any]) -> dict[str, Any]:
    value = one.default
    return {"default": value} if isinstance(value, str | int | float) or value is None else {}


def _about(attributes: str, name: str) -> dict[str, str]:
    found = re.search(rf"^ +{name}: (.*?)(?=^ +\w+: |\Z)", attributes, re.MULTILINE | re.DOTALL)
    return {"description": _words(found[1])} if found else {}


def _answer(about: str, content: str = "application/json", **schema: Any) -> dict[str, Any]:
    return {"description": about, "content": {content: {"schema": schema or {"type": "object"}}}}


def _errors(*statuses: int) -> dict[str, Any]:
    return {str(one): _answer(_ERRORS[one], **_ref("Error")) for one in (*statuses, 401, 403)}


def document(bounds: Bounds) -> dict[str, Any]:
    """The whole description."""
    result = _record(Result)
    result["properties"] |= {
        "passed": {"type": "integer", "description": "Cases that were accepted."},
        "total": {"type": "integer", "description": "All cases."},
        "pass_rate": {"type": "number", "description": "Share of cases that were accepted."},
        "reward": {"type": ["number", "null"], "description": "Null where the sandbox itself failed."},
    }
    schemas = {one.__name__: _record(one) for one in (*_INPUTS, *_OUTPUTS)} | {
        "Result": result,
        "Bytes": {
            "type": "object", "properties": {"base64": {"type": "string", "contentEncoding": "base64"}},
            "required": ["base64"], "additionalProperties": False,
        },
        "Error": {
            "type": "object",
            "properties": {
                "error": {
                    "type": "object",
                    "properties": {key: {"type": "string"} for key in ("code", "message", "mend")},
                    "required": ["code", "message", "mend"],
                }
            },
            "required": ["error"],
        },
    }  # fmt: skip
    schemas["Request"]["properties"]["code"]["maxLength"] = bounds.code
    schemas["Request"]["properties"]["cases"]["maxItems"] = bounds.cases
    for name, most in vars(bounds.limits).items():
        schemas["Limits"]["properties"][name] |= {"exclusiveMinimum": 0, "maximum": most}
    posts = _errors(400, 408, 411, 413, 415, 429, 503)
    batch = "One JSON object a line as each ends: a Result or an Error, with the request's place as `index`."
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "llmfw sandbox", "version": VERSION,
            "description": "Runs programs that nobody trusts, and says what became of them.",
        },
        "paths": {
            "/run": {"post": {
                "summary": "Run one request.",
                "requestBody": {"required": True, "content": {"application/json": {
                    "schema": _ref("Request"),
                }}},
                "responses": {"200": _answer("What became of it.", **_ref("Result")), **posts},
            }},
            "/batch": {"post": {
                "summary": f"Run up to {bounds.cases} requests.",
                "requestBody": {"required": True, "content": {"application/json": {
                    "schema": {"type": "array", "items": _ref("Request"), "maxItems": bounds.cases},
                }}},
                "responses": {"200": _answer(batch, "application/jsonl", type="string"), **posts},
            }},
            "/languages": {"get": {
                "summary": "Languages, and which of them this machine has.",
                "responses": {"200": _answer("A list.", type="array", items={"type": "object"}), **_errors()},
            }},
            "/health": {"get": {
                "summary": "What holds programs, what runs and waits, and what was done.",
                "responses": {"200": _answer("It takes requests."), **_errors(),
                              "503": _answer("It's being stopped.")},
            }},
            "/metrics": {"get": {
                "summary": "The same as Prometheus reads it.",
                "responses": {"200": _answer("Metrics.", "text/plain", type="string"), **_errors()},
            }},
            "/openapi.json": {"get": {"summary": "This.", "security": [],
                                      "responses": {"200": _answer("OpenAPI 3.1.")}}},
            "/": {"get": {"summary": "A page to try programs on.", "security": [],
                          "responses": {"200": _answer("HTML.", "text/html", type="string")}}},
        },
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}, {}],
    }  # fmt: skip
