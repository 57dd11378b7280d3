"""An OpenAI-compatible server over real HTTP, answering with a llmfw policy or as it is told to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, Mapping[str, Any] | str]


@contextmanager
def serving(answer: Callable[[str, Mapping[str, Any], Mapping[str, str]], Reply]) -> Iterator[str]:
    """The base URL of a server that answers ``answer(path, body, headers) -> (status, body)``."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, reply = answer(self.path, body, dict(self.headers))
            sent = (reply if isinstance(reply, str) else json.dumps(reply)).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def chat(text: str, *, finish: str = "stop", prompt: int = 3, written: int = 2, **more: Any) -> Reply:
    """A chat completion as OpenAI writes it."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish, **more}
    return 200, {"choices": [choice], "usage": {"prompt_tokens": prompt, "completion_tokens": written}}


def of_policy(policy: Any) -> Callable[[str, Mapping[str, Any], Mapping[str, str]], Reply]:
    """Answers of a local policy: chat completions and embeddings. One request at a time."""
    lock = threading.Lock()

    def answer(path: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> Reply:
        with lock:
            if path.endswith("/embeddings"):
                rows = policy.embed(body["input"]).tolist()
                data = [{"index": index, "embedding": row} for index, row in enumerate(rows)]
                return 200, {"data": data[::-1]}  # a server may answer in any order
            (found,) = policy.generate(
                [body["messages"]],
                max_new_tokens=body["max_tokens"],
                temperature=body["temperature"],
                top_p=body["top_p"],
                logps=bool(body.get("logprobs")),
            )
        logps = {"content": [{"logprob": value} for value in found.logps or ()]}
        return chat(
            found.text,
            finish=found.finish,
            prompt=found.prompt_tokens,
            written=len(found.ids),
            logprobs=logps,
        )

    return answer
