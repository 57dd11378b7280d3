"""Secrets stay out of what is printed and logged."""

from __future__ import annotations

import pytest

from llmfw.core.redact import HIDDEN, is_secret_key, redact, redact_text


@pytest.mark.parametrize(
    "key",
    [
        "token",
        "hf_token",
        "hub.accessToken",
        "api_key",
        "apiKey",
        "aws.secret_access_key",
        "db_password",
        "PASSWORD",
        "private_key",
        "credentials.user",
        "tags.Authorization",
        "auth_token",
        "secret",
        "list.passwords.secret[0]",
    ],
)
def test_keys_that_name_secrets_are_known(key: str):
    assert is_secret_key(key)


@pytest.mark.parametrize(
    "key",
    [
        "tokenizer.name",
        "generation.max_new_tokens",
        "pad_token",
        "model.config.eos_token_id",
        "data.split_key",
        "model.config.bos_token",
        "num_key_value_heads",
        "key",
        "keyboard",
        "secretary",
        "next_token",
        "max_tokens",
    ],
)
def test_keys_of_language_models_are_no_secrets(key: str):
    assert not is_secret_key(key)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("https://me:pass@host:5000/path?x=1", f"https://{HIDDEN}@host:5000/path?x=1"),
        ("postgresql+psycopg://u:p%40ss@db/x", f"postgresql+psycopg://{HIDDEN}@db/x"),
        ("https://glpat-abc@host/repo.git", f"https://{HIDDEN}@host/repo.git"),
        ("https://host/a?X-Amz-Signature=abc&b=2", f"https://host/a?X-Amz-Signature={HIDDEN}&b=2"),
        ("https://host/?access_token=abc#top", f"https://host/?access_token={HIDDEN}#top"),
        ("use hf_abcdefghijklmnopqrstuvwx please", f"use {HIDDEN} please"),
        ("Bearer abc.def", f"Bearer {HIDDEN}"),
        ("sqlite:///runs/mlflow.db", "sqlite:///runs/mlflow.db"),
        ("mail me@host.org", "mail me@host.org"),
        ("runs/sk-demo", "runs/sk-demo"),
    ],
)
def test_urls_and_known_tokens_lose_their_secrets_only(text: str, kept: str):
    assert redact_text(text) == kept


def test_nested_and_listed_values_are_hidden_and_the_original_stays():
    flat = {
        "tags": {"password": "x", "note": "y"},
        "urls": ["http://a:b@c"],
        "api_key": 5,
        "empty_token": None,
    }
    assert redact(flat) == {
        "tags": {"password": HIDDEN, "note": "y"},
        "urls": [f"http://{HIDDEN}@c"],
        "api_key": HIDDEN,
        "empty_token": None,
    }
    assert flat["tags"] == {"password": "x", "note": "y"}
