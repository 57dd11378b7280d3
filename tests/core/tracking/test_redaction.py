"""Secrets don't reach files; a tokenizer's settings do."""

from __future__ import annotations

import pytest

from llmfw.core.tracking import redact, redact_text
from llmfw.core.tracking.redaction import is_secret

# assembled here, so that no scanner takes this file for a leak
HF = "hf_" + "AbCdEfGhIjKlMnOpQrStUvWxYz012345"
AWS = "AKIA" + "ABCDEFGHIJKLMNOP"
JWT = "eyJ" + "hbGciOiJIUzI1NiJ9" + "." + "eyJ" + "zdWIiOiIxMjM0In0" + "." + "c2lnbmF0dXJl"


@pytest.mark.parametrize(
    "key",
    [
        "token",
        "hub.token",
        "hf_token",
        "apiKey",
        "api_key",
        "API-KEY",
        "password",
        "db.passwd",
        "clientSecret",
        "aws_secret_access_key",
        "private_key",
        "AUTH_TOKEN",
        "credentials",
    ],
)
def test_a_key_that_names_a_secret_hides_its_value(key: str) -> None:
    assert redact({key: "correct horse"}) == {key: "***"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pad_token", "<pad>"),
        ("tokenizer.eos_token", "</s>"),
        ("generation.max_new_tokens", 256),
        ("tokens_per_second", 12.5),
        ("tokenizer.name", "byte"),
        ("split_key", "problem"),
        ("data.keys", ["a", "b"]),
        ("trust_remote_code", False),
        ("secret", None),
        ("secretary", "Ada"),
        ("tokenization", "bpe"),
    ],
)
def test_a_key_that_only_sounds_like_one_keeps_its_value(key: str, value: object) -> None:
    assert redact({key: value}) == {key: value}


def test_nested_mappings_and_lists_are_searched() -> None:
    given = {"a": [{"password": "x"}, "https://me:pw@example.org/x"], "b": {"c": {"api_key": 123456}}}
    assert redact(given) == {
        "a": [{"password": "***"}, "https://***@example.org/x"],
        "b": {"c": {"api_key": "***"}},
    }


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("postgresql://me:pa55@db:5432/x", "postgresql://***@db:5432/x"),
        ("sqlite:///runs/mlflow.db", "sqlite:///runs/mlflow.db"),
        ("write to me@example.org", "write to me@example.org"),
        (f"+    login({HF!r})", "+    login('***')"),
        (f"key {AWS} found", "key *** found"),
        (f"cookie={JWT};", "cookie=***;"),
        ("+api_key = 'abcdefgh123'", "+api_key = '***'"),
        ('+  "password": "hunter22"', '+  "password": "***"'),
        ("WANDB_API_KEY=0123456789abcdef", "WANDB_API_KEY=***"),
        ("Authorization: Bearer abcdefghijklmnopqrst", "Authorization: Bearer ***"),
        ("+password = os.environ['PASSWORD']", "+password = os.environ['PASSWORD']"),
        ("+pad_token = '<|endoftext|>'", "+pad_token = '<|endoftext|>'"),
        ("max_new_tokens: 256", "max_new_tokens: 256"),
    ],
)
def test_text_loses_its_secrets_and_nothing_else(text: str, clean: str) -> None:
    assert redact_text(text) == clean


def test_a_private_key_goes_also_where_its_end_was_cut_off() -> None:
    begin = "-----BEGIN " + "RSA PRIVATE KEY-----"
    assert redact_text(f"+{begin}\n+MIIEow\n+abc") == "+***"


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "part",
    [
        "api_key",
        "a.",
        "a://b",
        "eyJ-",
        "eyJaaaaaaaa.",
        "-----BEGIN A",
        "bearer ",
        "hf_",
        "sk-a.",
        "secret=",
        "A",
    ],
)
def test_a_text_made_to_trip_the_patterns_is_searched_to_its_end(part: str) -> None:
    """200,000 characters each; a pattern that goes back and forth takes hours for one of them."""
    assert redact_text(part * (200_000 // len(part)) + "!")


def test_key_names_are_judged_by_their_last_part() -> None:
    assert is_secret("tracking.token")
    assert not is_secret("secrets_plugin.alpha")
