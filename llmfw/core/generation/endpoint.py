"""A model behind an OpenAI-compatible server (vLLM, llama.cpp, TGI, OpenAI's own ...) as a policy.

Strings are asked as a user's message, message lists as they are. Tokens are counted as the server counts
them; their ids are not known here, so ``Completion.ids`` stays empty and ``unseen`` has their number.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from torch import Tensor

from llmfw.core.data.tool_calls import for_interface
from llmfw.core.errors import LlmfwError, ResourceError, UsageError
from llmfw.core.generation.policies import TextPolicy
from llmfw.core.generation.prompts import Prompt
from llmfw.core.generation.rows import Done, Watch, missing
from llmfw.core.generation.sampling import Sampling, request_seed
from llmfw.core.records import Completion

_PASSING = (408, 409, 425, 429, 500, 502, 503, 504)
"""Answers of a server after which the same request may succeed."""
_SAID = 200
"""Characters of a server's own message that an error repeats."""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where the server is, and how patiently it is asked. ``key``: the setting that named it, for messages.

    Args:
        url: base URL, with the API's version: ``http://localhost:8000/v1``.
        model: the model's name there.
        api_key_env: environment variable with the key; it's sent as a bearer token and never written down.
        timeout: seconds for one answer.
        retries: further tries after a passing failure, with growing pauses.
        parallel: requests under way at once.
    """

    url: str
    model: str
    api_key_env: str | None = None
    timeout: float = 120.0
    retries: int = 3
    parallel: int = 8
    key: str = "models"

    @property
    def identity(self) -> str:
        """What answers: URL and model."""
        return f"{self.url.rstrip('/')} {self.model}"

    def check(self) -> None:
        """Refuse what can't be asked, before anything is.

        Raises:
            UsageError: no http URL, a key in the URL, a key over an open line, or no such variable.
        """
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
            raise self._wrong("endpoint", f"{self.url!r} is no URL of a server", "write http://HOST:PORT/v1")
        if parts.username or parts.password:
            raise self._wrong("endpoint", "the URL holds a password", "set api_key_env instead")
        if not 0 < self.timeout < float("inf"):
            raise self._wrong("timeout", f"{self.timeout} seconds can't be waited", "write a number above 0")
        if self.retries < 0:
            raise self._wrong("retries", f"{self.retries} tries can't be made", "write 0 or more")
        if not self.model:
            raise self._wrong("name", "the model's name on the server is missing", "set it")
        if self.api_key_env is not None:
            if not os.environ.get(self.api_key_env):
                raise self._wrong(
                    "api_key_env", f"the environment has no {self.api_key_env}", "export it, or set null"
                )
            if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
                raise self._wrong("endpoint", "a key would be sent over an open line", "use https")

    def _wrong(self, key: str, what: str, mend: str) -> UsageError:
        return UsageError("ENDPOINT", what, mend=mend, key=f"{self.key}.{key}")


class EndpointPolicy(TextPolicy):
    """Asks the server; its weights are out of reach, so there are no log-probs of batches and no layers.

    Args:
        endpoint: where to ask.
        sampling: settings of a call that names no others; ``top_k`` is sent only where it's set, as not every
            server knows it. The seed of sample i of a prompt is a function of (seed, its id, i).
    """

    _kind = "a model behind an endpoint"

    def __init__(self, endpoint: Endpoint, sampling: Sampling) -> None:
        endpoint.check()
        super().__init__()
        self.endpoint, self.sampling = endpoint, sampling
        self._session = _session(endpoint)

    def embed(self, texts: Sequence[str]) -> Tensor:
        """[len(texts), D] float32, by the server's ``/embeddings``."""
        import torch

        if not texts:
            return torch.empty(0, 0)
        found = self._post("embeddings", {"model": self.endpoint.model, "input": list(texts)})
        try:
            rows = sorted(found["data"], key=lambda row: int(row["index"]))
            vectors = [list(map(float, row["embedding"])) for row in rows]
        except (KeyError, TypeError, ValueError) as error:
            raise self._foreign("embeddings", error) from error
        if len(vectors) != len(texts):
            raise self._foreign("embeddings", ValueError(f"{len(vectors)} vectors for {len(texts)} texts"))
        return torch.tensor(vectors, dtype=torch.float32)

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        prefix: str | Sequence[str] = "",
        ids: Sequence[str | int] | None = None,
        batch_size: int | None = None,
        watch: Watch | None = None,
        known: Mapping[int, Completion] | None = None,
        done: Done | None = None,
        **sampling: Any,
    ) -> list[Completion]:
        """Answers in the order of the prompts; further keywords are settings of ``Sampling``.

        Raises:
            UsageError: a prompt of token ids, or the beginning of an answer, which the protocol can't carry.
            ResourceError: the server is out of reach, refuses, or answers in another form.
        """
        if any(prefix if not isinstance(prefix, str) else [prefix]):
            raise UsageError(
                "ENDPOINT", "a server can't be given the beginning of an answer",
                mend="use a model of your own for this", key=self.endpoint.key,
            )  # fmt: skip
        settings = self.sampling.but(**sampling)
        names = list(ids) if ids is not None else list(range(len(prompts)))
        asked = [
            self._request(prompt, settings, request_seed(settings.seed, name, sample))
            for prompt, name in zip(prompts, names, strict=True)
            for sample in settings.numbers
        ]
        answers = dict(known or {})
        with ThreadPoolExecutor(max(1, batch_size or self.endpoint.parallel)) as pool:
            futures = {pool.submit(self._answer, asked[index]): index for index in missing(len(asked), known)}
            self.usage.calls += 1
            try:
                for future in as_completed(futures):
                    index = futures[future]
                    answers[index] = future.result()
                    self.usage.prompt_tokens += answers[index].prompt_tokens
                    self.usage.generated_tokens += answers[index].tokens
                    if done is not None:
                        done(index, answers[index])
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return [answers[index] for index in range(len(asked))]

    def _request(self, prompt: Prompt, settings: Sampling, seed: int) -> dict[str, Any]:
        if not isinstance(prompt, str) and prompt and not isinstance(prompt[0], Mapping):
            raise UsageError(
                "ENDPOINT", "a server reads text, not token ids", mend="give strings or messages",
                key=self.endpoint.key,
            )  # fmt: skip
        asked: Any = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        messages, tools = for_interface(asked)
        body: dict[str, Any] = {
            "model": self.endpoint.model,
            "messages": messages,
            "max_tokens": settings.max_new_tokens,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "seed": seed % 2**31,  # servers take 32-bit seeds
        }
        if tools:
            body["tools"] = tools
        if settings.top_k:
            body["top_k"] = settings.top_k
        if settings.stop:
            body["stop"] = list(settings.stop)
        if settings.logps:
            body["logprobs"] = True
        return body

    def _answer(self, body: dict[str, Any]) -> Completion:
        found = self._post("chat/completions", body)
        try:
            choice = found["choices"][0]
            text = choice["message"].get("content") or ""
            usage = found.get("usage") or {}
            finish: Literal["stop", "length"] = (
                "length" if choice.get("finish_reason") == "length" else "stop"
            )
            logps = None
            if body.get("logprobs"):
                logps = tuple(float(token["logprob"]) for token in choice["logprobs"]["content"])
            return Completion(
                text=str(text), ids=(), prompt_tokens=int(usage.get("prompt_tokens", 0)), finish=finish,
                logps=logps, unseen=int(usage.get("completion_tokens", 0)),
            )  # fmt: skip
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise self._foreign("chat/completions", error) from error

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        import requests

        url = f"{self.endpoint.url.rstrip('/')}/{path}"
        try:
            reply = self._session.post(
                url, json=dict(body), timeout=self.endpoint.timeout, allow_redirects=False
            )
        except requests.exceptions.RequestException as error:
            raise ResourceError(
                "ENDPOINT", f"{url} is out of reach ({_short(error)})",
                mend="start the server, or mend its URL", key=f"{self.endpoint.key}.endpoint",
            ) from error  # fmt: skip
        if reply.status_code != 200:
            raise self._refused(url, reply.status_code, " ".join(reply.text.split())[:_SAID])
        try:
            found = reply.json()
        except ValueError as error:
            raise self._foreign(path, error) from error
        if not isinstance(found, dict):
            raise self._foreign(path, TypeError("no object"))
        return found

    def _refused(self, url: str, status: int, said: str) -> LlmfwError:
        key, what = self.endpoint.key, f"{url} answered {status}: {said or 'nothing'}"
        if status in (401, 403):
            return UsageError(
                "ENDPOINT", what, mend="set api_key_env to a variable with a valid key", key=key
            )
        if status == 404:
            return UsageError("ENDPOINT", what, mend="mend the URL or the model's name", key=key)
        if status in _PASSING:
            return ResourceError("ENDPOINT", what, mend="try later, or raise retries and timeout", key=key)
        return UsageError("ENDPOINT", what, mend="mend the request's settings or the URL", key=key)

    def _foreign(self, path: str, error: Exception) -> ResourceError:
        return ResourceError(
            "ENDPOINT", f"/{path} answered in another form than OpenAI's ({type(error).__name__}: {error})",
            mend="name the base URL of a compatible server", key=f"{self.endpoint.key}.endpoint",
        )  # fmt: skip


def _session(endpoint: Endpoint) -> Any:
    """Connections that are kept, and tried again after passing failures, as the server's Retry-After says."""
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    again = Retry(
        total=endpoint.retries,
        backoff_factor=0.5,
        backoff_jitter=0.2,
        status_forcelist=_PASSING,
        allowed_methods=None,
        raise_on_status=False,
        respect_retry_after_header=True,
    )
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=again, pool_maxsize=endpoint.parallel))
    bearer = f"Bearer {os.environ[endpoint.api_key_env]}" if endpoint.api_key_env is not None else None

    def sign(request: Any) -> Any:
        if bearer is not None:
            request.headers["Authorization"] = bearer
        return request

    session.auth = sign  # set in any case: a ~/.netrc would otherwise put its own password in
    return session


def _short(error: Exception) -> str:
    inner: Any = error.args[0] if error.args else error
    reason = getattr(inner, "reason", inner)
    text = " ".join(str(reason).split())
    return (text.rpartition(": ")[2] or text)[:_SAID]
